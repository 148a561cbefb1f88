"""SwinIR: Liang et al., "SwinIR: Image Restoration Using Swin Transformer", ICCV Workshops 2021.

Between convolutions the features have shape [N, H, W, C], as attention and normalisation want them. To a convolution
this is an image in the memory format channels_last, so that going from one to the other copies nothing.
"""

import functools
from collections import OrderedDict
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from sgbench.backbones.layers import MeanShift, Upsampler, conv3x3

WINDOW = 8
"""Side of the squares within which attention looks."""

SHIFT = WINDOW // 2
"""How far the windows of every second block lie below and to the right of those of the others."""

MLP_RATIO = 2
"""Width of the hidden layer of a block's perceptron, as a multiple of the block's."""

DROP_PATH = 0.1
"""Probability with which, in training, the last block leaves out a residual; it rises linearly from 0 in the first."""

TAIL_CHANNELS = 64
"""Width of the upsampler, unless it is the direct one."""

HEAD_MULTIPLE = 8
"""Heads are filled with zeros to a multiple of this width for fused kernels: those for GPUs take no other."""

KERNELS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
"""Which of torch's kernels may fuse attention: not cuDNN's, which has no gradient for a bias."""


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a bias that is learned for each offset between two positions.

    Liu et al., "Swin Transformer", ICCV 2021, Eq. (4). ``forward`` keeps the shape [N, H, W, C]; H and W are multiples
    of `WINDOW`. Where windows are shifted, the image is rolled under them: those at its end then hold parts of opposite
    borders, which do not see each other.
    """

    def __init__(self, channels: int, heads: int, *, shifted: bool) -> None:
        super().__init__()
        self.heads = heads
        self.shifted = shifted
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * WINDOW - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the attention."""
        batch, height, width, channels = x.shape
        rows, columns, size = height // WINDOW, width // WINDOW, channels // self.heads
        if self.shifted:
            x = x.roll((-SHIFT, -SHIFT), (1, 2))
        qkv = self.qkv(x).view(batch, rows, WINDOW, columns, WINDOW, 3, self.heads, size)
        q, k, v = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7)
        bias = self.bias().to(q.dtype)
        if self.shifted:
            bias = bias + border_mask(rows, columns, q.device, q.dtype)
        out = attend(q, k, v, bias).permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, height, width, channels)
        x = self.proj(out)
        return x.roll((SHIFT, SHIFT), (1, 2)) if self.shifted else x

    def bias(self) -> Tensor:
        """Return what is added to the scores, shape [1, heads, WINDOW², WINDOW²].

        The table has a row for each offset of a query from a key, from −(WINDOW − 1) to WINDOW − 1 down and to the
        right. Those of the query at (i, j) from all keys are the square of the table that begins at (i, j), reversed.
        """
        table = self.relative_position_bias_table.t().view(self.heads, 2 * WINDOW - 1, 2 * WINDOW - 1)
        squares = table.unfold(1, WINDOW, 1).unfold(2, WINDOW, 1).flip(3, 4)
        return squares.reshape(1, self.heads, WINDOW**2, WINDOW**2)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Return softmax(q kᵀ / √d + bias) v within each window and head, of the shape of v.

    Args:
        q: Queries, shape [N, rows, columns, heads, WINDOW, WINDOW, d].
        k: Keys, of the same shape.
        v: Values, of the same shape.
        bias: Shape [1 or rows · columns, heads, WINDOW², WINDOW²].
    """
    shape, scale = v.shape, v.shape[-1] ** -0.5
    if bias.requires_grad and bias.device.type == "cpu":
        # The fused kernel for CPUs has no gradient for a bias, and what torch does in its place is slower than this.
        q, k, v = (part.flatten(4, 5).flatten(1, 2) for part in (scale * q, k, v))
        return ((q @ k.mT).add_(bias).softmax(-1) @ v).view(shape)
    filled = (functional.pad(part, (0, -shape[-1] % HEAD_MULTIPLE)) for part in (q, k, v))
    q, k, v = (part.flatten(4, 5).flatten(0, 2) for part in filled)
    bias = bias.expand(shape[0], shape[1] * shape[2], -1, -1, -1).flatten(0, 1)
    with sdpa_kernel(KERNELS):
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    return out[..., : shape[-1]].view(shape)


@functools.lru_cache(maxsize=4)
def border_mask(rows: int, columns: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return −∞ where a query and a key come from opposite borders of a rolled image, else 0.

    Args:
        rows: Windows from top to bottom.
        columns: Windows from left to right.
        device: Where to put it.
        dtype: Of the values.

    Returns:
        Shape [rows · columns, 1, WINDOW², WINDOW²]; all blocks are given the same tensor.
    """
    with torch.inference_mode(False):  # what is kept has to do for training too
        top = torch.arange(rows * WINDOW, device=device) < SHIFT
        left = torch.arange(columns * WINDOW, device=device) < SHIFT
        parts = (2 * top[:, None] + left).roll((-SHIFT, -SHIFT), (0, 1))
        parts = parts.view(rows, WINDOW, columns, WINDOW).transpose(1, 2).reshape(-1, 1, WINDOW**2)
        apart = parts != parts.mT
        return torch.zeros(apart.shape, device=device, dtype=dtype).masked_fill_(apart, float("-inf"))[:, None]


