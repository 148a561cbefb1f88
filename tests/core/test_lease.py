"""Leases: whatever sleeps, dies, is late or is told the wrong time, at most one process can write."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import boto3
import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from moto.server import DomainDispatcherApplication, create_backend_app
from obstore.store import MemoryStore
from virtual_time import World
from werkzeug.serving import make_server

from sgbench.core import lease as lease_module
from sgbench.core import lock as lock_module
from sgbench.core.errors import InputError, InterruptionError
from sgbench.core.lease import (
    BEAT_SECONDS,
    FRESH_SECONDS,
    LEASE_SECONDS,
    LOOK_SECONDS,
    SETTLE_SECONDS,
    Lease,
    LeaseFolder,
    Leases,
    together,
)
from sgbench.core.lock import Fence
from sgbench.core.object_stores import LeaseObject
from sgbench.core.storage import Storage
from sgbench.store import Store

pytestmark = pytest.mark.filterwarnings("ignore:.* (seems dead|has ended); waiting")

HOUR, MINUTES = 3600.0, 300.0


@pytest.fixture
def world():
    return World()


@pytest.fixture(params=["on a disk", "in an object store"])
def file(request, tmp_path):
    """The file of a lease."""
    return LeaseFolder(tmp_path / "lease") if request.param == "on a disk" else LeaseObject(MemoryStore(), "k", "k")


def leases(file, world, ahead=0.0):
    """Return a process' way to the lease, and its clock."""
    clock = world.clock(ahead)
    return Leases(file, "store", "a lease", clock), clock


def holder(leases):
    """Return who holds a lease, as a person is told."""
    (found,) = together([leases.look()], leases.clock)
    return found and found.who


def died(file, world, purpose, ahead=0.0):
    """Hold a lease and die with it."""
    Lease(file, "store", purpose, world.clock(ahead)).acquire()


# Who gets it, and when


@pytest.mark.parametrize("ahead", [0.0, -HOUR, HOUR, -120.0])
def test_a_live_holder_is_known_within_two_beats_whatever_its_clock_says(file, world, ahead):
    first, second = leases(file, world, ahead), leases(file, world)
    with first[0].hold("sgbench sweep quick"):
        world.pass_by(MINUTES)
        asked = world.time
        assert holder(second[0]) == f"'sgbench sweep quick' (process {os.getpid()} on {os.uname().nodename})"
        with pytest.raises(InputError, match=r"in use by 'sgbench sweep quick'"), second[0].hold("other"):
            pass
        assert world.time - asked < 4 * BEAT_SECONDS
    assert holder(second[0]) is None
    asked = world.time
    with second[0].hold("other"):
        assert world.time == asked


@pytest.mark.parametrize("ahead", [0.0, -HOUR, HOUR, -120.0])
def test_the_lease_of_a_dead_holder_is_free_after_it_whatever_its_clock_said(file, world, ahead):
    died(file, world, "sgbench sweep that died", ahead)
    second, asked = leases(file, world), world.time
    with (
        pytest.warns(UserWarning, match=r"was locked by 'sgbench sweep that died'.*seems dead; waiting 60 s"),
        second[0].hold("other") as held,
    ):
        held.check()
    assert LEASE_SECONDS <= world.time - asked <= LEASE_SECONDS + SETTLE_SECONDS + 2 * LOOK_SECONDS
    died(file, world, "another that died", ahead)
    assert holder(second[0]) is None


def test_a_holder_of_this_machine_that_has_ended_is_known_at_once_and_replaced_once_its_requests_have_arrived(
    file, world
):
    with subprocess.Popen(["true"]) as process:
        pass
    for of_a_process, seconds in ((process.pid, FRESH_SECONDS), (os.getpid(), LEASE_SECONDS), (1, LEASE_SECONDS)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "getpid", lambda pid=of_a_process: pid)
            died(file, world, "sgbench sweep that died")
        waiting, asked = leases(file, world)[0], world.time
        assert holder(waiting) is None
        assert (world.time == asked) == (of_a_process == process.pid)
        asked, word = world.time, "has ended" if of_a_process == process.pid else "seems dead"
        told = rf"was locked by 'sgbench sweep that died'.*which {word}; waiting"
        with pytest.warns(UserWarning, match=told), waiting.hold("other") as held:
            held.check()
        assert seconds <= world.time - asked <= seconds + SETTLE_SECONDS + 2 * LOOK_SECONDS


