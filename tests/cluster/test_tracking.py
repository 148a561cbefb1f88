"""Curves of runs: what TensorBoard, MLflow and Weights & Biases have of them, and what a fault does."""

import dataclasses
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from place import Place, wait_until
from raylets import Nodes
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata

from sgbench.cluster import tracking as module
from sgbench.cluster.tracking import Tracking, title, tracking
from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.runs.execute import Job
from sgbench.spec import Recipe, SweepSpec, build
from sgbench.spec.expression import parse
from sgbench.store.layout import discard, runs_beside

VALUES = {"loss": 0.5, "lr": 1e-3, "steps_per_second": 8.0, "terms/l1": 0.25, "terms/sg(operator=sobel)": 0.125}


def a_sweep(track: str | None = None) -> SweepSpec:
    grids = [{"backbones": ["edsr-tiny"], "losses": ["l1"]}]
    return build({"grids": grids, "train": "a", "tests": ["b"], "metrics": ["psnr_y"], "track": track}, "mine")


class Logger:
    """Stands for one of Ray's loggers: notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def log_trial_start(self, trial: Any) -> None:
        self.told.append(("start", trial.trial_id, str(trial), trial.experiment_dir_name, trial.config))

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        self.told.append(("result", iteration, trial.trial_id, result))

    def log_trial_end(self, trial: Any, failed: bool) -> None:
        self.told.append(("end", trial.trial_id, failed))

    def on_experiment_end(self, trials: list[Any]) -> None:
        self.told.append(("closed",))


class Faulty(Logger):
    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        raise ConnectionError("the server is gone")


TITLE = "edsr-tiny l1 seed 0"


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    read = EventAccumulator(str(folder)).Reload()
    return {tag: [(point.step, point.value) for point in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def shown(folder: Path, what: str) -> Any:
    """Return what TensorBoard's plug-in for hyperparameters reads of a run."""
    tags = EventAccumulator(str(folder)).Reload().summary_metadata
    content = tags[f"_hparams_/{what}"].plugin_data.content
    return metadata._parse_plugin_data_as(content, what)


def test_tensorboard_reads_curves_hyperparameters_and_scores_of_a_run_in_the_store(job: Job) -> None:
    with tracking("mine", a_sweep(), Storage(job.store)) as tracked:
        tracked.started(job)
        for step in (10, 20):
            tracked.progress(job.run_id, step, {name: value / step for name, value in VALUES.items()})
        tracked.finished(job.run_id, failed=False, scores={"b/psnr_y": 30.5})
    folder = Path(job.store) / "tensorboard" / f"{TITLE} {job.run_id}"
    read = curves(folder)
    for name in ("loss", "lr", "steps_per_second", "terms/l1", "terms/sg_operator_sobel"):
        expected = VALUES[name.replace("_operator_sobel", "(operator=sobel)")]
        assert read.pop(name) == [(step, pytest.approx(expected / step)) for step in (10, 20)]
    assert read == {"scores/b/psnr_y": [(job.spec.recipe.steps, 30.5)]}

    begun = shown(folder, "session_start_info")
    values = {name: value.string_value or value.number_value for name, value in begun.hparams.items()}
    expected = {"backbone": "edsr-tiny", "loss": "l1", "lambda": 0.0, "seed": 0.0, "train": "a"}
    assert values.items() >= {**expected, "learning rate": job.spec.recipe.optimizer.lr}.items()
    assert [info.name.tag for info in shown(folder, "experiment").metric_infos] == ["scores/b/psnr_y"]
    assert shown(folder, "session_end_info").status == api_pb2.STATUS_SUCCESS


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
    with tracking("mine", a_sweep(), storage) as tracked:
        for each in (job, other):
            tracked.started(each)
    folders = {each.run_id: f"tensorboard/{TITLE} {each.run_id}" for each in (job, other)}
    assert storage.folders("tensorboard") == sorted(folders.values())
    assert runs_beside(storage) == folders.keys()
    discard(storage, job.run_id)
    assert storage.folders("tensorboard") == [folders[other.run_id]]


def test_a_run_that_is_continued_adds_to_its_curves(job: Job) -> None:
    folder = Path(job.store) / "tensorboard" / f"{TITLE} {job.run_id}"
    for step in (10, 20):
        with tracking("mine", a_sweep(), Storage(job.store)) as tracked:
            tracked.started(job)
            tracked.progress(job.run_id, step, VALUES)
        (file,) = folder.glob("events.out.tfevents.*.*")
        file.rename(folder / f"events.out.tfevents.{step}")  # files are named by seconds, and this took less than one
    assert curves(folder)["loss"] == [(10, 0.5), (20, 0.5)]


