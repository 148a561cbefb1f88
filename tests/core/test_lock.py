"""The lock of a folder on a disk, and the fence that those carry who write on behalf of its holder."""

import contextlib
import errno
import fcntl
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest
from virtual_time import World

from sgbench.core import lease as lease_module
from sgbench.core import lock as lock_module
from sgbench.core.errors import InputError, InterruptionError
from sgbench.core.lock import LEASES, LOCK, DiskLocks, is_locked, locked, untrusted
from sgbench.core.storage import Storage


@pytest.fixture(params=["a kernel lock", "ENOSYS", "ENOLCK", "EINVAL", "ENOTSUP", "flock lies", "nolock"])
def kind(request, monkeypatch, tmp_path):
    """What locks the disk has: the kernel's, none, or some that only seem so."""
    disk(monkeypatch, tmp_path, request.param)
    return request.param


def disk(monkeypatch, folder, kind):
    for name, seconds in {"BEAT": 0.05, "LEASE": 30.0, "FRESH": 2.0, "LOOK": 0.02}.items():
        monkeypatch.setattr(lease_module, f"{name}_SECONDS", seconds)
    monkeypatch.setattr(lock_module, "PATIENCE_SECONDS", 0.2)
    if kind in errno.__dict__:

        def fail(*arguments):
            raise OSError(getattr(errno, kind), os.strerror(getattr(errno, kind)))

        monkeypatch.setattr(fcntl, "flock", fail)
    elif kind == "flock lies":
        monkeypatch.setattr(fcntl, "flock", lambda *arguments: None)
    elif kind == "nolock":
        mounts(monkeypatch, folder, "nfs4 server:/home rw,vers=4.2,nolock,hard")


def mounts(monkeypatch, folder, system):
    """Let the folder's file system be another one."""
    device = folder.stat().st_dev
    line = f"36 35 {os.major(device)}:{os.minor(device)} / /mnt rw,noatime shared:1 - {system}\n"
    (folder / "mounts").write_text(f"22 27 0:999 / /proc rw - proc proc rw\n{line}")
    monkeypatch.setattr(lock_module, "MOUNTS", folder / "mounts")


@pytest.fixture
def store(tmp_path):
    return Storage(str(tmp_path / "store"))


def again(store):
    """Return the same store as another process has it."""
    return Storage(store.root)


# The contract, whatever the disk can do


def test_a_second_holder_is_refused_by_the_name_of_the_first(store, kind):
    who = rf"in use by 'sgbench sweep quick' \(process {os.getpid()} on .*--results"
    for _ in range(2):
        with store.lock("sgbench sweep quick"):
            for _ in range(2):  # the first attempt does not overwrite the name
                with pytest.raises(InputError, match=who), again(store).lock("sgbench sweep other"):
                    raise AssertionError("the lock was had twice")
            assert again(store).holder() == f"'sgbench sweep quick' (process {os.getpid()} on {os.uname().nodename})"
        assert again(store).holder() is None
    with again(store).lock("sgbench sweep other"):
        store.write("written", b"without the lock, as by tests")


def test_an_error_inside_frees_the_lock(store, kind):
    with contextlib.suppress(KeyError), store.lock("one"):
        raise KeyError
    with again(store).lock("two"):
        pass


def test_who_holds_it_is_not_changed_by_looking(store, kind):
    assert store.holder() is None
    assert not store.exists()


def test_who_writes_on_behalf_of_the_holder_can_do_so_as_long_as_it_holds(store, kind):
    assert store.fence is None
    with store.lock("sgbench sweep quick"):
        worker = pickle.loads(pickle.dumps(store))
        assert worker.fence == store.fence is not None
        worker.write("a", b"1")
        worker.move("a", "b")
    assert store.fence is None
    left_alone(worker, "its holder has ended")
    with again(store).lock("sgbench sweep of another"):
        left_alone(worker, "was lost to 'sgbench sweep of another'")


def left_alone(storage, why):
    """Check that a storage whose lock was lost changes nothing."""
    there = Storage(storage.root)
    there.write("kept/file", b"kept")
    before = {name: there.read(name) for name in there.sizes() if not name.startswith((LOCK, LEASES))}
    source = Path(there.path("kept/file"))
    for change in (
        lambda: storage.write("kept/file", b"overwritten"),
        lambda: storage.write("new", b""),
        lambda: storage.upload(source, "kept/file"),
        lambda: storage.move("kept/file", "elsewhere"),
        lambda: storage.delete("kept/file"),
        lambda: storage.delete_folder("kept"),
    ):
        with pytest.raises(InterruptionError, match=f"{why}.*nothing was written since"):
            change()
    after = {name: there.read(name) for name in there.sizes() if not name.startswith((LOCK, LEASES))}
    assert after == before
    assert not there.exists("elsewhere")


