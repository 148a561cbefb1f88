"""Training curves to watch while runs train: in TensorBoard, and in MLflow or Weights & Biases on request.

Ray's own loggers send them to the latter two. They are made for Tune's trials; here they are given a run instead, with
its title, its id and its recipe, and nothing that Tune adds to a report. TensorBoard's files are written here, in the
same form: Ray's logger would put ``ray/tune/`` before each tag and have nothing of the scores.
"""

import contextlib
import importlib.util
import os
import re
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ray.tune.logger import LoggerCallback
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from sgbench.core.errors import InputError, described
from sgbench.core.storage import Storage
from sgbench.core.words import shortened
from sgbench.runs.execute import Job
from sgbench.spec import RunSpec, SweepSpec, set_name
from sgbench.store import identity_columns
from sgbench.store.layout import curves_of

COUNTS = ("timesteps_total", "training_iteration")
"""The number of steps as loggers have it: one goes by Tune's count of steps and another by that of its reports."""

_LONGEST = 120
"""Characters of a run's title that are kept."""


@dataclass(eq=False)
class _Tracked:
    """A run in the form in which Ray's loggers read a trial."""

    trial_id: str
    name: str
    config: dict[str, Any]
    local_path: str
    experiment_dir_name: str
    """The sweep's name, by which Weights & Biases groups runs."""

    @property
    def evaluated_params(self) -> dict[str, Any]:
        """What loggers show as hyperparameters."""
        return self.config

    def init_local_path(self) -> None:
        """Create the folder for the loggers' files."""
        Path(self.local_path).mkdir(parents=True, exist_ok=True)

    def __str__(self) -> str:
        return self.name


class TensorBoard:
    """Writes TensorBoard's files, with the hyperparameters of runs and their scores; in the form of Ray's loggers.

    Args:
        scores: The tags of the scores that runs are to have.
    """

    SHOWN: ClassVar = {"backbone", "loss", "lambda", "seed", "scale", "train", "steps", "batch", "patch", "precision"}
    """Columns of a run that are hyperparameters under their own name."""

    def __init__(self, scores: Sequence[str]) -> None:
        self._scores = scores
        self._writers: dict[str, SummaryWriter] = {}
        self._ended: dict[str, Any] = {}

    def log_trial_start(self, run: _Tracked) -> None:
        """Begin the files of a run."""
        named = {key: value for key, value in run.config.items() if key in self.SHOWN}
        shown = named | {"learning rate": run.config["optimizer_lr"], "schedule": run.config["schedule_name"]}
        experiment, start, self._ended[run.trial_id] = hparams(shown, dict.fromkeys(self._scores, 0.0))
        writer = self._writers[run.trial_id] = SummaryWriter(run.local_path)
        for summary in (experiment, start):
            writer.file_writer.add_summary(summary)
        writer.flush()

    def log_trial_result(self, step: int, run: _Tracked, values: Mapping[str, float]) -> None:
        """Add a point to the curves of a run."""
        writer = self._writers[run.trial_id]
        for name in values.keys() - COUNTS:
            writer.add_scalar(name, values[name], step)
        writer.flush()

    def log_trial_end(self, run: _Tracked, failed: bool) -> None:
        """End the files of a run."""
        writer, ended = self._writers.pop(run.trial_id), self._ended.pop(run.trial_id)
        if not failed:
            writer.file_writer.add_summary(ended)
        writer.close()

    def on_experiment_end(self, runs: list[_Tracked]) -> None:
        """Do nothing: each run has ended."""


