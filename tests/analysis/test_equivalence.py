import math

import numpy as np
import pytest
import scipy.stats

from sgbench.analysis.anytime import SeedSequence
from sgbench.analysis.equivalence import Equivalence, corrected, equivalence
from sgbench.analysis.stats import Array, crossed_mean
from sgbench.spec.decisions import looks_until


def matrix(seeds: int, images: int, mean: float = 0.0, seed: int = 0) -> Array:
    random = np.random.default_rng(seed)
    by_seed, by_image = random.normal(0, 0.02, (seeds, 1)), random.normal(0, 0.05, images)
    return mean + by_seed + by_image + random.normal(0, 0.03, (seeds, images))


def sequence(seeds: int) -> SeedSequence:
    return SeedSequence(tuple(range(seeds)), 4.0, looks_until(20))


@pytest.mark.parametrize("mean", [0.0, 0.03, 0.2])
def test_over_seeds_it_is_the_two_one_sided_t_tests_of_scipy(mean: float) -> None:
    differences = matrix(5, 1, mean)
    above, below = (
        scipy.stats.ttest_1samp(differences[:, 0], popmean=bound, alternative=side).pvalue
        for bound, side in ((-0.1, "greater"), (0.1, "less"))
    )
    assert equivalence(differences, 0.1, direction="lower") == Equivalence(
        pytest.approx(max(above, below)), pytest.approx(below)
    )
    assert equivalence(differences, 0.1, direction="higher").harmful == pytest.approx(above)
    assert equivalence(differences, 0.1).harmful is None


def test_over_images_it_is_the_one_sided_permutation_test_of_scipy() -> None:
    """All seeds agree, so that only images leave anything open."""
    differences = np.repeat(matrix(1, 9, 0.06), 4, axis=0) + np.linspace(-1e-6, 1e-6, 4)[:, None]
    exact = scipy.stats.permutation_test(
        (differences.mean(axis=0) - 0.1,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="less"
    )
    both = crossed_mean(differences, (4, 5)).below(0.1)
    assert exact.pvalue > both
    assert equivalence(differences, 0.1, sizes=(4, 5)).p == pytest.approx(exact.pvalue)
    noisy = matrix(4, 9, 0.06, seed=3)
    assert equivalence(noisy, 0.1, sizes=(4, 5)).p >= crossed_mean(noisy, (4, 5)).below(0.1)


def test_swapped_losses_are_as_equivalent() -> None:
    differences = matrix(5, 14, 0.03)
    forth, back = (equivalence(each, 0.1, direction="lower", sizes=(14,)) for each in (differences, -differences))
    assert forth.p == back.p
    assert forth.harmful == equivalence(-differences, 0.1, direction="higher", sizes=(14,)).harmful


def test_no_more_than_alpha_are_called_equivalent_whose_difference_is_the_margin() -> None:
    """At a fixed number of seeds, and at any of up to 20: p only falls there, so that the last is the smallest."""
    number, found, ever = 200, 0, 0
    for at in range(number):
        differences = matrix(20, 8, 0.1, seed=at)
        found += equivalence(differences[:5], 0.1, sizes=(8,)).p <= 0.05
        ever += equivalence(differences, 0.1, sizes=(8,), sequences=[sequence(20)]).p <= 0.05
    assert max(found, ever) / number <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / number)


def test_equivalence_is_found_after_few_seeds_and_stays_found() -> None:
    differences = matrix(20, 14, 0.0, seed=1)
    p = [equivalence(differences[:n], 0.2, sizes=(14,), sequences=[sequence(n)]).p for n in range(2, 21, 3)]
    assert p[0] == 1.0  # before the first look at the images
    assert p == sorted(p, reverse=True)
    assert p[2] < 0.05
    alone = equivalence(differences.mean(axis=1, keepdims=True), 0.2, sequences=[sequence(20)]).p
    halves = [SeedSequence(tuple(seeds), 4.0, looks_until(20)) for seeds in (range(10), range(10, 20))]
    assert alone < equivalence(differences, 0.2, sizes=(14,), sequences=halves).p < 0.05


def test_a_family_is_corrected_by_holm_and_harm_for_itself() -> None:
    family = [Equivalence(0.02, 0.001), None, Equivalence(0.01, None)]
    assert corrected(family, 4) == [Equivalence(0.06, 0.004), None, Equivalence(0.04, None)]
