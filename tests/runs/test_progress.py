"""What a sweep keeps in its store of what it is doing, and who believes it."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sgbench.core.storage import Storage
from sgbench.runs import progress as module
from sgbench.runs.progress import Course, Lane, Recorder, Running, line, read_progress, running_in
from sgbench.runs.sweep import Quiet
from sgbench.store.layout import PROGRESS, discard_progress, progress_of
from sgbench.store.rows import RunEnd

H100 = Lane("node2", "0", "NVIDIA H100")


class Witness(Quiet):
    """Notes what a watcher is told."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def started(self, run_id: str, label: str) -> None:
        self.seen.append(label)

    def placed(self, run_id: str, lane: Lane) -> None:
        self.seen.append(lane)

    def progress(self, run_id: str, step: int, steps: int, loss: float, steps_per_second: float) -> None:
        self.seen.append(step)

    def scoring(self, run_id: str) -> None:
        self.seen.append("scoring")

    def finished(self, run_id: str, end: RunEnd, message: str) -> None:
        self.seen.append(end)


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setattr(module, "WRITE_SECONDS", 0.02)
    return Storage(str(tmp_path / "store"))


def soon(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_a_sweep_is_doing_is_in_its_store_as_long_as_it_goes_on(storage: Storage) -> None:
    watcher, reader = Witness(), Storage(storage.root)
    with storage.lock("sgbench sweep tiny"):
        with Recorder(watcher, Course(3, 0), "tiny", storage) as recorder:
            assert running_in(reader) == {}
            recorder.started("a", "l1")
            recorder.placed("a", H100)
            recorder.progress("a", 1, 10, 0.5, 2.0)
            recorder.started("b", "sg")
            recorder.progress("a", 5, 10, 0.25, 2.0)
            expected = {"a": Running("l1", H100, 5, 10, 0.25, 2.0), "b": Running("sg")}
            soon(lambda: running_in(reader) == expected)
            (snapshot,) = read_progress(reader, reader.holders())
            assert snapshot.sweep == "tiny"
            assert snapshot.seconds_left is not None
            recorder.scoring("a")
            recorder.finished("b", RunEnd.STOPPED, "")
            soon(lambda: [run.doing for run in running_in(reader).values()] == ["scoring"])
        assert reader.list(PROGRESS) == []
    assert watcher.seen == ["l1", H100, 1, "sg", 5, "scoring", "stopped"]


def test_what_nobody_who_holds_the_lock_has_written_is_not_believed(storage: Storage) -> None:
    with storage.lock("sgbench sweep tiny"), Recorder(Quiet(), Course(1, 0), "tiny", storage) as recorder:
        recorder.started("a", "l1")
        soon(lambda: bool(running_in(storage)))
        (left,) = storage.list(PROGRESS)
        content = storage.read(left)
    storage.write(left, content)  # as if the process had been killed
    assert running_in(storage) == {}
    with storage.lock("sgbench table"):
        assert running_in(storage) == {}
    storage.write(f"{PROGRESS}/of mine.json", b"")
    assert discard_progress(storage) == {left: len(content)}
    assert storage.list(PROGRESS) == [f"{PROGRESS}/of mine.json"]


def test_a_store_that_cannot_be_written_to_and_a_lock_that_was_lost_stop_no_sweep(storage: Storage) -> None:
    with storage.lock("sgbench sweep tiny"):
        assert storage.fence is not None
        storage.write(f"{progress_of(storage.fence)}/in the way", b"")
        with Recorder(Quiet(), Course(1, 0), "tiny", storage) as recorder:
            recorder.started("a", "l1")
            recorder.finished("a", RunEnd.DONE, "")
        with Recorder(Quiet(), Course(1, 0), "tiny", storage) as recorder:
            Path(storage.path(".lock")).write_bytes(b"")
            recorder.started("a", "l1")
            recorder.finished("a", RunEnd.DONE, "")


@pytest.mark.parametrize(("rate", "eta"), [(12.34, "1:36"), (0.0, "unknown"), (1e-3, "13 d 18:00:00")])
def test_a_line_says_where_a_run_stands(rate: float, eta: str) -> None:
    assert line(12, 1200, 0.0312345, rate).startswith("step 12/1200, loss 0.03123, ")
    assert line(12, 1200, 0.0312345, rate).endswith(f" steps/s, ETA {eta}")


@pytest.mark.parametrize(
    ("lane", "words"),
    [
        (Lane("node2", "0", "NVIDIA H100"), "node2, GPU 0 (NVIDIA H100)"),
        (Lane("node2", "0", "NVIDIA H100", 4), "node2, 4 workers (NVIDIA H100)"),
        (Lane("node2"), "node2"),
        (Lane("", "0"), "GPU 0"),
        (Lane(""), ""),
    ],
)
def test_a_lane_in_words(lane: Lane, words: str) -> None:
    assert str(lane) == words
