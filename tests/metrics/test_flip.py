import json

import numpy as np
import published_flip
import pytest
from published_lr_psnr import BENCHMARKS, odd_pairs, photographs

from sgbench.metrics import Pair, Runtime
from sgbench.metrics.flip import flip
from sgbench.metrics.flip_maps import PIXELS_PER_DEGREE

PUBLISHED = json.loads(published_flip.FILE.read_text(encoding="utf-8"))


def value(sr, hr):
    return flip.score(Pair("a", sr.transpose(2, 0, 1), hr.transpose(2, 0, 1), 4), Runtime())


@pytest.mark.parametrize("made", [odd_pairs, photographs], ids=["odd", "photographs"])
def test_reference_flip_evaluator_gives_the_same_values(made, agreement):
    if not (pairs := made()):
        pytest.skip(f"no Set5 and Set14 in '{BENCHMARKS}'; point SGBENCH_TEST_DATA at them")
    for name, pair in pairs.items():
        found = value(*pair)
        agreement("flip", flip.reference, abs(found - PUBLISHED["mean"][name]), flip.difference)
        agreement("flip", "the same, map added in float64", abs(found - PUBLISHED["map"][name]), 1e-5)


def test_the_values_that_follow_from_the_definition():
    white, black, green, blue = (np.full((9, 11, 3), colour, np.uint8) for colour in (255, 0, (0, 255, 0), (0, 0, 255)))
    assert value(green, blue) == pytest.approx(1)  # the largest difference of colours
    assert value(white, white) == 0
    assert value(white, black) == value(black, white) < 1
    assert pytest.approx(67.0206, abs=1e-4) == PIXELS_PER_DEGREE  # the default of the paper and of the package


def test_one_changed_pixel_is_seen_as_far_as_the_filters_reach():
    hr = np.full((61, 61, 3), 128, np.uint8)
    sr = hr.copy()
    sr[30, 30] = 255
    large = value(sr, hr) * 61 * 61
    small = value(sr[19:42, 19:42], hr[19:42, 19:42]) * 23 * 23  # 11 pixels to each side, one more than any filter has
    assert large == pytest.approx(small, rel=1e-6)
    assert large > 1
