"""Sweeps on the Ray of this machine, as a person starts them: what is printed, what is left, what survives what."""

import json
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from place import STEPS, Command, Place, Said, a_place, assert_clean, has_tune
from raylets import Nodes
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import sgbench
from sgbench.core.storage import Storage
from sgbench.data import PackedImages, read_image, write_png
from sgbench.runs.execute import Job
from sgbench.runs.plan import Data, make_plan
from sgbench.runs.progress import Lane
from sgbench.runs.sweep import Quiet
from sgbench.spec import build
from sgbench.store import Store
from sgbench.store.rows import RunEnd


@pytest.fixture(scope="module")
def undisturbed(place: Place) -> Command:
    (place.folder / "constructed").unlink(missing_ok=True)
    command = place.run("sweep", "tiny.yaml")
    (place.folder / "constructed").rename(place.folder / "constructed.undisturbed")
    return command


def assert_quiet(command: Command | Said) -> None:
    """Nothing but sgbench itself has spoken."""
    said = re.compile(
        r"tiny: \d runs?: .*|starting Ray…|joining the Ray cluster at .*…|"
        r"started .*|scoring .*|(done|FAILED) .* \(\d of \d\).*|"
        r"stopped .*: the same command resumes it|"
        r".*: step \d+/\d+, loss .*, ETA .*|\d of \d done · .*elapsed .*|"
        r"Interrupted; run the same command to resume\.|\d of \d runs failed: --retry repeats them\."
    )
    assert [line for line in command.stderr.splitlines() if not said.fullmatch(line)] == []


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_scores_every_run_prints_the_table_and_leaves_nothing_behind(
    place: Place, undisturbed: Command
) -> None:
    assert len(undisturbed.started()) == 4
    tried, *trained = (place.folder / "constructed.undisturbed").read_text().splitlines()
    assert len(trained) == 2
    assert tried not in trained
    assert undisturbed.stderr.count("step 1/30") == 4
    assert_quiet(undisturbed)
    assert_clean(place, "results/tiny")
    assert "psnr_y" in undisturbed.stdout
    assert "±" in undisturbed.stdout
    outcome = place.outcome("results/tiny")
    assert len(outcome) == 4
    assert all(len(run["scores"]) == 2 * 3 for run in outcome.values())
    assert all([row[0] for row in run["history"]] == list(range(1, STEPS + 1)) for run in outcome.values())
    assert len({json.dumps(run["history"]) for run in outcome.values()}) == 4


@pytest.mark.ray
@pytest.mark.slow
def test_what_a_run_prints_is_in_its_log_and_its_course_is_what_tensorboard_shows(
    place: Place, undisturbed: Command
) -> None:
    results = sgbench.load_results(str(place.folder / "results/tiny"))
    for row in results.runs.to_pylist():
        first, *lines, last = place.call("logs", row["run_id"]).stdout.splitlines()
        assert first.startswith(f"── {row['name']}, ")
        steps = [
            line for line in lines if re.fullmatch(r"step \d+/30, loss [\d.]+, [\d.]+ steps/s, ETA \d+:\d\d", line)
        ]
        assert (steps[0].partition("/")[0], steps[-1].partition("/")[0]) == ("step 1", f"step {STEPS}")
        assert len(steps) <= 12
        spoken = ["chatter of a C library"] if "Slow" in row["loss"] else []
        assert [line for line in lines if line not in steps] == spoken
        assert last == "done"
        (folder,) = (place.folder / "results/tiny/tensorboard").glob(f"edsr-tiny * seed {row['seed']} {row['run_id']}")
        read = EventAccumulator(str(folder)).Reload()
        tags = set(read.Tags()["scalars"])
        history = {each["step"]: each for each in results.history.to_pylist() if each["run_id"] == row["run_id"]}
        shown = read.Scalars("loss")
        assert shown[-1].step == STEPS
        assert [point.value for point in shown] == pytest.approx([history[point.step]["loss"] for point in shown])
        totals = [each for each in results.scores.to_pylist() if not each["image"] and each["run_id"] == row["run_id"]]
        scores = {f"scores/{each['dataset']}/{each['metric']}": each["value"] for each in totals}
        terms = (f"terms/{term.replace(':', '_')}" for term in dict(history[1]["terms"]))
        assert tags == {"loss", "lr", "steps_per_second", *terms, *scores}
        for name, value in scores.items():
            assert [point.value for point in read.Scalars(name)] == pytest.approx([value])


