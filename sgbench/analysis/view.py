"""The read model: done, failed and planned runs, their scores, and why a number is missing.

Tables, comparisons, figures and pages are made only from a `View`. It reads a store by column and creates Python
objects only for what is requested; it imports neither torch nor any plug-in.

    view = View(load_results("results/quick"))          # or View({"a": …, "b": …}): several stores as one
    filters = view.resolved(Filters(losses=["sg + l1"]))  # in any spelling; what is not there is an `InputError`
    view.runs(filters)          # runs that have ended and that are planned, one-off subjects (folders, checkpoints) too
    view.groups(filters)        # the same in reading order, those together that differ only in their seed
    view.outcomes(filters)      # for each run, test set and metric a value, or the `Fate` that says why there is none
    view.of_images(filters)     # scores of single images, as an Arrow table
    view.rows(filters)          # rows of the table ``runs``, as an Arrow table
"""

import datetime
import functools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sgbench.analysis.recipes import RECIPE, Recipes
from sgbench.analysis.results import Results
from sgbench.analysis.stores import together
from sgbench.core.errors import InputError, unknown
from sgbench.core.registry import metric_named
from sgbench.core.status import ScoreStatus
from sgbench.core.words import natural, printable
from sgbench.spec import Recipe
from sgbench.spec.expression import Family, parse
from sgbench.spec.sources import Sources, changed_since
from sgbench.spec.space import RATE
from sgbench.spec.stored import find_loss, read_family
from sgbench.store import Planned
from sgbench.store.rows import RunEnd, RunKind
from sgbench.store.schema import recipe_columns

BASELINE = "l1"
"""The loss that others are compared against; it comes first."""

DEFAULT_METRIC = "lpips_alex"
"""The metric to show if only one is to be shown and none is named."""

T = TypeVar("T")
Member = TypeVar("Member", bound=StrEnum)
Number = TypeVar("Number", int, float)
Key = tuple[str, str, str]
"""Run, test set and metric."""


class Why(StrEnum):
    """Why there is no number."""

    NO_RUN = "no run"
    PENDING = "pending"
    NOT_SCORED = "not scored"
    NO_WEIGHTS = ScoreStatus.NO_WEIGHTS
    NEEDS_HR = ScoreStatus.NEEDS_HR
    UNDEFINED = ScoreStatus.UNDEFINED
    FAILED = ScoreStatus.FAILED


class Fate(NamedTuple):
    """Why there is no number, in the same words everywhere.

    Attributes:
        why: The short form, for cells whose reason is given elsewhere.
        reason: The details, without a full stop; may be empty.
        where: Such as `` at step 812``.
    """

    why: Why
    reason: str = ""
    where: str = ""

    def __str__(self) -> str:
        return f"{self.why}{self.where}{': ' * bool(self.reason)}{self.reason}"


NO_RUN, PENDING, NOT_SCORED = (Fate(why) for why in (Why.NO_RUN, Why.PENDING, Why.NOT_SCORED))


class Status(StrEnum):
    """The status of a run for readers of a store."""

    DONE = RunEnd.DONE
    FAILED = RunEnd.FAILED
    PENDING = Why.PENDING


