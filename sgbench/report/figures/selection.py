"""What of a store a figure shows: runs grouped by all but their seed, their scores, and what is left out and why."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sgbench.analysis import Results, labels_of, paper
from sgbench.analysis.naming import natural, recipe_name
from sgbench.core.errors import InputError, unknown
from sgbench.metrics import display_of
from sgbench.report.figures.style import MARKERS
from sgbench.report.tables import ARROWS
from sgbench.report.tables.judged import BASELINE
from sgbench.spec import Recipe
from sgbench.spec.stored import find_loss
from sgbench.store.schema import recipe_columns

DEFAULT_METRIC = "lpips_alex"
"""What a figure shows if nobody says; a store without it shows all it has."""

BAND = 3
"""Seeds from which on their spread is drawn instead of each of them."""

ONLY_OF_THE_PAPER = "Of so many losses only those of the paper, which can be told apart."
"""What is said where `losses_told_apart` returns some."""

_NAMED = 4
"""Runs that a note names before it counts the others."""

_RECIPE = ("train_sha256", *recipe_columns(Recipe()))
"""Columns of a run that, with backbone, loss and seed, are its identity."""

Row = Mapping[str, Any]
Values = dict[int, float]
"""By seed."""


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that differ in nothing but their seed, or one thing that was not trained.

    Attributes:
        backbone: The backbone of trained runs, otherwise the name of what was scored.
        loss: Empty where nothing was trained.
        key: Equal for groups of one recipe.
        recipe: What tells this recipe from the others of the figure; empty where there is one.
        runs: Rows of the table ``runs`` by seed, and of planned runs that have none yet.
    """

    backbone: str
    loss: str
    key: str
    recipe: str
    runs: tuple[Row, ...]

    @property
    def trained_with(self) -> str:
        """The loss and, where recipes differ, the recipe."""
        return ", ".join(filter(None, (self.loss, self.recipe)))


@dataclass(frozen=True)
class Selection:
    """What a figure shows of a store.

    Attributes:
        groups: In reading order: by backbone, and of each `BASELINE` first, with which others are compared.
        datasets: Test sets that have a score, in reading order.
        metrics: In the order in which they were asked for, or by name.
    """

    groups: tuple[Group, ...]
    datasets: tuple[str, ...]
    metrics: tuple[str, ...]
    _scores: Mapping[tuple[str, str, str], Row]

    def values(self, group: Group, dataset: str, metric: str) -> Values:
        """Return the scores of a group by seed, without those that are no number."""
        scores = {run["seed"] or 0: self._score(run, dataset, metric) for run in group.runs}
        return {seed: score for seed, score in scores.items() if isinstance(score, float)}

    def title(self, metric: str) -> str:
        """Return what an axis of a metric is called."""
        return title(metric, {row["protocol"] for (_, _, name), row in self._scores.items() if name == metric})

    def notes(self, groups: Iterable[Group], panels: Iterable[tuple[str, str]]) -> list[str]:
        """Return what a reader has to know of some groups in panels of a test set and a metric: what is left out."""
        trained = [(group, run) for group in groups for run in group.runs if group.loss]
        reasons: dict[str, dict[str, None]] = defaultdict(dict)
        notes = []
        for dataset, metric in panels:
            bases = set()
            for group, run in trained:
                score = self._score(run, dataset, metric)
                if isinstance(score, str):
                    place = "" if run["status"] != "done" else f" ({metric} on {dataset})"
                    reasons[f"{score}{place}"][named(group, run)] = None
                else:
                    row = self._scores[run["run_id"], dataset, metric]
                    bases.add((row["metric_version"], row["protocol"]))
            if len(bases) > 1:
                notes.append(f"{metric} on {dataset} mixes {len(bases)} protocols, which cannot be compared.")
        return notes + left_out(reasons)

    def _score(self, run: Row, dataset: str, metric: str) -> float | str:
        """Return a run's score, or why it has none."""
        row = self._scores.get((run["run_id"], dataset, metric))
        if row is None:
            return fate(run) or "not scored"
        if row["value"] is None:
            return ": ".join(filter(None, (row["status"], row["reason"]))).rstrip(".")
        return float(row["value"]) if math.isfinite(row["value"]) else f"the score is {row['value']}"


def select(
    results: Results,
    *,
    backbones: Sequence[str] | None = None,
    losses: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
) -> Selection:
    """Choose what a figure shows.

    Args:
        results: A store's runs, scores and plans.
        backbones: Only these, or names of what was scored without training; all by default.
        losses: Only these, in any spelling; all by default.
        datasets: Only these test sets, all by default.
        metrics: Only these; all by default.

    Raises:
        InputError: If a filter names what the results do not have.
    """
    runs = _runs(results)
    rows = [row for row in results.totals.to_pylist() if row["value"] is not None or row["reason"]]
    kept_backbones = chosen("backbone", backbones, {run["backbone"] for run in runs})
    kept_losses = chosen("loss", losses, {run["loss"] for run in runs if run["loss"]}, find_loss)
    kept_datasets = chosen("test set", datasets, {row["dataset"] for row in rows})
    kept_metrics = chosen("metric", metrics, {row["metric"] for row in rows})
    runs = [run for run in runs if run["backbone"] in kept_backbones and (losses is None or run["loss"] in kept_losses)]
    ids = {run["run_id"] for run in runs}
    scores = {
        (row["run_id"], row["dataset"], row["metric"]): row
        for row in rows
        if row["run_id"] in ids and row["dataset"] in kept_datasets and row["metric"] in kept_metrics
    }
    there = {dataset for _, dataset, _ in scores}
    return Selection(_groups(runs), tuple(name for name in kept_datasets if name in there), kept_metrics, scores)


