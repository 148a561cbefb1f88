"""Parity with other people's implementations: the bounds, and a line for each at the end of a test run."""

from collections.abc import Callable, Iterator

import pytest
import torch

BOUND = 1e-5
"""On differences of outputs, which lie about [0, 1], and of gradients, as a share of the largest one."""

Parity = Callable[[str, str, float, float], None]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks gain nothing from threads, and lose much where tests run side by side."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def parity(record_property: Callable[[str, object], None]) -> Parity:
    """A function that is told the largest differences between a backbone and a peer, records them and checks them.

    It takes the backbone's name, the peer's name with its version, the largest absolute difference of outputs, and
    the largest absolute difference of gradients divided by the largest gradient.
    """

    def check(name: str, peer: str, outputs_difference: float, gradients_difference: float) -> None:
        figures = f"outputs {outputs_difference:.1e}, gradients {gradients_difference:.1e}"
        record_property("parity", f"{name:<12} {peer:<24} {figures}")
        assert outputs_difference <= BOUND, figures
        assert gradients_difference <= BOUND, figures

    return check


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what the fixture recorded, also of tests that failed."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    lines = sorted({line for report in reports for key, line in report.user_properties if key == "parity"})
    if lines:
        terminalreporter.section("parity: largest differences from other implementations")
        for line in lines:
            terminalreporter.write_line(line)