class Run(NamedTuple):
    """A run that has ended or, if it has no row yet, a planned one; only trained runs have a recipe.

    Attributes:
        run_id: The run's id.
        kind: One of `sgbench.store.rows.RunKind`.
        backbone: ``family-size``, or the name of an untrained subject.
        loss: The expression; empty for an untrained subject.
        lam: λ, the coefficient of the varied term.
        varied: That term, without its coefficient; None is what is called ``sg``.
        seed: The training seed.
        scale: Super-resolution factor.
        train: Name of the training set.
        init: What the weights are called with which its training started.
        recipe: The values of `RECIPE`.
        parameters: Number of parameters of the network; 0 if unknown.
        status: Done, failed or pending.
        failure: Why it failed.
        stale: The plug-ins whose code on this machine is another than the run was trained with, by kind and name.
        label: What its loss is called: its label or, if it has none, the expression.
        planned: When it was first asked for; None if that is not known.
        finished: When it ended; None if it is pending, or that is not known.
    """

    run_id: str
    kind: str
    backbone: str
    loss: str
    lam: float | None
    varied: str | None
    seed: int | None
    scale: int
    train: str | None
    init: str | None
    recipe: tuple[Any, ...] | None
    parameters: int
    status: Status
    failure: Fate | None
    stale: tuple[str, ...] = ()
    label: str = ""
    planned: datetime.datetime | None = None
    finished: datetime.datetime | None = None

    @property
    def trained(self) -> bool:
        """Whether it was trained here."""
        return self.kind == RunKind.TRAIN

    @property
    def fate(self) -> "Fate | None":
        """Why it has no results; None if it is done."""
        return PENDING if self.status is Status.PENDING else self.failure

    def setting(self, name: str) -> Any:
        """Return a column of its recipe."""
        return self.recipe[RECIPE.index(name)] if self.recipe else None

    def __str__(self) -> str:
        return f"{self.backbone} · {self.label} · seed {self.seed}" if self.trained else self.backbone


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that differ only in their seed, or one untrained subject.

    Attributes:
        recipe: How this recipe differs from the others; empty if there is only one.
        runs: The runs, by seed.
    """

    recipe: str
    runs: tuple[Run, ...]

    @property
    def backbone(self) -> str:
        """The backbone, or the name of an untrained subject."""
        return self.runs[0].backbone

    @property
    def loss(self) -> str:
        """The loss; empty for an untrained subject."""
        return self.runs[0].loss

    @property
    def label(self) -> str:
        """What the loss is called; empty for an untrained subject."""
        return self.runs[0].label

    @property
    def conditions(self) -> Hashable:
        """A key that groups of the same scale and recipe share; unique for an untrained subject."""
        run = self.runs[0]
        return (run.scale, run.recipe) if run.trained else run.run_id

    @property
    def trained_with(self) -> str:
        """What the loss is called and, if recipes differ, the recipe."""
        return ", ".join(filter(None, (self.label, self.recipe)))

    def named(self, run: Run) -> str:
        """Return what one of its runs is called."""
        return f"{self.backbone} · {self.trained_with} · seed {run.seed}" if run.trained else self.backbone


class Basis(NamedTuple):
    """How a score was computed; only scores with the same basis can be compared."""

    metric_version: str
    protocol: str
    n_images: int

    @property
    def fields(self) -> Mapping[str, Any]:
        """The fields of the protocol."""
        return _protocol(self.protocol)

    @property
    def direction(self) -> str | None:
        """Which values are better, ``lower`` or ``higher``; None if the protocol does not say."""
        return direction(self.protocol)


class Outcome(NamedTuple):
    """The score of a run on a whole test set by a metric, or why there is none.

    Attributes:
        run: The run.
        dataset: The test set.
        metric: The metric.
        value: The score.
        fate: Why there is no score.
        basis: How the score was computed, or attempted; None if there was no attempt.
        store: The label of its store; empty if stores are shown as one.
    """

    run: Run
    dataset: str
    metric: str
    value: float | None
    fate: Fate | None
    basis: Basis | None
    store: str = ""


@dataclass(frozen=True)
class Filters:
    """Which results to show; None means all.

    Attributes:
        backbones: Backbones, or names of untrained subjects.
        losses: Losses, in any spelling or by their labels; one with λ as a coefficient means all that differ in it.
        lambdas: Values of λ.
        seeds: Seeds of trained runs.
        datasets: Test sets; a name includes all its versions.
        metrics: Metrics.
        runs: Complete run ids.
    """

    backbones: Sequence[str] | None = None
    losses: Sequence[str] | None = None
    lambdas: Sequence[float] | None = None
    seeds: Sequence[int] | None = None
    datasets: Sequence[str] | None = None
    metrics: Sequence[str] | None = None
    runs: Collection[str] | None = None

    def of_run(self, run: Run) -> bool:
        """Return whether a run is included."""
        return (
            (self.backbones is None or run.backbone in self.backbones)
            and (self.losses is None or run.loss in self.losses)
            and (self.lambdas is None or run.lam in self.lambdas)
            and (self.seeds is None or run.seed in self.seeds)
            and (self.runs is None or run.run_id in self.runs)
        )


ALL = Filters()


@dataclass(frozen=True)
class Names:
    """What can be asked for."""

    backbones: set[str]
    losses: set[str]
    lambdas: set[float]
    seeds: set[int]
    datasets: set[str]
    metrics: set[str]


def chosen(kind: str, asked: Sequence[str] | None, there: Collection[str]) -> list[str] | None:
    """Return the names that a person asks for, in that order; none if everything is asked for.

    Args:
        kind: What a name is, for the message.
        asked: Names as the person wrote them. ``Set5`` stands for ``Set5@1a2b3c4d`` too, and metrics have short names,
            see `sgbench.core.registry.metric_named`.
        there: Every name.

    Raises:
        InputError: If a name stands for nothing.
    """
    if asked is None:
        return None
    if kind == "metric":
        asked = [metric_named(name, there) for name in asked]
    found = {name: labels_of(name, there) for name in asked}
    for name, labels in found.items():
        if not there:
            raise InputError(f"there is no {kind} '{name}', nor any other.")
        if not labels:
            raise unknown(kind, name, there)
    return list(dict.fromkeys(label for labels in found.values() for label in labels))


def labels_of(name: str, there: Iterable[str]) -> list[str]:
    """Return the names in `Results` that a name may refer to: itself, and all its versions."""
    return sorted((label for label in there if name in (label, label.partition("@")[0])), key=natural)


class View:
    """A read-only view of a store, or of several as one.

    Args:
        stores: The results of one store, or of several by label.
    """

    def __init__(self, stores: Results | Mapping[str, Results]) -> None:
        whole = together({"": stores} if isinstance(stores, Results) else stores)
        self.results = whole.merged
        self.stores: dict[str, View] = (
            dict.fromkeys(whole.each, self)
            if len(whole.each) == 1
            else {label: View(each) for label, each in whole.each.items()}
        )
        """Each store by its label."""
        self.disagreements = whole.notes
        self.compared: dict[Hashable, Any] = {}
        """The comparisons of `sgbench.analysis.compare`, so that each is computed only once."""

    @functools.cached_property
    def names(self) -> Names:
        """The names that filters can use."""
        runs = self._runs.values()
        return Names(
            backbones={run.backbone for run in runs},
            losses={run.loss for run in runs if run.loss},
            lambdas={run.lam for run in runs if run.lam is not None},
            seeds={run.seed for run in runs if run.seed is not None},
            datasets={dataset for dataset, _ in self.places},
            metrics={metric for _, metric in self.places},
        )

    @property
    def default_metrics(self) -> list[str] | None:
        """`DEFAULT_METRIC` or, in stores without it, none, which stands for all."""
        return [DEFAULT_METRIC] if DEFAULT_METRIC in self.names.metrics else None

    def resolved(self, filters: Filters) -> Filters:
        """Return filters with the exact names of the stores, in the order given.

        Raises:
            InputError: If a filter names something that the stores do not have.
        """
        names = self.names
        return Filters(
            backbones=chosen("backbone", filters.backbones, names.backbones),
            losses=None if filters.losses is None else self._losses(filters.losses),
            lambdas=_numbers("λ", filters.lambdas, names.lambdas),
            seeds=_numbers("seed", filters.seeds, names.seeds),
            datasets=chosen("test set", filters.datasets, names.datasets),
            metrics=chosen("metric", filters.metrics, names.metrics),
            runs=filters.runs,
        )

    def _losses(self, texts: Iterable[str]) -> list[str]:
        there, found = sorted(self.names.losses, key=natural), list[str]()
        for text in texts:
            if family := self.family(text):
                members = [loss for loss in there if family.with_terms_of(parse(loss))]
                found += members or chosen("loss", [str(family)], set(map(self.label, there))) or ()
            else:
                found.append(self.loss(text))
        return list(dict.fromkeys(found))

    def family(self, text: str) -> Family | None:
        """Return the losses that a person means by an expression with λ; None for any other, and for a label.

        Raises:
            InputError: If it is neither a label nor an expression.
        """
        return None if text in self.labels.values() else read_family(text)

    def loss(self, text: str) -> str:
        """Return the loss of the stores that a person means, by its label or by its expression in any spelling.

        Raises:
            InputError: If there is none, or it is neither a label nor an expression.
        """
        there = self.names.losses
        found = next((loss for loss in there if self.labels.get(loss) == text), None) or find_loss(text, there)
        if found not in there:
            chosen("loss", [found], {self.label(loss) for loss in there})
        return found

    def metric(self, name: str) -> str:
        """Return the metric of the stores that a person means, by its name or a short one.

        Raises:
            InputError: If there is none.
        """
        return (chosen("metric", [name], self.names.metrics) or [name])[0]

    def label(self, loss: str) -> str:
        """Return what a loss is called: its label or, if it has none, the expression."""
        return self.labels.get(loss, loss)

    @functools.cached_property
    def labels(self) -> dict[str, str]:
        """The label of each loss that has one, unless another loss is written like it."""
        losses = {printable(loss or "") for loss in self.results.runs["loss"].unique().to_pylist()}
        found = {printable(loss): label for loss, label in self.results.labels.items()}
        return {loss: label for loss, label in found.items() if label not in losses}

    def runs(self, filters: Filters = ALL) -> list[Run]:
        """Return the runs that have ended, and those that are planned.

        Args:
            filters: Resolved filters, as in all methods below.
        """
        return [run for run in self._runs.values() if filters.of_run(run)]

    def groups(self, filters: Filters = ALL) -> list[Group]:
        """Return runs in reading order: by backbone, with `BASELINE` first in each."""
        return grouped(self.runs(filters))

    def outcomes(self, filters: Filters = ALL, *, apart: bool = False) -> list[Outcome]:
        """Return an outcome for each run, test set and requested metric.

        Args:
            filters: Unknown names match nothing.
            apart: Whether a run that is in two stores has an outcome for each.
        """
        if apart:
            return [
                each._replace(store=label) for label, view in self.stores.items() for each in view.outcomes(filters)
            ]
        runs = {run.run_id: run for run in self.runs(filters)}
        places = {
            (dataset, metric)
            for dataset, metric in self.places
            if (filters.datasets is None or dataset in filters.datasets)
            and (filters.metrics is None or metric in filters.metrics)
        }
        found = {_key(outcome): outcome for outcome in self._scored(runs, filters)}
        wanted = {key for run_id in runs for key in self._planned_of.get(run_id, ()) if key[1:] in places}
        wanted |= {(run.run_id, *place) for run in self._lost if run.run_id in runs for place in places}
        metrics = {metric for _, _, metric in (*found, *wanted)}
        pairs = {key[:2] for key in (*found, *wanted)}
        if len(found) == len(pairs) * len(metrics):
            return list(found.values())
        for pair in pairs:
            for metric in metrics:
                if (key := (*pair, metric)) not in found:
                    run = runs[key[0]]
                    fate = run.failure or (PENDING if key in wanted else NOT_SCORED)
                    found[key] = Outcome(run, key[1], metric, None, fate, None)
        return [found[key] for key in sorted(found)]

    def unplaced(self, filters: Filters = ALL) -> list[Run]:
        """Return the failed runs that are included, if no run has a test set and a metric."""
        return [] if self.places else [run for run in self._lost if filters.of_run(run)]

    def totals(self, filters: Filters = ALL) -> pa.Table:
        """Return scores of whole test sets."""
        return self._among_scores(self.results.totals, filters)

    def of_images(self, filters: Filters = ALL, names: Collection[str] | None = None) -> pa.Table:
        """Return scores of single images, all of them or those of some names, in any order."""
        rows = self._among_scores(self.results.encoded_scores, filters)
        return rows.filter(pc.is_valid(rows["image"])) if names is None else _among(rows, "image", names)

    def rows(self, filters: Filters = ALL) -> pa.Table:
        """Return the rows of runs that have ended."""
        return _among(self.results.runs, "run_id", self._ids(filters))

    def history(self, filters: Filters = ALL) -> pa.Table:
        """Return the training curves of runs."""
        return _among(self.results.history, "run_id", self._ids(filters))

    def validation(self, filters: Filters = ALL) -> pa.Table:
        """Return the scores of validation of runs."""
        return _among(self.results.validation, "run_id", self._ids(filters))

    @functools.cached_property
    def places(self) -> set[tuple[str, str]]:
        """The pairs of test set and metric for which any run has, or should have, a score."""
        scored = self.results.totals.group_by(["dataset", "metric"]).aggregate([]).to_pylist()
        return {(row["dataset"], row["metric"]) for row in scored} | {key[1:] for key in self.planned}

    @functools.cached_property
    def planned(self) -> set[Key]:
        """The scores that plans ask for."""
        return {
            (plan.run_id, test.name, metric)
            for plan in self.results.planned
            for test in plan.tests
            for metric in plan.metrics
        }

    @functools.cached_property
    def _planned_of(self) -> dict[str, list[Key]]:
        """The scores that plans ask for, by run."""
        found: defaultdict[str, list[Key]] = defaultdict(list)
        for key in self.planned:
            found[key[0]].append(key)
        return dict(found)

    @functools.cached_property
    def _runs(self) -> dict[str, Run]:
        ended = {run.run_id: run for run in _ended(self.results.runs)}
        waiting = {plan.run_id: plan for plan in self.results.planned if plan.run_id not in ended}
        runs = ended | {run_id: _waiting(plan) for run_id, plan in waiting.items()}
        tuned = self._tuned(ended)
        named = {*self.results.totals["run_id"].unique().to_pylist(), *waiting} if self.results.tunings else set()
        trials = {trial.run_id for tuning in self.results.tunings.values() for trial in tuning.trials} - named
        return {
            run_id: run._replace(label=self.label(run.loss), recipe=tuned.get(_trained(run), run.recipe))
            for run_id, run in runs.items()
            if run_id not in trials
        }

    def _tuned(self, ended: Mapping[str, Run]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        """Return the recipes with learning rates that were chosen for each loss, as one recipe, by `_trained`."""
        found = {}
        for tuning in self.results.tunings.values():
            for backbone in {candidate.backbone for candidate in tuning.search.candidates}:
                chosen = [
                    trial
                    for number, candidate in enumerate(tuning.search.candidates)
                    if candidate.backbone == backbone and (trial := tuning.chosen(number)) is not None
                ]
                if len({trial.values.get(RATE) for trial in chosen}) < 2:
                    continue
                for run in (ended[trial.run_id] for trial in chosen if trial.run_id in ended):
                    recipe = zip(RECIPE, run.recipe or (), strict=True)
                    found[_trained(run)] = tuple(TUNED if name == "optimizer_lr" else value for name, value in recipe)
        return found

    @functools.cached_property
    def _lost(self) -> list[Run]:
        """Failed runs without scores and plans, which should have had the same scores as the other runs."""
        named = {*self.results.totals["run_id"].unique().to_pylist(), *(key[0] for key in self.planned)}
        return [run for run in self._runs.values() if run.failure and run.run_id not in named]

    def _ids(self, filters: Filters) -> Collection[str] | None:
        """Return the ids of the included runs; None for all."""
        of_runs = (filters.backbones, filters.losses, filters.lambdas, filters.seeds, filters.runs)
        return None if of_runs == (None,) * len(of_runs) else {run.run_id for run in self.runs(filters)}

    def _among_scores(self, rows: pa.Table, filters: Filters) -> pa.Table:
        wanted = {"metric": filters.metrics, "dataset": filters.datasets, "run_id": self._ids(filters)}
        masks = [pc.is_in(rows[column], _texts(names)) for column, names in wanted.items() if names is not None]
        return rows.filter(functools.reduce(pc.and_, masks)) if masks else rows

    def _scored(self, runs: Mapping[str, Run], filters: Filters) -> Iterator[Outcome]:
        """Yield outcomes for the requested scores, in order; the others never become Python objects."""
        rows = _among(self.totals(filters), "run_id", runs)
        columns = [rows[column].to_pylist() for column in ("run_id", "dataset", "metric", "value")]
        fates, bases = (
            _distinct(rows, ("status", "reason"), _fate_of_a_score),
            _distinct(rows, Basis._fields, Basis._make),
        )
        for run_id, dataset, metric, value, fate, basis in zip(*columns, fates, bases, strict=True):
            if value is None:
                yield Outcome(runs[run_id], dataset, metric, None, fate or Fate(Why.UNDEFINED), basis)
            elif math.isfinite(value):
                yield Outcome(runs[run_id], dataset, metric, value, None, basis)
            else:
                yield Outcome(runs[run_id], dataset, metric, None, Fate(Why.FAILED, f"the value is {value}"), basis)


TUNED = "tuned"
"""Stands for a learning rate that was chosen for a loss in the recipe of its runs, so that losses can be compared."""


def _trained(run: Run) -> tuple[Any, ...]:
    return (run.backbone, run.loss, run.recipe)


def _key(outcome: Outcome) -> Key:
    return (outcome.run.run_id, outcome.dataset, outcome.metric)


def grouped(runs: Iterable[Run]) -> list[Group]:
    """Return runs in reading order, grouped so that each group differs only in seeds."""
    found: defaultdict[Hashable, list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.seed or 0):
        found[(run.backbone, run.loss, run.scale, run.recipe) if run.trained else run.run_id].append(run)
    firsts = [members[0] for members in found.values() if members[0].trained]
    recipes, scales = Recipes.of(firsts), {run.scale for run in firsts}

    def named(run: Run) -> str:
        scale = f"scale={run.scale}" if len(scales) > 1 and run.trained else ""
        return ", ".join(filter(None, (scale, recipes.name(run))))

    groups = [Group(named(members[0]), tuple(members)) for members in found.values()]
    return sorted(groups, key=lambda g: (natural(g.backbone), g.loss != BASELINE, natural(g.loss), natural(g.recipe)))


def meanings(shown: Iterable[Run | Group]) -> list[str]:
    """Return a sentence for each label of what is shown: the expression that it stands for."""
    labels = {each.loss: each.label for each in shown if each.label != each.loss}
    return [f"{labels[loss]} is {loss}." for loss in sorted(labels, key=natural)]


def directions(outcomes: Iterable[Outcome]) -> dict[str, str | None]:
    """Return for each metric which values are better, if its scores agree on that."""
    bases: defaultdict[str, set[Basis]] = defaultdict(set)
    for outcome in outcomes:
        bases[outcome.metric] |= {outcome.basis} if outcome.basis else set()
    said = {metric: {basis.direction for basis in found} for metric, found in bases.items()}
    return {metric: next(iter(ways)) if len(ways) == 1 else None for metric, ways in said.items()}


def direction(protocol: str) -> str | None:
    """Return which scores of a protocol are better, ``lower`` or ``higher``; None if it does not say."""
    better: str | None = _protocol(protocol).get("direction")
    return better


@functools.cache
def _protocol(text: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(text)
    return fields


def _numbers(kind: str, asked: Sequence[Number] | None, there: Collection[Number]) -> Sequence[Number] | None:
    for number in asked or ():
        if number not in there:
            raise unknown(kind, f"{number:g}", (f"{each:g}" for each in there))
    return asked


def _among(rows: pa.Table, column: str, names: Iterable[str] | None) -> pa.Table:
    """Return the rows with one of the names in a column; all rows for None."""
    return rows if names is None else rows.filter(pc.is_in(rows[column], _texts(names)))


def _texts(names: Iterable[str]) -> pa.Array:
    return pa.array(sorted(names), pa.string())


def _distinct(rows: pa.Table, columns: Sequence[str], made: Callable[[Iterable[Any]], T]) -> list[T]:
    """Return a value for each row, computed from some columns once per distinct combination."""
    if not rows.num_rows:
        return []
    texts = (pc.cast(rows[column], pa.string()) for column in columns)
    joined = pc.binary_join_element_wise(*texts, "\x1f", null_handling="replace", null_replacement="\x1e")
    codes = joined.combine_chunks().dictionary_encode().indices.to_numpy()
    _, firsts, which = np.unique(codes, return_index=True, return_inverse=True)
    values = [made(row.values()) for row in rows.select(list(columns)).take(pa.array(firsts)).to_pylist()]
    return [values[at] for at in which.tolist()]


def _fate_of_a_score(outcome: Iterable[str | None]) -> Fate | None:
    status, reason = outcome
    if status == ScoreStatus.OK:
        return None
    return Fate(_member(Why, status, "score"), printable((reason or "").rstrip(".")))


def _ended(rows: pa.Table) -> Iterator[Run]:
    """Yield the runs of a table ``runs``."""
    columns = (
        *("run_id", "kind", "name", "backbone", "loss", "lambda", "varied", "seed", "scale"),
        *("train", "init", "parameters", "status", "planned", "finished"),
    )
    sources = Sources()
    plugins = rows.select(["backbone", "loss", "optimizer_name", "code"]).to_pylist()
    values = zip(*(rows[column].to_pylist() for column in columns), strict=True)
    failures, recipes = _distinct(rows, ("status", "step", "error"), _failure), _distinct(rows, RECIPE, _shown)
    for each, failure, recipe, named in zip(values, failures, recipes, plugins, strict=True):
        run_id, kind, name, backbone, loss, lam, varied, seed, scale, train, init, parameters, status, *times = each
        trained = kind == RunKind.TRAIN
        yield Run(
            run_id,
            kind,
            printable(backbone if trained else name),
            printable(loss or "") if trained else "",
            lam if trained else None,
            printable(varied or "") or None,
            seed,
            scale,
            printable(train or "") or None,
            printable(init or "") or None,
            recipe if trained else None,
            parameters or 0,
            _member(Status, status, "run"),
            failure,
            _shown(changed_since(named, sources)),
            "",
            *times,
        )


def _member(statuses: type[Member], text: str | None, what: str) -> Member:
    try:
        return statuses(str(text))
    except ValueError as error:
        raise InputError(f"a {what} has the status '{text}'; valid: {', '.join(statuses)}.") from error


def _failure(how: Iterable[Any]) -> Fate | None:
    status, step, error = how
    if status != Status.FAILED:
        return None
    where = "" if step is None else f" at step {step}"
    cause = " ".join((error or "no reason was recorded").split()).rstrip(".").removesuffix(where)
    return Fate(Why.FAILED, printable(cause), where)


def _shown(values: Iterable[Any]) -> tuple[Any, ...]:
    """Return values with all text printable, whoever wrote the store."""
    return tuple(printable(value) if isinstance(value, str) else value for value in values)


def _waiting(plan: Planned) -> Run:
    row: dict[str, Any] = {**_DEFAULTS, **plan.run}
    loss = (row["loss"], row.get("lambda"), row.get("varied"))
    what = (row["backbone"], *loss, row["seed"], row["scale"], row.get("train"), row["init"])
    recipe = _shown(row[name] for name in RECIPE)
    who = (plan.run_id, RunKind.TRAIN, *_shown(what))
    return Run._make((*who, recipe, 0, Status.PENDING, None, (), "", plan.planned, None))


_DEFAULTS = recipe_columns(Recipe())
"""Defaults for plans written before a column existed."""
