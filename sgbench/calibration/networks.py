"""The weights that a metric and its reference share."""

import functools
from collections.abc import Mapping
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from sgbench.assets.base import LoadedWeights, MissingWeights
from sgbench.assets.locator import Locator
from sgbench.assets.tensors import fingerprint

ARCHITECTURES: Mapping[str, str] = {
    "alexnet": "alexnet",
    "inception": "inception_v3",
    "squeezenet": "squeezenet1_1",
    "vgg16": "vgg16",
}
"""From a network of the catalogue to torchvision's function."""


class SharedNetworks(Locator):
    """Finds weights as usual, and makes random ones for a network of torchvision that is not available locally.

    Two implementations can be compared with any weights, as long as both have the same.

    Args:
        random: Whether all networks of torchvision have random weights.
        download: Whether downloads are allowed.
    """

    def __init__(self, *, random: bool = False, download: bool = True) -> None:
        super().__init__(download=download)
        self.random = random
        self.made: set[str] = set()
        """The networks that have random weights."""

    def load(self, name: str) -> LoadedWeights:
        """Return the tensors of a network, its own or random ones.

        Raises:
            MissingWeights: If it is not available locally, and no network of torchvision.
        """
        if not (self.random and name in ARCHITECTURES):
            try:
                return super().load(name)
            except MissingWeights:
                if name not in ARCHITECTURES:
                    raise
        self.made.add(name)
        return _random_weights(name)


@functools.cache
def _random_weights(name: str) -> LoadedWeights:
    """Return random tensors, the same ones each time, of a size that keeps the values of a network's layers alike."""
    generator = torch.Generator().manual_seed(0)
    state = {
        key: _random(key, tensor.shape, generator)
        for key, tensor in empty(name).state_dict().items()
        if not key.startswith("classifier.") and tensor.is_floating_point()
    }
    return LoadedWeights(fingerprint(state), Path("random"), state)


def _random(key: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    if key.endswith("running_var"):
        return 0.5 + 1.25 * torch.rand(shape, generator=generator)  # the mean of the reciprocals is 1
    if key.endswith("bn.weight"):
        return torch.ones(shape)
    scale = (2 / shape[1:].numel()) ** 0.5 if len(shape) > 1 else 0.1
    return torch.randn(shape, generator=generator) * scale


def empty(name: str) -> nn.Module:
    """Return torchvision's network of a name in the catalogue, without weights."""
    options = {"num_classes": 1008, "aux_logits": False, "init_weights": False} if name == "inception" else {}
    with torch.device("meta"):
        network: nn.Module = getattr(torchvision.models, ARCHITECTURES[name])(**options)
    return network


def with_weights(name: str, weights: LoadedWeights) -> nn.Module:
    """Return torchvision's network with weights, those of its classifier excepted."""
    network = empty(name)
    network.load_state_dict(weights.state, strict=False, assign=True)
    return network