class SwinBlock(nn.Module):
    """Attention and a perceptron, each after a normalisation and with a skip connection (Section 3.2).

    ``forward`` keeps the shape [N, H, W, C]; H and W are multiples of `WINDOW`. In training a residual is left out for
    an image with probability ``drop``, and is 1 / (1 − drop) times as large where it is not (stochastic depth, Huang et
    al., ECCV 2016).
    """

    def __init__(self, channels: int, heads: int, *, shifted: bool, drop: float) -> None:
        super().__init__()
        self.drop = drop
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, shifted=shifted)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(channels, MLP_RATIO * channels),
                act=nn.GELU(),
                fc2=nn.Linear(MLP_RATIO * channels, channels),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        x = self._add(x, self.attn(self.norm1(x)))
        return self._add(x, self.mlp(self.norm2(x)))

    def _add(self, x: Tensor, residual: Tensor) -> Tensor:
        if self.training and self.drop > 0.0:
            kept = x.new_empty(len(x), 1, 1, 1).bernoulli_(1.0 - self.drop)
            residual = residual * (kept / (1.0 - self.drop))
        return x + residual


class ResidualGroup(nn.Module):
    """x + conv(blocks(x)) (Section 3.2), shape [N, H, W, C] kept; every second block is shifted."""

    def __init__(self, channels: int, heads: int, drops: list[float]) -> None:
        super().__init__()
        blocks = (SwinBlock(channels, heads, shifted=i % 2 == 1, drop=drop) for i, drop in enumerate(drops))
        self.residual_group = nn.Sequential(OrderedDict(blocks=nn.Sequential(*blocks)))
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the group."""
        residual: Tensor = self.conv(self.residual_group(x).permute(0, 3, 1, 2))
        return x + residual.permute(0, 2, 3, 1)


class SwinIR(nn.Module):
    """Groups of Swin transformer blocks between convolutions.

    ``forward`` maps images of shape [N, 3, H, W], values in [0, 1], to [N, 3, scale·H, scale·W]. The output is not
    clamped. Any H and W will do: where one is no multiple of 8, the image goes on at the bottom and at the right as its
    mirror image, and the output is cut.

    Args:
        scale: 2, 3 or 4.
        groups: Number of residual groups.
        blocks: Transformer blocks in each.
        channels: Width of every layer between the first convolution and the tail.
        heads: Of each attention.
        direct: Whether a single convolution makes all pixels of the output, instead of an upsampler of 64 channels.
    """

    source: ClassVar[str] = (
        'Liang et al., "SwinIR: Image Restoration Using Swin Transformer", ICCV Workshops 2021; paper is its classical '
        "model (SwinIR-M), light its lightweight one"
    )
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"groups": 6, "blocks": 6, "channels": 180, "heads": 6, "direct": False},
        "light": {"groups": 4, "blocks": 6, "channels": 60, "heads": 6, "direct": True},
        "tiny": {"groups": 2, "blocks": 2, "channels": 24, "heads": 2, "direct": True},
    }
    renames: ClassVar[tuple[tuple[str, str], ...]] = ()  # parameters have the names of the released weights
    ignored: ClassVar[tuple[str, ...]] = (r"layers\..*\.(attn_mask|relative_position_index)$",)
    recomputed: ClassVar[tuple[type[nn.Module], ...]] = (SwinBlock,)

    def __init__(self, *, scale: int, groups: int, blocks: int, channels: int, heads: int, direct: bool) -> None:
        super().__init__()
        self.scale = scale
        self.shift = MeanShift(value_range=1.0)
        self.conv_first = conv3x3(3, channels)
        self.patch_embed = nn.Sequential(OrderedDict(norm=nn.LayerNorm(channels)))
        drops = [DROP_PATH * i / max(groups * blocks - 1, 1) for i in range(groups * blocks)]
        starts = range(0, groups * blocks, blocks)
        self.layers = nn.Sequential(*(ResidualGroup(channels, heads, drops[i : i + blocks]) for i in starts))
        self.norm = nn.LayerNorm(channels)
        self.conv_after_body = conv3x3(channels, channels)
        if direct:
            self.conv_before_upsample: nn.Module = nn.Identity()
            self.upsample = nn.Sequential(conv3x3(channels, 3 * scale**2), nn.PixelShuffle(scale))
            self.conv_last: nn.Module = nn.Identity()
        else:
            self.conv_before_upsample = nn.Sequential(conv3x3(channels, TAIL_CHANNELS), nn.LeakyReLU(inplace=True))
            self.upsample = Upsampler(scale, TAIL_CHANNELS)
            self.conv_last = conv3x3(TAIL_CHANNELS, 3)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale a batch."""
        height, width = lr.shape[2:]
        shallow = self.conv_first(self.shift.enter(mirrored(lr)))
        body = self.norm(self.layers(self.patch_embed(shallow.permute(0, 2, 3, 1))))
        deep = self.conv_after_body(body.permute(0, 3, 1, 2)) + shallow
        out: Tensor = self.shift.leave(self.conv_last(self.upsample(self.conv_before_upsample(deep))))
        return out[:, :, : self.scale * height, : self.scale * width]


def mirrored(image: Tensor) -> Tensor:
    """Continue images of shape [N, C, H, W] to multiples of `WINDOW`, as `numpy.pad` does with ``reflect``.

    torch's own padding by reflection refuses images that are smaller than what is added; these are reflected again and
    again, and a single row or column is repeated.
    """
    for dim in (2, 3):
        last = image.shape[dim] - 1
        if fill := -image.shape[dim] % WINDOW:
            there_and_back = torch.arange(last + 1 + fill, device=image.device) % max(2 * last, 1)
            image = image.index_select(dim, last - (there_and_back - last).abs())
    return image
