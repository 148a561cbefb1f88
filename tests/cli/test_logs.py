"""`sgbench logs`: what a job or a run has printed, and how the command ends."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a cluster on which each job prints two lines and ends as told."""

    def ends(status: str) -> None:
        def follow(job: str, write: Callable[[str], None]) -> SimpleNamespace:
            for text in ("a\n", "b\n"):
                write(text)
            return SimpleNamespace(id=job, status=status)

        jobs = SimpleNamespace(logs=lambda job: f"log of {job}\n", follow=follow)
        monkeypatch.setattr("sgbench.cluster.jobs.Jobs", lambda address: jobs)

    return ends


def test_the_log_so_far_is_printed_as_it_is(run: Run, ends: Callable[[str], None]) -> None:
    ends("running")
    assert run("logs", "sgbench-a") == ("log of sgbench-a\n", "")


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 1), ("stopped", 1)])
def test_following_ends_as_the_job_does(run: Run, ends: Callable[[str], None], status: str, code: int) -> None:
    ends(status)
    assert run("logs", "sgbench-a", "--follow", code=code) == ("a\nb\n", f"sgbench-a: {status}\n")


def test_a_cluster_that_does_not_answer_is_bad_input(run: Run) -> None:
    _, err = run("logs", "sgbench-a", "--address", "127.0.0.1:1", code=2)
    assert "no Ray dashboard answers at 'http://127.0.0.1:1'" in err


def test_what_a_run_printed_is_shown_from_the_store(run: Run, tmp_path: Path) -> None:
    log = tmp_path / "store/logs/3f00b25e4820/run.log"
    log.parent.mkdir(parents=True)
    log.write_text("hello\n")
    assert run("logs", "3f00", "--results", str(tmp_path / "store")) == ("hello\n", "")
    _, err = run("logs", "4", "--results", str(tmp_path / "store"), code=2)
    assert err == f"error: run '4': '{tmp_path}/store' has logs of 1 run: 3f00b25e4820 (hello).\n"


def test_a_wrong_name_says_what_there_is(run: Run, tmp_path: Path) -> None:
    store = tmp_path / "store"
    _, err = run("logs", "quik", "--results", str(store), code=2)
    said = "error: 'quik' is the id of neither a run nor a job: "
    assert err == f"{said}'{store}' has no log of a run; 'sgbench status --address' lists jobs.\n"

    for seed in range(3):
        log = store / f"logs/3f00b25e482{seed}/run.log"
        log.parent.mkdir(parents=True)
        log.write_text(f"── edsr-tiny · l1 · seed {seed}, 2026-01-02 03:04:05 UTC, process 7 on host\nhello\n")
    there = "3f00b25e4820 (edsr-tiny · l1 · seed 0) and 3f00b25e4821 (edsr-tiny · l1 · seed 1)"
    _, err = run("logs", "quik", "--results", str(store), code=2)
    assert err == f"{said}'{store}' has logs of 3 runs, such as {there}; 'sgbench status --address' lists jobs.\n"
    _, err = run("logs", "4", "--results", str(store), code=2)
    assert err == f"error: run '4': '{store}' has logs of 3 runs, such as {there}.\n"
    _, err = run("logs", "3f", "--results", str(store), code=2)
    assert err == f"error: run '3f': '{store}' has logs of 3 runs whose ids begin with it, such as {there}.\n"
