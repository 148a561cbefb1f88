import numpy as np
import pytest

from sgbench.metrics import Image, Pair, Undefined, distortion
from sgbench.metrics.distortion import psnr_rgb, psnr_y, ssim_rgb, ssim_y


def make_pair(height=40, width=57, crop=4):
    rng = np.random.default_rng(0)
    hr = rng.integers(0, 256, (3, height, width), dtype=np.uint8)
    sr = np.clip(hr + rng.normal(0, 25, hr.shape), 0, 255).astype(np.uint8)
    return Pair("noise", sr, hr, crop)


def test_luma_is_bt601_and_is_not_rounded():
    colours = np.array([[0, 255, 255, 100], [0, 255, 0, 50], [0, 255, 0, 20]], np.uint8)[:, None]
    expected = [16.0, 235.0, 16 + 65.481, 16 + (65.481 * 100 + 128.553 * 50 + 24.966 * 20) / 255]
    np.testing.assert_allclose(Image(colours).luma[0], expected, rtol=1e-12)


def test_a_known_error_gives_the_psnr_by_hand():
    hr = np.full((3, 8, 8), 100, np.uint8)
    assert psnr_rgb.score(Pair("flat", hr + 5, hr, 0)) == pytest.approx(20 * np.log10(255 / 5))


def test_the_border_does_not_count():
    pair = make_pair()
    spoiled = pair.sr.pixels.copy()
    spoiled[:, :4], spoiled[:, -4:], spoiled[..., :4], spoiled[..., -4:] = 0, 0, 255, 255
    for metric in (psnr_y, psnr_rgb, ssim_y, ssim_rgb):
        assert metric.score(Pair("spoiled", spoiled, pair.hr, 4)) == metric.score(pair)


def test_identical_images_have_no_psnr_and_an_ssim_of_one():
    hr = make_pair().hr
    for metric in (psnr_y, psnr_rgb):
        with pytest.raises(Undefined, match="the images are identical"):
            metric.score(Pair("same", hr, hr, 4))
    assert ssim_rgb.score(Pair("same", hr, hr, 4)) == pytest.approx(1.0)


@pytest.mark.parametrize("metric", [ssim_y, ssim_rgb])
def test_ssim_does_not_depend_on_the_strips_in_which_it_is_computed(metric, monkeypatch):
    expected = metric.score(make_pair())
    monkeypatch.setattr(distortion, "STRIP", 9)
    assert metric.score(make_pair()) == pytest.approx(expected, abs=1e-15)


def test_the_luma_of_a_tall_image_has_no_seams():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 600, 5), dtype=np.uint8)
    np.testing.assert_array_equal(Image(pixels).luma[200:300], Image(pixels[:, 200:300]).luma)


def test_an_image_smaller_than_the_window_has_no_ssim():
    with pytest.raises(Undefined, match="22×10 pixels are left"):
        ssim_y.score(make_pair(18, 30))
    assert np.isfinite(ssim_y.score(make_pair(19, 30)))


def test_nothing_is_left_after_the_crop():
    with pytest.raises(Undefined, match="nothing is left of 30×8 pixels"):
        psnr_y.score(make_pair(8, 30))
