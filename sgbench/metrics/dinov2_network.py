"""DINOv2 (Oquab et al., TMLR 2024), a vision transformer, whose class token `fd_dinov2` compares."""

import functools
from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, scaled_dot_product_attention

from sgbench.assets.base import LoadedWeights
from sgbench.metrics.base import Array, Image, Runtime
from sgbench.perceptual.network import standardised

SIDE = 224
"""To which images are resized, in pixels."""

PATCH = 14
"""Side of a patch in pixels."""

HEAD = 64
"""Channels of an attention head."""

EPS = 1e-6
"""Added to variances."""

OFFSET = 0.1
"""Patches by which DINOv2 takes the image for larger when it resizes the embeddings of positions."""


class DINOv2(nn.Module):
    """The network without registers, of whatever width and depth its weights have.

    ``forward`` takes RGB [N, 3, 224, 224] in [0, 1] and returns the normalised class token, [N, D].

    Args:
        state: The content of ``dinov2_vitl14_pretrain.pth``, or of another size's file.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        width = state["cls_token"].shape[-1]
        depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
        with torch.device("meta"):  # no time is spent on random numbers
            self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, PATCH, PATCH)})
            self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
            self.norm = nn.LayerNorm(width, EPS)
            self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        positions = state["pos_embed"]
        used = {name: tensor for name, tensor in state.items() if name not in ("pos_embed", "mask_token")}
        self.load_state_dict(used, assign=True)
        self.requires_grad_(False).eval()
        self.positions: Tensor
        self.register_buffer("positions", _resized(positions, SIDE // PATCH))

    def forward(self, rgb: Tensor) -> Tensor:
        """Return the class tokens [N, D] of images [N, 3, 224, 224] in [0, 1]."""
        patches = self.patch_embed["proj"](standardised(rgb)).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(rgb), -1, -1), patches], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        token: Tensor = self.norm(x[:, 0])
        return token


class _Block(nn.Module):
    """Attention, then two layers, each added to what went in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, EPS) for _ in range(2))
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.ls1, self.ls2 = (nn.ParameterDict({"gamma": torch.empty(width)}) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, width = x.shape
        projected = self.attn["qkv"](self.norm1(x)).view(count, tokens, 3, width // HEAD, HEAD)
        mixed = scaled_dot_product_attention(*projected.permute(2, 0, 3, 1, 4))
        x = x + self.ls1["gamma"] * self.attn["proj"](mixed.transpose(1, 2).reshape(x.shape))
        added: Tensor = self.ls2["gamma"] * self.mlp["fc2"](gelu(self.mlp["fc1"](self.norm2(x))))
        return x + added


def _resized(positions: Tensor, side: int) -> Tensor:
    """Return embeddings of positions, first that of the class token, for ``side`` × ``side`` patches."""
    first, others = positions[:, :1], positions[:, 1:]
    trained = round(others.shape[1] ** 0.5)
    maps = others.transpose(1, 2).reshape(1, -1, trained, trained)
    maps = interpolate(maps, scale_factor=(side + OFFSET) / trained, mode="bicubic")
    return torch.cat([first, maps.flatten(2).transpose(1, 2)], dim=1)


def features(image: Image, runtime: Runtime) -> Array:
    """Return the network's class token for an image, [1024], a view of the image."""
    weights = runtime.weights["dinov2"]
    network = _network(weights, runtime.device)

    def compute() -> Array:
        resized = Pillow.fromarray(image.pixels.transpose(1, 2, 0)).resize((SIDE, SIDE), Pillow.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(resized)).to(runtime.device).permute(2, 0, 1)[None]
        with torch.inference_mode():
            token: Tensor = network(pixels / 255)[0]
            return token.double().cpu().numpy()

    return image.view(("dinov2", weights.sha256, runtime.device), compute)


@functools.cache
def _network(weights: LoadedWeights, device: str) -> DINOv2:
    return DINOv2(weights.state).to(device)
