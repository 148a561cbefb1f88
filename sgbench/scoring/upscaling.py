"""Upscalers, which turn the low-resolution images of a test set into super-resolved ones.

An `Upscaler` is a network, a built-in method, or existing image files. Its output is uint8, as in a PNG.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sgbench.core.errors import InputError
from sgbench.core.plugins import foreign
from sgbench.core.resize import SCALES, upscale
from sgbench.core.words import some
from sgbench.data import PackedImage, PackedImages, Pairing, image_size, pair_by_name, read_image
from sgbench.metrics import check_sizes
from sgbench.spec import Recipe
from sgbench.training.numerics import FORMATS

Pixels = NDArray[np.uint8]
Upscaler = Callable[[PackedImages, int], Pixels]
"""Returns the super-resolved image, uint8 H×W×3, of one image of a test set."""

_MARKS = ("_SR", "_sr", "SR", "_out")

SUFFIXES = (
    "",
    *(f"{factor}{mark}" for factor in ("x{scale}", "_x{scale}") for mark in ("", *_MARKS)),
    *_MARKS,
)
"""What may follow the reference's name in the name of a super-resolved file."""

TILE_STEP = 8
"""Tiles and overlaps are multiples of this, SwinIR's window size, so that its windows lie as in the whole image."""


def bicubic(images: PackedImages, index: int) -> Pixels:
    """Upscale with MATLAB's bicubic `imresize`, the baseline of every table."""
    return upscale(images.lr(index), images.scale)


BUILTINS: Mapping[str, Upscaler] = {"bicubic": bicubic}
"""Methods that need no training."""


@dataclass(frozen=True)
class Inference:
    """How a network is applied to an image; by default, to the whole image at once.

    Attributes:
        self_ensemble: Whether to average over the 8 rotations and reflections of the image (the «+» of Lim et al.,
            CVPR Workshops 2017): 8 times the work for a little more PSNR.
        tile: Side, in LR pixels, of the square tiles that save memory; None for the whole image.
        overlap: Margin around each tile, in LR pixels, which is computed and discarded. Tiles are seamless if it is at
            least the radius of the network's receptive field. A network that sees the whole image, such as RCAN with
            its attention, gives different values when tiled, however large the overlap.

    Raises:
        InputError: If the tile or the overlap is not a multiple of `TILE_STEP`.
    """

    self_ensemble: bool = False
    tile: int | None = None
    overlap: int = 32

    def __post_init__(self) -> None:
        if self.tile is not None and (self.tile < TILE_STEP or self.tile % TILE_STEP):
            raise InputError(f"tile is {self.tile}; a multiple of {TILE_STEP} is needed.")
        if self.overlap < 0 or self.overlap % TILE_STEP:
            raise InputError(f"overlap is {self.overlap}; a multiple of {TILE_STEP}, or 0, is needed.")

    def __str__(self) -> str:
        ensemble = ["self-ensemble"] if self.self_ensemble else []
        return ", ".join(ensemble + ([f"tiles of {self.tile} + {self.overlap}"] if self.tile else []))


WHOLE = Inference()
"""The whole image at once, as in published evaluations if memory allows."""


def from_network(network: nn.Module, recipe: Recipe, device: torch.device, inference: Inference = WHOLE) -> Upscaler:
    """Return a trained network as an upscaler: float32, clamped and rounded to uint8.

    Args:
        network: Maps [1, 3, H, W] in [0, 1] to [1, 3, scale·H, scale·W]; for another shape the upscaler raises an
            `InputError`, and for values that are not finite an `ArithmeticError`.
        recipe: The recipe of its training; its scale and memory format are used here too.
        device: Where to run it.
        inference: How to apply it.
    """
    memory_format = FORMATS[recipe.memory_format]
    network = network.to(device).to(memory_format=memory_format).eval()
    apply = _checked(network, recipe.scale)
    if inference.tile is not None:
        apply = _tiled(apply, recipe.scale, inference.tile, inference.overlap)
    if inference.self_ensemble:
        apply = _self_ensemble(apply)

    def upscaler(images: PackedImages, index: int) -> Pixels:
        lr = torch.from_numpy(images.lr(index).copy()).permute(2, 0, 1)[None].to(device)
        with torch.inference_mode():
            sr = apply(lr.to(torch.float32, memory_format=memory_format).div_(255.0))[0]
        if not torch.isfinite(sr).all():
            raise ArithmeticError("the network's output holds NaN or infinite values")
        pixels: Pixels = sr.clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        return pixels

    return upscaler


