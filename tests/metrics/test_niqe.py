import json
from pathlib import Path

import numpy as np
import published_niqe as published
import pytest
import torch

from sgbench.assets.base import LoadedWeights
from sgbench.assets.locator import Locator
from sgbench.assets.tensors import fingerprint
from sgbench.metrics import Pair, Runtime, Undefined
from sgbench.metrics.niqe import niqe

PUBLISHED = json.loads(published.FILE.read_text(encoding="utf-8"))
AS_IT_IS = 4e-3
"""By how much the halving in float32 changes BasicSR's values."""


@pytest.fixture(scope="module")
def random():
    """The random model for which the published values are known."""
    state = {name: torch.from_numpy(array) for name, array in published.random_model().items()}
    return Runtime({"niqe": LoadedWeights(fingerprint(state), Path("random"), state)})


@pytest.fixture
def real():
    locator = Locator(download=False)
    if not locator.find("niqe"):
        pytest.skip("the model is not on this machine: `sgbench weights fetch niqe` brings it")
    return Runtime({"niqe": locator.load("niqe")})


def score(image, runtime, crop=published.SCALE):
    return niqe.score(Pair("a", image.transpose(2, 0, 1), None, crop), runtime)


def assert_equals_peer(images, runtime, model, agreement):
    for name, image in images.items():
        value = score(image, runtime)
        expected = PUBLISHED[f"{model}, halving in float64"][name]
        agreement("niqe", f"{niqe.reference}, {model} model", abs(value - expected), niqe.difference)
        expected = PUBLISHED[f"{model}, as it is"][name]
        agreement("niqe", f"BasicSR 1.4.2 as it is, {model} model", abs(value - expected), AS_IT_IS)


def test_reference_basicsr_gives_the_same_values_for_odd_images_with_a_random_model(random, agreement):
    assert_equals_peer(published.odd_images(), random, "random", agreement)


def test_reference_basicsr_gives_the_same_values_for_odd_images(real, agreement):
    assert_equals_peer(published.odd_images(), real, "real", agreement)


def test_reference_basicsr_gives_the_same_values_for_photographs(real, agreement):
    if not (images := published.photographs()):
        pytest.skip(f"no Set5 and Set14 in '{published.BENCHMARKS}'; point SGBENCH_TEST_DATA at them")
    assert_equals_peer(images, real, "real", agreement)


@pytest.mark.parametrize(
    ("size", "crop", "reason"),
    [
        ((199, 104), 4, "96×191 pixels are left, fewer than two of NIQE's 96×96 blocks"),
        ((95, 400), 0, "400×95 pixels are left, fewer than two of NIQE's 96×96 blocks"),
        ((8, 9), 4, "nothing is left of 9×8 pixels after a border of 4 is cropped"),
        ((192, 192), 0, "0 of 4 blocks of 96×96 pixels are not flat, and NIQE needs two"),
    ],
)
def test_an_image_that_is_too_small_or_flat_has_no_value(size, crop, reason, random):
    with pytest.raises(Undefined, match=reason):
        score(np.full((*size, 3), 77, np.uint8), random, crop)


def test_the_border_and_what_is_left_of_a_block_do_not_count(random):
    image = published.odd_images()["noise"]
    assert score(image, random, 0) == score(image[:192, :288], random, 0)
    assert score(image, random, 4) == score(image[4:-4, 4:-4], random, 0)
