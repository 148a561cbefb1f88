"""Random training patches, the same for any number of workers and wherever a run is resumed.

The batch of a step is a pure function of the seed and the step. Its patches are drawn for all workers at once, which is
cheap, and each worker copies the pixels of its own slice.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sgbench.core.errors import InputError
from sgbench.core.seeding import derive
from sgbench.data.images import Pixels
from sgbench.data.prepare import CHANNELS, PackedImages
from sgbench.spec import Window

_TRANSFORMS = 8


class PatchSampler:
    """Draws aligned pairs of low- and high-resolution patches from prepared images.

    Every patch position of every window is equally likely, on the low-resolution grid; a position that lies in two
    windows counts twice, as it does if sub-images are cut into files. Each of the 8 rotations and reflections is then
    equally likely.

    Args:
        images: The prepared training images.
        patch: Side of a low-resolution patch, in pixels.
        batch: Patches per step, over all workers together.
        seed: Any integer; 0 is a seed like any other.
        augment: Whether to rotate and reflect.
        window: Sub-images that patches must lie in; None means whole images.

    Raises:
        InputError: If an image or the window is too small for a patch, or the window does not fit the scale.
    """

    def __init__(
        self, images: PackedImages, *, patch: int, batch: int, seed: int, augment: bool, window: Window | None
    ) -> None:
        self.images = images
        self.patch = patch
        self.batch_size = batch
        self.seed = seed
        self.augment = augment
        scale = images.scale
        needed = patch * scale
        if window is not None and (window.size % scale or window.step % scale or window.size < needed):
            raise InputError(
                f"a window of size {window.size} and step {window.step} does not fit scale {scale} and patches of "
                f"{patch}: both must be multiples of {scale}, and the size at least {needed}."
            )
        index: list[tuple[int, int, int, int, int]] = []
        for number, image in enumerate(images.images):
            if min(image.height, image.width) < needed:
                raise InputError(
                    f"the image '{image.name}' of {images.name} has {image.height}×{image.width} pixels; patches of "
                    f"{patch} at scale {scale} need {needed}×{needed}: use a smaller patch or leave the image out."
                )
            for top, left, height, width in windows(image.height, image.width, window):
                rows, columns = (height // scale - patch + 1, width // scale - patch + 1)
                index.append((number, top // scale, left // scale, rows, columns))
        self._index = np.array(index, dtype=np.int64)
        """For each window: image, top, left, rows and columns of patch positions, in LR pixels."""
        self._ends = np.cumsum(self._index[:, 3] * self._index[:, 4])
        """For each window: the number of patch positions in it and in all windows before it."""

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self._index)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> tuple[Pixels, Pixels]:
        """Return a worker's slice of the batch of a step.

        Args:
            step: The step, in any order.
            rank: The worker's number, from 0.
            world: The number of workers, at most the batch.

        Returns:
            The LR patches, uint8, b×3×p×p, and the HR patches, uint8, b×3×(p·scale)×(p·scale), both C-contiguous.

        Raises:
            InputError: If there are more workers than patches.
        """
        draws = self.share(step, rank, world)
        scale, side = self.images.scale, self.patch
        lr = np.empty((len(draws), CHANNELS, side, side), dtype=np.uint8)
        hr = np.empty((len(draws), CHANNELS, side * scale, side * scale), dtype=np.uint8)
        for i, (image, top, left, transform) in enumerate(draws.tolist()):
            lr[i] = _cut(self.images.lr(image), top, left, side, transform)
            hr[i] = _cut(self.images.hr(image), top * scale, left * scale, side * scale, transform)
        return lr, hr

    def share(self, step: int, rank: int = 0, world: int = 1) -> npt.NDArray[np.int64]:
        """Return where a worker's slice of the batch of a step lies.

        The slices of all ranks, one after the other, are the same batch for every ``world``. If the batch is no
        multiple of ``world``, the first ranks get one patch more.

        Args:
            step: The step, in any order.
            rank: The worker's number, from 0.
            world: The number of workers, at most the batch.

        Returns:
            For each patch its image, its top and left in LR pixels, and its transform: the sum of 1 if its rows are
            reversed, 2 if its columns are, and 4 if the two are then swapped; b×4.

        Raises:
            InputError: If there are more workers than patches.
        """
        if world > self.batch_size:
            raise InputError(f"a batch of {self.batch_size} cannot be shared by {world} workers; use fewer workers.")
        share, rest = divmod(self.batch_size, world)
        first = rank * share + min(rank, rest)
        return self._draw(step)[first : first + share + (rank < rest)]

    def _draw(self, step: int) -> npt.NDArray[np.int64]:
        """Return image, top, left (LR pixels) and transform of each patch of the whole batch."""
        random = np.random.Generator(np.random.Philox(key=derive(self.seed, "patches", step)))
        position = random.integers(self._ends[-1], size=self.batch_size)
        transform = random.integers(_TRANSFORMS if self.augment else 1, size=self.batch_size)
        number = np.searchsorted(self._ends, position, side="right")
        image, top, left, _, columns = self._index[number].T
        row, column = np.divmod(self._ends[number] - 1 - position, columns)
        return np.stack([image, top + row, left + column, transform], axis=1)


def windows(height: int, width: int, window: Window | None) -> list[tuple[int, int, int, int]]:
    """Return the sub-images of an image, by the rule that cuts DIV2K into 32,592.

    Windows start at 0, step, 2·step and so on as long as they fit; one more lies flush with the far border if any
    pixels are left over. A direction in which the image is no larger than the window has one window, the whole of it.

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        window: Size and step in the same pixels; none makes the whole image one window.

    Returns:
        Top, left, height and width of each, row by row.
    """
    if window is None:
        return [(0, 0, height, width)]
    return [
        (top, left, min(window.size, height), min(window.size, width))
        for top in _starts(height, window)
        for left in _starts(width, window)
    ]


def _starts(length: int, window: Window) -> Iterator[int]:
    last = max(length - window.size, 0)
    yield from range(0, last, window.step)
    yield last


def _cut(image: Pixels, top: int, left: int, side: int, transform: int) -> Pixels:
    """Return a square patch, 3×side×side, in one of its 8 orientations."""
    pixels = np.ascontiguousarray(image[top : top + side, left : left + side])  # copying whole rows halves the time
    patch = pixels.transpose(2, 0, 1)
    if transform & 1:
        patch = patch[:, ::-1]
    if transform & 2:
        patch = patch[:, :, ::-1]
    if transform & 4:
        patch = patch.swapaxes(1, 2)
    return patch
