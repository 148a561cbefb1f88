"""The status of a run, determined in one place for `plan`, `sweep` and `status`."""

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from sgbench.assets.locator import Locator
from sgbench.core.storage import Storage
from sgbench.metrics import METRICS
from sgbench.runs.progress import Running
from sgbench.scoring.outcomes import Outcomes
from sgbench.spec import Recipe
from sgbench.spec.sources import Code, Sources, changed, in_words, joined, read_code
from sgbench.spec.text import read_json
from sgbench.store import Dataset, Replaced, Store, stamp
from sgbench.store.layout import budget_of, checkpoint_of, code_record_of, has_weights, latest_step
from sgbench.store.rows import RunEnd


class RunStatus(StrEnum):
    """The status of a run in a sweep, in the order of display."""

    DONE = "done"
    """Trained, and every score exists, lacks a pretrained network, or is undefined."""
    TO_SCORE = "to score"
    """Trained; some scores are missing, and the final weights to compute them exist."""
    RUNNING = "running"
    """A process is at work on it now."""
    RESUMABLE = "resumable"
    """There is a checkpoint."""
    EXHAUSTED = "out of budget"
    """There is a checkpoint, and its budget of hours is used up; resumed only with a larger one."""
    TO_DO = "to do"
    """There is nothing yet."""
    TO_RETRAIN = "to retrain"
    """Trained, but scores and the final weights are missing; retrained only on request."""
    STALE = "stale"
    """Trained, in whole or in part, with other code of a plug-in than it has now; a person says what to do about it."""
    FAILED = "failed"
    """Its training or a score failed; repeated only on request."""
    UNKNOWN = "unknown"
    """It has no id to find it by in a store that has runs."""

    @property
    def pending(self) -> bool:
        """Whether a sweep has anything to do for such a run."""
        return self in (RunStatus.TO_SCORE, RunStatus.RUNNING, RunStatus.RESUMABLE, RunStatus.TO_DO)


class Standing(NamedTuple):
    """The status of a run, and what is to be done for it."""

    status: RunStatus
    step: int = 0
    """Steps done, by the newest checkpoint or the run's row."""
    error: str | None = None
    missing: tuple[tuple[str, str], ...] = ()
    """Scores that are still to be computed: names of test sets and metrics."""
    replaced: Replaced | None = None
    """What a new training replaces."""
    stale: tuple[str, ...] = ()
    """The plug-ins whose code is another now, by kind and name."""


