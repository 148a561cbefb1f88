"""The weights with which runs start, from a checkpoint to the networks."""

import contextlib
import functools
import hashlib
import http.server
import json
import os
import pickle
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from sgbench.backbones import build_backbone
from sgbench.core.errors import InputError, MissingDataError
from sgbench.core.storage import Storage
from sgbench.runs.execute import Job, train_job
from sgbench.runs.initial import Start
from sgbench.runs.maintenance import Merge, clean
from sgbench.runs.plan import make_plan, pack
from sgbench.runs.sweep import Outcome, Quiet, carry_out, look, run_all_here
from sgbench.runs.verification import verify
from sgbench.spec import SweepSpec, build, presets
from sgbench.store import Store
from sgbench.store.layout import inits, weights_of
from sgbench.training import Checkpoints, read_init, read_weights_file

STEPS = 3
RATE = 1e-3

OFFICIAL = {"conv_first": "head.0", "conv_after_body": "body.4", "upsample": "tail.0", "conv_last": "tail.1"}
"""How the published EDSR calls some layers of a network of four blocks."""

State = dict[str, Tensor]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "store"))


@pytest.fixture
def weights() -> State:
    torch.manual_seed(5)
    return build_backbone("edsr-tiny", 4).state_dict()


@pytest.fixture
def file(tmp_path: Path, weights: State) -> Path:
    torch.save(weights, tmp_path / "net.pt")
    return tmp_path / "net.pt"


Make = Callable[..., SweepSpec]


@pytest.fixture
def make(train_folder: Path, test_folder: Path, cache: Path) -> Make:
    """A function that returns a sweep of runs of three steps, with some recipe."""

    def made(*losses: str, **recipe: Any) -> SweepSpec:
        fields = {"grids": [{"backbones": ["edsr-tiny"], "losses": losses or ["l1"]}], "metrics": ["psnr_y"]}
        fields |= {"train": f"Mine={train_folder}", "tests": [f"Few={test_folder}"]}
        few = {"steps": STEPS, "batch": 2, "patch": 8, "optimizer": {"lr": RATE}}
        return build({**fields, "recipe": few | recipe}, "w")

    return made


def here(sweep: SweepSpec, storage: Storage, observer: Quiet | None = None, *, command: str = "sweep") -> Outcome:
    return carry_out("w", sweep, storage, contextlib.nullcontext(run_all_here), observer or Quiet(), command=command)


def hashed(sweep: SweepSpec, storage: Storage) -> str:
    init = Start.of(sweep, storage).sweep.recipe.init
    assert init
    assert init.sha256
    return init.sha256


def final(storage: Storage, run_id: str) -> State:
    return Checkpoints(storage, run_id).load_weights()


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def renamed(weights: State) -> State:
    def name(key: str) -> str:
        layer, _, rest = key.partition(".")
        if layer == "body":
            return key.replace("conv1", "body.0").replace("conv2", "body.2")
        return f"{OFFICIAL[layer]}.{rest}"

    shift = {"sub_mean.weight": torch.eye(3).view(3, 3, 1, 1)}
    return {name(key): value for key, value in weights.items()} | shift


def test_the_same_weights_are_the_same_run_in_whatever_file_they_are(
    make: Make, storage: Storage, weights: State, tmp_path: Path
) -> None:
    others = {key: value + 1 for key, value in weights.items()}
    forms: dict[str, Any] = {
        "plain.pt": weights,
        "wrapped.pth": {"params": weights},
        "averaged.pt": {"params": others, "params_ema": weights},
        "parallel.pt": {"state_dict": {f"module.{key}": value for key, value in weights.items()}},
        "official.pt": renamed(weights),
        "double.ckpt": {key: value.double() for key, value in weights.items()},
    }
    for name, content in forms.items():
        torch.save(content, tmp_path / name)
    safetensors.torch.save_file(weights, tmp_path / "x.safetensors")
    places = [*(str(tmp_path / name) for name in (*forms, "x.safetensors")), f"file://{tmp_path}/plain.pt"]
    starts = [Start.of(make(init=place), storage).sweep.recipe.init for place in places]
    assert len({start and start.sha256 for start in starts}) == 1
    assert [start and start.name for start in starts] == [*forms, "x.safetensors", "plain.pt"]
    torch.save(others, tmp_path / "others.pt")
    assert hashed(make(init=tmp_path / "others.pt"), storage) != hashed(make(init=places[0]), storage)


