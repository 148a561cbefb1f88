"""MLflow: server and login are those of its environment variables."""

import contextlib
import os
import time
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from sgbench.store.rows import RunEnd
from sgbench.trackers.base import TrackedRun

ENDS = {RunEnd.DONE: "FINISHED", RunEnd.FAILED: "FAILED"}
"""What MLflow calls ends of runs; the others are ``KILLED``."""


class MLflow:
    """Keeps a run of MLflow, found again by its tag when the run is resumed, in an experiment for each sweep."""

    def __init__(self) -> None:
        self._client = MlflowClient()
        self._last: dict[str, int] = {}

    def started(self, run: TrackedRun) -> None:
        """Continue the newest run of MLflow that this one had, or begin one."""
        experiment, tag = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", run.sweep)), "sgbench.run_id"
        found = self._client.search_runs([experiment], f"tags.`{tag}` = '{run.run_id}'", max_results=1)
        if found and (run.step or found[0].info.status == "RUNNING"):  # the latter was killed
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            for name in found[0].data.metrics:
                self._last[name] = max(point.step for point in self._client.get_metric_history(self._id, name))
        else:
            self._id = self._client.create_run(experiment, run_name=run.name, tags={tag: run.run_id}).info.run_id
            self._client.log_batch(self._id, params=[Param(key, str(value)) for key, value in run.config.items()])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to curves that do not reach that far, as MLflow would keep both of two at one step."""
        new = {name: value for name, value in values.items() if step > self._last.get(name, -1)}
        now = int(time.time() * 1000)
        self._client.log_batch(self._id, metrics=[Metric(name, value, now, step) for name, value in new.items()])

    def finished(self, end: RunEnd, message: str) -> None:
        """End the run of MLflow."""
        self._client.set_tag(self._id, "sgbench.message", message)
        self._client.set_terminated(self._id, ENDS.get(end, "KILLED"))

    def _experiment(self, name: str) -> str:
        with contextlib.suppress(MlflowException):  # there is one, which another process may have just made
            return str(self._client.create_experiment(name))
        found = self._client.get_experiment_by_name(name)
        return found.experiment_id if found else self._client.create_experiment(name)
