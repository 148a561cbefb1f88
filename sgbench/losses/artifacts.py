"""The loss of locally discriminative learning (LDL), which corrects SR where it has artifacts rather than details.

Liang, Zeng, Zhang: "Details or Artifacts: A Locally Discriminative Learning Approach to Realistic Image
Super-Resolution", CVPR 2022, as in the authors' code, where the artifact map is no constant for the gradient.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from sgbench.core.errors import InputError

ROOT = 5
"""Of the variance of the errors of a whole image."""


class LocallyDiscriminative(nn.Module):
    """Absolute difference, weighted by an artifact map of SR, HR and the SR of an averaged network.

    ``forward(sr, hr, *, average_sr)`` takes three tensors of shape [N, C, H, W], H and W above half a window, values in
    [0, 1], and returns a scalar. The error of a pixel is its absolute difference, summed over channels. Its weight in
    the map is the variance of errors in the window around it, borders mirrored, times the fifth root of the variance
    of all errors of the image; where the averaged network has the larger error, it is 0. As artifacts are what
    adversarial training makes, the loss is meant for use beside ``gan``. It needs ``recipe.ema``.

    Args:
        window: Its side in pixels, an odd number from 3.

    Raises:
        InputError: For an option out of its range.
    """

    source: ClassVar[str] = "Liang, Zeng, Zhang (LDL), CVPR 2022"
    reference: ClassVar[str] = "basicsr 1.4.2"
    difference: ClassVar[float] = 1e-6

    def __init__(self, *, window: int = 7) -> None:
        super().__init__()
        if type(window) is not int or window < 3 or window % 2 == 0:
            raise InputError(f"window is {window}; an odd whole number from 3 is needed")
        self.window = window

    def forward(self, sr: Tensor, hr: Tensor, *, average_sr: Tensor) -> Tensor:
        """Return mean map · |sr − hr|.

        Raises:
            InputError: If the images are too small to be mirrored.
        """
        height, width = sr.shape[-2:]
        if min(height, width) <= (margin := self.window // 2):
            least = margin + 1
            raise InputError(
                f"an image of {width}×{height} pixels; ldl(window={self.window}) needs {least}×{least} or more"
            )
        error = (sr - hr).abs()
        return (self.artifact_map(error, (average_sr - hr).abs()) * error).mean()

    def artifact_map(self, error: Tensor, average_error: Tensor) -> Tensor:
        """Return the weight of each pixel: shape [N, 1, H, W].

        Args:
            error: Absolute differences of SR and HR, shape [N, C, H, W].
            average_error: Those of the averaged network's SR.
        """
        error, average_error = (each.sum(1, keepdim=True) for each in (error, average_error))
        whole = error.var((1, 2, 3), keepdim=True)
        # The slope of a root has no limit at 0, the value for equal images.
        root = whole.clamp_min(torch.finfo(whole.dtype).tiny) ** (1 / ROOT)
        return torch.where(error < average_error, 0, root * self._local_variance(error))

    def _local_variance(self, error: Tensor) -> Tensor:
        """Return the unbiased variance in the window around each pixel."""
        values = _mirrored(error.double(), self.window // 2)  # the difference of two moments cancels most digits
        mean, mean_square = (avg_pool2d(each, self.window, stride=1) for each in (values, values.square()))
        count = self.window**2
        return ((mean_square - mean.square()).clamp_min(0) * (count / (count - 1))).to(error.dtype)


def _mirrored(image: Tensor, margin: int) -> Tensor:
    """Return an image with a margin in which it is reflected; torch's own has no deterministic gradient on a GPU."""
    for dim in (-2, -1):
        before = image.narrow(dim, 1, margin).flip(dim)
        after = image.narrow(dim, image.shape[dim] - 1 - margin, margin).flip(dim)
        image = torch.cat([before, image, after], dim)
    return image
