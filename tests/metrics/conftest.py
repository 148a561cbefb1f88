"""Agreement with other people's metrics, a line for each at the end of a test run; Inception with random weights."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pytorch_fid.inception
import torch

from sgbench.metrics import LoadedWeights
from sgbench.metrics.weights import fingerprint

Reference = Callable[[str, str, float, float], None]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks gain nothing from threads, and lose much where tests run side by side."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def reference(record_property: Callable[[str, object], None]) -> Reference:
    """A function that is told the difference between a metric and a peer and its bound, records both and checks them.

    It takes the metric's name, what it was compared with, the largest difference, and what that may be.
    """

    def check(metric: str, peer: str, difference: float, bound: float) -> None:
        record_property("reference", (metric, peer, float(difference), bound))
        assert difference <= bound

    return check


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the largest of what the fixture recorded for a metric and a peer, also of tests that failed."""
    largest: dict[tuple[str, str, float], float] = defaultdict(float)
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for key, record in report.user_properties:
            if key == "reference":
                metric, peer, difference, bound = record
                largest[metric, peer, bound] = max(difference, largest[metric, peer, bound])
    if largest:
        terminalreporter.section("reference: largest differences from other implementations")
        for (metric, peer, bound), difference in sorted(largest.items()):
            terminalreporter.write_line(f"{metric:<13} {peer:<42} {difference:.1e}, at most {bound:.0e}")


@pytest.fixture(scope="session")
def inception_weights() -> LoadedWeights:
    """Random weights for pytorch-fid's Inception."""
    torch.manual_seed(3)
    network = pytorch_fid.inception._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    network.Mixed_5b = pytorch_fid.inception.FIDInceptionA(192, pool_features=32)
    network.Mixed_5c = pytorch_fid.inception.FIDInceptionA(256, pool_features=64)
    network.Mixed_5d = pytorch_fid.inception.FIDInceptionA(288, pool_features=64)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    state = network.state_dict()
    return LoadedWeights(fingerprint(state), Path("random"), state)
