"""One writer at a time: the locks of folders on disks and of object stores, and the fence that their writers carry.

Three kinds, of which a person chooses none:

- On a disk, a **kernel lock** on the file `LOCK`, which ends with the process that holds it, however that ends.
- Where the kernel has none, or one that other machines do not see, such as NFS mounted with ``nolock`` or Lustre
  without ``flock``, a **lease** in the folder `LEASES`; see `sgbench.core.lease`. `untrusted` finds that out by a
  probe on one machine, and `locked` with `is_locked` by one on two, without which a lock that only seems to work on
  every machine cannot be known. Once a store has had a lease it keeps to leases, so that machines that mount it
  differently agree.
- In an object store, a lease in the object `LOCK` by conditional writes.

Whatever the kind, a lock has a token, written where everybody can read it. The holder, and every process that writes
on its behalf (to which the token travels, as `Storage.fence`), checks before each write and each delete that it is
still there. So a kernel lock that is lost, as NFS loses those of a machine that was away, ends its holder too.

Several **writers** may change a store side by side if each leaves alone what another has booked; see
`sgbench.core.storage.Storage.register`. Each has a lock of the same kind for itself, in a folder of `WRITERS`. It is
taken, like every booking is made, under the store's own lock, which is held for a moment. Whoever wants the store alone
takes its lock for longer, and is refused as long as a writer lives. A dead writer is recognised like any dead holder.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

from sgbench.core.errors import InputError
from sgbench.core.files import UNSUPPORTED
from sgbench.core.lease import (
    BRIEF_SECONDS,
    Boottime,
    Claim,
    Clock,
    Held,
    LeaseFolder,
    Leases,
    Waiting,
    claim,
    in_use,
    lost,
    minute,
)

LOCK = ".lock"
"""File at the root of what is locked, with who holds it."""

LEASES = ".lease"
"""Folder at the root of what is locked by a lease on a disk."""

WRITERS = ".writers"
"""Folder at the root of what is locked, with a folder for each of those that write side by side."""

WRITER = re.compile("[0-9a-f]{8}")
"""The name of such a folder."""

MOUNTS = Path("/proc/self/mountinfo")
"""The kernel's list of what is mounted."""

PATIENCE_SECONDS = 1.0
"""For how long a kernel lock is tried again, because whoever looks who holds it does so by taking it for a moment."""

_UNSEEN = {
    r"nfs4?": r"(^|,)(nolock|local_lock=(all|flock))(,|$)",
    r"lustre": r"^(?!.*(^|,)flock(,|$))",
    r"cifs|smb3?": r"(^|,)nobrl(,|$)",
    r"gfs2|ocfs2": r"(^|,)localflocks(,|$)",
    r"9p|beegfs|virtiofs|vboxsf|fuse(\..*)?": r"",
}
"""File systems whose locks only the machine sees that takes them, and the mount options with which that is so."""


class Locks(Protocol):
    """How a storage is locked."""

    @property
    def kind(self) -> str:
        """What kind of lock it has, for a person."""

    @property
    def clock(self) -> Clock:
        """The clock of this process."""

    def hold(self, purpose: str, *, brief: bool = False) -> AbstractContextManager[Held]:
        """Hold the lock; see `sgbench.core.storage.Storage.lock`.

        Args:
            purpose: What for, for others.
            brief: Whether it will be given up soon; then another such holder is waited for, for
                `sgbench.core.lease.BRIEF_SECONDS` at most, instead of being refused.
        """

    def look(self) -> Waiting[Claim | None]:
        """Return the claim of whoever holds it and lives; None if nobody does."""

    def end(self) -> Waiting[None]:
        """Make sure that no holder is left that could still write; only for a lock that is not wanted any more.

        Raises:
            InputError: If the holder may be alive.
        """

    def claims(self) -> list[Claim]:
        """Return what is written of holders, whether or not they are alive."""

    def writer(self, number: str) -> "Locks":
        """Return the lock of one of those who write side by side, which need not exist."""

    def writers(self) -> list[str]:
        """Return the numbers of those who write side by side, whether or not they are alive; sorted."""

    def remove(self) -> None:
        """Delete the folder of a lock that nobody holds, and will not be wanted again."""


