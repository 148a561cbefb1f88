"""What one step does, and what losses can ask for."""

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate, pixel_shuffle
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sgbench.core.errors import InputError
from sgbench.spec import RunSpec
from sgbench.training.method import Supervised

CPU = torch.device("cpu")


class Curious(nn.Module):
    """Notes what it is given."""

    layers = ("body.0",)

    def __init__(self):
        super().__init__()
        self.seen = {}

    def forward(self, sr, hr, *, lr, scale, step, steps, features, unknown=None):
        self.seen = {"lr": lr, "scale": scale, "step": step, "steps": steps, "features": dict(features)}
        return (sr - interpolate(lr, scale_factor=scale)).abs().mean() + features["body.0"].square().mean()


class Greedy(nn.Module):
    def forward(self, sr, hr, *, wallet):
        return (sr - hr).abs().mean()


class Elsewhere(Curious):
    layers = ("boddy",)


class Adversary(nn.Module):
    """Its parameter is the mean of what it judges; it is lowered by one kind of step and not by the other."""

    own_names = ("error",)

    def __init__(self, *, returns: str = "error"):
        super().__init__()
        self.returns = returns
        self.guess = nn.Parameter(torch.zeros(3, 1, 1))

    def forward(self, sr, hr):
        return (sr - self.guess).square().mean()

    def own_terms(self, sr, hr):
        return {self.returns: (hr - self.guess).square().mean()}

    def optimizer(self, parameters):
        return torch.optim.SGD(parameters, lr=0.5)


class Judge(nn.Module):
    """A discriminator that notes what it is given."""

    def __init__(self, *, features):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features, 1, 1))
        self.seen = []

    def forward(self, images):
        self.seen.append((images.dtype, torch.is_autocast_enabled("cpu"), self.weight.requires_grad))
        return (images * self.weight).mean((1, 2, 3))


class Weighing(nn.Module):
    """A loss with a parameter and no optimizer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.constant = nn.Parameter(torch.ones(7), requires_grad=False)

    def forward(self, sr, hr):
        self.calls += 1
        return (sr - hr).abs().mean() * self.weight.exp()


class Dropping(nn.Module):
    """A network with dropout."""

    def __init__(self, *, scale):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.Dropout(0.5))

    def forward(self, lr):
        return pixel_shuffle(self.layers(lr), 4)


def method(loss, backbone="edsr-tiny", **recipe):
    fields = {"backbone": backbone, "loss": loss, "seed": 0, "train": {"name": "any"}}
    return Supervised(RunSpec.model_validate(fields | {"recipe": {"steps": 9} | recipe}), CPU)


@pytest.fixture
def patches():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 8, 8, generator=generator), torch.rand(2, 3, 32, 32, generator=generator)


class InPlace(nn.Module):
    """A network that writes into its input."""

    def __init__(self, *, scale):
        super().__init__()
        self.scale, self.body = scale, nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 3, 1))

    def forward(self, x):
        return interpolate(self.body(x.sub_(0.5)), scale_factor=self.scale)


@pytest.mark.parametrize("backbone", ["edsr-tiny", f"{__name__}:InPlace"])
def test_a_loss_sees_what_it_asks_for(patches, backbone):
    trained = method(f"{__name__}:Curious", backbone, precision="bf16")
    (loss,) = trained.criterion.losses
    trained.step(*patches, 5, 1.0)
    given = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loss.seen["lr"], given)
    assert (loss.seen["scale"], loss.seen["step"], loss.seen["steps"]) == (4, 5, 9)
    (feature,) = loss.seen["features"].values()
    assert feature.shape == (2, 16, 8, 8)
    assert feature.dtype == torch.float32
    assert feature.requires_grad


class AgainstAverage(nn.Module):
    """Notes the average's SR."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, sr, hr, *, average_sr):
        self.seen.append(average_sr)
        return (sr - hr).abs().mean() + (sr - average_sr).abs().mean()


@pytest.mark.parametrize("backbone", ["edsr-tiny", f"{__name__}:Dropping"])
def test_the_sr_of_the_average_is_that_of_torchs_averaged_model_in_evaluation_mode(patches, backbone):
    trained = method(f"{__name__}:AgainstAverage", backbone, ema=0.9, optimizer={"lr": 0.01}, accumulate=2)
    theirs = AveragedModel(trained.network, multi_avg_fn=get_ema_multi_avg_fn(0.9)).eval()
    expected = []
    for step in range(3):
        with torch.no_grad():
            expected += [theirs(part) for part in patches[0].split(1)]
        random = torch.get_rng_state()
        trained.step(*patches, step, 1.0)
        theirs.update_parameters(trained.network)
        assert torch.equal(random, torch.get_rng_state()) is (backbone == "edsr-tiny")
    (loss,) = trained.criterion.losses
    assert not any(seen.requires_grad for seen in loss.seen)
    torch.testing.assert_close(loss.seen, expected, rtol=0, atol=1e-6)
    assert trained.network.training


