"""Several that write to a store side by side: what one has booked no other changes, and who wants it alone waits."""

import contextlib
import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import hypothesis.strategies as st
import obstore
import pytest
from crash_points import Frail
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from test_lease import Killed, Point, every_point
from test_lock import again, disk, left_alone
from virtual_time import World

from sgbench.core import lease as lease_module
from sgbench.core.errors import InputError, InterruptionError
from sgbench.core.lease import FRESH_SECONDS, LEASE_SECONDS, Claim, in_words
from sgbench.core.lock import LEASES, WRITERS, DiskLocks
from sgbench.core.storage import Storage

pytestmark = pytest.mark.filterwarnings("ignore:.* seems dead; waiting")

MINUTES = 300.0


@pytest.fixture(params=["a kernel lock", "ENOSYS", "nolock"])
def store(request, monkeypatch, tmp_path):
    """A store on a disk with the kernel's locks, without locks, and with some that only this machine sees."""
    disk(monkeypatch, tmp_path, request.param)
    monkeypatch.setattr(lease_module, "AWAIT_SECONDS", 0.2)
    return Storage(str(tmp_path / "store"))


# The contract, whatever the disk can do


def test_writers_share_a_store_and_keep_it_from_whoever_wants_it_alone(store):
    other, third = again(store), again(store)
    with store.register("shard 1/8 of paper"):
        with other.register("shard 3/8 of paper"):
            store.write("a", b"1")
            other.write("b", b"2")
            assert third.holder().startswith("shards 1/8 and 3/8 of paper, since 2")
            with pytest.raises(
                InputError, match=r"in use by shards 1/8 and 3/8 of paper, since .*; wait for it to end"
            ):
                third.lock("sgbench results clean").__enter__()
        who = rf"in use by 'shard 1/8 of paper' \(process {os.getpid()} on .*\), since"
        with pytest.raises(InputError, match=who), third.lock("sgbench results clean"):
            pass
    assert third.holder() is None
    with third.lock("sgbench results clean"):
        assert third.writers() == []
        with pytest.raises(InputError, match="in use by 'sgbench results clean'"), store.register("shard 1/8 of paper"):
            pass
    assert third.read("a") + third.read("b") == b"12"
    assert [name for name in third.sizes() if name.startswith(WRITERS)] == []


def test_what_one_has_booked_is_not_had_by_another(store):
    other = again(store)
    assert store.book(["x"]) == {}  # who has the store alone, or is not registered, has no others beside
    with store.register("shard 1/2 of paper"), other.register("run x of quick"):
        assert store.book(["x", "y"]) == {}
        taken = other.book(["x", "z"])
        assert set(taken) == {"x"}
        assert other.in_words(taken.values()).startswith(f"'shard 1/2 of paper' (process {os.getpid()} on ")
        assert set(store.book(["x", "y", "z"])) == {"z"}
        with pytest.raises(InputError, match="in use by 'shard 1/2 of paper'"):
            other.end(taken.values())
        store.book([])
        assert other.book(["x", "z"]) == {}
    with store.register("again"):
        assert store.book(["x", "y", "z"]) == {}


def test_who_writes_on_behalf_of_a_writer_can_do_so_as_long_as_it_is_registered(store):
    assert store.fence is None
    with store.register("shard 1/2 of paper"):
        worker = pickle.loads(pickle.dumps(store))
        assert worker.fence == store.fence is not None
        worker.write("a", b"1")
        with worker.alone():
            worker.write("of all", b"")
    assert store.fence is None
    left_alone(worker, "its holder has ended")


