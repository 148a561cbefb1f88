"""The runs of stores that belong into a table of the paper."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sgbench.analysis.naming import natural
from sgbench.report.tables.cells import Marks, summarised
from sgbench.report.tables.facts import NO_RUN, NOT_SCORED, RECIPE, Fact, Filters, Inventory, Run
from sgbench.report.tables.judged import Judged
from sgbench.report.tables.model import Cell, listed
from sgbench.report.tables.paper_layouts import DATASETS, FAMILIES, OF, family, in_order
from sgbench.report.tables.recipes import Recipes

SCALE = 4
"""Of all tables of the paper."""


@dataclass(frozen=True)
class Own:
    """What stores have for a table.

    Attributes:
        backbones: The name under which each one stands, in order.
        facts: Of these backbones, each with one recipe.
        notes: What was left out, one sentence each.
    """

    backbones: Mapping[str, str]
    facts: Sequence[Fact]
    notes: tuple[str, ...]

    @property
    def datasets(self) -> list[str]:
        """The test sets, the paper's first."""
        return sorted({fact.dataset for fact in self.facts}, key=_dataset_order)

    def on(self, datasets: Collection[str]) -> "Own":
        """Return what there is on some test sets."""
        return replace(self, facts=[fact for fact in self.facts if fact.dataset in datasets])

    def cell(self, place: Mapping[str, Any], marks: Marks, judge: Judged) -> Cell:
        """Return the cell at a place, whose seed is given if it is of one run."""
        where = (place["backbone"], place["loss"])
        facts = self._by_place.get((*where, place["dataset"], place["metric"]), [])
        if "seed" not in place:
            return self._of(facts, self._seeds[where], place, marks, judge.real(facts))
        facts = [fact for fact in facts if fact.run.seed == place["seed"]]
        return self._of(facts, self._seeds[where] & {place["seed"]}, place, marks, None)

    def _of(
        self, facts: Sequence[Fact], seeds: set[int | None], place: Mapping[str, Any], marks: Marks, real: bool | None
    ) -> Cell:
        place = in_order(place)
        if not facts:
            return Cell(None, NOT_SCORED if seeds else NO_RUN, place=place)
        return summarised(facts, place, marks, real=real)

    @cached_property
    def _by_place(self) -> dict[tuple[str, str, str, str], list[Fact]]:
        by_place: defaultdict[tuple[str, str, str, str], list[Fact]] = defaultdict(list)
        for fact in self.facts:
            by_place[fact.run.backbone, fact.run.loss, fact.dataset, fact.metric].append(fact)
        return by_place

    @cached_property
    def _seeds(self) -> defaultdict[tuple[str, str], set[int | None]]:
        seeds: defaultdict[tuple[str, str], set[int | None]] = defaultdict(set)
        for fact in self.facts:
            seeds[fact.run.backbone, fact.run.loss].add(fact.run.seed)
        return seeds


def own(number: str, inventory: Inventory, metrics: Collection[str], backbones: Collection[str] | None) -> Own:
    """Choose what stores have for a table.

    Of each family it is the backbone and recipe with numbers for the most cells, and of these the largest network.

    Args:
        number: Of the table.
        inventory: What stores have.
        metrics: Those that are shown.
        backbones: Those that are shown; by default one of each family that the paper's table has.
    """
    filters = Filters(backbones=backbones, losses=OF[number], metrics=metrics)
    candidates: defaultdict[tuple[str, Any], list[Fact]] = defaultdict(list)
    for fact in inventory.facts(filters):
        if fact.run.kind == "train" and fact.run.scale == SCALE:
            candidates[fact.run.backbone, fact.run.recipe].append(fact)
    families = tuple(FAMILIES) if number == "1" else tuple(FAMILIES)[:1]
    groups: defaultdict[str, list[list[Fact]]] = defaultdict(list)
    for (backbone, _), facts in candidates.items():
        name = family(backbone) if backbones is None else backbone
        if backbones is not None or name in families:
            groups[name].append(facts)
    order = [name for name in dict.fromkeys(backbones or families) if name in groups]
    chosen = [max(groups[name], key=_rank) for name in order]
    names = [facts[0].run.backbone for facts in chosen]
    titles = [FAMILIES.get(family(name), name) for name in names]
    shown = [title if titles.count(title) == 1 else name for name, title in zip(names, titles, strict=True)]
    left_out = [
        facts[0].run for group in groups.values() for facts in group if not any(facts is each for each in chosen)
    ]
    return Own(
        dict(zip(names, shown, strict=True)),
        [fact for facts in chosen for fact in facts],
        tuple(_left_out([facts[0].run for facts in chosen], left_out)),
    )


def trained(facts: Iterable[Fact]) -> str:
    """Return a sentence on how the networks of some facts were trained, and from which seeds."""
    runs = {fact.run.run_id: fact.run for fact in facts}.values()
    names = listed(dict.fromkeys(run.backbone for run in runs))
    recipes = dict.fromkeys((run.train, *(_setting(run, name) for name in ("steps", "batch", "patch"))) for run in runs)
    how = listed(
        [f"{steps} steps of {batch} patches of {patch}×{patch} from {train}" for train, steps, batch, patch in recipes]
    )
    return f"Ours: {names}, trained for {how}; {_seeds(runs)}."


def _seeds(runs: Collection[Run]) -> str:
    """Return the seeds that all backbones and losses share, and which of these have others."""
    own: defaultdict[str, set[int]] = defaultdict(set)
    for run in runs:
        own[f"{run.backbone} · {run.loss}"].add(run.seed or 0)
    shared = set.intersection(*own.values())
    others: defaultdict[str, list[str]] = defaultdict(list)
    for name, seeds in own.items():
        if seeds > shared:
            others[_numbered(seeds - shared)].append(name)
    also = "also " if shared else ""
    return "; ".join(
        [*([_numbered(shared)] if shared else []), *(f"{listed(names)} {also}{them}" for them, names in others.items())]
    )


def _numbered(seeds: Collection[int]) -> str:
    return f"seed{'s' * (len(seeds) != 1)} {', '.join(map(str, sorted(seeds)))}"


def _setting(run: Run, name: str) -> Any:
    return run.recipe[RECIPE.index(name)] if run.recipe else None


def _rank(facts: Sequence[Fact]) -> tuple[Any, ...]:
    """Return what is greatest for the facts of the backbone and recipe that is shown."""
    numbers = {(fact.dataset, fact.metric, fact.run.loss) for fact in facts if fact.row and fact.row.value is not None}
    return (len(numbers), max(fact.run.parameters for fact in facts), natural(str(facts[0].run.recipe)))


def _left_out(shown: Sequence[Run], left_out: Sequence[Run]) -> list[str]:
    names = {run.backbone for run in shown}
    sizes = sorted({run.backbone for run in left_out} - names, key=natural)
    notes = [f"The store also has {listed(sizes)}, which --backbone shows."] if sizes else []
    otherwise = [run for run in left_out if run.backbone in names]
    recipes = Recipes.of([*shown, *otherwise])
    told = [f"{run.backbone} with {recipes.name(run)}" for run in otherwise]
    return [*notes, *([f"Left out, for they were trained otherwise: {'; '.join(told)}."] if told else [])]


def _dataset_order(name: str) -> tuple[Any, ...]:
    plain = name.partition("@")[0]
    return (DATASETS.index(plain) if plain in DATASETS else len(DATASETS), natural(name))