def losses_told_apart(results: Results, backbones: Sequence[str] | None = None) -> Sequence[str] | None:
    """Return the losses of the paper where all would be more than a figure can show; None for all.

    Args:
        results: A store.
        backbones: Only of these, all by default.

    Raises:
        InputError: If a backbone is not there.
    """
    there = {group.loss for group in select(results, backbones=backbones).groups if group.loss}
    known = there & set(paper()["loss"].to_pylist())
    return sorted(known) if known and len(there) > len(MARKERS) else None


def default_metrics(results: Results, metrics: Sequence[str] | None) -> Sequence[str] | None:
    """Return the metrics that were asked for, or else `DEFAULT_METRIC` where a store has it."""
    there = results.scores.column("metric").unique().to_pylist()
    return [DEFAULT_METRIC] if metrics is None and DEFAULT_METRIC in there else metrics


def chosen(
    kind: str, names: Sequence[str] | None, there: set[str], find: Callable[[str, set[str]], str] | None = None
) -> tuple[str, ...]:
    """Return what was asked for, in that order and as it is spelled here; by default all, by name.

    Args:
        kind: What a name is, for messages.
        names: As a person wrote them.
        there: Every name.
        find: Returns the name that a spelling means.

    Raises:
        InputError: If a name is not there.
    """
    if names is None:
        return tuple(sorted(there, key=natural))
    found: list[str] = []
    for name in (find(name, there) for name in names) if find else names:
        labels = labels_of(name, there)
        if not there:
            raise InputError(f"there is no {kind} '{name}', nor any other.")
        if not labels:
            raise unknown(kind, name, there)
        found += sorted(labels)
    return tuple(dict.fromkeys(found))


def named(group: Group, run: Row) -> str:
    """Return what notes call a run."""
    return f"{group.backbone} · {group.trained_with} · seed {run['seed']}"


def title(metric: str, protocols: Iterable[str]) -> str:
    """Return what a metric is called: its name, its unit, and an arrow towards the better.

    Args:
        metric: Its name.
        protocols: Of the scores that are shown; there is no arrow where they disagree.
    """
    directions = {json.loads(protocol).get("direction") for protocol in protocols}
    arrow = ARROWS.get(directions.pop() or "", "") if len(directions) == 1 else ""
    unit = display_of(metric).unit
    return " ".join(filter(None, (metric, unit and f"({unit})", arrow)))


def fate(run: Row) -> str:
    """Return why a run has no results, or nothing if it is done."""
    if run["status"] == "failed":
        step = "" if run["step"] is None else f" at step {run['step']}"
        cause = " ".join((run["error"] or "no reason was recorded").split()).removesuffix(step).rstrip(".")
        return f"failed{step}: {cause}"
    return "" if run["status"] == "done" else str(run["status"])


def left_out(reasons: Mapping[str, Iterable[str]]) -> list[str]:
    """Return a sentence for each reason why runs are not in a figure."""
    notes = []
    for reason, names in reasons.items():
        first, *rest = list(names)
        named = [first, *rest[: _NAMED - 1]]
        more = f" and {len(rest) + 1 - len(named)} more" if len(rest) >= _NAMED else ""
        notes.append(f"Left out: {', '.join(named)}{more}: {reason}.")
    return notes


def counted(counts: Iterable[int]) -> str:
    """Return ``n = 3``, or ``n = 1–3`` where counts differ, which no line breaks."""
    low, high = min(numbers := set(counts)), max(numbers)
    return f"n = {low}{'' if low == high else f'–{high}'}".replace(" ", "\N{NO-BREAK SPACE}")


def _runs(results: Results) -> list[Row]:
    """Return what was scored or is to be, each with the columns that tell groups apart."""
    columns = ["run_id", "kind", "name", "backbone", "loss", "lambda", "seed", "train", "spec", "status", "error"]
    rows = results.runs.select([*columns, "step", *_RECIPE]).to_pylist()
    known = {row["run_id"] for row in rows}
    waiting = {plan.run_id: plan.run for plan in results.planned if plan.run_id not in known}
    defaults = recipe_columns(Recipe()) | {"status": "pending"}  # a plan may be older than a column
    trained = [row for row in rows if row["kind"] == "train"] + [defaults | run for run in waiting.values()]
    others = [row for row in rows if row["kind"] != "train"]
    return [*trained, *({**row, "backbone": row["name"], "loss": ""} for row in others)]


def _groups(runs: Iterable[Row]) -> tuple[Group, ...]:
    groups: defaultdict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run["seed"] or 0):
        recipe = json.dumps([run[column] for column in _RECIPE]) if run["loss"] else run["run_id"]
        groups[run["backbone"], run["loss"], recipe].append(run)
    firsts = [members[0] for members in groups.values() if members[0]["loss"]]
    differing = [column for column in _RECIPE if len({str(run[column]) for run in firsts}) > 1]
    named = [
        Group(backbone, loss, key, recipe_name(members[0], differing) if loss else "", tuple(members))
        for (backbone, loss, key), members in groups.items()
    ]
    return tuple(
        sorted(named, key=lambda g: (natural(g.backbone), g.loss != BASELINE, natural(g.loss), natural(g.recipe)))
    )
