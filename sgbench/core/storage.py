"""Folders that may be on a disk or in an object store, and atomic writes into them; `sgbench.core.lock` locks them.

A `Storage` is a root: a local path or a pyarrow filesystem URI (``s3://``, ``gs://``). Names below it are relative,
with forward slashes. A name that begins with a dot is private: listings skip it, and so do readers of data sets.
"""

import contextlib
import errno
import functools
import json
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from pyarrow import fs

from sgbench.core.errors import InputError, explained
from sgbench.core.files import naming, replacing
from sgbench.core.lease import Claim, Held, in_use, in_words, together
from sgbench.core.location import Location
from sgbench.core.lock import WRITERS, DiskLocks, Fence, Locks

T = TypeVar("T")

_PIECE = 16 * 2**20
"""Bytes of a large file that are held in memory at once."""

PAUSES_SECONDS = (0.5, 2.0)
"""Between attempts to read or write, as errors of networks and shared disks may pass; the last one is raised."""

OUTAGE_PAUSES_SECONDS = (0.5, 2.0, 5.0, 10.0, 15.0, 20.0, 20.0)
"""The same for whoever holds the lock of an object store: the server was there, and may be away for a minute."""

_LASTING = {
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO),
}
"""Errors that are not transient."""

UNFINISHED = re.compile(r"\.(.+)\.[0-9a-f]{8}")
"""Names of the temporary files that `Storage.write` leaves if its process is killed; the group is the target."""

_UNSAFE = r"/\\\x00-\x1f\x7f-\x9f" + "\u200e\u200f\u2028-\u202e\u2066-\u2069"  # these change the order of other text
PART = f"[^.{_UNSAFE}][^{_UNSAFE}]*"
"""Pattern of a name that is safe as one part of a path: it leads nowhere else, and listings show it as it is."""

PART_IN_WORDS = "a name without slashes and control characters that does not begin with a dot"
"""What `PART` matches, for messages."""


def absolute(path: str) -> str:
    """Return a path or URI in the form used everywhere below the command line; see `Location`."""
    return str(Location.of(path))


