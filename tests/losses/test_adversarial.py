import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published import FILE, gradients, logits
from torch import nn

from sgbench.core.errors import InputError
from sgbench.losses import build_loss
from sgbench.losses.adversarial import KINDS, Adversarial
from sgbench.spec import check_loss

PUBLISHED = json.loads(FILE.read_text(encoding="utf-8"))["kinds"]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_part = pytest.mark.parametrize("part", ["network", "real", "fake"])

levels = st.floats(0.01, 0.99)
"""Of logits: between the targets of lsgan, where hinge is not flat."""


class Brightness(nn.Module):
    """Its logits are the means of images times a factor."""

    def __init__(self, *, features=64):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))
        self.calls = []

    def forward(self, images):
        self.calls.append((images.dtype, torch.is_autocast_enabled("cpu")))
        return self.factor * images.mean((1, 2, 3))


def adversary(kind="vanilla", **options):
    return Adversarial(discriminator=f"{__name__}:Brightness", kind=kind, **options)


def images(seed=0):
    return torch.rand((2, 3, 4, 4), generator=torch.Generator().manual_seed(seed))


@every_kind
@every_part
def test_it_has_the_value_and_the_gradients_of_the_published_one(kind, part):
    """Except that in a relativistic loss BasicSR cuts the gradient of the discriminator's means, as ESRGAN does not."""
    found, published = gradients(getattr(KINDS[kind], part)), PUBLISHED[kind][part]
    assert found["value"] == pytest.approx(published["value"], rel=Adversarial.difference)
    of_real, of_fake = zip(found["gradients"], published["gradients"], strict=True)
    own = [of_real, of_fake] if kind != "relativistic" else []
    alike = [of_fake] if part == "network" else own  # for the network, HR gets none
    for ours, theirs in (map(torch.tensor, pair) for pair in alike):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=Adversarial.difference * theirs.abs().max().item())


@every_part
def test_the_gradient_of_a_relativistic_loss_goes_through_the_means(part):
    leaves = [each.double().requires_grad_() for each in logits()]
    assert torch.autograd.gradcheck(getattr(KINDS["relativistic"], part), leaves)


@every_kind
@settings(max_examples=25)
@given(real=levels, fake=levels)
def test_the_network_and_its_adversary_want_opposite_things(kind, real, fake):
    hr, sr = torch.full((3,), real), torch.full((3,), fake).requires_grad_()
    (wanted,) = torch.autograd.grad(KINDS[kind].network(hr, sr), sr)
    (feared,) = torch.autograd.grad(KINDS[kind].real(hr, sr) + KINDS[kind].fake(hr, sr), sr)
    assert (wanted < 0).all()
    assert (feared > 0).all()


@settings(max_examples=25)
@given(shift=st.floats(-8, 8))
def test_only_differences_of_logits_are_relativistic(shift):
    hr, sr = logits()
    for part in KINDS["relativistic"]:
        if callable(part):
            torch.testing.assert_close(part(hr + shift, sr + shift), part(hr, sr), rtol=1e-4, atol=1e-5)


def test_a_discriminator_that_tells_nothing_has_the_losses_of_a_coin():
    coin = torch.zeros(4)
    for kind, factor in (("vanilla", 1), ("relativistic", 0.5)):
        assert KINDS[kind].real(coin, coin).item() == pytest.approx(factor * math.log(2))
        assert KINDS[kind].fake(coin, coin).item() == pytest.approx(factor * math.log(2))


@every_kind
def test_the_network_gets_a_gradient_and_the_discriminator_lowers_its_terms(kind):
    loss, hr, sr = adversary(kind), images(), images(1).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(sr, hr), sr)
    assert gradient.any()
    terms = loss.own_terms(sr.detach(), hr)
    assert tuple(terms) == loss.own_names
    (slope,) = torch.autograd.grad(sum(terms.values()), loss.parameters())
    assert slope != 0


def test_its_optimizer_has_its_rate():
    loss = adversary(lr=3e-4, beta1=0.5, beta2=0.99)
    optimizer = loss.optimizer(list(loss.parameters()))
    assert optimizer.defaults["lr"] == 3e-4
    assert optimizer.defaults["betas"] == (0.5, 0.99)
    assert [each is loss.discriminator.factor for group in optimizer.param_groups for each in group["params"]] == [True]


@pytest.mark.parametrize(("ahead", "ratio"), [(0, 1), (3, 1), (0, 2), (3, 2), (1, 5)])
def test_the_network_waits_in_the_steps_of_basicsr(ahead, ratio):
    loss = adversary(ahead=ahead, ratio=ratio)
    for step in range(20):
        current_iter = step + 1
        trains = current_iter % ratio == 0 and current_iter > ahead
        assert loss.waits(step) != trains


def test_options_reach_it_through_an_expression():
    loss = build_loss(check_loss("l1 + 0.005*gan(discriminator=patch, kind=hinge, features=2, lr=0.001, ratio=2)"))
    assert loss.names == ["gan(discriminator=patch, features=2, kind=hinge, lr=0.001, ratio=2)", "l1"]
    adversarial = loss.losses[0]
    assert (adversarial.kind, adversarial.lr, adversarial.ratio) == ("hinge", 0.001, 2)
    assert adversarial.discriminator.model[0].out_channels == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("kind=wgan", "kind is 'wgan'; one of vanilla, lsgan, hinge, relativistic is needed."),
        ("kind=2", "kind is '2'; one of vanilla, lsgan, hinge, relativistic is needed."),
        ("features=0", "features is 0; a whole number from 1 is needed."),
        ("features=1.5", "features is 1.5; a whole number from 1 is needed."),
        ("features=true", "features is True; a whole number from 1 is needed."),
        ("lr=0", "lr is 0.0; a number between 0 and 1 is needed."),
        ("beta1=1", "beta1 is 1.0; a number from 0 to below 1 is needed."),
        ("beta2=-0.1", "beta2 is -0.1; a number from 0 to below 1 is needed."),
        ("ahead=-1", "ahead is -1; a whole number from 0 is needed."),
        ("ratio=0", "ratio is 0; a whole number from 1 is needed."),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(InputError) as error:
        build_loss(check_loss(f"gan({options})"))
    assert str(error.value) == f"loss 'gan': {message}"
