import io
import re
import threading

import pytest
from rich.console import Console

from sgbench.report.live import BAR_WIDTH, MAX_LINES, Display
from sgbench.runs.progress import Course, Lane
from sgbench.store.rows import RunEnd

LOSS = "edsr-tiny · l1 + 1.0*sg(operator=sobel)[/bold][red] · seed 0"
"""A label that markup would eat, or choke on."""


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def plain(clock: Clock, total: int = 4, done: int = 0) -> tuple[Display, io.StringIO]:
    file = io.StringIO()
    return Display(Console(file=file, width=80), Course(total, done, clock)), file


def terminal(clock: Clock, total: int = 4, done: int = 0, width: int = 80) -> tuple[Display, Console]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, _environ={})
    return Display(console, Course(total, done, clock)), console


def frame(display: Display, console: Console) -> list[str]:
    """Return what the live display shows now."""
    with console.capture() as capture:
        console.print(display._render())
    return [line.rstrip() for line in capture.get().splitlines()]


def test_plain_output_is_whole_lines_of_plain_text(clock: Clock) -> None:
    display, file = plain(clock, total=2)
    with display:
        display.started("a", LOSS)
        display.progress("a", 12, 1200, 0.0312345, 12.34)
        display.scoring("a")
        display.finished("a", RunEnd.DONE, "")
        display.started("b", "edsr-tiny · l1 · seed 1")
        clock.now += 65
        display.finished("b", RunEnd.FAILED, "loss is NaN\nat step 812 [/red] " + "x" * 90)
    assert file.getvalue().splitlines() == [
        f"started {LOSS}",
        f"{LOSS}: step 12/1200, loss 0.03123, 12.3 steps/s, ETA 1:36",
        f"scoring {LOSS}",
        f"done {LOSS} (1 of 2)",
        "started edsr-tiny · l1 · seed 1",
        "FAILED edsr-tiny · l1 · seed 1 (2 of 2): loss is NaN at step 812 [/red] " + "x" * 90,
        "1 of 2 done · 1 failed · elapsed 1:05",
    ]


def test_control_characters_of_a_message_are_not_printed(clock: Clock) -> None:
    display, file = plain(clock)
    display.started("a", "l1")
    display.finished("a", RunEnd.FAILED, "\x1b[31mred\r\x07 alert")
    assert file.getvalue().isascii()
    assert all(character.isprintable() or character == "\n" for character in file.getvalue())


def progress_lines(file: io.StringIO) -> list[str]:
    return [line for line in file.getvalue().splitlines() if ": step " in line]


def test_a_quick_run_speaks_every_ten_seconds(clock: Clock) -> None:
    display, file = plain(clock)
    display.started("a", "l1")
    for percent in range(1, 101):  # 40 seconds in all
        clock.now += 0.4
        display.progress("a", percent, 100, 0.1, 2.5)
    assert 4 <= len(progress_lines(file)) <= 5


def test_a_slow_run_speaks_every_tenth_and_every_five_minutes(clock: Clock) -> None:
    display, file = plain(clock)
    display.started("a", "l1")
    for percent in range(1, 101):  # 1,000 seconds: a tenth each 100
        clock.now += 10
        display.progress("a", percent, 100, 0.1, 0.1)
    assert len(progress_lines(file)) == 10
    for step in range(1, 100):  # a second run, ten times slower
        clock.now += 100
        display.started("b", "sg") if step == 1 else display.progress("b", step, 1000, 0.1, 0.1)
    assert 30 <= len([line for line in progress_lines(file) if line.startswith("sg")]) <= 35


def test_runs_are_throttled_apart(clock: Clock) -> None:
    display, file = plain(clock)
    for run_id in "ab":
        display.started(run_id, run_id)
        display.progress(run_id, 1, 100, 0.1, 1.0)
    assert [line[0] for line in progress_lines(file)] == ["a", "b"]


