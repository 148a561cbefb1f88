"""How many seeds a sweep needs to show an effect, fixed beforehand or until it is decided, and what they cost."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sgbench.analysis.power import MOST_SEEDS, Spread, decided_by, detectable, images_needed, seeds_needed
from sgbench.analysis.recipes import RECIPE
from sgbench.analysis.view import BASELINE, DEFAULT_METRIC
from sgbench.core.errors import InputError
from sgbench.core.words import some
from sgbench.data import CATALOG
from sgbench.runs.forecast import Expected
from sgbench.runs.pilots import LEAST, MOST, Source, Told, Where, by_image
from sgbench.runs.plan import Plan, PlannedRun
from sgbench.runs.status import RunStatus
from sgbench.spec import Decide, SweepSpec, set_name
from sgbench.spec.decisions import ALL_SETS, looks_until
from sgbench.store import identity_columns


class Design(NamedTuple):
    """Numbers of images and seeds."""

    images: int
    seeds: int


@dataclass(frozen=True)
class Prospect:
    """What it takes to show an effect of two losses with a backbone on a test set.

    Attributes:
        backbone: ``family-size``.
        a: What the loss is called against which is compared.
        b: What the other is called.
        dataset: The test set, or `sgbench.spec.decisions.ALL_SETS`.
        images: Number of images; None for a metric of whole sets.
        spread: How differences vary.
        basis: What that rests on.
        alpha: The level, divided by the number of cells of the family.
        planned: Number of seeds of the sweep.
        detectable: The minimum detectable effect with them; infinite if no effect can be shown.
        seeds: The fewest seeds, fixed beforehand, that show the effect; None if no number does.
        more: If the images are too few for the most seeds that there may be: with how many images, and how many seeds,
            it is shown; None if nothing helps.
        decided_by: How often it is decided with at most 1, 2, … seeds, where seeds are added until it is.
    """

    backbone: str
    a: str
    b: str
    dataset: str
    images: int | None
    spread: Spread
    basis: str
    alpha: float
    planned: int
    detectable: float
    seeds: int | None
    more: Design | None
    decided_by: tuple[float, ...]

    def decided_with(self, share: float) -> int | None:
        """Return the fewest seeds with which such a share of sweeps are decided; None if it never is reached."""
        return next((at for at, reached in enumerate(self.decided_by, start=1) if reached >= share), None)

    @property
    def mean_seeds(self) -> float:
        """The mean number of seeds of sweeps that add them until it is decided, or there are no more."""
        return 1 + math.fsum(1 - share for share in self.decided_by[:-1])

    def row(self, power: float) -> dict[str, Any]:
        """Return its fields for programs; an effect is null if none can be detected."""
        return {
            "backbone": self.backbone,
            "a": self.a,
            "b": self.b,
            "dataset": self.dataset,
            "images": self.images,
            "sd_seed": self.spread.seed,
            "sd_image": self.spread.image,
            "sd_both": self.spread.both,
            "basis": self.basis,
            "alpha": self.alpha,
            "planned_seeds": self.planned,
            "detectable": self.detectable if math.isfinite(self.detectable) else None,
            "seeds": self.seeds,
            "more": self.more and self.more._asdict(),
            "seeds_until_decided": {"median": self.decided_with(0.5), "power": self.decided_with(power)},
            "decided_by": self.decided_by,
        }


@dataclass(frozen=True)
class Goal:
    """What is to be shown: an effect by a metric, and how often if it is there."""

    effect: float
    power: float
    metric: str


def goal_of(sweep: SweepSpec, effect: float, power: float) -> Goal:
    """Return a goal by the metric of a sweep's questions or, without any, by its only metric or the default one.

    Raises:
        InputError: If there are several metrics and the default is not among them, or a number is out of range.
    """
    if not LEAST <= effect <= MOST:
        raise InputError(
            f"--detect is {effect:g}; a number from {LEAST:g} to {MOST:g}, in the unit of a metric, is needed."
        )
    if not 0.5 <= power < 1:
        raise InputError(f"--power is {power:g}; a number from 0.5 to below 1 is needed.")
    there = list(dict.fromkeys(each.question.metric for each in sweep.asked())) or list(sweep.metrics)
    if len(there) > 1 and DEFAULT_METRIC not in there:
        raise InputError(f"--detect is in the unit of one metric, and there are {some(there)}; name one by --metric.")
    return Goal(effect, power, DEFAULT_METRIC if len(there) > 1 else there[0])


class _Family(NamedTuple):
    """Comparisons of two losses whose p values are corrected together."""

    a: str
    b: str
    cells: tuple[tuple[str, str], ...]
    """Backbones and test sets."""


def prospects(made: Plan, goal: Goal, source: Source) -> list[Prospect]:
    """Return what it takes to show an effect in each comparison of a plan.

    These are those of its questions by that metric or, if it has none, of L1 or the first loss with each other one on
    each test set and on all together.

    Args:
        made: The plan.
        goal: What is to be shown.
        source: What tells how differences vary.

    Raises:
        InputError: If there is nothing to compare, or the number of images of a test set is not known.
    """
    decide = decide_of(made.sweep)
    looks = looks_until(decide.max_seeds)
    labels, runs = made.sweep.labels(), {(run.spec.backbone, str(run.spec.loss)): run.spec for run in made.runs}
    seeds: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for run in made.runs:
        seeds[run.spec.backbone, str(run.spec.loss)].add(run.spec.seed)
    found = []
    for family in _families(made, goal.metric):
        alpha = decide.alpha / len(family.cells)
        for backbone, dataset in family.cells:
            recipe = dict[str, object](identity_columns(runs[backbone, family.a]))
            where = Where(backbone, dataset, family.a, family.b, tuple(recipe[name] for name in RECIPE))
            told = source.told(where)
            images = _images(made, dataset, told) if by_image(goal.metric) else None
            planned = len(seeds[backbone, family.a] & seeds[backbone, family.b])
            of_cell = (goal.effect, told.spread)
            needed = seeds_needed(*of_cell, images, alpha, goal.power)
            more = images is not None and (needed is None or needed > decide.max_seeds)
            found.append(
                Prospect(
                    backbone,
                    labels.get(family.a, family.a),
                    labels.get(family.b, family.b),
                    dataset,
                    images,
                    told.spread,
                    told.basis,
                    alpha,
                    planned,
                    detectable(told.spread, planned, images, alpha, goal.power),
                    needed,
                    _more(goal, told.spread, decide.max_seeds, alpha) if more else None,
                    tuple(decided_by(*of_cell, images, alpha, decide.g, looks).tolist()),
                )
            )
    return found


def _more(goal: Goal, spread: Spread, seeds: int, alpha: float) -> Design | None:
    """Return with how many images so many seeds show an effect or, if seeds vary too much, twice as many, and so on."""
    while seeds <= MOST_SEEDS:
        if images := images_needed(goal.effect, spread, seeds, alpha, goal.power):
            return Design(images, seeds)
        seeds *= 2
    return None


def _families(made: Plan, metric: str) -> list[_Family]:
    """Return the comparisons of a plan, those together whose p values are."""
    sweep, losses = made.sweep, defaultdict[str, list[str]](list)
    for run in made.runs:
        if str(run.spec.loss) not in losses[run.spec.backbone]:
            losses[run.spec.backbone].append(str(run.spec.loss))
    sets = [set_name(test) for test in sweep.tests]
    whole = [(name,) for name in [ALL_SETS] if len(sets) > 1 and by_image(metric)]
    there = list(dict.fromkeys(loss for each in losses.values() for loss in each))
    first = BASELINE if BASELINE in there else there[0]
    asked = [(first, other, family) for other in there if other != first for family in (sets, *whole)]
    families = []
    for a, b, family in asked:
        having = [backbone for backbone, each in losses.items() if {a, b} <= {*each}]
        families.append(_Family(a, b, tuple((backbone, name) for name in family for backbone in having)))
    if sweep.decide:
        families = [
            _Family(question.a, question.b, tuple(itertools.product(each.backbones, question.sets)))
            for each in sweep.asked()
            if (question := each.question).metric == metric
        ]
    families = [family for family in families if family.cells]
    if not families:
        raise InputError("--detect is for losses that can be compared, and no two of the sweep share a backbone.")
    return families


def _images(made: Plan, dataset: str, told: Told) -> int:
    """Return the number of images of a test set, or of all.

    Raises:
        InputError: If it is not known.
    """
    parts = {name: CATALOG[name].parts.get("test") for name in made.sweep.tests if name in CATALOG}
    counts = made.images or {name: part.images for name, part in parts.items() if part}
    if dataset == ALL_SETS and len(counts) == len(made.sweep.tests):
        return sum(counts.values())
    if (known := counts.get(dataset) or told.images) is None:
        raise InputError(
            f"how many images '{dataset}' has is not known: they are not available locally, and no run of the pilot "
            "has scores on them; choose test sets by --test."
        )
    return known


@dataclass(frozen=True)
class Cost:
    """What training and scoring a number of runs takes.

    Attributes:
        comparisons: Number of comparisons that they serve.
        seeds: Seeds of each pair of losses; the largest number, if they differ, and a mean if it is not fixed.
        runs: Number of runs, of which those that are done count too.
        device_hours: Time on one device; None if the time of some of them is unknown.
    """

    comparisons: int
    seeds: float
    runs: float
    device_hours: float | None


def costs_of(
    found: Sequence[Prospect], goal: Goal, expected: Iterable[Expected], workers: int
) -> dict[str, Cost | None]:
    """Return what it takes to train all pairs with the planned seeds, with enough of them, and until decided.

    Args:
        found: The comparisons.
        goal: What is to be shown.
        expected: The expected times of `fresh` runs.
        workers: Number of workers of a run.

    Returns:
        The costs by what they are of; None if no comparison has a number of seeds.
    """
    times: dict[tuple[str, str], float | None] = {}
    for run in expected:
        scoring = run.scoring.seconds if run.scoring else 0.0
        seconds = None if run.training is None else workers * run.training.seconds + scoring
        times[run.run.spec.backbone, run.run.label or str(run.run.spec.loss)] = seconds
    return {
        "planned": _cost([(each, each.planned) for each in found], times),
        "fixed": _cost([(each, each.seeds) for each in found], times),
        "until_decided": _cost(
            [(each, each.mean_seeds if each.decided_with(goal.power) else None) for each in found], times
        ),
    }


def _cost(
    counts: Iterable[tuple[Prospect, float | None]], times: Mapping[tuple[str, str], float | None]
) -> Cost | None:
    """Return the cost of as many seeds as the comparisons of each pair need, without those that no number helps."""
    needed: dict[tuple[str, str], float] = {}
    served = [(each, count) for each, count in counts if count]
    for each, count in served:
        for run in ((each.backbone, each.a), (each.backbone, each.b)):
            needed[run] = max(count, needed.get(run, 0))
    if not needed:
        return None
    seconds = [None if times[run] is None else count * (times[run] or 0) for run, count in needed.items()]
    known = [each for each in seconds if each is not None]
    hours = math.fsum(known) / 3600 if len(known) == len(seconds) else None
    return Cost(len(served), max(needed.values()), math.fsum(needed.values()), hours)


def decide_of(sweep: SweepSpec) -> Decide:
    """Return how a sweep decides its questions or, if it has none, the defaults."""
    return sweep.decide or Decide.model_construct()


def fresh(made: Plan) -> list[PlannedRun]:
    """Return a run of each backbone and loss of a plan as if nothing of it were done."""
    scores = tuple((test.name, metric) for test in made.tests for metric in made.sweep.metrics)
    first: dict[tuple[str, str], PlannedRun] = {}
    for run in made.runs:
        key = (run.spec.backbone, str(run.spec.loss))
        first.setdefault(key, PlannedRun(run.spec, RunStatus.TO_DO, missing=scores, label=run.label))
    return list(first.values())
