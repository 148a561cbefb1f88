"""The engine behind ``sgbench tune``: the settings of losses are searched on a validation set, the best compared.

All losses are given the same number of trials, the same steps, and the same rule by which trials are stopped early.
What is suggested and what is stopped follows from what was fixed before the first trial and from the results so far,
never from which run was faster. So a search that is killed goes on as if it had not been, and its trials are the same
on one device and on many.
"""

import contextlib
import dataclasses
import datetime
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from sgbench.assets.locator import Locator
from sgbench.core.errors import InputError, resumable
from sgbench.core.seeding import derive
from sgbench.core.storage import Storage
from sgbench.core.words import plural, quoted
from sgbench.data import fetch_missing
from sgbench.metrics import METRICS
from sgbench.runs.maintenance import clean
from sgbench.runs.plan import Choices, Data, Plan, make_plan, read_fields, refuse_stale
from sgbench.runs.rehearsal import rehearse
from sgbench.runs.sweep import Observer, Outcome, Runner, Work, carry_out, fetch_networks, find_start, gather
from sgbench.runs.tracking import trackers_of
from sgbench.spec import Expression, Grid, SweepSpec, Tune, Validation, build, expression, set_name
from sgbench.spec.sources import Sources
from sgbench.spec.space import RATE, Searched, Space, Values, default_of
from sgbench.store import Candidate, Search, Store, Trial, Tuning
from sgbench.store.rows import RunEnd

ETA = 3
"""Of the trials that come to a rung, the best third goes on (Li et al., MLSys 2020, Algorithm 2)."""

Ask = Callable[[Sequence[Searched], Sequence[tuple[Values, float | None]], int, int], list[Values]]
"""Suggests settings: given what is searched, the settings so far with their values (lower is better; None if there is
none), how many are needed, and a seed."""


@dataclass(frozen=True)
class Tunable:
    """A sweep whose losses are to be tuned.

    Attributes:
        name: Its name.
        sweep: The sweep with each loss at its default.
        spaces: For each of its grids, its losses with what is searched.
    """

    name: str
    sweep: SweepSpec
    spaces: tuple[tuple[Space, ...], ...]


@dataclass(frozen=True)
class Tuned:
    """How a search and the runs after it ended.

    Attributes:
        name: What the search is called in the store.
        tuning: The search.
        outcome: How the runs with what was chosen ended; None if there are none yet.
        lost: Losses with a backbone of which no trial came to a value.
        interrupted: Whether somebody asked to stop before all was done; the same command resumes.
    """

    name: str
    tuning: Tuning
    outcome: Outcome | None = None
    lost: tuple[str, ...] = ()
    interrupted: bool = False


def read_tunable(
    what: str | Mapping[str, Any], choices: Choices | None = None, called: Mapping[str, str] | None = None
) -> Tunable:
    """Read a sweep whose losses may have ranges; see `sgbench.runs.plan.read_sweep`.

    Raises:
        InputError: If anything in it is invalid.
    """
    name, fields, flags = read_fields(what, choices, called)
    found: list[list[Space | None]] = []
    grids = fields.get("grids")
    for grid in grids if isinstance(grids, list) else []:
        losses = grid.get("losses") if isinstance(grid, dict) else None
        losses = losses if isinstance(losses, list) else []
        if spaces := list(map(Space.read, losses)):
            grid["losses"] = [_at_start(space) if space else loss for space, loss in zip(spaces, losses, strict=True)]
        found.append(spaces)
    sweep = build(fields, name, flags)
    return Tunable(
        name,
        sweep,
        tuple(
            tuple(space or _varied(grid, loss) for space, loss in zip(spaces, grid.losses, strict=True))
            for spaces, grid in zip(found, sweep.grids, strict=True)
        ),
    )


def _at_start(space: Space) -> dict[str, str]:
    return {"loss": str(space.start), **({"label": space.label} if space.label else {})}


def _varied(grid: Grid, loss: Any) -> Space:
    varied = grid.varied(loss)
    if isinstance(varied, Expression):
        return Space.of(varied)
    family, lambdas = varied
    return replace(Space.of(family, lambdas), label=loss.label)


