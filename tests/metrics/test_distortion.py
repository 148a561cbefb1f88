from importlib.metadata import version

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from sgbench.metrics import Image, Pair, Undefined
from sgbench.metrics.distortion import psnr_rgb, psnr_y, ssim_rgb, ssim_y

PEER = f"torchmetrics {version('torchmetrics')}"
PEERS = {"rgb": PEER, "y": f"{PEER}, Y of scikit-image"}


def make_pair(height=40, width=57, crop=4):
    rng = np.random.default_rng(0)
    hr = rng.integers(0, 256, (3, height, width), dtype=np.uint8)
    sr = np.clip(hr + rng.normal(0, 25, hr.shape), 0, 255).astype(np.uint8)
    return Pair("noise", sr, hr, crop)


def reference_views(pair, colour_space):
    """Cropped float64 [1, C, H, W], with scikit-image's Y where Y is asked for."""
    views = []
    for image in (pair.sr, pair.hr):
        pixels = image.pixels.transpose(1, 2, 0)
        view = rgb2ycbcr(pixels)[..., :1] if colour_space == "y" else pixels.astype(np.float64)
        inner = slice(pair.crop, -pair.crop or None)
        views.append(torch.from_numpy(view[inner, inner].transpose(2, 0, 1)[None].copy()))
    return views


@pytest.mark.parametrize(("metric", "space"), [(psnr_y, "y"), (psnr_rgb, "rgb")], ids=["psnr_y", "psnr_rgb"])
def test_reference_torchmetrics_gives_the_same_psnr(metric, space, agreement):
    for crop in (0, 4):
        pair = make_pair(crop=crop)
        expected = peak_signal_noise_ratio(*reference_views(pair, space), data_range=255.0)
        agreement(metric.name, PEERS[space], abs(metric.score(pair) - float(expected)), 1e-4)


@pytest.mark.parametrize(("metric", "space"), [(ssim_y, "y"), (ssim_rgb, "rgb")], ids=["ssim_y", "ssim_rgb"])
def test_reference_torchmetrics_gives_the_same_ssim(metric, space, agreement):
    for crop in (0, 4):
        pair = make_pair(crop=crop)
        views = reference_views(pair, space)
        _, full = structural_similarity_index_measure(*views, sigma=1.5, data_range=255.0, return_full_image=True)
        valid = full[..., 5:-5, 5:-5]  # torchmetrics' own mean takes in the mirrored border
        agreement(metric.name, PEERS[space], abs(metric.score(pair) - float(valid.mean())), 1e-9)


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


def test_an_image_smaller_than_the_window_has_no_ssim():
    with pytest.raises(Undefined, match="22×10 pixels are left"):
        ssim_y.score(make_pair(18, 30))
    assert np.isfinite(ssim_y.score(make_pair(19, 30)))


def test_nothing_is_left_after_the_crop():
    with pytest.raises(Undefined, match="nothing is left of 30×8 pixels"):
        psnr_y.score(make_pair(8, 30))