class Fence:
    """The right to write for as long as a lock is held, by this process or by the one on whose behalf it writes.

    Args:
        locks: How the storage is locked.
        root: The storage, for messages.
        token: The token of the lock; without one, nothing is checked.
    """

    def __init__(self, locks: Locks, root: str, token: str | None) -> None:
        self.token = token
        self._locks, self._root = locks, root

    def check(self) -> None:
        """Check that the lock is still held.

        On a disk that costs reading a small file, tens of microseconds, or a round trip on NFS; in an object store, a
        GET, which nothing caches: a run writes some twenty files. A process that falls asleep after the check and
        before its request may still write when it wakes; a new holder that has replaced a silent one waits for such
        requests for `sgbench.core.lease.SETTLE_SECONDS`.

        Raises:
            InterruptionError: If it is not.
            OSError: If that cannot be found out.
        """
        if self.token is None:
            return
        claims = self._locks.claims()
        if not any(now.token == self.token and now.held for now in claims):
            successors = [now.who for now in claims if now.held and now.token != self.token]
            raise lost(self._root, *successors[:1])


class DiskLocks:
    """The lock of a folder on a disk.

    Args:
        folder: The folder; it need not exist.
        root: The storage, for messages.
        clock: The clock of this process, for leases.
        leased: Whether to use a lease even if the kernel's locks can be trusted here, as others cannot trust them.
    """

    def __init__(self, folder: Path, root: str, clock: Clock | None = None, *, leased: bool = False) -> None:
        self.clock = clock or Boottime()
        self._folder, self._root, self._leased = folder, root, leased
        self._file = folder / LOCK
        self._leases = Leases(LeaseFolder(folder / LEASES), root, "a lease in the store", self.clock)

    @property
    def kind(self) -> str:
        """What kind of lock it has, for a person."""
        why = "it has had one before" if self._leases.claims() else untrusted(self._folder)
        return f"{self._leases.kind}, because {why}" if why else "the kernel's"

    @contextlib.contextmanager
    def hold(self, purpose: str, *, brief: bool = False) -> Iterator[Held]:
        """Hold the lock; see `Locks.hold`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file.open("ab").close()
        if self.is_kernel_lock:
            with self._kernel_lock(purpose, brief=brief) as fence:
                if not self._leases.claims():  # whoever begins a lease after this finds the claim of this lock
                    yield fence
                    return
        with self._leases.hold(purpose, brief=brief) as lease:
            self._end_kernel_lock()
            yield lease

    @property
    def is_kernel_lock(self) -> bool:
        """Whether it is the kernel's."""
        return not self._leased and not self._leases.claims() and untrusted(self._folder) is None

    def lease_too(self, purpose: str) -> AbstractContextManager[Held]:
        """Hold a lease beside a kernel lock that was found not to be seen by every machine; it has leases from then on.

        Args:
            purpose: See `sgbench.core.storage.Storage.lock`.
        """
        return self._leases.hold(purpose)

    def look(self) -> Waiting[Claim | None]:
        """Return the claim of whoever holds it and lives; None if nobody does."""
        if self._leases.claims():
            return (yield from self._leases.look())
        if self._kernel_claim() is None or self._is_free():
            return None
        yield PATIENCE_SECONDS / 20  # whoever has just taken it writes its name now, over that of a dead process
        return None if self._is_free() else self._kernel_claim()

    def end(self) -> Waiting[None]:
        """Make sure that no holder is left that could still write; see `Locks.end`."""
        if self._leases.claims():
            yield from self._leases.end()
        if self._file.exists():
            self._end_kernel_lock()

    def writer(self, number: str) -> "DiskLocks":
        """Return the lock of one of those who write side by side; it is a lease if the folder's own is one."""
        folder = self._folder / WRITERS / number
        return DiskLocks(folder, self._root, self.clock, leased=self._leased or bool(self._leases.claims()))

    def writers(self) -> list[str]:
        """Return the numbers of those who write side by side, whether or not they are alive; sorted.

        NFS may answer from memory whether a folder exists and what is in it, but not when it is asked to make one.
        """
        folder = self._folder / WRITERS
        try:
            folder.mkdir()
            folder.rmdir()
            return []
        except OSError:  # it is there, somebody else has come to look meanwhile, or the disk is full
            with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(prefix=".", dir=folder):
                pass
        try:
            return sorted(each.name for each in folder.iterdir() if WRITER.fullmatch(each.name))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def remove(self) -> None:
        """Delete the folder of a lock that nobody holds, and will not be wanted again."""
        shutil.rmtree(self._folder, ignore_errors=True)  # what is left is found to be free by the next

    def claims(self) -> list[Claim]:
        """Return what is written of holders, whether or not they are alive."""
        now = self._kernel_claim()
        return [*self._leases.claims(), *([now] if now else [])]

    def _kernel_claim(self) -> Claim | None:
        try:
            content = self._file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Claim.of(content) if content else None

    def _is_free(self) -> bool:
        """Return whether nobody has the kernel's lock; if it has none, whether nobody claims it."""
        try:
            with self._file.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # for a moment, for which a writer waits
        except BlockingIOError:
            return False
        except OSError:
            now = self._kernel_claim()
            return now is None or not now.held
        return True

    @contextlib.contextmanager
    def _kernel_lock(self, purpose: str, *, brief: bool) -> Iterator[Fence]:
        with self._file.open("r+b", buffering=0) as file:
            self._take(file, brief=brief)
            token: str | None = secrets.token_hex(8)
            os.ftruncate(file.fileno(), 0)
            try:
                file.write(claim(purpose, str(token), minute(), brief=brief))
            except OSError:  # on a full disk the holder stays unnamed
                os.ftruncate(file.fileno(), 0)
                token = None
            try:
                yield Fence(self, self._root, token)
            finally:
                now = self._kernel_claim()
                if now and now.token == token:
                    os.ftruncate(file.fileno(), 0)

    def _take(self, file: BinaryIO, *, brief: bool) -> None:
        began, before, pause = time.monotonic(), None, PATIENCE_SECONDS / 20
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                now = self._kernel_claim()
                if brief and now and now.brief and now.token != before:
                    before, began = now.token, time.monotonic()  # they take turns
                patience = BRIEF_SECONDS if before and now and now.token == before else PATIENCE_SECONDS
                if time.monotonic() - began > patience:
                    raise in_use(self._root, now.who if now else "another process") from error
            time.sleep(pause)

    def _end_kernel_lock(self) -> None:
        """Remove the claim of a kernel lock whose holder is dead, so that nobody writes on its behalf any more.

        Raises:
            InputError: If it may be alive.
        """
        now = self._kernel_claim()
        if now is None:
            return
        if now.held and (untrusted(self._folder) or not self._is_free()):
            raise InputError(
                f"'{self._root}' is in use by {now.who}, whose lock this machine cannot test; wait for it to end, or, "
                f"if it is dead, delete '{self._file.relative_to(self._root)}' there."
            )
        os.truncate(self._file, 0)


