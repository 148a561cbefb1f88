import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published import FEATURES, FILE, SIDES, filled, images, outputs
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from sgbench.core.errors import InputError
from sgbench.core.registry import DISCRIMINATORS
from sgbench.losses.discriminators import BatchNorm2d, area_means, build_discriminator, register_discriminator

PUBLISHED = json.loads(FILE.read_text(encoding="utf-8"))["discriminators"]
every_discriminator = pytest.mark.parametrize("name", SIDES)


class Mean(nn.Module):
    def __init__(self, *, features):
        super().__init__()
        if features > 9:
            raise ValueError("nine features are enough")
        self.features = features

    def forward(self, images):
        return images.mean((1, 2, 3))


def test_every_discriminator_is_tested_here():
    assert set(DISCRIMINATORS.names()) == set(SIDES) == set(PUBLISHED)


@every_discriminator
def test_it_has_the_tensors_of_the_published_one_and_computes_what_that_computes(name):
    ours = build_discriminator(name, FEATURES)
    tensors = {key: list(tensor.shape) for key, tensor in ours.state_dict().items()}
    assert list(tensors.items()) == list(PUBLISHED[name]["tensors"].items())
    torch.testing.assert_close(
        torch.tensor(outputs(ours, name)), torch.tensor(PUBLISHED[name]["outputs"]), rtol=1e-4, atol=1e-5
    )


@every_discriminator
def test_it_takes_images_of_any_size_from_its_least_on(name):
    discriminator = filled(build_discriminator(name, 1))
    least = discriminator.smallest
    for more in range(9):
        logits = discriminator(torch.rand(2, 3, least + more, least + 2 * more))
        assert len(logits) == 2
        assert logits.isfinite().all()
    with pytest.raises(
        InputError, match=f"patches are {least}×{least - 1} HR pixels; {least}×{least} or more are needed"
    ):
        discriminator(torch.rand(2, 3, least - 1, least))


@every_discriminator
def test_its_weights_are_drawn_from_the_seed(name):
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        states.append(build_discriminator(name, 2).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@every_discriminator
def test_the_images_are_left_as_they_are(name):
    given = images(name)
    build_discriminator(name, 1)(given).sum()
    assert torch.equal(given, images(name))


@settings(max_examples=25)
@given(height=st.integers(1, 9), width=st.integers(1, 9), side=st.integers(1, 5))
def test_area_means_are_those_of_torch(height, width, side):
    maps = torch.rand(2, 3, height, width, dtype=torch.float64)
    torch.testing.assert_close(area_means(maps, side), adaptive_avg_pool2d(maps, side))


def test_without_a_group_batch_normalisation_is_torchs():
    ours, theirs = BatchNorm2d(3), nn.BatchNorm2d(3)
    given = torch.rand(4, 3, 5, 5)
    assert torch.equal(ours(given), theirs(given))
    assert all(torch.equal(one, other) for one, other in zip(ours.buffers(), theirs.buffers(), strict=True))


def test_ones_own_is_called_by_its_module_or_by_the_name_under_which_it_is_registered(monkeypatch):
    monkeypatch.setattr(DISCRIMINATORS, "_loaded", {})
    register_discriminator("mean")(Mean)
    assert build_discriminator("mean", 3).features == build_discriminator(f"{__name__}:Mean", 3).features == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unett", "unknown discriminator 'unett': did you mean 'unet'? Valid: patch, unet, vgg."),
        (f"{__name__}:FILE", f"discriminator '{__name__}:FILE' is a PosixPath; a class of torch.nn.Module is needed."),
        (f"{__name__}:Mean", f"discriminator '{__name__}:Mean': ValueError: nine features are enough."),
    ],
)
def test_what_is_no_discriminator_is_refused(name, message):
    with pytest.raises(InputError) as error:
        build_discriminator(name, 64)
    assert str(error.value) == message
