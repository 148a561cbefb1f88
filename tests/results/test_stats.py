import math
import statistics
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgbench.results.stats import Summary, summarise

VALUES = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=2, max_size=40)


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