def test_a_process_of_another_machine_or_namespace_is_not_known_to_have_ended(file, world, monkeypatch):
    with subprocess.Popen(["true"]) as process:
        pass
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getpid", lambda: process.pid)
        patch.setattr(lease_module, "_machine", lambda: "another boot pid:[4026531836]")
        died(file, world, "elsewhere")
    (claim,) = leases(file, world)[0].claims()
    assert claim.process == ("another boot pid:[4026531836]", process.pid)
    assert not claim.ended
    monkeypatch.setattr(lease_module, "_machine", lambda: None)  # not on Linux
    assert b"machine" not in lease_module.claim("mine", "token", "today")


def test_of_those_that_wait_for_a_dead_holder_one_gets_it(file, world):
    died(file, world, "dead")
    waiting = [Lease(file, "store", f"sweep {number}", world.clock()) for number in range(3)]
    steps = [each.attempt() for each in waiting]
    refused = set()
    for _ in range(200):
        for number, step in enumerate(steps):
            try:
                next(step, None)
            except InputError:
                refused.add(number)
        world.pass_by(LOOK_SECONDS)
        for number, each in enumerate(waiting):
            if number not in refused and each._own is not None:
                each.renew()
    assert len(refused) == 2


# Sleepers


def test_a_holder_that_slept_for_less_than_its_lease_goes_on(file, world):
    first = leases(file, world)
    with first[0].hold("first") as held:
        world.pass_by(FRESH_SECONDS)
        first[1].asleep = True
        world.pass_by(LEASE_SECONDS / 2)
        first[1].asleep = False
        held.check()
        world.pass_by(MINUTES)
        held.check()


def test_a_holder_that_slept_longer_writes_no_more_and_keeps_nothing_from_its_successor(file, world):
    first, second = leases(file, world), leases(file, world)
    with first[0].hold("sleeper") as sleeper:
        fence = Fence(second[0], "store", sleeper.token)  # of a worker on another machine
        fence.check()
        first[1].asleep = True
        with second[0].hold("successor") as successor:
            first[1].asleep = False
            for check in (sleeper.check, fence.check, sleeper.check):
                with pytest.raises(InterruptionError, match=r"was lost to 'successor' .*; nothing was written since"):
                    check()
            world.pass_by(MINUTES)
            successor.check()
    assert [claim.held for claim in second[0].claims()] == [False]
    with pytest.raises(InterruptionError, match="its holder has ended"):
        fence.check()


# All histories: who holds, sleeps, dies and takes over, in any order, on two clocks that differ


class Process:
    def __init__(self, file, world, ahead):
        self.clock = world.clock(ahead)
        self.leases = Leases(file, "store", "a lease", self.clock)
        self.file = file
        self.lease = self.attempt = self.beats = None

    @property
    def awake(self):
        return not self.clock.asleep


