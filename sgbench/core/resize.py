"""MATLAB's bicubic ``imresize`` by an integer factor, to the bit.

Bicubic means Keys' kernel with a = −0.5; when shrinking it is stretched by the factor, which is MATLAB's antialiasing.
The vertical direction is resized first, then the horizontal one.

MATLAB computes weights for every output pixel and divides them by their sum. For an integer factor they are the same
for every output pixel (shrinking) or for every phase (enlarging), and sum to 1. They are multiples of a power of two
for the factors 2 and 4, so that float64 sums of pixels are exact in any order, and of 1/81 or 1/27 for the factor 3, so
that no sum of integers lies halfway between two integers. Rounding after each pass therefore gives the same bits
whatever the order of the additions.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from sgbench.core.bicubic import Edges, Rounding, enlarging, shrinking
from sgbench.core.errors import InputError

Pixels = npt.NDArray[np.uint8]
_Real = npt.NDArray[np.uint8 | np.float64]

SCALES = (2, 3, 4)
"""Supported factors."""

_CHUNK_ROWS = 16
"""Rows resized at once: few enough for the sums to stay in the processor's cache."""

_PAD_MODE: dict[Edges, Literal["edge", "symmetric"]] = {"clamp": "edge", "mirror": "symmetric"}


def downscale(image: Pixels, scale: int, *, edges: Edges = "clamp", rounding: Rounding = "per-pass") -> Pixels:
    """Shrink an image as MATLAB's ``imresize(image, 1/scale)`` does.

    With the defaults this reproduces the published low-resolution files of the usual benchmarks bit for bit.

    Args:
        image: uint8, H×W×C, values 0 to 255.
        scale: 2, 3 or 4; both H and W must be multiples of it.
        edges: What is taken for pixels outside the image.
        rounding: When to round.

    Returns:
        uint8, H/scale × W/scale × C.

    Raises:
        InputError: If the scale is not supported, the image is not uint8 H×W×C, or a side is no multiple of the scale.
    """
    _check(image, scale)
    height, width = image.shape[:2]
    if height % scale or width % scale:
        raise InputError(
            f"an image of {height}×{width} pixels cannot be shrunk by {scale}: "
            f"crop it to a multiple, {height // scale * scale}×{width // scale * scale}."
        )
    return _both_passes(image, scale, True, edges, rounding)


def shrunk(values: npt.NDArray[np.float64], scale: int) -> npt.NDArray[np.float64]:
    """Shrink values as MATLAB's ``imresize(values, 1/scale)`` does those of type double: edges mirrored, not rounded.

    Args:
        values: H×W, of any range; both H and W must be multiples of the scale.
        scale: 2, 3 or 4.

    Returns:
        H/scale × W/scale.
    """
    rows = _resize_rows(values[..., None], scale, True, "mirror", False)
    columns = _resize_rows(rows.swapaxes(0, 1), scale, True, "mirror", False)
    return np.ascontiguousarray(columns[..., 0].T, dtype=np.float64)


def upscale(image: Pixels, scale: int, *, edges: Edges = "clamp", rounding: Rounding = "per-pass") -> Pixels:
    """Enlarge an image as MATLAB's ``imresize(image, scale)`` does.

    Args:
        image: uint8, H×W×C, values 0 to 255.
        scale: 2, 3 or 4.
        edges: What is taken for pixels outside the image.
        rounding: When to round.

    Returns:
        uint8, H·scale × W·scale × C.

    Raises:
        InputError: If the scale is not supported or the image is not uint8 H×W×C.
    """
    _check(image, scale)
    return _both_passes(image, scale, False, edges, rounding)


def _check(image: Pixels, scale: int) -> None:
    if scale not in SCALES:
        raise InputError(f"scale {scale} is not supported; valid: {', '.join(map(str, SCALES))}.")
    if image.dtype != np.uint8 or image.ndim != 3 or 0 in image.shape:
        raise InputError(f"an image must be uint8 H×W×C, not {image.dtype} of shape {image.shape}.")


def _both_passes(image: Pixels, scale: int, shrink: bool, edges: Edges, rounding: Rounding) -> Pixels:
    rows = _resize_rows(image, scale, shrink, edges, rounding == "per-pass")
    columns = _resize_rows(rows.swapaxes(0, 1), scale, shrink, edges, True)
    return np.ascontiguousarray(columns.swapaxes(0, 1), dtype=np.uint8)


def _resize_rows(image: _Real, scale: int, shrink: bool, edges: Edges, rounded: bool) -> _Real:
    """Resize along the first axis; each tap is a strided slice."""
    length, *rest = image.shape
    padded = np.pad(image, ((2 * scale, 2 * scale), (0, 0), (0, 0)), mode=_PAD_MODE[edges])
    stride, count = (scale, length // scale) if shrink else (1, length)
    kernels = [shrinking(scale)] if shrink else enlarging(scale)
    resized = np.empty((count, len(kernels), *rest), dtype=np.uint8 if rounded else np.float64)
    for top in range(0, count, _CHUNK_ROWS):
        rows = min(_CHUNK_ROWS, count - top)
        total, term = np.empty((2, rows, *rest))
        for phase, taps in enumerate(kernels):
            total.fill(0)
            for offset, weight in taps:
                start = 2 * scale + offset + stride * top
                np.multiply(padded[start : start + stride * rows : stride], weight, out=term)
                total += term
            resized[top : top + rows, phase] = _half_up(total) if rounded else total
    return resized.reshape(-1, *rest)


def _half_up(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Round half up and saturate at 0 and 255, in place."""
    values += 0.5
    np.floor(values, out=values)
    return np.clip(values, 0, 255, out=values)