def test_what_belongs_to_all_is_changed_by_one_at_a_time_and_the_others_wait(store, monkeypatch):
    monkeypatch.setattr(lease_module, "LOOK_SECONDS", 0.01)

    def add():
        storage = again(store)
        with storage.register("shard 1/8 of paper"):
            for _ in range(3):
                with storage.alone():
                    before = int(storage.read("sum"))
                    time.sleep(0.02)
                    storage.write("sum", str(before + 1).encode())

    store.write("sum", b"0")
    threads = [threading.Thread(target=add) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read("sum") == b"9"


def test_nothing_is_waited_for_without_end(store, monkeypatch):
    for module in ("lock", "lease"):
        monkeypatch.setattr(f"sgbench.core.{module}.BRIEF_SECONDS", 0.5)
    with (
        store.lock("compacting for a moment", brief=True),
        pytest.raises(InputError, match="in use by 'compacting for a moment'"),
        again(store).register("shard 1/2 of paper"),
    ):
        pass


REGISTER = """
import sys, time
from sgbench.core.storage import Storage
storage = Storage(sys.argv[1])
with storage.register("shard 1/2 of paper"):
    storage.book(["x"])
    print("booked", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_had_booked_is_free_at_once_where_the_kernel_locks(tmp_path):
    store = Storage(str(tmp_path / "store"))
    with subprocess.Popen([sys.executable, "-c", REGISTER, store.root], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "booked\n"
        with store.register("shard 2/4 of paper"):
            assert set(store.book(["x"])) == {"x"}
            with pytest.raises(InputError, match="in use by shards 1/2 and 2/4 of paper, since "):
                again(store).lock("sgbench results clean").__enter__()
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert again(store).holder().startswith("'shard 2/4 of paper'")
            assert store.book(["x"]) == {}
    with store.lock("sgbench results clean"):
        pass


def test_machines_that_mount_a_store_differently_do_not_take_each_other_for_dead(tmp_path):
    store = Storage(str(tmp_path / "store"))
    with store.register("shard 1/2 of paper"), pytest.MonkeyPatch.context() as patch:
        store.book(["x"])
        disk(patch, tmp_path, "nolock")
        other = again(store)
        with other.register("shard 2/2 of paper"):
            taken = other.book(["x"])
            with pytest.raises(
                InputError, match=rf"this machine cannot test; .*delete '{WRITERS}/\w{{8}}/.lock' there"
            ):
                other.end(taken.values())
            patch.undo()
            with again(store).register("shard 1/3 of paper"):
                leased = {each for each in other.writers() if (Path(store.root) / WRITERS / each / LEASES).exists()}
                assert leased == {*other.writers()} - {*taken.values()}
    with again(store).lock("sgbench results clean"):
        pass


def test_holders_are_named_by_their_parts():
    def claim(purpose, minute="03:04"):
        return Claim(f"'{purpose}' (process 7 on host)", "token", True, False, purpose, f"2026-01-02 {minute} UTC")

    assert in_words([claim("sgbench sweep quick")]) == "'sgbench sweep quick' (process 7 on host)"
    many = [claim(f"shard {number}/12 of paper") for number in range(12, 0, -1)]
    assert in_words(many) == (
        "shards 1/12, 2/12, 3/12, 4/12, 5/12, 6/12, 7/12, 8/12 and 4 more of paper, since 2026-01-02 03:04 UTC"
    )
    assert in_words([claim("run a of q"), claim("shard 1/2 of p"), claim("run b of q", "03:01")]) == (
        "runs a and b of q, since 2026-01-02 03:01 UTC and 'shard 1/2 of p' (process 7 on host), "
        "since 2026-01-02 03:04 UTC"
    )


# Every request to the locks, and every operation on their files: one falls asleep there, and others go on


def in_an_object_store(folder, world):
    frail = Frail(clock=world.clock())
    return lambda: frail.process(world.clock())


def on_a_disk(folder, world):
    def process():
        storage = Storage(str(folder))
        storage.locks = DiskLocks(folder, str(folder), world.clock(), leased=True)
        return storage

    folder.mkdir()
    return process


def struck(patch, number, strike, where):
    if where is on_a_disk:
        return Point(patch, number, strike)
    return Point(patch, number, strike, obstore, ("get", "put", "list", "delete"))


@pytest.mark.parametrize("where", [in_an_object_store, on_a_disk])
@pytest.mark.parametrize("meanwhile", ["alone", "alone and gone", "beside", "beside and gone"])
def test_a_writer_that_falls_asleep_anywhere_changes_nothing_that_another_has_by_then(tmp_path, where, meanwhile):
    def act(patch, number):
        world = World()
        process = where(tmp_path / f"{number}", world)
        sleeper, other, after = process(), process(), contextlib.ExitStack()

        def strike():
            sleeper.locks.clock.asleep = True
            with contextlib.ExitStack() as gone:
                stack = gone if "gone" in meanwhile else after
                if "alone" in meanwhile:
                    stack.enter_context(other.lock("sgbench results clean"))
                else:
                    stack.enter_context(other.register("shard 1/4 of paper"))
                    while taken := other.book(["x"]):
                        other.end(taken.values())
                other.write("x", b"other")
            sleeper.locks.clock.asleep = False

        point = struck(patch, number, strike, where)
        with after:
            wrote_after_it = False
            with contextlib.suppress(InputError, InterruptionError), sleeper.register("shard 1/2 of paper"):
                taken = sleeper.book(["x"])
                for _ in range(2):  # if it slept in the check itself, this is the moment between check and request
                    world.pass_by(FRESH_SECONDS + 1)
                    sleeper.write("beside", b"")
                world.pass_by(FRESH_SECONDS + 1)
                if "x" not in taken:
                    slept = point.struck
                    sleeper.write("x", b"sleeper")
                    wrote_after_it = slept
            if point.struck and "gone" not in meanwhile:
                assert not wrote_after_it
                other.write("x", b"other")
        return point.struck

    every_point(act)


@pytest.mark.parametrize("where", [in_an_object_store, on_a_disk])
@pytest.mark.parametrize("cut", ["dies", "fails once"])
def test_wherever_a_writer_is_cut_off_what_it_had_booked_is_had_by_the_next(tmp_path, where, cut):
    def act(patch, number):
        world = World()
        process = where(tmp_path / f"{number}", world)
        first, second = process(), process()

        def strike():
            if cut == "dies":
                first.locks.clock.asleep = True
                raise Killed
            raise OSError(28, "No space left on device")

        point, stack = struck(patch, number, strike, where), contextlib.ExitStack()
        with contextlib.suppress(Killed, OSError):
            stack.enter_context(first.register("shard 1/2 of paper"))
            first.book(["x"])
        if point.struck and cut == "fails once":
            stack.close()
        patch.undo()
        with second.register("shard 1/4 of paper"):
            taken = second.book(["x"])
            assert bool(taken) <= (first.writers() != [second._writer])
            if point.struck:
                second.end(taken.values())
                assert second.book(["x"]) == {}
            else:
                with pytest.raises(InputError, match="in use by 'shard 1/2 of paper'"):
                    second.end(taken.values())
        if point.struck:
            with second.lock("sgbench results clean"):
                second.write("x", b"")
                assert second.writers() == []
        with contextlib.suppress(InterruptionError, OSError):
            stack.close()
        return point.struck

    every_point(act)


# All histories: who registers, books, sleeps, dies and wants it alone, in any order, on clocks that differ


class Process:
    def __init__(self, storage):
        self.storage = storage
        self.stack = None
        """Of the lock, if it has one, as it thinks."""
        self.booked = set()
        self.alone = self.slept = False

    @property
    def awake(self):
        return not self.storage.locks.clock.asleep

    def leave(self):
        stack, self.stack = self.stack, None
        self.booked, self.alone, self.slept = set(), False, False
        with contextlib.suppress(InterruptionError):
            stack.close()


class Histories(RuleBasedStateMachine):
    """Processes that share a store; whoever may write has it alone, or has booked what no other who may write has."""

    def __init__(self):
        super().__init__()
        self.world = World()
        first = Frail(clock=self.world.clock())
        self.dead = []
        self.processes = [Process(first.process(self.world.clock(ahead))) for ahead in (0.0, 7.5, -3600.0)]

    def others(self, process):
        """Return those that hold something and are awake."""
        return [each for each in self.processes if each is not process and each.stack and each.awake]

    def enter(self, process, lock, alone):
        stack = contextlib.ExitStack()
        try:
            with warnings.catch_warnings(action="ignore"):
                stack.enter_context(lock)
        except InputError:
            assert any(alone or each.alone for each in self.others(process))
            return
        assert not any(alone or each.alone for each in self.others(process) if not each.slept)
        process.stack, process.alone = stack, alone

    @rule(number=st.integers(0, 2))
    def register(self, number):
        process = self.processes[number]
        if process.awake and not process.stack:
            self.enter(process, process.storage.register(f"shard {number}/3 of paper"), alone=False)

    @rule(number=st.integers(0, 2))
    def want_alone(self, number):
        process = self.processes[number]
        if process.awake and not process.stack:
            self.enter(process, process.storage.lock(f"command {number}"), alone=True)

    @rule(number=st.integers(0, 2), names=st.sets(st.sampled_from("xyz")), ends=st.booleans())
    def book(self, number, names, ends):
        process = self.processes[number]
        if not process.awake or not process.stack or process.alone:
            return
        try:
            with warnings.catch_warnings(action="ignore"):
                taken = process.storage.book(sorted(names))
                process.booked = names - taken.keys()
                booked = set().union(*(each.booked for each in (*self.processes, *self.dead) if each is not process))
                assert taken.keys() <= booked
                if ends and taken:
                    with contextlib.suppress(InputError):
                        process.storage.end(set(taken.values()))
        except InterruptionError:
            assert process.slept
            process.leave()

    @rule(seconds=st.sampled_from([0.1, FRESH_SECONDS, LEASE_SECONDS - 1, LEASE_SECONDS, MINUTES]))
    def pass_by(self, seconds):
        self.world.pass_by(seconds)

    @rule(number=st.integers(0, 2))
    def fall_asleep(self, number):
        process = self.processes[number]
        process.storage.locks.clock.asleep = True
        process.slept = process.stack is not None

    @rule(number=st.integers(0, 2))
    def wake(self, number):
        self.processes[number].storage.locks.clock.asleep = False

    @rule(number=st.integers(0, 2))
    def end(self, number):
        process = self.processes[number]
        if process.awake and process.stack:
            process.leave()

    @rule(number=st.integers(0, 2))
    def die(self, number):
        """Let a process sleep for ever, and start another in its place."""
        dead = self.processes[number]
        if dead.stack:
            dead.storage.locks.clock.asleep = True
            self.dead.append(dead)
            self.processes[number] = Process(dead.storage.process(self.world.clock()))

    @invariant()
    def nobody_writes_what_another_may(self):
        able = []
        for process in self.processes:
            if process.stack and process.awake:
                try:
                    process.storage.write("mine", b"")
                    able.append(process)
                except InterruptionError:
                    assert process.slept
                    process.leave()
        assert not any(each.alone for each in able) or len(able) == 1
        for one, two in itertools.combinations(able, 2):
            assert not one.booked & two.booked

    def teardown(self):
        for process in (*self.processes, *self.dead):
            if process.stack:
                process.leave()


class TestHistories(Histories.TestCase):
    settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
