"""Where one loss restores an image better than another, and where worse."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgbench.data import Pixels

WINDOW = 48
"""Side of an automatically chosen region, in HR pixels."""

STRIDE = 4
"""Distance between the windows considered, in HR pixels."""

SEEN = 2.0
"""Mean |SR − HR|, from 0 to 255, from which an error is visible; on flat ground LPIPS is high for less."""


@dataclass(frozen=True)
class Box:
    """A part of an image, in HR pixels."""

    left: int
    top: int
    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.left},{self.top},{self.width},{self.height}"

    def of(self, image: Pixels) -> Pixels:
        """Return this part of an image."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True)
class Region:
    """A part of an image of a set.

    Attributes:
        index: Of the image.
        box: The part.
        label: Why it is shown; empty where a person chose it.
    """

    index: int
    box: Box
    label: str = ""


Map = NDArray[np.float64]
"""A number for each pixel of an image, [H, W]."""

Found = tuple[float, int, Box]
"""The mean of a window, the index of its image, and where it is."""


def extreme_regions(maps: Iterable[tuple[int, Map, Map]], count: int, border: int) -> list[Region]:
    """Return the windows of some images with the largest gains, and as many with the largest losses.

    No two of an image overlap.

    Args:
        maps: The index of an image, and at each of its pixels [H, W] what is negative where there is a gain, and the
            error, 0 to 255; windows in which the mean of this is below `SEEN` are left out.
        count: Of either; fewer where there is no room for more.
        border: Pixels that are left out on each side.
    """
    gains: list[Found] = []
    losses: list[Found] = []
    for index, difference, error in maps:
        height, width = difference.shape
        inside = slice(border, height - border), slice(border, width - border)
        means = _window_means(difference[inside])
        means[_window_means(error[inside]) < SEEN] = np.nan
        for _ in range(count):
            for found, sign in ((gains, 1), (losses, -1)):
                if np.isfinite(means).any():
                    row, column = np.unravel_index(np.nanargmin(sign * means), means.shape)
                    box = Box(border + int(column) * STRIDE, border + int(row) * STRIDE, WINDOW, WINDOW)
                    found.append((float(means[row, column]), index, box))
                    _cover(means, int(row), int(column))
    pairs = min(count, len(losses))  # where the last gain took the last room, there is no loss to show beside it
    return [
        *(_told(each, "largest gain", "smallest loss") for each in sorted(gains, key=_mean)[:pairs]),
        *(_told(each, "largest loss", "smallest gain") for each in sorted(losses, key=_mean, reverse=True)[:pairs]),
    ]


def _mean(found: Found) -> float:
    return found[0]


def _told(found: Found, *labels: str) -> Region:
    """Return a region with its label: the first or, if all regions have the other sign, the second."""
    mean, index, box = found
    as_expected = (mean <= 0) == (labels[0] == "largest gain")
    amount, where = f"{mean:+.4f}".replace("-", "−"), "in the box".replace(" ", "\N{NO-BREAK SPACE}")
    return Region(index, box, f"{labels[not as_expected]}: {amount} {where}")


def _window_means(values: Map) -> Map:
    """Return the mean of each window, one every `STRIDE` pixels; none for an image that is smaller."""
    if min(values.shape) < WINDOW:
        return np.empty((0, 0))
    sums = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    windows = sums[WINDOW:, WINDOW:] - sums[:-WINDOW, WINDOW:] - sums[WINDOW:, :-WINDOW] + sums[:-WINDOW, :-WINDOW]
    means: Map = windows[::STRIDE, ::STRIDE] / WINDOW**2
    return means


def _cover(means: Map, row: int, column: int) -> None:
    """Exclude the windows that overlap one."""
    reach = -(-WINDOW // STRIDE) - 1
    means[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1] = np.nan
