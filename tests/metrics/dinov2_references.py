"""What the code of others computes for `fd_dinov2`, and how `dinov2_references.json` was made.

    python tests/metrics/dinov2_references.py DINOV2 DGM_EVAL

DINOV2 is a checkout of github.com/facebookresearch/dinov2 at commit b8931f7, and DGM_EVAL one of
github.com/layer6ai-labs/dgm-eval at commit 74c79f7, which needs scikit-learn and tqdm. The network is a small one, as
that of DINOv2 has 1.2 GB; its weights, and the images, are made here, from seeds alone.
"""

import importlib
import json
import sys
import types
from pathlib import Path

import numpy as np
import torch
from PIL import Image

FILE = Path(__file__).with_suffix(".json")
WIDTH, DEPTH, HEADS = 128, 2, 2
SIZES = ((224, 224), (61, 37), (301, 500), (16, 300), (1, 1))
"""Heights and widths of images; each is there as HR and as SR."""


def small_state():
    """Return weights under the names of DINOv2's file."""
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 1 + 37**2, WIDTH),
        "mask_token": (1, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, 14, 14),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }
    for block in range(DEPTH):
        for name, shape in {
            "norm1.weight": (WIDTH,),
            "norm1.bias": (WIDTH,),
            "attn.qkv.weight": (3 * WIDTH, WIDTH),
            "attn.qkv.bias": (3 * WIDTH,),
            "attn.proj.weight": (WIDTH, WIDTH),
            "attn.proj.bias": (WIDTH,),
            "ls1.gamma": (WIDTH,),
            "norm2.weight": (WIDTH,),
            "norm2.bias": (WIDTH,),
            "mlp.fc1.weight": (4 * WIDTH, WIDTH),
            "mlp.fc1.bias": (4 * WIDTH,),
            "mlp.fc2.weight": (WIDTH, 4 * WIDTH),
            "mlp.fc2.bias": (WIDTH,),
            "ls2.gamma": (WIDTH,),
        }.items():
            shapes[f"blocks.{block}.{name}"] = shape
    random = np.random.default_rng(0)
    return {name: torch.from_numpy(random.normal(0, 0.3, shape).astype(np.float32)) for name, shape in shapes.items()}


def images():
    """Return the HR images and, as smooth as their noise lets them be, SR images, uint8 [H, W, 3]."""
    random = np.random.default_rng(1)
    found = []
    for height, width in SIZES:
        rows, columns = np.mgrid[:height, :width]
        waves = [120 + 90 * np.sin(rows / (7 + 3 * channel)) * np.cos(columns / (11 - channel)) for channel in range(3)]
        hr = np.stack(waves, axis=-1)
        found.append([(hr + noise * random.normal(size=hr.shape)).clip(0, 255).astype(np.uint8) for noise in (5, 25)])
    return [list(each) for each in zip(*found, strict=True)]


def main(dinov2, dgm_eval):
    """Write `dinov2_references.json`."""
    sys.path[:0] = [dinov2, dgm_eval]
    for package in ("dgm_eval", "dgm_eval.models", "dgm_eval.metrics"):  # whose own modules import every network
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__path__ = [str(Path(dgm_eval, *package.split(".")))]
    encoder, fd = (importlib.import_module(f"dgm_eval.{name}") for name in ("models.dinov2", "metrics.fd"))
    transformer = importlib.import_module("dinov2.models.vision_transformer")

    class Small(encoder.DINOv2Encoder):
        def setup(self):
            self.model = transformer.DinoVisionTransformer(
                img_size=518, patch_size=14, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, init_values=1.0,
                block_chunks=0, block_fn=lambda **options: transformer.Block(**options),
            )  # fmt: skip
            self.model.load_state_dict(small_state())
            self.clean_resize = False

    network = Small().eval()
    with torch.no_grad():
        hr, sr = (
            np.stack([network(network.transform(Image.fromarray(each))[None])[0].numpy() for each in found])
            for found in images()
        )
    answer = {"hr": _short(hr), "sr": _short(sr), "distance": fd.compute_efficient_FD_with_reps(hr, sr)}
    FILE.write_text(json.dumps(answer) + "\n", encoding="utf-8")


def _short(values):
    """Return float32 numbers with as many digits as they have."""
    return [[float(str(value)) for value in row] for row in values]


if __name__ == "__main__":
    main(*sys.argv[1:])
