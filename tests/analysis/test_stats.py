import json
import math
import re
import statistics
from pathlib import Path
from random import Random

import numpy as np
import published_tests
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sgbench.analysis import stats
from sgbench.analysis.stats import (
    EXACT,
    RESAMPLES,
    Array,
    Interval,
    Mean,
    Summary,
    crossed_bootstrap,
    crossed_mean,
    holm,
    paired_t,
    sign_flip,
    sign_flip_above,
    sign_flip_floor,
    summarise,
)

VALUES = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=2, max_size=40)
NUMBERS = st.integers(-1000, 1000).map(lambda number: number / 64)  # sums of them are exact
DIFFERENCES = st.integers(2, 9).flatmap(lambda n: arrays(np.float64, n, elements=NUMBERS))
MATRICES = st.tuples(st.integers(2, 5), st.integers(2, 7)).flatmap(lambda n: arrays(np.float64, n, elements=NUMBERS))
PROBABILITIES = st.lists(st.floats(0, 1), max_size=12)


def normal(*shape: int, seed: int = 0, mean: float = 0.0) -> Array:
    return mean + np.random.default_rng(seed).standard_normal(shape)


def ends(interval: Interval) -> tuple[float, float]:
    return (interval.low, interval.high)


@given(VALUES)
def test_equals_the_statistics_module(values: list[float]) -> None:
    summary = summarise(values)
    assert summary.n == len(values)
    assert summary.mean == pytest.approx(statistics.fmean(values), rel=1e-12, abs=1e-12)
    assert summary.sd == pytest.approx(statistics.stdev(values), rel=1e-9, abs=1e-9)


@given(VALUES, st.randoms(use_true_random=False))
def test_the_order_of_seeds_does_not_matter(values: list[float], random: Random) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)
    assert summarise(shuffled) == summarise(values)


def test_one_value_has_no_spread() -> None:
    assert summarise([0.25]) == Summary(0.25, None, 1)


def test_two_values() -> None:
    assert summarise([0.0, 2.0]) == Summary(1.0, math.sqrt(2), 2)


def test_nothing_has_no_summary() -> None:
    with pytest.raises(ValueError, match="no values"):
        summarise([])


@settings(max_examples=40)
@given(DIFFERENCES)
def test_sign_flips_equal_scipys_exact_permutation_test(differences: Array) -> None:
    expected = scipy.stats.permutation_test((differences,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(differences).p == pytest.approx(expected.pvalue, abs=1e-12)


@pytest.mark.parametrize(("n", "floor"), [(1, 1.0), (3, 0.25), (5, 0.0625), (14, 2 / 2**14), (15, 1 / 10_001)])
def test_differences_of_one_sign_reach_the_floor_and_no_less(n: int, floor: float) -> None:
    outcome = sign_flip(np.linspace(1, 2, n))
    assert outcome.floor == sign_flip_floor(n) == floor
    if n <= EXACT:
        assert outcome.p == floor
    else:
        assert floor <= outcome.p <= 3 * floor


@given(DIFFERENCES)
def test_p_by_flips_is_never_under_its_floor_and_the_same_for_opposite_differences(differences: Array) -> None:
    outcome = sign_flip(differences)
    assert outcome.floor <= outcome.p <= 1
    assert sign_flip(-differences) == outcome
    assert sign_flip(np.sort(differences)) == outcome


def test_flips_that_are_drawn_estimate_those_that_are_enumerated() -> None:
    for seed in range(5):
        differences = normal(15, seed=seed, mean=0.3)
        exact = scipy.stats.permutation_test((differences,), np.sum, permutation_type="samples", n_resamples=np.inf)
        spread = math.sqrt(exact.pvalue * (1 - exact.pvalue) / RESAMPLES)
        assert sign_flip(differences).p == pytest.approx(exact.pvalue, abs=4 * spread + 1 / RESAMPLES)


def test_no_difference_has_p_1() -> None:
    assert sign_flip(np.zeros(14)).p == 1.0
    assert paired_t(np.zeros(3), 0.05).p == 1.0
    assert crossed_bootstrap(np.zeros((3, 5)), 0.05).p == 1.0
    assert ends(crossed_bootstrap(np.zeros((3, 5)), 0.05).interval) == (0.0, 0.0)


def test_differences_without_a_spread_are_a_point() -> None:
    assert ends(paired_t(np.full(3, 0.5), 0.05).interval) == (0.5, 0.5)
    assert paired_t(np.full(3, 0.5), 0.05).p == 0.0
    assert ends(crossed_bootstrap(np.full((3, 5), 0.5), 0.05).interval) == (0.5, 0.5)
    assert crossed_bootstrap(np.full((3, 5), 0.5), 0.05).p == 0.0


@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.5])
def test_the_paired_t_equals_scipys(n: int, alpha: float) -> None:
    a, b = normal(n, seed=1), normal(n, seed=2, mean=0.7)
    expected = scipy.stats.ttest_rel(b, a)
    outcome = paired_t(b - a, alpha)
    assert outcome.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert ends(outcome.interval) == pytest.approx(tuple(expected.confidence_interval(1 - alpha)), rel=1e-9)


