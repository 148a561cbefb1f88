import json

import numpy as np
import published_ssimulacra2
import pytest
from published_lr_psnr import BENCHMARKS

from sgbench.metrics import Pair, Runtime, Undefined
from sgbench.metrics.ssimulacra2 import ssimulacra2

PUBLISHED = json.loads(published_ssimulacra2.FILE.read_text(encoding="utf-8"))


def value(sr, hr):
    return ssimulacra2.score(Pair("a", sr.transpose(2, 0, 1), hr.transpose(2, 0, 1), 4), Runtime())


@pytest.mark.parametrize("kind", ["odd", "photographs"])
def test_reference_tool_gives_the_same_scores(kind, agreement):
    pairs = {
        name: pair for name, pair in published_ssimulacra2.pairs().items() if (" " in name) == (kind == "photographs")
    }
    if not pairs:
        pytest.skip(f"no Set5 and Set14 in '{BENCHMARKS}'; point SGBENCH_TEST_DATA at them")
    for name, pair in pairs.items():
        if PUBLISHED["tool"][name] is None:
            with pytest.raises(Undefined, match="and SSIMULACRA 2 needs 8×8"):
                value(*pair)
            continue
        found = value(*pair)
        agreement("ssimulacra2", ssimulacra2.reference, abs(found - PUBLISHED["tool"][name]), ssimulacra2.difference)
        agreement("ssimulacra2", "the same, filter in float64", abs(found - PUBLISHED["exact"][name]), 5e-3)


def test_identical_images_score_100_and_the_smallest_have_two_scales():
    sr, hr = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    assert value(hr, hr) == 100
    assert value(sr, hr) < 100
    with pytest.raises(Undefined, match="the image is 8×7 pixels"):
        value(sr[1:], hr[1:])


def test_the_package_on_the_index_differs_from_the_tool_by_what_the_docs_say():
    upscaled = [name for name in PUBLISHED["tool"] if name.startswith("Set") and "steps" not in name]
    lower = [PUBLISHED["tool"][name] - PUBLISHED["wheel"][name] for name in upscaled]
    assert (round(min(lower), 1), round(max(lower), 1)) == (0.1, 8.8)
