"""What tables are made of: runs, and for each test set and metric the score that a run has or should have."""

import functools
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from sgbench.analysis import Results, labels_of
from sgbench.core.errors import unknown
from sgbench.report.tables.stores import Stores
from sgbench.spec import Recipe
from sgbench.spec.stored import find_loss
from sgbench.store.schema import RUNS, recipe_columns

PENDING = "pending"
"""Why there is no number: a sweep will bring it."""

NOT_SCORED = "not scored"
"""Why there is no number: nobody has asked for it."""

NO_RUN = "no run"
"""Why there is no number: nobody has asked for a run."""

RECIPE = RUNS.names[RUNS.names.index("train_sha256") : RUNS.names.index("spec")]
"""Columns of a run that, with backbone, loss, scale and seed, are its identity."""

_RUN = ("run_id", "kind", "name", "backbone", "loss", "lambda", "seed", "scale", "train", "status", "error", "step")
T = TypeVar("T", int, float)
Key = tuple[str, str, str]  # run, test set, metric


@dataclass(frozen=True)
class Run:
    """A row of the store or, as long as there is none, a planned run; only what is trained has a recipe."""

    run_id: str
    kind: str
    backbone: str
    """Or the name of what was not trained."""
    loss: str
    lam: float | None
    seed: int | None
    scale: int
    train: str | None
    recipe: tuple[Any, ...] | None
    """The values of `RECIPE`."""
    parameters: int
    error: str | None

    def __str__(self) -> str:
        return f"{self.backbone} · {self.loss} · seed {self.seed}" if self.kind == "train" else self.backbone


class Score(NamedTuple):
    """A row of the store: what a run has on a whole test set by a metric."""

    run_id: str
    dataset: str
    metric: str
    metric_version: str
    protocol: str
    n_images: int
    value: float | None
    status: str
    reason: str | None


class Fact(NamedTuple):
    """What is known of a run on a test set by a metric.

    Attributes:
        run: The run.
        dataset: The test set.
        metric: The metric.
        row: Its score for the whole set, if there is one.
        wanted: Whether there is or should be one.
        store: The label of the store that it is from; empty where stores are not told apart.
    """

    run: Run
    dataset: str
    metric: str
    row: Score | None
    wanted: bool
    store: str = ""


@dataclass(frozen=True)
class Filters:
    """What is asked for; none stands for all.

    Attributes:
        backbones: Or names of what was not trained.
        losses: In any spelling.
        lambdas: Weights of sg.
        seeds: Seeds of trained runs.
        datasets: Test sets; a name stands for all its versions.
        metrics: Metrics.
        runs: Whole ids.
    """

    backbones: Collection[str] | None = None
    losses: Collection[str] | None = None
    lambdas: Collection[float] | None = None
    seeds: Collection[int] | None = None
    datasets: Collection[str] | None = None
    metrics: Collection[str] | None = None
    runs: Collection[str] | None = None


@dataclass(frozen=True)
class Names:
    """The names that stores have."""

    backbones: set[str]
    losses: set[str]
    lambdas: set[float]
    seeds: set[int]
    datasets: set[str]
    metrics: set[str]


def resolved(filters: Filters, names: Names) -> Filters:
    """Return filters with the very names of some stores.

    Raises:
        InputError: If a filter asks for what is not there.
    """
    losses = filters.losses and [find_loss(loss, names.losses) for loss in filters.losses]
    return Filters(
        backbones=chosen("backbone", filters.backbones, names.backbones),
        losses=chosen("loss", losses, names.losses),
        lambdas=_numbers("λ", filters.lambdas, names.lambdas),
        seeds=_numbers("seed", filters.seeds, names.seeds),
        datasets=chosen("test set", filters.datasets, names.datasets),
        metrics=chosen("metric", filters.metrics, names.metrics),
        runs=filters.runs,
    )


def chosen(kind: str, asked: Collection[str] | None, there: Collection[str]) -> Collection[str] | None:
    """Return the labels that names stand for.

    Args:
        kind: What a name is, for the message.
        asked: Names as a person wrote them; none stands for all.
        there: Every label.

    Raises:
        InputError: If a name stands for nothing.
    """
    if asked is None:
        return None
    for name in asked:
        if not labels_of(name, there):
            raise unknown(kind, name, there)
    return {label for name in asked for label in labels_of(name, there)}


def _numbers(kind: str, asked: Collection[T] | None, there: Collection[T]) -> Collection[T] | None:
    for number in asked or ():
        if number not in there:
            raise unknown(kind, f"{number:g}", (f"{each:g}" for each in there))
    return asked


@functools.cache
def protocol(text: str) -> dict[str, Any]:
    """Return the fields of a score's protocol."""
    fields: dict[str, Any] = json.loads(text)
    return fields