def test_one_seed_or_one_image_has_no_interval() -> None:
    with pytest.raises(ValueError, match="2 differences are needed"):
        paired_t(np.ones(1), 0.05)
    for shape in ((1, 5), (3, 1)):
        with pytest.raises(ValueError, match=r"2 seeds and 2 images are needed"):
            crossed_bootstrap(np.ones(shape), 0.05)


@pytest.mark.parametrize("axis", [0, 1])
def test_without_an_effect_of_the_other_it_is_the_widened_bootstrap_of_scipy(axis: int) -> None:
    differences = normal(14, seed=4, mean=0.2)
    matrix = np.repeat(np.expand_dims(differences, 1 - axis), 6, axis=1 - axis)
    plain = scipy.stats.bootstrap((differences,), np.mean, n_resamples=20_000, method="percentile", rng=1)
    widened = math.sqrt(14 / 13) * scipy.stats.t.ppf(0.975, 13) / scipy.stats.norm.ppf(0.975)
    centre = differences.mean()
    outcome = crossed_bootstrap(matrix, 0.05)
    for end, expected in zip(ends(outcome.interval), plain.confidence_interval, strict=True):
        assert end - centre == pytest.approx(widened * (expected - centre), rel=0.05)
    assert outcome.p == pytest.approx(paired_t(differences, 0.05).p, rel=0.05)


@pytest.mark.parametrize("shape", [(2, 5), (5, 14), (10, 3)])
def test_the_mean_has_the_error_that_the_bootstrap_estimates(shape: tuple[int, int]) -> None:
    differences = normal(shape[0], 1, seed=1, mean=0.4) + normal(shape[1], seed=2) + normal(*shape, seed=3)
    assert crossed_mean(differences).p() == pytest.approx(crossed_bootstrap(differences, 0.05).p, rel=0.06)


@pytest.mark.parametrize("axis", [0, 1])
def test_without_an_effect_of_the_other_the_mean_is_that_of_scipys_t_test(axis: int) -> None:
    differences = normal(9, seed=4, mean=0.2)
    mean = crossed_mean(np.repeat(np.expand_dims(differences, 1 - axis), 6, axis=1 - axis))
    for alternative, p in (("two-sided", mean.p(0.1)), ("greater", mean.above(0.1)), ("less", mean.below(0.1))):
        expected = scipy.stats.ttest_1samp(differences, 0.1, alternative=alternative)
        assert p == pytest.approx(expected.pvalue, rel=1e-9)
    expected_interval = tuple(scipy.stats.ttest_1samp(differences, 0).confidence_interval(0.99))
    assert ends(mean.interval(0.01)) == pytest.approx(expected_interval, rel=1e-9)


def test_two_one_sided_tests_are_those_of_statsmodels() -> None:
    differences = published_tests.differences(0, 0.0)
    mean = crossed_mean(np.repeat(differences[:, None], 2, axis=1))
    for theirs in json.loads(published_tests.FILE.read_text(encoding="utf-8"))["equivalent"]:
        p = max(mean.above(-theirs["margin"]), mean.below(theirs["margin"]))
        assert p == pytest.approx(theirs["p"], rel=1e-9)


