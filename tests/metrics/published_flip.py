"""What NVIDIA's own package computes as LDR-FLIP, and how `published_flip.json` was made.

    python tests/metrics/published_flip.py FOLDER

FOLDER is the unpacked wheel of flip-evaluator 1.7 from the package index. It adds up its error map in float32, which is
off by up to 1e-5. So there are two numbers for each pair: its mean, and the mean of its map in float64.
"""

import json
import sys
from pathlib import Path

import numpy as np
from published_lr_psnr import odd_pairs, photographs

FILE = Path(__file__).with_suffix(".json")

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    from flip_evaluator import evaluate

    found = {"mean": {}, "map": {}}
    for name, pair in (odd_pairs() | photographs()).items():
        sr, hr = (np.float32(image) / np.float32(255) for image in pair)
        errors, mean, _ = evaluate(hr, sr, "LDR", applyMagma=False)
        found["mean"][name], found["map"][name] = mean, float(errors.mean(dtype=np.float64))
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
