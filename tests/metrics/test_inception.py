import dataclasses
import hashlib
import inspect
from importlib.metadata import version

import numpy as np
import pytest
import pytorch_fid.fid_score
import pytorch_fid.inception
import scipy.linalg
import torch

from sgbench.assets.catalogue import NETWORKS
from sgbench.assets.locator import Locator
from sgbench.data import list_images, read_image, write_png
from sgbench.metrics import Image, Pair, Runtime, Suite
from sgbench.metrics.frechet import fid
from sgbench.metrics.inception_network import Inception
from sgbench.metrics.kernel import kid, kid_standard

PEER = f"pytorch-fid {version('pytorch-fid')}"

SQRTM_SUITS = "disp" in inspect.signature(scipy.linalg.sqrtm).parameters
"""Whether pytorch-fid's distance runs."""


@pytest.fixture
def inception_file(tmp_path, monkeypatch, inception_weights):
    """A file of random weights, its hash taken for the right one, from which pytorch-fid reads too."""
    path = tmp_path / NETWORKS.load("inception").file
    torch.save(inception_weights.state, path)
    monkeypatch.setattr(pytorch_fid.inception, "load_state_dict_from_url", lambda url, progress: torch.load(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(NETWORKS._loaded, "inception", dataclasses.replace(NETWORKS.load("inception"), sha256=digest))
    return path


def test_reference_pytorch_fid_gives_the_same_features(inception_file, agreement):
    loaded = Locator(inception_file.parent, download=False).load("inception")
    assert loaded.path == inception_file
    peer = pytorch_fid.inception.InceptionV3().eval()

    rng = np.random.default_rng(2)
    seen = []
    for size in ((64, 80), (299, 299), (400, 310)):
        pixels = rng.integers(0, 256, (3, *size), dtype=np.uint8)
        with torch.no_grad():
            expected = peer(torch.from_numpy(pixels)[None] / 255)[0].flatten().numpy()
        features = fid.features(Image(pixels), Runtime({"inception": loaded}))
        assert features.shape == (2048,)
        np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-6)
        seen.append(expected)
        share = np.abs(features - expected).max() / np.abs(expected).max()
        agreement("fid, kid", f"{PEER}, share of a feature", share, 1e-5)
    assert np.std(seen, axis=0).mean() > 1e-2  # the features depend on the image


@pytest.fixture
def _in_the_span_of_features(monkeypatch):
    """Let pytorch-fid compute its distance in the span of the features, where it is the same and takes milliseconds."""
    distance = pytorch_fid.fid_score.calculate_frechet_distance

    def projected(mu1, sigma1, mu2, sigma2):
        columns = np.random.default_rng(0).normal(size=(len(mu1), 8))
        basis, _ = np.linalg.qr(np.column_stack([sigma1 @ columns, sigma2 @ columns, mu1 - mu2]))
        for sigma in (sigma1, sigma2):
            np.testing.assert_allclose(basis @ (basis.T @ sigma), sigma, atol=1e-9 * np.abs(sigma).max())
        return distance(
            *(part for mu, sigma in ((mu1, sigma1), (mu2, sigma2)) for part in (mu @ basis, basis.T @ sigma @ basis))
        )

    monkeypatch.setattr(pytorch_fid.fid_score, "calculate_frechet_distance", projected)


@pytest.mark.usefixtures("_in_the_span_of_features")
@pytest.mark.skipif(not SQRTM_SUITS, reason="pytorch-fid needs SciPy < 1.18")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Matrix is")
def test_reference_pytorch_fid_gives_the_same_fid_of_the_same_files(inception_file, test_folder, tmp_path, agreement):
    suite = Suite(["fid"], Locator(inception_file.parent, download=False))
    for path in list_images(test_folder):
        hr = read_image(path)
        sr = np.clip(hr + np.random.default_rng(0).normal(0, 20, hr.shape), 0, 255).astype(np.uint8)
        write_png(tmp_path / "sr" / path.name, sr)
        suite.add(suite.measure(Pair(path.stem, sr.transpose(2, 0, 1), hr.transpose(2, 0, 1), 4)))
    folders = [str(tmp_path / "sr"), str(test_folder)]
    expected = pytorch_fid.fid_score.calculate_fid_given_paths(
        folders, batch_size=1, device="cpu", dims=2048, num_workers=0
    )
    assert expected > 1
    (result,) = suite.results()
    agreement("fid", f"{PEER}, the same files", abs(result.score.value - expected) / expected, 1e-3)


def test_an_image_goes_through_the_network_once_for_all_metrics(inception_weights):
    runtime = Runtime({"inception": inception_weights})
    image = Image(np.random.default_rng(0).integers(0, 256, (3, 40, 30), dtype=np.uint8))
    features = fid.features(image, runtime)
    assert features.dtype == np.float64
    assert kid.features(image, runtime) is features
    assert kid_standard.features(image, runtime) is features


def test_inception_refuses_another_networks_tensors():
    with pytest.raises(RuntimeError, match="Missing key"):
        Inception({})
