"""Metrics that are made of others: what they are given, and what they say if a part is missing."""

import re
from collections import Counter
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest

from sgbench.assets.locator import Locator
from sgbench.core.errors import InputError
from sgbench.core.registry import METRICS
from sgbench.core.status import ScoreStatus
from sgbench.metrics import CompositeMetric, ImageMetric, Pair, Suite, Undefined
from sgbench.metrics.ntire import ntire2025

COMMON = {"direction": "higher", "version": "1", "protocol": {"resize": None}, "description": "test", "source": "here"}


@dataclass(frozen=True, kw_only=True)
class Brightness(ImageMetric):
    """Of SR; undefined for black."""

    calls: Counter

    def score(self, pair, runtime):
        self.calls[self.name] += 1
        if not pair.sr.pixels.any():
            raise Undefined("it is black")
        return float(pair.sr.pixels.mean())


@dataclass(frozen=True, kw_only=True)
class Ratio(CompositeMetric):
    """Of the mean of the first part to that of the second, clamped."""

    def combine(self, means):
        one, other = (means[part] for part in self.parts)
        return min(one / other, 3)


@pytest.fixture
def parts(monkeypatch):
    """Metrics ``one`` and ``other``, and how often each was called."""
    monkeypatch.setattr(METRICS, "_loaded", dict(METRICS._loaded))
    calls = Counter()
    METRICS.register("one")(Brightness(name="one", calls=calls, needs_hr=False, **COMMON))
    METRICS.register("other")(Brightness(name="other", calls=calls, **{**COMMON, "version": "2"}))
    return calls


def composite(*names, **fields):
    return METRICS.register("ratio")(Ratio(name="ratio", parts=names, **{**COMMON, **fields}))


def scored(metrics, *levels, has_hr=True):
    suite = Suite(metrics, Locator(download=False), has_hr=has_hr)
    for index, level in enumerate(levels):
        sr = np.full((3, 8, 8), level, np.uint8)
        suite.add(suite.measure(Pair(f"image{index}", sr, sr if has_hr else None, crop=0)))
    return suite.results()


def test_the_value_is_made_of_means_over_the_set(parts):
    composite("one", "other")
    (result,) = scored(["ratio"], 10, 30)
    assert (result.metric, result.image, result.n_images, result.score.value) == ("ratio", None, 2, 1)
    assert parts == {"one": 2, "other": 2}


@pytest.mark.parametrize("order", [("ratio", "one"), ("one", "ratio")])
def test_a_part_that_is_asked_for_is_computed_once(parts, order):
    composite("one", "other")
    results = scored(order, 10, 30)
    assert [(each.metric, each.image) for each in results] == [("one", "image0"), ("one", "image1"), ("ratio", None)]
    assert parts == {"one": 2, "other": 2}


def test_versions_and_networks_of_the_parts_are_its_own(parts, monkeypatch):
    metric = composite("one", "other", networks=("dists",))
    assert re.fullmatch(r"1 \(one: 1, code [0-9a-f]{12}, other: 2, code [0-9a-f]{12}\)", metric.version)
    assert metric.networks == ("dists",)
    assert metric.protocol == {"resize": None}
    METRICS._loaded.pop("ratio")
    assert composite("one", "lpips_alex").networks == ("alexnet",)


def test_a_part_that_does_not_exist_is_named(parts):
    metric = composite("one", "absent")
    assert metric.version.endswith(", absent: missing)")
    (result,) = scored(["ratio"], 10)
    assert result.score.status == ScoreStatus.NO_WEIGHTS
    assert result.score.reason.startswith("it lacks absent; unknown metric 'absent'")
    assert metric.unavailable == ("absent",)


def test_a_part_without_a_value_for_an_image_is_named(parts):
    composite("one", "other")
    (result,) = scored(["ratio"], 10, 0)
    assert result.score.status == ScoreStatus.UNDEFINED
    assert result.score.reason == "it lacks one and other: image 'image1': it is black"


def test_an_image_that_failed_fails_the_whole(parts):
    composite("one", "other")
    suite = Suite(["ratio"], Locator(download=False))
    suite.add(suite.failed("image0", "it is damaged"))
    (result,) = suite.results()
    assert result.score.status == ScoreStatus.FAILED
    assert "image 'image0': it is damaged" in result.score.reason


def test_without_hr_no_part_is_computed(parts):
    composite("one", "other")
    (result,) = scored(["ratio"], 10, has_hr=False)
    assert result.score.status == ScoreStatus.NEEDS_HR
    assert not parts


def test_without_images_there_is_no_value(parts):
    composite("one", "other")
    assert scored(["ratio"])[0].score.reason == "there are no images"


def test_a_part_must_be_a_metric_of_images(parts):
    with pytest.raises(InputError, match="parts is 'fid'; a metric of images is needed"):
        composite("one", "fid")


def test_ntire2025_is_the_challenges_formula():
    values = {"lpips_alex": 0.2, "dists": 0.1, "pyiqa:clipiqa": 0.5, "pyiqa:maniqa": 0.4, "pyiqa:musiq": 60, "niqe": 4}
    assert tuple(values) == ntire2025.parts
    assert ntire2025.combine(values) == pytest.approx(0.8 + 0.9 + 0.5 + 0.4 + 0.6 + 0.6)
    assert ntire2025.combine({**values, "niqe": 12}) == pytest.approx(0.8 + 0.9 + 0.5 + 0.4 + 0.6)


def test_ntire2025_says_what_it_lacks(places_without_weights):
    (result,) = scored(["ntire2025"], 10, 20)
    assert result.score.status == ScoreStatus.NO_WEIGHTS
    assert result.score.reason.startswith(
        "it lacks lpips_alex, dists, pyiqa:clipiqa, pyiqa:maniqa, pyiqa:musiq and niqe: "
    )
    assert "; dists: the dists weights are not available locally: " in result.score.reason
    assert "pyiqa:clipiqa, pyiqa:maniqa and pyiqa:musiq: metrics 'pyiqa:…' need pyiqa" in result.score.reason


@pytest.fixture
def places_without_weights(tmp_path, monkeypatch):
    for variable, folder in product(("SGBENCH_CACHE", "TORCH_HOME"), [tmp_path]):
        monkeypatch.setenv(variable, str(folder))
    monkeypatch.delenv("SGBENCH_WEIGHTS", raising=False)
