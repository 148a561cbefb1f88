"""TensorBoard: curves, hyperparameters and scores in files of the store."""

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import hparams, scalar

from sgbench.store.rows import RunEnd
from sgbench.trackers.base import TrackedRun


class TensorBoard:
    """Writes a file for each time that a run is started; TensorBoard hides what a resumed run has written twice."""

    SHOWN: ClassVar = {
        **{name: name for name in ("backbone", "loss", "lambda", "seed", "scale", "train", "init")},
        **{name: name for name in ("steps", "batch", "patch", "precision", "ema")},
        "optimizer_name": "optimizer",
        "optimizer_lr": "learning rate",
        "schedule_name": "schedule",
    }
    """Fields of a run that are hyperparameters, and what they are called."""

    def started(self, run: TrackedRun) -> None:
        """Begin a file, which ends the earlier ones of the run at the step that it resumes from."""
        for folder in (run.folder.parent, run.folder):  # the store itself is not made again if somebody deletes it
            folder.mkdir(exist_ok=True)
        earlier = sum(1 for _ in run.folder.iterdir())  # files are named by seconds, which alone are not distinct
        self._file = EventsWriter(str(run.folder / "events"), f".{earlier:04}")
        self._write(step=run.step + 1, session_log=SessionLog(status=SessionLog.START))
        shown = {name: run.config[key] for key, name in self.SHOWN.items() if key in run.config}
        experiment, start, self._done = hparams(shown, dict.fromkeys(run.scores, 0.0))
        for summary in (experiment, start):
            self._write(summary=summary)
        self._file.flush()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write a point of some curves."""
        for name, value in values.items():
            self._write(step=step, summary=scalar(name, value))
        self._file.flush()

    def finished(self, end: RunEnd, message: str) -> None:
        """End the file."""
        if end is RunEnd.DONE:
            self._write(summary=self._done)
        self._file.close()

    def _write(self, **content: Any) -> None:
        self._file.write_event(Event(wall_time=time.time(), **content))
