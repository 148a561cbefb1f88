"""DISTS as a loss and as a metric, compared with the code of its authors."""

import json
from pathlib import Path

import pytest
from published_dists import FILE, images, patches, random_vgg16, random_weights, value_and_slopes

from sgbench.assets.base import LoadedWeights
from sgbench.assets.locator import Locator
from sgbench.assets.tensors import fingerprint
from sgbench.losses import build_loss
from sgbench.metrics import Pair, Runtime
from sgbench.metrics.dists import dists
from sgbench.spec import check_loss

PEER = "DISTS-pytorch 0.1"
PUBLISHED = json.loads(FILE.read_text())


@pytest.fixture(scope="module")
def random():
    """VGG-16, α and β with the random numbers for which the published values are known."""
    states = {"vgg16": random_vgg16(), "dists": random_weights()}
    return {name: LoadedWeights(fingerprint(state), Path("random"), state) for name, state in states.items()}


def pairs():
    return [Pair("noise", *pair, 4) for pair in images()]


def assert_equals_peer(runtime, values, agreement, weights):
    for pair, expected in zip(pairs(), values, strict=True):
        assert expected > 0.01
        agreement("dists", f"{PEER}, {weights} weights", abs(dists.score(pair, runtime) - expected), 1e-6)


def test_reference_dists_pytorch_gives_the_same_score_with_random_weights(random, agreement):
    assert_equals_peer(Runtime(random), PUBLISHED["random"], agreement, "random")


def test_reference_dists_pytorch_gives_the_same_score_with_the_real_weights(agreement):
    locator = Locator(download=False)
    if not all(map(locator.find, dists.networks)):
        pytest.skip("the weights are not on this machine: `sgbench weights fetch vgg16 dists` brings them")
    assert_equals_peer(
        Runtime({name: locator.load(name) for name in dists.networks}), PUBLISHED["real"], agreement, "real"
    )


def test_reference_dists_pytorch_gives_the_same_loss_and_gradient(random, monkeypatch):
    monkeypatch.setattr(Locator, "load", lambda self, name: random[name])
    loss = build_loss(check_loss("dists")).losses[0]
    sr, hr = patches()
    expected = PUBLISHED["loss"]
    found = value_and_slopes(lambda leaf: loss(leaf.double(), hr.double()), sr)  # as the published ones are computed
    assert found["value"] == pytest.approx(expected["value"], abs=1e-7)  # which rounds some numbers to float32
    assert found["slopes"] == pytest.approx(expected["slopes"], abs=1e-4 * max(map(abs, expected["slopes"])))
    kind, most = type(loss), max(map(abs, expected["slopes"]))
    assert kind.reference == PEER
    single = value_and_slopes(lambda leaf: loss(leaf, hr), sr)
    assert single["value"] == pytest.approx(expected["value"], rel=kind.difference)
    assert single["slopes"] == pytest.approx(expected["slopes"], abs=kind.difference * most)


def test_an_image_against_itself_is_at_distance_zero(random):
    pair = pairs()[0]
    assert dists.score(Pair("same", pair.hr, pair.hr, 4), Runtime(random)) == 0


def test_an_image_that_is_too_large_to_be_kept_and_the_size_of_parts_do_not_matter(random, monkeypatch):
    expected = dists.score(pairs()[0], Runtime(random))
    monkeypatch.setattr("sgbench.metrics.feature_maps.KEPT_BYTES", 0)
    monkeypatch.setattr("sgbench.metrics.feature_maps.STRIP_BYTES", 200_000)
    pair = pairs()[0]
    pair.hr.keep_views(kept := {})
    assert dists.score(pair, Runtime(random)) == pytest.approx(expected, abs=1e-6)
    assert not kept