class Histories(RuleBasedStateMachine):
    """Processes that want the lease; whoever may write is the one that has taken it last."""

    on_disk = False

    def __init__(self):
        super().__init__()
        self.world = World()
        self.folder = None

    @initialize(aheads=st.lists(st.sampled_from([0.0, HOUR, -HOUR, 7.5]), min_size=2, max_size=3))
    def begin(self, aheads):
        if self.on_disk:
            self.folder = Path(os.environ["PYTEST_LEASES"]) / f"{next(NUMBERS)}"
        self.file = LeaseFolder(self.folder) if self.on_disk else LeaseObject(MemoryStore(), "k", "k")
        self.processes = [Process(self.file, self.world, ahead) for ahead in aheads]

    def of(self, number):
        return self.processes[number % len(self.processes)]

    @rule(number=st.integers(0, 2), steps=st.sampled_from([1, 2, 10, 70, 200]))
    def want(self, number, steps):
        """Let one that has not got it look at it some times."""
        process = self.of(number)
        if not process.awake or process.beats is not None:
            return
        if process.attempt is None:
            process.lease = Lease(self.file, "store", f"process {number}", process.clock)
            process.attempt = process.lease.attempt()
        for _ in range(steps):
            try:
                with warnings.catch_warnings(action="ignore"):
                    seconds = next(process.attempt, None)
            except InputError:
                process.attempt = None
                return
            if seconds is None:
                process.attempt, process.beats = None, contextlib.ExitStack()
                process.beats.enter_context(process.clock.every(BEAT_SECONDS, process.lease.renew))
                return
            self.world.pass_by(seconds)

    @rule(seconds=st.sampled_from([0.1, BEAT_SECONDS, FRESH_SECONDS, LEASE_SECONDS - 1, LEASE_SECONDS, MINUTES]))
    def pass_by(self, seconds):
        self.world.pass_by(seconds)

    @rule()
    def fall_asleep(self):
        """Stop all that hold it or are about to: the others have time to take over before they wake."""
        for process in self.processes:
            process.clock.asleep |= process.beats is not None or process.attempt is not None

    @rule()
    def wake(self):
        for process in self.processes:
            process.clock.asleep = False

    @rule(number=st.integers(0, 2), dies=st.booleans())
    def end(self, number, dies):
        process = self.of(number)
        if process.awake and process.beats is not None:
            process.beats.close()
            if not dies:
                process.lease.release()
            process.lease = process.beats = None

    @invariant()
    def at_most_one_can_write(self):
        """Everybody who is awake and has had it, whether or not it knows of its loss, tries to write."""
        able = []
        for process in getattr(self, "processes", []):
            if process.beats is not None and process.awake:
                try:
                    process.lease.check()
                    able.append(process.lease.token)
                except InterruptionError:
                    process.beats.close()
                    process.lease = process.beats = None
        fences = [Fence(self.processes[0].leases, "store", token) for token in able]
        for fence in fences:
            fence.check()
        assert len(able) <= 1


NUMBERS = itertools.count()


class HistoriesOnDisk(Histories):
    on_disk = True


@pytest.fixture
def lease_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_LEASES", str(tmp_path))


@pytest.mark.usefixtures("lease_folders")
class TestHistories(Histories.TestCase):
    settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


@pytest.mark.usefixtures("lease_folders")
class TestHistoriesOnDisk(HistoriesOnDisk.TestCase):
    settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


# Every operation on the files of a lease on a disk: one falls asleep there, dies there, or is refused there


class Killed(BaseException):
    """Stands for kill -9: nothing catches it, and nothing is done afterwards."""


class Point:
    """Strikes at the n-th change or look of this process, and at all later ones if that kills it."""

    OF_FILES = ("open", "pwrite", "fsync", "unlink", "listdir", "mkdir", "ftruncate")

    def __init__(self, monkeypatch, number, strike, module=os, names=OF_FILES):
        self.left, self.strike, self.struck, self.killed = number, strike, False, False
        for name in names:
            monkeypatch.setattr(module, name, self.counted(getattr(module, name)))

    def counted(self, real):
        def operation(*arguments, **options):
            if self.killed:
                raise Killed
            if not self.struck:
                self.struck = self.left == 0
                self.left -= 1
                if self.struck:
                    try:
                        self.strike()
                    except Killed:
                        self.killed = True
                        raise
            return real(*arguments, **options)

        return operation


def every_point(act):
    """Call with a patch and each number, until one is too large to strike."""
    for number in itertools.count():
        with pytest.MonkeyPatch.context() as patch:
            if not act(patch, number):
                assert number > 5
                return


@pytest.mark.parametrize("others", [0, 1, 2])
def test_whoever_falls_asleep_anywhere_while_it_takes_over_does_not_write_when_it_wakes(tmp_path, others):
    def act(patch, number):
        world, file = World(), LeaseFolder(tmp_path / f"{number}")
        died(file, world, "dead")
        first, second = Lease(file, "store", "sleeper", world.clock()), leases(file, world)
        after, acquired = contextlib.ExitStack(), False

        def sleep():
            for _ in range(others):
                with second[0].hold("one that holds it and ends meanwhile"):
                    pass
            after.enter_context(second[0].hold("successor")).check()

        point = Point(patch, number, sleep)
        with after:
            try:
                first.acquire()
                acquired = True
                for _ in range(2):
                    world.pass_by(FRESH_SECONDS + 1)
                    first.check()  # if it slept in the check itself, this is the moment between check and request
            except (InputError, InterruptionError):
                pass
            if point.struck:
                world.pass_by(FRESH_SECONDS + 1)
                if acquired:
                    with pytest.raises(InterruptionError):
                        first.check()
                Fence(second[0], "store", second[0].claims()[0].token).check()
                assert second[0].claims()[0].who.startswith("'successor'")
        return point.struck

    every_point(act)


