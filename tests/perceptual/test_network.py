import functools

import pytest
import torch

from sgbench.assets.locator import Locator
from sgbench.losses import Batch, build_loss
from sgbench.metrics import Pair, Suite
from sgbench.perceptual import trunks
from sgbench.perceptual.network import Network, _built, network_of
from sgbench.spec import check_loss

TRUNKS = [trunks.ALEXNET, trunks.SQUEEZENET, trunks.VGG16, trunks.VGG19]


@pytest.mark.parametrize("trunk", TRUNKS, ids=lambda trunk: trunk.weights)
def test_each_layer_returns_what_torchvisions_does(trunk, networks):
    images = torch.rand((2, 3, 40, 37), generator=torch.Generator().manual_seed(0))
    network = Network(trunk, Locator().load(trunk.weights).state)
    layers = range(len(network.layers))
    with torch.no_grad():
        for layer, maps in zip(layers, network.maps(images, layers), strict=True):
            torch.testing.assert_close(maps, networks[trunk.weights][: layer + 1](images))


@pytest.mark.usefixtures("networks")
def test_a_network_is_built_once_whatever_compares_with_it(monkeypatch):
    """First by a metric, without gradients, which a loss then needs."""
    built = []
    build = Network.__init__

    def counted(self, trunk, state):
        built.append(trunk.weights)
        build(self, trunk, state)

    monkeypatch.setattr(Network, "__init__", counted)
    monkeypatch.setattr("sgbench.perceptual.network._built", functools.cache(_built.__wrapped__))
    sr, hr = torch.rand(2, 3, 32, 32)
    suite = Suite(["dists"], Locator())
    (result,) = suite.measure(Pair("noise", *((255 * each).byte() for each in (sr, hr)), 4)).results
    assert result.score.value > 0
    criterion = build_loss(check_loss("vgg + vgg(conv1=1, conv5=0) + lpips + lpips_vgg + dists + vgg19"))
    sr = sr[None].requires_grad_()
    for step in range(2):
        criterion(Batch(sr, sr, hr[None], 1, step, 2))[0].backward()
    assert sr.grad.isfinite().all()
    assert sorted(built) == ["alexnet", "vgg16", "vgg19"]


@pytest.mark.usefixtures("networks")
def test_a_network_is_another_one_for_another_type_and_device_but_not_for_another_name_of_a_device():
    weights = Locator().load("vgg16")
    one = network_of(trunks.VGG16, weights, "cpu", torch.float32)
    assert network_of(trunks.VGG16, weights, torch.device("cpu"), torch.float32) is one
    assert network_of(trunks.VGG16, weights, "cpu", torch.float64) is not one
    assert network_of(trunks.VGG16, weights, "meta", torch.float32).layers["0"].weight.is_meta