def test_a_store_whose_folder_was_renamed_meanwhile_is_not_made_anew(store, kind):
    with store.lock("sgbench sweep quick"):
        store.write("runs/a", b"")
        Path(store.root).rename(f"{store.root}.renamed")
        with pytest.raises(InterruptionError, match="the folder was renamed or its lock deleted"):
            store.write("runs/b", b"")
    assert not store.exists()


@pytest.mark.parametrize(
    "left",
    [
        b"",
        b"\0\xff no JSON",
        b"[1, 2]",
        b'{"purpose": ["x"], "host": 1}',
        b"[" * 100_000,
        json.dumps({"purpose": "sgbench sweep old", "host": "node7", "pid": 7}).encode(),
        json.dumps({"holder": "{", "token": 3, "beat": 4e9}).encode(),
    ],
)
@pytest.mark.parametrize("kind", ["a kernel lock", "ENOSYS"])
@pytest.mark.filterwarnings("ignore:.* seems dead; waiting")
def test_a_lock_file_that_is_damaged_or_older_is_taken_over(store, tmp_path, monkeypatch, kind, left):
    disk(monkeypatch, tmp_path, kind)
    Path(store.root).mkdir()
    Path(store.path(LOCK)).write_bytes(left)
    assert store.holder() is None
    with store.lock("mine"), pytest.raises(InputError, match="in use by 'mine'"), again(store).lock("other"):
        pass
    if kind != "a kernel lock":
        (claimed,) = Path(store.path(LEASES)).iterdir()
        claimed.write_bytes(left)
        store.locks = DiskLocks(Path(store.root), store.root, World().clock())
        with store.lock("mine"):
            store.write("a", b"")


# Kernel locks

HOLD = """
import sys, time
from sgbench.core.storage import Storage
with Storage(sys.argv[1]).lock("sgbench sweep of another process"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(store):
    """Another process that holds the lock."""
    with subprocess.Popen([sys.executable, "-c", HOLD, store.root], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_another_process_is_excluded_until_the_holder_is_killed(store, holder):
    with (
        pytest.raises(InputError, match=f"'sgbench sweep of another process' .process {holder.pid} on "),
        store.lock("mine"),
    ):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert store.holder() is None
    with store.lock("mine"):
        assert json.loads(Path(store.path(LOCK)).read_text())["purpose"] == "mine"


def test_whoever_looks_who_holds_it_hinders_nobody(store):
    """Somebody who looks all the time, as a loop of `status` does, has the kernel's lock for many moments."""
    with store.lock("of a process that has ended"):
        claim = Path(store.path(LOCK)).read_bytes()
    Path(store.path(LOCK)).write_bytes(claim)  # as kill -9 leaves it
    done, seen = threading.Event(), set()

    def look():
        while not done.is_set():
            seen.add(again(store).holder())

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(100):
            with store.lock("mine"):
                pass
    finally:
        done.set()
        for looker in lookers:
            looker.join()
    assert seen <= {None, f"'mine' (process {os.getpid()} on {os.uname().nodename})"}


def test_on_a_full_disk_a_kernel_lock_is_had_without_a_name(disk, fill):
    store = Storage(str(disk / "store"))
    store.write("a", b"1")
    Path(store.path(LOCK)).touch()
    filler = fill(but=0)
    with store.lock("sgbench results clean"):
        assert store.fence is None
        with pytest.raises(InputError, match="in use by another process"), again(store).lock("other"):
            pass
        store.delete("a")
    filler.unlink()


# Which kind


@pytest.mark.parametrize(
    ("system", "seen"),
    [
        ("ext4 /dev/sda1 rw", True),
        ("nfs4 server:/home rw,vers=4.2,local_lock=none,addr=10.0.0.1", True),
        ("nfs server:/home rw,vers=3,nolock,local_lock=all", False),
        ("nfs server:/home rw,vers=3,local_lock=flock", False),
        ("nfs server:/home rw,vers=3,local_lock=posix", True),
        ("lustre mgs:/scratch rw,flock,lazystatfs", True),
        ("lustre mgs:/scratch rw,localflock,lazystatfs", False),
        ("lustre mgs:/scratch rw,lazystatfs", False),
        ("fuse.sshfs me@server: rw,user_id=0", False),
        ("beegfs beegfs_nodev rw", False),
        ("cifs //server/share rw,nobrl", False),
        ("gfs2 /dev/vg/data rw,localflocks", False),
        ("gfs2 /dev/vg/data rw", True),
        ("tmpfs tmpfs rw", True),
    ],
)
def test_locks_that_only_this_machine_sees_are_known_by_what_is_mounted(tmp_path, monkeypatch, system, seen):
    mounts(monkeypatch, tmp_path, system)
    assert (untrusted(tmp_path) is None) == seen
    store = Storage(str(tmp_path / "store"))
    with store.lock("mine"):
        pass
    assert store.exists(LEASES) != seen
    assert store.locks.kind.startswith("the kernel's" if seen else "a lease in the store, because ")


