"""How the facts of a pivot are told apart, sorted and labelled by each dimension."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sgbench.analysis.naming import natural
from sgbench.report.tables.cells import Marks, directions, summarised
from sgbench.report.tables.facts import Fact, Run
from sgbench.report.tables.judged import Judged
from sgbench.report.tables.model import Column, Line, metric_order, titled
from sgbench.report.tables.recipes import Recipes

DIMENSIONS = ("dataset", "store", "scale", "backbone", "loss", "lambda", "recipe", "seed", "metric")
"""What rows and columns can be made of, in the order in which it is added to the rows."""

_NEVER_AVERAGED = ("dataset", "scale", "backbone", "loss", "recipe", "metric")
_ALWAYS_TOLD = ("scale", "recipe")
"""Of these, what is told wherever it differs, if that costs no further rows."""

Key = tuple[Any, ...]

Group = dict[Key, list[Fact]]
"""The facts of one line, by column."""


class Axes:
    """How facts are told apart, sorted and labelled by each dimension.

    Args:
        facts: All that is shown.
        stores: Labels in their order.
    """

    def __init__(self, facts: Sequence[Fact], stores: Sequence[str]) -> None:
        self.directions = directions(facts)
        self._runs = {fact.run.run_id: fact.run for fact in facts}
        self.recipes = Recipes.of(self._runs.values())
        self._by_run = {run_id: self._keys(run) for run_id, run in self._runs.items()}
        self._stores = stores
        self._alike = self._by_all_but_seeds(facts)

    def _keys(self, run: Run) -> dict[str, Any]:
        trained = run.kind == "train"
        return {
            "scale": run.scale,
            "backbone": (trained, natural(run.backbone), "" if trained else run.run_id),
            "loss": natural(run.loss),
            "lambda": -1.0 if run.lam is None else run.lam,
            "recipe": (natural(self.recipes.name(run)), str(run.recipe)),
            "seed": -1 if run.seed is None else run.seed,
        }

    def key(self, dimensions: Sequence[str], fact: Fact) -> Key:
        """Return what is equal for facts that share a row or column, and sorts it."""
        own = self._by_run[fact.run.run_id]
        return tuple(own[name] if name in own else self._place_key(name, fact) for name in dimensions)

    def _by_all_but_seeds(self, facts: Iterable[Fact]) -> list[list[Fact]]:
        """Return facts in lists of those that differ in nothing but their seeds: keys are then needed once a list."""
        kinds: dict[Key, int] = {}
        kind = {
            run_id: kinds.setdefault(tuple(key for name, key in keys.items() if name != "seed"), len(kinds))
            for run_id, keys in self._by_run.items()
        }
        alike: dict[Key, list[Fact]] = {}
        for fact in facts:
            alike.setdefault((kind[fact.run.run_id], fact.dataset, fact.metric, fact.store), []).append(fact)
        return list(alike.values())

    def _place_key(self, name: str, fact: Fact) -> Any:
        if name == "store":
            return self._stores.index(fact.store)
        return natural(fact.dataset) if name == "dataset" else metric_order(fact.metric)

    def completed(self, rows: Sequence[str], columns: Sequence[str]) -> list[str]:
        """Return the rows with whatever would be averaged otherwise, and what is told wherever it differs."""
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
        """Return whether facts that are equal in some dimensions differ in another."""
        facts = [fact for alike in self._alike for fact in (alike if "seed" in dimensions else alike[:1])]
        pairs = {(self.key(dimensions, fact), self.key([name], fact)) for fact in facts}
        return len(pairs) > len({key for key, _ in pairs})

    def grouped(self, rows: Sequence[str], columns: Sequence[str]) -> list[Group]:
        """Return the facts of each line, from top to bottom."""
        groups: dict[Key, Group] = {}
        by_seed = "seed" in (*rows, *columns)
        for facts in ([fact] for alike in self._alike for fact in alike) if by_seed else self._alike:
            groups.setdefault(self.key(rows, facts[0]), {}).setdefault(self.key(columns, facts[0]), []).extend(facts)
        return [group for _, group in sorted(groups.items())]

    def line(
        self,
        rows: Sequence[str],
        columns: Sequence[str],
        heads: Mapping[Key, Fact],
        group: Group,
        marks: Marks,
        verdicts: Judged,
    ) -> Line:
        """Return the line of some facts.

        Args:
            rows: Its dimensions.
            columns: Those of the columns.
            heads: A fact of each column.
            group: The facts.
            marks: Takes notes.
            verdicts: Which differences are real.
        """
        first = next(iter(group.values()))[0]
        by_seed = "seed" in (*rows, *columns)
        cells = []
        for key, head in heads.items():
            facts = group.get(key, [])
            place = (
                self._place(facts, by_seed=by_seed)
                if facts
                else self._of(["metric", *rows], first) | self._of(columns, head)
            )
            cells.append(summarised(facts, place, marks, real=verdicts.real(facts)))
        there = [self._place(facts, by_seed=by_seed) for facts in group.values()]
        shared = {name: value for name, value in there[0].items() if all(other[name] == value for other in there)}
        counts = {len(facts) for facts in group.values()}
        labels = tuple(self._label(name, first) for name in rows)
        return Line(labels, {**shared, "seeds": counts.pop() if len(counts) == 1 else None}, tuple(cells))

    def column(self, columns: Sequence[str], fact: Fact) -> Column:
        """Return the column that a fact stands in."""
        labels = tuple(self._label(name, fact) for name in columns)
        return Column(tuple(map(str, self._of(columns, fact).values())), labels, " ".join(labels[:-1]))

    def title(self, name: str) -> str:
        """Return what stands above a dimension."""
        untrained = name == "backbone" and not any(run.kind == "train" for run in self._runs.values())
        return "name" if untrained else name

    def about_the_rest(self, dimensions: Sequence[str]) -> list[str]:
        """Return a sentence for each dimension that is not shown, because all is equal in it."""
        rest = [name for name in _NEVER_AVERAGED if name not in (*dimensions, *_ALWAYS_TOLD)]
        equal = [name for name in rest if self._alike and not self._splits([], name)]
        told = {self.title(name): self._label(name, self._alike[0][0]) for name in equal}
        return [f"The {title} is {label}." for title, label in told.items() if label]

    def _place(self, facts: Sequence[Fact], *, by_seed: bool) -> dict[str, Any]:
        """Return the coordinates of a cell, whose facts differ in nothing but their seeds."""
        names = [name for name in DIMENSIONS if name != "store" or facts[0].store]
        place = {"kind": facts[0].run.kind, **self._of(names, facts[0])}
        return place if by_seed else {**place, "seed": None}

    def _of(self, dimensions: Sequence[str], fact: Fact) -> dict[str, Any]:
        run = fact.run
        values = {
            "dataset": fact.dataset,
            "store": fact.store,
            "scale": run.scale,
            "backbone": run.backbone,
            "loss": run.loss,
            "lambda": run.lam,
            "recipe": self.recipes.name(run),
            "seed": run.seed,
            "metric": fact.metric,
        }
        return {name: values[name] for name in dimensions}

    def _label(self, name: str, fact: Fact) -> str:
        if name == "metric":
            return titled(fact.metric, self.directions[fact.metric])
        if name == "recipe":
            return self.recipes.label(fact.run)
        value = self._of([name], fact)[name]
        return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
