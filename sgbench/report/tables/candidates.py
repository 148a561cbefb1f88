"""The runs of stores that belong in a table of the paper."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sgbench.analysis.baseline import Significance
from sgbench.analysis.cells import Cell, summarised
from sgbench.analysis.recipes import Recipes
from sgbench.analysis.view import NO_RUN, NOT_SCORED, Filters, Outcome, Run, View
from sgbench.core.words import listed, natural
from sgbench.report.tables.paper_layouts import DATASETS, FAMILIES, OF, family, in_order

SCALE = 4
"""The scale of all tables of the paper."""


@dataclass(frozen=True)
class Candidates:
    """The results of stores for a table.

    Attributes:
        backbones: The label of each backbone, in order.
        outcomes: The outcomes of these backbones, each with one recipe.
        notes: One sentence for each thing that was left out.
    """

    backbones: Mapping[str, str]
    outcomes: Sequence[Outcome]
    notes: tuple[str, ...]

    @property
    def datasets(self) -> list[str]:
        """The test sets, the paper's first."""
        return sorted({outcome.dataset for outcome in self.outcomes}, key=_dataset_order)

    def on(self, datasets: Collection[str]) -> "Candidates":
        """Return the candidates for some test sets."""
        return replace(self, outcomes=[outcome for outcome in self.outcomes if outcome.dataset in datasets])

    def cell(self, place: Mapping[str, Any], significance: Significance) -> Cell:
        """Return the cell at a place, which includes a seed if the cell is for one run."""
        where = (place["backbone"], place["loss"])
        outcomes = self._by_place.get((*where, place["dataset"], place["metric"]), [])
        if "seed" not in place:
            return self._of(outcomes, self._seeds[where], place, significance.of(outcomes))
        outcomes = [outcome for outcome in outcomes if outcome.run.seed == place["seed"]]
        return self._of(outcomes, self._seeds[where] & {place["seed"]}, place, None)

    def _of(
        self, outcomes: Sequence[Outcome], seeds: set[int | None], place: Mapping[str, Any], significant: bool | None
    ) -> Cell:
        place = in_order(place)
        if not outcomes:
            return Cell(None, str(NOT_SCORED if seeds else NO_RUN), place=place)
        return summarised(outcomes, place, significant=significant)

    @cached_property
    def _by_place(self) -> dict[tuple[str, str, str, str], list[Outcome]]:
        by_place: defaultdict[tuple[str, str, str, str], list[Outcome]] = defaultdict(list)
        for outcome in self.outcomes:
            by_place[outcome.run.backbone, outcome.run.loss, outcome.dataset, outcome.metric].append(outcome)
        return by_place

    @cached_property
    def _seeds(self) -> defaultdict[tuple[str, str], set[int | None]]:
        seeds: defaultdict[tuple[str, str], set[int | None]] = defaultdict(set)
        for outcome in self.outcomes:
            seeds[outcome.run.backbone, outcome.run.loss].add(outcome.run.seed)
        return seeds


def candidates(number: str, view: View, metrics: Sequence[str], backbones: Sequence[str] | None) -> Candidates:
    """Choose the runs for a table.

    From each family, choose the backbone and recipe with numbers for the most cells; among equals, the largest network.

    Args:
        number: Number of the table.
        view: The stores.
        metrics: The metrics to show.
        backbones: The backbones to show; by default one of each family in the paper's table.
    """
    filters = Filters(backbones=backbones, losses=OF[number], metrics=metrics)
    found: defaultdict[tuple[str, Any], list[Outcome]] = defaultdict(list)
    for outcome in view.outcomes(filters):
        if outcome.run.trained and outcome.run.scale == SCALE:
            found[outcome.run.backbone, outcome.run.recipe].append(outcome)
    families = tuple(FAMILIES) if number == "1" else tuple(FAMILIES)[:1]
    groups: defaultdict[str, list[list[Outcome]]] = defaultdict(list)
    for (backbone, _), outcomes in found.items():
        name = family(backbone) if backbones is None else backbone
        if backbones is not None or name in families:
            groups[name].append(outcomes)
    order = [name for name in dict.fromkeys(backbones or families) if name in groups]
    chosen = [max(groups[name], key=_rank) for name in order]
    names = [outcomes[0].run.backbone for outcomes in chosen]
    titles = [FAMILIES.get(family(name), name) for name in names]
    shown = [title if titles.count(title) == 1 else name for name, title in zip(names, titles, strict=True)]
    left_out = [
        outcomes[0].run
        for group in groups.values()
        for outcomes in group
        if not any(outcomes is each for each in chosen)
    ]
    return Candidates(
        dict(zip(names, shown, strict=True)),
        [outcome for outcomes in chosen for outcome in outcomes],
        tuple(_left_out([outcomes[0].run for outcomes in chosen], left_out)),
    )


def trained(outcomes: Iterable[Outcome]) -> str:
    """Return a sentence on how the networks of some outcomes were trained, and with which seeds."""
    runs = {outcome.run.run_id: outcome.run for outcome in outcomes}.values()
    names = listed(dict.fromkeys(run.backbone for run in runs))
    recipes = dict.fromkeys((run.train, *(run.setting(name) for name in ("steps", "batch", "patch"))) for run in runs)
    how = listed(
        [f"{steps} steps of {batch} patches of {patch}×{patch} from {train}" for train, steps, batch, patch in recipes]
    )
    return f"Ours: {names}, trained for {how}; {_seeds(runs)}."


def _seeds(runs: Collection[Run]) -> str:
    """Return the seeds that all backbones and losses share, and which have additional ones."""
    own: defaultdict[str, set[int]] = defaultdict(set)
    for run in runs:
        own[f"{run.backbone} · {run.label}"].add(run.seed or 0)
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


def _rank(outcomes: Sequence[Outcome]) -> tuple[Any, ...]:
    """Return the rank of a backbone and recipe; the one with the highest is shown."""
    numbers = {(outcome.dataset, outcome.metric, outcome.run.loss) for outcome in outcomes if outcome.value is not None}
    return (len(numbers), max(outcome.run.parameters for outcome in outcomes), natural(str(outcomes[0].run.recipe)))


def _left_out(shown: Sequence[Run], left_out: Sequence[Run]) -> list[str]:
    names = {run.backbone for run in shown}
    sizes = sorted({run.backbone for run in left_out} - names, key=natural)
    notes = [f"The store also has {listed(sizes)}, which --backbone shows."] if sizes else []
    otherwise = [run for run in left_out if run.backbone in names]
    recipes = Recipes.of([*shown, *otherwise])
    told = [f"{run.backbone} with {recipes.name(run)}" for run in otherwise]
    return [*notes, *([f"Left out because of a different recipe: {'; '.join(told)}."] if told else [])]


def _dataset_order(name: str) -> tuple[Any, ...]:
    plain = name.partition("@")[0]
    return (DATASETS.index(plain) if plain in DATASETS else len(DATASETS), natural(name))
