"""What a sweep names is tried before anything starts."""

import contextlib
import dataclasses
import math
import sys
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate, max_pool2d, pixel_shuffle, smooth_l1_loss

from sgbench.assets.locator import Locator
from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.data import PackedImages
from sgbench.losses import Batch, build_loss
from sgbench.metrics import METRICS
from sgbench.metrics.distortion import psnr_y
from sgbench.runs.execute import Job, train_job
from sgbench.runs.plan import Data, make_plan
from sgbench.runs.rehearsal import rehearse
from sgbench.spec import SweepSpec, build, check_loss
from sgbench.store import Store


class Plain(nn.Module):
    """A loss that keeps the rules, with options, a constant parameter and a constant buffer."""

    constructed: ClassVar[int] = 0

    def __init__(self, *, factor: float = 1.0, random: bool = False) -> None:
        super().__init__()
        type(self).constructed += 1
        self.factor, self.random = factor, random
        self.weight = nn.Parameter(torch.ones(()), requires_grad=False)
        self.register_buffer("offset", torch.zeros(()))

    def forward(self, sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
        noise = torch.rand_like(sr) if self.random else 0
        return self.factor * (self.weight * (sr - hr) + self.offset + noise).abs().mean()


class Learned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 1, 1))
        self.inner = nn.Conv2d(3, 3, 1)

    def forward(self, sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
        return (self.weight * self.inner(sr - hr)).abs().mean()


class Duel(nn.Module):
    """An adversary that breaks the rule which its option names."""

    own_names = ("real",)

    def __init__(self, *, hidden: bool = False, nan: bool = False, idle: bool = False, returns: str = "real") -> None:
        super().__init__()
        self.hidden, self.nan, self.idle, self.returns = hidden, nan, idle, returns
        self.guess = nn.Parameter(torch.zeros(3, 1, 1))
        self.calls = 0

    def forward(self, sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
        return (sr - self.guess).square().mean()

    def own_terms(self, sr: torch.Tensor, hr: torch.Tensor) -> dict[str, torch.Tensor]:
        self.calls += self.hidden
        error = (hr - (self.guess.detach() if self.idle else self.guess)).square().mean()
        return {self.returns: error * (math.nan if self.nan else 1 + self.calls)}


class Running(nn.Module):
    def __init__(self, *, persistent: bool = False) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()), persistent=persistent)

    def forward(self, sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
        error = (sr - hr).abs().mean()
        self.mean.mul_(0.99).add_(error.detach(), alpha=0.01)
        return error * error / (self.mean + 1e-6)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return (sr - hr).abs().mean() * self.calls


class Sets(nn.Module):
    """Has a state that no checkpoint can hold."""

    def forward(self, sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
        return (sr - hr).abs().mean()

    def get_extra_state(self) -> Any:
        return math.sqrt

    def set_extra_state(self, state: Any) -> None:
        pass


class Writes(nn.Module):
    def __init__(self, *, to: str = "hr", hidden: bool = False) -> None:
        super().__init__()
        self.to, self.hidden = to, hidden

    def forward(self, sr: torch.Tensor, hr: torch.Tensor, *, lr: torch.Tensor) -> torch.Tensor:
        image = {"sr": sr, "hr": hr, "lr": lr}[self.to]
        (image.data if self.hidden else image).mul_(2)
        return (sr - hr).abs().mean()


class Returns(nn.Module):
    """Returns what its option names."""

    def __init__(self, *, what: str) -> None:
        super().__init__()
        self.what = what

    def forward(self, sr: torch.Tensor, hr: torch.Tensor) -> Any:
        error = (sr - hr).abs()
        return {
            "vector": error.mean(dim=(1, 2, 3)),
            "one": error.mean()[None],
            "float": error.mean().item(),
            "detached": (sr.detach() - hr).abs().mean(),
            "rounded": sr.round().mean(),
            "hr": hr.mean().clone().requires_grad_(),
            "nan": error.mean() * math.nan,
            "root": sr.sqrt().mean(),
        }[self.what]


class SilentError(Exception):
    """Has no message that can be made."""

    def __str__(self) -> str:
        raise RuntimeError


RAISED: dict[str, type[BaseException]] = {
    error.__name__: error for error in (OSError, URLError, RuntimeError, MemoryError, SystemExit, SilentError)
}


class Raises(nn.Module):
    """Raises what its option names, in its constructor or when it is called."""

    def __init__(self, *, what: str = "OSError", called: bool = False) -> None:
        super().__init__()
        self.what = what
        if not called:
            self.forward()

    def forward(self, *_: torch.Tensor) -> torch.Tensor:
        raise RAISED[self.what]("no route\nat all")


class Net(nn.Module):
    def __init__(self, *, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.conv = nn.Conv2d(3, 3 * scale**2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> Any:
        return pixel_shuffle(self.conv(x), self.scale)


class InPlace(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x.sub_(0.5)) + 0.5


class Halving(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(interpolate(max_pool2d(x, 2), scale_factor=2))


class Grey(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x).mean(1, keepdim=True)


class Pair(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x), x


class Bytes(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x).byte()


class Fixed(nn.Module):
    """Does not take a scale."""

    def forward(self, x: torch.Tensor) -> Any:
        return x


class Interpolation(nn.Module):
    """Has nothing to train."""

    def __init__(self, *, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor) -> Any:
        return interpolate(x, scale_factor=self.scale)


class Detached(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x).detach()


class Warming(Net):
    """Counts its calls where no checkpoint has them."""

    calls = 0

    def forward(self, x: torch.Tensor) -> Any:
        self.calls += 1
        return super().forward(x) * (1 - 0.5**self.calls)


class Normalised(Net):
    """Has state that a checkpoint holds, noise, and a parameter without a gradient."""

    def __init__(self, *, scale: int) -> None:
        super().__init__(scale=scale)
        self.norm = nn.BatchNorm2d(3, momentum=0.5)
        self.idle = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> Any:
        mean = self.norm.running_mean
        assert isinstance(mean, torch.Tensor)
        return super().forward(nn.functional.dropout(self.norm(x), 0.1, self.training) + mean[:, None, None].clone())


class Infinite(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x) / 0


class FailsInTraining(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x) if not self.training else sys.exit(0)


class Even(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x.reshape(*x.shape[:2], -1, 2, x.shape[-1])[:, :, :, 0])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored(type(psnr_y)):  # type: ignore[misc]
    """Gives the value that it holds, or raises it."""

    outcome: Any

    def score(self, pair: Any, runtime: Any) -> float:
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome  # type: ignore[no-any-return]


class Momentum(torch.optim.Optimizer):
    """Keeps the rules, or breaks one of them."""

    def __init__(self, params: Any, lr: float, momentum: float = 0.9, broken: str = "", fallen: Any = None) -> None:
        super().__init__(params, {"rate" if broken == "rate" else "lr": lr, "momentum": momentum})
        self.broken = broken
        self.beside = 0.0
        self.fallen = fallen

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if self.broken == "closure":
            closure()
        for group in self.param_groups:
            for each in group["params"]:
                state = self.state[each]
                before = state.get("mean", torch.zeros_like(each))
                state["mean"] = group["momentum"] * before + each.grad + self.beside
                if self.broken == "plain":
                    state["rule"] = self.__class__
                if self.broken != "idle":
                    each.sub_(group.get("lr", 1.0) * state["mean"])
        self.beside += self.broken == "hidden"


def sweep(**changes: Any) -> SweepSpec:
    grid = {"backbones": ["edsr-tiny"], "losses": ["l1"]} | {
        key: changes.pop(key) for key in ("backbones", "losses") if key in changes
    }
    fields = {"grids": [grid], "train": "demo", "tests": ["demo"], "metrics": ["psnr_y"]}
    return build(fields | {"recipe": {"patch": 8, "batch": 2, "steps": 2}} | changes, "tiny")


def named(what: str) -> str:
    return f"{__name__}:{what}"


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        ("Running", "changes 'mean', which its state_dict lacks, so that a resumed run would differ."),
        ("Counting", " for the same images, state_dict and seed; what else it keeps between calls is not saved"),
        (
            "Duel(hidden=true)",
            " for the same images, state_dict and seed; what else it keeps between calls is not saved",
        ),
        ("Sets", ": its state has more than tensors and plain values, which a checkpoint cannot hold."),
        ("Duel(nan=true)", "is nan for random images"),
        ("Duel(returns=fake)", "own_terms of loss '"),
        ("Duel(idle=true)", "the gradient of own_terms of loss '"),
        ("Writes", "writes into the images that it is given"),
        ("Writes(to=sr)", "writes into the images that it is given"),
        ("Writes(to=lr)", "writes into the images that it is given"),
        ("Writes(hidden=true)", "writes into the images that it is given"),
        ("Returns(what=vector)", " returns a tensor of shape (2,); a scalar is needed."),
        ("Returns(what=one)", " returns a tensor of shape (1,); a scalar is needed."),
        ("Returns(what=float)", " returns a float; a scalar is needed."),
        ("Returns(what=detached)", "no gradient reaches the network through '"),
        ("Returns(what=rounded)", "no gradient reaches the network through '"),
        ("Returns(what=hr)", "no gradient reaches the network through '"),
        ("Returns(what=nan)", "is nan for random images"),
        ("Returns(what=root)", "is nan for random images, HR in [0, 1] and SR, as networks give it, in [-0.1, 1.1]"),
        ("Raises", "': OSError: no route."),
        ("Raises(what=RuntimeError)", "': RuntimeError: no route."),
        ("Raises(what=SystemExit)", "': SystemExit: no route."),
        ("Raises(what=URLError)", "': URLError: <urlopen error no route."),
        ("Raises(what=MemoryError)", "': MemoryError: no route."),
        ("Raises(what=SilentError)", "': SilentError."),
        ("Raises(called=true)", "': OSError: no route."),
        ("Raises(called=true, what=SilentError)", "': SilentError."),
        ("Raises(called=true, what=SystemExit)", "': SystemExit: no route."),
    ],
)
def test_a_loss_that_cannot_be_trained_with_is_refused_by_name(loss: str, reason: str) -> None:
    for written in (named(loss), f"l1 + 0.5*{named(loss)}"):
        with pytest.raises(InputError) as error:
            rehearse(sweep(losses=[written]))
        assert reason in str(error.value)
        assert f"'{named(loss.partition('(')[0])}" in str(error.value)
        assert "\n" not in str(error.value)


KEEP_THE_RULES = ["Plain", "Plain(factor=2)", "Plain(random=true)", "Learned", "Running(persistent=true)", "Duel"]


@pytest.mark.parametrize("loss", KEEP_THE_RULES)
def test_a_loss_that_keeps_the_rules_is_accepted_and_leaves_the_random_state(loss: str) -> None:
    before = torch.random.get_rng_state()
    backbones = [named("Net"), named("InPlace"), named("Normalised")]
    rehearse(sweep(losses=[f"l1 + 0.5*{named(loss)}"], backbones=backbones))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_module_of_another_library_is_a_loss_by_its_name() -> None:
    rehearse(sweep(losses=["l1 + 0.5*torch.nn:SmoothL1Loss(beta=0.1)"]))
    sr, hr = torch.rand(2, 2, 3, 8, 8)
    loss = build_loss(check_loss("torch.nn:SmoothL1Loss(beta=0.1)"))
    assert torch.equal(loss(Batch(hr, sr, hr, 1, step=0, steps=1))[0], smooth_l1_loss(sr, hr, beta=0.1))


def test_a_loss_that_needs_averaged_weights_is_refused_where_there_are_none() -> None:
    with pytest.raises(InputError, match=r"^loss 'ldl' needs the average of .* recipe\.ema is null; a decay between"):
        rehearse(sweep(losses=["l1 + ldl"]))
    rehearse(sweep(losses=["l1 + ldl"], recipe={"patch": 8, "batch": 2, "steps": 2, "ema": 0.9}))


def test_a_built_in_loss_refuses_an_option() -> None:
    with pytest.raises(InputError, match=r"^loss 'sg': order is 3; 1 or 2 is needed\.$"):
        rehearse(sweep(losses=["l1 + sg(order=3)"]))


@pytest.mark.parametrize("waiting", ["ahead=9", "ratio=10"])
def test_a_loss_that_lets_the_network_wait_to_the_end_is_refused(waiting: str) -> None:
    loss = f"l1 + gan(features=2, {waiting})"
    with pytest.raises(InputError, match=r"the steps, of which recipe\.steps is 9; "):
        rehearse(sweep(losses=[loss], recipe={"steps": 9}))
    rehearse(sweep(losses=[loss], recipe={"steps": 10}))


class Blind(nn.Module):
    """A discriminator that breaks the rule which its number of features stands for, or none."""

    def __init__(self, *, features: int) -> None:
        super().__init__()
        self.features = features
        self.weight = nn.Parameter(torch.ones(3, 1, 1))
        self.calls = 0

    def forward(self, images: torch.Tensor) -> Any:
        self.calls += 1
        logits = (images * self.weight).mean((1, 2, 3))
        return {1: logits, 2: (logits, images), 3: logits.detach(), 4: logits * self.calls, 5: logits / 0}[
            self.features
        ]


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        (1, None),
        (2, "TypeError: bad operand type for unary -: 'tuple'"),
        (3, "RuntimeError: element 0 of tensors does not require grad"),
        (4, " for the same images, state_dict and seed; what else it keeps between calls is not saved"),
        (5, "is inf for random images"),
    ],
)
def test_a_discriminator_is_tried_as_a_part_of_its_loss(features: int, reason: str | None) -> None:
    asked = sweep(losses=[f"l1 + gan(discriminator={named('Blind')}, features={features})"])
    if reason is None:
        rehearse(asked)
    else:
        with pytest.raises(InputError) as error:
            rehearse(asked)
        assert reason in str(error.value)
        assert f"loss 'gan(discriminator={named('Blind')}, features={features})'" in str(error.value)


@pytest.mark.parametrize(("discriminator", "least"), [("vgg", 32), ("patch", 24), ("unet", 16)])
def test_a_built_in_discriminator_is_asked_whether_it_takes_the_patches(discriminator: str, least: int) -> None:
    loss = f"gan(discriminator={discriminator}, features=2)"
    rehearse(sweep(losses=[loss], recipe={"patch": least // 2, "scale": 2}))
    if least > 16:
        with pytest.raises(InputError) as error:
            rehearse(sweep(losses=[loss], recipe={"patch": least // 2 - 1, "scale": 2}))
        size = f"{least - 2}×{least - 2}"
        assert str(error.value) == f"loss '{loss}': patches are {size} HR pixels; {least}×{least} or more are needed."


@pytest.mark.parametrize(
    ("backbone", "reason"),
    [
        ("Grey", ": 3 channels are needed, 1 came."),
        ("Halving", " makes 1 image of 112×144 pixels from one of 29×37; one of 116×148 is needed."),
        ("Pair", " returns tuple; floating-point images [N, 3, H, W] are needed."),
        ("Bytes", " returns torch.uint8 of shape (1, 3, 148, 116); floating-point images [N, 3, H, W] are needed."),
        ("Fixed", ": TypeError: Fixed.__init__() got an unexpected keyword argument 'scale'."),
        ("Interpolation", " cannot be trained: no gradient reaches a parameter of it."),
        ("Detached", " cannot be trained: no gradient reaches a parameter of it."),
        (
            "Warming",
            " returns different images for the same patches, state and seed; what it keeps between calls is not saved, "
            "so that a resumed run would differ.",
        ),
        ("Infinite", " returns values that are not finite for a random image in [0, 1]."),
        ("FailsInTraining", ": SystemExit: 0."),
        ("Even", ": RuntimeError: shape '[1, 3, -1, 2, 29]' is invalid for input of size 3219."),
    ],
)
def test_a_backbone_that_does_not_upscale_is_refused_by_name(backbone: str, reason: str) -> None:
    with pytest.raises(InputError) as error:
        rehearse(sweep(backbones=[named(backbone)]))
    assert str(error.value) == f"backbone '{named(backbone)}'{reason}"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"outcome": RuntimeError("no such thing")}, " fails on random images: RuntimeError: no such thing."),
        ({"outcome": SystemExit(0)}, " fails on random images: SystemExit: 0."),
        ({"outcome": math.inf}, " fails on random images: the value is infinite."),
        ({"outcome": "high"}, " fails on random images: ValueError: could not convert string to float: 'high'."),
    ],
)
def test_a_metric_that_fails_is_refused_by_name(
    changes: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {field.name: getattr(psnr_y, field.name) for field in dataclasses.fields(psnr_y)}
    monkeypatch.setitem(METRICS._loaded, "mine", Scored(**fields | {"name": "mine"} | changes))
    with pytest.raises(InputError) as error:
        rehearse(sweep(metrics=["mine"]))
    assert str(error.value).startswith(f"metric 'mine'{reason}")


@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize("is_here", [True, False])
def test_a_metric_with_a_pretrained_network_is_tried_where_that_is_here(
    is_here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {field.name: getattr(psnr_y, field.name) for field in dataclasses.fields(psnr_y)}
    fields |= {"name": "mine", "networks": ("alexnet",), "outcome": math.nan}
    monkeypatch.setitem(METRICS._loaded, "mine", Scored(**fields))
    monkeypatch.setattr(Locator, "find", lambda self, name: Path(name) if is_here else None)
    refused = pytest.raises(InputError, match="metric 'mine' fails on random images: the value is NaN")
    with refused if is_here else contextlib.nullcontext():
        rehearse(sweep(metrics=["mine"]))


def test_a_metric_of_a_library_is_tried() -> None:
    rehearse(sweep(metrics=["torchmetrics:uqi", "torchmetrics:vif", "torchmetrics:ms_ssim"]))


def test_a_loss_is_constructed_once_to_try_it_and_once_for_each_run(
    train_images: PackedImages, test_images: PackedImages, tmp_path: Path
) -> None:
    store = Store(Storage(str(tmp_path / "store")))
    losses = [f"l1 + {weight}*{named('Plain')}" for weight in (0.1, 0.2)]
    asked = sweep(losses=losses)
    asked = asked.model_copy(update={"grids": (asked.grids[0].model_copy(update={"seeds": tuple(range(5))}),)})
    data = Data(train_images, (test_images,))
    Plain.constructed = 0
    rehearse(asked)
    plan = make_plan("tiny", asked, data, store)
    jobs = [Job.from_json(Job.of(run, data, asked, store.storage).to_json()) for run in plan.runs]
    assert len(jobs) == 10
    assert Plain.constructed == 1
    for done, job in enumerate(jobs, 1):
        assert train_job(job)[0] == "done"
        assert Plain.constructed == 1 + done


def optimizer(broken: str) -> dict[str, Any]:
    return {"name": named("Momentum"), "lr": 0.1, "broken": broken}


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("rate", "its groups of parameters have no 'lr', which a schedule could set."),
        ("closure", "TypeError: 'NoneType' object is not callable."),
        ("idle", "three steps change no parameter."),
        ("plain", "its state has more than tensors and plain values, which a checkpoint cannot hold."),
        (
            "hidden",
            "saved and restored, it does other steps; what its state_dict lacks is not saved, so that a resumed ",
        ),
    ],
)
def test_an_optimizer_that_cannot_be_trained_with_is_refused_by_name(broken: str, reason: str) -> None:
    with pytest.raises(InputError) as error:
        rehearse(sweep(recipe={"optimizer": optimizer(broken)}))
    assert str(error.value).startswith(f"optimizer '{named('Momentum')}': {reason}")
    assert "\n" not in str(error.value)


def test_an_optimizer_that_keeps_the_rules_is_accepted_and_leaves_the_random_state() -> None:
    before = torch.random.get_rng_state()
    for fields in (optimizer(""), {"name": "torch.optim:NAdam", "lr": 0.1}):
        rehearse(sweep(recipe={"optimizer": fields}))
    assert torch.equal(torch.random.get_rng_state(), before)
