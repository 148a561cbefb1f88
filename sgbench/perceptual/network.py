"""A pretrained network built around its weights, once for a process and device, and the maps that its layers return."""

import functools
import threading
from collections.abc import Callable, Collection, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from sgbench.assets.base import LoadedWeights
from sgbench.perceptual.trunks import Trunk

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the RGB values, in [0, 1], of the images that torchvision's networks were trained on."""

_building = threading.Lock()


class Network(nn.Module):
    """The layers of a network of torchvision's ``features``, by their numbers there, with constant parameters.

    Args:
        trunk: Which network.
        state: The weights and biases of its convolutions, by their names in torchvision, without those of a classifier.
    """

    def __init__(self, trunk: Trunk, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        for layer in sorted({int(name.split(".")[1]) for name in state}):
            prefix = f"features.{layer}."
            if layer > len(self.layers):  # what torchvision has no weights for and follows no convolution
                side, over_the_edge = trunk.pooling
                self.layers[f"{layer - 1}"] = nn.MaxPool2d(side, 2, ceil_mode=over_the_edge)
            own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
            if "weight" not in own:
                self.layers[f"{layer}"] = _Fire(own)
                continue
            stride, padding = (1, own["weight"].shape[2] // 2) if layer else trunk.first
            self.layers[f"{layer}"] = _convolution(own["weight"], own["bias"], stride, padding)
            self.layers[f"{layer + 1}"] = nn.ReLU()
        self.requires_grad_(False)

    def maps(
        self, images: Tensor, layers: Collection[int], pool: Callable[[Tensor], Tensor] | None = None
    ) -> Iterator[Tensor]:
        """Yield what some layers return, in their order, each once it is computed, holding no other.

        Args:
            images: What the first layer takes, shape [N, 3, H, W]. It is computed in the network's type, and the maps
                are returned in that of the images.
            layers: The numbers of the layers.
            pool: Takes the place of the network's poolings.
        """
        (weight, *_) = self.parameters()
        x = images.to(weight.dtype).contiguous(memory_format=memory_format(images.device))
        for layer in range(max(layers) + 1):
            module = self.layers[f"{layer}"]
            if isinstance(module, nn.ReLU):
                x = relu(x, inplace=layer - 1 not in layers)
            else:
                x = pool(x) if pool and isinstance(module, nn.MaxPool2d) else module(x)
            if layer in layers:
                yield x.to(images.dtype)


class _Fire(nn.Module):
    """The module of SqueezeNet: a narrow convolution, and two side by side that widen what it returns."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.squeeze, self.expand1x1, self.expand3x3 = (
            _convolution(weight := state[f"{name}.weight"], state[f"{name}.bias"], 1, weight.shape[2] // 2)
            for name in ("squeeze", "expand1x1", "expand3x3")
        )

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.squeeze(x))
        return torch.cat([relu(self.expand1x1(x)), relu(self.expand3x3(x))], dim=1)


def _convolution(weight: Tensor, bias: Tensor, stride: int, padding: int) -> nn.Conv2d:
    with torch.device("meta"):  # no time is spent on random numbers
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], stride, padding)
    layer.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    return layer


def network_of(trunk: Trunk, weights: LoadedWeights, device: torch.device | str, dtype: torch.dtype) -> Network:
    """Return a network, which is built once for a process, device and type, whatever uses it.

    Args:
        trunk: Which network.
        weights: Its weights.
        device: Where its images are.
        dtype: In which it computes.
    """
    where = torch.empty(0, device=device).device  # "cuda" is one of its devices
    with _building:  # by one of the threads that score
        return _built(trunk, weights, where, dtype)


@functools.cache
def _built(trunk: Trunk, weights: LoadedWeights, device: torch.device, dtype: torch.dtype) -> Network:
    with torch.inference_mode(False):  # who scores may build what a loss differentiates
        return Network(trunk, weights.state).to(device, dtype).to(memory_format=memory_format(device))


@functools.cache
def per_channel(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a number for each channel, shape [C, 1, 1], made once."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device, dtype=dtype)[:, None, None]


def standardised(images: Tensor) -> Tensor:
    """Return images, shape [N, 3, H, W], RGB in [0, 1], as torchvision's networks were trained on them."""
    mean, std = (per_channel(values, images.device, images.dtype) for values in (MEAN, STD))
    return (images - mean) / std


def memory_format(device: torch.device) -> torch.memory_format:
    """Return the order of values in memory in which a device convolves fastest in float32."""
    return torch.contiguous_format if device.type == "cuda" else torch.channels_last