@dataclass(frozen=True)
class Inventory:
    """What stores have.

    Attributes:
        names: Every name.
    """

    names: Names
    _whole: "_Source"
    _parts: Mapping[str, "_Source"]

    @classmethod
    def of(cls, stores: Stores, *, apart: bool = False) -> "Inventory":
        """Look through stores.

        Args:
            stores: One or several.
            apart: Whether a run that lies in two of them is to have a fact of each.
        """
        whole = _Source.of(stores.merged)
        parts = {label: _Source.of(results) for label, results in stores.each.items()} if apart else {"": whole}
        names = Names(
            backbones={run.backbone for run in whole.runs},
            losses={run.loss for run in whole.runs if run.loss},
            lambdas={run.lam for run in whole.runs if run.lam is not None},
            seeds={run.seed for run in whole.runs if run.seed is not None},
            datasets={dataset for dataset, _ in whole.places},
            metrics={metric for _, metric in whole.places},
        )
        return cls(names, whole, parts)

    def facts(self, filters: Filters) -> list[Fact]:
        """Return, for each run on a test set, a fact for each metric by which anything is asked for.

        Args:
            filters: Resolved; of names that are not there, there is nothing.
        """
        return [fact for store, part in self._parts.items() for fact in part.facts(filters, store)]

    def homeless(self, filters: Filters) -> list[Run]:
        """Return the failed runs that are asked for where no run has a test set and a metric."""
        return [] if self._whole.places else [run for run in self._whole.lost if _asked(run, filters)]


@dataclass(frozen=True)
class _Source:
    """One store: its runs, the scores of whole sets, what plans ask for, and the test sets and metrics of either."""

    runs: list[Run]
    scores: pa.Table
    planned: set[Key]
    places: set[tuple[str, str]]
    lost: list[Run]
    """Failed runs that have no score and that no plan names: they should have had what the others have."""

    @classmethod
    def of(cls, results: Results) -> "_Source":
        runs = list(_runs(results))
        scores = results.totals.select(Score._fields)
        planned = {
            (plan.run_id, test.name, metric)
            for plan in results.planned
            for test in plan.tests
            for metric in plan.metrics
        }
        scored = scores.group_by(["dataset", "metric"]).aggregate([]).to_pylist()
        places = {(row["dataset"], row["metric"]) for row in scored} | {key[1:] for key in planned}
        named = {*scores["run_id"].unique().to_pylist(), *(key[0] for key in planned)}
        lost = [run for run in runs if run.error and run.run_id not in named]
        return cls(runs, scores, planned, places, lost)

    def facts(self, filters: Filters, store: str) -> list[Fact]:
        runs = {run.run_id: run for run in self.runs if _asked(run, filters)}
        places = {
            (dataset, metric)
            for dataset, metric in self.places
            if (filters.datasets is None or dataset in filters.datasets)
            and (filters.metrics is None or metric in filters.metrics)
        }
        scores = {row[:3]: row for row in self._rows(runs, filters)}
        wanted = {key for key in self.planned if key[0] in runs and key[1:] in places} | scores.keys()
        wanted |= {(run.run_id, *place) for run in self.lost if run.run_id in runs for place in places}
        metrics = sorted({metric for _, _, metric in wanted})
        return [
            Fact(
                runs[run_id],
                dataset,
                metric,
                scores.get((run_id, dataset, metric)),
                (run_id, dataset, metric) in wanted,
                store,
            )
            for run_id, dataset in sorted({key[:2] for key in wanted})
            for metric in metrics
        ]

    def _rows(self, runs: Collection[str], filters: Filters) -> Iterator[Score]:
        """Return the scores that are asked for; the others never become Python's objects."""
        rows = self.scores
        for column, names in (("metric", filters.metrics), ("dataset", filters.datasets), ("run_id", runs)):
            if names is not None:
                rows = rows.filter(pc.is_in(rows[column], pa.array(sorted(names), pa.string())))
        return map(Score._make, zip(*(column.to_pylist() for column in rows.columns), strict=True))


def _asked(run: Run, filters: Filters) -> bool:
    return (
        (filters.backbones is None or run.backbone in filters.backbones)
        and (filters.losses is None or run.loss in filters.losses)
        and (filters.lambdas is None or run.lam in filters.lambdas)
        and (filters.seeds is None or run.seed in filters.seeds)
        and (filters.runs is None or run.run_id in filters.runs)
    )


def _runs(results: Results) -> Iterator[Run]:
    """Yield the runs of a store, and the planned ones that have no row yet."""
    columns = {name: results.runs[name].to_pylist() for name in dict.fromkeys([*_RUN, *RECIPE, "parameters"])}
    recipes = zip(*(columns[name] for name in RECIPE), strict=True)
    rows = zip(*(columns[name] for name in (*_RUN, "parameters")), recipes, strict=True)
    for run_id, kind, name, backbone, loss, lam, seed, scale, train, status, error, step, parameters, recipe in rows:
        trained = kind == "train"
        yield Run(
            run_id=run_id,
            kind=kind,
            backbone=backbone if trained else name,
            loss=(loss or "") if trained else "",
            lam=lam if trained else None,
            seed=seed,
            scale=scale,
            train=train,
            recipe=recipe if trained else None,
            parameters=parameters or 0,
            error=_failure(step, error) if status == "failed" else None,
        )
    known = set(columns["run_id"])
    defaults = recipe_columns(Recipe())  # what a plan of before there was a column means
    waiting = {plan.run_id: {**defaults, **plan.run} for plan in results.planned if plan.run_id not in known}
    for run_id, row in waiting.items():
        recipe = tuple(row[name] for name in RECIPE)
        what = (row["backbone"], row["loss"], row.get("lambda"), row["seed"], row["scale"], row.get("train"))
        yield Run(run_id, "train", *what, recipe, 0, None)


def _failure(step: int | None, error: str | None) -> str:
    """Return ``failed at step 812: loss is NaN``."""
    where = "" if step is None else f" at step {step}"
    cause = " ".join((error or "no reason was recorded").split()).removesuffix(where).rstrip(".")
    return f"failed{where}: {cause}"
