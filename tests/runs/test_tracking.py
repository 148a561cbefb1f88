"""Which trackers are told what of runs, whatever carries them out, and what a fault of one does."""

import contextlib
import dataclasses
import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from crash_points import Frail
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sgbench.core.errors import InputError
from sgbench.core.registry import TRACKERS
from sgbench.core.storage import Storage
from sgbench.runs import tracking as module
from sgbench.runs.code import code_of, names_of_command, names_of_sweep
from sgbench.runs.delivery import Packed
from sgbench.runs.execute import Job
from sgbench.runs.sweep import Quiet, carry_out, run_all_here
from sgbench.runs.tracking import Tracking, title, tracked, trackers_of
from sgbench.spec import Recipe, RunSpec, SweepSpec, TrainingData, build
from sgbench.spec.expression import parse
from sgbench.store import Store, identity_columns
from sgbench.store.layout import discard, runs_beside
from sgbench.store.rows import RunEnd
from sgbench.trackers import TrackedRun
from sgbench.trackers.tensorboard import TensorBoard

TITLE = "edsr-tiny l1 seed 0"


class Noting:
    """A tracker that notes what it is told."""

    told: ClassVar[list[tuple[Any, ...]]] = []

    def started(self, run: TrackedRun) -> None:
        self.run = run
        self.told.append(("started", run.run_id))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.told.append(("log", self.run.run_id, step, dict(values)))

    def finished(self, end: RunEnd, message: str) -> None:
        self.told.append(("finished", self.run.run_id, end, message))


class Away(Noting):
    """One whose server has gone away, and is there again for the next run."""

    told: ClassVar[list[tuple[Any, ...]]] = []

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if not any(told[0] == "gone" for told in self.told):
            self.told.append(("gone",))
            raise SystemExit("the server is gone")
        super().log(step, values)


class Stuck(Noting):
    """One whose server never answers."""

    answers = threading.Event()

    def started(self, run: TrackedRun) -> None:
        self.answers.wait(60)


class Refusing(Noting):
    def __init__(self) -> None:
        raise ValueError("no key\nat all")


