"""The checks pass what is built in, and each of them fails what breaks its rule."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from sgbench.assets.locator import Locator
from sgbench.core.errors import InputError
from sgbench.core.registry import LOSSES, METRICS
from sgbench.metrics import ImageMetric, Pair, Undefined
from sgbench.spec import Recipe, check_loss
from sgbench.testing import BackboneTrial, LossTrial, MetricTrial, Trial, checks, outcomes

SMALL = Recipe(patch=8, batch=2)

QUICK = {"gan": "gan(discriminator=patch, features=2)", "ms_ssim": "ms_ssim(scales=2)"}
"""With options that let losses take small images, and little time."""


def failed(trial: Trial) -> dict[str, str | None]:
    """Return what the checks that fail say, by their names, and None for those that are not tried."""
    return {str(each.check): each.said for each in outcomes(trial.checks()) if not each.passed}


@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize("name", LOSSES.names())
def test_every_loss_passes(name: str) -> None:
    (term,) = check_loss(QUICK.get(name, name)).terms
    assert failed(LossTrial(term, SMALL, ["edsr-tiny"])) == {}


@pytest.mark.parametrize("family", ["edsr", "swinir"])
def test_networks_of_convolutions_and_of_transformers_pass(family: str) -> None:
    assert failed(BackboneTrial(f"{family}-tiny", SMALL)) == {}


@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize("name", sorted(METRICS._targets))
def test_every_built_in_metric_passes(name: str) -> None:
    assert failed(MetricTrial(name, SMALL)) == {}


# Losses that break a rule


class Bad(nn.Module):
    """A loss that breaks the rule that its option names."""

    def __init__(self, *, rule: str, plain: Any = None, size: int | None = None) -> None:
        super().__init__()
        self.rule, self.calls, self.size = rule, 0, size
        self.kernel = torch.ones(3, 1, 3, 3)
        self.register_buffer("mean", torch.zeros(()), persistent=False)
        if rule == "pickles":
            self.function = lambda x: x

    def forward(self, sr: Tensor, hr: Tensor) -> Any:
        self.calls += 1
        return getattr(self, f"_{self.rule}", self._good)(sr, hr)

    def _good(self, sr: Tensor, hr: Tensor) -> Tensor:
        return (sr - hr).abs().mean()

    def _call(self, sr: Tensor, hr: Tensor) -> Tensor:
        return (sr - hr).abs().mean((1, 2, 3))

    def _images(self, sr: Tensor, hr: Tensor) -> Tensor:
        return sr.sub_(hr).abs().mean()

    def _value(self, sr: Tensor, hr: Tensor) -> Tensor:
        return sr.log().mean()

    def _gradient(self, sr: Tensor, hr: Tensor) -> Tensor:
        return (sr.round() - hr).abs().mean()

    def _equal(self, sr: Tensor, hr: Tensor) -> Tensor:
        return (sr - hr).square().sum((1, 2, 3)).sqrt().mean()

    def _constant(self, sr: Tensor, hr: Tensor) -> Tensor:
        return (sr.var((1, 2, 3)).sqrt() - hr.var((1, 2, 3)).sqrt()).abs().mean()

    def _extreme(self, sr: Tensor, hr: Tensor) -> Tensor:
        return (20 * (sr - hr)).cosh().mean()

    def _batch(self, sr: Tensor, hr: Tensor) -> Tensor:
        return (sr - hr).abs().sum()

    def _state(self, sr: Tensor, hr: Tensor) -> Tensor:
        self.mean.add_(1e-9)
        return self._good(sr, hr)

    def _repeatable(self, sr: Tensor, hr: Tensor) -> Tensor:
        return self._good(sr, hr) * (1 + 1e-6 * self.calls)

    def _bf16(self, sr: Tensor, hr: Tensor) -> Tensor:
        flat = (sr[..., 1:] == sr[..., :-1]) & (sr[..., 1:] > 0) & (sr[..., 1:] < 1)
        return self._good(sr, hr) + (flat / (~flat)).nan_to_num(posinf=math.inf).mean()

    def _layout(self, sr: Tensor, hr: Tensor) -> Tensor:
        return (sr.view(-1) - hr.view(-1)).abs().mean()

    def _device(self, sr: Tensor, hr: Tensor) -> Tensor:
        return nn.functional.conv2d(sr - hr, self.kernel, groups=3).abs().mean()


class Unwritable(Bad):
    """Has a default that no expression can have."""

    def __init__(self, *, norm: Any = torch.abs) -> None:
        super().__init__(rule="none")


class Sentinel(Bad):
    """Takes its default, a number that is not equal to another such number, for nothing being given."""

    NOTHING = 3.0

    def __init__(self, *, size: float = NOTHING) -> None:
        super().__init__(rule="none")
        self.factor = 1 if size is self.NOTHING else 2

    def forward(self, sr: Tensor, hr: Tensor) -> Any:
        return self._good(sr, hr) * self.factor


def of_loss(written: str) -> dict[str, str | None]:
    (term,) = check_loss(f"{__name__}:{written}").terms
    return failed(LossTrial(term, SMALL, ["edsr-tiny"]))


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("call", " returns a tensor of shape (2,); a scalar is needed."),
        ("images", " writes into the images that it is given, which other terms share."),
        ("value", " is nan for random images, HR in [0, 1] and SR, as networks give it, in [-0.1, 1.1]; "),
        ("gradient", "no gradient reaches the network through '"),
        ("equal", " is nan where SR equals HR; finite ones are needed."),
        ("constant", " is nan where SR is constant; finite ones are needed."),
        ("extreme", " is inf for SR in [-10, 10], as networks give it at first; a finite number is needed."),
        ("batch", " for the same ones twice, so that a coefficient would mean something else for another batch size."),
        ("state", " changes 'mean', which its state_dict lacks, so that a resumed run would differ."),
        ("repeatable", " for the same images, state_dict and seed; what else it keeps between calls is not saved, "),
        ("bf16", " is inf for a smooth SR in bfloat16; a finite number is needed."),
        ("layout", ": RuntimeError: view size is not compatible with input tensor's size and stride"),
        ("device", " uses a tensor that stays on the CPU when it is moved to a GPU."),
        ("pickles", "Can't pickle local object"),
    ],
)
def test_each_check_fails_a_loss_that_breaks_its_rule(rule: str, said: str) -> None:
    found = of_loss(f"Bad(rule={rule})")
    assert said in str(found.pop(rule))
    assert {name for name, said in found.items() if said} == ({"extreme"} if rule == "constant" else set())


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("Unwritable", " has an option 'norm' whose default <built-in method abs of type object at "),
        ("Sentinel", " if its defaults are given."),
    ],
)
def test_options_must_be_what_can_be_written(loss: str, said: str) -> None:
    ((name, found),) = of_loss(loss).items()
    assert name == "options"
    assert said in str(found)


def test_of_what_breaks_a_decisive_rule_nothing_else_is_tried() -> None:
    (term,) = check_loss(f"{__name__}:Bad(rule=images)").terms
    first, second, *rest = outcomes(LossTrial(term, SMALL, ["edsr-tiny"]).checks())
    assert (first.passed, second.passed) == (True, False)
    assert [each.passed for each in rest] == [None] * 14


class Deep(nn.Module):
    """A loss of what a layer of the network returns."""

    layers = ("body.0",)

    def forward(self, sr: Tensor, hr: Tensor, *, features: dict[str, Tensor]) -> Tensor:
        return (sr - hr).abs().mean() + features["body.0"].square().mean()


def test_a_loss_of_a_layer_is_tried_with_the_networks_that_it_is_for() -> None:
    (term,) = check_loss(f"{__name__}:Deep").terms
    assert failed(LossTrial(term, SMALL, ["edsr-tiny", "edsr-light"])) == {}
    found = failed(LossTrial(term, SMALL, ["edsr-tiny", "swinir-tiny"]))
    assert "unknown layer of backbone 'swinir-tiny' 'body.0'; valid: conv_after_body, " in str(found["call"])


# Backbones and metrics that break a rule


class Net(nn.Module):
    """A backbone that breaks the rule that its size is called after."""

    sizes: ClassVar = {
        rule: {"rule": rule}
        for rule in (
            *("call", "gradient", "repeatable", "constant", "batch", "state", "seed", "bf16", "layout"),
            *("device", "pickles"),
        )
    }

    def __init__(self, *, scale: int, rule: str) -> None:
        super().__init__()
        self.scale, self.rule, self.calls = scale, rule, 0
        self.conv, self.shift = nn.Conv2d(3, 3, 1), torch.zeros(3, 1, 1)
        if rule == "pickles":
            self.function = lambda x: x
        if rule == "seed":
            nn.init.constant_(self.conv.bias, np.random.default_rng().random())  # type: ignore[arg-type]
        if rule == "state":
            self.shift = torch.rand(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = getattr(self, f"_{self.rule}", self.conv)(x)
        return interpolate(x, scale_factor=self.scale)

    def _call(self, x: Tensor) -> Tensor:
        return self.conv(x).mean(1, keepdim=True)

    def _gradient(self, x: Tensor) -> Tensor:
        return self.conv(x).detach()

    def _repeatable(self, x: Tensor) -> Tensor:
        return self.conv(x) * (1 + (1e-6 * self.calls if self.training else 0))

    def _constant(self, x: Tensor) -> Tensor:
        return self.conv(x / x.var((1, 2, 3), keepdim=True).sqrt())

    def _batch(self, x: Tensor) -> Tensor:
        return self.conv(x - x.mean())

    def _state(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.shift

    def _bf16(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x / (x.dtype == torch.float32)

    def _layout(self, x: Tensor) -> Tensor:
        return self.conv(x.view(-1).view(x.shape))

    def _device(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.shift


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("call", ": 3 channels are needed, 1 came."),
        ("gradient", " cannot be trained: no gradient reaches a parameter of it."),
        ("repeatable", " returns different images for the same patches, state and seed; what it keeps between "),
        ("constant", " returns values that are not finite for black and white patches."),
        ("batch", " returns another image if there are others in the batch, in evaluation too."),
        ("state", " returns another image after its state_dict is loaded into a new network."),
        ("seed", " begins with different values of conv.bias for the same seed."),
        ("bf16", " returns values that are not finite for random patches in bfloat16."),
        ("layout", ": RuntimeError: view size is not compatible with input tensor's size and stride"),
        ("device", " uses a tensor that stays on the CPU when it is moved to a GPU."),
        ("pickles", "Can't pickle local object"),
    ],
)
def test_each_check_fails_a_backbone_that_breaks_its_rule(rule: str, said: str) -> None:
    found = failed(BackboneTrial(f"{__name__}:Net-{rule}", SMALL))
    assert said in str(found.pop(rule))
    assert {name for name, said in found.items() if said} == ({"device"} if rule == "state" else set())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score(ImageMetric):
    """A metric that computes what its field does."""

    compute: Callable[[Any, Any], float]
    calls: list[int] = dataclasses.field(default_factory=list)

    def score(self, pair: Pair, runtime: Any) -> float:
        self.calls.append(1)
        return self.compute(pair.sr.pixels, pair.hr.pixels)


def _difference(sr: Any, hr: Any) -> float:
    return float(np.abs(sr.astype(float) - hr).mean())


def _in_place(sr: Any, hr: Any) -> float:
    sr[:] = hr
    return 0.0


def _log(sr: Any, hr: Any) -> float:
    return math.log(_difference(sr, hr))


def _correlation(sr: Any, hr: Any) -> float:
    return 1 - float(np.corrcoef(sr.ravel(), hr.ravel())[0, 1])


def _blocks(sr: Any, hr: Any) -> float:
    return _difference(*(each.reshape(3, 8, -1, 8, each.shape[2] // 8).mean((2, 4)) for each in (sr, hr)))


def _of_large_images(sr: Any, hr: Any) -> float:
    if sr.shape[1] < 200:
        raise Undefined("too small")
    return _difference(sr, hr)


SEEN: list[float] = []


def _remembers(sr: Any, hr: Any) -> float:
    SEEN.append(_difference(sr, hr))
    return sum(SEEN)


@pytest.mark.parametrize(
    ("rule", "fields", "said"),
    [
        ("call", {"compute": lambda sr, hr: math.nan}, " fails on random images: the value is NaN."),
        ("images", {"compute": _in_place}, " writes into the images that it is given, which other metrics share."),
        ("equal", {"compute": _log}, " fails on images that equal HR: ValueError: math domain error."),
        ("constant", {"compute": _correlation}, " fails on constant images: the value is NaN."),
        ("size", {"compute": _blocks}, " fails on images of 49×57 pixels: ValueError: cannot reshape array"),
        ("direction", {"compute": _difference, "direction": "higher"}, " declares that higher values are better."),
        ("direction", {"compute": _of_large_images, "direction": "higher"}, " declares that higher values are better."),
        ("repeatable", {"compute": _remembers}, " for the same images."),
        ("declaration", {"compute": _difference, "version": "", "source": ""}, " has no version and source, by which "),
        ("pickles", {"compute": lambda sr, hr: _difference(sr, hr)}, "Can't pickle <function <lambda>"),
    ],
)
def test_each_check_fails_a_metric_that_breaks_its_rule(
    rule: str, fields: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {"direction": "lower", "version": "1", "protocol": {"of": "test"}, "description": "a test", "source": "me"}
    monkeypatch.setitem(METRICS._loaded, "mine", Score(**{"name": "mine", **plain, **fields}))
    found = failed(MetricTrial("mine", SMALL))
    assert said in str(found.pop(rule))


# Names


@pytest.mark.parametrize(
    ("target", "kinds"),
    [
        ("l1 + 0.1*sg(order=1)", [("loss", "l1"), ("loss", "sg(order=1)")]),
        (f"{__name__}:Bad(rule=call)", [("loss", f"{__name__}:Bad(rule=call)")]),
        (f"{__name__}:Unwritable", [("loss", f"{__name__}:Unwritable")]),
        (f"{__name__}:Net-call", [("backbone", f"{__name__}:Net-call")]),
        ("edsr", [("backbone", "edsr-paper")]),
        ("psnr_y", [("metric", "psnr_y")]),
        ("psnr", [("metric", "psnr_y")]),
        ("lpips", [("loss", "lpips")]),
        ("torchmetrics:uqi", [("metric", "torchmetrics:uqi")]),
        ("spandrel:SwinIR", [("backbone", "spandrel:SwinIR")]),
    ],
)
@pytest.mark.filterwarnings("ignore::sgbench.core.errors.Note")
def test_a_name_says_what_it_is_the_name_of(target: str, kinds: list[tuple[str, str]]) -> None:
    trials = dict.fromkeys(check.trial for check in checks(target))
    assert [(trial.kind, trial.name) for trial in trials] == kinds


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("edsrr", "unknown loss, backbone or metric 'edsrr': did you mean 'edsr'?"),
        (f"{__name__}:failed", "is a function; a class of torch.nn.Module, or a metric, such as '@sgbench.metric("),
        (f"{__name__}:Missing", "has no attribute 'Missing'."),
        ("sg(order=2, radius=3)", "radius"),
    ],
)
def test_what_is_no_such_name_is_refused(target: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        checks(target)
    assert said in str(error.value)


def test_what_needs_a_network_that_is_missing_is_refused_before_anything_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Locator, "find", lambda self, name: None)
    for target, network in (("l1 + vgg", "vgg16"), ("lpips_alex", "alexnet")):
        with pytest.raises(InputError, match=f"needs the pretrained network '{network}', which is not available"):
            checks(target)


@pytest.mark.parametrize(("scale", "patch"), [(5, 48), (4, 7)])
def test_a_size_that_no_recipe_has_is_refused(scale: int, patch: int) -> None:
    with pytest.raises(InputError, match=f"scale is {scale} and patch {patch}; 2, 3 or 4 and at least 8 are needed"):
        checks("l1", scale=scale, patch=patch)


def test_a_check_of_a_test_says_what_is_wrong_and_what_to_do() -> None:
    by_name = {str(check): check for check in checks(f"{__name__}:Bad(rule=batch)", patch=8)}
    by_name["call"]()
    with pytest.raises(AssertionError, match=r"for another batch size\. Fix: return a mean over images, and no sum\.$"):
        by_name["batch"]()
