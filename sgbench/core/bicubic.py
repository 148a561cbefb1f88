"""The weights of MATLAB's bicubic ``imresize`` by an integer factor: Keys' kernel with a = −0.5."""

import math
from typing import Literal

Edges = Literal["clamp", "mirror"]
"""Indices outside the image: clamped (older MATLAB, the published files) or mirrored (newer MATLAB)."""

Rounding = Literal["per-pass", "once"]
"""Round to uint8 after each of the two passes, as MATLAB does, or once at the end."""

Taps = list[tuple[int, float]]
"""The input pixels under a kernel, each with its weight."""


def shrinking(scale: int) -> Taps:
    """Return the taps of output pixel 0, as offsets from input pixel 0; those of pixel i are ``scale · i`` further."""
    return _taps((scale - 1) / 2, scale)


def enlarging(scale: int) -> list[Taps]:
    """Return the taps of output pixels 0 to ``scale − 1``; those of pixel ``scale · i + phase`` are i further."""
    return [_taps((phase + 0.5) / scale - 0.5, 1) for phase in range(scale)]


def _taps(centre: float, stretch: int) -> Taps:
    """Return the input offsets under the kernel of the given centre, each with its weight."""
    first = math.floor(centre - 2 * stretch) + 1
    return [(i, _cubic(abs(i - centre) / stretch) / stretch) for i in range(first, first + 4 * stretch)]


def _cubic(x: float) -> float:
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0
