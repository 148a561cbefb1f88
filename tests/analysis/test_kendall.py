"""Kendall's τ-b over losses and images, and what its interval covers."""

import math

import numpy as np
import pytest
import scipy.stats

from sgbench.analysis.kendall import FEWEST, kendall, order, variance_if_normal
from sgbench.analysis.stats import Array


def drawn(random: np.random.Generator, losses: int, images: int = 1, r: float = 0.5) -> tuple[Array, Array]:
    """Two metrics that correlate over losses and, apart from that, over the losses of each image."""
    (a, b), (c, d) = random.normal(size=(2, losses)), random.normal(size=(2, images, losses))
    rest = math.sqrt(1 - r * r)
    return a + 0.3 * c, r * a + rest * b + 0.3 * (r * c + rest * d)


def test_it_is_scipys_with_ties() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        a, b = random.integers(0, 5, (2, 3, 9)).astype(float)
        expected = np.mean([scipy.stats.kendalltau(x, y).statistic for x, y in zip(a, b, strict=True)])
        tau = kendall(a, b, 0.05)
        assert tau is not None
        assert tau.value == pytest.approx(expected, abs=1e-12)


def test_an_image_without_an_order_is_left_out_and_none_is_no_number() -> None:
    a, b = drawn(np.random.default_rng(0), 8, 4)
    flat = np.vstack([a, np.zeros(8)])
    assert kendall(flat, np.vstack([b, b[:1]]), 0.05) == kendall(a, b, 0.05)
    assert kendall(flat[-1:], b[:1], 0.05) is None


def test_the_order_of_losses() -> None:
    assert order(np.array([[3.0, 1.0, 1.0]])).tolist() == [[[0, 1, 1], [-1, 0, 0], [-1, 0, 0]]]


@pytest.mark.parametrize("n", [5, 20])
def test_the_variance_of_normal_scores_is_the_known_one_where_there_is_no_and_full_agreement(n: int) -> None:
    none, full = variance_if_normal(np.array([0.0, 1.0]), n)
    assert none == pytest.approx(2 * (2 * n + 5) / (9 * n * (n - 1)))  # Kendall's, for independent orders
    assert full == pytest.approx(0.0, abs=1e-15)


def test_the_variance_of_normal_scores_is_that_of_a_simulation() -> None:
    random, r, n = np.random.default_rng(0), 0.6, 6
    a, b = random.normal(size=(2, 4000, n))
    signs = order(a) * order(r * a + math.sqrt(1 - r * r) * b)
    simulated = np.var(signs.sum(axis=(1, 2)) / (n * (n - 1)))
    assert variance_if_normal(np.array([2 / math.pi * math.asin(r)]), n) == pytest.approx(simulated, rel=0.05)


@pytest.mark.parametrize("n", [5, 20])
def test_equal_orders_of_few_losses_are_no_proof_of_agreement(n: int) -> None:
    tau = kendall(np.arange(n, dtype=float)[None], np.arange(n, dtype=float)[None], 0.05)
    assert tau is not None
    assert tau.interval is not None
    low, high = tau.interval.low, tau.interval.high
    assert (tau.value, high) == (1.0, 1.0)
    z = scipy.stats.norm.ppf(0.975)
    assert (1 - low) ** 2 == pytest.approx(z**2 * variance_if_normal(np.array([low]), n)[0], rel=0.01)


def test_too_few_losses_have_no_interval() -> None:
    a, b = drawn(np.random.default_rng(0), FEWEST - 1)
    few, enough = kendall(a, b, 0.05), kendall(*drawn(np.random.default_rng(0), FEWEST), 0.05)
    assert few is not None
    assert few.interval is None
    assert enough is not None
    assert enough.interval is not None


@pytest.mark.parametrize(("losses", "images"), [(8, 1), (12, 5)])
def test_intervals_cover_the_truth(losses: int, images: int) -> None:
    random, times = np.random.default_rng(0), 200
    whole = kendall(*drawn(random, 500, images), 0.05)
    assert whole is not None
    held = 0
    for _ in range(times):
        tau = kendall(*drawn(random, losses, images), 0.05)
        assert tau is not None
        assert tau.interval is not None
        held += tau.interval.low <= whole.value <= tau.interval.high
    assert held / times >= 0.93


def test_a_higher_level_has_a_wider_interval() -> None:
    a, b = drawn(np.random.default_rng(0), 12, 5)
    wide, narrow = (kendall(a, b, alpha) for alpha in (0.01, 0.2))
    assert wide is not None
    assert narrow is not None
    assert wide.interval is not None
    assert narrow.interval is not None
    assert wide.interval.low < narrow.interval.low < wide.value == narrow.value < narrow.interval.high
