"""What tells how the differences of a sweep will vary, before it has any: earlier runs, or a person.

The spread is taken from the runs that are most like those of the sweep, and is told with what it rests on.
"""

import itertools
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from sgbench.analysis import Filters, View, load_results
from sgbench.analysis.compare import Place, by_place
from sgbench.analysis.power import Spread
from sgbench.analysis.scores import Score, mixture
from sgbench.analysis.stats import Array
from sgbench.core.errors import InputError
from sgbench.core.registry import METRICS
from sgbench.core.storage import Storage, absolute
from sgbench.core.words import plural, quoted
from sgbench.metrics import ImageMetric
from sgbench.spec import SweepSpec, expression, set_name
from sgbench.spec.decisions import ALL_SETS
from sgbench.store.layout import SIGNS

LEAST, MOST = 1e-9, 1e9
"""The range of effects, and of standard deviations that are stated and not 0."""

_STATED = re.compile(r"\s*(seed|image|both)\s*=")


class Where(NamedTuple):
    """What a prospect is asked for: two losses with a backbone on a test set, or on all of them together."""

    backbone: str
    dataset: str
    a: str
    b: str
    recipe: tuple[Any, ...]
    """The values of `sgbench.analysis.recipes.RECIPE`."""


class Told(NamedTuple):
    """A spread, and what it rests on."""

    spread: Spread
    basis: str
    """For a person: ``5 seeds``, ``median of 12 pairs, other losses``."""
    images: int | None
    """Number of images on which it was observed; None if it is not known."""


class Source(Protocol):
    """What tells how differences vary."""

    def told(self, where: Where) -> Told:
        """Return the spread of differences.

        Raises:
            InputError: If nothing tells it.
        """


@dataclass(frozen=True)
class Stated:
    """A spread that a person states, the same everywhere."""

    spread: Spread

    @classmethod
    def read(cls, text: str) -> "Stated":
        """Read ``seed=0.01,image=0.02,both=0.005``.

        Raises:
            InputError: If it is not of that form.
        """
        found: dict[str, float] = {}
        for part in text.split(","):
            name, _, value = part.partition("=")
            try:
                found[name.strip()] = float(expression.number(value))
            except (InputError, ValueError):
                found = {}
                break
        if not {"seed"} <= found.keys() <= {"seed", "image", "both"} or not all(
            value == 0 or LEAST <= value <= MOST for value in found.values()
        ):
            raise InputError(
                f"--pilot is {quoted(text)}; a store, or standard deviations such as "
                "'seed=0.01,image=0.02,both=0.005', is needed."
            )
        return cls(Spread(**found))

    def told(self, where: Where) -> Told:
        """Return the stated spread."""
        return Told(self.spread, "stated", None)


class _Pair(NamedTuple):
    """Differences between two losses at a place of a store."""

    place: Place
    losses: frozenset[str]
    seeds: int
    images: int | None
    spread: Spread

    def likeness(self, where: Where) -> tuple[bool, bool, bool, int]:
        """Return in what it is like what is asked for, the weightiest first: set, recipe, backbone, losses."""
        return (
            self.place.dataset.partition("@")[0] == where.dataset,
            self.place.settings == where.recipe,
            self.place.backbone == where.backbone,
            len(self.losses & {where.a, where.b}),
        )


class Earlier:
    """What the runs of a store tell of the spread by a metric.

    Args:
        view: The store.
        metric: The metric.
        scale: Super-resolution factor; runs with another do not count.
        datasets: Names of the test sets that are meant by all sets together.
    """

    def __init__(self, view: View, metric: str, scale: int, datasets: Sequence[str]) -> None:
        self.metric = metric
        places = by_place(view, Filters(metrics=[metric])).get(metric, {}) if metric in view.names.metrics else {}
        self._pairs = list(_pairs({place: sides for place, sides in places.items() if place.scale == scale}, datasets))

    def __bool__(self) -> bool:
        """Whether it tells anything."""
        return bool(self._pairs)

    def told(self, where: Where) -> Told:
        """Return the median spread of the pairs of losses that are most like what is asked for."""
        best = max(pair.likeness(where) for pair in self._pairs)
        pairs = [pair for pair in self._pairs if pair.likeness(where) == best]
        spread = Spread(*(_median(getattr(pair.spread, part) for pair in pairs) for part in ("seed", "image", "both")))
        same_set, same_recipe, same_backbone, shared = best
        basis = plural(pairs[0].seeds, "seed") if len(pairs) == 1 else f"median of {len(pairs)} pairs"
        others = {
            "other losses": shared == 2,
            _only({pair.place.backbone for pair in pairs}, "other backbones"): same_backbone,
            "another recipe": same_recipe,
            _only({pair.place.dataset for pair in pairs}, "other test sets"): same_set,
        }
        images = {pair.images for pair in pairs} if same_set else set()
        return Told(
            spread,
            ", ".join([basis, *(what for what, same in others.items() if not same)]),
            images.pop() if len(images) == 1 else None,
        )


