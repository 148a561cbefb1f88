import json
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import sgbench
from sgbench.assets.base import LoadedWeights, MissingWeights
from sgbench.core.errors import InputError
from sgbench.core.registry import METRICS
from sgbench.core.status import ScoreStatus
from sgbench.metrics import (
    CompositeMetric,
    Estimate,
    Image,
    ImageMetric,
    Pair,
    Score,
    SetMetric,
    Suite,
    Undefined,
    incomplete,
)

COMMON = {
    "direction": "lower",
    "version": "1",
    "protocol": {"implementation": "test"},
    "description": "a test",
    "source": "nobody",
}


@dataclass(frozen=True, kw_only=True)
class OneNumber(ImageMetric):
    value: float | Exception

    def score(self, pair, runtime):
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


@dataclass(frozen=True, kw_only=True)
class MeanColour(SetMetric):
    seen: list

    def features(self, image, runtime):
        self.seen.append(image.digest)
        if image.pixels.max() == 255:
            raise RuntimeError("too bright")
        return image.pixels.mean(axis=(1, 2))

    def distance(self, sr, hr):
        if len(sr) < 2:
            raise Undefined("one image is not enough")
        return float(np.abs(sr.mean(axis=0) - hr.mean(axis=0)).sum())


class NoWeights:
    def __init__(self):
        self.asked = []

    def load(self, name):
        self.asked.append(name)
        raise MissingWeights(f"bring {name}")


@pytest.fixture
def add_metric(monkeypatch):
    def add(metric):
        monkeypatch.setitem(METRICS._loaded, metric.name, metric)
        return metric

    return add


def flat(value, height=20, width=24):
    return np.full((3, height, width), value, np.uint8)


@pytest.mark.parametrize("name", METRICS.names())
def test_every_metric_says_what_it_is(name):
    metric = METRICS.load(name)
    assert metric.name == name
    assert metric.direction == ("higher" if name.startswith(("psnr", "ssim", "lr_psnr", "ntire")) else "lower")
    assert sum(isinstance(metric, kind) for kind in (ImageMetric, SetMetric, CompositeMetric)) == 1
    assert metric.version
    assert metric.description
    assert metric.source
    assert json.loads(json.dumps(metric.protocol)) == metric.protocol
    keys = {"implementation", "colour_space", "value_range", "border_crop", "resize"}
    if isinstance(metric, CompositeMetric):
        keys |= {"formula"}
    elif metric.networks:
        keys |= {"network"}
    assert set(metric.protocol) == keys


@pytest.mark.parametrize(
    ("field", "value", "needed"),
    [
        ("name", "my metric", "a text without spaces and slashes"),
        ("name", "", "a text without spaces and slashes"),
        ("name", "../x", "a text without spaces and slashes"),
        ("direction", "up", "'lower' or 'higher'"),
        ("version", 1, "a text"),
        ("description", None, "a text"),
        ("source", None, "a text"),
        ("unit", None, "a text"),
        ("digits", -1, "a number from 0 to 15, or None,"),
        ("digits", 2.0, "a number from 0 to 15, or None,"),
        ("rank", "first", "an integer"),
        ("needs_hr", 0, "True or False"),
        ("needs_lr", "yes", "True or False"),
        ("protocol", {"range": {1, 2}}, "a mapping that JSON can hold"),
        ("protocol", {"peak": float("inf")}, "a mapping that JSON can hold"),
        ("protocol", "RGB", "a mapping that JSON can hold"),
    ],
)
def test_what_a_metric_says_of_itself_is_checked(field, value, needed):
    fields = {"name": "one", "value": 1.0, **COMMON, field: value}
    with pytest.raises(InputError, match=re.escape(f": {field} is {value!r}; {needed} is needed.")):
        OneNumber(**fields)


def test_a_metric_of_sets_needs_hr_alone():
    with pytest.raises(InputError, match="needs_hr is False; True, as for every metric of sets, is needed"):
        MeanColour(name="colour", seen=[], needs_hr=False, **COMMON)
    with pytest.raises(InputError, match="needs_lr is True; False, as for every metric of sets, is needed"):
        MeanColour(name="colour", seen=[], needs_lr=True, **COMMON)


