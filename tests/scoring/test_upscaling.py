import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sgbench.backbones import build_backbone
from sgbench.core.errors import InputError
from sgbench.core.resize import upscale
from sgbench.data import write_png
from sgbench.scoring.upscaling import SUFFIXES, Inference, bicubic, from_folder, from_network
from sgbench.spec import Recipe

CPU = torch.device("cpu")


class Constant(nn.Module):
    """Gives every pixel the values of a small tile, whatever it is shown; keeps what it was called with."""

    def __init__(self, values, scale=4):
        super().__init__()
        self.tile, self.scale, self.seen = torch.tensor(values), scale, []
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, lr):
        self.seen.append((lr, self.training, torch.is_inference_mode_enabled()))
        height, width = (side * self.scale for side in lr.shape[-2:])
        return self.tile.repeat(3 * height * width)[: 3 * height * width].view(1, 3, height, width)


def test_the_output_is_clamped_and_rounded_to_the_nearest_of_256_values(test_images):
    values = [-1.0, -0.002, 0.0, 0.49 / 255, 0.51 / 255, 127.4 / 255, 127.6 / 255, 254.51 / 255, 1.0, 1.01, 7.0]
    pixels = from_network(Constant(values), Recipe(), CPU)(test_images, 0)
    assert pixels.dtype == np.uint8
    assert pixels.shape == test_images.hr(0).shape
    expected = [0, 0, 0, 0, 1, 127, 128, 255, 255, 255, 255]
    assert pixels.transpose(2, 0, 1).ravel()[: len(values)].tolist() == expected


def test_every_8_bit_value_survives(test_images):
    values = [value / 255 for value in range(256)]
    pixels = from_network(Constant(values), Recipe(), CPU)(test_images, 0)
    assert pixels.transpose(2, 0, 1).ravel()[:256].tolist() == list(range(256))


def test_the_network_sees_the_whole_low_resolution_image_in_float32(test_images):
    network = Constant([0.5])
    from_network(network, Recipe(precision="bf16"), CPU)(test_images, 1)
    ((lr, training, inference),) = network.seen
    assert (training, inference) == (False, True)
    assert lr.dtype == torch.float32
    assert lr.is_contiguous(memory_format=torch.channels_last)
    expected = torch.from_numpy(test_images.lr(1).copy()).permute(2, 0, 1)[None] / 255
    assert torch.equal(lr, expected)


@pytest.mark.parametrize("value", [float("inf"), -float("inf")])
def test_an_infinite_output_is_not_clamped_away(test_images, value):
    with pytest.raises(ArithmeticError, match="NaN or infinite"):
        from_network(Constant([0.5, value]), Recipe(), CPU)(test_images, 0)


# Networks applied otherwise


class Shift(nn.Module):
    """Nearest-neighbour upscaling of the pixel to the right, so that every orientation gives something else."""

    def __init__(self):
        super().__init__()
        self.sizes = Counter()

    def forward(self, lr):
        self.sizes[tuple(lr.shape[-2:])] += 1
        return lr.roll(-1, -1).repeat_interleave(4, -1).repeat_interleave(4, -2)


def test_a_self_ensemble_is_the_mean_over_the_eight_orientations(test_images):
    network = Shift()
    pixels = from_network(network, Recipe(), CPU, Inference(self_ensemble=True))(test_images, 0)
    lr = test_images.lr(0) / 255.0
    means = np.zeros(lr.shape)
    for mirrored in (False, True):
        for turns in range(4):
            turned = np.rot90(lr[:, ::-1] if mirrored else lr, turns)
            back = np.rot90(np.roll(turned, -1, 1), -turns)
            means += (back[:, ::-1] if mirrored else back) / 8
    expected = (means * 255).repeat(4, 0).repeat(4, 1)
    assert np.abs(pixels - expected).max() < 0.501  # halves are rounded either way
    assert sum(network.sizes.values()) == 8