def test_training_starts_with_the_weights_and_goes_on_from_the_store_alone(
    make: Make, storage: Storage, weights: State, file: Path, tmp_path: Path
) -> None:
    """Adam changes no weight by more than its rate in the first step: Kingma and Ba, ICLR 2015, Section 2.1."""
    alone = Storage(str(tmp_path / "one"))
    one = here(make(init=file, steps=1), alone, command="train")
    (moved,) = (final(alone, str(run.spec.run_id)) for run in one.plan.runs)
    largest = max(float((moved[key] - weights[key]).abs().max()) for key in weights)
    assert 0.5 * RATE < largest < 1.001 * RATE

    sweep, whole = make("l1", "l2", init=file), Storage(str(tmp_path / "whole"))
    undisturbed = here(sweep, whole)

    class Interrupting(Quiet):
        def progress(self, run_id: str, step: int, steps: int, loss: float, steps_per_second: float) -> None:
            if step == 1:
                os.kill(os.getpid(), signal.SIGINT)

    assert here(sweep, storage, Interrupting()).interrupted
    file.unlink()
    with pytest.warns(
        UserWarning, match=r"^recipe\.init: checkpoint '.*/net\.pt' does not exist; those that the store"
    ):
        again = here(sweep, storage)
    assert (again.plan.count("resumable"), again.plan.count("to do"), again.failed) == (1, 1, {})
    ids = [str(run.spec.run_id) for run in undisturbed.plan.runs]
    assert ids == [str(run.spec.run_id) for run in again.plan.runs]
    assert all(same(final(storage, run_id), final(whole, run_id)) for run_id in ids)
    rows = Store(storage).rows()
    assert {(rows[run_id]["init"], rows[run_id]["init_sha256"]) for run_id in ids} == {("net.pt", *inits(storage))}
    with pytest.warns(UserWarning, match="does not exist"):
        assert look("w", sweep, storage, Quiet()).count("done") == 2
    Store(alone).forget(str(one.plan.runs[0].spec.run_id))  # as if it had been killed, without a plan in the store
    with pytest.warns(UserWarning, match="does not exist"):
        assert look("w", make(init=file, steps=1), alone, Quiet()).runs[0].spec == one.plan.runs[0].spec


def test_final_weights_of_a_run_of_the_store_and_a_copy_of_their_file_are_the_same_start(
    make: Make, storage: Storage, tmp_path: Path
) -> None:
    (run,) = here(make(), storage).plan.runs
    run_id = str(run.spec.run_id)
    (tmp_path / "copy.pt").write_bytes(storage.read(weights_of(run_id)))
    start = Start.of(make("l2", init=f"run:{run_id[:6]}"), storage)
    assert start.sweep.recipe.init
    assert start.sweep.recipe.init.name == f"run:{run_id}"
    assert start.sweep.recipe.init.sha256 == hashed(make("l2", init=tmp_path / "copy.pt"), storage)
    assert start.weights is not None
    assert same(dict(start.weights), final(storage, run_id))
    storage.delete(weights_of(run_id))
    with pytest.raises(
        MissingDataError, match=rf"^recipe\.init: run {run_id} \(edsr-tiny.*\) has no final weights in "
    ):
        Start.of(make(init=f"run:{run_id}"), storage)


def test_a_run_that_has_no_weights_to_start_with_is_named(make: Make, storage: Storage) -> None:
    with pytest.raises(InputError, match=r"^recipe\.init: 'run:xyz' is not run: and a run's id, or its first 4"):
        Start.of(make(init="run:xyz"), storage)
    with pytest.raises(MissingDataError, match=r"^recipe\.init: run '0123': '.*/store' has no such run; "):
        Start.of(make(init="run:0123"), storage)
    sweep = make()
    made = make_plan("w", sweep, pack(sweep), Store(storage))
    Store(storage).write_plan("w", made.records())
    run_id = str(made.runs[0].spec.run_id)
    with pytest.raises(
        MissingDataError, match=rf"^recipe\.init: run {run_id} is not done; a finished run is needed\.$"
    ):
        Start.of(make(init=f"run:{run_id}"), storage)
    Store(storage).write_run({**made.records()[0].run, "status": "failed", "error": "loss is NaN"})
    with pytest.raises(MissingDataError, match=rf"^recipe\.init: run {run_id} is failed; a finished run is needed\.$"):
        Start.of(make(init=f"run:{run_id}"), storage)