def test_loggers_are_told_of_a_run_of_ours_and_not_of_a_trial_of_tune(job: Job, tmp_path: Path) -> None:
    logger = Logger()
    tracked = Tracking([logger], "mine", tmp_path)
    tracked.started(job)
    tracked.started(job)  # its process died, and Tune has started it again
    tracked.progress(job.run_id, 7, {"loss": 0.5, "terms/sg(operator=sobel)": 0.25})
    tracked.finished(job.run_id, failed=True, scores={"Set 5/psnr_y": 30.5})
    tracked.close()
    (started, result, scored, end, closed) = logger.told
    assert started[:4] == ("start", job.run_id, f"{TITLE} {job.run_id}", "mine")
    assert started[4].items() >= {"backbone": "edsr-tiny", "loss": "l1", "seed": 0, "lambda": 0.0}.items()
    assert not {"spec", "job", "stop"} & set(started[4])
    values = {"loss": 0.5, "terms/sg_operator_sobel": 0.25, "timesteps_total": 7, "training_iteration": 7}
    assert result == ("result", 7, job.run_id, values)
    steps = job.spec.recipe.steps
    counts = {"timesteps_total": steps, "training_iteration": steps}
    assert scored == ("result", steps, job.run_id, {"scores/Set_5/psnr_y": 30.5, **counts})
    assert (end, closed) == (("end", job.run_id, True), ("closed",))


def test_a_logger_that_fails_is_given_up_and_the_others_go_on(job: Job, tmp_path: Path) -> None:
    faulty, sound = Faulty(), Logger()
    tracked = Tracking([faulty, sound], "mine", tmp_path)
    tracked.started(job)
    with pytest.warns(
        UserWarning, match=r"^Faulty receives no more of this sweep: ConnectionError: the server is gone$"
    ):
        tracked.progress(job.run_id, 1, VALUES)
    tracked.progress(job.run_id, 2, VALUES)
    tracked.close()
    assert [told[0] for told in faulty.told] == ["start"]
    assert [told[0] for told in sound.told] == ["start", "result", "result", "end", "closed"]


def test_a_thread_of_a_logger_that_cannot_write_ends_with_a_warning(job: Job) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    def end(thread: threading.Thread) -> None:
        thread.start()
        thread.join()

    before = threading.excepthook
    said = r"^training curves are incomplete: OSError: \[Errno 28\] No space left on device$"
    with tracking("mine", a_sweep(), Storage(job.store)), pytest.warns(UserWarning, match=said):
        end(threading.Thread(target=full))
    assert threading.excepthook is before


@pytest.mark.parametrize("service", ["mlflow", "wandb"])
def test_a_service_whose_extra_is_missing_is_bad_input(service: str, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, service, None)
    with (
        pytest.raises(InputError, match=rf"^track is '{service}', which needs an extra: .*'sgbench\[{service}\]'\.$"),
        tracking("mine", a_sweep(service), Storage(job.store)),
    ):
        pass


def test_a_service_that_is_none_is_bad_input() -> None:
    with pytest.raises(InputError, match="track is 'comet'"):
        a_sweep("comet")


def two_steps(service: str, job: Job) -> None:
    """Track a run of two steps."""
    with tracking("mine", a_sweep(service), Storage(job.store)) as tracked:
        tracked.started(job)
        for step in (10, 20):
            tracked.progress(job.run_id, step, {name: value / step for name, value in VALUES.items()})
        tracked.finished(job.run_id, failed=False)


@pytest.mark.parametrize("experiment", [None, "all"])
def test_mlflow_has_the_fields_and_curves_of_a_run(
    experiment: str | None, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a store of files, which MLflow keeps up and wants to be asked for by name."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    if experiment:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment)
    two_steps("mlflow", job)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name(experiment or "mine").experiment_id])
    assert (run.info.run_name, run.info.status) == (f"{TITLE} {job.run_id}", "FINISHED")
    assert run.data.params.items() >= {"run_id": job.run_id, "backbone": "edsr-tiny", "lambda": "0.0"}.items()
    for name in ("loss", "lr", "terms/l1", "terms/sg_operator_sobel"):
        expected = VALUES[name.replace("_operator_sobel", "(operator=sobel)")]
        told = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
        assert told == [(step, pytest.approx(expected / step)) for step in (10, 20)]


@pytest.mark.ray
@pytest.mark.slow
def test_weights_and_biases_has_the_fields_and_curves_of_a_run(
    job: Job, place: Place, head: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, where it writes what it would send into a file, of which each record has its text as it is."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    with head.connected():
        two_steps("wandb", job)
    (file,) = place.folder.glob(f"wandb/offline-run-*/run-{job.run_id}.wandb")
    texts = ("sgbench", f"{TITLE} {job.run_id}", "mine", '"edsr-tiny"', "terms/sg_operator_sobel", "lr")
    wait_until(lambda: all(text.encode() in file.read_bytes() for text in texts), 60)  # its own process writes it


def test_a_run_that_is_continued_goes_on_under_its_id_in_the_project_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    logger = module._wandb()
    assert (logger.project, logger.kwargs["resume"]) == ("theirs", "allow")


def test_a_service_that_refuses_is_bad_input(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Any:
        raise ValueError("no key\nat all")

    monkeypatch.setattr(module, "_mlflow", refuse)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: SimpleNamespace())
    with (
        pytest.raises(InputError, match=r"^track is 'mlflow', which cannot be used: ValueError: no key$"),
        tracking("mine", a_sweep("mlflow"), Storage(job.store)),
    ):
        pass
