"""LPIPS, the learned perceptual image patch similarity (Zhang et al., CVPR 2018), version 0.1.

The metrics' declarations; `sgbench.metrics.lpips_network` computes them and is loaded by the first score, so that a
plan or a table does not wait for torch.
"""

from dataclasses import dataclass
from importlib.metadata import version

from sgbench.metrics.base import Array, ImageMetric, Pair, Runtime
from sgbench.perceptual.trunks import ALEXNET, SQUEEZENET, VGG16, Trunk


@dataclass(frozen=True, kw_only=True)
class Lpips(ImageMetric):
    """LPIPS over the whole image."""

    trunk: Trunk

    def score(self, pair: Pair, runtime: Runtime) -> float:
        """Return the distance of a pair, equal to ``lpips.LPIPS.forward`` on the same tensors.

        Raises:
            Undefined: If the images are smaller than the network can take.
        """
        from sgbench.metrics.lpips_network import distance

        return distance(self.trunk, pair, runtime)

    def map(self, pair: Pair, runtime: Runtime) -> Array:
        """Return the distance at each pixel, equal to that of ``lpips.LPIPS(spatial=True)``; its mean is about `score`.

        Returns:
            [H, W], 0 or more.

        Raises:
            Undefined: If the images are smaller than the network can take.
        """
        from sgbench.metrics.lpips_network import distance_map

        return distance_map(self.trunk, pair, runtime)


def _lpips(name: str, trunk: Trunk, rank: int) -> Lpips:
    return Lpips(
        name=name,
        direction="lower",
        digits=4,
        rank=rank,
        version=f"lpips {version('lpips')} (v0.1)",
        protocol={
            "implementation": "lpips, linear layers v0.1",
            "network": trunk.title,
            "colour_space": "RGB",
            "value_range": [-1, 1],
            "border_crop": None,
            "resize": None,
        },
        networks=(trunk.weights,),
        description=f"LPIPS v0.1 with {trunk.title}, whole image",
        source="Zhang et al., CVPR 2018",
        reference="lpips 0.1.4",
        difference=1e-6,
        trunk=trunk,
    )


lpips_alex = _lpips("lpips_alex", ALEXNET, rank=10)
lpips_vgg = _lpips("lpips_vgg", VGG16, rank=20)
lpips_squeeze = _lpips("lpips_squeeze", SQUEEZENET, rank=30)
