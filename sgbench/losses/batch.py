"""What a loss may see of a training step."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """The images of a step, or of one worker's share of it, and how far training is.

    A loss gets ``sr`` and ``hr``, and asks for any other of these by a keyword-only parameter of that name.

    Attributes:
        lr: The LR patches, shape [N, 3, H, W], float32 with values in [0, 1].
        sr: What the network makes of them, shape [N, 3, H·scale, W·scale], not clamped.
        hr: The target, of the same shape as ``sr``, float32 with values in [0, 1].
        scale: The upscaling factor.
        step: Steps done before this one.
        steps: Steps of the whole run.
        average_sr: What the network with the averaged weights of ``recipe.ema``, in evaluation mode, makes of the LR
            patches, of the same shape as ``sr`` and without a gradient; None where no loss asks for it.
        features: What the network's layers that a loss names in its ``layers`` returned, by the name of the layer.
    """

    lr: Tensor
    sr: Tensor
    hr: Tensor
    scale: int
    step: int
    steps: int
    average_sr: Tensor | None = None
    features: Mapping[str, Tensor] = field(default_factory=dict)
