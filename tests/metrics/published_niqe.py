"""What BasicSR's code computes as NIQE, and how `published_niqe.json` was made.

    python tests/metrics/published_niqe.py FOLDER

FOLDER is the unpacked source archive of basicsr 1.4.2 from the package index, whose `niqe.py` is used. It halves an
image by products of torch in float32, whose last bits are those of the machine; where much of an image is flat, the
third decimal of NIQE depends on them. So there are two numbers for each image: the code's as it is, and the one with
these sums in float64. Besides the model in that archive there is a random one, made here from a seed.
"""

import importlib.util
import json
import os
import sys
import types
import warnings
from pathlib import Path

import numpy as np

from sgbench.core.resize import shrunk, upscale
from sgbench.data import read_image

FILE = Path(__file__).with_suffix(".json")
SCALE = 4
BENCHMARKS = Path(os.environ.get("SGBENCH_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
FEATURES = 36


def random_model():
    """Return a random mean and covariance, by the names in BasicSR's file."""
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(FEATURES, 2 * FEATURES)) / 10
    return {"mu_pris_param": rng.random((1, FEATURES)), "cov_pris_param": factor @ factor.T}


def odd_images():
    """Return images, uint8 [H, W, 3], by name; the smallest one has two blocks inside its border."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:211, :307]
    waves = np.stack([np.sin(rows / (5 + channel) + columns / (9 - channel)) for channel in range(3)], axis=2)
    waves = (128 + 100 * waves + rng.normal(0, 8, waves.shape)).clip(0, 255).astype(np.uint8)
    flat = waves.copy()
    flat[:, :150] = (250, 251, 249)
    return {
        "noise": rng.integers(0, 256, (223, 331, 3), dtype=np.uint8),
        "waves": waves,
        "half flat": flat,
        "extreme": 255 * rng.integers(0, 2, (205, 297, 3), dtype=np.uint8),
        "smallest": rng.integers(100, 156, (200, 104, 3), dtype=np.uint8),
    }


def photographs():
    """Return HR, and its upscaling by bicubic, of the images of Set5 and Set14, by name; none if they are not here."""
    images = {}
    for name in ("Set5", "Set14"):
        for path in sorted(BENCHMARKS.glob(f"{name}/HR/*.png")):
            images[f"{name} {path.stem}"] = read_image(path)
            images[f"{name} {path.stem} bicubic"] = upscale(read_image(path.parents[1] / "LRx4" / path.name), SCALE)
    return images


def _module(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def basicsr_niqe(folder):
    """Return the module of BasicSR without the rest of its package, which needs OpenCV and more."""
    root = Path(folder, "basicsr")
    for package in ("cv2", "basicsr", "basicsr.metrics"):
        sys.modules[package] = types.ModuleType(package)
    _module("basicsr.utils", root / "utils" / "color_util.py")
    _module("basicsr.utils.matlab_functions", root / "utils" / "matlab_functions.py")
    _module("basicsr.utils.registry", root / "utils" / "registry.py")
    _module("basicsr.metrics.metric_util", root / "metrics" / "metric_util.py")
    return _module("basicsr.metrics.niqe", root / "metrics" / "niqe.py")


def values(theirs, images, model):
    """Return the value of each image as `calculate_niqe` does, which always has the real model."""
    arguments = [model[name] for name in ("mu_pris_param", "cov_pris_param", "gaussian_window")]
    found = {}
    for name, image in images.items():
        luma = theirs.to_y_channel(image[..., ::-1]).squeeze()[SCALE:-SCALE, SCALE:-SCALE]
        found[name] = theirs.niqe(luma.round(), *arguments)
    return found


def _halved(image, scale, antialiasing):
    assert (scale, antialiasing) == (0.5, True)
    return shrunk(image.astype(np.float64), 2).astype(np.float32)


if __name__ == "__main__":
    theirs = basicsr_niqe(sys.argv[1])
    real = dict(np.load(Path(sys.argv[1], "basicsr", "metrics", "niqe_pris_params.npz")))
    tasks = {"random": (odd_images(), real | random_model()), "real": (odd_images() | photographs(), real)}
    rows = {}
    warnings.simplefilter("ignore", RuntimeWarning)
    for variant in ("as it is", "halving in float64"):
        for name, (images, model) in tasks.items():
            rows[f"{name}, {variant}"] = values(theirs, images, model)
        theirs.imresize = _halved
    FILE.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