def test_late_events_of_an_ended_run_are_ignored(clock: Clock) -> None:
    display, file = plain(clock)
    display.progress("never started", 1, 2, 0.1, 1.0)
    display.scoring("never started")
    assert file.getvalue() == ""
    display.finished("abc", RunEnd.FAILED, "no resources")
    assert file.getvalue() == "FAILED abc (1 of 4): no resources\n"


def test_the_live_display_shows_each_run_and_a_summary(clock: Clock) -> None:
    display, console = terminal(clock, total=6, done=1)
    display.started("a", "edsr-tiny · l1 · seed 0")
    display.started("b", "edsr-tiny · l1 · seed 1")
    display.started("c", "edsr-tiny · l1 · seed 2")
    display.progress("a", 0, 1200, 0.1, 0.0)
    clock.now += 60
    display.progress("a", 600, 1200, 0.03125, 10.0)
    display.progress("b", 1200, 1200, 0.02, 10.0)
    display.scoring("b")
    first, second, third, summary = frame(display, console)
    assert re.match("edsr-tiny · l1  +seed 0 ", first)
    assert first.endswith("600/1200 loss 0.03125 10/s ETA 1:00")
    assert "scoring" in second
    assert "starting" in third
    assert summary.startswith("1 of 6 done · 3 running · 2 waiting · elapsed 1:00 · ETA ")
    assert max(map(len, (first, second, third, summary))) <= 80


def test_the_eta_counts_only_work_that_this_process_saw(clock: Clock) -> None:
    display, console = terminal(clock, total=2)
    display.started("a", "resumed")
    clock.now += 20  # until its process is there
    display.progress("a", 500, 1000, 0.1, 10.0)
    assert "ETA" not in frame(display, console)[-1]
    clock.now += 50
    display.progress("a", 750, 1000, 0.1, 10.0)  # a quarter in 50 s: a quarter and a whole run are left
    assert frame(display, console)[-1].endswith("elapsed 1:10 · ETA 4:10")


def test_runs_on_several_nodes_are_below_their_node_in_the_order_of_its_gpus(clock: Clock) -> None:
    display, console = terminal(clock, total=9)
    lanes = [Lane("node10", "0", "NVIDIA A100"), Lane("node2", "1", "NVIDIA H100"), Lane("node2", "0", "NVIDIA H100")]
    for run_id, lane in zip("abcd", (*lanes, None), strict=True):
        display.started(run_id, f"edsr-tiny · l1 + 1.0*sg · seed {run_id}")
        if lane:
            display.placed(run_id, lane)
    display.progress("a", 600, 1200, 0.03125, 10.0)
    lines = frame(display, console)
    assert [re.sub(" +", " ", line).strip() for line in lines[:-1]] == [
        "node2 · NVIDIA H100",
        "GPU 0 edsr-tiny · l1 + 1.0*sg seed c starting",
        "GPU 1 edsr-tiny · l1 + 1.0*sg seed b starting",
        "node10 · NVIDIA A100",
        "GPU 0 edsr-tiny · l1 + 1.0*sg seed a 600/1200 loss 0.03125 10/s ETA 1:00",
        "not placed yet",
        "edsr-tiny · l1 + 1.0*sg seed d starting",
    ]
    assert lines[1].startswith("  GPU 0 edsr")
    for run_id in "abd":
        display.finished(run_id, RunEnd.DONE, "")
    assert frame(display, console)[0].startswith("GPU 0 edsr-tiny · l1 + 1.0*sg ")


def test_nodes_of_which_no_run_has_a_line_have_none(clock: Clock) -> None:
    display, console = terminal(clock, total=100)
    for index in range(20):
        display.started(str(index), "l1")
        display.placed(str(index), Lane(f"node{index // 10}"))
    lines = frame(display, console)
    assert lines[0] == "node0 · 10 runs"
    assert len(lines) == 1 + MAX_LINES + 2
    assert lines[-2] == "… and 12 more running"