def test_a_mean_without_an_error_is_what_it_is() -> None:
    mean = Mean(0.5, 0.0, 1.0)
    assert (mean.p(), mean.p(0.5)) == (0, 1)
    assert [mean.above(bound) for bound in (0.4, 0.5, 0.6)] == [0, 1, 1]
    assert [mean.below(bound) for bound in (0.4, 0.5, 0.6)] == [1, 1, 0]


def test_how_sets_of_images_differ_from_each_other_adds_no_error() -> None:
    differences = normal(4, 1, seed=1) + normal(12, seed=2) + normal(4, 12, seed=3)
    apart = differences + np.repeat([0.0, 7.0, -3.0], (5, 4, 3))
    assert crossed_mean(apart, (5, 4, 3)).error == pytest.approx(crossed_mean(differences, (5, 4, 3)).error, rel=1e-9)
    assert crossed_mean(differences, (12,)) == crossed_mean(differences)
    for sizes in ((11, 1), (5, 5)):
        with pytest.raises(ValueError, match="2 images of each test set"):
            crossed_mean(differences, sizes)


def test_the_error_over_sets_is_that_of_images_resampled_within_each() -> None:
    sizes, random = (5, 9), np.random.default_rng(0)
    differences = normal(4, 1, seed=1) + normal(14, seed=2) + normal(4, 14, seed=3)
    inflated = differences.mean(axis=0) + math.sqrt(4 / 3) * (differences - differences.mean(axis=0))
    shares = []
    parts = []
    for part, n in zip(np.split(inflated, [5], axis=1), sizes, strict=True):
        middle = part.mean(axis=1, keepdims=True)
        parts.append(middle + math.sqrt(n / (n - 1)) * (part - middle))
        shares.append(random.multinomial(n, [1 / n] * n, size=40_000) / 14)
    by_seed = random.multinomial(4, [1 / 4] * 4, size=40_000) / 4
    resampled = np.sum((by_seed @ np.hstack(parts)) * np.hstack(shares), axis=1)
    assert crossed_mean(differences, sizes).error == pytest.approx(float(resampled.std()), rel=0.015)


@settings(max_examples=40)
@given(DIFFERENCES)
def test_one_sided_sign_flips_equal_scipys(differences: Array) -> None:
    expected = scipy.stats.permutation_test(
        (differences,), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="greater"
    )
    outcome = sign_flip_above(differences)
    assert outcome.p == pytest.approx(expected.pvalue, abs=1e-12)
    assert outcome.p >= outcome.floor == sign_flip(differences).floor / 2


@given(MATRICES)
def test_to_swap_the_losses_negates_the_interval(differences: Array) -> None:
    one, other = crossed_bootstrap(differences, 0.05), crossed_bootstrap(-differences, 0.05)
    assert ends(other.interval) == pytest.approx((-one.interval.high, -one.interval.low), abs=1e-9)
    assert other.p == pytest.approx(one.p, rel=1e-6)


@given(MATRICES, NUMBERS, st.sampled_from([0.25, 3.0, 100.0]))
def test_a_shift_and_a_scale_of_the_differences_are_those_of_the_interval(
    differences: Array, shift: float, scale: float
) -> None:
    low, high = ends(crossed_bootstrap(differences, 0.05).interval)
    moved = ends(crossed_bootstrap(shift + scale * differences, 0.05).interval)
    assert moved == pytest.approx((shift + scale * low, shift + scale * high), rel=1e-6, abs=1e-6)


@given(MATRICES)
def test_a_larger_alpha_narrows_the_interval(differences: Array) -> None:
    wide, narrow = (crossed_bootstrap(differences, alpha).interval for alpha in (0.01, 0.2))
    assert wide.low - 1e-9 <= narrow.low <= narrow.high <= wide.high + 1e-9


