"""Metrics of the library torchmetrics: what is handed to it, and what a person is told."""

import json
import sys

import numpy as np
import pytest
from torchmetrics.functional import image as functional

from sgbench.core.errors import InputError
from sgbench.core.registry import METRICS
from sgbench.metrics import Pair, Runtime, Undefined
from sgbench.metrics.from_torchmetrics import FUNCTIONS, TorchMetric
from sgbench.spec import check_metrics

each_metric = pytest.mark.parametrize("name", FUNCTIONS)


def load(name: str) -> TorchMetric:
    metric = METRICS.load(f"torchmetrics:{name}")
    assert isinstance(metric, TorchMetric)
    return metric


def pair(noise: float, height: int = 190, width: int = 184) -> Pair:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    waves = 128 + 60 * np.sin(rows / 3 + columns / 7) + 30 * np.cos(columns / 2)
    hr = np.stack([waves, waves[::-1], 255 - waves])
    sr = hr + rng.normal(0, noise, hr.shape) if noise else hr
    return Pair("waves", sr.clip(0, 255).astype(np.uint8), hr.astype(np.uint8), 4)


@each_metric
def test_the_better_image_has_the_better_value(name: str) -> None:
    metric = load(name)
    near, far = (metric.score(pair(noise), Runtime()) for noise in (5, 25))
    assert metric.direction == "higher"
    assert 1 > near > far > 0


@each_metric
def test_a_perfect_image_has_the_best_value(name: str) -> None:
    assert load(name).score(pair(0), Runtime()) == pytest.approx(1, abs=1e-3)


@each_metric
def test_the_border_is_left_out(name: str) -> None:
    images = pair(20)
    expected = load(name).score(images, Runtime())
    images.sr.pixels[:, :4] = images.sr.pixels[:, :, -4:] = 0
    assert load(name).score(images, Runtime()) == expected


@each_metric
def test_a_metric_says_what_it_is(name: str) -> None:
    metric = load(name)
    assert check_metrics([metric.name]) == (f"torchmetrics:{name}",)
    assert metric.version.startswith("torchmetrics ")
    assert metric.description
    assert metric.source
    assert json.loads(json.dumps(metric.protocol)) == metric.protocol
    assert metric.protocol["implementation"].rpartition(".")[2] in vars(functional)


@each_metric
def test_the_smallest_image_that_it_can_take(name: str) -> None:
    metric, smallest = load(name), FUNCTIONS[name].smallest
    assert np.isfinite(metric.score(pair(5, smallest + 8, smallest + 8), Runtime()))
    with pytest.raises(Undefined, match=f"{smallest}×{smallest - 1} pixels are left .* at least {smallest}×{smallest}"):
        metric.score(pair(5, smallest + 7, smallest + 8), Runtime())


def test_what_divides_0_by_0_is_undefined() -> None:
    flat = np.zeros((3, 64, 64), np.uint8)
    with pytest.raises(Undefined, match=r"^torchmetrics:vif divides 0 by 0, as for constant images$"):
        load("vif").score(Pair("flat", flat, flat, crop=4), Runtime())


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InputError, match="unknown metric of torchmetrics 'viff': did you mean 'vif'"):
        METRICS.load("torchmetrics:viff")


def test_without_torchmetrics_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    monkeypatch.setitem(sys.modules, "torchmetrics.functional", None)
    monkeypatch.setattr(METRICS, "_loaded", {})
    with pytest.raises(InputError, match=r"need torchmetrics .* pip install 'sgbench\[torchmetrics\]'"):
        METRICS.load("torchmetrics:vif")
