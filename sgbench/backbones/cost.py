"""What a backbone costs: its parameters, and the MACs for one patch."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sgbench.backbones import build_backbone, count_parameters
from sgbench.backbones.layers import MeanShift
from sgbench.core.errors import InputError


@dataclass(frozen=True)
class Cost:
    """The size of a network; a mean shift adds nothing to it."""

    parameters: int
    """Trainable values."""
    macs: int
    """Multiply-accumulate operations of convolutions, matrix products and attention; nothing else is counted."""
    mean_shift: bool
    """Whether it subtracts the mean colour of DIV2K from its input and adds it to its output."""


def measure(name: str, scale: int, side: int) -> Cost:
    """Measure a backbone; only shapes are computed, no values.

    Args:
        name: As `build_backbone` takes it.
        scale: 2, 3 or 4.
        side: Height and width of the one image that it upscales, in LR pixels.

    Raises:
        InputError: If there is no such backbone.
    """
    network = without_values(name, scale).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, side, side, device="meta"))
    shifts = any(isinstance(module, MeanShift) for module in network.modules())
    return Cost(count_parameters(network), counter.get_total_flops() // 2, shifts)


def without_values(name: str, scale: int) -> nn.Module:
    """Build a network whose tensors have shapes only.

    Raises:
        InputError: If there is no such backbone, or it cannot be constructed.
    """
    try:
        with torch.device("meta"):
            return build_backbone(name, scale)
    except InputError:  # its constructor may read values, as those of many transformers do for their drop rates
        return build_backbone(name, scale).to("meta")
