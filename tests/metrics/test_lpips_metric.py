import dataclasses
import weakref
from importlib.metadata import version
from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
import torchvision

from sgbench.assets.base import LoadedWeights
from sgbench.assets.locator import Locator
from sgbench.assets.tensors import fingerprint
from sgbench.metrics import Image, Pair, Runtime, Undefined
from sgbench.metrics.lpips import lpips_alex, lpips_squeeze, lpips_vgg
from sgbench.metrics.lpips_network import feature_maps

ARCHITECTURES = {"alexnet": "alexnet", "vgg16": "vgg16", "squeezenet": "squeezenet1_1"}
"""From the name of weights to torchvision's function."""

PEER = f"lpips {version('lpips')}"

each_metric = pytest.mark.parametrize("metric", [lpips_alex, lpips_vgg, lpips_squeeze], ids=lambda metric: metric.name)


def empty_network(trunk):
    with torch.device("meta"):
        return getattr(torchvision.models, ARCHITECTURES[trunk.weights])()


@pytest.fixture(scope="module")
def runtime():
    """Random convolutions for each trunk, of a size that keeps the values of its layers alike."""
    generator = torch.Generator().manual_seed(7)
    loaded = {}
    for metric in (lpips_alex, lpips_vgg, lpips_squeeze):
        state = {}
        for name, tensor in empty_network(metric.trunk).features.state_dict(prefix="features.").items():
            scale = 0.1 if tensor.ndim == 1 else (2 / tensor[0].numel()) ** 0.5
            state[name] = torch.randn(tensor.shape, generator=generator) * scale
        loaded[metric.trunk.weights] = LoadedWeights(fingerprint(state), Path("random"), state)
    return Runtime(loaded)


def peer_network(trunk, weights, **options):
    """The `lpips` package's network, which takes its trunk from torchvision, here with our weights."""
    network = empty_network(trunk)
    network.load_state_dict(weights.state, strict=False, assign=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchvision.models, ARCHITECTURES[trunk.weights], lambda pretrained: network)
        return lpips.LPIPS(net=trunk.net, verbose=False, **options)


def make_pair(height=64, width=83):
    rng = np.random.default_rng(1)
    sr, hr = rng.integers(0, 256, (2, 3, height, width), dtype=np.uint8)
    return Pair("noise", sr, hr, 4)


def as_input(image):
    return torch.from_numpy(image.pixels)[None].float() / 127.5 - 1


def assert_equals_peer(metric, weights, agreement, peer):
    network = peer_network(metric.trunk, weights)
    for pair in (make_pair(), make_pair(31, 31), make_pair(120, 45)):
        with torch.no_grad():
            expected = network(as_input(pair.sr), as_input(pair.hr)).item()
        assert expected > 0.01
        value = metric.score(pair, Runtime({metric.trunk.weights: weights}))
        agreement(metric.name, peer, abs(value - expected), 1e-6)


@each_metric
def test_reference_lpips_gives_the_same_distance_with_the_real_convolutions(metric, agreement):
    locator, name = Locator(download=False), metric.trunk.weights
    if locator.find(name) is None:
        pytest.skip(f"the weights are not on this machine: `sgbench weights fetch {name}` brings them")
    assert_equals_peer(metric, locator.load(name), agreement, f"{PEER}, real weights")


@each_metric
def test_reference_lpips_gives_the_same_map(metric, runtime, agreement):
    network = peer_network(metric.trunk, runtime.weights[metric.trunk.weights], spatial=True)
    for pair in (make_pair(), make_pair(31, 31), make_pair(120, 45)):
        with torch.no_grad():
            expected = network(as_input(pair.sr), as_input(pair.hr))[0, 0].numpy()
        values = metric.map(pair, runtime)
        assert values.shape == expected.shape
        agreement(f"{metric.name}, map", f"{PEER}, random weights", np.abs(values - expected).max(), 1e-6)
        assert values.mean() == pytest.approx(metric.score(pair, runtime), rel=0.05)


@each_metric
def test_an_image_against_itself_is_at_distance_zero(metric, runtime):
    hr = make_pair().hr
    assert metric.score(Pair("same", hr, hr, 4), runtime) == 0


