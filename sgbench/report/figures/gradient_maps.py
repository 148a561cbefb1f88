"""An image with its first- and second-order gradient maps, like Fig. 1 of the paper."""

import numpy as np
import torch
from matplotlib.figure import Figure

from sgbench.data import Pixels
from sgbench.losses.gradient import SecondOrderGradient
from sgbench.report.figures.style import TEXT, add_foot, in_style, new_figure

WHITE = 99.5
"""Percentile of a map that is drawn white, so that a few large values do not darken the rest."""


@in_style
def draw_gradient_maps(image: Pixels, name: str, *, operator: str = "central", columns: int | None = None) -> Figure:
    """Draw an image and the gradient maps that the SG loss computes.

    Each map is the mean over the three channels, from 0 (black) to its own `WHITE` percentile (white).

    Args:
        image: uint8, H×W×3, RGB.
        name: What the image is called.
        operator: As of the loss `sg`.
        columns: Of a paper, 1 or 2; by default 2.

    Raises:
        InputError: If the operator is unknown.
    """
    values = torch.from_numpy(image.transpose(2, 0, 1)[None] / np.float32(255))
    maps = {
        title: SecondOrderGradient(operator=operator, order=order).gradient_map(values)[0].mean(0).numpy()
        for order, title in ((1, "first order, M(I)"), (2, "second order, M(M(I))"))
    }
    figure, (first, *others) = new_figure(1 + len(maps), columns, image.shape[0] / image.shape[1], text=0.35)
    first.imshow(image)
    first.set_title(name)
    for axes, (title, pixels) in zip(others, maps.items(), strict=True):
        white = float(np.percentile(pixels, WHITE))
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=white)
        axes.set_title(title)
        axes.set_xlabel(f"white: {white:.3g}; largest: {pixels.max():.3g}", fontsize=TEXT)
    for axes in (first, *others):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    note = (
        f"Maps of the operator '{operator}' on values in [0, 1], mean of the three channels. Each has its own scale: "
        f"black is 0, and {WHITE:g}% of the pixels are no brighter than white."
    )
    add_foot(figure, [], [note])
    return figure
