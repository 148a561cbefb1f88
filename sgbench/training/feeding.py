"""Patches cut by the device that trains on them, if it has room for all the images."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sgbench.data import PatchSampler

ROOM = 4
"""The images are copied to a GPU if they take at most one part in this many of its free memory."""


class PatchesOnDevice:
    """Cuts a sampler's patches out of a copy of its images in a device's memory.

    A step sends only a few numbers per patch to the device. All pixels form one long row; a patch is a grid in it: its
    first pixel, and the strides to the pixel below and to the next one, both of which can be negative.

    Args:
        sampler: Says where the patches lie.
        device: Where the images are copied to, uint8.
    """

    def __init__(self, sampler: PatchSampler, device: torch.device) -> None:
        self.sampler = sampler
        self.device = device
        images = sampler.images
        self._hr, self._lr = (
            torch.from_file(str(images.path / file), size=size, dtype=torch.uint8).to(device).view(-1, 3)
            for file, size in zip(("hr.bin", "lr.bin"), images.byte_counts(), strict=True)
        )
        self._starts = np.array([image.hr_offset // 3 for image in images.images])
        """For each image: its first HR pixel."""
        self._widths = np.array([image.width for image in images.images])

    def batch(self, step: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor]:
        """Return a worker's slice of the batch of a step, the same pixels as `PatchSampler.batch` in channels_last.

        Args:
            step: The step, in any order.
            rank: The worker's number, from 0.
            world: The number of workers, at most the batch.

        Returns:
            The LR patches, uint8, b×3×p×p, and the HR patches, uint8, b×3×(p·scale)×(p·scale), on the device.

        Raises:
            InputError: If there are more workers than patches.
        """
        image, top, left, transform = self.sampler.share(step, rank, world).T
        scale, side = self.sampler.images.scale, self.sampler.patch
        starts, widths = self._starts[image], self._widths[image]
        lr = _grids(starts // scale**2, widths // scale, top, left, side, transform)
        hr = _grids(starts, widths, top * scale, left * scale, side * scale, transform)
        return self._cut(self._lr, lr, side), self._cut(self._hr, hr, side * scale)

    def _cut(self, pixels: Tensor, grids: npt.NDArray[np.int64], side: int) -> Tensor:
        """Return patches, b×3×side×side."""
        first, down, across = torch.from_numpy(grids).to(self.device, non_blocking=True)[..., None, None]
        steps = torch.arange(side, device=self.device)
        return pixels[first + down * steps[:, None] + across * steps].permute(0, 3, 1, 2)


def nearest(sampler: PatchSampler, device: torch.device) -> PatchSampler | PatchesOnDevice:
    """Return what cuts a sampler's patches: the device, if it is a GPU that has room for all images, or the sampler."""
    if device.type == "cuda" and ROOM * sum(sampler.images.byte_counts()) <= torch.cuda.mem_get_info(device)[0]:
        return PatchesOnDevice(sampler, device)
    return sampler


def _grids(
    starts: npt.NDArray[np.int64],
    widths: npt.NDArray[np.int64],
    tops: npt.NDArray[np.int64],
    lefts: npt.NDArray[np.int64],
    side: int,
    transforms: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Return the first pixel of each patch, and the strides to the one below and to the one across, 3×b."""
    upside_down, mirrored, swapped = ((transforms & bit).astype(bool) for bit in (1, 2, 4))
    first = starts + (tops + upside_down * (side - 1)) * widths + lefts + mirrored * (side - 1)
    down, across = np.where(upside_down, -widths, widths), np.where(mirrored, -1, 1)
    return np.stack([first, np.where(swapped, across, down), np.where(swapped, down, across)])