def test_a_probe_tells_why_a_lock_is_no_kernel_lock_and_leaves_nothing(store, kind):
    Path(store.root).mkdir()
    expected = {
        "a kernel lock": "the kernel's",
        "flock lies": "a lease in the store, because flock lets two hold the same lock",
        "nolock": "a lease in the store, because other machines do not see the locks of nfs4 as it is mounted",
    }
    assert store.locks.kind == expected.get(kind, f"a lease in the store, because flock answers {kind}")
    assert list(Path(store.root).iterdir()) == []


@contextlib.contextmanager
def on_another_machine(folder):
    """Be on a machine that sees its own locks and no others, whatever the mount says."""
    (folder / "its locks").mkdir(exist_ok=True)
    flock = fcntl.flock

    def elsewhere(file, how):
        there = (folder / "its locks" / f"{os.fstat(file.fileno()).st_ino}").open("ab")
        weakref.finalize(file, there.close)
        flock(there, how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "flock", elsewhere)
        yield


def test_locks_that_lie_are_found_by_a_machine_that_tries_one_which_another_has(tmp_path, monkeypatch):
    (tmp_path / "probe").touch()
    with locked(tmp_path / "probe"):
        assert is_locked(tmp_path / "probe")
        with on_another_machine(tmp_path):
            assert untrusted(tmp_path) is None
            assert not is_locked(tmp_path / "probe")
        monkeypatch.setattr(fcntl, "flock", lambda *arguments: os.open(tmp_path / "nothing", os.O_RDONLY))
        assert is_locked(tmp_path / "probe")  # as far as is known
        disk(monkeypatch, tmp_path, "ENOSYS")
        assert not is_locked(tmp_path / "probe")


def test_beside_a_lock_that_another_machine_does_not_see_a_lease_keeps_it_out(store, tmp_path, monkeypatch):
    disk(monkeypatch, tmp_path, "a kernel lock")
    with store.lock("mine"):
        with on_another_machine(tmp_path), again(store).lock("of the other"):
            pass  # as long as nobody has tried
        store.locks = DiskLocks(Path(store.root), store.root)
    with store.lock("mine"), store.locks.lease_too("mine too"):
        store.write("a", b"1")
        with (
            on_another_machine(tmp_path),
            pytest.raises(InputError, match="in use by 'mine too'"),
            again(store).lock("of the other"),
        ):
            pass
        pickle.loads(pickle.dumps(store)).write("a", b"2")
    assert store.locks.kind == "a lease in the store, because it has had one before"
    with again(store).lock("next"), on_another_machine(tmp_path), pytest.raises(InputError, match="in use by 'next'"):
        again(store).locks.hold("of the other").__enter__()


@pytest.mark.filterwarnings("ignore:.* seems dead; waiting")
def test_who_sleeps_longer_than_the_lease_beside_its_kernel_lock_writes_no_more(store, tmp_path):
    world = World()
    asleep = world.clock()
    store.locks = DiskLocks(Path(store.root), store.root, asleep)
    with store.lock("sleeper"), store.locks.lease_too("sleeper too"):
        worker = pickle.loads(pickle.dumps(store))
        worker.write("a", b"1")
        asleep.asleep = True
        other = again(store)
        other.locks = DiskLocks(Path(store.root), store.root, world.clock())
        with on_another_machine(tmp_path), other.lock("successor"):
            asleep.asleep = False
            for sleeper in (store, worker):
                left_alone(sleeper, "was lost to 'successor'")


def test_machines_that_mount_a_store_differently_exclude_each_other(store, tmp_path):
    with store.lock("with the kernel's"), pytest.MonkeyPatch.context() as patch:
        disk(patch, tmp_path, "nolock")
        with (
            pytest.raises(InputError, match=r"in use by 'with the kernel's'.*cannot test.*if it is dead, delete '"),
            again(store).lock("with a lease"),
        ):
            pass
        store.write("a", b"still its own")
    with pytest.MonkeyPatch.context() as patch:
        disk(patch, tmp_path, "nolock")
        with again(store).lock("with a lease"):
            patch.undo()
            with pytest.raises(InputError, match="in use by 'with a lease'"), store.lock("with the kernel's"):
                pass
