"""`fd_dinov2` beside the code of others, on a small network with their numbers."""

import json
from pathlib import Path

import dinov2_references as references
import numpy as np
import pytest

from sgbench.assets.base import LoadedWeights
from sgbench.assets.locator import Locator
from sgbench.metrics import Image, Runtime
from sgbench.metrics.frechet import fd_dinov2
from sgbench.spec import Recipe
from sgbench.testing import outcomes
from sgbench.testing.metrics import MetricTrial

EXPECTED = json.loads(references.FILE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def features():
    weights = LoadedWeights("small", Path("small.pth"), references.small_state())
    runtime = Runtime({"dinov2": weights})
    hr, sr = (
        np.stack([fd_dinov2.features(Image(each.transpose(2, 0, 1)), runtime) for each in found])
        for found in references.images()
    )
    return {"hr": hr, "sr": sr}


@pytest.mark.parametrize("images", ["hr", "sr"])
def test_reference_dgm_eval_gives_the_same_features(features, images):
    assert features[images] == pytest.approx(np.array(EXPECTED[images]), abs=2e-6)


def test_reference_dgm_eval_gives_the_same_distance(features):
    distance = fd_dinov2.distance(features["sr"], features["hr"])
    assert distance == pytest.approx(EXPECTED["distance"], abs=fd_dinov2.difference)


def test_it_keeps_the_rules_for_metrics(monkeypatch):
    weights = LoadedWeights("small", Path("small.pth"), references.small_state())
    monkeypatch.setattr(Locator, "load", lambda self, name: {"dinov2": weights}[name])
    trial = MetricTrial("fd_dinov2", Recipe())
    assert {str(each.check): each.said for each in outcomes(trial.checks()) if not each.passed} == {}
