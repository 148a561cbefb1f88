from pathlib import Path

import lpips
import numpy as np
import pytest
import torch

from sgbench.metrics import Image, LoadedWeights, Pair, Runtime, Undefined
from sgbench.metrics.lpips import alexnet_features, lpips_alex
from sgbench.metrics.weights import Locator, fingerprint

SHAPES = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}


@pytest.fixture(scope="module")
def random_weights():
    generator = torch.Generator().manual_seed(7)
    state = {}
    for layer, (outs, ins, side) in SHAPES.items():
        scale = (2 / (ins * side * side)) ** 0.5
        state[f"features.{layer}.weight"] = torch.randn(outs, ins, side, side, generator=generator) * scale
        state[f"features.{layer}.bias"] = torch.randn(outs, generator=generator) * 0.1
    return LoadedWeights(fingerprint(state), Path("random"), state)


def reference_network(state):
    network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    with torch.no_grad():
        for layer, block in zip(SHAPES, ("slice1", "slice2", "slice3", "slice4", "slice5"), strict=True):
            convolution = getattr(getattr(network.net, block), str(layer))
            convolution.weight.copy_(state[f"features.{layer}.weight"])
            convolution.bias.copy_(state[f"features.{layer}.bias"])
    return network


def make_pair(height=64, width=83):
    rng = np.random.default_rng(1)
    sr, hr = rng.integers(0, 256, (2, 3, height, width), dtype=np.uint8)
    return Pair("noise", sr, hr, 4)


def as_input(image):
    return torch.from_numpy(image.pixels)[None].float() / 127.5 - 1


def assert_equals_reference(weights):
    network = reference_network(weights.state)
    for pair in (make_pair(), make_pair(31, 31), make_pair(120, 45)):
        with torch.no_grad():
            reference = network(as_input(pair.sr), as_input(pair.hr)).item()
        assert lpips_alex.score(pair, Runtime({"alexnet": weights})) == pytest.approx(reference, abs=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_equals_the_reference_lpips_with_random_convolutions(random_weights):
    assert_equals_reference(random_weights)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_equals_the_reference_lpips_with_the_real_convolutions():
    locator = Locator(download=False)
    if locator.find("alexnet") is None:
        pytest.skip("the AlexNet weights are not on this machine: `sgbench weights fetch alexnet` brings them")
    assert_equals_reference(locator.load("alexnet"))


def test_an_image_against_itself_is_at_distance_zero(random_weights):
    hr = make_pair().hr
    assert lpips_alex.score(Pair("same", hr, hr, 4), Runtime({"alexnet": random_weights})) == 0


def test_each_image_goes_through_the_network_once(random_weights):
    runtime = Runtime({"alexnet": random_weights})
    image = make_pair().hr
    first = alexnet_features(image, runtime)
    assert [maps.shape[1] for maps in first] == [64, 192, 384, 256, 256]
    assert alexnet_features(image, runtime) is first


def test_building_the_network_is_silent_and_leaves_the_random_state_alone(random_weights, capsys, recwarn):
    other = LoadedWeights("another", random_weights.path, random_weights.state)
    before = torch.get_rng_state()
    alexnet_features(make_pair().hr, Runtime({"alexnet": other}))
    assert torch.equal(torch.get_rng_state(), before)
    assert capsys.readouterr() == ("", "")
    assert not recwarn.list


def test_a_smaller_image_than_alexnet_can_take_is_undefined(random_weights):
    with pytest.raises(Undefined, match="40×30 pixels, and AlexNet needs at least 31×31"):
        alexnet_features(Image(np.zeros((3, 30, 40), np.uint8)), Runtime({"alexnet": random_weights}))
