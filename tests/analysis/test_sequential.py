import json
import math

import numpy as np
import published_tests
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sgbench.analysis.sequential import (
    anytime_p,
    at_looks,
    confidence_sequence,
    sequential_crossed,
    sequential_sign_flip,
    sequential_t,
    t_e_process,
    t_e_process_above,
)
from sgbench.analysis.stats import Array, Estimate, Interval, SignFlip, crossed_mean, sign_flip

NUMBERS = st.integers(-1000, 1000).map(lambda number: number / 64)
SEEDS = st.integers(1, 12).flatmap(lambda n: arrays(np.float64, n, elements=NUMBERS))
PRIORS = st.sampled_from([0.25, 1.0, 4.0, 100.0])
LOOKS = (3, 5, 7)
PUBLISHED = json.loads(published_tests.FILE.read_text(encoding="utf-8"))
NOTHING = Interval(-math.inf, math.inf)


def normal(*shape: int, seed: int = 0, mean: float = 0.0) -> Array:
    return mean + np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("n", [2, 3, 7])
@pytest.mark.parametrize("g", [0.5, 4.0])
@pytest.mark.parametrize("mean", [-0.6, 0.0, 1.5])
def test_evidence_is_a_mixture_of_scipys_noncentral_t_over_the_effects(n: int, g: float, mean: float) -> None:
    differences = normal(n, seed=n, mean=mean)
    t = float(scipy.stats.ttest_1samp(differences, 0).statistic)

    def mixture(lowest: float) -> float:
        def weighted(effect: float) -> float:
            likelihood = scipy.stats.nct.pdf(t, n - 1, effect * math.sqrt(n))
            return float(likelihood * scipy.stats.norm.pdf(effect, 0, math.sqrt(g)))

        area = scipy.integrate.quad(weighted, lowest, 12 * math.sqrt(g), points=[t / math.sqrt(n)], limit=200)[0]
        return float(area / scipy.stats.t.pdf(t, n - 1))

    assert t_e_process(differences, g)[-1] == pytest.approx(mixture(-12 * math.sqrt(g)), rel=1e-6)
    assert t_e_process_above(differences, g, 0.0)[-1] == pytest.approx(2 * mixture(0.0), rel=1e-6)


@pytest.mark.parametrize(("case", "theirs"), [*zip(published_tests.CASES, PUBLISHED["cases"], strict=True)])
def test_evidence_and_intervals_are_those_of_published_packages(
    case: tuple[int, float, float], theirs: dict[str, list[list[float]]]
) -> None:
    seed, effect, g = case
    differences = published_tests.differences(seed, effect)
    assert t_e_process(differences, g)[1:] == pytest.approx(theirs["evidence"], rel=1e-9)
    lows, highs = zip(*theirs["intervals"], strict=True)  # of each look by itself
    interval = confidence_sequence(differences, published_tests.ALPHA, g)
    assert (interval.low, interval.high) == pytest.approx((max(lows), min(highs)), rel=1e-4)  # RLS is not exact


@settings(max_examples=30)
@given(SEEDS, PRIORS, NUMBERS)
def test_both_sides_have_the_evidence_of_two_between_them(differences: Array, g: float, mean: float) -> None:
    above, below = t_e_process_above(differences, g, mean), t_e_process_above(-differences, g, -mean)
    assert (above + below) / 2 == pytest.approx(t_e_process(differences, g, mean), rel=1e-9)


@settings(max_examples=30)
@given(SEEDS, PRIORS, NUMBERS)
def test_evidence_of_the_first_seeds_is_that_of_them_alone(differences: Array, g: float, mean: float) -> None:
    whole = t_e_process(np.stack([differences, differences + 1]), g, mean)
    first = [t_e_process(differences[:n], g, mean)[-1] for n in range(1, len(differences) + 1)]
    assert whole[0] == pytest.approx(first, rel=1e-9)
    assert whole[1] == pytest.approx(t_e_process(differences, g, mean - 1), rel=1e-6)


@pytest.mark.parametrize("n", [1, 4, 7, 20])
@pytest.mark.parametrize("alpha", [0.01, 0.5])
def test_the_interval_has_the_means_whose_evidence_was_never_enough(n: int, alpha: float) -> None:
    for seed in range(5):
        differences = normal(n, seed=seed)
        interval = confidence_sequence(differences, alpha, 4.0)
        for mean in np.linspace(-3, 3, 31):
            refuted = anytime_p(t_e_process(differences, 4.0, mean)) <= alpha
            assert refuted == (not interval.low <= mean <= interval.high)


def test_four_seeds_can_be_significant_and_three_cannot() -> None:
    assert sequential_t(np.array([1.0, 1.01, 0.99]), 0.05, 4.0) == Estimate(NOTHING, pytest.approx(0.0771, abs=1e-3))
    assert sequential_t(np.array([1.0, 1.01, 0.99, 1.0]), 0.05, 4.0).p == pytest.approx(0.0145, abs=1e-3)
    assert sequential_t(np.ones(1), 0.05, 4.0) == Estimate(NOTHING, 1.0)


def test_without_a_spread_evidence_is_finite_and_without_differences_there_is_none() -> None:
    assert t_e_process(np.full(4, 0.1), 4.0) == pytest.approx([1, 3, 13, 17**1.5])
    assert confidence_sequence(np.full(4, 0.1), 0.05, 4.0) == Interval(pytest.approx(0.1), pytest.approx(0.1))
    assert t_e_process(np.zeros(3), 4.0) == pytest.approx([1, 9**-0.5, 13**-0.5])
    assert t_e_process_above(np.zeros(3), 4.0, 0.0) == pytest.approx([1, 9**-0.5, 13**-0.5])


def test_a_mean_that_nothing_is_compatible_with_leaves_the_interval_of_now() -> None:
    jump = np.concatenate([normal(4), normal(16, mean=900)])
    interval = confidence_sequence(jump, 0.05, 4.0)
    assert 0 < interval.low < jump.mean() < interval.high


def test_before_the_first_look_nothing_is_known() -> None:
    differences = normal(2, 6, mean=9)
    assert sequential_sign_flip(differences, LOOKS) == SignFlip(1.0, floor=3 * 2 / 2**6)
    assert sequential_crossed(differences, 0.05, LOOKS) == Estimate(NOTHING, 1.0)
    assert sequential_sign_flip(normal(3, 2), LOOKS).floor == 1.0


def test_each_look_has_its_share_and_what_comes_between_has_none() -> None:
    differences = normal(6, 8, seed=3, mean=0.8)
    seen = [differences[:3], differences[:5]]
    smallest = min(sign_flip(each.mean(axis=0)).p for each in seen)
    assert sequential_sign_flip(differences, LOOKS).p == pytest.approx(3 * smallest)
    means = [crossed_mean(each) for each in seen]
    overall = sequential_crossed(differences, 0.05, LOOKS)
    assert overall.p == pytest.approx(3 * min(mean.p() for mean in means))
    intervals = [mean.interval(0.05 / 3) for mean in means]
    assert overall.interval == Interval(max(each.low for each in intervals), min(each.high for each in intervals))
    assert overall == sequential_crossed(differences[:5], 0.05, LOOKS)
    assert at_looks(lambda seen: crossed_mean(seen).p(), differences, LOOKS) == overall.p
