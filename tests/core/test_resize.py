import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sgbench.core.errors import InputError
from sgbench.core.resize import SCALES, downscale, shrunk, upscale
from sgbench.data import read_image

BENCHMARKS = Path(os.environ.get("SGBENCH_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
PUBLISHED = sorted(path for name in ("Set5", "Set14") for path in BENCHMARKS.glob(f"{name}/HR/*.png"))
OPTIONS = [{"edges": edges, "rounding": rounding} for edges in ("clamp", "mirror") for rounding in ("per-pass", "once")]


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def cubic(x):
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def matlab_contributions(length, scale, shrink, edges):
    """MATLAB's ``contributions``, one output pixel at a time, with its 1-based coordinates."""
    factor = 1 / scale if shrink else scale
    width = 4 * scale if shrink else 4
    rows = []
    for x in range(1, (length // scale if shrink else length * scale) + 1):
        u = x / factor + 0.5 * (1 - 1 / factor)
        left = math.floor(u - width / 2)
        indices = range(left, left + math.ceil(width) + 2)
        weights = [factor * cubic(factor * (u - i)) if shrink else cubic(u - i) for i in indices]
        total = sum(weights)
        row = np.zeros(length)
        for i, weight in zip(indices, weights, strict=True):
            if edges == "clamp":
                at = min(max(i, 1), length) - 1
            else:
                at = (i - 1) % (2 * length)
                at = at if at < length else 2 * length - 1 - at
            row[at] += weight / total
        rows.append(row)
    return np.array(rows)


def matlab_imresize(image, scale, shrink, edges, rounding):
    def half_up(values):
        return np.clip(np.floor(values + 0.5), 0, 255)

    rows = matlab_contributions(image.shape[0], scale, shrink, edges)
    columns = matlab_contributions(image.shape[1], scale, shrink, edges)
    between = np.einsum("oh,hwc->owc", rows, image.astype(float))
    if rounding == "per-pass":
        between = half_up(np.round(between, 9))
    return half_up(np.round(np.einsum("pw,owc->opc", columns, between), 9)).astype(np.uint8)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options.values()))
@pytest.mark.parametrize("shrink", [True, False], ids=["down", "up"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_agrees_with_a_plain_transcription_of_matlab(scale, shrink, options):
    image = noise(12, 84)
    resize = downscale if shrink else upscale
    np.testing.assert_array_equal(resize(image, scale, **options), matlab_imresize(image, scale, shrink, **options))


@pytest.mark.parametrize("scale", SCALES)
def test_values_of_type_double_are_shrunk_without_rounding(scale):
    values = np.random.default_rng(0).normal(size=(scale * 7, scale * 20))
    rows, columns = (matlab_contributions(length, scale, True, "mirror") for length in values.shape)
    np.testing.assert_allclose(shrunk(values, scale), rows @ values @ columns.T, rtol=0, atol=1e-14)


def test_an_impulse_shows_the_weights_worked_out_by_hand():
    # Shrinking by 2, the kernel at 1/4, 3/4, 5/4 and 7/4, halved, is (111, 29, -9, -3)/256: what one white row leaves
    # in the output rows centred so far from it is 255 times that, 110.57, 28.89 and less than 0, rounded and saturated.
    column = np.zeros((16, 2, 1), dtype=np.uint8)
    column[8] = 255
    assert downscale(column, 2)[:, 0, 0].tolist() == [0, 0, 0, 29, 111, 0, 0, 0]
    grey = np.full((16, 2, 1), 100, dtype=np.uint8)
    grey[8] = 228  # 128 more: 128·(-3, 29, 111, -9)/256 = -1.5, 14.5, 55.5, -4.5, each of which is rounded up
    assert downscale(grey, 2)[:, 0, 0].tolist() == [100, 100, 99, 115, 156, 96, 100, 100]


def test_edges_differ_only_in_the_outer_two_pixels():
    image = noise(64, 48)
    clamped, mirrored = (downscale(image, 4, edges=edges) for edges in ("clamp", "mirror"))
    np.testing.assert_array_equal(clamped[2:-2, 2:-2], mirrored[2:-2, 2:-2])
    assert (clamped != mirrored).any()


def test_large_images_are_resized_in_chunks_without_seams():
    image = noise(212, 8)
    np.testing.assert_array_equal(downscale(image, 4)[20:30], downscale(image[40:160], 4)[10:20])


@pytest.mark.parametrize("resize", [downscale, upscale])
@given(value=st.integers(0, 255), scale=st.sampled_from([2, 3, 4]), options=st.sampled_from(OPTIONS))
def test_a_constant_image_stays_constant(resize, value, scale, options):
    assert (resize(np.full((12, 24, 3), value, dtype=np.uint8), scale, **options) == value).all()


images = st.tuples(st.integers(1, 3), st.integers(1, 3)).flatmap(lambda s: arrays(np.uint8, (12 * s[0], 12 * s[1], 3)))


@pytest.mark.parametrize("shrink", [True, False], ids=["down", "up"])
@given(image=images, scale=st.sampled_from([2, 3, 4]), options=st.sampled_from(OPTIONS))
def test_agrees_with_the_transcription_on_any_image(shrink, image, scale, options):
    resize = downscale if shrink else upscale
    np.testing.assert_array_equal(resize(image, scale, **options), matlab_imresize(image, scale, shrink, **options))


@pytest.mark.parametrize("resize", [downscale, upscale])
@given(image=images, scale=st.sampled_from([2, 3, 4]), options=st.sampled_from(OPTIONS))
def test_flips_and_shapes(resize, image, scale, options):
    height, width = image.shape[:2]
    resized = resize(image, scale, **options)
    expected = (height // scale, width // scale) if resize is downscale else (height * scale, width * scale)
    assert (resized.shape, resized.dtype) == ((*expected, 3), np.uint8)
    np.testing.assert_array_equal(resize(image[::-1], scale, **options), resized[::-1])
    np.testing.assert_array_equal(resize(image[:, ::-1], scale, **options), resized[:, ::-1])


@pytest.mark.parametrize("resize", [downscale, upscale])
@given(image=images, scale=st.sampled_from([2, 3, 4]), options=st.sampled_from(OPTIONS))
def test_transposition_commutes_within_rounding(resize, image, scale, options):
    image = image // 2 + 64  # far from 0 and 255, at which the first pass would saturate
    one = resize(image, scale, **options).astype(int)
    other = resize(image.swapaxes(0, 1), scale, **options).swapaxes(0, 1).astype(int)
    # Half a level of the first rounding is amplified by weights whose absolute values sum to 1.25 at most, and the last
    # rounding adds half a level: 1.125 in each of the two orders.
    assert abs(one - other).max() <= (1 if options["rounding"] == "once" else 2)


def test_a_size_that_is_no_multiple_is_refused():
    with pytest.raises(InputError, match=r"13×16 pixels cannot be shrunk by 4: crop it to a multiple, 12×16"):
        downscale(noise(13, 16), 4)


@pytest.mark.parametrize("resize", [downscale, upscale])
def test_other_scales_and_types_are_refused(resize):
    with pytest.raises(InputError, match="scale 5 is not supported; valid: 2, 3, 4"):
        resize(noise(20, 20), 5)
    with pytest.raises(InputError, match="uint8 H×W×C, not float64"):
        resize(noise(8, 8) / 255.0, 4)
    with pytest.raises(InputError, match=r"not uint8 of shape \(8, 8\)"):
        resize(noise(8, 8)[:, :, 0], 4)


@pytest.mark.skipif(not PUBLISHED, reason=f"no Set5 and Set14 in '{BENCHMARKS}'; point SGBENCH_TEST_DATA at them")
@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_published_files_are_reproduced_bit_for_bit(path):
    published = read_image(path.parents[1] / "LRx4" / path.name)
    np.testing.assert_array_equal(downscale(read_image(path), 4), published)


@pytest.mark.skipif(not PUBLISHED, reason=f"no Set5 and Set14 in '{BENCHMARKS}'; point SGBENCH_TEST_DATA at them")
@pytest.mark.parametrize(("name", "published"), [("Set5", 28.43), ("Set14", 26.09)])
def test_published_psnr_of_bicubic_enlargement_is_reproduced(name, published):
    scores = []
    for path in (path for path in PUBLISHED if path.parts[-3] == name):
        hr, lr = read_image(path), read_image(path.parents[1] / "LRx4" / path.name)
        difference = (upscale(lr, 4).astype(float) - hr)[4:-4, 4:-4] @ [65.481, 128.553, 24.966] / 255
        scores.append(10 * math.log10(255**2 / np.mean(difference**2)))
    assert np.mean(scores) == pytest.approx(published, abs=0.005)