@pytest.mark.parametrize("tile", [8, 16, 64])
def test_tiles_with_enough_around_them_join_without_a_seam(test_images, tile):
    torch.manual_seed(0)
    network = build_backbone("edsr-tiny", 4)  # reaches 13 LR pixels far
    whole = from_network(network, Recipe(), CPU)(test_images, 0).astype(int)
    tiled = from_network(network, Recipe(), CPU, Inference(tile=tile, overlap=16))(test_images, 0)
    assert np.abs(tiled - whole).max() <= 1  # sums of a convolution depend on the size of the image
    assert (tiled == whole).mean() > 0.999


def test_tiles_with_nothing_around_them_have_a_seam(test_images):
    torch.manual_seed(0)
    network = build_backbone("edsr-tiny", 4)
    whole = from_network(network, Recipe(), CPU)(test_images, 0).astype(int)
    tiled = from_network(network, Recipe(), CPU, Inference(tile=8, overlap=0))(test_images, 0)
    assert np.abs(tiled - whole).max() > 1


@pytest.mark.parametrize("family", ["rdn", "swinir"])
def test_other_networks_are_close_to_the_whole_when_tiled(test_images, family):
    torch.manual_seed(0)
    network = build_backbone(f"{family}-tiny", 4)
    whole = from_network(network, Recipe(), CPU)(test_images, 0).astype(int)
    tiled = from_network(network, Recipe(), CPU, Inference(tile=8, overlap=32))(test_images, 0)
    assert np.abs(tiled - whole).max() <= 1


def test_no_part_of_an_image_is_larger_than_a_tile_and_its_surroundings(test_images):
    network = Shift()
    from_network(network, Recipe(), CPU, Inference(tile=8, overlap=8))(test_images, 0)
    assert max(max(size) for size in network.sizes) <= 24


class WritesIntoItsInput(Shift):
    """Gives another image when it is shown what it has already been shown."""

    def forward(self, lr):
        return super().forward(lr.mul_(0.5))


@pytest.mark.parametrize("self_ensemble", [False, True])
def test_a_network_may_write_into_its_input(test_images, self_ensemble):
    whole, tiled = (
        from_network(WritesIntoItsInput(), Recipe(), CPU, Inference(self_ensemble, tile, overlap=8))(test_images, 0)
        for tile in (None, 8)
    )
    inside = np.s_[4:-4, 4:-4]  # at its edges the whole image has neighbours on the other side
    assert (tiled[inside] == whole[inside]).all()


class Halving(nn.Module):
    """Returns one LR pixel less for odd sides."""

    def forward(self, lr):
        return nn.functional.interpolate(nn.functional.max_pool2d(lr, 2), scale_factor=8)


@pytest.mark.parametrize(
    ("inference", "said"),
    [
        (Inference(), "for [1, 3, 11, 10] the network returns [1, 3, 40, 40]; [1, 3, 44, 40] is needed"),
        (
            Inference(self_ensemble=True),
            "for [1, 3, 11, 10] the network returns [1, 3, 40, 40]; [1, 3, 44, 40] is",
        ),
        (
            Inference(tile=8, overlap=0),
            "for [1, 3, 3, 8] the network returns [1, 3, 8, 32]; [1, 3, 12, 32] is needed",
        ),
    ],
)
def test_a_network_that_returns_another_size_is_told_what_is_needed(test_images, inference, said):
    with pytest.raises(InputError, match=re.escape(said)):
        from_network(Halving(), Recipe(), CPU, inference)(test_images, 0)


@pytest.mark.parametrize("error", [OSError("no route"), SystemExit("no route")])
def test_what_a_network_raises_is_a_fault_of_the_network(test_images, error):
    class Raising(Halving):
        def forward(self, x):
            raise error

    with pytest.raises(InputError, match=f"^the network: {type(error).__name__}: no route"):
        from_network(Raising(), Recipe(), CPU)(test_images, 0)


