"""Whether losses are equivalent by a metric: two one-sided tests show that their difference is within a margin."""

from collections.abc import Sequence
from dataclasses import dataclass

from sgbench.analysis.anytime import SeedSequence, multiplied, shared, split
from sgbench.analysis.sequential import at_looks, t_e_process_above
from sgbench.analysis.stats import Array, crossed_mean, holm, sign_flip_above, student_mean


@dataclass(frozen=True)
class Equivalence:
    """The result of `equivalence`.

    Attributes:
        p: Of a difference as large as the margin or larger, in either direction: if it is small, B is equivalent to A.
        harmful: Of one in the direction in which B is worse: if it is small, B is not worse by more than the margin.
            None if scores do not say which values are better.
    """

    p: float
    harmful: float | None


def equivalence(
    differences: Array,
    margin: float,
    *,
    direction: str | None = None,
    sequences: Sequence[SeedSequence] = (),
    sizes: Sequence[int] = (),
) -> Equivalence:
    """Test whether the mean difference is within ±margin (Schuirmann, J. of Pharmacokinetics, 1987).

    It has to be above −margin and below +margin, each by the three tests of a comparison, but one-sided: over seeds,
    over images, and over both, for which the error of the mean is computed and not resampled. p is the largest of all.

    Args:
        differences: [S, I], B − A by seed and image, with two seeds or more; [S, 1] without values by image.
        margin: The smallest difference that matters, in the unit of the differences.
        direction: Which values are better, ``lower`` or ``higher``.
        sequences: If seeds may have been added after a look, as for `sgbench.analysis.anytime.sequential_tests`.
        sizes: The number of images of each test set, side by side; empty without values by image.
    """
    test = _ever_above if sequences else _above
    above, below = (test(each, -margin, sizes, sequences) for each in (differences, -differences))
    return Equivalence(max(above, below), {"lower": below, "higher": above}.get(direction or ""))


def corrected(family: Sequence[Equivalence | None], size: int) -> list[Equivalence | None]:
    """Return the equivalences of a family with p values corrected by Holm, equivalence and harm each for itself.

    Args:
        family: The tested cells; None where no margin was given.
        size: How many cells the family has.
    """
    both = holm([each.p if each else 1.0 for each in family] + [1.0] * (size - len(family)))
    sides = [each.harmful if each else None for each in family]
    harmful = holm([1.0 if p is None else p for p in sides] + [1.0] * (size - len(family)))
    return [
        each and Equivalence(p, None if each.harmful is None else side)
        for each, p, side in zip(family, both, harmful, strict=False)
    ]


def _above(differences: Array, bound: float, sizes: Sequence[int], _: Sequence[SeedSequence]) -> float:
    """Return the p value of a mean difference of at most a bound, with a number of seeds that was fixed beforehand."""
    found = [student_mean(differences.mean(axis=1)).above(bound)]
    if sizes:
        found.append(sign_flip_above(differences.mean(axis=0) - bound).p)
    if sizes and min(sizes) > 1:
        found.append(crossed_mean(differences, sizes).above(bound))
    return max(found)


def _ever_above(differences: Array, bound: float, sizes: Sequence[int], sequences: Sequence[SeedSequence]) -> float:
    """Return the same, however often somebody looked."""
    parts = list(zip(split(differences, sequences), sequences, strict=True))
    evidence = [t_e_process_above(part.mean(axis=1), each.g, bound) for part, each in parts if len(part)]
    found = [multiplied(evidence)]

    def by_image(seen: Array) -> float:
        return sign_flip_above(seen.mean(axis=0) - bound).p

    def overall(seen: Array) -> float:
        return crossed_mean(seen, sizes).above(bound)

    tests = [by_image] * bool(sizes) + [overall] * (bool(sizes) and min(sizes) > 1)
    found += [shared([at_looks(test, part, each.looks) for part, each in parts]) for test in tests]
    return max(found)
