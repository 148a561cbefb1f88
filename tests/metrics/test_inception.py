import dataclasses
import hashlib
from importlib.metadata import version

import numpy as np
import pytest
import pytorch_fid.inception
import torch

from sgbench.metrics import Image, Runtime
from sgbench.metrics.frechet import fid
from sgbench.metrics.inception import Inception
from sgbench.metrics.kernel import kid, kid_standard
from sgbench.metrics.weights import WEIGHTS, Locator


@pytest.fixture
def inception_file(tmp_path, monkeypatch, inception_weights):
    """A file of random weights that is found where a real one would be, its hash taken for the right one."""
    path = tmp_path / WEIGHTS["inception"].file
    torch.save(inception_weights.state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(WEIGHTS, "inception", dataclasses.replace(WEIGHTS["inception"], sha256=digest))
    return path


def test_reference_pytorch_fid_gives_the_same_features(inception_file, monkeypatch, reference):
    loaded = Locator(inception_file.parent, download=False).load("inception")
    assert loaded.path == inception_file
    monkeypatch.setattr(
        pytorch_fid.inception, "load_state_dict_from_url", lambda url, progress: torch.load(inception_file)
    )
    peer = pytorch_fid.inception.InceptionV3().eval()

    rng = np.random.default_rng(2)
    for size in ((64, 80), (299, 299), (400, 310)):
        pixels = rng.integers(0, 256, (3, *size), dtype=np.uint8)
        with torch.no_grad():
            expected = peer(torch.from_numpy(pixels)[None] / 255)[0].flatten().numpy()
        features = fid.features(Image(pixels), Runtime({"inception": loaded}))
        assert features.shape == (2048,)
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-6)
        share = np.abs(features - expected).max() / np.abs(expected).max()
        reference("fid, kid", f"pytorch-fid {version('pytorch-fid')}, share of a feature", share, 1e-5)


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
