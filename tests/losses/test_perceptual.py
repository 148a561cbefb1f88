import json

import pytest
import torch
from published_perceptual import FILE, maps
from references import difference, value_and_slopes
from torch.nn.functional import l1_loss
from torchvision.transforms.functional import normalize

from sgbench.assets.catalogue import NETWORKS
from sgbench.core.errors import InputError
from sgbench.losses import build_loss
from sgbench.perceptual import network
from sgbench.spec import check_loss

pytestmark = pytest.mark.usefixtures("networks")

LAYERS = {"vgg": ("vgg16", (2, 7, 14, 21, 28)), "vgg19": ("vgg19", (2, 7, 16, 25, 34))}
"""The numbers in torchvision of conv1_2, conv2_2, conv3_3 or conv3_4, and so on."""


PUBLISHED = json.loads(FILE.read_text(encoding="utf-8"))


def loss_of(text):
    return build_loss(check_loss(text)).losses[0]


@pytest.fixture
def pair():
    return torch.rand((2, 2, 3, 24, 17), generator=torch.Generator().manual_seed(0))


def by_torchvision(features, layer, pair):
    sr, hr = (features[: layer + 1](normalize(image, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))) for image in pair)
    return l1_loss(sr, hr)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("block", range(5))
@pytest.mark.parametrize("relu", [False, True])
def test_it_compares_what_torchvisions_network_computes(name, block, relu, pair, networks):
    weights, layers = LAYERS[name]
    expected = by_torchvision(networks[weights], layers[block] + relu, pair)
    other = "" if block == 4 else ", conv5=0"
    loss = loss_of(f"{name}(conv{block + 1}=1, relu={relu}{other})")
    torch.testing.assert_close(loss(*pair), expected)


def test_the_default_is_the_last_convolution_before_its_activation(pair, networks):
    torch.testing.assert_close(loss_of("vgg")(*pair), by_torchvision(networks["vgg16"], 28, pair))
    assert str(check_loss("vgg(conv5=1, relu=false)")) == "vgg"


def test_layers_are_weighted(pair, networks):
    """The weights of Real-ESRGAN."""
    loss = loss_of("vgg19(conv1=0.1, conv2=0.1, conv3=1, conv4=1)")
    weights = zip((0.1, 0.1, 1, 1, 1), LAYERS["vgg19"][1], strict=True)
    expected = sum(weight * by_torchvision(networks["vgg19"], layer, pair) for weight, layer in weights)
    torch.testing.assert_close(loss(*pair), expected)


def test_nothing_in_it_is_trained_saved_or_moved_with_it():
    loss = build_loss(check_loss("vgg + vgg19"))
    assert not list(loss.parameters())
    assert not loss.state_dict()


@pytest.mark.parametrize("text", PUBLISHED)
def test_maps_are_compared_as_by_the_published_code(text):
    loss = loss_of("vgg(content=0, style=1)" if text == "style" else text)
    given = maps()
    ours = value_and_slopes(lambda sr: loss._distance(sr, given.hr), given)
    assert difference(ours, PUBLISHED[text].values()) <= loss.difference


def test_style_is_added_to_content_and_both_are_weighted(pair):
    content, style, both = (
        loss_of(f"vgg(conv3=2, conv4=1, conv5=0, {text})")(*pair)
        for text in ("content=1", "content=0, style=1", "content=0.5, style=3")
    )
    torch.testing.assert_close(both, 0.5 * content + 3 * style)


def test_each_image_is_compared_with_its_own_mean_whatever_else_is_in_the_batch(pair):
    loss = loss_of("contextual")
    alone = [loss(*(image[i : i + 1] for image in pair)) for i in range(2)]
    torch.testing.assert_close(loss(*pair), torch.stack(alone).mean())


@pytest.mark.parametrize("name", ["vgg(conv1=1, conv5=0, ", "vgg19(conv1=1, conv5=0, ", "lpips(", "lpips_vgg("])
def test_the_network_may_compute_in_bfloat16_and_nothing_else_does(name, pair, monkeypatch):
    seen = []
    built = network._built
    monkeypatch.setattr(network, "_built", lambda *args: seen.append(args[-1]) or built(*args))
    large = tuple(image.repeat(1, 1, 2, 2) for image in pair)
    expected = loss_of(f"{name}bf16=false)")(*large)
    assert set(seen) == {torch.float32}
    seen.clear()
    found = loss_of(f"{name}bf16=true)")(*large)
    assert set(seen) == {torch.bfloat16}
    assert found.dtype == torch.float32
    assert found != expected
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0)
    with pytest.raises(InputError, match="bf16 is 2; true or false is needed"):
        loss_of(f"{name}bf16=2)")


def test_it_is_declared_which_network_it_needs():
    for name, (weights, _) in LAYERS.items():
        assert type(loss_of(name)).networks == (weights,)
        assert weights in NETWORKS.names()


def test_a_bandwidth_that_is_not_above_0_is_refused():
    with pytest.raises(InputError, match=r"h is 0\.0; a finite number above 0 is needed"):
        build_loss(check_loss("contextual(h=0)"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("conv3=-1", "conv3 is -1.0; a finite number from 0 is needed."),
        ("conv5=0", "conv1 to conv5 are all 0; one above 0 is needed."),
        ("style=-1", "style is -1.0; a finite number from 0 is needed."),
        ("content=0", "content and style are both 0; one above 0 is needed."),
        ("relu=2", "relu is 2; true or false is needed."),
        (
            "conv5_4=1",
            "did you mean 'conv5'? Valid: bf16, content, conv1, conv2, conv3, conv4, conv5, relu, style.",
        ),
    ],
)
def test_what_it_cannot_compare_is_refused(options, message):
    with pytest.raises(InputError) as error:
        build_loss(check_loss(f"vgg({options})"))
    assert str(error.value).endswith(message)