def test_without_hr_only_no_reference_metrics_have_a_value(add_metric):
    locator = NoWeights()
    add_metric(OneNumber(name="full", value=1.5, **COMMON))
    add_metric(OneNumber(name="none", value=2.5, needs_hr=False, **COMMON))
    add_metric(MeanColour(name="colour", seen=[], **COMMON))
    suite = Suite(["full", "none", "colour", "lpips_alex"], locator, has_hr=False)
    suite.add(suite.measure(Pair("a", flat(1), None, 4)))
    suite.add(suite.failed("b", "unreadable"))
    found = {(result.metric, result.image): (result.score.status, result.score.value) for result in suite.results()}
    needs = ("needs HR", None)
    assert found == {
        **{("full", image): needs for image in "ab"},
        **{("lpips_alex", image): needs for image in "ab"},
        ("none", "a"): ("ok", 2.5),
        ("none", "b"): ("failed", None),
        ("colour", None): needs,
    }
    assert locator.asked == []


def test_a_no_reference_metric_is_not_shown_the_reference(add_metric):
    @dataclass(frozen=True, kw_only=True)
    class Cheat(OneNumber):
        def score(self, pair, runtime):
            return float(pair.hr.pixels.mean())

    add_metric(Cheat(name="cheat", value=0, needs_hr=False, **COMMON))
    (result,) = Suite(["cheat"], NoWeights()).measure(Pair("a", flat(1), flat(2), 4)).results
    assert result.score.status == "failed"
    assert "a metric that uses it declares needs_hr=True" in result.score.reason


def test_a_registered_metric_is_scored_by_its_name(monkeypatch):
    monkeypatch.setattr(METRICS, "_loaded", {})
    metric = sgbench.register_metric(OneNumber(name="one", value=1.5, **COMMON))
    assert METRICS.load("one") is metric
    (result,) = Suite(["one"], NoWeights()).measure(Pair("a", flat(1), flat(2), 4)).results
    assert result.score == Score(1.5)
    with pytest.raises(InputError, match="the metric name 'psnr_y' is taken"):
        sgbench.register_metric(OneNumber(name="psnr_y", value=1.5, **COMMON))
    with pytest.raises(InputError, match=r"is a OneNumber; a metric, such as .* is needed\."):
        sgbench.register_metric(OneNumber)


def test_a_metric_of_an_installed_package_is_scored_like_any_other(tmp_path, monkeypatch):
    module = """
    from torchmetrics.functional.image import universal_image_quality_index
    from torch import from_numpy
    from sgbench.metrics import ImageMetric

    class Uqi(ImageMetric):
        def score(self, pair, runtime):
            sr, hr = (from_numpy(image.pixels)[None].double() for image in (pair.sr, pair.hr))
            return float(universal_image_quality_index(sr, hr))

    uqi = Uqi(
        name="uqi", direction="higher", version="1", description="UQI", source="Wang and Bovik, 2002",
        protocol={"implementation": "torchmetrics", "colour_space": "RGB", "value_range": [0, 255]},
    )
    """
    metadata = tmp_path / "theirs-1.0.dist-info"
    metadata.mkdir()
    (tmp_path / "theirs.py").write_text(textwrap.dedent(module))
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[sgbench.metrics]\nuqi = theirs:uqi\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(METRICS, "_loaded", {})
    assert "uqi" in METRICS.names()
    gradient = np.tile(np.arange(24, dtype=np.uint8), (3, 20, 1))
    (result,) = Suite(["uqi"], NoWeights()).measure(Pair("a", gradient, gradient, 4)).results
    assert (result.metric, result.version, result.score.status) == ("uqi", "1", "ok")
    assert result.score.value == pytest.approx(1)
    assert result.protocol["implementation"] == "torchmetrics"


def test_an_unknown_metric_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="unknown metric 'psnr_yy': did you mean 'psnr_y'"):
        Suite(["psnr_yy"], NoWeights())


def test_missing_weights_leave_the_other_metrics_alone():
    locator = NoWeights()
    suite = Suite(["lpips_alex", "psnr_y", "fid", "fd_alex"], locator)
    assert locator.asked == ["alexnet", "inception"]
    measured = suite.measure(Pair("a", flat(10), flat(20), 4))
    suite.add(measured)
    results = suite.results()
    assert [(r.metric, r.image, r.score.status) for r in results] == [
        ("lpips_alex", "a", "no weights"),
        ("psnr_y", "a", "ok"),
        ("fid", None, "no weights"),
        ("fd_alex", None, "no weights"),
    ]
    assert list(measured.results) == results[:2]
    assert results[2].score == Score(None, "no weights", "bring inception")


