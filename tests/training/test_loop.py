import contextlib
import itertools
import json
import shutil
import statistics
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import interpolate, softplus
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sgbench.backbones import build_backbone
from sgbench.core.errors import InputError, NotFiniteError
from sgbench.core.seeding import derive
from sgbench.core.storage import Storage
from sgbench.data import PackedImages, PatchSampler
from sgbench.losses import Batch, build_loss
from sgbench.spec import RunSpec, check_loss
from sgbench.store.layout import has_weights, latest_step
from sgbench.store.schema import to_table
from sgbench.training import Checkpoints, loop, train
from sgbench.training.loop import as_images
from sgbench.training.numerics import FORMATS, pinned
from sgbench.training.schedules import rate_factor

CPU = torch.device("cpu")
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
    ),
]
ADVERSARIES = "l1 + 0.1*gan(features=2, ahead=2) + 0.1*gan(discriminator=patch, features=2, kind=relativistic, ratio=2)"
QUICK = {"batch": 4, "patch": 8, "optimizer": {"lr": 1e-3}, "schedule": {"name": "cosine"}}


ALL_AT_ONCE = {
    "optimizer": {"name": "adamw", "lr": 1e-3},
    "schedule": {"name": "milestones", "milestones": [6, 9], "gamma": 0.5, "warmup": 4},
    "clip_norm": 0.027,
    "accumulate": 2,
    "ema": 0.9,
}


class Noisy(nn.Module):
    """A small network that draws random numbers, as one with stochastic depth does."""

    def __init__(self, *, scale: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.Dropout(0.2), nn.Conv2d(8, 3 * scale**2, 1), nn.PixelShuffle(scale)
        )

    def forward(self, lr):
        return self.layers(lr)


class Idle(Noisy):
    """Has parameters that get no gradient: some never, some now and then."""

    def __init__(self, *, scale: int):
        super().__init__(scale=scale)
        self.never, self.now_and_then = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.calls = 0

    def forward(self, lr):
        self.layers[1].eval()  # without noise, so that one worker computes what two do
        self.calls += 1
        return super().forward(self.now_and_then(lr) if self.calls % 3 == 0 else lr)


class Wide(Noisy):
    def forward(self, lr):
        return super().forward(lr).mean(1, keepdim=True)


class Poison(nn.Module):
    """L1 but for one step, at which it has another value."""

    def __init__(self, *, at: int = 1, value: str = "nan"):
        super().__init__()
        self.at, self.value, self.calls = at, float(value.replace("minus-", "-")), 0

    def forward(self, sr, hr):
        self.calls += 1
        loss = (sr - hr).abs().mean()
        return loss * self.value if self.calls == self.at else loss