@pytest.mark.ray
@pytest.mark.slow
def test_the_same_sweep_again_starts_nothing_imports_no_ray_and_prints_the_same_table(
    place: Place, undisturbed: Command
) -> None:
    before, began = place.times("results/tiny"), os.times()
    again = place.run("sweep", "tiny.yaml", python=("-X", "importtime"))
    ended = os.times()  # of processes that have ended, so that a busy machine makes no difference
    assert ended.children_user + ended.children_system - began.children_user - began.children_system < 10
    assert again.stdout == undisturbed.stdout
    assert place.times("results/tiny") == before
    imported = set(re.findall(r"^import time:.*\| +(\S+)$", again.stderr, re.MULTILINE))
    assert "sgbench.runs.plan" in imported
    assert "ray" not in imported
    said = [line for line in again.stderr.splitlines() if not line.startswith("import time:")]
    assert said == ["tiny: 4 runs: 4 done; nothing to do"]


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_that_is_interrupted_and_killed_ends_like_an_undisturbed_one(
    place: Place, undisturbed: Command
) -> None:
    arguments, store = ("sweep", "tiny.yaml", "--results", "stormy"), "stormy"

    interrupted = place.start(*arguments, slow=0.4)
    interrupted.wait_until(lambda err: err.count("\ndone ") == 2 and "Slow · seed 1: step" in err)
    interrupted.signal_group(signal.SIGINT)
    assert interrupted.end(30) == 130, interrupted.stderr[-2000:]
    assert interrupted.stderr.endswith("Interrupted; run the same command to resume.\n")
    assert_quiet(interrupted)
    place.assert_no_processes()
    plan = {row["run_id"]: row for row in place.plan("tiny.yaml", "--results", store)}
    statuses = [row["status"] for row in plan.values()]
    assert statuses.count("done") == 2
    assert "resumable" in statuses
    before = place.times(store)

    killed = place.start(*arguments, slow=0.4)
    killed.wait_until(lambda err: err.count(": step ") == 2)
    killed.signal_group(signal.SIGKILL)
    killed.end()
    place.assert_no_processes()  # before the next call, and without any help
    assert len(killed.started()) == 2
    reached = {row["loss"] + str(row["seed"]): row["step"] for row in plan.values() if row["status"] != "done"}
    for loss, seed, step in re.findall(r"^edsr-tiny · (\S+) · seed (\d): step (\d+)/", killed.stderr, re.MULTILINE):
        assert int(step) == int(reached[f"{loss}{seed}"].partition("/")[0]) + 1

    last = place.run(*arguments)
    assert len(last.started()) == 2
    assert_quiet(last)
    assert last.stdout == undisturbed.stdout
    assert {file: place.times(store)[file] for file in before} == before
    assert place.outcome(store) == place.outcome("results/tiny")
    assert_clean(place, store)


@pytest.mark.ray
@pytest.mark.slow
def test_a_rerun_that_is_interrupted_keeps_what_it_has_not_replaced_and_goes_on(place: Place, head: Nodes) -> None:
    store, runs = "again", ("tiny.yaml", "--results", "again", "--loss", "slow=odd_losses:Slow", "--seeds", "0-3")
    head.call("sweep", *runs)
    outcome = place.outcome(store)

    def rows() -> dict[str, Any]:
        return {row["run_id"]: row for row in sgbench.load_results(str(place.folder / store)).runs.to_pylist()}

    before = rows()
    interrupted = place.start("sweep", *runs, "--rerun", "--address", head.address, slow=0.3)
    interrupted.wait_until(lambda err: err.count("\ndone ") == 2 and err.count(": step 1/") == 4)
    interrupted.signal_group(signal.SIGINT)
    assert interrupted.end(30) == 130, interrupted.stderr[-2000:]
    assert sorted(rows()[run_id] == row for run_id, row in before.items()) == [False, False, True, True]
    assert place.outcome(store) == outcome
    assert "4 done; nothing to do" in place.call("sweep", *runs).stderr

    last = head.call("sweep", *runs, "--rerun")
    assert len(last.started()) == 2
    assert all(name.startswith("edsr-tiny · slow · seed ") for name in last.started())
    assert all(rows()[run_id] != row for run_id, row in before.items())
    assert place.outcome(store) == outcome
    assert_quiet(last)
    assert_clean(place, store)