def rungs(trials: int, steps: int, every: int) -> tuple[int, ...]:
    """Return after how many steps trials are compared and all but the best third stopped.

    Args:
        trials: How many begin.
        steps: How many steps the last of them has.
        every: Steps between two validations, which are the only possible ones.
    """
    found, left = set[int](), trials
    while left > 1 and (step := steps // ETA ** (len(found) + 1) // every * every) and step not in found:
        found.add(step)
        left = math.ceil(left / ETA)
    return tuple(sorted(found))


def _rungs(sweep: SweepSpec) -> tuple[int, ...]:
    tune = sweep.tune or Tune()
    begin = min(tune.trials, tune.batch) if tune.search == "optuna" else tune.trials
    return rungs(begin, sweep.recipe.steps, _validation(sweep).every) if tune.scheduler != "none" else ()


def suggestions(search: Search, number: int, so_far: Sequence[Trial], ask: Ask | None) -> list[Values]:
    """Return the settings of the next trials of a candidate, all of whose trials so far have ended.

    The first is the loss as it is if nobody searches, if that is in its ranges.

    Args:
        search: What is fixed.
        number: The number of the candidate.
        so_far: Its trials.
        ask: Of optuna; needed for that.
    """
    searched, tried = search.candidates[number].searched, [trial.values for trial in so_far]
    count = min(search.given(number) - len(tried), int(search.options.get("batch", search.trials)))
    first: list[Values] = []
    if not tried and (default := default_of(searched)) is not None:
        first.append(default)
    more: Iterable[Values] = ()
    if search.method == "grid":
        more = _grid(searched, count - len(first))
    if search.method == "optuna" and count > len(first):
        assert ask is not None
        sign = -1.0 if search.higher else 1.0
        known = [(trial.values, None if trial.value is None else sign * trial.value) for trial in so_far]
        more = ask(searched, known, count - len(first), derive(search.seed, "tune", number, len(tried)) % 2**32)
    endless = math.isinf(math.prod(each.count for each in searched))
    found: list[Values] = []
    for values in itertools.chain(first, more, _random(searched, search.seed)):
        if len(found) == count:
            break
        if endless or values not in (*tried, *found):
            found.append(values)
    return found


def _random(searched: Sequence[Searched], seed: int) -> Iterator[Values]:
    """Yield independent settings, at the same places of the ranges of each loss."""
    for draw in itertools.count():
        yield {each.name: each.at(derive(seed, "tune", draw, at) / 2**128) for at, each in enumerate(searched)}


def _grid(searched: Sequence[Searched], trials: int) -> Iterator[Values]:
    """Yield every combination of evenly spread values, at most some, with all of the values to choose from."""
    levels = [len(each.choices) or 1 for each in searched]
    ranged = [at for at, each in enumerate(searched) if not each.choices]
    while open_ := [
        at
        for at in ranged
        if levels[at] < searched[at].count and math.prod(levels) // levels[at] * (levels[at] + 1) <= trials
    ]:
        levels[min(open_, key=lambda at: levels[at])] += 1
    if math.prod(levels) > trials:
        return
    for places in itertools.product(*map(range, levels)):
        yield {
            each.name: each.at(place / (level - 1) if level > 1 else 0.5)
            for each, place, level in zip(searched, places, levels, strict=True)
        }


def tune(
    tunable: Tunable,
    storage: Storage,
    runner: AbstractContextManager[Runner],
    observer: Observer,
    *,
    ask: Ask | None = None,
    download: bool = False,
    retry: bool = False,
    rerun_stale: bool = False,
    keep_stale: bool = False,
) -> Tuned:
    """Search the settings of each loss on the validation set, then train what was chosen with the sweep's seeds.

    Args:
        tunable: What is searched.
        storage: The results store, locked while trials run, and again while the others do.
        runner: Carries out the jobs; entered when there are some.
        observer: Shows what happens.
        ask: Suggests settings for ``search: optuna``.
        download: See `sgbench.runs.sweep.carry_out`, also for the rest.
        retry: Repeat failed runs of what was chosen; a failed trial stays one.
        rerun_stale: See there.
        keep_stale: See there.

    Raises:
        InputError: If there is nothing to search or nothing to choose by, or as `carry_out` does.
        InterruptionError: If storage or machine failed; the same command resumes.
    """
    _check(tunable)
    store = Store(storage)
    store.refuse_other_folders()
    start = find_start(tunable.sweep, storage, observer, download=download)
    tunable = replace(tunable, sweep=start.sweep)
    if download:
        with observer.fetching() as progress:
            fetch_missing(start.sweep.sets(), start.sweep.recipe.scale, observer.say, progress)
    data = gather(start.sweep, storage, observer)
    spaces = _spaces(tunable)
    search = _search(tunable, spaces, data)
    with contextlib.ExitStack() as running:
        shared = _Shared(runner, running)
        trials = _Trials(tunable, search, list(spaces.values()), data, store, shared, observer, ask)
        with store.writing(f"sgbench tune {tunable.name}"):
            with contextlib.suppress(OSError):  # workers of a killed sweep may still be writing
                clean(store)
            start.keep(storage)
            with resumable("the search"):
                name, tuning, interrupted = trials.run(rerun_stale=rerun_stale, keep_stale=keep_stale)
        lost = tuple(
            f"{candidate.loss} with {candidate.backbone}"
            for number, candidate in enumerate(search.candidates)
            if not interrupted and tuning.chosen(number) is None
        )
        if interrupted or lost:
            return Tuned(name, tuning, lost=lost, interrupted=interrupted)
        outcome = carry_out(
            tunable.name,
            final(tunable, tuning),
            storage,
            shared,
            observer,
            retry=retry,
            rerun_stale=rerun_stale,
            keep_stale=keep_stale,
        )
    return Tuned(name, tuning, outcome, interrupted=outcome.interrupted)


def _check(tunable: Tunable) -> None:
    """Refuse a search that cannot choose anything.

    Raises:
        InputError: Saying why.
    """
    sweep, tune = tunable.sweep, tunable.sweep.tune or Tune()
    if not sweep.validation:
        raise InputError(
            f"{tunable.name} has no validation set to choose by, and test sets are not for that; hold images out, as "
            "in --train mine=DIR,split=1/9 --set 'validate.sets=[held-out]', or name a set there."
        )
    if len(sweep.validation.sets) > 1:
        names = ", ".join(map(set_name, sweep.validation_sets))
        raise InputError(f"validate.sets is {names}, and settings are chosen by one set; name one of them.")
    if not tune.rate and all(space.count == 1 for spaces in tunable.spaces for space in spaces):
        raise InputError(
            f"no loss of {tunable.name} has anything to search; write a range, as in --loss 'l1 + 0.01:10*sg', or "
            "search the learning rate with --rate 1e-4:1e-2."
        )
    trained = [*(grid.seeds for grid in sweep.grids), *(asked.seeds for asked in sweep.asked())]
    if any(tune.seed in seeds for seeds in trained):
        raise InputError(
            f"seed {tune.seed} is that of the trials and one of the sweep, with which what is chosen is trained; "
            "choose another with --set tune.seed=…, or with --seeds."
        )
    if tune.rate and sweep.decide:
        raise InputError(
            "tune.rate gives each loss a learning rate, and a question is asked of runs with one recipe; leave out "
            "--rate or --until-decided."
        )
    if tune.scheduler != "none" and not _rungs(sweep):
        raise InputError(
            f"tune.scheduler is {tune.scheduler}, which compares trials after a third of their {sweep.recipe.steps} "
            f"steps or less, and validate.every is {sweep.validation.every}; a smaller one is needed."
        )
    for space in (space for spaces in tunable.spaces for space in spaces):
        combined = math.prod(len(each.choices) or 1 for each in space.searched)
        if tune.search == "grid" and combined > tune.trials:
            raise InputError(
                f"a grid over {quoted(space.text)} needs {combined} trials or more, and tune.trials is {tune.trials}."
            )


def _spaces(tunable: Tunable) -> dict[tuple[str, Space], Space]:
    """Return what is searched of each backbone and loss as it is written, the learning rate included."""
    sweep, rate = tunable.sweep, (tunable.sweep.tune or Tune()).rate
    more = (Searched.ranged(RATE, *rate, default=sweep.recipe.optimizer.lr),) if rate else ()
    return {
        (backbone, space): replace(space, searched=(*space.searched, *more))
        for grid, spaces in zip(sweep.grids, tunable.spaces, strict=True)
        for backbone in grid.backbones
        for space in spaces
    }


def _search(tunable: Tunable, spaces: Mapping[tuple[str, Space], Space], data: Data) -> Search:
    sweep, tune, every = tunable.sweep, tunable.sweep.tune or Tune(), _validation(tunable.sweep).every
    (images,) = data.validation
    metric = _metric(sweep)
    options: dict[str, Any] = {"batch": tune.batch} if tune.search == "optuna" else {}
    return Search(
        tuple(Candidate(backbone, space.text, space.searched) for (backbone, _), space in spaces.items()),
        tune.trials,
        sweep.recipe.steps,
        tune.search,
        tune.scheduler,
        metric,
        METRICS.load(metric).direction == "higher",
        images.name,
        images.sha256,
        tune.seed,
        (tune.seed,),
        () if sweep.decide else tuple(dict.fromkeys(seed for grid in sweep.grids for seed in grid.seeds)),
        str(sweep.runs(data.training)[0].conditions),
        options if tune.scheduler == "none" else options | {"eta": ETA, "every": every},
    )


def _validation(sweep: SweepSpec) -> Validation:
    assert sweep.validation is not None
    return sweep.validation


def _metric(sweep: SweepSpec) -> str:
    return (sweep.tune or Tune()).by or _validation(sweep).metrics[0]


def final(tunable: Tunable, tuning: Tuning) -> SweepSpec:
    """Return the sweep with what a search has chosen in place of each loss.

    A label of a loss of which different settings were chosen for different backbones is given the settings too.
    """
    spaces = _spaces(tunable)
    chosen = {key: tuning.chosen(number) for number, key in enumerate(spaces)}
    losses: dict[tuple[str, Space], tuple[Expression, float | None]] = {}
    for key, trial in chosen.items():
        assert trial is not None
        losses[key] = (spaces[key].loss(trial.values), _rate(trial))
    texts: dict[str | None, set[str]] = {}
    for loss, _ in losses.values():
        texts.setdefault(loss.label, set()).add(str(loss))
    grids = []
    for grid, given in zip(tunable.sweep.grids, tunable.spaces, strict=True):
        for backbone in grid.backbones:
            by_rate: dict[float | None, list[Expression]] = {}
            for space in given:
                loss, rate = losses[backbone, space]
                if loss.label and len(texts[loss.label]) > 1:
                    loss = replace(loss, label=_with_values(loss.label, chosen[backbone, space]))
                by_rate.setdefault(rate, []).append(loss)
            grids += [
                Grid(backbones=(backbone,), losses=tuple(each), seeds=grid.seeds, rate=rate)
                for rate, each in by_rate.items()
            ]
    return tunable.sweep.model_copy(update={"grids": tuple(grids), "tune": None})


def _rate(trial: Trial) -> float | None:
    return None if (rate := trial.values.get(RATE)) is None else float(rate)


def _with_values(label: str, trial: Trial | None) -> str:
    values = {name: value for name, value in (trial.values if trial else {}).items() if name != RATE}
    return f"{label} ({', '.join(f'{name} = {value}' for name, value in values.items())})"


class _Shared(AbstractContextManager[Runner]):
    """Enters a runner when it is first used, and leaves it with others.

    Args:
        runner: The runner.
        stack: What leaves it.
    """

    def __init__(self, runner: AbstractContextManager[Runner], stack: contextlib.ExitStack) -> None:
        self._runner, self._stack = runner, stack
        self._entered: Runner | None = None

    def __enter__(self) -> Runner:
        self._entered = self._entered or self._stack.enter_context(self._runner)
        return self._entered

    def __exit__(self, *_: object) -> None:
        pass


class _Trials:
    """The trials of a search.

    Args:
        tunable: What is searched.
        search: What is fixed.
        spaces: What is searched of each candidate.
        data: The images.
        store: The results store.
        runner: Carries out the jobs.
        observer: Shows what happens.
        ask: See `tune`.
    """

    def __init__(
        self,
        tunable: Tunable,
        search: Search,
        spaces: Sequence[Space],
        data: Data,
        store: Store,
        runner: AbstractContextManager[Runner],
        observer: Observer,
        ask: Ask | None,
    ) -> None:
        self._tunable, self._search, self._spaces, self._ask = tunable, search, spaces, ask
        self._data = dataclasses.replace(data, tests=())  # nothing is chosen by a test set
        self._store, self._observer = store, observer
        self._runner = runner
        sweep = tunable.sweep
        validation = _validation(sweep)
        metrics = tuple(dict.fromkeys((search.metric, *validation.metrics)))
        self._validation = validation.model_copy(update={"metrics": metrics})
        self._rungs = _rungs(sweep)

    def run(self, *, rerun_stale: bool, keep_stale: bool) -> tuple[str, Tuning, bool]:
        """Carry out all trials that are missing.

        Returns:
            What the search is called in the store, the search, and whether somebody asked to stop.
        """
        name, tuning = self._on_record()
        work: Work | None = None
        while True:
            tuning = self._with_suggestions(tuning)
            active = [at for at, trial in enumerate(tuning.trials) if trial.end is None]
            if not active:
                return name, tuning, False
            if work is None:
                self._try()
                work = Work(
                    self._tunable.name,
                    self._data,
                    self._store,
                    self._runner,
                    trackers_of(self._tunable.sweep),
                    self._observer,
                )
            self._store.write_tuning(name, tuning)
            targets = {at: self._target(tuning.trials[at]) for at in active}
            if self._carried_out(work, tuning, targets, rerun_stale=rerun_stale, keep_stale=keep_stale):
                return name, tuning, True
            tuning = self._after(tuning, targets)
            self._store.write_tuning(name, tuning)

    def _on_record(self) -> tuple[str, Tuning]:
        """Return the search as the store has it, or as it begins, and what it is called there.

        Another search of the same name keeps its own; this one is then called by the next number.
        """
        known = self._store.tunings()
        for count in itertools.count(1):
            name = self._tunable.name if count == 1 else f"{self._tunable.name}-{count}"
            if name not in known:
                return name, Tuning(self._search, (), datetime.datetime.now(datetime.UTC))
            if known[name].digest == self._search.digest:
                return name, known[name]
        raise AssertionError

    def _with_suggestions(self, tuning: Tuning) -> Tuning:
        """Add the next trials of each candidate all of whose trials have ended and which is to have more."""
        more: list[Trial] = []
        for number in range(len(self._search.candidates)):
            given = tuning.of_candidate(number)
            if len(given) < self._search.given(number) and all(trial.end for trial in given):
                found = suggestions(self._search, number, given, self._ask)
                more += (self._trial(number, values) for values in found)
        return replace(tuning, trials=(*tuning.trials, *more))

    def _trial(self, number: int, values: Values) -> Trial:
        loss = self._spaces[number].loss(values)
        trial = Trial(number, dict(values), str(loss), self._search.seed, "")
        (run,) = self._sweep([trial]).runs(self._data.training)
        return replace(trial, run_id=str(run.run_id))

    def _sweep(self, trials: Iterable[Trial]) -> SweepSpec:
        """Return a sweep of some trials, which has no test sets."""
        grids = (
            Grid(
                backbones=(self._search.candidates[trial.candidate].backbone,),
                losses=(expression.parse(trial.loss),),
                seeds=(trial.seed,),
                rate=_rate(trial),
            )
            for trial in trials
        )
        changes = {"grids": tuple(grids), "tests": (), "validation": self._validation, "decide": None, "tune": None}
        return self._tunable.sweep.model_copy(update=changes)

    def _try(self) -> None:
        """Try all that is searched at both ends of its ranges, before anything starts."""
        ends = [
            self._trial(number, {each.name: each.at(share) for each in space.searched})
            for number, space in enumerate(self._spaces)
            for share in (0.0, 1.0)
        ]
        losses = [space.start for space in self._spaces]
        fetch_networks(self._validation.metrics, losses, self._store.storage, self._observer)
        rehearse(self._sweep(ends))

    def _target(self, trial: Trial) -> int:
        """Return the steps until which a trial is trained next."""
        return next((rung for rung in self._rungs if rung > trial.step), self._search.steps)

    def _carried_out(
        self, work: Work, tuning: Tuning, targets: Mapping[int, int], *, rerun_stale: bool, keep_stale: bool
    ) -> bool:
        """Train trials until their targets; return whether somebody asked to stop."""
        plan = self._plan(tuning, targets, rerun_stale=rerun_stale, keep_stale=keep_stale)
        refuse_stale(plan)
        until = {tuning.trials[at].run_id: step for at, step in targets.items()}
        values = self._values(until)
        pending = [run for run in plan.pending if (str(run.spec.run_id), until[str(run.spec.run_id)]) not in values]
        for source in (source for run in pending for source in run.sources.values()):
            self._store.write_source(source)
        pauses = {run_id: step for run_id, step in until.items() if step < self._search.steps}
        total = sum(self._search.given(number) for number in range(len(self._search.candidates)))
        self._observer.say(
            f"{self._tunable.name}: {plural(len(targets), 'trial')} of {total} until step {max(targets.values())} of "
            f"{self._search.steps}"
        )
        work.do(plan, pending, pauses)
        return work.interrupted

    def _plan(self, tuning: Tuning, targets: Iterable[int], *, rerun_stale: bool, keep_stale: bool) -> Plan:
        return make_plan(
            self._tunable.name,
            self._sweep(tuning.trials[at] for at in targets),
            self._data,
            self._store,
            rerun_stale=rerun_stale,
            keep_stale=keep_stale,
            locator=Locator(download=False),
            sources=Sources(),
        )

    def _values(self, until: Mapping[str, int]) -> dict[tuple[str, int], float | None]:
        """Return the values of some runs by the metric on the validation set, by run and step."""
        what = (self._search.metric, self._search.dataset_sha256)
        rows = self._store.validation().select(["run_id", "step", "metric", "dataset_sha256", "value"]).to_pylist()
        return {
            (row["run_id"], row["step"]): row["value"]
            for row in rows
            if row["run_id"] in until and (row["metric"], row["dataset_sha256"]) == what
        }

    def _after(self, tuning: Tuning, targets: Mapping[int, int]) -> Tuning:
        """Return a search after trials have come to their targets, and decide which of them go on.

        Raises:
            InputError: If a run was finished before without having been validated.
        """
        trials = list(tuning.trials)
        until = {trials[at].run_id: step for at, step in targets.items()}
        values, rows = self._values(until), self._store.rows()
        for at, step in targets.items():
            trial = trials[at]
            row, value = rows.get(trial.run_id), values.get((trial.run_id, step))
            value = value if value is not None and math.isfinite(value) else None
            if row and row["status"] == RunEnd.FAILED:
                trials[at] = replace(trial, end=RunEnd.FAILED, step=row["step"] or 0, value=None)
            elif (trial.run_id, step) not in values and not row:
                trials[at] = replace(trial, end=RunEnd.EXHAUSTED, value=None)
            elif (trial.run_id, step) not in values:
                raise InputError(
                    f"run {trial.run_id} was done before and not validated by {self._search.metric} on "
                    f"{self._search.dataset} at step {step}; choose another seed for trials with --set tune.seed=…"
                )
            else:
                end = RunEnd.DONE if step == self._search.steps else None
                trials[at] = replace(trial, end=end, step=step, value=value)
        for number in range(len(self._search.candidates)):
            at_rung = [at for at in targets if trials[at].candidate == number and targets[at] < self._search.steps]
            sign = -1.0 if self._search.higher else 1.0
            ranked = sorted(
                (at for at in at_rung if trials[at].end is None),
                key=lambda at: math.inf if (value := trials[at].value) is None else sign * value,
            )
            for at in ranked[math.ceil(len(at_rung) / ETA) :]:
                trials[at] = replace(trials[at], end=RunEnd.STOPPED)
        return replace(tuning, trials=tuple(trials))
