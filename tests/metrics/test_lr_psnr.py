import json
import re

import numpy as np
import published_lr_psnr as published
import pytest

from sgbench.core.errors import InputError
from sgbench.core.resize import downscale
from sgbench.data import read_image
from sgbench.metrics import Pair, Runtime, Suite, Undefined
from sgbench.metrics.distortion import lr_psnr
from sgbench.spec import Degradation

PUBLISHED = json.loads(published.FILE.read_text(encoding="utf-8"))
MIRRORED = Degradation(edges="mirror")
PHOTOGRAPHS = sorted(path for name in ("Set5", "Set14") for path in published.BENCHMARKS.glob(f"{name}/HR/*.png"))
LACKING = f"no Set5 and Set14 in '{published.BENCHMARKS}'; point SGBENCH_TEST_DATA at them"


def planes(image):
    return image.transpose(2, 0, 1)


def value(sr, hr):
    """Our value where LR is HR that is shrunk with mirrored edges."""
    lr = downscale(hr, published.SCALE, edges="mirror")
    return lr_psnr.score(Pair("a", planes(sr), None, 0, planes(lr)), Runtime(degradation=MIRRORED))


def differences(pairs, of):
    return max(abs(value(sr, hr) - PUBLISHED[of][name]) for name, (sr, hr) in pairs.items())


def test_reference_ntire_gives_the_same_values_for_odd_images(agreement):
    found = differences(published.odd_pairs(), "rounding_up")
    agreement("lr_psnr", lr_psnr.reference, found, lr_psnr.difference)


@pytest.mark.skipif(not PHOTOGRAPHS, reason=LACKING)
def test_reference_ntire_gives_the_same_values_for_photographs(agreement):
    pairs = published.photographs()
    agreement("lr_psnr", lr_psnr.reference, differences(pairs, "rounding_up"), lr_psnr.difference)
    agreement("lr_psnr", "NTIRE's measure.py as it is", differences(pairs, "script"), 1e-3)


@pytest.mark.skipif(not PHOTOGRAPHS, reason=LACKING)
def test_reference_matlab_published_lr_files_are_what_hr_is_shrunk_to():
    for path in PHOTOGRAPHS:
        lr = read_image(path.parents[1] / "LRx4" / path.name)
        with pytest.raises(Undefined, match="SR is shrunk to exactly LR"):
            lr_psnr.score(Pair(path.stem, planes(read_image(path)), None, 4, planes(lr)), Runtime())


def test_one_lr_value_that_is_off_by_one_gives_the_value_by_hand():
    sr = planes(published.odd_pairs()["noise"][0])
    lr = planes(downscale(planes(planes(sr)), 4)).copy()
    lr[0, 0, 0] ^= 1
    assert lr_psnr.score(Pair("a", sr, None, 4, lr), Runtime()) == pytest.approx(10 * np.log10(255**2 * lr.size))


@pytest.mark.parametrize(("edges", "rounding"), [("clamp", "per-pass"), ("mirror", "once")])
def test_sr_is_shrunk_as_the_test_set_is(edges, rounding):
    sr, hr = published.odd_pairs()["noise"]
    degradation = Degradation(edges=edges, rounding=rounding)
    lr = planes(downscale(sr, 4, edges=edges, rounding=rounding))
    suite = Suite(["lr_psnr", "psnr_y"], None, degradation=degradation)
    ours, other = suite.measure(Pair("a", planes(sr), planes(hr), 4, lr)).results
    assert ours.score.reason == "SR is shrunk to exactly LR"
    assert ours.protocol["degradation"] == f"bicubic, edges {edges}, rounding {rounding}"
    assert "degradation" not in other.protocol


def test_without_lr_there_is_no_value_and_only_metrics_that_declare_it_see_lr():
    sr = planes(published.odd_pairs()["noise"][0])
    (result,) = Suite(["lr_psnr"], None).measure(Pair("a", sr, sr, 4)).results
    assert (result.score.status, result.score.reason) == ("undefined", "there is no LR image to compare with")
    pair = Pair("a", sr, sr, 4, sr[:, :9, :13])
    assert pair.scale == 4
    assert pair.seen_by(lr_psnr).lr is pair.lr
    with pytest.raises(InputError, match="a metric that uses it declares needs_hr=True"):
        _ = pair.seen_by(lr_psnr).hr


@pytest.mark.parametrize("size", [(9, 12), (8, 13), (40, 60), (9, 26)])
def test_an_lr_image_of_another_size_is_refused(size):
    sr, lr = np.zeros((3, 36, 52), np.uint8), np.zeros((3, *size), np.uint8)
    said = f"image 'a': SR is 52×36 pixels and LR is {size[1]}×{size[0]}; SR must be larger by a whole number."
    with pytest.raises(InputError, match=re.escape(said)):
        Pair("a", sr, None, 4, lr)
