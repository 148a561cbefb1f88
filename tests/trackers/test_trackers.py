"""What TensorBoard, MLflow and Weights & Biases have of a run, also of one that was killed and resumed."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata

from sgbench.core.errors import InputError
from sgbench.store.rows import RunEnd
from sgbench.trackers import TrackedRun, Tracker
from sgbench.trackers.base import check
from sgbench.trackers.tensorboard import TensorBoard

NAME = "edsr-tiny l1 seed 0 0123456789ab"
VALUES = {"loss": 0.5, "lr": 1e-3, "steps_per_second": 8.0, "terms/l1": 0.25, "validation/few/psnr_y": 30.0}
"""At step 1; at the others they are divided by the step."""

Run = Callable[..., TrackedRun]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A function that returns a run, of which some steps are done."""
    config = {"run_id": "0123456789ab", "backbone": "edsr-tiny", "lambda": 0.0, "seed": 0}
    config |= {"ema": 0.999, "optimizer_name": "adam", "optimizer_lr": 1e-4}
    (tmp_path / "store").mkdir()
    folder = tmp_path / "store/tensorboard" / NAME
    return lambda step=0: TrackedRun(
        "0123456789ab",
        NAME,
        "mine",
        config,
        step,
        ("scores/few/psnr_y",),
        folder,
    )


