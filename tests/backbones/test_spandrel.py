"""Architectures of the library spandrel as backbones: which ones, that they upscale, and what is said of the others."""

import pickle
import sys

import pytest
import torch

from sgbench.backbones import build_backbone, count_parameters, load_weights
from sgbench.backbones.from_spandrel import REFUSED, usable
from sgbench.core.errors import InputError
from sgbench.core.registry import BACKBONES
from sgbench.spec import check_backbone, split_backbone

spandrel = pytest.importorskip("spandrel")

KNOWN = [
    "ATD", "CRAFT", "Compact", "DAT", "DCTLSA", "DITN", "DRCT", "ESRGAN", "FDAT", "GRL", "HAT", "MoESR", "MoSR",
    "OmniSR", "PLKSR", "RCAN", "RGT", "SAFMN", "SPAN", "SeemoRe", "Swin2SR", "SwinIR",
]  # fmt: skip
SMALL = ["Compact", "OmniSR", "SAFMN", "SPAN"]


def each(name: str, *more: object) -> object:
    return pytest.param(name, *more, marks=[] if name in SMALL else pytest.mark.slow)


@pytest.mark.parametrize(("name", "scale"), [each(name, scale) for name in KNOWN for scale in (2, 3, 4)])
def test_an_architecture_upscales_images_of_any_size(name: str, scale: int) -> None:
    network = build_backbone(f"spandrel:{name}", scale).eval()
    with torch.inference_mode():
        for height, width in [(17, 5), (1, 1)] if name in SMALL else [(17, 5)]:
            out = network(torch.rand(1, 3, height, width))
            assert out.shape == (1, 3, scale * height, scale * width)
            assert out.isfinite().all()


@pytest.mark.parametrize("name", [each(name) for name in KNOWN])
def test_an_architecture_begins_as_the_seed_says_learns_and_leaves_its_input_alone(name: str) -> None:
    networks = []
    for _ in range(2):
        torch.manual_seed(0)
        networks.append(build_backbone(f"spandrel:{name}", 4))
    network, same = networks
    theirs = same.state_dict()  # once, as it takes long where there are many layers
    assert all(torch.equal(value, theirs[key]) for key, value in network.state_dict().items())

    lr = torch.rand(2, 3, 16, 16).to(memory_format=torch.channels_last)
    before = lr.clone()
    sr = network.to(memory_format=torch.channels_last)(lr)
    assert sr.shape == (2, 3, 64, 64)
    assert torch.equal(lr, before)  # the network that spandrel has for RCAN writes into it
    sr.abs().mean().backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_network_can_be_pickled() -> None:
    network = build_backbone("spandrel:Compact", 2)
    copied = pickle.loads(pickle.dumps(network))
    assert type(copied) is type(network)
    assert all(map(torch.equal, copied.state_dict().values(), network.state_dict().values()))


def test_every_architecture_that_spandrel_knows_is_a_backbone_or_refused_with_the_reason() -> None:
    assert usable() == sorted(KNOWN)
    for support in spandrel.MAIN_REGISTRY:
        name = str(support.architecture.id)
        if name in KNOWN:
            continue
        why = REFUSED.get(name, "has no argument for the scale")
        with pytest.raises(InputError) as refusal:
            check_backbone(f"spandrel:{name}")
        expected = f"backbone 'spandrel:{name}': this architecture {why}; valid: {', '.join(usable())}."
        assert str(refusal.value) == expected
    assert set(REFUSED) <= {support.architecture.id for support in spandrel.MAIN_REGISTRY}


def test_the_name_is_the_exact_id_and_has_no_size() -> None:
    assert check_backbone("spandrel:SPAN") == "spandrel:SPAN"
    assert split_backbone("spandrel:An-Id-with-Hyphens") == ("spandrel:An-Id-with-Hyphens", None)
    assert "spandrel:SPAN" not in BACKBONES.names()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("swinir", r"unknown architecture of spandrel 'swinir': did you mean 'SwinIR'\? Valid: ATD, CRAFT, .*SwinIR\."),
        ("SwinIR-light", "unknown architecture of spandrel 'SwinIR-light': did you mean 'SwinIR'"),
        ("", "unknown architecture of spandrel ''; valid: ATD"),
        ("MAIN_REGISTRY", "unknown architecture of spandrel 'MAIN_REGISTRY'; valid: ATD"),
    ],
)
def test_an_unknown_architecture_is_bad_input(name: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        check_backbone(f"spandrel:{name}")


def test_without_spandrel_one_sentence_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    monkeypatch.setattr(BACKBONES, "_loaded", {})
    with pytest.raises(
        InputError, match=r"^backbone 'spandrel:SPAN': spandrel is not installed \(.*\); pip install 'sgbench\[span"
    ):
        check_backbone("spandrel:SPAN")


def test_the_network_is_spandrels_own_and_takes_its_weights() -> None:
    """spandrel itself reads the weights, and upscales as we do."""
    network = build_backbone("spandrel:Compact", 4).eval()
    descriptor = spandrel.ModelLoader().load_from_state_dict({k: v.clone() for k, v in network.state_dict().items()})
    assert (str(descriptor.architecture.id), descriptor.scale) == ("Compact", 4)
    assert isinstance(network, type(descriptor.model))
    image = torch.rand(1, 3, 20, 17)
    with torch.no_grad():
        torch.testing.assert_close(network(image).clamp(0, 1), descriptor(image))

    other = build_backbone("spandrel:Compact", 4).eval()
    load_weights(other, descriptor.model.state_dict(), source="theirs.pth", name="spandrel:Compact")
    with torch.no_grad():
        assert torch.equal(other(image), network(image))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("ESRGAN", 16_697_987),  # of RRDBNet ×4 with 23 blocks, of its authors' file
        ("SAFMN", 239_520),  # 240 thousand in Sun et al., ICCV 2023, for ×4
    ],
)
def test_number_of_parameters(name: str, parameters: int) -> None:
    assert count_parameters(build_backbone(f"spandrel:{name}", 4)) == parameters
