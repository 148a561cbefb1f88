"""Which scores a store has, and which are missing."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from sgbench.assets.locator import Locator
from sgbench.core.status import ScoreStatus
from sgbench.data import PackedImages
from sgbench.metrics import METRICS, CompositeMetric, Metric
from sgbench.spec.sources import Sources
from sgbench.store import Dataset, Store

Pair = tuple[PackedImages | Dataset, str]
"""A test set and a metric."""


class Outcomes:
    """The scores in a store, by run, test set with its hash, and metric with its version and code.

    Args:
        store: The store, read once.
        retry: Whether failed scores count as missing.
        locator: Finds weights without fetching them; scores that lacked weights count as missing once these are found.
        plugins: Whether plug-in metrics may be imported. If not, their scores count whatever their version, and scores
            that lacked weights never count as missing.
        sources: The code of metrics that are not built in, which no metric is imported for; by default as it is now.
    """

    def __init__(
        self,
        store: Store,
        *,
        retry: bool = False,
        locator: Locator | None = None,
        plugins: bool = True,
        sources: Sources | None = None,
    ) -> None:
        self._retry = retry
        self._sources = sources or Sources()
        self._locator = locator
        self._metric = METRICS.load if plugins else METRICS.available
        columns = ["run_id", "dataset", "dataset_sha256", "metric"]
        told = ["metric_version", "metric_code", "status", "reason"]
        self._outcomes: dict[tuple[str, ...], tuple[str, str | None, str, str | None]] = {
            tuple(row[column] for column in columns): tuple(row[column] for column in told)
            for row in store.totals().select([*columns, *told]).to_pylist()
        }
        self._values: defaultdict[str, dict[tuple[str, str, str], None]] = defaultdict(dict)
        for (run_id, name, sha256, metric), (_, _, status, _) in self._outcomes.items():
            if status == ScoreStatus.OK:
                self._values[run_id][name, sha256, metric] = None

    def missing(self, run_id: str, pairs: Iterable[Pair]) -> tuple[tuple[str, str], ...]:
        """Return the pairs of test set and metric whose scores are missing, by name."""
        return tuple((test.name, metric) for test, metric in pairs if self._wanted(run_id, test, metric))

    def values(self, run_id: str) -> tuple[tuple[str, str, str], ...]:
        """Return test set, its hash and metric for every score of a run that has a value."""
        return tuple(self._values[run_id])

    def faults(self, run_id: str, tests: Sequence[PackedImages | Dataset], metrics: Sequence[str]) -> list[str]:
        """Return a sentence for each score that failed."""
        outcomes = {(test.name, metric): self._outcome(run_id, test, metric) for test in tests for metric in metrics}
        return [
            f"{metric} on {test}: {reason}"
            for (test, metric), (status, reason) in outcomes.items()
            if status == ScoreStatus.FAILED
        ]

    def _wanted(self, run_id: str, test: PackedImages | Dataset, name: str) -> bool:
        status, _ = self._outcome(run_id, test, name)
        if status == ScoreStatus.NO_WEIGHTS:
            metric = self._metric(name)
            if metric is None or self._locator is None or _lacks_parts(metric):
                return False
            return all(map(self._locator.find, metric.networks))
        return status is None or (status == ScoreStatus.FAILED and self._retry)

    def _outcome(self, run_id: str, test: PackedImages | Dataset, name: str) -> tuple[str | None, str | None]:
        if (found := self._outcomes.get((run_id, test.name, test.sha256, name))) is None:
            return None, None
        version, code, status, reason = found
        metric = self._metric(name)
        same = metric is None or metric.version == version or _lacks_parts(metric)
        same = same and (code is None or code == self._sources.of_metrics([name]).get(name, code))
        return (status, reason) if same else (None, None)


def _lacks_parts(metric: Metric) -> bool:
    """Return whether a metric cannot be computed here, so that whatever score there is counts."""
    return isinstance(metric, CompositeMetric) and bool(metric.unavailable)