class Storage:
    """A folder of small files, local or in an object store.

    Every error of the file system or server is an `OSError` that names the file and the reason; what does not exist is
    a `FileNotFoundError`.

    While it is locked, and if it writes on behalf of a process that has locked it, every write and every delete first
    checks that it still is; see `sgbench.core.lease.Lease.check` and `sgbench.core.lock.Fence.check` for what that
    costs. Unless it is locked, nothing is checked. While it is, an object store may be away for a minute: all but
    `move`, which cannot be done twice, is tried again until it is back.

    Args:
        root: A path or a URI.
        fence: The `fence` of a storage that is locked, by this process or another one, on whose behalf this one writes.

    Raises:
        InputError: If the URI cannot be opened, as of an unknown scheme or option, or the root is a file.
    """

    _held: Held | None = None
    _writer: str = ""
    """Its number, if it is one of several that write side by side."""

    def __init__(self, root: str, fence: str | None = None) -> None:
        self.location = Location.of(root)
        self._fs = self.location.open()
        if self.is_local and self._info("").type == fs.FileType.File:
            raise InputError(f"'{self.root}' is a file; a folder is needed.")
        if fence is not None:
            self._writer, _, token = fence.rpartition("/")
            self._held = Fence(self.locks.writer(self._writer) if self._writer else self.locks, self.root, token)

    def __reduce__(self) -> tuple[type["Storage"], tuple[str, str | None]]:
        return type(self), (self.root, self.fence)

    def __str__(self) -> str:
        return self.root

    @property
    def root(self) -> str:
        """The path or URI, in one form for every way to write it."""
        return str(self.location)

    @property
    def is_local(self) -> bool:
        """Whether the root is on a file system of this machine."""
        return self.location.is_local

    def address(self, name: str = "") -> str:
        """Return the path or URI of a name, for a person and for whatever opens it without this object."""
        return self.location.of_name(name)

    def path(self, name: str = "") -> str:
        """Return the path of a name, as pyarrow's filesystems take it.

        Raises:
            ValueError: If the name leads out of the root; names that come from a file are checked where it is read.
        """
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"'{name}' leads out of '{self.root}'")
        return f"{self.location.path}/{name}" if name else self.location.path

    def is_same(self, other: "Storage") -> bool:
        """Return whether this is the same folder as another, which may be written in another way or be a link."""
        return self.location.is_same(other.location)

    def exists(self, name: str = "") -> bool:
        """Return whether there is a file or folder of that name."""
        return bool(self._info(name).type != fs.FileType.NotFound)

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders directly in a folder, sorted; none if it does not exist."""
        below = self._below(folder)
        return sorted(f"{folder}/{info.base_name}" for info in below if info.type == fs.FileType.Directory)

    def list(self, folder: str, suffix: str = "") -> list[str]:
        """Return the names of the files directly in a folder, sorted; none if the folder does not exist.

        Args:
            folder: Below the root.
            suffix: Only names that end with it.
        """
        return sorted(
            f"{folder}/{info.base_name}"
            for info in self._below(folder)
            if info.type == fs.FileType.File and not info.base_name.startswith(".") and info.base_name.endswith(suffix)
        )

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the names and bytes of all files below a folder at any depth, private ones too, sorted.

        Args:
            folder: Below the root; it need not exist.
        """
        root = len(self.path()) + 1
        return {
            info.path[root:]: info.size
            for info in sorted(self._below(folder, recursive=True), key=lambda info: info.path)
            if info.type == fs.FileType.File
        }

    def stamps(self, folder: str) -> dict[str, tuple[int, int]]:
        """Return the bytes of the files directly in a folder, and when each was written, in ns since 1970.

        Args:
            folder: Below the root; it need not exist.
        """
        return {f"{folder}/{info.base_name}": (info.size, info.mtime_ns or 0) for info in self._below(folder)}

    def open(self, name: str) -> Any:
        """Open a file for reading at any position, as a `pyarrow.NativeFile`.

        Raises:
            FileNotFoundError: If there is none.
        """
        return self._patiently(name, lambda: self._fs.open_input_file(self._readable(name)))

    def read(self, name: str) -> bytes:
        """Return the content of a file. Transient errors are retried.

        Raises:
            FileNotFoundError: If there is none.
            OSError: If it cannot be read.
        """
        return self._patiently(name, lambda: self._get(name), pauses=PAUSES_SECONDS)

    def _get(self, name: str) -> bytes:
        with self._fs.open_input_stream(self._readable(name)) as stream:
            return bytes(stream.read())

    def _readable(self, name: str) -> str:
        """Return the path of a file to read; a folder is refused, and so is a pipe, which would be waited for."""
        path = self.path(name)
        with contextlib.suppress(FileNotFoundError):
            if self.is_local and not stat.S_ISREG(mode := Path(path).stat().st_mode):
                number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
                raise OSError(number, "a regular file is needed", path)
        return path

    def write(self, name: str, content: bytes) -> None:
        """Write a file so that a reader, or a crash, sees the old content or the new and nothing in between.

        On a disk, a temporary file is written, synchronised and renamed; in an object store it is a single PUT.
        Transient errors are retried.

        Raises:
            OSError: If it cannot be written, naming it; the old content is kept and no temporary file is left.
            InterruptionError: If the lock was lost, as for everything below that changes a file.
        """

        def write() -> None:
            self._check_lock()
            self._put(self.path(name), content)

        self._patiently(name, write, _LASTING, PAUSES_SECONDS)

    def _patiently(
        self,
        name: str,
        operation: Callable[[], T],
        lasting: AbstractSet[int] = _LASTING | {errno.ENOENT},
        pauses: Iterable[float] = (),
    ) -> T:
        """Return the result of an operation on a file that may be done twice.

        Args:
            name: The file, for errors.
            operation: What to do.
            lasting: Errors after which it is not repeated.
            pauses: Seconds between attempts, unless this is an object store that is locked.
        """
        waits = iter(OUTAGE_PAUSES_SECONDS if self._held and not self.is_local else pauses)
        while True:
            try:
                with self._naming(name):
                    return operation()
            except OSError as error:
                pause = next(waits, None)
                if pause is None or error.errno in lasting:
                    raise
            time.sleep(pause)

    def _put(self, path: str, content: bytes) -> None:
        if not self.is_local:
            with self._fs.open_output_stream(path) as stream:
                stream.write(content)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as part:
            part.write_bytes(content)

    def upload(self, path: Path, name: str) -> None:
        """Copy a file from this machine's disk, in pieces; a crash may leave a part of it under the name.

        Raises:
            OSError: If it cannot be read or written.
        """

        def upload() -> None:
            self._check_lock()
            if self.is_local:
                Path(self.path(name)).parent.mkdir(parents=True, exist_ok=True)
            source.seek(0)
            with self._fs.open_output_stream(self.path(name)) as stream:
                shutil.copyfileobj(source, stream, _PIECE)

        with path.open("rb") as source:
            self._patiently(name, upload)

    def download(self, name: str, path: Path) -> None:
        """Copy a file to this machine's disk, in pieces; a crash may leave a part of it there.

        Raises:
            OSError: If there is none, or it cannot be read or written.
        """

        def download() -> None:
            with self._fs.open_input_stream(self._readable(name)) as stream, path.open("wb") as target:
                while piece := stream.read(_PIECE):
                    with naming(path):
                        target.write(piece)

        self._patiently(name, download)

    def move(self, name: str, target: str) -> None:
        """Rename a file below the same root, replacing any file that has the new name.

        On a disk this is atomic; in an object store a crash may leave the file under both names.

        Raises:
            OSError: If there is none, or it cannot be moved.
        """
        path = self.path(target)
        with self._naming(name):
            self._check_lock()
            self._fs.create_dir(path.rpartition("/")[0])
            self._fs.move(self.path(name), path)

    def delete(self, name: str) -> None:
        """Delete a file; it need not exist."""

        def delete() -> None:
            self._check_lock()
            self._fs.delete_file(self.path(name))

        with contextlib.suppress(FileNotFoundError):
            self._patiently(name, delete)

    def delete_folder(self, name: str) -> None:
        """Delete a folder and its content; it need not exist."""

        def delete() -> None:
            self._check_lock()
            self._fs.delete_dir(self.path(name))

        with contextlib.suppress(FileNotFoundError):
            self._patiently(name, delete)

    @functools.cached_property
    def locks(self) -> Locks:
        """How this storage is locked."""
        if self.is_local:
            return DiskLocks(Path(self.path()), self.root)
        from sgbench.core.object_stores import ObjectLocks, object_store

        folder = f"{self.path()}/".partition("/")[2]
        return ObjectLocks(object_store(self.location, self._fs), folder, self.root)

    @property
    def fence(self) -> str | None:
        """What tells the lock under which this storage is written to, for others that write on its behalf."""
        if self._held is None or self._held.token is None:
            return None
        return f"{self._writer}/{self._held.token}" if self._writer else self._held.token

    @contextlib.contextmanager
    def lock(self, purpose: str, *, brief: bool = False) -> Iterator[None]:
        """Hold the exclusive right to change this storage.

        A kernel lock is refused within `sgbench.core.lock.PATIENCE_SECONDS` and ends with its process. A lease, as in
        object stores, is refused within some `sgbench.core.lease.BEAT_SECONDS`; one whose holder died is free
        `sgbench.core.lease.LEASE_SECONDS` after somebody has begun to wait for it.

        Args:
            purpose: What for, shown to others who want it: ``"sgbench sweep quick"``.
            brief: Whether it will be given up soon, so that those who want to write side by side wait for that.

        Raises:
            InputError: If another process holds it, or is registered to write, naming it, or the object store cannot
                have locks.
            OSError: If the lock can be neither read nor written.
        """
        with self.locks.hold(purpose, brief=brief) as held, self._holding(held):
            writers = self.writers()
            if alive := self._alive(writers):
                raise in_use(self.root, in_words(alive))
            self.end(writers)
            yield

    @contextlib.contextmanager
    def register(self, purpose: str) -> Iterator[None]:
        """Hold the right to change what nobody else has booked, side by side with others that do so; see `book`.

        Until then nobody gets the `lock`. If somebody has it, that is refused, except if he holds it briefly.

        Args:
            purpose: What for, shown to others who want the lock: ``"shard 1/8 of paper"``.

        Raises:
            InputError: As of `lock`.
            OSError: If the locks can be neither read nor written.
        """
        number = secrets.token_hex(4)
        own = self.locks.writer(number)

        def leave() -> None:
            with contextlib.suppress(OSError):  # whoever wants the lock finds that it is over, or dead
                own.remove()

        with contextlib.ExitStack() as stack:
            with self.locks.hold(purpose, brief=True) as alone:
                stack.callback(leave)
                try:
                    held = stack.enter_context(own.hold(purpose))
                finally:
                    alone.check()  # or somebody has the lock now who saw nobody registered, or took this for dead
            stack.enter_context(self._holding(held))
            self._writer = number
            try:
                yield
            finally:
                self._writer = ""

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the right to change what belongs to all who are registered, for a moment; no other gets it then.

        Raises:
            InterruptionError: If the lock under which this storage is written to was lost.
        """
        if not self._writer:
            yield
            return
        purpose = next((each.purpose for each in self.locks.writer(self._writer).claims()), "")
        with self.locks.hold(purpose, brief=True) as held:
            self._check_lock()
            with self._holding(held):
                yield
                self._check_lock()  # or what was changed at last may not be what others have seen since

    def book(self, names: Collection[str]) -> dict[str, str]:
        """Keep others that are registered from booking these names, instead of those booked before.

        Args:
            names: What is to be changed.

        Returns:
            The names that others have booked, with their numbers; some of them may be dead. Without being registered,
            nobody has.
        """
        taken: dict[str, str] = {}
        if not self._writer:
            return taken
        with self.alone():
            for number in self.writers():
                if number != self._writer and (booked := {*names} & self._booked(number)) and not self._is_over(number):
                    taken |= dict.fromkeys(booked, number)
            mine = [name for name in names if name not in taken]
            self.write(_booked_by(self._writer), json.dumps(mine).encode())
        return taken

    @property
    def is_shared(self) -> bool:
        """Whether this process is registered to write to it, so that others may do so too; see `register`."""
        return bool(self._writer)

    def writers(self) -> Sequence[str]:
        """Return the numbers of all that are registered, whether or not they are alive."""
        return self.locks.writers()

    def end(self, numbers: Iterable[str]) -> None:
        """Make sure that registered writers are dead and write nothing any more, and delete what they have booked.

        That takes `sgbench.core.lease.LEASE_SECONDS` for leases.

        Raises:
            InputError: If one may be alive.
        """
        numbers = list(numbers)
        together([self.locks.writer(number).end() for number in numbers], self.locks.clock)
        for number in numbers:
            self.locks.writer(number).remove()

    def in_words(self, numbers: Iterable[str]) -> str:
        """Return who is registered by these numbers, whether or not they are alive."""
        claims = [claim for number in numbers for claim in self.locks.writer(number).claims()[:1]]
        return in_words(claims) if claims else "another process"

    def holder(self) -> str | None:
        """Return the `holders` in words: ``'sgbench sweep quick' (process 7 on host)``; None if there are none."""
        holders = self.holders()
        return in_words(holders) if holders else None

    def holders(self) -> Sequence[Claim]:
        """Return the claim of whoever holds the lock; if nobody does, those of all that are registered and alive.

        Those of a lease are only known once it is renewed, `sgbench.core.lease.AWAIT_SECONDS` later at most.
        """
        (held,) = together([self.locks.look()], self.locks.clock)
        return [held] if held else self._alive(self.writers() if self.exists(WRITERS) else [])

    def lease_too(self, purpose: str) -> AbstractContextManager[object]:
        """Hold a lease beside the kernel's lock, if there is one, as that was found not to be seen by every machine.

        From then on the storage has leases only.

        Args:
            purpose: See `lock`.
        """
        if not isinstance(self.locks, DiskLocks):
            return contextlib.nullcontext()
        if not self._writer:
            return self.locks.lease_too(purpose)
        with self.alone(), self.locks.lease_too(purpose):
            return self.locks.writer(self._writer).lease_too(purpose)

    def _alive(self, numbers: Iterable[str]) -> Sequence[Claim]:
        """Return the claims of those who are registered and alive."""
        looks = [self.locks.writer(number).look() for number in numbers]
        return [found for found in together(looks, self.locks.clock) if found]

    def _is_over(self, number: str) -> bool:
        """Return whether a writer has ended, as far as that is known without waiting, and delete what it has booked."""
        try:
            next(self.locks.writer(number).end())
        except StopIteration:
            self.locks.writer(number).remove()
            return True
        except InputError:
            pass
        return False

    def _booked(self, number: str) -> set[str]:
        try:
            return set(json.loads(self.read(_booked_by(number))))
        except (FileNotFoundError, ValueError, TypeError):  # it has ended, or its process was killed just now
            return set()

    @contextlib.contextmanager
    def _holding(self, held: Held) -> Iterator[None]:
        before, self._held = self._held, held
        try:
            yield
        finally:
            self._held = before

    def _check_lock(self) -> None:
        if self._held is not None:
            self._held.check()

    def _info(self, name: str) -> fs.FileInfo:
        return self._patiently(name, lambda: self._fs.get_file_info(self.path(name)))

    def _below(self, folder: str, *, recursive: bool = False) -> Any:
        """Return pyarrow's information on all that is in a folder."""
        selector = fs.FileSelector(self.path(folder), allow_not_found=True, recursive=recursive)
        return self._patiently(folder, lambda: self._fs.get_file_info(selector))

    @contextlib.contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """Name the file and the reason in errors of the file system, which may lack a name, a number or both."""
        try:
            yield
        except OSError as error:
            raise OSError(*explained(error), error.filename or self.address(name)) from error


def _booked_by(number: str) -> str:
    """Return the file with what a registered writer has booked."""
    return f"{WRITERS}/{number}/booked.json"