@pytest.mark.parametrize(
    ("metric", "channels"),
    [
        (lpips_alex, [64, 192, 384, 256, 256]),
        (lpips_vgg, [64, 128, 256, 512, 512]),
        (lpips_squeeze, [64, 128, 256, 384, 384, 512, 512]),
    ],
    ids=["lpips_alex", "lpips_vgg", "lpips_squeeze"],
)
def test_each_image_goes_through_the_network_once(metric, channels, runtime):
    image = make_pair().hr
    first = list(feature_maps(image, metric.trunk, runtime))
    assert [maps.shape[1] for maps in first] == channels
    again = feature_maps(image, metric.trunk, runtime)
    assert all(ours is theirs for ours, theirs in zip(again, first, strict=True))


@each_metric
def test_an_image_that_is_too_large_to_be_kept_has_the_same_value(metric, runtime, monkeypatch):
    kept, streamed = make_pair(), make_pair()
    cache_of_kept, cache_of_streamed = {}, {}
    kept.hr.keep_views(cache_of_kept)
    streamed.hr.keep_views(cache_of_streamed)
    expected = metric.score(kept, runtime)
    monkeypatch.setattr("sgbench.metrics.feature_maps.KEPT_BYTES", 64 * 83 * metric.trunk.bytes_per_pixel - 1)
    assert metric.score(streamed, runtime) == pytest.approx(expected, abs=1e-6)
    assert len(cache_of_kept) == len(metric.trunk.activations)
    assert not cache_of_streamed


@each_metric
def test_of_an_image_that_is_too_large_to_be_kept_one_feature_map_is_held_at_a_time(metric, runtime, monkeypatch):
    monkeypatch.setattr("sgbench.metrics.feature_maps.KEPT_BYTES", 0)
    maps = feature_maps(make_pair().hr, metric.trunk, runtime)
    held = weakref.ref(next(maps))
    for each in maps:
        assert held() is None
        held = weakref.ref(each)
        del each


@each_metric
def test_the_height_of_strips_does_not_matter(metric, runtime, monkeypatch):
    expected = metric.score(make_pair(), runtime)
    for strip in (1, 200_000):
        monkeypatch.setattr("sgbench.metrics.feature_maps.STRIP_BYTES", strip)
        assert metric.score(make_pair(), runtime) == pytest.approx(expected, abs=1e-9)


@each_metric
def test_the_order_of_values_in_memory_does_not_matter(metric, runtime, monkeypatch):
    expected = metric.score(make_pair(), runtime)
    monkeypatch.setattr("sgbench.perceptual.network.memory_format", lambda device: torch.contiguous_format)
    name = metric.trunk.weights
    rebuilt = dataclasses.replace(runtime.weights[name], sha256="contiguous")
    assert metric.score(make_pair(), Runtime({name: rebuilt})) == pytest.approx(expected, abs=1e-6)


@each_metric
def test_a_trunk_knows_what_its_feature_maps_take(metric, runtime):
    maps = feature_maps(make_pair(128, 128).hr, metric.trunk, runtime)
    assert sum(each.nbytes for each in maps) / 128**2 == pytest.approx(metric.trunk.bytes_per_pixel, rel=0.15)


def test_building_the_network_is_silent_and_leaves_the_random_state_alone(runtime, capsys, recwarn):
    for metric in (lpips_alex, lpips_vgg, lpips_squeeze):
        name = metric.trunk.weights
        other = dataclasses.replace(runtime.weights[name], sha256="another")
        before = torch.get_rng_state()
        list(feature_maps(make_pair().hr, metric.trunk, Runtime({name: other})))
        assert torch.equal(torch.get_rng_state(), before)
    assert capsys.readouterr() == ("", "")
    assert not recwarn.list


@pytest.mark.parametrize(
    ("metric", "title", "smallest"),
    [(lpips_alex, "AlexNet", 31), (lpips_vgg, "VGG-16", 16), (lpips_squeeze, "SqueezeNet 1.1", 17)],
    ids=["lpips_alex", "lpips_vgg", "lpips_squeeze"],
)
def test_a_smaller_image_than_the_network_can_take_is_undefined(metric, title, smallest, runtime):
    needed = f"40×{smallest - 1} pixels, and {title} needs at least {smallest}×{smallest}"
    with pytest.raises(Undefined, match=needed):
        feature_maps(Image(np.zeros((3, smallest - 1, 40), np.uint8)), metric.trunk, runtime)
    assert metric.score(make_pair(smallest, smallest), runtime) > 0
    network = peer_network(metric.trunk, runtime.weights[metric.trunk.weights])
    with pytest.raises(RuntimeError, match="too small"):
        network.net(torch.zeros(1, 3, smallest - 1, 40))
