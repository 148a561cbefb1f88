"""Training curves to watch while runs train: in TensorBoard, and in MLflow or Weights & Biases on request.

Ray's own loggers write them. They are made for Tune's trials; here they are given a run instead, with its id and its
recipe, and nothing that Tune adds to a report.
"""

import contextlib
import importlib.util
import os
import re
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune.logger import LoggerCallback, TBXLoggerCallback

from sgbench.core.errors import InputError, described
from sgbench.core.storage import Storage
from sgbench.runs.execute import Job
from sgbench.spec import SweepSpec
from sgbench.store import LOGS, identity_columns


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
        """What TensorBoard shows as hyperparameters."""
        return self.config

    def init_local_path(self) -> None:
        """Create the folder for the loggers' files."""
        Path(self.local_path).mkdir(parents=True, exist_ok=True)

    def __str__(self) -> str:
        return self.name


class Tracking:
    """Passes on what happens to runs; a logger that fails is dropped with a warning, and the sweep goes on.

    Args:
        loggers: Ray's loggers, set up.
        sweep: The sweep's name.
        folder: The folder for their files, with a subfolder for each run.
    """

    def __init__(self, loggers: list[LoggerCallback], sweep: str, folder: Path) -> None:
        self._loggers = loggers
        self._sweep = sweep
        self._folder = folder
        self._runs: dict[str, _Tracked] = {}

    def started(self, job: Job) -> None:
        """A run has begun, or begun again after its process died."""
        if job.run_id not in self._runs:
            columns = identity_columns(job.spec).items()
            config = {key: value for key, value in columns if value is not None and key not in ("spec", "name")}
            folder = str(self._folder / job.run_id)
            run = self._runs[job.run_id] = _Tracked(job.run_id, str(job.spec), config, folder, self._sweep)
            run.init_local_path()
            self._tell("log_trial_start", run)

    def progress(self, run_id: str, step: int, values: Mapping[str, float]) -> None:
        """A run has done some of its steps.

        Args:
            run_id: Which one.
            step: Steps done.
            values: Such as its loss; of their names only letters, digits and ``._-/`` are kept, as loggers require.
        """
        named = {re.sub(r"[^\w./-]+", "_", name).strip("_"): value for name, value in values.items()}
        # The same number twice, because one logger goes by Tune's count of steps and another by that of its reports.
        counts = {"timesteps_total": step, "training_iteration": step}
        self._tell("log_trial_result", step, self._runs[run_id], named | counts)

    def finished(self, run_id: str, *, failed: bool) -> None:
        """A run has ended, or is interrupted."""
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


@contextlib.contextmanager
def tracking(name: str, sweep: SweepSpec, storage: Storage) -> Iterator[Tracking]:
    """Track a sweep for as long as the context lasts.

    Files are in the store, a folder for each run below ``logs``; in an object store they arrive when the context ends.

    Args:
        name: The sweep's.
        sweep: What is tracked, and by what besides TensorBoard.
        storage: The results store.

    Raises:
        InputError: If what the sweep asks for is not installed, or refuses.
    """
    loggers = [TBXLoggerCallback(), *_asked_for(name, sweep)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(_threads_that_may_fail())
        folder = storage.path(LOGS) if storage.is_local else stack.enter_context(tempfile.TemporaryDirectory())
        tracked = Tracking(loggers, name, Path(folder))
        try:
            yield tracked
        finally:
            tracked.close()
            if not storage.is_local:
                for file in filter(Path.is_file, Path(folder).rglob("*")):
                    storage.upload(file, f"{LOGS}/{file.relative_to(folder)}")


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
