"""What the published script of NTIRE's challenge computes as LR-PSNR, and how `published_lr_psnr.json` was made.

    python tests/metrics/published_lr_psnr.py FOLDER

FOLDER is the repository andreas128/NTIRE21_Learning_SR_Space at commit cd4d574, whose `imresize.py` is used; the two
lines of `measure.py` that matter, which needs a GPU, are repeated here. LR is HR as it is shrunk by them. Outside the
image they mirror pixels, and after each pass they round to uint8, halves to the even number, where MATLAB rounds them
up. So there are two numbers for each pair: the script's, and the one with MATLAB's rounding.
"""

import functools
import json
import os
import runpy
import sys
import tempfile
from pathlib import Path

import numpy as np

from sgbench.core.resize import upscale
from sgbench.data import read_image

FILE = Path(__file__).with_suffix(".json")
SCALE = 4
BENCHMARKS = Path(os.environ.get("SGBENCH_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")


def odd_pairs():
    """Return pairs of SR and HR, uint8 [H, W, 3], by name."""
    rng = np.random.default_rng(0)
    noise, tiny, thin = (
        rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8) for height, width in ((36, 52), (4, 4), (4, 100))
    )
    constant, extreme = (
        np.stack([np.full((20, 24, 3), level, np.uint8) for level in levels]) for levels in ((100, 103), (0, 255))
    )
    return {"noise": noise, "tiny": tiny, "thin": thin, "constant": constant, "extreme": extreme}


@functools.cache
def photographs():
    """Return SR by bicubic, and HR, of the images of Set5 and Set14, by name; none if they are not here."""
    pairs = {}
    for name in ("Set5", "Set14"):
        for path in sorted(BENCHMARKS.glob(f"{name}/HR/*.png")):
            sr = upscale(read_image(path.parents[1] / "LRx4" / path.name), SCALE)
            pairs[f"{name} {path.stem}"] = np.stack([sr, read_image(path)])
    return pairs


def values(script, psnr):
    """Return LR-PSNR of every pair, as `measure.py` computes it with an `imresize.py` of this text."""
    with tempfile.TemporaryDirectory() as folder:
        (file := Path(folder, "imresize.py")).write_text(script, encoding="utf-8")
        imresize = runpy.run_path(str(file))["imresize"]
    pairs = odd_pairs() | photographs()
    return {name: float(psnr(imresize(sr, 1 / SCALE), imresize(gt, 1 / SCALE))) for name, (sr, gt) in pairs.items()}


if __name__ == "__main__":
    from skimage.metrics import peak_signal_noise_ratio

    script = Path(sys.argv[1], "imresize.py").read_text(encoding="utf-8")
    changed = script.replace("np.around(outimg)", "np.floor(outimg + 0.5)")
    found = {"script": values(script, peak_signal_noise_ratio), "rounding_up": values(changed, peak_signal_noise_ratio)}
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
