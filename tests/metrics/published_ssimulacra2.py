"""What the tool of its authors computes as SSIMULACRA 2.1, and how `published_ssimulacra2.json` was made.

    python tests/metrics/published_ssimulacra2.py TOOL EXACT FOLDER

TOOL is `build/ssimulacra2` of the repository cloudinary/ssimulacra2 at commit 81feacf, built with GCC 12 and highway
1.0.3, and run on a processor with AVX-512. EXACT is the same with `published_ssimulacra2.patch`, by which its recursive
Gaussian filter computes in float64. None stands for an image that it refuses. FOLDER is the unpacked wheel of
ssimulacra2 0.3.0 from the package index, which blurs otherwise at borders and is no reference.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from published_lr_psnr import odd_pairs, photographs

FILE = Path(__file__).with_suffix(".json")


def pairs():
    """Return pairs of SR and HR, uint8 [H, W, 3], by name: odd ones, photographs, and some that differ little."""
    found = odd_pairs() | photographs()
    return found | {f"{name} in steps of 4": (hr & 252, hr) for name, (_, hr) in found.items() if "Set5" in name}


def value(score, sr, hr):
    """Return the score of a pair by a function of two files."""
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/{name}.png" for name in ("hr", "sr")]
        for file, image in zip(files, (hr, sr), strict=True):
            Image.fromarray(image).save(file)
        return score(*files)


def printed_by(tool):
    """Return a function of two files that gives what a tool prints, or None if it refuses them."""

    def score(*files):
        ended = subprocess.run([tool, *files], check=False, capture_output=True, text=True)
        return float(ended.stdout) if ended.returncode == 0 else None

    return score


if __name__ == "__main__":
    tool, exact, folder = sys.argv[1:]
    sys.path.insert(0, folder)
    from ssimulacra2 import compute_ssimulacra2

    scores = {"tool": printed_by(tool), "exact": printed_by(exact), "wheel": compute_ssimulacra2}
    found = {of: {name: value(score, *pair) for name, pair in pairs().items()} for of, score in scores.items()}
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