@pytest.mark.parametrize("loss", [f"{__name__}:AgainstAverage", "l1 + 0.5*ldl"])
def test_a_loss_that_needs_the_average_is_refused_where_there_is_none(loss):
    with pytest.raises(
        InputError, match=r"needs the average of the network's weights, and recipe\.ema is null; a decay"
    ):
        method(loss)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            "Greedy",
            "asks for 'wallet'; besides sr and hr, a loss can have lr, scale, step, steps, average_sr and features.",
        ),
        ("Elsewhere", "unknown layer of backbone 'edsr-tiny' 'boddy': did you mean 'body'?"),
        ("Adversary(returns=else)", "own_terms of loss '.*' needs to return a dict of error."),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(patches, loss, message):
    with pytest.raises(InputError, match=message):
        method(f"{__name__}:{loss}").step(*patches, 0, 1.0)


def test_an_adversary_learns_in_a_step_of_its_own_and_only_there(patches):
    trained = method(f"{__name__}:Adversary")
    loss, terms = trained.step(*patches, 0, 1.0)
    (adversary,) = trained.criterion.losses
    error = patches[1].square().mean()
    torch.testing.assert_close(terms, torch.stack([loss, error]))
    slope = -2 * patches[1].mean((0, 2, 3)).view(3, 1, 1) / 3
    torch.testing.assert_close(adversary.guess.detach(), -0.5 * slope)
    assert trained.names == [f"{__name__}:Adversary", f"{__name__}:Adversary.error"]


def test_a_discriminator_works_in_float32_and_waits_while_the_network_is_trained(patches):
    trained = method(f"gan(discriminator={__name__}:Judge, features=3, kind=hinge)", precision="bf16")
    trained.step(*patches, 0, 1.0)
    (adversarial,) = trained.criterion.losses
    float32 = torch.float32, False
    assert adversarial.discriminator.seen == [(*float32, False), (*float32, True), (*float32, True)]


def test_while_the_network_waits_only_the_discriminator_is_trained(patches):
    loss = f"gan(discriminator={__name__}:Judge, features=3, lr=0.01, ahead=2) + {__name__}:Weighing"
    trained = method(loss)
    for step, trains in enumerate((False, False, True)):
        before = [each.clone() for each in (trained.network.conv_last.bias, *trained.criterion.parameters())]
        trained.step(*patches, step, 1.0)
        after = [trained.network.conv_last.bias, *trained.criterion.parameters()]
        changed = [not torch.equal(*pair) for pair in zip(before, after, strict=True)]
        assert changed == [trains, True, trains, False]  # the network, the discriminator, and what Weighing learns


def test_rates_of_all_optimizers_follow_the_schedule(patches):
    trained = method(f"{__name__}:Adversary + {__name__}:Weighing", optimizer={"lr": 0.25})
    for factor in (0.5, 1.0, 0.125):
        assert trained.set_rates(factor) == 0.25 * factor
        assert [each.optimizer.param_groups[0]["lr"] for each in trained.learners] == [0.5 * factor, 0.25 * factor]
        trained.load(trained.state())


def test_the_state_of_losses_is_saved_without_their_constants(patches):
    trained, other = method(f"l1 + {__name__}:Weighing"), method(f"l1 + {__name__}:Weighing")
    trained.set_rates(1.0)
    trained.step(*patches, 0, 1.0)
    state = trained.state()
    assert set(state["losses"]) == {"losses.1.weight", "losses.1.calls"}
    assert state["losses"]["losses.1.weight"] != 1
    other.load(state)
    for each in (trained, other):
        each.step(*patches, 1, 1.0)
    assert torch.equal(trained.criterion.losses[1].weight, other.criterion.losses[1].weight)
    assert trained.criterion.losses[1].calls == other.criterion.losses[1].calls == 2


def test_a_loss_without_state_leaves_checkpoints_as_they_were():
    assert set(method("l1 + 0.1*ssim + sg").state()) == {"params", "optimizer"}


def test_the_parts_of_a_batch_add_up_to_it():
    generator = torch.Generator().manual_seed(0)
    lr, hr = torch.rand(5, 3, 8, 8, generator=generator), torch.rand(5, 3, 32, 32, generator=generator)
    loss = f"l1 + {__name__}:Adversary + {__name__}:Weighing"
    whole, parts = (method(loss, optimizer={"name": "sgd", "lr": 0.1}, accumulate=n) for n in (1, 3))
    for step in range(3):
        expected = whole.step(lr, hr, step, 1.0)
        torch.testing.assert_close(parts.step(lr, hr, step, 1.0), expected)
    for ours, theirs in zip(parts.network.parameters(), whole.network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    for ours, theirs in zip(parts.criterion.parameters(), whole.criterion.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
