import dataclasses
from importlib.metadata import version
from pathlib import Path

import lpips
import pytest
import references
import torch

from sgbench.assets.base import LoadedWeights
from sgbench.assets.locator import Locator
from sgbench.core.errors import InputError
from sgbench.core.registry import LOSSES
from sgbench.losses import build_loss
from sgbench.metrics import Pair, Runtime
from sgbench.metrics.lpips import lpips_alex, lpips_squeeze, lpips_vgg
from sgbench.perceptual.lpips import linear_layers
from sgbench.spec import check_loss

METRICS = {"lpips": lpips_alex, "lpips_squeeze": lpips_squeeze, "lpips_vgg": lpips_vgg}
"""By the name of the loss."""

each_lpips = pytest.mark.parametrize("name", METRICS)


@pytest.fixture
def peer(name, monkeypatch):
    """The `lpips` package's network with random convolutions, which our loss then has too."""
    torch.manual_seed(0)
    network = lpips.LPIPS(net=METRICS[name].trunk.net, pnet_rand=True, verbose=False)
    for each in network.net.parameters():  # as large as what keeps the values of its layers alike
        torch.nn.init.uniform_(each, -1, 1).mul_((6 / each[0].numel()) ** 0.5 if each.ndim > 1 else 0.1)
    state = {f"features.{key.partition('.')[2]}": tensor for key, tensor in network.net.state_dict().items()}
    monkeypatch.setattr(Locator, "load", lambda self, asked: LoadedWeights(f"random {asked}", Path("random"), state))
    return network


def loss_of(name):
    return build_loss(check_loss(name)).losses[0]


def images(seed, side=40):
    return torch.rand((2, 3, side, side), generator=torch.Generator().manual_seed(seed))


def value_and_gradient(loss, sr, hr):
    leaf = sr.clone().requires_grad_()
    value = loss(leaf, hr)
    return value.detach(), *torch.autograd.grad(value, leaf)


@each_lpips
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_loss_trains_in_a_process_in_which_the_metric_has_scored_first(name, peer):
    linear_layers.cache_clear()
    with torch.inference_mode():
        loss_of(name)(images(0), images(1))
    sr = images(0).requires_grad_()
    loss_of(name)(sr, images(1)).backward()
    assert sr.grad.abs().sum() > 0


@each_lpips
@pytest.mark.filterwarnings("ignore::UserWarning")  # lpips uses old argument names of torchvision
def test_reference_lpips_gives_the_same_value_and_gradient(name, peer):
    given = dataclasses.replace(references.batch(40), sr=images(0))
    ours, theirs = (
        references.value_and_slopes(function, given)
        for function in (
            lambda sr: loss_of(name)(sr, given.hr),
            lambda sr: peer(sr, given.hr, normalize=True).mean(),
        )
    )
    kind = LOSSES.load(name)
    assert kind.reference == f"lpips {version('lpips')}"
    assert references.difference(ours, theirs) <= kind.difference


@each_lpips
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_metric_of_this_name_gives_the_same_value(name, peer):
    sr, hr = ((255 * images(seed)[0]).byte() for seed in (0, 1))
    metric = METRICS[name]
    weights = {metric.trunk.weights: Locator().load(metric.trunk.weights)}
    value = metric.score(Pair("noise", sr, hr, 4), Runtime(weights))
    assert loss_of(name)(sr[None] / 255, hr[None] / 255).item() == pytest.approx(value, rel=1e-5)


@pytest.mark.usefixtures("networks")
def test_where_no_feature_is_active_there_is_a_gradient_still(monkeypatch):
    """Where the published one's gradient is not a number."""
    load = Locator.load

    def inactive(self, name):
        weights = load(self, name)
        state = {key: -each.abs() if key.endswith("bias") else 0 * each for key, each in weights.state.items()}
        return dataclasses.replace(weights, sha256="inactive", state=state)

    monkeypatch.setattr(Locator, "load", inactive)
    value, gradient = value_and_gradient(loss_of("lpips_vgg"), images(0, 16), images(1, 16))
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize(("name", "network", "least"), [("lpips", "AlexNet", 31), ("lpips_vgg", "VGG-16", 16)])
@pytest.mark.usefixtures("networks")
def test_an_image_that_is_too_small_is_refused(name, network, least):
    loss_of(name)(images(0, least), images(1, least))
    with pytest.raises(InputError) as error:
        loss_of(name)(images(0, least - 1), images(1, least - 1))
    side = f"{least - 1}×{least - 1}"
    assert str(error.value) == f"an image of {side} pixels; {network} needs {least}×{least} or more"