def test_a_repeated_name_counts_once():
    assert len(Suite(["psnr_y", "psnr_y"], NoWeights()).measure(Pair("a", flat(1), flat(2), 4)).results) == 1


def test_a_suite_without_networks_looks_for_no_weights():
    locator = NoWeights()
    Suite(["psnr_y", "ssim_rgb"], locator)
    assert locator.asked == []


@pytest.mark.parametrize(
    ("value", "score"),
    [
        (1.5, Score(1.5)),
        (float("nan"), Score(None, "failed", "the value is NaN")),
        (float("-inf"), Score(None, "failed", "the value is infinite")),
        (Undefined("no such thing"), Score(None, "undefined", "no such thing")),
        (RuntimeError("out of memory\nat line 5"), Score(None, "failed", "RuntimeError: out of memory")),
        (ValueError(), Score(None, "failed", "ValueError")),
        (SystemExit(0), Score(None, "failed", "SystemExit: 0")),
        (OSError("no route"), Score(None, "failed", "OSError: no route")),
    ],
)
def test_no_number_is_invented(add_metric, value, score):
    add_metric(OneNumber(name="one", value=value, **COMMON))
    suite = Suite(["one", "psnr_rgb"], NoWeights())
    one, psnr = suite.measure(Pair("a", flat(10), flat(20), 4)).results
    assert one.score == score
    assert psnr.score.status == "ok"


def test_a_lack_of_memory_is_no_score(add_metric):
    add_metric(OneNumber(name="one", value=MemoryError(), **COMMON))
    with pytest.raises(MemoryError):
        Suite(["one"], NoWeights()).measure(Pair("a", flat(10), flat(20), 4))


def test_an_estimate_brings_its_standard_error():
    assert Score.of(lambda: Estimate(1.5, 0.25)) == Score(1.5, standard_error=0.25)
    assert Score.of(lambda: Estimate(1.5, None)) == Score(1.5)
    assert Score.of(lambda: Estimate(float("nan"), 0.25)) == Score(None, "failed", "the value is NaN")


def test_identical_images_are_undefined_in_psnr():
    suite = Suite(["psnr_y"], NoWeights())
    (result,) = suite.measure(Pair("a", flat(10), flat(10), 4)).results
    assert result.score == Score(None, "undefined", "the images are identical")


def test_sets_keep_images_of_different_sizes_and_work_on_each_reference_once(add_metric):
    metric = add_metric(MeanColour(name="mean", seen=[], **COMMON))
    cache = {}
    for expected_calls in (4, 2):
        metric.seen.clear()
        suite = Suite(["mean"], NoWeights(), hr_cache=cache)
        suite.add(suite.measure(Pair("a", flat(10), flat(20), 4)))
        suite.add(suite.measure(Pair("b", flat(30, 9, 9), flat(60, 9, 9), 4)))
        (result,) = suite.results()
        assert (result.image, result.n_images, result.score) == (None, 2, Score(60.0))
        assert len(metric.seen) == expected_calls


def test_a_set_that_lost_an_image_has_no_value(add_metric):
    add_metric(MeanColour(name="mean", seen=[], **COMMON))
    suite = Suite(["mean"], NoWeights())
    for name, value in (("a", 1), ("b", 255), ("c", 3)):
        suite.add(suite.measure(Pair(name, flat(value), flat(20), 4)))
    (result,) = suite.results()
    assert result.score == Score(None, "failed", "image 'b': RuntimeError: too bright")
    assert result.n_images == 3


def test_causes_that_differ_only_in_names_or_numbers_are_one():
    reasons = ["3×4 pixels are left of 'a'", "5×4 pixels are left of 'b'", "it is black"]
    images = {name: Score(None, ScoreStatus.UNDEFINED, reason) for name, reason in zip("xyz", reasons, strict=True)}
    assert incomplete(images).reason == f"image 'x' and 1 more: {reasons[0]}; image 'z': it is black"