@pytest.mark.ray
@pytest.mark.slow
def test_a_failing_run_is_a_row_a_dying_process_is_started_again_and_the_others_go_on(
    place: Place, head: Nodes
) -> None:
    broken = place.folder / "broken"
    broken.touch()
    losses = ("--loss", "l1", "--loss", "odd_losses:NotFinite", "--loss", "odd_losses:DiesOnce")
    arguments = ("sweep", "tiny.yaml", "--results", "failing", "--seeds", "0", *losses)

    first = head.call(*arguments, code=1)
    broken.unlink()
    assert (place.folder / "died").exists()
    assert_quiet(first)
    assert "1 of 3 runs failed" in first.stderr
    rows = {row["loss"]: row for row in sgbench.load_results(str(place.folder / "failing")).runs.to_pylist()}
    assert {loss: row["status"] for loss, row in rows.items()} == {
        "l1": "done",
        "odd_losses:NotFinite": "failed",
        "odd_losses:DiesOnce": "done",
    }
    failed = rows["odd_losses:NotFinite"]
    assert (failed["step"], failed["error"]) == (6, "loss is NaN at step 6")
    assert "loss is NaN" in first.stdout  # the cells of the table say so
    log = place.folder / "failing/logs" / failed["run_id"] / "run.log"
    assert f": loss is NaN at step 6; its log: {log}\n" in first.stderr
    first_line, *steps, last_line = log.read_text().splitlines()
    assert first_line.startswith("── edsr-tiny · odd_losses:NotFinite · seed 0, ")
    assert [line.partition("/")[0] for line in steps] == ["step 1"]
    assert last_line == "failed: loss is NaN at step 6"
    assert all(row["node"] for row in rows.values())

    second = head.call(*arguments, code=1)
    assert second.started() == []
    assert "1 of 3 runs failed" in second.stderr

    retried = head.call(*arguments, "--retry")
    assert retried.started() == ["edsr-tiny · odd_losses:NotFinite · seed 0"]
    assert_clean(place, "failing")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_group_trains_what_one_process_trains(
    place: Place, undisturbed: Command, head: Nodes, workers: int
) -> None:
    if (os.cpu_count() or 1) < workers:
        pytest.skip(f"{workers} workers need as many cores")
    store = f"workers{workers}"
    run = ("--loss", "l1 + 1.0*sg", "--seeds", "0", "--metric", "psnr_y", "--metric", "ssim_y")
    validated = ("--set", "validate.sets=[apart=apart]", "--set", "validate.every=7")  # which changes nothing
    for image in sorted((place.folder / "test").iterdir()):
        write_png(place.folder / "apart" / image.name, read_image(image)[::-1])
    command = head.call("sweep", "tiny.yaml", "--results", store, "--set", f"workers={workers}", *run, *validated)
    assert_quiet(command)
    assert_clean(place, store)
    results = sgbench.load_results(str(place.folder / store))
    assert results.runs.column("workers").to_pylist() == [workers]
    ((run_id, group),) = place.outcome(store).items()
    validation = {row["step"]: row["value"] for row in results.validation.to_pylist()}
    assert list(validation) == [7, 14, 21, 28, STEPS]
    (folder,) = (place.folder / store / "tensorboard").glob(f"* {run_id}")
    points = EventAccumulator(str(folder)).Reload().Scalars("validation/apart/psnr_y")
    assert {point.step: point.value for point in points} == pytest.approx(validation)
    logs = {path.name for path in (place.folder / store / "logs" / run_id).glob("*.log")}
    assert logs == {"run.log", "scoring.log", *(f"worker{rank}.log" for rank in range(workers))}
    alone = place.outcome("results/tiny")[run_id]
    if workers == 1:
        assert group == alone
    else:  # the same patches, and sums in another order
        assert [row[1] for row in group["history"]] == pytest.approx([row[1] for row in alone["history"]], rel=1e-3)
        assert [row[-1] for row in group["scores"]] == pytest.approx([row[-1] for row in alone["scores"]], rel=1e-2)
        assert group["weights"] != alone["weights"]


