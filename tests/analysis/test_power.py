import math

import numpy as np
import pytest

from sgbench.analysis.power import Spread, decided_by, detectable, images_needed, power_of, seeds_needed
from sgbench.analysis.sequential import sequential_crossed, sequential_sign_flip, sequential_t
from sgbench.analysis.stats import crossed_bootstrap, paired_t, sign_flip

ONE = Spread(seed=1.0)
CROSSED = Spread(seed=0.3, image=1.0, both=0.5)


@pytest.mark.parametrize(
    ("effect", "seeds", "alpha", "power"),
    [  # statsmodels 0.15.0: TTestPower().power(effect, seeds, alpha)
        (1, 2, 0.05, 0.09281),
        (0.5, 20, 0.05, 0.5645),
        (1, 10, 0.05, 0.8031),
        (2, 5, 0.05, 0.90888),
        (3, 4, 0.05, 0.967),
        (1, 17, 0.05 / 8, 0.81569),
        (2, 7, 0.05 / 8, 0.81079),
        (3, 5, 0.05 / 8, 0.80657),
    ],
)
def test_the_power_for_a_metric_of_whole_sets_is_that_of_the_noncentral_t(
    effect: float, seeds: int, alpha: float, power: float
) -> None:
    assert power_of(effect, ONE, seeds, None, alpha) == pytest.approx(power, abs=5e-4)
    assert power_of(-10 * effect, Spread(10.0), seeds, None, alpha) == pytest.approx(power, abs=5e-4)


@pytest.mark.parametrize(
    ("seeds", "alpha", "effect"),
    [  # statsmodels 0.15.0: TTestPower().solve_power(nobs=seeds, alpha=alpha, power=0.8)
        (3, 0.05, 3.26404),
        (5, 0.05, 1.682),
        (10, 0.05, 0.996),
        (20, 0.05, 0.66044),
        (5, 0.05 / 8, 2.97645),
    ],
)
def test_the_detectable_effect_is_found_with_that_power(seeds: int, alpha: float, effect: float) -> None:
    assert detectable(ONE, seeds, None, alpha) == pytest.approx(effect, rel=1e-3)


def test_one_cell_needs_10_5_or_4_seeds_and_eight_need_17_7_or_5() -> None:
    assert [seeds_needed(effect, ONE, None, 0.05) for effect in (1, 2, 3)] == [10, 5, 4]
    assert [seeds_needed(effect, ONE, None, 0.05 / 8) for effect in (1, 2, 3)] == [17, 7, 5]


def test_the_predicted_power_is_how_often_all_three_tests_find_the_effect() -> None:
    seeds, images, runs, found = 4, 14, 100, 0
    effect = detectable(CROSSED, seeds, images, 0.05)
    random = np.random.default_rng(7)
    for _ in range(runs):
        by_seed, by_image, both = (random.normal(size=shape) for shape in ((seeds, 1), images, (seeds, images)))
        drawn = effect + CROSSED.seed * by_seed + CROSSED.image * by_image + CROSSED.both * both
        tests = paired_t(drawn.mean(axis=1), 0.05), sign_flip(drawn.mean(axis=0)), crossed_bootstrap(drawn, 0.05)
        found += max(test.p for test in tests) <= 0.05
    assert found / runs == pytest.approx(0.8, abs=0.11)  # 2.8 standard errors


def test_the_spread_is_that_of_the_analysis_of_variance() -> None:
    spread = Spread.of(np.array([[3.0, 7, 4, 9], [5, 8, 7, 9], [2, 8, 1, 6]]))
    # statsmodels 0.15.0: anova_lm(ols("d ~ C(seed) + C(image)")) has the mean squares 9, 17.638889 and 1.888889
    assert spread.both**2 == pytest.approx(1.888889)
    assert spread.seed**2 == pytest.approx((9 - 1.888889) / 4)
    assert spread.image**2 == pytest.approx((17.638889 - 1.888889) / 3)


