"""The score by which NTIRE 2025 ranked super-resolved images, made of six other metrics."""

from collections.abc import Mapping
from dataclasses import dataclass

from sgbench.metrics.base import CompositeMetric


@dataclass(frozen=True, kw_only=True)
class Ntire2025(CompositeMetric):
    """The perceptual score of the challenge, from the means of six metrics over a test set."""

    def combine(self, means: Mapping[str, float]) -> float:
        """Return (1 − LPIPS) + (1 − DISTS) + CLIP-IQA + MANIQA + MUSIQ/100 + max(0, (10 − NIQE)/10)."""
        similar = 1 - means["lpips_alex"] + 1 - means["dists"]
        learned = means["pyiqa:clipiqa"] + means["pyiqa:maniqa"] + means["pyiqa:musiq"] / 100
        return similar + learned + max(0, (10 - means["niqe"]) / 10)


ntire2025 = Ntire2025(
    name="ntire2025",
    direction="higher",
    digits=4,
    rank=150,
    version="1",
    protocol={
        "implementation": "sgbench, formula of github.com/zhengchen1999/NTIRE2025_ImageSR_x4",
        "formula": "(1 − LPIPS) + (1 − DISTS) + CLIP-IQA + MANIQA + MUSIQ/100 + max(0, (10 − NIQE)/10) of the means",
        "colour_space": "RGB",
        "value_range": None,
        "border_crop": None,
        "resize": None,
    },
    parts=("lpips_alex", "dists", "pyiqa:clipiqa", "pyiqa:maniqa", "pyiqa:musiq", "niqe"),
    description="perceptual score of NTIRE 2025's ×4 challenge, from 0 to 6",
    source="Chen et al., CVPRW 2025, arXiv:2504.14582",
)