def test_plain_output_says_where_a_run_is(clock: Clock) -> None:
    display, file = plain(clock)
    display.placed("a", Lane("late"))
    display.started("a", "l1")
    display.placed("a", Lane("node\x1b2", "0", "NVIDIA H100"))
    display.progress("a", 1, 2, 0.5, 1.0)
    said = "l1: step 1/2, loss 0.5, 1 steps/s, ETA 0:01, on node\\x1b2, GPU 0 (NVIDIA H100)"
    assert file.getvalue().splitlines() == ["started l1", said]


def test_many_runs_are_counted_not_listed(clock: Clock) -> None:
    display, console = terminal(clock, total=100)
    for index in range(MAX_LINES + 5):
        display.started(str(index), LOSS)
    lines = frame(display, console)
    assert len(lines) == MAX_LINES + 2
    assert lines[-2] == "… and 5 more running"


def test_the_newest_scores_of_validation_are_shown(clock: Clock) -> None:
    values = {"loss": 1.0, "validation/Mine/psnr_y": 29.123, "validation/Mine/lpips_alex": 0.21345}
    for display, seen in (plain(clock), terminal(clock, width=BAR_WIDTH)):
        display.started("a", LOSS)
        for values["validation/Mine/psnr_y"] in (28.0, 29.123):
            display.measured("a", 500, values)
        display.measured("b", 500, values)
        display.progress("a", 600, 1200, 0.0312345, 12.34)
        if isinstance(seen, Console):
            assert "  Mine psnr_y 29.12  ━" in frame(display, seen)[0]
        else:
            assert ", ETA 0:49, Mine psnr_y 29.12, Mine lpips_alex 0.2135" in seen.getvalue()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_wraps_and_no_number_is_cut(clock: Clock, width: int) -> None:
    display, console = terminal(clock, total=3, width=width)
    display.started("a", LOSS)
    display.progress("a", 123456, 500000, 0.0312, 12.3)
    lines = frame(display, console)
    assert len(lines) == 2
    assert max(map(len, lines)) <= width
    if width >= 80:
        assert "123456/500000" in lines[0]
        assert "ETA 8:30:13" in lines[0]
        assert " seed 0 " in lines[0]
    assert ("━" in lines[0]) == (width >= BAR_WIDTH)


def test_a_terminal_keeps_a_line_for_each_run_that_ended(clock: Clock) -> None:
    display, console = terminal(clock, total=2)
    with display:
        display.started("a", LOSS)
        display.finished("a", RunEnd.FAILED, "loss is NaN")
    text = console.file.getvalue()
    assert f"FAILED {LOSS} (1 of 2): loss is NaN" in text
    assert text.rstrip().endswith("0 of 2 done · 1 failed · 1 waiting · elapsed 0:00")


def test_a_terminal_that_cannot_move_the_cursor_gets_plain_lines(clock: Clock) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system=None, _environ={"TERM": "dumb"})
    with Display(console, Course(1, 0, clock)) as display:
        display.started("a", "l1")
    assert file.getvalue().splitlines()[0] == "started l1"
    assert "\x1b" not in file.getvalue()


@pytest.mark.parametrize("is_terminal", [False, True])
def test_threads_may_report_at_once(is_terminal: bool) -> None:
    file = io.StringIO()
    display = Display(Console(file=file, width=100, force_terminal=is_terminal, color_system=None), Course(8, 0))

    def run(run_id: str) -> None:
        display.started(run_id, f"run {run_id}")
        for step in range(1, 101):
            display.progress(run_id, step, 100, 0.1, 1.0)
        display.scoring(run_id)
        display.finished(run_id, RunEnd.DONE, "")

    with display:
        threads = [threading.Thread(target=run, args=(str(index),)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert not any(thread.is_alive() for thread in threads)
    assert "8 of 8 done" in file.getvalue()
    assert file.getvalue().count("done run ") == 8