@pytest.mark.parametrize("cut", ["dies", "fails once"])
def test_wherever_whoever_takes_over_is_cut_off_the_lease_has_one_holder_or_none(tmp_path, cut):
    def act(patch, number):
        world, file = World(), LeaseFolder(tmp_path / f"{number}")
        died(file, world, "dead")
        first, second = Lease(file, "store", "first", world.clock()), leases(file, world)

        def strike():
            if cut == "dies":
                raise Killed
            raise OSError(28, "No space left on device")

        point = Point(patch, number, strike)
        holds = False
        with contextlib.suppress(Killed, OSError):
            first.acquire()
            first.renew()
            first.check()
            holds = True
        patch.undo()
        if holds:
            with first._clock.every(BEAT_SECONDS, first.renew), pytest.raises(InputError), second[0].hold("second"):
                pass
        else:
            with second[0].hold("second") as held:
                held.check()
        return point.struck

    every_point(act)


@pytest.mark.parametrize("cut", ["dies", "fails once"])
def test_wherever_the_holder_of_a_kernel_lock_is_cut_off_the_next_gets_it(tmp_path, cut):
    def act(patch, number):
        store, other = Storage(str(tmp_path / f"{number}")), Storage(str(tmp_path / f"{number}"))
        Path(store.root).mkdir()

        def strike():
            if cut == "dies":
                raise Killed
            raise OSError(28, "No space left on device")

        point = Point(patch, number, strike)
        with contextlib.suppress(Killed, OSError), store.lock("first"):
            store.write("a", b"")
            with pytest.raises(InputError, match="in use by "), other.lock("second"):
                pass
        patch.undo()
        with other.lock("second"):
            other.write("b", b"")
            assert other.holder() == f"'second' (process {os.getpid()} on {os.uname().nodename})"
        return point.struck

    with pytest.MonkeyPatch.context() as quick:
        quick.setattr(lock_module, "PATIENCE_SECONDS", 0.02)
        every_point(act)


# A server of object stores that is late, forgets to answer or does not compare


class Server:
    """An S3 server, in which something may happen to the next writes of a lock."""

    def __init__(self):
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.happen = []
        self.server = make_server("127.0.0.1", 0, self, threaded=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.at = f"127.0.0.1:{self.server.server_port}"

    def __call__(self, environ, start):
        is_write = environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].endswith("/.lock")
        what = self.happen.pop(0) if is_write and self.happen else None
        if isinstance(what, float):
            time.sleep(what)
        if what == "does not compare":
            self.happen.append(what)
            environ = {key: value for key, value in environ.items() if "MATCH" not in key}
        if what == "fails after it has written":
            list(self.moto(environ, lambda *arguments: lambda data: None))
            start("500 Internal Server Error", [])
            return [b""]
        return self.moto(environ, start)


@pytest.fixture(scope="module")
def server():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.delenv("AWS_PROFILE", raising=False)
        server = Server()
        boto3.client("s3", endpoint_url=f"http://{server.at}", region_name="us-east-1").create_bucket(Bucket="bucket")
        yield server
        server.server.shutdown()


QUICK = {"BEAT": 0.1, "LEASE": 30.0, "FRESH": 0.3, "SETTLE": 0.1, "LOOK": 0.05}


@pytest.fixture
def uri(server, monkeypatch):
    for name, seconds in QUICK.items():
        monkeypatch.setattr(lease_module, f"{name}_SECONDS", seconds)
    server.happen.clear()
    return f"s3://bucket/{next(NUMBERS)}?endpoint_override={server.at}&scheme=http&region=us-east-1"