def test_what_fits_another_scale_is_loaded_and_what_does_not_is_said_and_on_record(
    make: Make, storage: Storage, tmp_path: Path
) -> None:
    torch.manual_seed(2)
    of_2 = build_backbone("edsr-tiny", 2).state_dict()
    torch.save(of_2, tmp_path / "x2.pt")
    with pytest.raises(
        InputError, match=r"it misses 'upsample\.2\.weight'.*'edsr-tiny' at scale 2; recipe\.init_partial"
    ):
        Start.of(make(init=tmp_path / "x2.pt"), storage)
    sweep = make(init=tmp_path / "x2.pt", init_partial=True, steps=1)
    lacking = ("upsample.2.weight", "upsample.2.bias")
    with pytest.warns(
        UserWarning, match=r"^recipe\.init: 'x2\.pt' gives 24 of the network's 26 tensors; drawn from the "
    ):
        (run,) = here(sweep, storage).plan.runs
    assert run.spec.recipe.init
    assert run.spec.recipe.init.drawn == lacking
    row = Store(storage).run(str(run.spec.run_id)) or {}
    assert json.loads(str(row["spec"]))["recipe"]["init"]["drawn"] == list(lacking)
    moved = final(storage, str(run.spec.run_id))
    assert max(float((moved[key] - value).abs().max()) for key, value in of_2.items()) < 1.001 * RATE
    (plain,) = here(make(steps=1), storage).plan.runs  # which draws all weights from the same seed
    drawn = final(storage, str(plain.spec.run_id))
    assert max(float((moved[key] - drawn[key]).abs().max()) for key in lacking) < 2.001 * RATE
    assert max(float((moved[key] - drawn[key]).abs().max()) for key in of_2) > 10 * RATE