@dataclass(frozen=True)
class FromFolder:
    """An upscaler that reads existing files, those that a folder has for the images of a test set.

    Attributes:
        pairing: Which file belongs to which image.
    """

    pairing: Pairing

    def __call__(self, images: PackedImages, index: int) -> Pixels:
        """Read the file of an image."""
        return read_image(self.pairing.files[images.images[index].name])


def from_folder(folder: Path, test: PackedImages) -> FromFolder:
    """Return an upscaler that reads existing files.

    A file belongs to the reference of the same name, with or without one of `SUFFIXES`, or to the one with the longest
    common stem; see `sgbench.data.pair_by_name`.

    Args:
        folder: Holds a super-resolved image for every image of the test set.
        test: The test set.

    Raises:
        InputError: If an image has no file, naming the first such images and files without an image, if it is not clear
            which file belongs to which image, or if a file and its reference differ in size.
    """
    names = [image.name for image in test.images]
    pairing = pair_by_name(names, folder, SUFFIXES, test.scale)
    for image in test.images:
        if image.name in pairing.files:
            _check_file(pairing.files[image.name], image, test)
    if missing := [name for name in names if name not in pairing.files]:
        for scale in set(SCALES) - {test.scale}:
            if len(pair_by_name(names, folder, SUFFIXES, scale).files) == len(names):
                raise InputError(
                    f"'{folder}' has images of {test.name} at ×{scale}, by their names; give --scale {scale}."
                )
        unused = [path.name for path in pairing.unused]
        left = f", and no reference for {some(unused, 3)}" if unused else ""
        raise InputError(
            f"'{folder}' has no super-resolved image for {some(missing, 3)} of {test.name} at ×{test.scale}{left}; a "
            "file's name begins with its reference's, as in NAME.png, NAMEx4.png or NAME_SwinIR.png."
        )
    return FromFolder(pairing)


def check_size(image: PackedImage, size: tuple[int, int], images: PackedImages) -> None:
    """Refuse a super-resolved image, by its width and height, that does not fit an image of a test set.

    Raises:
        InputError: Stating both sizes.
    """
    reference = "HR" if images.has_hr else f"LR ×{images.scale}"
    check_sizes(image.name, size, (image.width, image.height), images.scale, reference=reference)


def _check_file(path: Path, image: PackedImage, images: PackedImages) -> None:
    """Refuse a super-resolved file of the wrong size; an unreadable one is left to become a failed score."""
    try:
        height, width = image_size(path)
    except InputError:
        return
    try:
        check_size(image, (width, height), images)
    except InputError as error:
        raise InputError(f"'{path}': {error}") from error


def _checked(network: nn.Module, scale: int) -> Callable[[Tensor], Tensor]:
    """Return a function that applies a network to a copy, as it may write into it, and checks the output's shape."""

    def applied(lr: Tensor) -> Tensor:
        with foreign("the network"):
            sr: Tensor = network(lr.clone())
        count, channels, height, width = lr.shape
        needed = [count, channels, height * scale, width * scale]
        if list(sr.shape) != needed:
            raise InputError(f"for {list(lr.shape)} the network returns {list(sr.shape)}; {needed} is needed.")
        return sr

    return applied


def _self_ensemble(apply: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a function that averages over the 8 rotations and reflections, each undone."""

    def applied(lr: Tensor) -> Tensor:
        total = torch.zeros(())
        for image, mirrored in ((lr, False), (lr.flip(-1), True)):
            for turns in range(4):
                sr = apply(image.rot90(turns, (-2, -1))).rot90(-turns, (-2, -1))
                total = total.to(sr.device) + (sr.flip(-1) if mirrored else sr)
        return total / 8

    return applied


def _tiled(apply: Callable[[Tensor], Tensor], scale: int, tile: int, overlap: int) -> Callable[[Tensor], Tensor]:
    """Return a function that applies a network to tiles with their margins and joins them."""

    def applied(lr: Tensor) -> Tensor:
        count, channels, height, width = lr.shape
        out = lr.new_empty((count, channels, height * scale, width * scale))
        for top, bottom in _spans(height, tile):
            for left, right in _spans(width, tile):
                above, before = max(top - overlap, 0), max(left - overlap, 0)
                sr = apply(lr[..., above : bottom + overlap, before : right + overlap])
                rows = slice((top - above) * scale, (bottom - above) * scale)
                columns = slice((left - before) * scale, (right - before) * scale)
                out[..., top * scale : bottom * scale, left * scale : right * scale] = sr[..., rows, columns]
        return out

    return applied


def _spans(length: int, tile: int) -> list[tuple[int, int]]:
    return [(start, min(start + tile, length)) for start in range(0, length, tile)]