class Learned(nn.Module):
    """L1 with a weight for each channel that is learned beside the network, and a temperature that falls."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(3, 1, 1))
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, sr, hr):
        self.temperature.mul_(0.9)
        return ((sr - hr).abs() * torch.softmax(self.logits / self.temperature, 0)).mean()


class Adversary(nn.Module):
    """A discriminator that is trained in a step of its own, by SGD, and wants to know more than the images."""

    own_names = ("real", "fake")
    layers = ("body",)

    def __init__(self, *, nan_at: int = -1):
        super().__init__()
        self.nan_at = nan_at
        self.critic = nn.utils.parametrizations.spectral_norm(nn.Conv2d(6, 1, 3))

    def optimizer(self, parameters):
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)

    def forward(self, sr, hr, *, lr, features):
        return softplus(-self.judged(sr, lr)).mean() + 1e-3 * features["body"].abs().mean()

    def own_terms(self, sr, hr, *, lr, step, scale=None):
        assert not sr.requires_grad
        real, fake = softplus(-self.judged(hr, lr)).mean(), softplus(self.judged(sr, lr)).mean()
        return {"fake": fake * torch.nan if step == self.nan_at else fake, "real": real}

    def judged(self, image, lr):
        return self.critic(torch.cat([image, interpolate(lr, image.shape[-2:])], 1))


class FirstWorkerInfinite(Poison):
    """Infinite on the first of several workers, whose gradients then make the next step of all of them NaN."""

    def __init__(self, *, at: int = 1):
        super().__init__(at=at if dist.is_initialized() and dist.get_rank() == 0 else 0, value="inf")


class SumOfWeights:
    """Validates by the sum of all weights, at steps at which a run may not report, and draws random numbers."""

    every = 5

    def __call__(self, weights, step, on_image):
        for _ in range(3):
            on_image()
        value = float(torch.cat([weight.flatten() for weight in weights.values()]).double().sum())
        torch.rand(step)
        return [{"run_id": "r", "step": step, "dataset": "Set", "metric": "sum", "value": value}]


def newest_step(checkpoints):
    return latest_step(checkpoints.storage, checkpoints.run_id)


def finished(checkpoints):
    return has_weights(checkpoints.storage, checkpoints.run_id)


def run(images, loss="l1 + 1.0*sg", backbone=f"{__name__}:Noisy", seed=0, **recipe):
    data = {"name": images.name, "sha256": images.sha256}
    fields = {"backbone": backbone, "loss": loss, "seed": seed, "train": data, "recipe": QUICK | {"steps": 12} | recipe}
    return RunSpec.model_validate(fields)


@pytest.fixture
def place(tmp_path):
    """Makes a place for what a run leaves; another name is another place."""
    return lambda name="run": Checkpoints(Storage(str(tmp_path / "store")), name)


@pytest.fixture(autouse=True)
def checkpoints_may_cost_what_they_like(monkeypatch):
    """So that ``checkpoint_seconds=0`` means one at each row of history."""
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", 0)


def stop_after(steps):
    """Asks to stop at the given number of calls, that is of steps."""
    calls = iter(range(1, steps + 1))
    return lambda: next(calls, None) in (steps, None)


def left(outcome, checkpoints):
    """What two runs that are the same run must agree on, to the bit."""
    history = [{key: value for key, value in row.items() if key != "steps_per_second"} for row in outcome.history]
    file = torch.load(f"{checkpoints.storage.root}/weights/{checkpoints.run_id}.pt", weights_only=True)
    kinds = [kind for kind in ("params", "params_ema") if kind in file]
    weights = {f"{kind} {key}": value.numpy().tobytes() for kind in kinds for key, value in file[kind].items()}
    return outcome.finished, outcome.step, history, weights


def trained(spec, images, checkpoints, **options):
    return left(train(spec, images, checkpoints, device=CPU, **options), checkpoints)


# One run


def test_the_loop_is_adam_on_the_batches_of_the_sampler(train_images, place):
    spec = run(train_images, "l1 + 0.5*sg", "edsr-tiny", seed=3, steps=3, memory_format="contiguous")
    train(spec, train_images, place(), device=CPU)

    torch.manual_seed(derive(3, "weights") % 2**63)
    network, loss = build_backbone("edsr-tiny", 4), build_loss(check_loss("l1 + 0.5*sg"))
    sampler = PatchSampler(train_images, patch=8, batch=4, seed=3, augment=True, window=None)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=3)
    with pinned(spec.recipe):
        for step in range(3):
            lr, hr = (torch.from_numpy(patches) / 255 for patches in sampler.batch(step))
            optimizer.zero_grad()
            loss(Batch(lr, network(lr), hr, 4, step, 3))[0].backward()
            optimizer.step()
            cosine.step()
    weights = place().load_weights()
    for key, value in network.state_dict().items():  # only the two ways to a cosine are rounded differently
        torch.testing.assert_close(weights[key], value, rtol=1e-6, atol=1e-7)


def test_training_lowers_the_loss(train_images, place):
    outcome = train(run(train_images, "l1", "edsr-tiny", steps=60), train_images, place(), device=CPU)
    losses = [row["loss"] for row in outcome.history]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", [{"precision": "bf16"}, {"precision": "bf16", "compiled": True}], ids=str)
def test_the_loss_of_faster_modes_is_that_of_fp32_after_200_steps_but_for_rounding(train_images, place, device, mode):
    """To a rounding error of bfloat16, which has 8 significant bits: in an average, those of single values cancel."""

    def last_loss(changes):
        spec = run(train_images, backbone="edsr-tiny", steps=200, **changes)
        outcome = train(spec, train_images, place(spec.run_id), device=torch.device(device))
        return statistics.mean(row["loss"] for row in outcome.history[-20:])  # of 40 steps

    single, faster = last_loss({}), last_loss(mode)
    assert single != faster
    assert faster == pytest.approx(single, rel=2**-8)


@pytest.mark.parametrize("device", DEVICES)
def test_a_compiled_network_learns_what_any_other_does(train_images, place, device, monkeypatch):
    asked = []
    compile_it = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda network, **how: asked.append(how) or compile_it(network, **how))

    def after_three_steps(compiled):
        spec = run(train_images, backbone="edsr-tiny", steps=3, compiled=compiled)
        train(spec, train_images, place(f"{compiled}"), device=torch.device(device))
        return place(f"{compiled}").load_weights()

    plain, compiled = after_three_steps(False), after_three_steps(True)
    assert len(asked) == 1
    assert plain.keys() == compiled.keys()
    for name, weights in compiled.items():
        torch.testing.assert_close(weights, plain[name], rtol=1e-4, atol=1e-6)


def test_without_a_compiler_nothing_is_compiled_and_a_sentence_says_so(train_images, place, tmp_path):
    refused = pytest.raises(InputError, match=r"recipe\.compiled is true, and this machine has no C\+\+ compiler")
    with torch._inductor.config.patch({"cpp.cxx": ("/nowhere/g++",)}), refused:
        train(run(train_images, compiled=True), train_images, place(), device=CPU)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("device", DEVICES)
def test_patches_become_images_in_the_memory_format_of_the_recipe(device):
    patches = np.random.default_rng(0).integers(256, size=(2, 3, 5, 7), dtype=np.uint8)
    for name, memory_format in FORMATS.items():
        images = as_images(patches, torch.device(device), name)
        assert images.is_contiguous(memory_format=memory_format)
        assert images.device.type == device
        assert torch.equal(images.cpu(), torch.from_numpy(patches).float() / 255)


def test_what_a_run_reports(train_images, place):
    seen = []
    spec = run(train_images, "2.0*l1 + 0.5*sg", steps=250)
    outcome = train(spec, train_images, place(), device=CPU, on_progress=seen.append)
    assert (outcome.finished, outcome.step) == (True, 250)
    assert outcome.wall_seconds > 0
    assert outcome.peak_memory_bytes > 2**20
    assert [row["step"] for row in outcome.history] == list(range(2, 251, 2))
    assert to_table("history", outcome.history).num_rows == 125
    for row in outcome.history:
        assert row["run_id"] == spec.run_id
        assert row["loss"] == pytest.approx(2.0 * row["terms"]["l1"] + 0.5 * row["terms"]["sg"], rel=1e-5)
        assert row["lr"] == 1e-3 * rate_factor(spec.recipe.schedule, row["step"] - 1, 250)
        assert row["steps_per_second"] > 0
    assert [(p.step, p.loss, p.lr) for p in seen] == [(row["step"], row["loss"], row["lr"]) for row in outcome.history]
    assert {p.steps for p in seen} == {250}


def test_final_weights_carry_the_specification(train_images, place, tmp_path):
    spec = run(train_images)
    train(spec, train_images, place("r"), device=CPU)
    file = torch.load(tmp_path / "store" / "weights" / "r.pt", weights_only=True)
    assert RunSpec.model_validate(file["spec"]) == spec


def test_two_fresh_runs_are_identical_and_another_seed_is_another_run(train_images, place):
    outcomes = [trained(run(train_images, seed=seed), train_images, place(f"{i}")) for i, seed in enumerate([0, 0, 1])]
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][3] != outcomes[2][3]
    assert outcomes[0][2][0]["loss"] != outcomes[2][2][0]["loss"]


@pytest.mark.parametrize("backbone", ["edsr-tiny", "swinir-tiny"])  # the second one draws which blocks it leaves out
def test_recomputing_activations_changes_no_bit(train_images, place, backbone):
    spec = run(train_images, backbone=backbone, steps=3)
    kept = trained(spec, train_images, place("kept"))
    assert trained(spec, train_images, place("recomputed"), recompute=True) == kept


def test_the_random_state_of_the_process_does_not_matter(train_images, place):
    outcomes = []
    for name in "ab":
        torch.rand(5)
        outcomes.append(trained(run(train_images), train_images, place(name)))
    assert outcomes[0] == outcomes[1]


def test_the_settings_of_the_process_are_left_alone(train_images, place):
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    for loss in ("l1", f"{__name__}:Poison"):
        with contextlib.suppress(NotFiniteError):
            train(run(train_images, loss), train_images, place(), device=CPU)
        assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, deterministic)


def test_images_too_small_for_a_patch_are_refused_and_nothing_is_written(train_images, place, tmp_path):
    with pytest.raises(InputError, match="has 40×48 pixels; patches of 16 at scale 4 need 64×64"):
        train(run(train_images, patch=16), train_images, place(), device=CPU)
    assert not (tmp_path / "store").exists()


# Options of the recipe


def test_clipping_parts_and_the_average_are_those_of_torch(train_images, place):
    spec = run(train_images, "l1 + 0.5*sg", "edsr-tiny", steps=4, batch=5, memory_format="contiguous", **ALL_AT_ONCE)
    checkpoints = place()
    outcome = train(spec, train_images, checkpoints, device=CPU)

    torch.manual_seed(derive(0, "weights") % 2**63)
    network, loss = build_backbone("edsr-tiny", 4), build_loss(check_loss("l1 + 0.5*sg"))
    sampler = PatchSampler(train_images, patch=8, batch=5, seed=0, augment=True, window=None)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    linear = torch.optim.lr_scheduler.LinearLR(optimizer, 0.25, total_iters=3)
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    norms = []
    with pinned(spec.recipe):
        for step in range(4):
            lr, hr = (torch.from_numpy(patches) / 255 for patches in sampler.batch(step))
            optimizer.zero_grad()
            for part, share in ((slice(3), 0.6), (slice(3, 5), 0.4)):
                (share * loss(Batch(lr[part], network(lr[part]), hr[part], 4, step, 4))[0]).backward()
            norms.append(torch.nn.utils.clip_grad_norm_(network.parameters(), 0.027).item())
            optimizer.step()
            linear.step()
            averaged.update_parameters(network)
    assert min(norms) < 0.027 < max(norms)
    file = torch.load(f"{checkpoints.storage.root}/weights/run.pt", weights_only=True)
    for kind, theirs in (("params", network), ("params_ema", averaged.module)):
        for key, value in theirs.state_dict().items():
            torch.testing.assert_close(file[kind][key], value, rtol=0, atol=1e-6)
    assert all(torch.equal(value, file["params_ema"][key]) for key, value in checkpoints.load_weights().items())
    assert [row["lr"] for row in outcome.history] == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3])


def test_a_run_ends_when_its_budget_is_used_up_and_continues_with_a_larger_one(train_images, place):
    spec, checkpoints = run(train_images, max_hours=0.5), place()
    train(spec, train_images, checkpoints, device=CPU, should_stop=stop_after(3))
    checkpoints.save(3, checkpoints.load() | {"seconds": 1799.0})
    larger = run(train_images, max_hours=0.6)
    ended = train(run(train_images, max_hours=1799.0001 / 3600), train_images, checkpoints, device=CPU)
    assert (ended.finished, ended.exhausted, ended.step, newest_step(checkpoints)) == (False, True, 4, 4)
    again = train(run(train_images, max_hours=0.4), train_images, checkpoints, device=CPU)
    assert (again.finished, again.exhausted, again.step) == (False, True, 4)
    assert larger.run_id == spec.run_id == run(train_images).run_id
    assert trained(larger, train_images, checkpoints) == trained(run(train_images), train_images, place("whole"))


# Interrupted and continued


@pytest.mark.parametrize(
    ("length", "stops", "changes"),
    [
        (250, [1, 7, 8, 151, 249], {}),  # a row of history covers two steps: 1, 7, 151 and 249 are between rows
        (12, [1, 5, 11], {"backbone": "edsr-tiny"}),
        (12, [1, 5], {"backbone": "edsr-tiny", "precision": "bf16"}),
        (12, [1, 5], {"backbone": "edsr-tiny", "memory_format": "contiguous"}),
        (12, [5], {"backbone": "edsr-tiny", "precision": "bf16", "compiled": True}),
        (12, [5], {"backbone": "edsr-tiny", "augment": False, "schedule": {"halve_every": 5}}),
        (
            12,
            [1, 5, 7],
            {"backbone": "edsr-tiny", "loss": f"{__name__}:Learned + 0.1*{__name__}:Adversary + ldl", **ALL_AT_ONCE},
        ),
        (12, [1, 5], {"backbone": "edsr-tiny", "loss": f"l1 + {__name__}:Learned + 0.1*{__name__}:Adversary"}),
        (12, [1, 5], {"loss": ADVERSARIES + " + vgg(conv1=1, conv5=0) + lpips_vgg + dists + contextual"}),
    ],
)
@pytest.mark.usefixtures("networks")
def test_a_run_that_was_stopped_or_paused_ends_with_the_bits_of_one_that_was_not(
    train_images, place, length, stops, changes
):
    """The parts are validated too, which changes no bit."""
    spec, validator, validated = run(train_images, steps=length, **changes), SumOfWeights(), []
    parts = place("parts")
    for stop, paused in zip(stops, itertools.cycle((False, True))):
        asked = {"until": stop} if paused else {"should_stop": stop_after(stop - newest_step(parts))}
        outcome = train(spec, train_images, parts, device=CPU, validator=validator, **asked)
        assert (outcome.finished, outcome.paused, outcome.step, newest_step(parts)) == (False, paused, stop, stop)
        assert not finished(parts)
    ended = trained(spec, train_images, parts, validator=validator, validated=validated)
    assert ended == trained(spec, train_images, place("whole"))
    assert [row["step"] for row in validated] == sorted({*range(5, length, 5), length})
    assert validated[-1:] == validator(parts.load_weights(), length, lambda: None)


@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1e9])
def test_a_run_that_crashed_ends_with_the_bits_of_one_that_did_not(train_images, place, checkpoint_seconds):
    spec, crashed = run(train_images, steps=250), place("crashed")

    def crash(at):
        def on_progress(progress):
            if progress.step == at:
                raise KeyError("power cut")

        return on_progress

    for at in (8, 250):
        with pytest.raises(KeyError):
            train(
                spec,
                train_images,
                crashed,
                device=CPU,
                on_progress=crash(at),
                checkpoint_seconds=checkpoint_seconds,
            )
        assert newest_step(crashed) == (at - 2 if checkpoint_seconds == 0 else 0)
        assert not finished(crashed)
    assert trained(spec, train_images, crashed) == trained(spec, train_images, place("whole"))


def test_a_damaged_checkpoint_costs_steps_and_no_bits(train_images, place, tmp_path):
    spec, parts = run(train_images), place("parts")
    train(spec, train_images, parts, device=CPU, should_stop=stop_after(9), checkpoint_seconds=0)
    (tmp_path / "store" / "checkpoints" / "parts" / "000000000009.pt").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match=r"checkpoint '.*/000000000009\.pt' is not used: it is damaged"):
        resumed = trained(spec, train_images, parts)
    assert resumed == trained(spec, train_images, place("whole"))


def test_a_stop_at_the_last_step_is_the_end(train_images, place):
    outcome = train(run(train_images), train_images, place(), device=CPU, should_stop=stop_after(12))
    assert outcome.finished
    assert finished(place())


def test_a_finished_run_that_is_called_again_changes_nothing(train_images, place):
    spec, checkpoints = run(train_images), place()
    first = trained(spec, train_images, checkpoints, checkpoint_seconds=0)
    assert trained(spec, train_images, checkpoints) == first
    assert checkpoints.load()["step"] == 12


def test_a_checkpoint_with_no_step_left_only_gives_its_weights(train_images, place):
    spec, checkpoints = run(train_images), place()
    first = trained(spec, train_images, checkpoints)
    finished, step, history, weights = trained(spec, train_images, checkpoints)
    assert (finished, step, history) == first[:3]
    expected = {f"params {key}": value.numpy().tobytes() for key, value in checkpoints.load()["params"].items()}
    assert weights == expected


def test_what_validation_finds_is_reported_once_and_its_time_is_none_of_the_run(train_images, place, monkeypatch):
    class AnHour(SumOfWeights):
        def __call__(self, weights, step, on_image):
            clock["slept"] += 3600
            return super().__call__(weights, step, on_image)

    clock, real = {"slept": 0}, time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: real() + clock["slept"])
    spec, seen, validator = run(train_images, steps=250), [], AnHour()
    for stop in (5, 11, 20):
        asked = stop_after(stop - newest_step(place()))
        outcome = train(
            spec, train_images, place(), device=CPU, on_progress=seen.append, should_stop=asked, validator=validator
        )
    assert clock["slept"] == 4 * 3600
    assert outcome.wall_seconds < 3600
    assert all(row["steps_per_second"] > 2 / 3600 for row in outcome.history)
    reported = {progress.step: [row["step"] for row in progress.validation] for progress in seen}
    assert {step: steps for step, steps in reported.items() if steps} == {6: [5], 10: [10], 16: [15], 20: [20]}


def test_the_time_of_interrupted_calls_counts(train_images, place):
    spec, checkpoints = run(train_images), place()
    train(spec, train_images, checkpoints, device=CPU, should_stop=stop_after(3))
    checkpoints.save(3, checkpoints.load() | {"seconds": 1000.0})
    train(spec, train_images, checkpoints, device=CPU, should_stop=stop_after(3))
    assert 1000 < train(spec, train_images, checkpoints, device=CPU).wall_seconds < 1100


def test_all_that_training_made_is_in_a_checkpoint_before_the_final_weights_are_written(train_images, place):
    checkpoints, seen = place(), []

    def look():
        seen.append((checkpoints.load()["step"], len(checkpoints.load()["history"]), finished(checkpoints)))

    train(run(train_images), train_images, checkpoints, device=CPU, on_complete=look)
    assert seen == [(12, 12, False)]


# Losses that are not finite


@pytest.mark.parametrize(("value", "said"), [("nan", "NaN"), ("inf", "infinite"), ("-inf", "infinite")])
@pytest.mark.parametrize("at", [1, 7, 250])
def test_the_first_loss_that_is_not_finite_stops_the_run(train_images, place, value, said, at):
    """A row of history covers two steps, so that step 7 is found at 8, and the newest checkpoint is of 6."""
    value = f"minus-{value[1:]}" if value.startswith("-") else value
    loss = f"{__name__}:Poison(at={at}, value={value})"
    with pytest.raises(NotFiniteError, match=f"^loss is {said} at step {at}$") as error:
        train(run(train_images, loss, steps=250), train_images, place(), device=CPU, checkpoint_seconds=0)
    assert error.value.step == at
    assert newest_step(place()) == (at - 1) // 2 * 2
    assert not finished(place())
    state = place().load()
    assert state is None or all(value.isfinite().all() for value in state["params"].values())


def test_a_term_that_only_a_loss_lowers_must_be_finite_too(train_images, place):
    spec = run(train_images, f"l1 + {__name__}:Adversary(nan_at=4)", "edsr-tiny")
    with pytest.raises(NotFiniteError, match="loss is NaN at step 5"):
        train(spec, train_images, place(), device=CPU)


def test_a_stop_at_a_step_that_is_not_finite_writes_no_checkpoint(train_images, place):
    spec = run(train_images, f"{__name__}:Poison(at=7)", steps=250)
    with pytest.raises(NotFiniteError, match="loss is NaN at step 7"):
        train(spec, train_images, place(), device=CPU, should_stop=stop_after(7))
    assert newest_step(place()) == 0


def test_a_network_that_returns_another_shape_is_refused_at_the_first_step(train_images, place):
    with pytest.raises(InputError, match=r"Wide': it returns \[4, 1, 32, 32\]; \[4, 3, 32, 32\] is needed\.$"):
        train(run(train_images, "l1", f"{__name__}:Wide"), train_images, place(), device=CPU)


def test_a_learning_rate_that_is_too_high_is_noticed(train_images, place):
    spec = run(train_images, "l1", "edsr-tiny", optimizer={"lr": 1e30})
    with pytest.raises(NotFiniteError, match="at step 2"):
        train(spec, train_images, place(), device=CPU)


# Several workers


def fail(spec):
    raise PermissionError(13, "Permission denied", "newest")


def worker(rank, meeting, root, images_path, specs, stops):
    """Does runs one after the other in a group of two, and writes down what this worker was told of each."""
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    images = PackedImages.open(Path(images_path))
    for name, spec in specs.items():
        checkpoints = Checkpoints(Storage(root), name.partition("/")[0])
        if name == "unreadable" and rank == 0:
            checkpoints.load = fail
        should_stop = stop_after(stops[name]) if name in stops and rank == 1 else lambda: False
        rows = []
        options = {"validator": SumOfWeights(), "validated": rows} if name.startswith("continued/") else {}
        try:
            spec = RunSpec.model_validate(spec)
            outcome = train(spec, images, checkpoints, device=CPU, should_stop=should_stop, **options)
            told = {"finished": outcome.finished, "step": outcome.step, "history": outcome.history}
            told["exhausted"] = outcome.exhausted
        except (NotFiniteError, OSError) as error:
            told = {"error": str(error)}
        Storage(root).write(f"told/{rank}/{name}.json", json.dumps(told).encode())
        Storage(root).write(f"validated/{rank}/{name}.json", json.dumps(rows).encode())
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """Runs of a group of two workers: made once, because to start processes takes longer than to train."""
    made = {}

    def make(images):
        if not made:
            folder = tmp_path_factory.mktemp("group")
            shutil.copytree(images.path, folder / "images")
            even, odd = run(images, backbone="edsr-tiny"), run(images, backbone="edsr-tiny", batch=5)
            specs = {"even": even, "odd": odd, "cut": odd, "continued/1": odd, "continued/2": odd}
            specs["all at once"] = run(images, backbone="edsr-tiny", batch=5, **ALL_AT_ONCE)
            specs["spent"] = run(images, backbone="edsr-tiny", max_hours=1e-9)
            specs["compiled"] = run(images, backbone="edsr-tiny", compiled=True)
            specs["idle"] = run(images, backbone=f"{__name__}:Idle")
            specs["learned"] = run(images, f"l1 + {__name__}:Learned + 0.1*{__name__}:Adversary", "edsr-tiny", batch=5)
            specs["adversaries"] = run(images, ADVERSARIES, "edsr-tiny", batch=5)
            specs["unreadable"] = even
            specs["poisoned"] = run(images, f"{__name__}:FirstWorkerInfinite(at=3)", "edsr-tiny", steps=250)
            torch.multiprocessing.spawn(
                worker,
                args=(
                    str(folder / "meeting"),
                    str(folder / "store"),
                    str(folder / "images"),
                    {name: spec.model_dump(mode="json") for name, spec in specs.items()},
                    {"cut": 4, "continued/1": 4},
                ),
                nprocs=2,
            )
            storage = Storage(str(folder / "store"))
            made["specs"] = specs
            made["told"] = lambda name, rank=0: json.loads(storage.read(f"told/{rank}/{name}.json"))
            made["validated"] = lambda name, rank: json.loads(storage.read(f"validated/{rank}/{name}.json"))
            made["place"] = lambda name: Checkpoints(storage, name)
        return made

    return make


def without_speed(history):
    return [{key: value for key, value in row.items() if key != "steps_per_second"} for row in history]


def assert_same_training(history, weights, alone, alone_weights):
    """Not to the bit: a gradient is summed over the slices, then over the workers, and float32 sums are rounded.

    Measured: 3e-7 of a loss and of a weight. Another patch, or a slice of the wrong weight, would show in each loss.
    """
    assert [row["step"] for row in history] == [row["step"] for row in alone]
    for mine, theirs in zip(history, alone, strict=True):
        assert mine["lr"] == theirs["lr"]
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert mine["terms"] == pytest.approx(theirs["terms"], rel=1e-5)
    for key, value in alone_weights.items():
        torch.testing.assert_close(weights[key], value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["even", "odd", "all at once", "compiled", "idle", "learned", "adversaries"])
def test_two_workers_train_on_the_patches_of_one(group, train_images, place, name):
    both = group(train_images)
    alone = train(both["specs"][name], train_images, place(), device=CPU)
    told = both["told"](name)
    assert (told["finished"], told["step"]) == (True, 12)
    assert_same_training(told["history"], both["place"](name).load_weights(), alone.history, place().load_weights())


def test_every_worker_is_told_the_same(group, train_images):
    both = group(train_images)
    for name in both["specs"]:
        one, other = both["told"](name, 0), both["told"](name, 1)
        if "history" in one:
            one["history"], other["history"] = without_speed(one["history"]), without_speed(other["history"])
        assert one == other


def test_a_storage_that_fails_in_one_worker_ends_all_of_them(group, train_images):
    both = group(train_images)
    assert both["told"]("unreadable", 1) == {"error": "[Errno 13] Permission denied: 'newest'"}


def test_a_stop_that_one_worker_asks_for_stops_all(group, train_images):
    both = group(train_images)
    assert (both["told"]("cut")["finished"], both["told"]("cut")["step"]) == (False, 4)
    assert newest_step(both["place"]("cut")) == 4


def test_a_budget_that_is_used_up_ends_all_workers(group, train_images):
    both = group(train_images)
    assert (both["told"]("spent")["exhausted"], both["told"]("spent")["step"]) == (True, 1)
    assert newest_step(both["place"]("spent")) == 1


def test_two_workers_that_were_stopped_end_with_the_bits_of_two_that_were_not(group, train_images):
    both = group(train_images)
    assert both["told"]("continued/1")["step"] == 4
    assert without_speed(both["told"]("continued/2")["history"]) == without_speed(both["told"]("odd")["history"])
    one, other = (both["place"](name).load_weights() for name in ("continued", "odd"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_of_two_workers_the_first_validates_while_the_other_waits(group, train_images):
    both = group(train_images)
    rows = both["validated"]("continued/2", 0)
    assert [row["step"] for row in rows] == [5, 10, 12]
    weights = both["place"]("continued").load_weights()
    assert rows[-1]["value"] == SumOfWeights()(weights, 12, lambda: None)[0]["value"]
    assert both["validated"]("continued/2", 1) == []


def test_one_worker_continues_what_two_began(group, train_images):
    both = group(train_images)
    seen = []
    outcome = train(both["specs"]["cut"], train_images, both["place"]("cut"), device=CPU, on_progress=seen.append)
    assert [progress.step for progress in seen] == list(range(5, 13))
    told = both["told"]("odd")
    assert without_speed(outcome.history[:4]) == without_speed(told["history"][:4])
    assert_same_training(
        outcome.history, both["place"]("cut").load_weights(), told["history"], both["place"]("odd").load_weights()
    )


def test_every_worker_tells_the_first_loss_that_was_not_finite_on_any(group, train_images):
    """Step 3 is infinite on one worker; at 4, when it is noticed, the loss is NaN on both."""
    both = group(train_images)
    assert both["told"]("poisoned", 0) == both["told"]("poisoned", 1) == {"error": "loss is infinite at step 3"}
    assert not finished(both["place"]("poisoned"))