def test_weights_that_fit_as_a_whole_are_the_same_run_with_init_partial(
    make: Make, storage: Storage, file: Path
) -> None:
    sweeps = make(init=file), make(init=file, init_partial=True)
    starts = [Start.of(sweep, storage) for sweep in sweeps]
    data = pack(sweeps[0])
    assert len({start.sweep.named_runs(data.training)[0].run_id for start in starts}) == 1
    assert [start.remark for start in starts] == ["", ""]


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def write_bad(path: Path, kind: str, weights: State) -> None:
    """Write something that no run can start with."""
    torch.save(weights, path)
    content = path.read_bytes()
    if kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind in ("empty", "cut"):
        path.write_bytes(b"" if kind == "empty" else content[: len(content) // 2])
    elif kind == "code":
        path.write_bytes(pickle.dumps({"params": Command(f"touch {path}.run")}, protocol=2))
    elif kind == "nothing":
        torch.save({"params": {}}, path)
    elif kind == "nan":
        torch.save(weights | {"conv_last.bias": torch.tensor([0.0, float("nan"), 0.0])}, path)
    elif kind == "backbone":
        torch.save(build_backbone("rdn-tiny", 4).state_dict(), path)
    elif kind == "shape":
        torch.save(weights | {"conv_last.bias": torch.zeros(1)}, path)
    elif kind == "constants":
        torch.save(weights | {"sub_mean.bias": torch.zeros(3)}, path)


BAD = {
    "folder": r"checkpoint '.*net\.pt' cannot be read: .*a regular file is needed",
    "empty": r"checkpoint '.*net\.pt' cannot be read: it is damaged",
    "cut": r"checkpoint '.*net\.pt' cannot be read: it is damaged",
    "code": r"checkpoint '.*net\.pt' cannot be read: it is damaged, or holds more than tensors and plain values",
    "nothing": r"holds no weights: tensors by parameter name are needed",
    "nan": r"'net\.pt' holds no weights that can be used: 'conv_last\.bias' has NaN or infinite values",
    "backbone": r"'net\.pt' is no checkpoint of backbone 'edsr-tiny': it misses '.*' and has an unexpected '.*'\.$",
    "shape": r"'conv_last\.bias' has shape \(1,\) where \(3,\) is needed; recipe\.init_partial=true would load 25 ",
    "constants": r"'sub_mean\.bias' is 0, 0, 0 where -114",
}


@pytest.mark.parametrize("kind", BAD)
def test_what_no_run_can_start_with_is_refused_in_a_sentence_before_anything_starts(
    make: Make, storage: Storage, weights: State, tmp_path: Path, kind: str
) -> None:
    write_bad(tmp_path / "net.pt", kind, weights)
    for act in (here, lambda sweep, storage: look("w", sweep, storage, Quiet())):
        with pytest.raises(InputError, match=rf"^recipe\.init: .*{BAD[kind]}") as error:
            act(make(init=tmp_path / "net.pt"), storage)
        said = str(error.value).replace(str(tmp_path), "")
        assert "\n" not in said
        assert len(said) < 300
    assert not storage.exists()
    assert not (tmp_path / "net.pt.run").exists()


@pytest.mark.parametrize("kind", ["nan", "backbone", "constants"])
def test_init_partial_loads_neither_what_is_not_finite_nor_what_is_of_another_network(
    make: Make, storage: Storage, weights: State, tmp_path: Path, kind: str
) -> None:
    write_bad(tmp_path / "net.pt", kind, weights)
    with pytest.raises(InputError, match=r"^recipe\.init: 'net\.pt' (holds no weights|does not even fit) "):
        Start.of(make(init=tmp_path / "net.pt", init_partial=True), storage)


def test_weights_that_were_trained_on_test_images_are_refused(
    make: Make, storage: Storage, weights: State, tmp_path: Path
) -> None:
    sweep = make()
    spec = sweep.named_runs(pack(sweep).training)[0].model_dump(mode="json")
    torch.save(
        {"params": weights, "spec": spec | {"train": {"name": "BSDS500", "sha256": "0" * 64}}}, tmp_path / "net.pt"
    )
    tested = make(init=tmp_path / "net.pt").model_copy(update={"tests": ("B100",)})
    with pytest.raises(
        InputError, match=r"^recipe\.init: training on test images is refused: B100 lies inside BSDS500"
    ):
        Start.of(tested, storage)


def test_without_the_checkpoint_a_plan_says_what_is_missing_and_a_sweep_refuses(
    make: Make, storage: Storage, tmp_path: Path
) -> None:
    sweep = make(init=tmp_path / "net.pt")
    with pytest.warns(UserWarning, match=r"^run ids are not known yet: recipe\.init: checkpoint '.*' does not exist"):
        (run,) = look("w", sweep, storage, Quiet()).runs
    assert (run.spec.run_id, run.status) == (None, "to do")
    with pytest.raises(MissingDataError, match=r"^recipe\.init: checkpoint '.*' does not exist\.$"):
        here(sweep, storage)
    with pytest.raises(
        MissingDataError, match=r"x4-6b446fab\.pt' is not on this machine: 'sgbench sweep --fetch' down"
    ):
        here(make(init=presets.load("finetune")[1]["recipe"]["init"]), storage)
    with pytest.raises(
        InputError, match=r"^recipe\.init: 'https://a\.org/x\.pt' does not end in digits of its SHA-256, "
    ):
        here(make(init="https://a.org/x.pt"), storage)


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of a folder of this test, by loopback."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    made = functools.partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), made) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_checkpoint_with_an_address_is_downloaded_once_on_request_and_checked_by_its_name(
    make: Make, storage: Storage, file: Path, address: str
) -> None:
    digits = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    right, wrong, away = (file.with_name(f"net-{digits}.{ending}") for ending in ("pt", "bad", "gone"))
    file.rename(right)
    wrong.write_bytes(b"another")
    sizes = list[int]()
    start = Start.of(make(init=f"{address}/{right.name}"), storage, lambda done, total: sizes.append(done))
    assert sizes[-1] == right.stat().st_size
    right.unlink()
    again = Start.of(make(init=f"{address}/{right.name}"), storage)
    assert again.sweep.recipe.init == start.sweep.recipe.init
    with pytest.raises(InputError, match=r"^recipe\.init: 'http.*\.bad' has the sha256 .* the download was deleted\.$"):
        Start.of(make(init=f"{address}/{wrong.name}"), storage, lambda done, total: None)
    with pytest.raises(
        MissingDataError, match=r"^recipe\.init: .*404 .* again to resume, or download it yourself, and "
    ):
        Start.of(make(init=f"{address}/{away.name}"), storage, lambda done, total: None)


@pytest.fixture
def job(make: Make, storage: Storage, file: Path) -> Job:
    """A job on a machine that has the store but not the checkpoint."""
    start = Start.of(make(init=file), storage)
    data = pack(start.sweep)
    start.keep(storage)
    file.unlink()
    (run,) = make_plan("w", start.sweep, data, Store(storage)).runs
    return Job.from_json(Job.of(run, data, start.sweep, storage).to_json())


def test_a_job_finds_the_weights_in_the_store_or_says_what_is_wrong_with_them(job: Job, storage: Storage) -> None:
    assert train_job(job)[0] == "done"
    (name,) = inits(storage).values()
    content = storage.read(name)
    for damaged, reason in ((None, "does not exist"), (b"", "it is damaged"), (content[:-9], "it is damaged")):
        storage.delete(weights_of(job.run_id)), Store(storage).forget(job.run_id)
        storage.write(name, damaged) if damaged is not None else storage.delete(name)
        end, message = train_job(job)
        assert (end, reason in message) == ("failed", True)


def test_what_is_damaged_in_the_store_is_written_anew_or_else_refused(
    make: Make, storage: Storage, weights: State, file: Path
) -> None:
    start = Start.of(make(init=file), storage)
    start.keep(storage)
    (name,) = inits(storage).values()
    kept = storage.read(name)
    other = {key: value + 1 for key, value in weights.items()}
    torch.save({"params": other}, storage.path(name))
    faults = list(verify(Store(storage), checked := Counter[str]()))
    assert len(faults) == checked["initial weights"] == 1
    assert "does not hold the weights of that hash" in faults[0]
    sent = Start.of(start.sweep, storage)
    with pytest.raises(
        InputError, match=r"^recipe\.init: the store lacks the weights of 'net\.pt': .* of that hash; delete"
    ):
        sent.keep(storage)
    start.keep(storage)
    sent.keep(storage)
    assert same(read_weights_file(name, storage)[0], weights)
    assert list(verify(Store(storage))) == []
    assert len(storage.read(name)) == len(kept)


def test_the_weights_in_a_store_must_be_of_the_backbone_that_a_sweep_names(
    make: Make, storage: Storage, file: Path
) -> None:
    start = Start.of(make(init=file), storage)
    start.keep(storage)
    grid = start.sweep.grids[0].model_copy(update={"backbones": ("rdn-tiny",)})
    with pytest.raises(
        InputError, match=r"^recipe\.init: 'net\.pt' is no checkpoint of backbone 'rdn-tiny': it misses "
    ):
        Start.of(start.sweep.model_copy(update={"grids": (grid,)}), storage).keep(storage)


class Mine(nn.Module):
    """A network of one's own, with state of several types."""

    def __init__(self, *, scale: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 3 * scale**2, 1), nn.BatchNorm2d(3 * scale**2), nn.PixelShuffle(scale))
        self.register_buffer("tenth", torch.full((2,), 0.1, dtype=torch.bfloat16))

    def forward(self, lr: Tensor) -> Tensor:
        upscaled: Tensor = self.layers(lr)
        return upscaled


