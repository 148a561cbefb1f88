import pytest
import torch
from torch import nn

from sgbench.core.errors import InputError
from sgbench.core.registry import LOSSES
from sgbench.losses import Batch, WeightedSum, build_loss, register_loss
from sgbench.losses.gradient import SecondOrderGradient
from sgbench.spec import check_loss


class Seen(nn.Module):
    """Notes what it is given, and whether autocast is on."""

    def __init__(self, *, factor: float = 1.0, also: object = None):
        super().__init__()
        self.also = also
        if factor < 0:
            raise ValueError("no factor below 0")
        self.factor = factor
        self.calls = []

    def forward(self, sr, hr):
        self.calls.append((sr.dtype, hr.dtype, torch.is_autocast_enabled("cpu")))
        return self.factor * (sr @ hr).mean()


def batch(sr, hr):
    return Batch(hr.detach(), sr, hr, scale=1, step=3, steps=10)


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    sr, hr = torch.rand((2, 2, 3, 6, 6), generator=generator)
    return sr.requires_grad_(), hr


def test_l1_is_the_mean_absolute_difference(pair):
    total, terms = build_loss(check_loss("l1"))(batch(*pair))
    assert total.item() == terms.item() == pytest.approx((pair[0] - pair[1]).abs().mean().item())


def test_the_sum_is_weighted_and_the_terms_are_not(pair):
    loss = build_loss(check_loss("2*sg(order=1) + 0.5*l1 + sg"))
    assert loss.names == ["l1", "sg", "sg(order=1)"]
    assert loss.weights == [0.5, 1.0, 2.0]
    total, terms = loss(batch(*pair))
    alone = [(pair[0] - pair[1]).abs().mean(), SecondOrderGradient()(*pair), SecondOrderGradient(order=1)(*pair)]
    torch.testing.assert_close(terms, torch.stack(alone).detach())
    torch.testing.assert_close(total, 0.5 * alone[0] + alone[1] + 2 * alone[2])
    assert (total.shape, terms.shape) == ((), (3,))


def test_gradients_flow_through_the_sum_alone(pair):
    sr, hr = pair
    total, terms = build_loss(check_loss("0.5*l1 + 3*sg"))(batch(sr, hr))
    assert not terms.requires_grad
    (gradient,) = torch.autograd.grad(total, sr)
    expected = 0.5 * torch.autograd.grad((sr - hr).abs().mean(), sr)[0]
    expected = expected + 3 * torch.autograd.grad(SecondOrderGradient()(sr, hr), sr)[0]
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_are_computed_in_float32_outside_autocast(pair, dtype):
    seen = Seen()
    with torch.autocast("cpu", torch.bfloat16):
        total, terms = WeightedSum([("seen", 2.0, seen)])(batch(pair[0].to(dtype), pair[1]))
    assert seen.calls == [(torch.float32, torch.float32, False)]
    assert total.dtype == terms.dtype == torch.float32


def test_options_reach_the_loss(pair):
    loss = build_loss(check_loss(f"{__name__}:Seen(factor=3)"))
    assert loss.names == [f"{__name__}:Seen(factor=3.0)"]
    assert loss.losses[0].factor == 3.0
    for written, value in (("[1, 0.5]", (1, 0.5)), ("'two words'", "two words"), ("./net.pt", "./net.pt")):
        assert build_loss(check_loss(f"{__name__}:Seen(also={written})")).losses[0].also == value


def test_a_registered_loss_is_known_by_its_name(pair, monkeypatch):
    monkeypatch.setattr(LOSSES, "_loaded", dict(LOSSES._loaded))
    register_loss("seen")(Seen)
    assert build_loss(check_loss("l1 + 0.1*seen(factor=2)")).names == ["l1", "seen(factor=2.0)"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sg(order=3)", "loss 'sg': order is 3; 1 or 2 is needed."),
        ("sg(order=1.5)", "loss 'sg': order is 1.5; 1 or 2 is needed."),
        ("sg(order=true)", "loss 'sg': order is True; 1 or 2 is needed."),
        ("sg(eps=0)", "loss 'sg': eps is 0.0; a number from 1e-30 to below 1 is needed."),
        ("sg(operator=prewitt)", "loss 'sg': operator is 'prewitt'; one of central, sobel, sobel-raw is needed."),
        ("sg(operator=3)", "loss 'sg': operator is 3; one of central, sobel, sobel-raw is needed."),
        (f"{__name__}:Seen(factor=-1)", f"loss '{__name__}:Seen': ValueError: no factor below 0."),
    ],
)
def test_a_value_that_a_loss_refuses_is_bad_input(text, message):
    with pytest.raises(InputError) as error:
        build_loss(check_loss(f"l1 + {text}"))
    assert str(error.value) == message
