"""An exponential moving average of a network's weights while it trains."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Average:
    """The exponential moving average (EMA) of a network's parameters after each step, in their own precision, float32.

    After the first step it is the parameters themselves, and then decay·average + (1 − decay)·parameters, as
    `torch.optim.swa_utils.get_ema_multi_avg_fn` computes it. Buffers, such as running means, are those of the network.
    In a process group every process has the same parameters after a step, and so the same average.

    Args:
        network: The network, on its device.
        decay: Between 0 and 1, such as 0.999.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network = network
        self._decay = decay
        own = network.state_dict(keep_vars=True).items()
        self._current = {
            name: value.detach() for name, value in own if isinstance(value, nn.Parameter) and value.is_floating_point()
        }
        self._mean: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters after a step."""
        if self._mean:
            torch._foreach_lerp_(list(self._mean.values()), list(self._current.values()), 1 - self._decay)
        else:
            self._mean = {name: value.clone() for name, value in self._current.items()}

    def weights(self) -> dict[str, Tensor]:
        """Return the network's state with the average in place of its parameters; some step has been taken in."""
        return self._network.state_dict() | self._mean

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Continue from what `weights` returned, on any device."""
        self._mean = {name: weights[name].to(value.device) for name, value in self._current.items()}