def test_a_network_of_ones_own_starts_with_all_of_its_state(make: Make, storage: Storage, tmp_path: Path) -> None:
    torch.manual_seed(3)
    state = Mine(scale=4).state_dict() | {"layers.1.num_batches_tracked": torch.tensor(7)}
    torch.save(state, tmp_path / "mine.pt")
    sweep = make(init=tmp_path / "mine.pt")
    grid = sweep.grids[0].model_copy(update={"backbones": (f"{__name__}:Mine",)})
    start = Start.of(sweep.model_copy(update={"grids": (grid,)}), storage)
    start.keep(storage)
    ((sha256, _),) = inits(storage).items()
    kept, source = read_init(storage, sha256)
    assert same(kept, state)
    assert source == "mine.pt"
    assert {key: value.dtype for key, value in kept.items()} == {key: value.dtype for key, value in state.items()}


def test_merging_takes_the_weights_along_and_cleaning_leaves_them(
    make: Make, storage: Storage, file: Path, tmp_path: Path
) -> None:
    Start.of(make(init=file), storage).keep(storage)
    storage.write("sgbench.json", b'{"format": 1}')
    (name,) = inits(storage).values()
    storage.write(f"init/.{name.removeprefix('init/')}.0123abcd", b"123")
    other = Store(Storage(str(tmp_path / "other")))
    Merge.of(other, Store(storage)).apply()
    assert other.storage.read(name) == storage.read(name)
    assert clean(Store(storage)) == {f"init/.{name.removeprefix('init/')}.0123abcd": 3}
    assert list(storage.sizes("init")) == [name]
