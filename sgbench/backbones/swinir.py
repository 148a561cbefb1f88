"""SwinIR: Liang et al., "SwinIR: Image Restoration Using Swin Transformer", ICCV Workshops 2021.

Between convolutions the features have shape [N, H, W, C], as attention and normalisation want them. To a convolution
this is an image in the memory format channels_last, so that going from one to the other copies nothing.
"""

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from sgbench.backbones.layers import MeanShift, Upsampler, conv3x3

WINDOW = 8
"""Side of the squares within which attention looks."""

SHIFT = WINDOW // 2
"""How far the windows of every second block are shifted down and to the right."""

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


class Linear(nn.Linear):
    """A linear map of the channels, [N, H, W, C]; on a CPU as a 1×1 convolution, which torch does faster there."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the map."""
        if x.device.type != "cpu":
            return super().forward(x)
        return torch.conv2d(x.permute(0, 3, 1, 2), self.weight[:, :, None, None], self.bias).permute(0, 2, 3, 1)


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a bias that is learned for each offset between two positions.

    Liu et al., "Swin Transformer", ICCV 2021, Eq. (4). ``forward`` keeps the shape [N, H, W, C]; H and W are multiples
    of `WINDOW`. Shifted windows are made by rolling the image: those at its end then hold parts of opposite borders,
    which do not attend to each other.
    """

    def __init__(self, channels: int, heads: int, *, shifted: bool) -> None:
        super().__init__()
        self.heads = heads
        self.shifted = shifted
        self.qkv = Linear(channels, 3 * channels)
        self.proj = Linear(channels, channels)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * WINDOW - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the attention."""
        if self.shifted:
            x = x.roll((-SHIFT, -SHIFT), (1, 2))
        qkv = self.qkv(x)
        bias = self.bias().to(qkv.dtype)
        if self.shifted:
            bias = bias + border_mask(x.shape[1] // WINDOW, x.shape[2] // WINDOW, qkv.device, qkv.dtype)
        x = self.proj(attend(qkv, bias))
        return x.roll((SHIFT, SHIFT), (1, 2)) if self.shifted else x

    def bias(self) -> Tensor:
        """Return what is added to the scores, shape [1, heads, WINDOW², WINDOW²].

        The table has a row for each offset of a query from a key, from −(WINDOW − 1) to WINDOW − 1 down and to the
        right. Those of the query at (i, j) from all keys are the square of the table that begins at (i, j), reversed.
        """
        table = self.relative_position_bias_table.t().view(self.heads, 2 * WINDOW - 1, 2 * WINDOW - 1)
        squares = table.unfold(1, WINDOW, 1).unfold(2, WINDOW, 1).flip(3, 4)
        return squares.reshape(1, self.heads, WINDOW**2, WINDOW**2)


def attend(qkv: Tensor, bias: Tensor) -> Tensor:
    """Return softmax(q kᵀ / √d + bias) v within each window and head, shape [N, H, W, C].

    Args:
        qkv: Queries, keys and values, one after the other, shape [N, H, W, 3 C]; each is those of all heads.
        bias: Shape [1 or windows of an image, heads, WINDOW², WINDOW²].
    """
    if bias.requires_grad and bias.device.type == "cpu":
        return _attend_on_cpu()(qkv, bias)
    q, k, v = in_windows(qkv, 3, bias.shape[1])
    shape, scale = v.shape, v.shape[-1] ** -0.5
    filled = (functional.pad(part, (0, -shape[-1] % HEAD_MULTIPLE)) for part in (q, k, v))
    q, k, v = (part.flatten(4, 5).flatten(0, 2) for part in filled)
    bias = bias.expand(shape[0], shape[1] * shape[2], -1, -1, -1).flatten(0, 1)
    with sdpa_kernel(KERNELS):
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    return in_images(out[..., : shape[-1]].view(1, *shape))


def in_windows(features: Tensor, parts: int, heads: int) -> Tensor:
    """View [N, H, W, parts · heads · d] as [parts, N, rows, columns, heads, WINDOW, WINDOW, d]."""
    batch, height, width, channels = features.shape
    rows, columns, size = height // WINDOW, width // WINDOW, channels // (parts * heads)
    windows = features.view(batch, rows, WINDOW, columns, WINDOW, parts, heads, size)
    return windows.permute(5, 0, 1, 3, 6, 2, 4, 7)


def in_images(windows: Tensor) -> Tensor:
    """Undo `in_windows`, copying where that takes it."""
    parts, batch, rows, columns, heads, _, _, size = windows.shape
    features = windows.permute(1, 2, 5, 3, 6, 0, 4, 7)
    return features.reshape(batch, rows * WINDOW, columns * WINDOW, parts * heads * size)


class _AttentionOnCpu(torch.autograd.Function):
    """`attend` with its gradients written out, image by image.

    torch's fused kernel for CPUs has no gradient for a bias. Here scores stay in the cache until they are done with,
    and the positions of a window lie in the last dimension, where small matrix products are faster than with the few
    channels of a head there.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor) -> Tensor:
        windows = in_windows(qkv, 3, bias.shape[1]).movedim(-1, -3).contiguous()
        qs, ks, vs = windows.view(3, len(qkv), -1, windows.shape[5], WINDOW**2)
        qs.mul_(qs.shape[2] ** -0.5)
        weights = qkv.new_empty(*qs.shape[:2], WINDOW**2, WINDOW**2)
        outs = torch.empty_like(qs)
        for q, k, v, weight, out in zip(qs, ks, vs, weights, outs, strict=True):
            torch.bmm(q.mT, k, out=weight)
            weight.view(-1, *bias.shape[1:]).add_(bias)
            torch.softmax(weight, -1, out=weight)
            torch.bmm(v, weight.mT, out=out)
        ctx.save_for_backward(windows, weights)
        ctx.bias_shape = bias.shape
        return in_images(outs.view(1, *windows.shape[1:]).movedim(-3, -1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_attended: Tensor) -> tuple[Tensor, Tensor]:
        windows, weights = ctx.saved_tensors
        of_windows = torch.empty_like(windows)
        (qs, ks, vs), of_parts = (
            each.view(3, len(weights), -1, windows.shape[5], WINDOW**2) for each in (windows, of_windows)
        )
        of_outs = in_windows(of_attended, 1, ctx.bias_shape[1]).movedim(-1, -3).reshape(vs.shape)
        of_score = torch.empty_like(weights[0])
        of_bias = torch.zeros_like(of_score, dtype=torch.promote_types(weights.dtype, torch.float32))
        for q, k, v, weight, of_q, of_k, of_v, of_out in zip(qs, ks, vs, weights, *of_parts, of_outs, strict=True):
            torch.bmm(of_out, weight, out=of_v)
            torch.bmm(of_out.mT, v, out=of_score)
            torch.ops.aten._softmax_backward_data.out(of_score, weight, -1, weight.dtype, grad_input=of_score)
            torch.bmm(k, of_score.mT, out=of_q)
            torch.bmm(q, of_score, out=of_k)
            of_bias += of_score
        of_parts[0].mul_(windows.shape[5] ** -0.5)
        of_bias = of_bias.view(-1, *ctx.bias_shape[1:]).sum_to_size(ctx.bias_shape)
        return in_images(of_windows.movedim(-3, -1)), of_bias.to(weights.dtype)


@functools.cache
def _attend_on_cpu() -> Callable[..., Tensor]:
    """Return `_AttentionOnCpu.apply` without its loop over images being written out by a compiler.

    That is found when it is first needed, because it loads the compiler, which takes two seconds.
    """
    attend: Callable[..., Tensor] = torch.compiler.disable(  # type: ignore[no-untyped-call] # torch's has no types
        _AttentionOnCpu.apply
    )
    return attend


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
    with torch.inference_mode(False):  # the cached tensor is used in training too
        top = torch.arange(rows * WINDOW, device=device) < SHIFT
        left = torch.arange(columns * WINDOW, device=device) < SHIFT
        parts = (2 * top[:, None] + left).roll((-SHIFT, -SHIFT), (0, 1))
        parts = parts.view(rows, WINDOW, columns, WINDOW).transpose(1, 2).reshape(-1, 1, WINDOW**2)
        apart = parts != parts.mT
        return torch.zeros(apart.shape, device=device, dtype=dtype).masked_fill_(apart, float("-inf"))[:, None]


class LayerNorm(nn.LayerNorm):
    """Normalisation in the precision of its weights, as autocast does it on a GPU but not on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return super().forward(x.to(self.weight.dtype))


class SwinBlock(nn.Module):
    """Attention and a perceptron, each after a normalisation and with a skip connection (Section 3.2).

    ``forward`` keeps the shape [N, H, W, C]; H and W are multiples of `WINDOW`. In training a residual is left out for
    an image with probability ``drop``, and otherwise scaled by 1 / (1 − drop) (stochastic depth, Huang et al., ECCV
    2016).
    """

    def __init__(self, channels: int, heads: int, *, shifted: bool, drop: float) -> None:
        super().__init__()
        self.drop = drop
        self.norm1 = LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, shifted=shifted)
        self.norm2 = LayerNorm(channels)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=Linear(channels, MLP_RATIO * channels),
                act=nn.GELU(),
                fc2=Linear(MLP_RATIO * channels, channels),
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
    clamped. Any H and W will do: if one is no multiple of 8, the image is padded by reflection at the bottom and at the
    right, and the output is cropped.

    Args:
        scale: 2, 3 or 4.
        groups: Number of residual groups.
        blocks: Transformer blocks in each.
        channels: Width of every layer between the first convolution and the tail.
        heads: Heads of each attention.
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
        self.patch_embed = nn.Sequential(OrderedDict(norm=LayerNorm(channels)))
        drops = [DROP_PATH * i / max(groups * blocks - 1, 1) for i in range(groups * blocks)]
        starts = range(0, groups * blocks, blocks)
        self.layers = nn.Sequential(*(ResidualGroup(channels, heads, drops[i : i + blocks]) for i in starts))
        self.norm = LayerNorm(channels)
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
    """Pad images of shape [N, C, H, W] to multiples of `WINDOW`, as `numpy.pad` does with ``reflect``.

    torch's own padding by reflection refuses images that are smaller than what is added; these are reflected again and
    again, and a single row or column is repeated.
    """
    for dim in (2, 3):
        last = image.shape[dim] - 1
        if fill := -image.shape[dim] % WINDOW:
            there_and_back = torch.arange(last + 1 + fill, device=image.device) % max(2 * last, 1)
            image = image.index_select(dim, last - (there_and_back - last).abs())
    return image
