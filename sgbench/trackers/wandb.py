"""Weights & Biases: key, server and project are those of its environment variables."""

import os
from collections.abc import Mapping

import wandb

from sgbench.core.errors import InputError
from sgbench.store.rows import RunEnd
from sgbench.trackers.base import TrackedRun


class WandB:
    """Keeps a run of W&B under the run's id, in a group for each sweep."""

    def __init__(self) -> None:
        self._settings = wandb.Settings(silent=True, console="off", reinit="create_new")  # several runs at a time
        is_online = wandb.setup(self._settings).settings.mode not in ("offline", "dryrun", "disabled")
        if is_online and not wandb.login(prompt=False, verify=False):
            raise InputError("there is no key: set WANDB_API_KEY, run 'wandb login', or set WANDB_MODE=offline.")

    def started(self, run: TrackedRun) -> None:
        """Begin the run of W&B; one that is resumed is continued, and one that is repeated begins anew."""
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "sgbench"),
            id=run.run_id,
            name=run.name,
            group=run.sweep,
            config=dict(run.config),
            resume="allow" if run.step else None,
            settings=self._settings,
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point; W&B takes none before its last one, so what comes late goes to the summary."""
        if step >= self._run.step:
            self._run.log(dict(values), step=step)
        else:
            self._run.summary.update(dict(values))

    def finished(self, end: RunEnd, message: str) -> None:
        """End the run of W&B."""
        self._run.finish(exit_code=int(end is not RunEnd.DONE))
