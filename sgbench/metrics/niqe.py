"""NIQE (Mittal et al., IEEE SPL 2013), a no-reference metric; `sgbench.metrics.niqe_statistics` computes it."""

from dataclasses import dataclass

from sgbench.metrics.base import ImageMetric, Pair, Runtime


@dataclass(frozen=True, kw_only=True)
class Niqe(ImageMetric):
    """NIQE of SR without its border."""

    def score(self, pair: Pair, runtime: Runtime) -> float:
        """Return the distance of SR from pristine images, equal to that of BasicSR's ``calculate_niqe``.

        Raises:
            Undefined: If SR has fewer than two blocks, or fewer than two that are not flat.
        """
        from sgbench.metrics.niqe_statistics import distance, luma

        return distance(pair.cropped_sr(luma), runtime.weights["niqe"].state)


niqe = Niqe(
    name="niqe",
    direction="lower",
    digits=3,
    rank=130,
    version="1 (model in basicsr 1.4.2)",
    protocol={
        "implementation": "sgbench, as BasicSR 1.4.2: blocks of 96×96, and of 48×48 at half the size",
        "network": "the authors' model of 125 pristine images",
        "colour_space": "Y of BT.601, rounded",
        "value_range": [0, 255],
        "border_crop": "scale",
        "resize": None,
    },
    networks=("niqe",),
    needs_hr=False,
    description="NIQE on luma, distance of the statistics of blocks from those of pristine images",
    source="Mittal et al., IEEE Signal Processing Letters 20 (2013) 209",
    reference="BasicSR 1.4.2, halving in float64",
    difference=5e-5,
)
