"""What the published code of DISTS computes, and how `published_dists.json` was made.

    python tests/perceptual/published_dists.py FOLDER

FOLDER is the unpacked wheel of DISTS-pytorch 0.1 from the package index, whose code is used as it is; it is given our
VGG-16, since it would download torchvision's. Its numbers are computed in float64, because in float32 it subtracts
large numbers that are almost equal. Numbers that go in are made here, from seeds alone.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torchvision
from torchvision.models.vgg import vgg16

FILE = Path(__file__).with_suffix(".json")
DIRECTIONS = 8
"""In which slopes are taken, instead of a whole gradient."""
CHANNELS = 3 + 64 + 128 + 256 + 512 + 512
SIZES = ((64, 83), (31, 31), (45, 120))
"""Height and width of the images for a metric."""


def uniform(seed, *shape):
    """Return numbers from 0 to 1."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def random_vgg16():
    """Return random convolutions of VGG-16, of a size that keeps the values of its layers alike, by their names."""
    with torch.device("meta"):
        shapes = {name: each.shape for name, each in vgg16().features.state_dict().items()}
    state = {}
    for seed, (name, shape) in enumerate(shapes.items()):
        scale = (6 / torch.Size(shape[1:]).numel()) ** 0.5 if len(shape) > 1 else 0.1
        state[f"features.{name}"] = (uniform(seed, *shape) * 2 - 1) * scale
    return state


def random_weights():
    """Return random α and β, by their names."""
    return {name: 0.01 + uniform(seed, 1, CHANNELS, 1, 1) for seed, name in enumerate(("alpha", "beta"))}


def patches():
    """Return SR and HR for a loss, [2, 3, 24, 24]."""
    return 1.2 * uniform(0, 2, 3, 24, 24) - 0.1, uniform(1, 2, 3, 24, 24)


def images():
    """Return pairs of images for a metric, SR and HR, uint8 [3, H, W]."""
    return [np.random.default_rng(1).integers(0, 256, (2, 3, *size), dtype=np.uint8) for size in SIZES]


def value_and_slopes(function, sr):
    """Return a function's value for SR, and how it changes with SR in random directions."""
    leaf = sr.clone().requires_grad_()
    value = function(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    directions = uniform(2, DIRECTIONS, *leaf.shape) - 0.5
    return {"value": value.item(), "slopes": (gradient * directions).flatten(1).sum(1).tolist()}


def _theirs(state, weights):
    from DISTS_pytorch import DISTS

    with torch.device("meta"):
        network = vgg16()
    network.load_state_dict(state, strict=False, assign=True)
    torchvision.models.vgg16 = lambda pretrained: network
    model = DISTS(load_weights=False)
    model.load_state_dict(weights, strict=False)
    return model.double()


def main(folder):
    """Write `published_dists.json`."""
    from sgbench.assets.locator import Locator

    sys.path.insert(0, folder)
    sr, hr = patches()
    model = _theirs(random_vgg16(), random_weights())
    rows = {"loss": value_and_slopes(lambda leaf: model(leaf.double(), hr.double(), True, True), sr)}
    real = {name: Locator(download=False).load(name).state for name in ("vgg16", "dists")}
    for name, (state, weights) in {"random": (random_vgg16(), random_weights()), "real": tuple(real.values())}.items():
        model = _theirs(state, weights)
        rows[name] = [model(*torch.from_numpy(pair)[:, None].double() / 255).item() for pair in images()]
    FILE.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
