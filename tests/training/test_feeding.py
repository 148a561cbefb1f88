import numpy as np
import pytest
import torch

from sgbench.core.errors import InputError
from sgbench.data import PatchSampler, Source, list_images, prepare, write_png
from sgbench.spec import Degradation
from sgbench.training.feeding import PatchesOnDevice, nearest
from sgbench.training.loop import as_images

CPU = torch.device("cpu")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def sampler(tmp_path):
    """Of three images that differ in height and width, at a scale of three."""
    for number, (height, width) in enumerate([(36, 51), (48, 30), (24, 24)]):
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        write_png(tmp_path / "photos" / f"{number}.png", pixels)
    source = Source("photos", "train", tuple(list_images(tmp_path / "photos")))
    images = prepare(source, scale=3, degradation=Degradation(), cache=tmp_path / "cache")
    return PatchSampler(images, patch=5, batch=64, seed=3, augment=True, window=None)


@pytest.mark.parametrize("device", [CPU, pytest.param(torch.device("cuda"), marks=[pytest.mark.gpu, GPU])], ids=str)
def test_a_device_cuts_the_same_patches(sampler, device):
    there = PatchesOnDevice(sampler, device)
    seen = set()
    for step in range(5):
        seen |= {(image, transform) for image, _, _, transform in sampler.share(step).tolist()}
        for cut, expected in zip(there.batch(step), sampler.batch(step), strict=True):
            assert (cut.dtype, cut.device.type) == (torch.uint8, device.type)
            np.testing.assert_array_equal(cut.cpu().numpy(), expected)
    assert len(seen) == 3 * 8  # every image in every orientation


def test_workers_have_the_same_slices(sampler):
    there = PatchesOnDevice(sampler, CPU)
    for rank in range(3):
        for cut, expected in zip(there.batch(2, rank, 3), sampler.batch(2, rank, 3), strict=True):
            np.testing.assert_array_equal(cut.numpy(), expected)
    with pytest.raises(InputError, match="a batch of 64 cannot be shared by 65 workers"):
        there.batch(2, 0, 65)


@pytest.mark.parametrize("memory_format", ["channels_last", "contiguous"])
def test_a_network_sees_the_same_bits_in_the_same_layout(sampler, memory_format):
    for cut, expected in zip(PatchesOnDevice(sampler, CPU).batch(0), sampler.batch(0), strict=True):
        one, other = (as_images(patches, CPU, memory_format) for patches in (cut, expected))
        assert torch.equal(one, other)
        assert one.stride() == other.stride()


@pytest.mark.parametrize(("kind", "free", "there"), [("cpu", 4.0, False), ("cuda", 4.0, True), ("cuda", 3.9, False)])
def test_images_are_copied_only_to_a_gpu_with_room(sampler, monkeypatch, kind, free, there):
    room = int(free * sum(sampler.images.byte_counts()))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (room, 2 * room))
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *args, **options: self)
    assert isinstance(nearest(sampler, torch.device(kind)), PatchesOnDevice) == there
