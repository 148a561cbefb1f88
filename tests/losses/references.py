"""What the code of others computes for the losses that we have too, and how `references.json` was made.

    python tests/losses/references.py FOLDER

It needs the packages kornia, pytorch-msssim and focal-frequency-loss in the versions that the file names, and in
FOLDER, as they are, `basic_loss.py` and `loss_util.py` of basicsr 1.4.2 (from the package index), and `losses.py` of
github.com/sunny2109/SAFMN at commit abe5ffd. Numbers that go in are made here, from seeds alone.
"""

import importlib.metadata
import importlib.util
import json
import sys
import types
from pathlib import Path

import torch
from torch.nn.functional import interpolate, l1_loss

from sgbench.losses import Batch

FILE = Path(__file__).with_suffix(".json")
SCALE = 4
DIRECTIONS = 8
"""In which slopes are taken, instead of a whole gradient."""


def uniform(seed, *shape):
    """Return numbers from 0 to 1."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def batch(side):
    """Return two images of some size, smooth enough for structures to be alike, as a loss is given them."""
    hr = uniform(0, 2, 3, side, side).cumsum(-1).frac()
    sr, average_sr = (hr + 0.2 * (uniform(seed, *hr.shape) - 0.5) for seed in (1, 2))
    lr = interpolate(hr, scale_factor=1 / SCALE, mode="area") + 0.1 * uniform(3, 2, 3, side // SCALE, side // SCALE)
    return Batch(lr, sr, hr, SCALE, step=0, steps=1, average_sr=average_sr)


def value_and_slopes(function, given):
    """Return a function's value for the SR of a batch, and how it changes with SR in random directions."""
    leaf = given.sr.clone().requires_grad_()
    value = function(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    directions = uniform(4, DIRECTIONS, *leaf.shape) - 0.5
    return value.item(), (gradient * directions).flatten(1).sum(1).tolist()


def difference(found, expected):
    """Return the largest relative difference of values and of slopes; the latter relative to the largest slope."""
    (value, slopes), (their_value, their_slopes) = found, expected
    of_slopes = max(abs(one - other) for one, other in zip(slopes, their_slopes, strict=True))
    return max(abs(value - their_value) / abs(their_value), of_slopes / max(map(abs, their_slopes)))


def _loaded(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _of_repositories(folder):
    """Return the modules of losses of BasicSR and of SAFMN."""
    for package in ("basicsr", "basicsr.archs", "basicsr.archs.vgg_arch", "basicsr.utils", "basicsr.utils.registry"):
        sys.modules[package] = types.ModuleType(package)
    sys.modules["basicsr.archs.vgg_arch"].VGGFeatureExtractor = None
    registry = types.SimpleNamespace(register=lambda: lambda entry: entry)
    sys.modules["basicsr.utils.registry"].LOSS_REGISTRY = registry
    modules = []
    for file in ("basic_loss", "losses"):
        sys.modules[f"of_{file}"] = types.ModuleType(f"of_{file}")
        sys.modules[f"of_{file}"].__path__ = [str(folder)]
        modules.append(_loaded(f"of_{file}.{file}", folder / f"{file}.py"))
    return modules


def main(folder):
    """Write `references.json`."""
    import kornia
    from focal_frequency_loss import FocalFrequencyLoss
    from pytorch_msssim import ms_ssim, ssim

    basicsr, safmn = _of_repositories(Path(folder))
    versions = {name: importlib.metadata.version(name) for name in ("kornia", "pytorch-msssim", "focal-frequency-loss")}
    named = {name: f"{name} {version}" for name, version in versions.items()}
    exponents = torch.tensor([0.0448, 0.2856, 0.3001])
    three = (exponents / exponents.sum() * 1.0001).tolist()

    def sobel(image, order):
        for _ in range(order):
            image = kornia.filters.sobel(image, normalized=False, eps=1e-8)
        return image

    def laplacian(image):
        return kornia.filters.laplacian(image, 3, border_type="replicate", normalized=False)

    def shrunk(image):
        return interpolate(image, scale_factor=1 / SCALE, mode="bicubic", antialias=True)[..., 2:-2, 2:-2]

    def artifacts(sr, of):
        weights = sys.modules["of_basic_loss.loss_util"].get_refined_artifact_map(of.hr, sr, of.average_sr, 7)
        return l1_loss(weights * sr, weights * of.hr)

    def by(reference, function, side=32):
        given = batch(side)
        value, slopes = value_and_slopes(lambda sr: function(sr, given), given)
        return {"reference": reference, "side": side, "value": value, "slopes": slopes}

    def focal(**options):
        loss = FocalFrequencyLoss(**options)
        return by(named["focal-frequency-loss"], lambda sr, of: loss(sr, of.hr))

    rows = {
        "charbonnier": by("basicsr 1.4.2", lambda sr, of: basicsr.CharbonnierLoss(eps=1e-6)(sr, of.hr)),
        "consistency": by(
            f"torch {torch.__version__.split('+')[0]}", lambda sr, of: l1_loss(shrunk(sr), of.lr[..., 2:-2, 2:-2])
        ),
        "fft(norm=backward)": by("SAFMN abe5ffd", lambda sr, of: safmn.FFTLoss()(sr, of.hr)),
        "focal_frequency": focal(),
        "focal_frequency(alpha=2, log=true)": focal(alpha=2, log_matrix=True),
        "gradient(operator=sobel-raw)": by(named["kornia"], lambda sr, of: l1_loss(sobel(sr, 1), sobel(of.hr, 1))),
        "l1": by("basicsr 1.4.2", lambda sr, of: basicsr.L1Loss()(sr, of.hr)),
        "l2": by("basicsr 1.4.2", lambda sr, of: basicsr.MSELoss()(sr, of.hr)),
        "laplacian(neighbours=8)": by(named["kornia"], lambda sr, of: l1_loss(laplacian(sr), laplacian(of.hr))),
        "ldl": by("basicsr 1.4.2", artifacts),
        "ms_ssim": by(named["pytorch-msssim"], lambda sr, of: 1 - ms_ssim(sr, of.hr, data_range=1), side=176),
        "ms_ssim(scales=3)": by(
            named["pytorch-msssim"], lambda sr, of: 1 - ms_ssim(sr, of.hr, data_range=1, weights=three), side=176
        ),
        "sg(operator=sobel-raw)": by(named["kornia"], lambda sr, of: l1_loss(sobel(sr, 2), sobel(of.hr, 2))),
        "ssim": by(named["pytorch-msssim"], lambda sr, of: 1 - ssim(sr, of.hr, data_range=1)),
        "tv": by("basicsr 1.4.2", lambda sr, of: basicsr.WeightedTVLoss()(sr)),
    }
    FILE.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
