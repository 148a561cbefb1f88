"""Fréchet distances between two sets of images: FID, and the same distance over AlexNet's and DINOv2's features.

Test sets have 5 to 109 images, so covariances over 2,048 features have a rank far below their size. The distance is
therefore computed from the features themselves, exactly, without a square root of a matrix that has none.
"""

from collections import deque
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from sgbench.metrics.base import Array, Image, Runtime, SetMetric, Undefined
from sgbench.metrics.inception import PROTOCOL, InceptionMetric
from sgbench.perceptual.trunks import ALEXNET


def frechet_distance(x: Array, y: Array) -> float:
    """Return the squared Fréchet distance between Gaussians fitted to two sets of vectors.

    With A the centred vectors over √(n−1), so that Σ = AᵀA, it is |μ₁−μ₂|² + Tr Σ₁ + Tr Σ₂ − 2‖A₁A₂ᵀ‖₊, since the
    trace of √(Σ₁Σ₂) is the sum of the singular values of A₁A₂ᵀ (Dowson and Landau, 1982; Heusel et al., NeurIPS 2017).

    Args:
        x: Vectors of one set, [N, D], N at least 2; computed in float64.
        y: Vectors of the other, [M, D], M at least 2.

    Returns:
        A value of at least 0; exactly 0 for a set against itself.

    Raises:
        Undefined: If a set has fewer than two vectors.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if min(len(x), len(y)) < 2:
        raise Undefined(f"a covariance needs at least 2 images, and the set has {min(len(x), len(y))}")
    if np.array_equal(x, y):
        return 0.0
    a, b = _factor(x), _factor(y)
    means = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2)
    traces = np.sum(a**2) + np.sum(b**2)
    return max(0.0, float(means + traces - 2 * np.linalg.norm(a @ b.T, "nuc")))


def _factor(x: Array) -> Array:
    """Return A of shape [min(N, D), D] with AᵀA the covariance of the rows of ``x`` [N, D]."""
    centred: Array = (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)
    if len(x) <= x.shape[1]:
        return centred
    return np.asarray(np.linalg.qr(centred, mode="r"))


@dataclass(frozen=True, kw_only=True)
class Fid(InceptionMetric):
    """The Fréchet inception distance, to the letter of pytorch-fid's protocol."""

    def distance(self, sr: Array, hr: Array) -> float:
        """Return `frechet_distance` of two sets of features, [N, 2048]."""
        return frechet_distance(sr, hr)


@dataclass(frozen=True, kw_only=True)
class FdAlex(SetMetric):
    """The Fréchet distance over AlexNet's fifth convolution; not FID, and never shown as such."""

    def features(self, image: Image, runtime: Runtime) -> Array:
        """Return the mean over space of the last of LPIPS's feature maps, [256].

        Raises:
            Undefined: If the image is smaller than AlexNet can take.
        """
        import torch  # here, as a plan does not need it

        from sgbench.metrics.lpips_network import feature_maps

        (last,) = deque(feature_maps(image, ALEXNET, runtime), maxlen=1)
        with torch.inference_mode():
            return last[0].double().mean(dim=(1, 2)).cpu().numpy()

    def distance(self, sr: Array, hr: Array) -> float:
        """Return `frechet_distance` of two sets of features, [N, 256]."""
        return frechet_distance(sr, hr)


@dataclass(frozen=True, kw_only=True)
class FdDinov2(SetMetric):
    """The Fréchet distance over DINOv2's class token, to the letter of dgm-eval's protocol; not FID."""

    def features(self, image: Image, runtime: Runtime) -> Array:
        """Return DINOv2's class token, [1024]."""
        from sgbench.metrics.dinov2_network import features  # here, as it loads torch

        return features(image, runtime)

    def distance(self, sr: Array, hr: Array) -> float:
        """Return `frechet_distance` of two sets of features, [N, 1024]."""
        return frechet_distance(sr, hr)


fid = Fid(
    name="fid",
    direction="lower",
    digits=2,
    rank=40,
    version=f"pytorch-fid {version('pytorch-fid')}",
    protocol={"implementation": "pytorch-fid's Inception, exact low-rank distance", **PROTOCOL},
    networks=("inception",),
    description="Fréchet inception distance, pytorch-fid's protocol",
    source="Heusel et al., NeurIPS 2017",
    reference="pytorch-fid 0.3.0",
    difference=1e-2,
)
fd_alex = FdAlex(
    name="fd_alex",
    direction="lower",
    digits=3,
    rank=80,
    version="1",
    protocol={
        "implementation": "sgbench, exact low-rank distance",
        "network": "AlexNet, conv5 after ReLU, mean over space, 256 features",
        "colour_space": "RGB",
        "value_range": [-1, 1],
        "border_crop": None,
        "resize": None,
    },
    networks=("alexnet",),
    description="Fréchet distance over AlexNet's conv5 features; not FID",
    source="sgbench, after Heusel et al., NeurIPS 2017",
    reference="lpips 0.1.4, pytorch-fid 0.3.0",
    difference=1e-3,
)
fd_dinov2 = FdDinov2(
    name="fd_dinov2",
    direction="lower",
    digits=2,
    rank=82,
    version="1 (dinov2_vitl14_pretrain)",
    protocol={
        "implementation": "sgbench, exact low-rank distance",
        "network": "DINOv2 ViT-L/14 without registers, class token, 1024 features",
        "colour_space": "RGB",
        "value_range": [0, 1],
        "border_crop": None,
        "resize": "224×224, Pillow's bicubic (antialias, 8 bits), aspect ignored",
    },
    networks=("dinov2",),
    description="Fréchet distance over DINOv2's features, dgm-eval's protocol; not FID",
    source="Stein et al., NeurIPS 2023",
    reference="dgm-eval 74c79f7",
    difference=1e-6,
)