def _median(values: Iterable[float]) -> float:
    return math.sqrt(statistics.median(value**2 for value in values))


def _only(names: set[str], several: str) -> str:
    return next(iter(names)) if len(names) == 1 else several


def _pairs(places: Mapping[Place, Mapping[str, Mapping[int, Score]]], datasets: Sequence[str]) -> Iterable[_Pair]:
    """Return every two losses of each place that share two seeds or more, and those of all sets together."""
    together: defaultdict[Place, dict[frozenset[str], list[Mapping[int, Array]]]] = defaultdict(dict)
    for place, sides in places.items():
        for losses in itertools.combinations(sides, 2):
            a, b = (sides[loss] for loss in losses)
            seeds = sorted(a.keys() & b.keys())
            if len(seeds) < 2 or mixture([side[seed] for side in (a, b) for seed in seeds]):
                continue
            by_image = bool(a[seeds[0]].images)
            rows = {
                seed: b[seed].values - a[seed].values if by_image else np.array([b[seed].value - a[seed].value])
                for seed in seeds
            }
            yield _pair(place, frozenset(losses), rows, by_image=by_image)
            if by_image and place.dataset.partition("@")[0] in datasets:
                everywhere = together[place._replace(dataset=ALL_SETS)]
                everywhere.setdefault(frozenset(losses), []).append(rows)
    for place, found in together.items():
        for pair, sets in found.items():
            seeds = sorted(set.intersection(*(set(rows) for rows in sets)))
            if len(sets) == len(datasets) > 1 < len(seeds):
                rows = {seed: np.concatenate([each[seed] for each in sets]) for seed in seeds}
                sizes = [len(each[seeds[0]]) for each in sets]
                yield _pair(place, pair, rows, by_image=True, sizes=sizes)


def _pair(
    place: Place, losses: frozenset[str], rows: Mapping[int, Array], *, by_image: bool, sizes: Sequence[int] = ()
) -> _Pair:
    differences = np.array(list(rows.values()))
    images = differences.shape[1] if by_image else None
    return _Pair(place, losses, len(rows), images, Spread.of(differences, sizes))


def source_of(pilot: str | None, sweep: SweepSpec, metric: str, own: str) -> Source:
    """Return what tells how differences vary.

    Args:
        pilot: A store, or standard deviations, as a person gave them; None means the store of the sweep.
        sweep: The sweep.
        metric: The metric.
        own: The address of the store of the sweep.

    Raises:
        InputError: If the store has no runs that tell it, or the standard deviations cannot be read or do not fit.
    """
    if pilot is not None and _STATED.match(pilot):
        stated = Stated.read(pilot)
        if not by_image(metric) and (stated.spread.image or stated.spread.both):
            raise InputError(f"--pilot says how images vary, and {metric} has no value per image; give 'seed=' alone.")
        return stated
    storage, found = Storage(own if pilot is None else absolute(pilot)), None
    if pilot is not None or any(map(storage.exists, SIGNS)):
        sets = [set_name(test) for test in sweep.tests]
        found = Earlier(View(load_results(storage.root)), metric, sweep.recipe.scale, sets)
    if not found:
        where = "the results store" if pilot is None else quoted(pilot)
        raise InputError(
            f"nothing tells how differences vary: {where} has no two losses with scores of two seeds by {metric}; give "
            "--pilot a store that has, or 'seed=0.01,image=0.02,both=0.005'."
        )
    return found


def by_image(metric: str) -> bool:
    """Return whether a metric has a value for each image."""
    return isinstance(METRICS.load(metric), ImageMetric)
