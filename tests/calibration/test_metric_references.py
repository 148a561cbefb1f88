"""Every built-in metric is compared with the code of others."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sgbench.assets.base import LoadedWeights
from sgbench.calibration import references
from sgbench.calibration.comparison import compare
from sgbench.calibration.networks import SharedNetworks
from sgbench.calibration.pictures import made
from sgbench.calibration.references import RECORDED, REFERENCES
from sgbench.core.registry import METRICS
from sgbench.metrics import Image, Pair, display_of
from sgbench.metrics.base import CompositeMetric
from sgbench.metrics.inception import InceptionMetric


def features(image: Image) -> np.ndarray:
    """Return some colours of an image, in place of Inception's features, which `test_inception` compares."""
    _, height, width = image.pixels.shape
    return image.pixels[:, :: height // 4, :: width // 4][:, :4, :4].reshape(-1) / 255


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    def theirs(pairs: Sequence[Pair]) -> tuple[np.ndarray, ...]:
        sides = zip(*((pair.sr, pair.hr) for pair in pairs), strict=True)
        return tuple(np.stack([features(image) for image in images]) for images in sides)

    monkeypatch.setattr(InceptionMetric, "features", lambda self, image, runtime: features(image))
    monkeypatch.setattr(references, "_inception", lambda weights: theirs)
    nothing = LoadedWeights("none", Path("none"), {})
    monkeypatch.setattr("sgbench.calibration.networks._random_weights", lambda name: nothing)


def test_every_built_in_metric_has_a_reference():
    names = {name for name in METRICS._targets if not isinstance(METRICS.load(name), CompositeMetric)}
    assert {*REFERENCES, *RECORDED} == names
    assert all(METRICS.load(name).reference for name in names)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", REFERENCES)
def test_reference(name, agreement, request):
    metric, reference = METRICS.load(name), REFERENCES[name]
    if reference.missing:
        pytest.skip(f"not installed: {', '.join(reference.missing)}")
    if metric.networks == ("inception",):
        request.getfixturevalue("colours")
    (row,) = compare([name], [made()], SharedNetworks(random=True, download=False))
    assert row.problem is None
    assert len(row.both) >= len(row.compared) - 1
    agreement(name, row.reference, row.difference, metric.difference)


def test_the_table_of_the_documentation_is_true():
    """Every metric has a row; values with networks are those of one machine, the others are computed anew."""
    page = Path(__file__).parents[2] / "docs" / "metrics.md"
    section = page.read_text(encoding="utf-8").partition("## How far from the reference")[2].partition("\n## ")[0]
    rows = [re.split(r" \| ", line[2:-2]) for line in section.splitlines() if line.startswith(("| made", "| recorded"))]
    assert {row[1] for row in rows} == {*REFERENCES, *RECORDED}
    for images, name, ours, theirs, difference, declared, reference, _ in rows:
        metric = METRICS.load(name)
        assert (declared, reference) == (f"≤ {metric.difference:g}", metric.reference)
        assert (images == "recorded") == (name in RECORDED)
        assert images == "recorded" or float(difference) <= metric.difference
        if images == "made" and not metric.networks and not REFERENCES[name].missing:
            (row,) = compare([name], [made()], SharedNetworks(download=False))
            assert (ours, theirs) == tuple(display_of(name).number(value) for value in (row.ours, row.theirs))
