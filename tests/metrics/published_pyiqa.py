"""What pyiqa computes for photographs, and how `published_pyiqa.json` was made.

    python tests/metrics/published_pyiqa.py

It needs pyiqa in the version that the file names. LPIPS's layers are those in the package lpips, and convolutions,
DISTS's weights and NIQE's model those of the catalogue, so that a difference is one of code.
"""

import contextlib
import importlib.metadata
import io
import json
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from sgbench.assets.locator import Locator
from sgbench.core.resize import downscale, upscale

FILE = Path(__file__).with_suffix(".json")
SCALE = 4
SIDE = 200
PLACES = {"astronaut": (40, 130), "chelsea": (60, 120)}
"""Of the photographs that come with scikit-image, the top and the left of what is used."""

WITHOUT_WEIGHTS = (
    *("psnr", "psnry", "ssim", "ssimc", "ms_ssim", "cw_ssim", "fsim", "gmsd", "mad", "nlpd", "vif", "vsi"),
    *("entropy", "piqe"),
)
WITH_WEIGHTS = ("lpips", "dists", "niqe")


def photographs():
    """Return SR and HR, uint8 [3, H, W], by name."""
    from skimage import data

    pairs = {}
    for name, (top, left) in PLACES.items():
        hr = np.ascontiguousarray(getattr(data, name)()[top : top + SIDE, left : left + SIDE])
        sr = upscale(downscale(hr, SCALE), SCALE)
        pairs[name] = tuple(np.ascontiguousarray(image.transpose(2, 0, 1)) for image in (sr, hr))
    return pairs


@contextlib.contextmanager
def _given_files():
    """Let pyiqa find the files that are here, and torchvision's constructors the convolutions."""
    import lpips
    import scipy.io
    import torchvision

    locator = Locator()

    def constructor(name, construct):
        def constructed(*_, **__):
            network = construct(weights=None)
            network.load_state_dict(dict(locator.load(name).state), strict=False)
            return network

        return constructed

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        files = Path(folder, "pyiqa")
        files.mkdir()
        layers = Path(lpips.__file__).parent / "weights" / "v0.1" / "alex.pth"
        (files / "LPIPS_v0.1_alex-df73285e.pth").write_bytes(layers.read_bytes())
        (files / "DISTS_weights-f5e65c96.pth").write_bytes(locator.fetch("dists").read_bytes())
        model = locator.load("niqe").state
        names = {"mu_prisparam": "mu_pris_param", "cov_prisparam": "cov_pris_param"}
        arrays = {theirs: model[ours].numpy() for theirs, ours in names.items()}
        scipy.io.savemat(files / "niqe_modelparameters.mat", arrays)
        torch.hub.set_dir(folder)
        for name in ("alexnet", "vgg16"):
            construct = constructor(name, getattr(torchvision.models, name))
            stack.enter_context(patch.object(torchvision.models, name, construct))
        yield


def main():
    """Write the file."""
    torch.set_num_threads(1)
    values = {}
    with contextlib.redirect_stdout(io.StringIO()), _given_files():
        import pyiqa

        for name in (*WITHOUT_WEIGHTS, *WITH_WEIGHTS):
            metric = pyiqa.create_metric(name, device=torch.device("cpu"))
            values[name] = {}
            for image, pair in photographs().items():
                sr, hr = (torch.tensor(each)[None] / 255 for each in pair)
                values[name][image] = float(metric(sr, hr) if metric.metric_mode == "FR" else metric(sr))
    versions = {name: importlib.metadata.version(name) for name in ("pyiqa", "torch", "timm")}
    FILE.write_text(json.dumps({"versions": versions, "values": values}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