def test_a_set_of_one_or_none_has_a_reason(add_metric):
    add_metric(MeanColour(name="mean", seen=[], **COMMON))
    suite = Suite(["mean"], NoWeights())
    assert suite.results()[0].score == Score(None, "undefined", "there are no images")
    suite.add(suite.measure(Pair("a", flat(1), flat(2), 4)))
    assert suite.results()[0].score == Score(None, "undefined", "one image is not enough")


def test_features_that_are_not_finite_fail_by_name(add_metric):
    @dataclass(frozen=True, kw_only=True)
    class Broken(MeanColour):
        def features(self, image, runtime):
            return np.array([1.0, np.nan])

    add_metric(Broken(name="broken", seen=[], **COMMON))
    suite = Suite(["broken"], NoWeights())
    suite.add(suite.measure(Pair("a", flat(1), flat(2), 4)))
    assert suite.results()[0].score == Score(None, "failed", "image 'a': ArithmeticError: a feature is NaN")


def test_an_image_that_could_not_be_read_fails_in_every_metric(add_metric):
    add_metric(MeanColour(name="mean", seen=[], **COMMON))
    suite = Suite(["psnr_y", "mean"], NoWeights())
    suite.add(suite.measure(Pair("a", flat(1), flat(2), 4)))
    suite.add(suite.failed("b", "the model's output has a NaN"))
    assert [(r.image, r.score.status, r.score.reason) for r in suite.results()] == [
        ("a", "ok", None),
        ("b", "failed", "the model's output has a NaN"),
        (None, "failed", "image 'b': the model's output has a NaN"),
    ]


def test_results_carry_the_hash_of_the_weights(add_metric):
    class Found:
        def load(self, name):
            return LoadedWeights("abc", Path("x"), {})

    add_metric(OneNumber(name="one", value=1.0, networks=("alexnet",), **COMMON))
    (result,) = Suite(["one"], Found()).measure(Pair("a", flat(1), flat(2), 4)).results
    assert result.protocol == {"implementation": "test", "weights": {"alexnet": "abc"}}


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((3, 4, 4)), np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((3, 0, 4), "u1")],
)
def test_an_image_is_uint8_rgb(pixels):
    with pytest.raises(InputError, match=r"uint8 \[3, H, W\] is needed"):
        Image(pixels)


def test_sizes_that_differ_are_both_named_with_the_crop_that_would_help():
    with pytest.raises(InputError, match=r"'a': SR is 24×20 pixels and HR is 26×23; crop both .* to 24×20"):
        Pair("a", flat(1), flat(1, 23, 26), 4)
    with pytest.raises(InputError, match=r"SR is 24×20 pixels and HR is 97×80\.$"):
        Pair("a", flat(1), flat(1, 80, 97), 4)
    with pytest.raises(InputError, match=r"SR is 96×80 pixels and HR is 24×20; HR is as large as LR\.$"):
        Pair("a", flat(1, 80, 96), flat(1), 4)
    with pytest.raises(InputError, match=r"SR is 24×20 pixels and HR is 96×80; SR is as large as LR\.$"):
        Pair("a", flat(1), flat(1, 80, 96), 4)


def test_a_negative_crop_is_refused():
    with pytest.raises(InputError, match="crop is -1"):
        Pair("a", flat(1), flat(1), -1)


def test_a_view_is_computed_once():
    calls = []
    image = Image(flat(1))
    assert [image.view("key", lambda: calls.append(1) or 5) for _ in range(3)] == [5, 5, 5]
    assert len(calls) == 1
    assert image.luma is image.luma


def test_the_digest_tells_shapes_apart():
    assert Image(flat(1, 4, 6)).digest != Image(flat(1, 6, 4)).digest
    assert Image(flat(1)).digest == Image(flat(1)).digest


def test_what_a_metric_says_of_itself_loads_neither_torch_nor_its_network():
    code = f"""
        import sys
        from sgbench.core.registry import METRICS
        for name in {[*METRICS.names(), "torchmetrics:vif"]}:
            METRICS.load(name).protocol
        slow = {{"torch", "torchvision", "lpips", "pytorch_fid", "scipy", "torchmetrics"}}
        sys.exit(str(sorted(slow & sys.modules.keys())))
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False, capture_output=True, text=True)
    assert ended.stderr == "[]\n"
