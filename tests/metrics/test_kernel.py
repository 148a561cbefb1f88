from importlib.metadata import version

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.image.kid import poly_mmd

from sgbench.metrics import Undefined
from sgbench.metrics.kernel import discrepancy, kid, kid_standard, paired_discrepancy

SHAPES = [(2, 5), (3, 2048), (5, 64), (20, 12)]


def sets(n, d, seed=0):
    """Vectors of n scenes, and the same with noise; not negative, as Inception's are."""
    rng = np.random.default_rng(seed)
    y = rng.exponential(0.5, (n, d))
    return y + 0.2 * rng.random((n, d)), y


def kernel(a, b):
    return (a @ b / len(a) + 1) ** 3


def by_double_loop(x, y):
    terms = [
        kernel(x[i], x[j]) + kernel(y[i], y[j]) - kernel(x[i], y[j]) - kernel(x[j], y[i])
        for i in range(len(x))
        for j in range(len(x))
        if i != j
    ]
    return np.mean(terms)


def assert_close(ours, theirs, tolerance=1e-9):
    assert ours.value == pytest.approx(theirs.value, rel=tolerance, abs=tolerance)
    if theirs.standard_error is None:
        assert ours.standard_error is None
    else:
        assert ours.standard_error == pytest.approx(theirs.standard_error, rel=tolerance, abs=tolerance)


def test_reference_torchmetrics_gives_the_same_kid_standard(agreement):
    peer = f"torchmetrics {version('torchmetrics')}"
    for shape in SHAPES:
        x, y = sets(*shape)
        expected = poly_mmd(torch.from_numpy(x), torch.from_numpy(y)).item()
        agreement("kid_standard", peer, abs(kid_standard.distance(x, y) - expected), 1e-9)


def test_reference_double_loop_gives_the_same_kid(agreement):
    for shape in SHAPES:
        x, y = sets(*shape)
        agreement("kid", "double loop", abs(kid.distance(x, y).value - by_double_loop(x, y)), 1e-9)


def test_reference_leaving_one_out_gives_the_same_standard_error_of_kid(agreement):
    for n, d in SHAPES[1:]:
        x, y = sets(n, d)
        without = np.array([by_double_loop(np.delete(x, i, axis=0), np.delete(y, i, axis=0)) for i in range(n)])
        expected = np.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2))
        agreement("kid", "leaving one out, standard error", abs(kid.distance(x, y).standard_error - expected), 1e-9)


shapes = st.tuples(st.integers(2, 8), st.integers(1, 8), st.integers(0, 10_000))


@pytest.mark.parametrize("n", [2, 3, 37])
def test_a_set_and_itself_are_at_a_paired_distance_of_exactly_zero(n):
    _, x = sets(n, 2048)
    value, standard_error = paired_discrepancy(x, x.copy())
    assert value == 0
    assert standard_error == (None if n == 2 else 0)


@given(shapes, st.randoms(use_true_random=False))
def test_the_order_of_the_scenes_does_not_matter(shape, random):
    x, y = sets(*shape)
    order = random.sample(range(len(x)), len(x))
    assert_close(paired_discrepancy(x[order], y[order]), paired_discrepancy(x, y))
    assert discrepancy(x[order], y) == pytest.approx(discrepancy(x, y), rel=1e-9, abs=1e-9)


@given(shapes)
def test_which_of_the_sets_comes_first_does_not_matter(shape):
    x, y = sets(*shape)
    assert_close(paired_discrepancy(y, x), paired_discrepancy(x, y))
    assert discrepancy(y, x) == pytest.approx(discrepancy(x, y), rel=1e-9, abs=1e-9)


@given(shapes)
def test_the_standard_estimate_is_lower_by_what_partners_have_in_common(shape):
    """By 2/N of how far k of partners exceeds k of strangers, on average."""
    x, y = sets(*shape)
    n = len(x)
    across = np.array([[kernel(a, b) for b in y] for a in x])
    partners, strangers = np.trace(across) / n, (across.sum() - np.trace(across)) / (n * (n - 1))
    gap = paired_discrepancy(x, y).value - discrepancy(x, y)
    assert gap == pytest.approx(2 / n * (partners - strangers), rel=1e-9, abs=1e-9)


def test_features_of_single_precision_are_multiplied_in_double():
    x, y = (side.astype(np.float32) for side in sets(30, 2048))
    in_double = paired_discrepancy(x.astype(np.float64), y.astype(np.float64))
    assert_close(paired_discrepancy(x, y), in_double, tolerance=1e-12)


@pytest.mark.parametrize("metric", [kid, kid_standard], ids=lambda metric: metric.name)
@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_images_have_no_distance(metric, n):
    with pytest.raises(Undefined, match=f"at least 2 images, and the set has {n}"):
        metric.distance(np.zeros((n, 4)), np.zeros((n, 4)))


def test_two_images_have_a_distance_but_no_standard_error():
    x, y = sets(2, 6)
    assert kid.distance(x, y).standard_error is None
    assert kid.distance(x, y).value == pytest.approx(by_double_loop(x, y))