def test_no_spread_is_negative() -> None:
    opposite = np.array([[1.0, -1, 1], [-1, 1, -1]])
    assert Spread.of(opposite) == Spread(0.0, 0.0, pytest.approx(math.sqrt(8 / 3)))
    assert Spread.of(np.zeros((3, 4))) == Spread(0.0)
    assert Spread.of(np.array([[1.0], [3.0]])) == Spread(math.sqrt(2))
    with pytest.raises(ValueError, match="2 seeds are needed"):
        Spread.of(np.zeros((1, 4)))


def test_scores_out_of_all_proportion_give_no_error() -> None:
    spread = Spread.of(np.array([[1e300, -1e300, 1], [-1e300, 1e300, 2]]))
    assert detectable(spread, 2, 30, 0.05) == math.inf
    assert power_of(1.0, spread, 2, 30, 0.05) == 0.0


def test_five_images_show_nothing_however_many_seeds_there_are() -> None:
    assert detectable(CROSSED, 1000, 5, 0.05) == math.inf
    assert power_of(1e6, CROSSED, 1000, 5, 0.05) == 0.0
    assert seeds_needed(1e6, CROSSED, 5, 0.05) is None
    assert images_needed(1e6, CROSSED, 10, 0.05) == 6
    assert images_needed(1e6, CROSSED, 10, 0.05 / 8) == 9  # 2 / 2⁹ is below 0.00625
    assert images_needed(0.01, CROSSED, 3, 0.05) is None


def test_two_seeds_are_the_fewest_and_nothing_varies_without_spread() -> None:
    assert detectable(CROSSED, 1, 14, 0.05) == math.inf
    assert detectable(Spread(0.0), 2, 14, 0.05) == 0.0
    assert seeds_needed(1e-9, Spread(0.0), 14, 0.05) == 2


@pytest.mark.parametrize("images", [None, 8, 100])
def test_more_seeds_or_images_never_lose_power(images: int | None) -> None:
    powers = [power_of(1.2, CROSSED, seeds, images, 0.05) for seeds in range(2, 30)]
    assert powers == sorted(powers)
    needed = seeds_needed(1.2, CROSSED, images, 0.05)
    assert needed is None or powers[needed - 2] >= 0.8 > powers[needed - 3]


def test_seeds_are_added_until_all_three_anytime_valid_tests_find_the_effect() -> None:
    images, runs, looks, effect, g = 14, 120, (3, 5, 8), 1.1, 4.0
    found = np.zeros(looks[-1])
    random = np.random.default_rng(11)
    for _ in range(runs):
        by_seed, by_image, both = (random.normal(size=shape) for shape in ((8, 1), images, (8, images)))
        drawn = effect + CROSSED.seed * by_seed + CROSSED.image * by_image + CROSSED.both * both
        for count in (3, 5, 7, 8):
            seen = drawn[:count]
            tests = (
                sequential_t(seen.mean(axis=1), 0.05, g),
                sequential_sign_flip(seen, looks),
                sequential_crossed(seen, 0.05, looks),
            )
            found[count - 1] += max(test.p for test in tests) <= 0.05
    predicted = decided_by(effect, CROSSED, images, 0.05, g, looks)
    assert found[[2, 4, 6, 7]] / runs == pytest.approx(predicted[[2, 4, 6, 7]], abs=0.12)  # 2.7 standard errors
    assert 0.3 < predicted[-1] < 0.9
    assert np.all(np.diff(predicted) >= 0)


def test_an_effect_of_2_sd_is_decided_with_6_seeds_in_half_of_all_sweeps() -> None:
    looks = (3, 5, 7, 10, 14, 20)
    shares = decided_by(-2.0, ONE, None, 0.05, 4.0, looks)
    assert np.argmax(shares >= 0.5) + 1 == 6
    assert shares[9] > 0.95
    assert not decided_by(1e6, CROSSED, 7, 0.05, 4.0, looks).any()  # 6 looks × 2 / 2⁷ is 0.09
    assert decided_by(1e6, CROSSED, 8, 0.05, 4.0, looks)[-1] == 1.0  # 6 looks × 2 / 2⁸ is 0.047
