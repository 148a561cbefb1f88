"""How the outcomes of a pivot are grouped, sorted and labelled by each dimension."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sgbench.analysis.baseline import Significance
from sgbench.analysis.cells import summarised
from sgbench.analysis.recipes import Recipes
from sgbench.analysis.view import Outcome, Run, directions
from sgbench.core.words import natural
from sgbench.report.tables.model import Column, Line, metric_order, titled

DIMENSIONS = ("dataset", "store", "scale", "backbone", "loss", "lambda", "recipe", "seed", "metric")
"""The dimensions for rows and columns, in the order in which they are added to the rows."""

_NEVER_AVERAGED = ("dataset", "scale", "backbone", "loss", "recipe", "metric")
_ALWAYS_TOLD = ("scale", "recipe")
"""Those of these that are shown wherever they differ, if that adds no rows."""

Key = tuple[Any, ...]

Group = dict[Key, list[Outcome]]
"""The outcomes of one line, by column."""


class Axes:
    """How outcomes are grouped, sorted and labelled by each dimension.

    Args:
        outcomes: The outcomes to show.
        stores: Labels of the stores, in order.
    """

    def __init__(self, outcomes: Sequence[Outcome], stores: Sequence[str]) -> None:
        ways = directions(outcomes)
        self.directions = {metric: ways[metric] for metric in sorted(ways, key=metric_order)}
        self._runs = {outcome.run.run_id: outcome.run for outcome in outcomes}
        self.recipes = Recipes.of(self._runs.values())
        self._by_run = {run_id: self._keys(run) for run_id, run in self._runs.items()}
        self._stores = stores
        self._alike = self._by_all_but_seeds(outcomes)

    def _keys(self, run: Run) -> dict[str, Any]:
        return {
            "scale": run.scale,
            "backbone": (run.trained, natural(run.backbone), "" if run.trained else run.run_id),
            "loss": natural(run.loss),
            "lambda": -1.0 if run.lam is None else run.lam,
            "recipe": (natural(self.recipes.name(run)), str(run.recipe)),
            "seed": -1 if run.seed is None else run.seed,
        }

    def key(self, dimensions: Sequence[str], outcome: Outcome) -> Key:
        """Return the sort key that outcomes in the same row or column share."""
        own = self._by_run[outcome.run.run_id]
        return tuple(own[name] if name in own else self._place_key(name, outcome) for name in dimensions)

    def _by_all_but_seeds(self, outcomes: Iterable[Outcome]) -> list[list[Outcome]]:
        """Return lists of outcomes that differ only in their seeds, so that keys are computed once per list."""
        kinds: dict[Key, int] = {}
        kind = {
            run_id: kinds.setdefault(tuple(key for name, key in keys.items() if name != "seed"), len(kinds))
            for run_id, keys in self._by_run.items()
        }
        alike: dict[Key, list[Outcome]] = {}
        for outcome in outcomes:
            alike.setdefault((kind[outcome.run.run_id], outcome.dataset, outcome.metric, outcome.store), []).append(
                outcome
            )
        return list(alike.values())

    def _place_key(self, name: str, outcome: Outcome) -> Any:
        if name == "store":
            return self._stores.index(outcome.store)
        return natural(outcome.dataset) if name == "dataset" else metric_order(outcome.metric)

    def completed(self, rows: Sequence[str], columns: Sequence[str]) -> list[str]:
        """Return the rows with dimensions added that would otherwise be averaged, or that differ at no cost."""
        rows = list(rows)
        for name in _NEVER_AVERAGED:
            if name in (*rows, *columns):
                continue
            averaged = self._splits([*rows, *columns], name)
            free = name in _ALWAYS_TOLD and self._splits([], name) and not self._splits(rows, name)
            if averaged or free:
                later = DIMENSIONS[DIMENSIONS.index(name) :]
                rows.insert(next((at for at, row in enumerate(rows) if row in later), len(rows)), name)
        return rows

    def _splits(self, dimensions: Sequence[str], name: str) -> bool:
        """Return whether outcomes that are equal in some dimensions differ in another."""
        outcomes = [outcome for alike in self._alike for outcome in (alike if "seed" in dimensions else alike[:1])]
        pairs = {(self.key(dimensions, outcome), self.key([name], outcome)) for outcome in outcomes}
        return len(pairs) > len({key for key, _ in pairs})

    def grouped(self, rows: Sequence[str], columns: Sequence[str]) -> list[Group]:
        """Return the outcomes of each line, from top to bottom."""
        groups: dict[Key, Group] = {}
        by_seed = "seed" in (*rows, *columns)
        for outcomes in ([outcome] for alike in self._alike for outcome in alike) if by_seed else self._alike:
            groups.setdefault(self.key(rows, outcomes[0]), {}).setdefault(self.key(columns, outcomes[0]), []).extend(
                outcomes
            )
        return [group for _, group in sorted(groups.items())]

    def line(
        self,
        rows: Sequence[str],
        columns: Sequence[str],
        heads: Mapping[Key, Outcome],
        group: Group,
        significance: Significance,
    ) -> Line:
        """Return the line of some outcomes.

        Args:
            rows: Its dimensions.
            columns: Those of the columns.
            heads: An outcome of each column.
            group: The outcomes.
            significance: Which differences are significant.
        """
        first = next(iter(group.values()))[0]
        by_seed = "seed" in (*rows, *columns)
        cells = []
        for key, head in heads.items():
            outcomes = group.get(key, [])
            place = (
                self._place(outcomes, by_seed=by_seed)
                if outcomes
                else self._of(["metric", *rows], first) | self._of(columns, head)
            )
            cells.append(summarised(outcomes, place, significant=significance.of(outcomes)))
        there = [self._place(outcomes, by_seed=by_seed) for outcomes in group.values()]
        shared = {name: value for name, value in there[0].items() if all(other[name] == value for other in there)}
        counts = {len(outcomes) for outcomes in group.values()}
        labels = tuple(self._label(name, first) for name in rows)
        return Line(labels, {**shared, "seeds": counts.pop() if len(counts) == 1 else None}, tuple(cells))

    def column(self, columns: Sequence[str], outcome: Outcome) -> Column:
        """Return the column of an outcome."""
        labels = tuple(self._label(name, outcome) for name in columns)
        return Column(tuple(map(str, self._of(columns, outcome).values())), labels, " ".join(labels[:-1]))

    def title(self, name: str) -> str:
        """Return the header of a dimension."""
        untrained = name == "backbone" and not any(run.trained for run in self._runs.values())
        return "name" if untrained else name

    def about_the_rest(self, dimensions: Sequence[str]) -> list[str]:
        """Return a sentence for each dimension that is not shown because it has a single value."""
        rest = [name for name in _NEVER_AVERAGED if name not in (*dimensions, *_ALWAYS_TOLD)]
        equal = [name for name in rest if self._alike and not self._splits([], name)]
        told = {self.title(name): self._label(name, self._alike[0][0]) for name in equal}
        return [f"The {title} is {label}." for title, label in told.items() if label]

    def _place(self, outcomes: Sequence[Outcome], *, by_seed: bool) -> dict[str, Any]:
        """Return the coordinates of a cell, whose outcomes differ only in their seeds."""
        names = [name for name in DIMENSIONS if name != "store" or outcomes[0].store]
        run = outcomes[0].run
        label = None if run.label == run.loss else run.label
        place = {"kind": run.kind, **self._of(names, outcomes[0]), "label": label}
        return place if by_seed else {**place, "seed": None}

    def _of(self, dimensions: Sequence[str], outcome: Outcome) -> dict[str, Any]:
        run = outcome.run
        values = {
            "dataset": outcome.dataset,
            "store": outcome.store,
            "scale": run.scale,
            "backbone": run.backbone,
            "loss": run.loss,
            "lambda": run.lam,
            "recipe": self.recipes.name(run),
            "seed": run.seed,
            "metric": outcome.metric,
        }
        return {name: values[name] for name in dimensions}

    def _label(self, name: str, outcome: Outcome) -> str:
        if name == "metric":
            return titled(outcome.metric, self.directions[outcome.metric])
        if name == "recipe":
            return self.recipes.label(outcome.run)
        value = outcome.run.label if name == "loss" else self._of([name], outcome)[name]
        return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