def test_a_self_ensemble_may_be_tiled(test_images):
    network = Shift()
    both = Inference(self_ensemble=True, tile=8, overlap=8)
    plain = from_network(network, Recipe(), CPU, Inference(self_ensemble=True))(test_images, 0)
    assert from_network(network, Recipe(), CPU, both)(test_images, 0).shape == plain.shape
    assert str(both) == "self-ensemble, tiles of 8 + 8"


@pytest.mark.parametrize(("field", "value"), [("tile", 0), ("tile", 12), ("overlap", -8), ("overlap", 4)])
def test_tiles_are_multiples_of_8(field, value):
    with pytest.raises(InputError, match=f"{field} is {value}; a multiple of 8"):
        Inference(**{field: value})


# Folders


@pytest.fixture
def results_folder(tmp_path, test_images):
    """Makes a folder of bicubic images with the given names; each has one pixel that says which name it has."""

    def make(*names):
        folder = tmp_path / "sr"
        for number, name in enumerate(names):
            image = bicubic(test_images, 1 if "photo1" in name else 0).copy()
            image[0, 0] = number
            write_png(folder / name, image)
        return folder

    return make


@pytest.mark.parametrize("suffix", [suffix.format(scale=4) for suffix in SUFFIXES])
def test_a_file_belongs_to_the_reference_whose_name_it_has(results_folder, test_images, suffix):
    folder = results_folder(f"photo1{suffix}.png", f"photo0{suffix}.png", "other.png", f"photo10{suffix}.png")
    upscaler = from_folder(folder, test_images)
    assert [upscaler(test_images, index)[0, 0, 0] for index in (0, 1)] == [1, 0]


def test_the_exact_name_goes_before_a_longer_one(results_folder, test_images):
    folder = results_folder("photo0_SR.png", "photo0.png", "photo0x4.png", "photo1.png")
    assert from_folder(folder, test_images)(test_images, 0)[0, 0, 0] == 1


def test_a_file_of_another_scale_is_passed_over(results_folder, test_images):
    folder = results_folder("photo0x2.png", "photo0x4.png", "photo1_x4.png", "photo1_x3.png")
    upscaler = from_folder(folder, test_images)
    assert [upscaler(test_images, index)[0, 0, 0] for index in (0, 1)] == [1, 2]


def test_a_file_with_another_ending_is_read_too(results_folder, test_images):
    folder = results_folder("photo1_SwinIR.png", "photo0_SwinIR.png", "photo10_SwinIR.png")
    upscaler = from_folder(folder, test_images)
    assert [upscaler(test_images, index)[0, 0, 0] for index in (0, 1)] == [1, 0]
    assert upscaler.pairing.by_stem == ("photo0", "photo1")


def test_what_is_missing_is_listed(results_folder, test_images):
    folder = results_folder("photo1.png", "photo0sharp.png")
    with pytest.raises(InputError) as error:
        from_folder(folder, test_images)
    said = (
        f"'{folder}' has no super-resolved image for photo0 of Photos at ×4, and no reference for photo0sharp.png; "
        "a file's name begins with its reference's"
    )
    assert str(error.value).startswith(said)


def test_a_long_list_of_files_without_a_reference_is_cut(results_folder, test_images, monkeypatch):
    folder = results_folder(*(f"other{number}.png" for number in range(5)))
    monkeypatch.chdir(folder.parent)  # so that a long path takes no room in the sentence
    with pytest.raises(
        InputError, match=r"no reference for other0\.png, other1\.png, other2\.png and 2 more; a file's"
    ):
        from_folder(Path(folder.name), test_images)


def test_a_folder_of_the_references_is_read_as_it_is(test_folder, test_images):
    pixels = from_folder(test_folder, test_images)(test_images, 1)
    assert np.array_equal(pixels, test_images.hr(1))


# Built-in methods


def test_bicubic_is_matlabs(test_images):
    assert np.array_equal(bicubic(test_images, 0), upscale(test_images.lr(0), 4))