def test_in_an_object_store_a_late_write_of_a_lock_gives_no_second_holder(server, uri):
    server.happen = [0.5]
    outcomes = []

    def sweep(number):
        storage = Storage(uri)
        try:
            with storage.lock(f"sweep {number}"):
                storage.write(f"{number}", b"")
                outcomes.append(number)
                time.sleep(1.0)
        except InputError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=sweep, args=(number,)) for number in range(2)]
    threads[0].start()
    time.sleep(0.2)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert outcomes[1:] == [1] or outcomes[:1] == [1]
    assert any("is in use by 'sweep 1'" in str(outcome) for outcome in outcomes)
    assert not Storage(uri).exists("0")


def test_in_an_object_store_a_write_of_a_lock_that_seems_to_fail_is_known_to_have_succeeded(server, uri):
    server.happen = ["fails after it has written"]
    storage = Storage(uri)
    with storage.lock("mine"):
        server.happen = ["fails after it has written"] * 2
        time.sleep(4 * QUICK["FRESH"])
        storage.write("a", b"")
        with pytest.raises(InputError, match="in use by 'mine'"), Storage(uri).lock("other"):
            pass
    with Storage(uri).lock("other"):
        pass


def test_an_object_store_that_does_not_compare_is_refused(server, uri):
    server.happen = ["does not compare"]
    with (
        pytest.raises(InputError, match=r"ignores or refuses conditional writes .*use one that has them"),
        Storage(uri).lock("mine"),
    ):
        pass
    assert not Storage(uri).exists(".lock")


def test_a_bucket_that_is_missing_is_named(uri):
    missing = uri.replace("bucket", "nowhere")
    with pytest.raises(OSError, match="there is no such bucket") as raised, Storage(missing).lock("mine"):
        pass
    assert raised.value.filename.startswith("s3://nowhere/")


# A real process that is really stopped

COMPACT = """
import os, signal, sys
from pathlib import Path
from sgbench.core import lease, lock
from sgbench.core.errors import InterruptionError
from sgbench.core.storage import Storage
from sgbench.store import Store
from sgbench.store import Store

root, mounts, quick = sys.argv[1], sys.argv[2], eval(sys.argv[3])
lock.MOUNTS = Path(mounts)
for name, seconds in quick.items():
    setattr(lease, f"{name}_SECONDS", seconds)

class Sleepy(Storage):
    def delete(self, name):
        if not name.startswith("checkpoints"):
            os.kill(os.getpid(), signal.SIGSTOP)
        super().delete(name)

store = Store(Sleepy(root))
try:
    with store.storage.lock("sgbench results compact"):
        store.compact()
except InterruptionError as error:
    print(error)
"""


@pytest.mark.parametrize("where", ["on a disk", "in an object store"])
def test_a_compaction_that_is_stopped_for_longer_than_its_lease_deletes_nothing_when_it_goes_on(
    where, uri, tmp_path, monkeypatch
):
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mounts"
    mounts.write_text(f"1 1 {os.major(device)}:{os.minor(device)} / / rw - nfs4 server:/home rw,nolock\n")
    monkeypatch.setattr(lock_module, "MOUNTS", mounts)
    root = uri if where == "in an object store" else str(tmp_path / "store")
    quick = QUICK | {"LEASE": 1.5}
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", quick["LEASE"])
    store = Store(Storage(root))
    row = {"run_id": "a" * 12, "kind": "folder", "name": "a", "scale": 4, "status": "failed"}
    store.write_run(row)
    words = [sys.executable, "-c", COMPACT, root, str(mounts), repr(quick)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as sleeper:
        assert os.WIFSTOPPED(os.waitpid(sleeper.pid, os.WUNTRACED)[1])
        with store.storage.lock("sgbench sweep quick"):
            store.write_run(row | {"status": "done"})
            before = {name: store.storage.read(name) for name in store.storage.sizes("runs")}
            sleeper.send_signal(signal.SIGCONT)
            said = sleeper.communicate(timeout=60)[0]
            assert {name: store.storage.read(name) for name in store.storage.sizes("runs")} == before
    assert f"was lost to 'sgbench sweep quick' (process {os.getpid()} on " in said
    assert said.endswith("; nothing was written since.\n")
    assert store.run("a" * 12)["status"] == "done"
