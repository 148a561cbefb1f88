"""Which scores of metrics that are made of others count as missing."""

import pytest
from made_up_runs import ID, fill, scores

from sgbench.assets.locator import Locator
from sgbench.core.registry import METRICS
from sgbench.core.storage import Storage
from sgbench.metrics import CompositeMetric
from sgbench.scoring.outcomes import Outcomes
from sgbench.store import Dataset, Store

SET = Dataset("Set5", "ab" * 32)


class First(CompositeMetric):
    def combine(self, means):
        return means[self.parts[0]]


@pytest.fixture
def missing(tmp_path, monkeypatch):
    """Return whether the score of a metric is missing from a store in which it has some version and status."""
    monkeypatch.setattr(METRICS, "_loaded", dict(METRICS._loaded))

    def missing(*parts, **columns):
        declared = {"direction": "higher", "version": "1", "protocol": {}, "description": "", "source": ""}
        METRICS._loaded["first"] = First(name="first", parts=parts, **declared)
        store = Store(Storage(str(tmp_path / "store")))
        fill(store, 0, 1.0)
        store.write_scores(scores(ID[0], metric="first", **columns))
        return bool(Outcomes(store, locator=Locator(download=False)).missing(ID[0], [(SET, "first")]))

    return missing


def test_a_score_of_other_versions_of_the_parts_is_missing(missing):
    assert missing("psnr_y", value=1.0, metric_version="1 (psnr_y: 0)")
    assert not missing("psnr_y", value=1.0, metric_version="1 (psnr_y: 1)")


def test_where_a_part_cannot_be_loaded_no_score_is_replaced(missing):
    assert not missing("psnr_y", "absent", value=1.0, metric_version="1 (psnr_y: 1, absent: 7)")


def test_a_score_that_lacked_a_part_is_missing_once_the_part_is_here(missing):
    lacked = {"value": None, "status": "no weights", "metric_version": "1 (psnr_y: 1, psnr_rgb: missing)"}
    assert missing("psnr_y", "psnr_rgb", **lacked)
    assert not missing("psnr_y", "absent", **lacked)
