import inspect
from importlib.metadata import version

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st
from pytorch_fid.fid_score import calculate_frechet_distance

from sgbench.metrics import Undefined
from sgbench.metrics.frechet import fd_alex, fd_dinov2, fid, frechet_distance

SHAPES = [(5, 5, 64), (14, 14, 256), (40, 40, 12), (300, 300, 64), (64, 64, 64), (9, 200, 32), (200, 9, 32)]

SQRTM_SUITS = "disp" in inspect.signature(scipy.linalg.sqrtm).parameters
"""Whether pytorch-fid's own function runs."""

PEER = f"pytorch-fid {version('pytorch-fid')}" if SQRTM_SUITS else f"the formula, SciPy {version('scipy')}"


def reference_distance(x, y):
    """pytorch-fid's distance, or the same formula where SciPy's sqrtm has lost the argument that it needs."""
    moments = x.mean(axis=0), np.cov(x, rowvar=False), y.mean(axis=0), np.cov(y, rowvar=False)
    if SQRTM_SUITS:
        return calculate_frechet_distance(*moments)
    mean_x, cov_x, mean_y, cov_y = moments
    root = scipy.linalg.sqrtm(cov_x @ cov_y).real
    return np.sum((mean_x - mean_y) ** 2) + np.trace(cov_x) + np.trace(cov_y) - 2 * np.trace(root)


def sets(n, m, d, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(0.5, 1.7, size=(m, d)) @ rng.normal(size=(d, d)) / np.sqrt(d)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("metric", [fid, fd_alex, fd_dinov2], ids=lambda metric: metric.name)
def test_reference_pytorch_fid_gives_the_same_distance(metric, agreement):
    for n, m, d in SHAPES:
        x, y = sets(n, m, d)
        expected = reference_distance(x, y)
        agreement(metric.name, PEER, abs(metric.distance(x, y) - expected) / max(1, expected), 1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_reference_pytorch_fid_gives_the_same_distance_of_more_images_than_features(agreement):
    """As many for each feature as 2,100 images are for the 2,048 of FID, whose root would take a minute."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(1050, 1024)), 0.1 + 1.1 * rng.normal(size=(1050, 1024))
    expected = reference_distance(x, y)
    agreement("fid", f"{PEER}, 1,050 images", abs(fid.distance(x, y) - expected) / max(1, expected), 1e-3)


shapes = st.tuples(st.integers(2, 12), st.integers(2, 12), st.integers(1, 12), st.integers(0, 10_000))


@given(shapes)
def test_distance_is_symmetric_and_never_negative(shape):
    x, y = sets(*shape)
    forward = frechet_distance(x, y)
    assert forward >= 0
    assert frechet_distance(y, x) == pytest.approx(forward, rel=1e-9, abs=1e-9)


@given(shapes, st.floats(-100, 100))
def test_distance_does_not_change_when_both_sets_move(shape, shift):
    x, y = sets(*shape)
    assert frechet_distance(x + shift, y + shift) == pytest.approx(frechet_distance(x, y), rel=1e-7, abs=1e-7)


@given(shapes, st.randoms(use_true_random=False))
def test_distance_of_a_set_to_itself_is_zero(shape, random):
    x, _ = sets(*shape)
    assert frechet_distance(x, x.copy()) == 0
    order = random.sample(range(len(x)), len(x))
    assert 0 <= frechet_distance(x, x[order]) < 1e-9


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.1, 5), st.floats(0.1, 5)), min_size=1, max_size=6))
def test_distance_between_diagonal_gaussians_is_the_closed_form(axes):
    """Points at ±s·√((2d−1)/2) on each axis have exactly the standard deviation s on it, and no correlation."""
    gap, s, t = (np.array(column) for column in zip(*axes, strict=True))
    points = np.vstack([np.eye(len(axes)), -np.eye(len(axes))]) * np.sqrt((2 * len(axes) - 1) / 2)
    expected = np.sum(gap**2) + np.sum((s - t) ** 2)
    assert frechet_distance(points * s, points * t + gap) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_images_have_no_distance(n):
    with pytest.raises(Undefined, match=f"at least 2 images, and the set has {n}"):
        frechet_distance(np.zeros((n, 4)), np.zeros((n, 4)))