class Judge:
    """Determines the status of runs.

    Args:
        store: The results store, read once.
        retry: Repeat failed runs and scores.
        retrain: Retrain finished runs that lack scores and weights.
        rerun: Repeat everything, except what an interrupted rerun has already repeated.
        rerun_stale: Repeat what was trained with other code of a plug-in.
        keep_stale: Take what was trained with other code as it is.
        locator: Finds the weights of metrics without fetching them; scores that lacked weights are to be computed once
            they are found.
        plugins: Whether plug-in metrics may be imported, to compare their versions with those of scores.
        running: Runs that other processes are at work on, by id; see `sgbench.runs.progress.running_in`.
        sources: See `sgbench.scoring.outcomes.Outcomes`.
    """

    def __init__(
        self,
        store: Store,
        *,
        retry: bool = False,
        retrain: bool = False,
        rerun: bool = False,
        rerun_stale: bool = False,
        keep_stale: bool = False,
        locator: Locator | None = None,
        plugins: bool = True,
        running: Mapping[str, Running] | None = None,
        sources: Sources | None = None,
    ) -> None:
        self._running = running or {}
        self._storage, self._retry, self._retrain, self._rerun = store.storage, retry, retrain, rerun
        self._rerun_stale, self._keep_stale = rerun_stale, keep_stale
        columns = ["run_id", "status", "step", "error", "finished", "code"]
        self._rows = {row["run_id"]: row for row in store.runs().select(columns).to_pylist()}
        self._outcomes = Outcomes(store, retry=retry, locator=locator, plugins=plugins, sources=sources)
        self._replaced = store.replaced()

    def standing(
        self,
        run_id: str,
        recipe: Recipe,
        tests: Sequence[Dataset],
        metrics: Sequence[str],
        code: Callable[[], Code],
    ) -> Standing:
        """Return the status of a run with a recipe that is to be scored on test sets by metrics.

        Args:
            run_id: The run.
            recipe: Its recipe.
            tests: The test sets.
            metrics: Names of metrics.
            code: Returns the code of its plug-ins as it is now; called only if older code is on record.
        """
        row, before = self._rows.get(run_id), self._replaced.get(run_id)
        done = row is not None and row["status"] == RunEnd.DONE
        stands = before is not None and before.row == stamp(row)  # what is to be replaced is still complete
        owed = before.scores if before and not stands else ()
        had = tuple(dict.fromkeys((*owed, *self._outcomes.values(run_id)))) if done else owed
        wanted = self._outcomes.missing(run_id, _pairs(tests, metrics, owed))
        everything = tuple((test.name, metric) for test, metric in _pairs(tests, metrics, had))
        if going := self._running.get(run_id):
            return Standing(
                RunStatus.RUNNING, going.step or latest_step(self._storage, run_id), None, wanted or everything
            )
        again = Replaced(stamp(row), rerun=True, scores=had)
        if self._rerun and (stands or not (before and before.rerun)):
            return self._repeating(run_id, recipe, everything, again, code)
        if row and row["status"] == RunEnd.FAILED and not self._retry:
            return Standing(RunStatus.FAILED, row["step"], row["error"])
        step = row["step"] if row and done else latest_step(self._storage, run_id)
        trained_with = read_code(row["code"]) if row and done else begun_with(self._storage, run_id)
        stale = tuple(changed(trained_with, code())) if trained_with else ()
        if stale and self._rerun_stale:
            return self._repeating(run_id, recipe, everything, again, code)._replace(stale=stale)
        if stale and not self._keep_stale:
            why = f"the code of {in_words(stale)} has changed since"
            return Standing(RunStatus.STALE, step, why, wanted, stale=stale)
        if row and done and (not wanted or has_weights(self._storage, run_id)):
            faults = "; ".join(self._outcomes.faults(run_id, tests, metrics)) or None
            status = RunStatus.TO_SCORE if wanted else RunStatus.FAILED if faults else RunStatus.DONE
            return Standing(status, step, faults, wanted, stale=stale)
        if row and done and not self._retrain:
            return Standing(RunStatus.TO_RETRAIN, step, None, wanted, stale=stale)
        once_more = Replaced(stamp(row), rerun=False, scores=had) if row else None
        step = latest_step(self._storage, run_id)
        return self._training(run_id, recipe, step, everything, once_more)._replace(stale=stale)

    def _repeating(
        self,
        run_id: str,
        recipe: Recipe,
        scores: tuple[tuple[str, str], ...],
        replaced: Replaced,
        code: Callable[[], Code],
    ) -> Standing:
        """Return the status of a run that is to be repeated, or goes on to be if that has begun with the same code."""
        before = self._replaced.get(run_id)
        begun = before is not None and before.rerun and not changed(begun_with(self._storage, run_id), code())
        return self._training(run_id, recipe, latest_step(self._storage, run_id) if begun else 0, scores, replaced)

    def _training(
        self, run_id: str, recipe: Recipe, step: int, scores: tuple[tuple[str, str], ...], replaced: Replaced | None
    ) -> Standing:
        if step and recipe.max_hours and _seconds_used(self._storage, run_id) >= recipe.max_hours * 3600:
            ended = out_of_budget(self._storage, run_id, step, recipe)
            return Standing(RunStatus.EXHAUSTED, step, ended, scores, replaced)
        return Standing(RunStatus.RESUMABLE if step else RunStatus.TO_DO, step, None, scores, replaced)


def note_code(storage: Storage, run_id: str, code: Code) -> dict[str, str]:
    """Record with which code of its plug-ins a run begins or goes on, and return that with which it has been trained.

    Args:
        storage: The store.
        run_id: A run without a row, or that is being replaced.
        code: As it is now.
    """
    found = joined(begun_with(storage, run_id), code)
    if found:
        storage.write(code_record_of(run_id), json.dumps(found).encode())
    return found


def begun_with(storage: Storage, run_id: str) -> dict[str, str]:
    """Return the code with which the checkpoints of a run were made; nothing without one, or if it is not known."""
    with contextlib.suppress(FileNotFoundError, ValueError, AttributeError):
        found = read_code(storage.read(code_record_of(run_id)).decode())
        return found if latest_step(storage, run_id) else {}
    return {}


def note_budget(storage: Storage, run_id: str, seconds: float) -> None:
    """Record, for whoever does not read checkpoints, that a run has ended by its budget after seconds of training."""
    storage.write(budget_of(run_id), json.dumps({"seconds": seconds}).encode())


def _seconds_used(storage: Storage, run_id: str) -> float:
    """Return what `note_budget` has recorded last; 0 if there is nothing that can be read."""
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        return float(read_json(storage.read(budget_of(run_id)))["seconds"])
    return 0.0


def out_of_budget(storage: Storage, run_id: str, step: int, recipe: Recipe) -> str:
    """Return what a person is told of a run whose budget of hours is used up."""
    hours = f"{recipe.max_hours:g} hour{'' if recipe.max_hours == 1 else 's'}"
    checkpoint = storage.address(checkpoint_of(run_id, step))
    return (
        f"budget of {hours} used up at step {step} of {recipe.steps}; raise recipe.max_hours to go on, or "
        f"'sgbench eval {checkpoint} --test SET' scores the checkpoint as it is"
    )


def _pairs(
    tests: Sequence[Dataset], metrics: Sequence[str], had: Iterable[tuple[str, str, str]]
) -> list[tuple[Dataset, str]]:
    """Return the scores that a run should have: those requested, and its previous ones that can be computed.

    No plug-in is imported because a store names it.
    """
    known = METRICS.names()
    more = [
        (Dataset(name, sha256), metric)
        for name, sha256, metric in had
        if (name, sha256) in tests and metric not in metrics and metric in known
    ]
    return [*((test, metric) for test in tests for metric in metrics), *more]