@pytest.fixture(autouse=True)
def forget() -> None:
    Noting.told.clear()
    Away.told.clear()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A run of data that nobody has, with a store of its own."""
    spec = RunSpec(backbone="edsr-tiny", loss="l1", seed=0, train=TrainingData(name="a", sha256="0" * 64))
    (tmp_path / "store").mkdir()
    return Job(spec, str(tmp_path / "store"), Packed("", "0" * 64), (), (), recompute=False, checkpoint_seconds=10.0)


def a_sweep(track: object = None) -> SweepSpec:
    grids = [{"backbones": ["edsr-tiny"], "losses": ["l1"]}]
    return build({"grids": grids, "train": "a", "tests": ["b 2"], "metrics": ["psnr_y"], "track": track}, "mine")


@contextlib.contextmanager
def told_of(*jobs: Job, trackers: Mapping[str, Any]) -> Iterator[Tracking]:
    with tracked(Quiet(), "mine", a_sweep(), jobs, trackers, Storage(jobs[0].store)) as tracking:
        yield tracking


def follow(*jobs: Job, trackers: Mapping[str, Any], end: RunEnd | None = RunEnd.DONE) -> None:
    """Let runs of two steps happen."""
    with told_of(*jobs, trackers=trackers) as tracking:
        for job in jobs:
            tracking.started(job.run_id, "")
            for step in (1, 2):
                tracking.measured(job.run_id, step, {"loss": 0.5})
            if end:
                tracking.finished(job.run_id, end, "")


def test_a_tracker_is_told_of_a_run_each_value_of_a_step_once(job: Job) -> None:
    job = dataclasses.replace(job, step=5)
    runs: list[TrackedRun] = []

    class Keeping(Noting):
        def started(self, run: TrackedRun) -> None:
            super().started(run)
            runs.append(run)

    with told_of(job, trackers={"mine": Keeping}) as tracking:
        tracking.started(job.run_id, "")
        tracking.measured(job.run_id, 7, {"loss": 0.5, "terms/sg(operator=sobel)": 0.25})
        tracking.measured(job.run_id, 7, {"validation/b 2/psnr_y": 29.5})
        tracking.started(job.run_id, "")  # its process died
        tracking.measured(job.run_id, 6, {"loss": 0.6})
        tracking.measured(job.run_id, 7, {"loss": 0.5, "validation/b 2/psnr_y": 29.5})
        tracking.measured(job.run_id, 8, {"scores/b 2/psnr_y": 30.5})
        tracking.finished(job.run_id, RunEnd.FAILED, "no reason")
    assert Noting.told == [
        ("started", job.run_id),
        ("log", job.run_id, 7, {"loss": 0.5, "terms/sg_operator_sobel": 0.25}),
        ("log", job.run_id, 7, {"validation/b_2/psnr_y": 29.5}),
        ("log", job.run_id, 8, {"scores/b_2/psnr_y": 30.5}),
        ("finished", job.run_id, RunEnd.FAILED, "no reason"),
    ]
    (run,) = runs
    folder = Path(job.store) / "tensorboard" / f"{TITLE} {job.run_id}"
    assert (run.name, run.sweep, run.step, run.folder) == (f"{TITLE} {job.run_id}", "mine", 5, folder)
    assert run.scores == ("scores/b_2/psnr_y",)
    assert run.config.items() >= {"backbone": "edsr-tiny", "loss": "l1", "seed": 0, "lambda": 0.0}.items()
    assert not {"spec", "name"} & run.config.keys()
    assert TensorBoard.SHOWN.keys() <= identity_columns(job.spec).keys()
    assert all(isinstance(value, str | int | float) for value in run.config.values())


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        ("l1 + 1.0*sg", "edsr-tiny l1+sg seed 0"),
        ("l1 + 11.0*sg", "edsr-tiny l1+11.0*sg seed 0"),
        ("0.5*l1 + 0.1*sg(operator=sobel)", "edsr-tiny 0.5*l1+0.1*sg(operator=sobel) seed 0"),
        ("l1 + odd_losses:Slow", "edsr-tiny l1+odd_losses.Slow seed 0"),
    ],
)
def test_a_run_is_called_by_what_it_trains(job: Job, loss: str, name: str) -> None:
    assert title(job.spec.model_copy(update={"loss": parse(loss)})) == name


def test_the_files_of_a_run_are_deleted_with_it_and_not_those_of_its_namesakes(job: Job) -> None:
    storage = Storage(job.store)
    other = dataclasses.replace(job, spec=job.spec.model_copy(update={"recipe": Recipe(steps=7)}))
    with told_of(job, other, trackers={"tensorboard": TensorBoard}) as tracking:
        for each in (job, other):
            tracking.started(each.run_id, "")
    folders = {each.run_id: f"tensorboard/{TITLE} {each.run_id}" for each in (job, other)}
    assert storage.folders("tensorboard") == sorted(folders.values())
    assert runs_beside(storage) == folders.keys()
    discard(storage, job.run_id)
    assert storage.folders("tensorboard") == [folders[other.run_id]]


def test_the_files_reach_an_object_store_when_the_command_ends_and_a_fault_of_that_stops_nothing(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, trackers = Frail(), {"tensorboard": TensorBoard}

    def upload() -> None:
        with tracked(Quiet(), "mine", a_sweep(), [job], trackers, storage) as tracking:
            tracking.started(job.run_id, "")
            tracking.finished(job.run_id, RunEnd.DONE, "")

    upload()
    (name,) = storage.sizes("tensorboard")
    assert name.startswith(f"tensorboard/{TITLE} {job.run_id}/events.out.tfevents.")
    monkeypatch.setattr(Frail, "upload", lambda *_: full())
    with pytest.warns(UserWarning, match=r"^training curves are incomplete: OSError: .*No space left on device$"):
        upload()


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_tracker_that_fails_hears_no_more_of_the_run_but_of_the_next_and_the_others_of_all(job: Job) -> None:
    other = dataclasses.replace(job, spec=job.spec.model_copy(update={"seed": 1}))
    said = r"^training curves are incomplete: tracker 'away': SystemExit: the server is gone$"
    with pytest.warns(UserWarning, match=said):
        follow(job, other, trackers={"away": Away, "sound": Noting})
    assert [told[0] for told in Away.told] == ["started", "gone", "started", "log", "log", "finished"]
    assert [told[0] for told in Noting.told] == ["started", "log", "log", "finished"] * 2


def test_a_tracker_whose_server_does_not_answer_keeps_nobody_waiting(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.05)
    with pytest.warns(UserWarning, match=r"^tracker 'stuck' has not received everything: it is still busy$"):
        follow(job, trackers={"stuck": Stuck, "sound": Noting}, end=None)
    Stuck.answers.set()
    assert [told[0] for told in Noting.told] == ["started", "log", "log", "finished"]
    assert Noting.told[-1][2] is RunEnd.INTERRUPTED


def test_trackers_are_one_name_or_several_and_tensorboard_is_always_one(job: Job) -> None:
    own = f"{__name__}:Noting"
    for track, names in [
        (None, ["tensorboard"]),
        (own, ["tensorboard", own]),
        (["tensorboard", own, own], ["tensorboard", own]),
    ]:
        found = trackers_of(a_sweep(track))
        assert list(found) == names
        assert found["tensorboard"] is TensorBoard
    assert build(a_sweep(own).model_dump(mode="json", by_alias=True), "mine") == a_sweep([own])
    assert TRACKERS.names() == ["mlflow", "tensorboard", "wandb"]


@pytest.mark.parametrize("service", ["mlflow", "wandb"])
def test_a_service_whose_extra_is_missing_is_bad_input(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, service, None)
    with pytest.raises(InputError, match=rf"^track is '{service}', which needs an extra: .*'sgbench\[{service}\]'\.$"):
        trackers_of(a_sweep(service))


def test_a_tracker_of_an_installed_package_has_a_name_and_one_of_a_module_goes_along_with_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, lines = tmp_path / "site", "from runs_trackers_base import Base\nclass Lines(Base): pass\n"
    metadata = site / "their_trackers-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: their-trackers\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[sgbench.trackers]\nlines = their_lines:Lines\n")
    methods = "".join(f"    def {name}(self, *told): pass\n" for name in ("started", "log", "finished"))
    (tmp_path / "runs_trackers_base.py").write_text(f"class Base:\n{methods}")
    for path in (site / "their_lines.py", tmp_path / "my_lines.py"):
        path.write_text(lines)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(site)
    sweep = a_sweep(["lines", "my_lines:Lines"])
    assert list(trackers_of(sweep)) == ["tensorboard", "lines", "my_lines:Lines"]
    code = code_of(names_of_command(sweep))
    assert code.packages == ("their-trackers",)
    assert {"my_lines.py", "runs_trackers_base.py"} <= {Path(module.file).name for module in code.modules}
    assert code_of(names_of_sweep(sweep)) == code_of([])


def test_the_tracker_of_the_documentation_says_what_happens(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    text = Path(__file__).parents[2].joinpath("docs/training.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(class MyTracker.*?)```", text, re.DOTALL)
    defined: dict[str, Any] = {}
    exec(code, defined)
    follow(job, trackers={"own": defined["MyTracker"]})
    said = [f"{TITLE} {job.run_id} starts after step 0: l1", "1 {'loss': 0.5}", "2 {'loss': 0.5}", "done "]
    assert capsys.readouterr().out.splitlines() == said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("comet", r"^mine: track: unknown tracker 'comet'"),
        ("no_such_module:Tracker", r"^mine: track: tracker 'no_such_module:Tracker' cannot be imported"),
        ("pathlib:Path", r"^mine: track: tracker 'pathlib:Path' is a Path; a class with the methods started"),
    ],
)
def test_what_is_no_tracker_is_bad_input(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        a_sweep(name)


def test_a_tracker_that_refuses_is_bad_input() -> None:
    name = f"{__name__}:Refusing"
    said = f"track is '{name}', which cannot be used: ValueError: no key."
    with pytest.raises(InputError, match=f"^{re.escape(said)}$"):
        trackers_of(a_sweep(name))


def test_one_run_without_ray_has_curves_that_go_on_when_it_is_resumed(
    train_folder: Path, test_folder: Path, cache: Path, tmp_path: Path
) -> None:
    steps, own = 4, f"{__name__}:Noting"
    fields: dict[str, Any] = {"grids": [{"backbones": ["edsr-tiny"], "losses": ["l1 + 0.5*sg"]}], "track": own}
    fields |= {"train": f"Mine={train_folder}", "tests": [f"Few={test_folder}"], "metrics": ["psnr_y"]}
    sweep = build({**fields, "recipe": {"steps": steps, "batch": 2, "patch": 8}}, "one")
    storage = Storage(str(tmp_path / "store"))

    class Interrupting(Quiet):
        def progress(self, run_id: str, step: int, steps: int, loss: float, steps_per_second: float) -> None:
            if step == 2:
                os.kill(os.getpid(), signal.SIGINT)

    for observer in (Interrupting(), Quiet()):
        carry_out("one", sweep, storage, contextlib.nullcontext(run_all_here), observer, command="train")
    (row,) = Store(storage).runs().to_pylist()
    history = Store(storage).history().to_pylist()
    assert [each["step"] for each in history] == list(range(1, steps + 1))
    (folder,) = Path(storage.path("tensorboard")).iterdir()
    assert folder.name == f"edsr-tiny l1+0.5*sg seed 0 {row['run_id']}"
    read = EventAccumulator(str(folder)).Reload()
    (total,) = Store(storage).totals().to_pylist()
    columns = {f"terms/{term}": [dict(each["terms"])[term] for each in history] for term in dict(history[0]["terms"])}
    columns |= {name: [each[name] for each in history] for name in ("loss", "lr", "steps_per_second")}
    assert set(read.Tags()["scalars"]) == {*columns, "scores/Few/psnr_y"}
    for name, values in columns.items():
        assert [point.step for point in read.Scalars(name)] == list(range(1, steps + 1))
        assert [point.value for point in read.Scalars(name)] == pytest.approx(values)
    assert [(point.step, point.value) for point in read.Scalars("scores/Few/psnr_y")] == [
        (steps, pytest.approx(total["value"]))
    ]
    assert [told[2] for told in Noting.told if told[0] == "log"] == [1, 2, 3, 4, 4]
    assert [told[2] for told in Noting.told if told[0] == "finished"] == [RunEnd.STOPPED, RunEnd.DONE]