def test_the_order_of_seeds_and_images_moves_the_interval_by_no_more_than_its_resamples() -> None:
    differences = normal(3, 1, seed=1) + normal(14, seed=2) + normal(3, 14, seed=3)
    low, high = ends(crossed_bootstrap(differences, 0.05).interval)
    for end, other in zip((low, high), ends(crossed_bootstrap(differences[::-1, ::-1], 0.05).interval), strict=True):
        assert other == pytest.approx(end, abs=0.05 * (high - low))


def test_the_same_differences_have_the_same_outcomes() -> None:
    differences = normal(3, 20, seed=5)
    assert crossed_bootstrap(differences, 0.05) == crossed_bootstrap(differences.copy(), 0.05)
    assert crossed_bootstrap(differences, 0.05).interval.low == pytest.approx(-0.724, abs=0.01)
    assert sign_flip(differences[0]) == sign_flip(differences[0].copy())


def effects(random: np.random.Generator, seeds: int, images: int, of: tuple[float, float, float]) -> Array:
    """Differences of mean 0 with normal effects of seeds, images and both, of these standard deviations."""
    by_seed, by_image, by_both = of
    return (
        by_seed * random.standard_normal((seeds, 1))
        + by_image * random.standard_normal(images)
        + by_both * random.standard_normal((seeds, images))
    )


@pytest.mark.parametrize(
    ("shape", "of"),
    [
        ((3, 5), (1.0, 0.0, 0.3)),
        ((3, 5), (0.77, 1.0, 0.5)),
        ((3, 14), (0.2, 1.0, 0.1)),
        ((5, 14), (0.6, 1.0, 0.5)),
    ],
)
def test_intervals_of_95_percent_hold_the_truth_in_95_percent_of_simulations(
    shape: tuple[int, int], of: tuple[float, float, float]
) -> None:
    random = np.random.default_rng(0)
    runs = 600
    outcomes = [crossed_bootstrap(effects(random, *shape, of), 0.05) for _ in range(runs)]
    held = sum(outcome.interval.low <= 0 <= outcome.interval.high for outcome in outcomes) / runs
    assert 0.925 <= held <= 0.98
    assert sum(outcome.p <= 0.05 for outcome in outcomes) / runs <= 0.075


def test_the_simulation_in_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parents[2] / "docs" / "statistics.md"
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    exec(block, {})
    assert 0.93 <= float(capsys.readouterr().out) <= 0.98


@pytest.mark.parametrize(
    ("p_values", "corrected"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # by hand
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),  # R's p.adjust
        (  # six of the p values in statsmodels' tests, by hand
            [0.838541367553, 0.642193923795, 5.23656777208e-05, 0.0202732688798, 0.00028140506198, 0.0149877310796],
            [1.0, 1.0, 0.000314194066325, 0.0608198066394, 0.0014070253099, 0.0599509243184],
        ),
    ],
)
def test_holm_equals_worked_examples(p_values: list[float], corrected: list[float]) -> None:
    assert holm(p_values) == pytest.approx(corrected, rel=1e-9)


@given(PROBABILITIES, st.randoms(use_true_random=False))
def test_holm_is_between_no_correction_and_bonferronis_and_keeps_order(p_values: list[float], random: Random) -> None:
    corrected = holm(p_values)
    for p, more in zip(p_values, corrected, strict=True):
        assert p <= more <= min(1.0, len(p_values) * p)
    assert [more for _, more in sorted(zip(p_values, corrected, strict=True))] == sorted(corrected)
    order = list(range(len(p_values)))
    random.shuffle(order)
    assert holm([p_values[at] for at in order]) == [corrected[at] for at in order]


@pytest.mark.parametrize("shape", [(2, 2), (5, 14), (5, 100), (8, 34), (13, 300)])
def test_resamples_some_at_a_time_have_the_bits_of_all_at_once(shape: tuple[int, int]) -> None:
    differences = np.random.default_rng(0).normal(size=shape)
    seeds, images = stats._resampled(*shape)
    means = stats._resampled_means(seeds, differences, images)
    assert np.array_equal(means, np.sum((seeds @ differences) * images, axis=1))
