"""`sgbench stop`: says how the job ended."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest

Run = Callable[..., tuple[str, str]]


@pytest.mark.parametrize(("status", "code"), [("stopped", 0), ("succeeded", 0), ("running", 1)])
def test_stop_says_how_the_job_ended(run: Run, monkeypatch: pytest.MonkeyPatch, status: str, code: int) -> None:
    jobs = SimpleNamespace(stop=lambda job: SimpleNamespace(id=job, status=status))
    monkeypatch.setattr("sgbench.cluster.jobs.Jobs", lambda address: jobs)
    assert run("stop", "sgbench-a", code=code) == ("", f"sgbench-a: {status}\n")


def test_a_cluster_that_does_not_answer_is_bad_input(run: Run) -> None:
    _, err = run("stop", "sgbench-a", "--address", "127.0.0.1:1", code=2)
    assert "no Ray dashboard answers at 'http://127.0.0.1:1'" in err