@pytest.fixture
def dead_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_at_which_nobody_answers_is_bad_input(tmp_path: Path, dead_port: int, scheme: str) -> None:
    address = f"{scheme}127.0.0.1:{dead_port}"
    with a_place(tmp_path) as place:
        command = place.run("sweep", "tiny.yaml", "--rerun", "--address", address, code=2)
    (line,) = command.stderr.splitlines()  # before anything is prepared
    assert line.startswith(f"error: --address: no Ray cluster can be reached at '{address}': ")


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_that_waits_for_room_ends_when_it_is_asked_to(place: Place, head: Nodes) -> None:
    sweep = ("sweep", "tiny.yaml", "--set", "recipe.threads=64", "--results", "waiting", "--address", head.address)
    command = place.start(*sweep, SGBENCH_GROWS_TO="CPU=64")
    command.wait_until(lambda _: has_tune(head.processes("raylet/raylet")))
    command.process.send_signal(signal.SIGTERM)
    assert command.end(30) == 130
    assert command.started() == []
    head.assert_idle()


@pytest.fixture
def job(tmp_path: Path, train_images: PackedImages, test_images: PackedImages) -> Job:
    store = Store(Storage(str(tmp_path / "store")))
    grids = [{"backbones": ["edsr-tiny"], "losses": ["l1"]}]
    sweep = build({"grids": grids, "train": "Photos", "tests": ["Photos"], "metrics": ["psnr_y"]}, "tiny")
    data = Data(train_images, (test_images,))
    return Job.of(make_plan("tiny", sweep, data, store).runs[0], data, sweep, store.storage)


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a trial in this process reports to Tune."""
    from sgbench.cluster import trial as worker

    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(worker.tune, "report", reports.append)
    monkeypatch.setattr(worker, "own_id", lambda: "first")
    monkeypatch.setattr(worker, "own_lane", lambda workers=1: Lane("node1"))
    monkeypatch.setattr(worker, "is_leaving", lambda node: node == "leaving")
    return reports


@pytest.fixture
def attempt(job: Job, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, BaseException]], None]:
    """Does a trial in this process whose worker group fails for good, given what its workers raised."""
    from ray.train import WorkerGroupError

    from sgbench.cluster import trial as worker
    from sgbench.cluster.registered import pack
    from sgbench.runs.code import names_of_jobs

    def attempt(raised: dict[int, BaseException]) -> None:
        class Trainer:
            def fit(self) -> None:
                raise WorkerGroupError("a traceback", raised)

        monkeypatch.setattr(worker, "_trainer", lambda job, config, folder: Trainer())
        monkeypatch.setattr(worker, "session_folder", lambda: None)
        config = {"job": job.to_json(), "stop": ".ray/stop", "remote": False, "workers": 2}
        worker.trial(config, pack(names_of_jobs([job]), remote=False).code)

    return attempt


NODES = ("first", "second", "third")
LOST = RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer")
FULL = OSError(28, "No space left on device", "/store")


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        ({0: LOST, 1: FULL}, str(LOST)),
        ({0: FULL}, "'/store': No space left on device"),
    ],
)
def test_a_worker_group_whose_storage_or_machine_fails_is_interrupted(
    job: Job, attempt: Any, reports: list[dict[str, Any]], raised: dict[int, BaseException], message: str
) -> None:
    attempt(raised)
    assert Store(Storage(job.store)).run(job.run_id) is None
    assert (reports[-1]["event"], reports[-1]["end"]) == ("finished", "interrupted")
    assert message in reports[-1]["message"]


def test_a_trial_that_is_kept_for_another_run_on_a_node_that_will_be_taken_away_goes_elsewhere(
    attempt: Any, reports: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.exceptions import RayActorError

    from sgbench.cluster import trial as worker

    monkeypatch.setattr(worker, "own_id", lambda: "leaving")
    with pytest.raises(RayActorError) as left:
        attempt({})
    assert left.value.preempted
    assert reports == []


def test_a_run_whose_log_cannot_be_written_is_interrupted(
    job: Job, attempt: Any, reports: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "store" / "logs").mkdir(parents=True)
    (tmp_path / "store" / "logs" / job.run_id).write_text("no folder")
    attempt({})
    assert (reports[-1]["event"], reports[-1]["end"]) == ("finished", "interrupted")
    assert "File exists" in reports[-1]["message"]


@pytest.mark.parametrize(
    ("words", "lost", "end"),
    [
        ("The actor died because its node has died. Node Id: 1f", "none", "interrupted"),
        ("1 worker(s) were killed due to the node running low on memory. Object store", "none", "interrupted"),
        ("The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR", "none", "failed"),
        ("The actor died unexpectedly before finishing this task.", "second", "interrupted"),
        ("The actor 1f is unavailable: RPC error: Socket closed rpc_code: 14.", "none", "interrupted"),
    ],
)
def test_the_loss_of_a_machine_is_no_failure_of_the_run_that_was_on_it(
    job: Job, words: str, lost: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sgbench.cluster import sweep as driver

    class Trial:
        config: ClassVar[dict[str, str]] = {"job": job.to_json()}
        run_metadata = SimpleNamespace(num_failures=0)

        def get_error(self) -> str:
            return f"Failure # 3 (occurred at 2026-01-01)\nThe actor died unexpectedly.\n{words}\n"

    seen: list[str] = []
    placed: list[Lane] = []

    class Seeing(Quiet):
        def placed(self, run_id: str, lane: Lane) -> None:
            placed.append(lane)

        def finished(self, run_id: str, end: RunEnd, message: str) -> None:
            seen.append(end)

    monkeypatch.setattr(driver.ray, "nodes", lambda: [{"NodeID": name, "Alive": name != lost} for name in NODES])
    events = driver._Events([job], Seeing(), remote=True)
    for count, node in enumerate(NODES, 1):
        started = {
            "event": "started",
            "run_id": job.run_id,
            "label": "a run",
            "node": node,
            "lane": [node, "0", "H100"],
        }
        events.on_trial_result(1, [], Trial(), started)
        assert events.running == {job.run_id}
        if node != NODES[-1]:
            events.on_trial_recover(1, [], Trial())
            assert events.running == set()
            counted = 0 if "unavailable" in words else count - (lost in NODES[:count])
            assert Trial.run_metadata.num_failures == counted
    events.on_trial_error(1, [], Trial())
    told = events.summary.failed if end == "failed" else events.summary.cut
    assert (seen, told) == ([end], {job.run_id: words})
    assert events.died == ({job.run_id} if end == "failed" else set())
    assert placed == [Lane(node, "0", "H100") for node in NODES]
    assert events.lanes == {job.run_id: placed[-1]}


def test_a_worker_group_that_fails_for_good_is_a_failed_row_and_no_exception(
    job: Job, attempt: Any, reports: list[dict[str, Any]]
) -> None:
    store = Store(Storage(job.store))
    attempt({0: LOST, 1: RuntimeError("no room\nfor more")})
    row = store.run(job.run_id)
    assert row is not None
    assert (row["status"], row["error"]) == ("failed", "RuntimeError: no room")
    assert [report["event"] for report in reports] == ["started", "finished"]
    assert (reports[-1]["end"], reports[-1]["message"]) == ("failed", "RuntimeError: no room")

    # Asked to stop, it does not even begin.
    store.storage.write(".ray/stop", b"")
    attempt({})
    assert reports[-1]["end"] == "stopped"
