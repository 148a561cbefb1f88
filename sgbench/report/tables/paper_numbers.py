"""The paper's own numbers, as cells."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sgbench.analysis import paper
from sgbench.analysis.cells import Cell
from sgbench.analysis.stats import summarise
from sgbench.analysis.view import Basis
from sgbench.report.tables.paper_layouts import family, in_order

NOT_PRINTED = "not in the paper"
"""Why there is no number: the paper's table has no such cell."""

UNSTATED = (
    "The paper (doi:10.1016/j.tbench.2023.100148) states neither seeds nor steps, neither LPIPS's network and version "
    "nor how FID is computed; its LPIPS stands beside lpips_alex."
)


_BASIS = Basis("of the paper", "{}", 0)


@dataclass(frozen=True)
class PaperNumbers:
    """The numbers of one table.

    Attributes:
        values: By backbone, test set, metric and loss, those of each seed; the seed is none where none is stated.
    """

    values: Mapping[tuple[str, str, str, str], Mapping[int | None, float]]

    @classmethod
    def of(cls, number: str) -> "PaperNumbers":
        """Return the numbers of a table of the paper."""
        values: dict[tuple[str, str, str, str], dict[int | None, float]] = {}
        for row in paper().to_pylist():
            if str(row["table"]) == number:
                key = (row["backbone"], row["dataset"], row["metric"], row["loss"])
                values.setdefault(key, {})[row["seed"]] = row["value"]
        return cls(values)

    @property
    def backbones(self) -> list[str]:
        """Names in the order of print."""
        return list(dict.fromkeys(backbone for backbone, _, _, _ in self.values))

    @property
    def datasets(self) -> list[str]:
        """Names in the order of print."""
        return list(dict.fromkeys(dataset for _, dataset, _, _ in self.values))

    @property
    def metrics(self) -> list[str]:
        """Names in the order of print."""
        return list(dict.fromkeys(metric for _, _, metric, _ in self.values))

    def cell(self, place: Mapping[str, Any]) -> Cell:
        """Return the cell beside one of ours: of the same family, test set, metric, loss and, if one is given, seed."""
        backbone = f"{family(place['backbone'])}-paper"
        key = (backbone, place["dataset"].partition("@")[0], place["metric"], place["loss"])
        by_seed = self.values.get(key, {})
        values = [value for seed, value in by_seed.items() if place.get("seed") in (None, seed)]
        place = in_order({**place, "backbone": backbone})
        if not values:
            return Cell(None, NOT_PRINTED, place=place)
        return Cell(summarise(values), bases=frozenset({_BASIS}), place=place)