class Tracking:
    """Passes on what happens to runs; a logger that fails is dropped with a warning, and the sweep goes on.

    Args:
        loggers: Ray's loggers, set up, and such as have their form.
        sweep: The sweep's name.
        folder: The folder for the files of a store.
    """

    def __init__(self, loggers: list[LoggerCallback | TensorBoard], sweep: str, folder: Path) -> None:
        self._loggers = loggers
        self._sweep = sweep
        self._folder = folder
        self._runs: dict[str, _Tracked] = {}

    def started(self, job: Job) -> None:
        """A run has begun, or begun again after its process died."""
        if job.run_id not in self._runs:
            columns = identity_columns(job.spec).items()
            config = {key: value for key, value in columns if value is not None and key not in ("spec", "name")}
            folder = self._folder / curves_of(job.run_id, title(job.spec))
            run = self._runs[job.run_id] = _Tracked(job.run_id, folder.name, config, str(folder), self._sweep)
            run.init_local_path()
            self._tell("log_trial_start", run)

    def progress(self, run_id: str, step: int, values: Mapping[str, float]) -> None:
        """A run has done some of its steps.

        Args:
            run_id: Which one.
            step: Steps done.
            values: Such as its loss; of their names only letters, digits and ``._-/`` are kept, as loggers require.
        """
        named = {_tag(name): value for name, value in values.items()}
        self._tell("log_trial_result", step, self._runs[run_id], named | dict.fromkeys(COUNTS, step))

    def finished(self, run_id: str, *, failed: bool, scores: Mapping[str, float] | None = None) -> None:
        """A run has ended, or is interrupted.

        Args:
            run_id: Which one.
            failed: Whether it has.
            scores: Those that were computed, by test set and metric: ``Set5/psnr_y``.
        """
        if scores and run_id in self._runs:
            values = {f"scores/{name}": value for name, value in scores.items()}
            self.progress(run_id, self._runs[run_id].config["steps"], values)
        if run := self._runs.pop(run_id, None):
            self._tell("log_trial_end", run, failed)

    def close(self) -> None:
        """End the runs that are still active, and wait for loggers that send data elsewhere."""
        for run_id in list(self._runs):
            self.finished(run_id, failed=True)
        self._tell("on_experiment_end", [])

    def _tell(self, what: str, *arguments: Any) -> None:
        for logger in list(self._loggers):
            try:
                getattr(logger, what)(*arguments)
            except Exception as error:  # a server may be gone or a disk full, and loggers raise anything then
                self._loggers.remove(logger)
                name = type(logger).__name__.removesuffix("LoggerCallback")
                warnings.warn(f"{name} receives no more of this sweep: {described(error)}", stacklevel=1)


def title(spec: RunSpec) -> str:
    """Return what a run is called beside its id, such as ``edsr-tiny l1+0.1*sg seed 0``; a part of a path."""
    loss = re.sub(r"(?<![\d.])1\.0\*|\s", "", str(spec.loss)).replace(":", ".")
    parts = (re.sub(r"[^\w.+*()=,-]+", "_", part) for part in (spec.backbone, loss))
    return f"{shortened(' '.join(parts), _LONGEST)} seed {spec.seed}"


def _tag(name: str) -> str:
    return re.sub(r"[^\w./-]+", "_", name).strip("_")


@contextlib.contextmanager
def tracking(name: str, sweep: SweepSpec, storage: Storage) -> Iterator[Tracking]:
    """Track a sweep for as long as the context lasts.

    Files are in the store, in `sgbench.store.layout.CURVES`; in an object store they arrive when the context ends.

    Args:
        name: The sweep's.
        sweep: What is tracked, and by what besides TensorBoard.
        storage: The results store.

    Raises:
        InputError: If what the sweep asks for is not installed, or refuses.
    """
    scores = [_tag(f"scores/{set_name(test)}/{metric}") for test in sweep.tests for metric in sweep.metrics]
    loggers: list[LoggerCallback | TensorBoard] = [TensorBoard(scores), *_asked_for(name, sweep)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(_threads_that_may_fail())
        folder = storage.path() if storage.is_local else stack.enter_context(tempfile.TemporaryDirectory())
        tracked = Tracking(loggers, name, Path(folder))
        try:
            yield tracked
        finally:
            tracked.close()
            if not storage.is_local:
                for file in filter(Path.is_file, Path(folder).rglob("*")):
                    storage.upload(file, str(file.relative_to(folder)))


@contextlib.contextmanager
def _threads_that_may_fail() -> Iterator[None]:
    """Let a logger's own thread that cannot write, as on a full disk, end with a warning and without a traceback."""
    before = threading.excepthook

    def warn(failed: threading.ExceptHookArgs) -> None:
        if isinstance(failed.exc_value, OSError):
            warnings.warn(f"training curves are incomplete: {described(failed.exc_value)}", stacklevel=1)
        else:
            before(failed)

    threading.excepthook = warn
    try:
        yield
    finally:
        threading.excepthook = before


def _asked_for(name: str, sweep: SweepSpec) -> list[LoggerCallback]:
    """Return Ray's logger for the service that a sweep names, if any, ready for use."""
    service = sweep.track
    if service is None:
        return []
    if importlib.util.find_spec(service) is None:
        raise InputError(f"track is '{service}', which needs an extra: pip install 'sgbench[{service}]'.")
    try:
        logger = _mlflow(name) if service == "mlflow" else _wandb()
        logger.setup()
    except Exception as error:  # clients raise anything for a missing key or an unreachable server
        raise InputError(f"track is '{service}', which cannot be used: {described(error)}") from error
    return [logger]


def _mlflow(name: str) -> LoggerCallback:
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    return MLflowLoggerCallback(experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME", name))


def _wandb() -> LoggerCallback:
    from ray.air.integrations.wandb import WandbLoggerCallback

    # A run that is continued goes on under its id, instead of failing because that exists.
    return WandbLoggerCallback(project=os.environ.get("WANDB_PROJECT", "sgbench"), resume="allow")