def untrusted(folder: Path) -> str | None:
    """Return why kernel locks of files in a folder do not exclude everybody who sees it; None if they do.

    Args:
        folder: A folder that exists.

    Raises:
        OSError: If it cannot be written to.
    """
    kind, options = _mounted(folder)
    for pattern, unseen in _UNSEEN.items():
        if re.fullmatch(pattern, kind) and re.search(unseen, options):
            return f"other machines do not see the locks of {kind} as it is mounted"
    there = (folder / LOCK).exists()
    with (
        (folder / LOCK).open("r+b") if there else tempfile.NamedTemporaryFile(prefix=".probe.", dir=folder) as one,
        Path(one.name).open("r+b") as two,
    ):
        try:
            fcntl.flock(one, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in UNSUPPORTED:
                return f"flock answers {errno.errorcode[error.errno]}"
            raise
    return "flock lets two hold the same lock"


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the kernel's lock of a file that exists, for other machines to try `is_locked`."""
    with file.open("r+b") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def is_locked(file: Path) -> bool:
    """Return whether the kernel's lock that another process holds on a file is seen here; True if that is unknown."""
    try:
        with file.open("r+b") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in UNSUPPORTED
    return False


def _mounted(folder: Path) -> tuple[str, str]:
    """Return the kind of a folder's file system and the options with which it is mounted; nothing if unknown."""
    device = folder.stat().st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    with contextlib.suppress(OSError):
        for line in MOUNTS.read_text(errors="replace").splitlines():
            of_mount, _, of_system = line.partition(" - ")
            if of_mount.split()[2] == name:
                kind, _, options = of_system.split(maxsplit=2)
                return kind, f"{of_mount.split()[5]},{options}"
    return "", ""