def track(tracker: Tracker, run: TrackedRun, steps: list[int], end: RunEnd | None = RunEnd.DONE) -> None:
    """Track a run that has a score after some steps, unless it is killed."""
    tracker.started(run)
    for step in steps:
        tracker.log(step, {name: value / step for name, value in VALUES.items()})
    if end is RunEnd.DONE:
        tracker.log(steps[-1] if steps else run.step, {"scores/few/psnr_y": 30.5})
    if end:
        tracker.finished(end, "" if end is RunEnd.DONE else "loss is NaN at step 7")


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    read = EventAccumulator(str(folder)).Reload()
    return {tag: [(point.step, point.value) for point in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def expected(*steps: int) -> dict[str, list[tuple[int, Any]]]:
    points = {name: [(step, pytest.approx(value / step)) for step in steps] for name, value in VALUES.items()}
    return {**points, "scores/few/psnr_y": [(steps[-1], 30.5)]}


def shown(folder: Path, what: str) -> Any:
    """Return what TensorBoard's plug-in for hyperparameters reads of a run."""
    tags = EventAccumulator(str(folder)).Reload().summary_metadata
    content = tags[f"_hparams_/{what}"].plugin_data.content
    return metadata._parse_plugin_data_as(content, what)


def test_tensorboard_has_curves_hyperparameters_and_scores_of_a_run(run: Run) -> None:
    track(TensorBoard(), run(), [10, 20])
    folder = run().folder
    assert curves(folder) == expected(10, 20)
    begun = shown(folder, "session_start_info")
    values = {name: value.string_value or value.number_value for name, value in begun.hparams.items()}
    hyperparameters = {"backbone": "edsr-tiny", "lambda": 0.0, "seed": 0.0, "ema": 0.999}
    assert values == {**hyperparameters, "optimizer": "adam", "learning rate": 1e-4}
    assert [info.name.tag for info in shown(folder, "experiment").metric_infos] == ["scores/few/psnr_y"]
    assert shown(folder, "session_end_info").status == api_pb2.STATUS_SUCCESS


def test_tensorboard_shows_each_step_of_a_killed_run_once_and_of_a_repeated_one_the_last(run: Run) -> None:
    track(TensorBoard(), run(), [10, 20, 30], end=None)
    track(TensorBoard(), run(step=10), [20, 30, 40])
    assert curves(run().folder) == expected(10, 20, 30, 40)
    tracker = TensorBoard()
    tracker.started(run(step=40))  # to be scored by another metric
    tracker.log(40, {"scores/few/ssim_y": 0.9})
    tracker.finished(RunEnd.DONE, "")
    assert curves(run().folder) == expected(10, 20, 30, 40) | {"scores/few/ssim_y": [(40, pytest.approx(0.9))]}
    track(TensorBoard(), run(), [15])
    assert curves(run().folder).items() >= expected(15).items()
    assert curves(run().folder)["scores/few/ssim_y"] == []


def test_tensorboard_makes_no_store_anew(run: Run) -> None:
    run().folder.parents[1].rmdir()
    with pytest.raises(FileNotFoundError):
        TensorBoard().started(run())
    assert not run().folder.parents[1].exists()


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow with a store of files, which it wants to be asked for by name."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return pytest.importorskip("mlflow")


def runs_of(mlflow: Any, experiment: str) -> list[Any]:
    """Return the runs of an experiment of MLflow, the newest first."""
    client = mlflow.MlflowClient()
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def curves_of(mlflow: Any, run: Any) -> dict[str, list[tuple[int, float]]]:
    history = {name: mlflow.MlflowClient().get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return {name: [(point.step, point.value) for point in points] for name, points in history.items()}


def test_mlflow_has_fields_curves_and_scores_of_a_run_each_step_once(
    mlflow: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sgbench.trackers.mlflow import MLflow

    track(MLflow(), run(), [10, 20, 30], end=None)
    track(MLflow(), run(), [10, 20], end=None)  # it was killed before its first checkpoint, and now after that
    track(MLflow(), run(step=10), [20, 30, 40])
    (found,) = runs_of(mlflow, "mine")
    assert (found.info.run_name, found.info.status) == (NAME, "FINISHED")
    assert found.data.params == {key: str(value) for key, value in run().config.items()}
    assert curves_of(mlflow, found) == expected(10, 20, 30, 40)

    track(MLflow(), run(), [5], end=RunEnd.FAILED)  # it is repeated
    again, before = runs_of(mlflow, "mine")
    assert (again.info.status, again.data.tags["sgbench.message"]) == ("FAILED", "loss is NaN at step 7")
    assert curves_of(mlflow, again)["loss"] == [(5, 0.1)]
    assert before.info.run_id == found.info.run_id

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "all")
    track(MLflow(), run(), [5], end=RunEnd.STOPPED)
    assert [each.info.status for each in runs_of(mlflow, "all")] == ["KILLED"]


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """W&B without a server, a key, or a person to ask for one."""
    for name in ("WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    module = pytest.importorskip("wandb")
    module.teardown()  # it reads the environment once
    yield module
    module.teardown()


def test_weights_and_biases_has_fields_and_curves_of_runs_that_go_on_at_the_same_time(
    wandb: Any, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Offline, where it writes what it would send into a file, of which each record has its text as it is."""
    from sgbench.trackers.wandb import WandB

    other = WandB()
    other.started(TrackedRun(**{**vars(run()), "run_id": "ba9876543210"}))
    track(WandB(), run(), [10, 20])
    other.log(5, VALUES)
    other.finished(RunEnd.FAILED, "loss is NaN at step 7")
    wandb.teardown()  # its own process writes the files
    for run_id, steps in (("0123456789ab", ("10", "20")), ("ba9876543210", ("5",))):
        (file,) = tmp_path.glob(f"wandb/offline-run-*/run-{run_id}.wandb")
        content = file.read_bytes()
        texts = ("sgbench", NAME, "mine", '"edsr-tiny"', "terms/l1", "validation/few/psnr_y", *steps)
        assert [text for text in texts if text.encode() not in content] == []
    assert capfd.readouterr() == ("", "")


def test_weights_and_biases_without_a_key_is_bad_input_and_asks_nobody(
    wandb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sgbench.trackers.wandb import WandB

    monkeypatch.delenv("WANDB_MODE")
    with pytest.raises(InputError, match=r"^there is no key: set WANDB_API_KEY"):
        WandB()


class Session:
    """A run of W&B that was resumed: its next step is 31."""

    def __init__(self) -> None:
        self.step = 31
        self.logged: list[tuple[int, Mapping[str, float]]] = []
        self.summary: dict[str, float] = {}

    def log(self, data: Mapping[str, float], step: int) -> None:
        self.logged.append((step, data))
        self.step = step


def test_a_resumed_run_goes_on_in_weights_and_biases_where_it_was_and_a_repeated_one_begins_anew(
    wandb: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sgbench.trackers.wandb import WandB

    asked: list[dict[str, Any]] = []
    session, parameters = Session(), inspect.signature(wandb.init).parameters

    def init(**options: Any) -> Session:
        assert options.keys() <= parameters.keys()
        asked.append(options)
        return session

    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setattr("sgbench.trackers.wandb.wandb", SimpleNamespace(**{**vars(wandb), "init": init}))
    tracker = WandB()
    tracker.started(run(step=10))
    for step in (20, 30, 40, 40):
        tracker.log(step, {"loss": step})
    assert session.logged == [(40, {"loss": 40}), (40, {"loss": 40})]
    tracker.log(30, {"scores/few/psnr_y": 30.5})
    assert session.summary["scores/few/psnr_y"] == 30.5
    WandB().started(run())
    assert [(each["id"], each["resume"], each["project"]) for each in asked] == [
        ("0123456789ab", "allow", "theirs"),
        ("0123456789ab", None, "theirs"),
    ]


@pytest.mark.parametrize(("entry", "what"), [(5, "int"), (TensorBoard(), "TensorBoard"), (Path, "Path")])
def test_what_is_no_class_of_trackers_is_refused(entry: object, what: str) -> None:
    with pytest.raises(InputError, match=f"^tracker 'x' is a {what}; a class with the methods started, log and"):
        check("x", entry)
