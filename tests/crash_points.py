"""Stores and disks that are cut off at any point: whatever changes files can be made to fail, or to be the last change.

`EveryPoint` tries a write path with its n-th change failing, for every n. A path is a function that changes something,
and what makes that thing before it; what must be so afterwards is the test's own.
"""

import concurrent.futures
import contextlib
import datetime
import io
import itertools
import os
import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar
from unittest import mock

import pyarrow as pa
from obstore.store import MemoryStore
from pyarrow import fs

from sgbench.core.errors import InputError
from sgbench.core.lease import Clock
from sgbench.core.location import Location
from sgbench.core.object_stores import ObjectLocks
from sgbench.core.storage import Storage
from sgbench.store.files import Listing, TableFiles

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)

Cut = Literal["dies", "fails once", "fails for ever", "is done and fails"]
"""What happens at a point: the process is killed there, the system refuses the change, once or from then on, or it does
the change and answers with an error."""

CUTS: tuple[Cut, ...] = ("dies", "fails once", "fails for ever", "is done and fails")

_NUMBER = re.compile(r"(?<=\.)[0-9a-f]{8}(?=$|/)|(?<=^\.ray/)[0-9a-f]{8}")
"""The part of a temporary name that is drawn by lot."""


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


class Switch:
    """Lets the change of a number fail, and perhaps all after it."""

    def __init__(self) -> None:
        self.changes = 0
        self._point: int | None = None
        self._cut: Cut = "dies"

    def cut_off(self, point: int, cut: Cut) -> None:
        """Let the change of that number fail, counted from now on, from 0."""
        self.changes, self._point, self._cut = 0, point, cut

    def mend(self) -> bool:
        """Let all succeed again, and return whether anything failed."""
        struck = self._point is not None and self.changes > self._point
        self._point = None
        return struck

    def change(self, name: str, do: Callable[[], Any], half: Callable[[], Any] = lambda: None) -> Any:
        """Make a change, unless it is cut off.

        Args:
            name: What is changed, for the error.
            do: Makes it.
            half: Makes a part of it, which is what a killed process leaves.
        """
        number, self.changes = self.changes, self.changes + 1
        if self._point is None or number < self._point:
            return do()
        if number == self._point:
            (do if self._cut == "is done and fails" else half)()
        if self._cut == "dies":
            raise Killed
        if self._cut == "fails for ever" or number == self._point:
            raise PermissionError(13, "Permission denied", name)
        return do()


class Frail(Storage):
    """A store in memory, like an object store, that can be cut off before any of its changes.

    A folder is deleted file by file, and half of an upload may arrive: what is no single operation can be cut in two.

    Args:
        files: What is in it.
        root: What it is called.
        late: How many of the newest changes its listings do not show yet; with each listing, it is one fewer.
        clock: The clock of its lock.
    """

    def __init__(
        self,
        files: Mapping[str, bytes] | None = None,
        root: str = "memory://store",
        late: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self.location, self._fs = Location.of(root), fs._MockFileSystem(NOW)
        self._objects = MemoryStore()
        self.locks = ObjectLocks(self._objects, "", root, clock)
        self.switch = Switch()
        self._late = 0
        self._before: list[Any] = []
        for name, content in (files or {}).items():
            self._store(self.path(name), content)
        self._late = late

    def process(self, clock: Clock) -> "Frail":
        """Return this store as another process sees it, which has a clock of its own and can be cut off alone."""
        other = Frail(root=self.root)
        other._fs, other._objects = self._fs, self._objects
        other.locks, other.switch = ObjectLocks(self._objects, "", self.root, clock), Switch()
        return other

    def files(self) -> dict[str, bytes]:
        """Return the content of all files that there are, whatever listings show."""
        late, self._late = self._late, 0
        try:
            return {name: self.read(name) for name in self.sizes()}
        finally:
            self._late = late

    def state(self) -> Hashable:
        """Return what tells this from other states."""
        return frozenset((_NUMBER.sub("#", name), hash(content)) for name, content in self.files().items())

    def settle(self) -> None:
        """Let listings show everything from now on."""
        self._late = 0

    def upload(self, path: Path, name: str) -> None:
        content = path.read_bytes()
        self._changed(
            name,
            lambda: self._store(self.path(name), content),
            lambda: self._store(self.path(name), content[: len(content) // 2]),
        )

    def move(self, name: str, target: str) -> None:
        self._changed(name, lambda: super(Frail, self).move(name, target))

    def delete(self, name: str) -> None:
        self._changed(name, lambda: super(Frail, self).delete(name))

    def delete_folder(self, name: str) -> None:
        for each in self.sizes(name):
            self.delete(each)
        super().delete_folder(name)

    def _put(self, path: str, content: bytes) -> None:
        self._changed(path, lambda: self._store(path, content))

    def _changed(self, name: str, do: Callable[[], Any], half: Callable[[], Any] = lambda: None) -> None:
        if self._late:
            self._before = [*self._before, super()._below("", recursive=True)][-self._late :]
        self.switch.change(name, do, half)

    def _below(self, folder: str, *, recursive: bool = False) -> Any:
        if not (self._late and self._before):
            return super()._below(folder, recursive=recursive)
        shown, self._before = self._before[0], self._before[1:]
        inside = f"{self.path(folder)}/"
        return [
            each
            for each in shown
            if each.path.startswith(inside) and (recursive or "/" not in each.path.removeprefix(inside))
        ]

    def _store(self, path: str, content: bytes) -> None:
        self._fs.create_dir(path.rpartition("/")[0])
        with self._fs.open_output_stream(path) as stream:
            stream.write(content)


class FrailDisk:
    """A folder on a disk that can be cut off before any of its changes, half a write included.

    Args:
        folder: The folder; what happens elsewhere is let pass.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.switch = Switch()

    def files(self) -> dict[str, bytes]:
        """Return the content of all files, and of folders a name that ends in a slash."""
        paths = {path.relative_to(self.folder).as_posix(): path for path in self.folder.rglob("*")}
        return {
            f"{name}/" if path.is_dir() else name: b"" if path.is_dir() else path.read_bytes()
            for name, path in paths.items()
        }

    def state(self) -> Hashable:
        """Return what tells this from other states."""
        return frozenset((_NUMBER.sub("#", name), hash(content)) for name, content in self.files().items())

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Count the changes that this process makes to the folder."""
        with contextlib.ExitStack() as stack:
            for name in ("rename", "replace", "unlink", "rmdir", "mkdir", "fsync", "truncate"):
                stack.enter_context(mock.patch.object(os, name, self._changing(getattr(os, name))))
            stack.enter_context(mock.patch.object(os, "open", self._creating(os.open)))
            stack.enter_context(mock.patch.object(io, "open", self._opening(io.open)))
            yield

    def _changing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def change(what: Any, *arguments: Any, **named: Any) -> Any:
            if not self._is_inside(what):
                return real(what, *arguments, **named)
            return self.switch.change(str(what), lambda: real(what, *arguments, **named))

        return change

    def _creating(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Any, flags: int, *arguments: Any, **named: Any) -> Any:
            if not (flags & os.O_CREAT and self._is_inside(path)):
                return real(path, flags, *arguments, **named)
            return self.switch.change(str(path), lambda: real(path, flags, *arguments, **named))

        return opened

    def _opening(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
            if not (set(mode) & set("wxa+") and self._is_inside(path)):
                return real(path, mode, *arguments, **named)
            return _File(self.switch.change(str(path), lambda: real(path, mode, *arguments, **named)), self.switch)

        return opened

    def _is_inside(self, path: Any) -> bool:
        """Return whether a path is in the folder; a number or a relative one, as of `shutil.rmtree`, is."""
        return isinstance(path, int) or not Path(path).is_absolute() or Path(path).is_relative_to(self.folder)


class _File:
    """A file that is written to in two halves, between which it can be cut off."""

    def __init__(self, file: Any, switch: Switch) -> None:
        self._file, self._switch = file, switch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *what: object) -> None:
        self._file.close()

    def write(self, content: Any) -> Any:
        data = content if isinstance(content, str) else memoryview(content).cast("B")
        return self._switch.change(
            self._file.name, lambda: self._file.write(data), lambda: self._file.write(data[: len(data) // 2])
        )

    def truncate(self, size: int) -> Any:
        return self._switch.change(self._file.name, lambda: self._file.truncate(size))


class _OneThread(contextlib.nullcontext[Any]):
    """Stands for a pool of threads, which take longer to start than files in memory to be read."""

    def __init__(self, max_workers: int) -> None:
        super().__init__(self)

    map = staticmethod(map)


in_one_thread = mock.patch.object(concurrent.futures, "ThreadPoolExecutor", _OneThread)
"""A decorator, or a context, in which stores read their files one after the other."""


@contextlib.contextmanager
def decoded_once() -> Iterator[None]:
    """Let equal files be decoded only once, and joined and checked, as the same rows are read again and again."""
    decode, join = TableFiles._part, TableFiles.joined
    decoded: dict[Hashable, pa.Table | None] = {}
    joined: dict[Hashable, tuple[pa.Table, Mapping[str, pa.Table]]] = {}

    def part(self: TableFiles, stem: str, **how: bool) -> pa.Table | None:
        with contextlib.suppress(FileNotFoundError):
            key = (self.table, stem, self.storage.read(self.name(stem)), *how.items())
            if key not in decoded:
                decoded[key] = decode(self, stem, **how)
            return decoded[key]
        return None

    def of_parts(self: TableFiles, listing: Listing, parts: Mapping[str, pa.Table]) -> pa.Table:
        key = (self.table, listing, *((stem, id(part)) for stem, part in parts.items()))
        if key not in joined:
            joined[key] = join(self, listing, parts), parts  # which keeps them, and so their numbers
        return joined[key][0]

    with mock.patch.object(TableFiles, "_part", part), mock.patch.object(TableFiles, "joined", of_parts):
        yield


class Cuttable(Protocol):
    """What can be cut off."""

    switch: Switch

    def state(self) -> Hashable:
        """Return what tells it from others."""


S = TypeVar("S")


class EveryPoint(Generic[S]):
    """Yields what an action leaves that is cut off, for every point at which it can be, and each state once.

    Args:
        make: Makes what is changed.
        act: The action; what it raises of the system is of no account.
        part: What of it is cut off.
        cuts: What happens at a point.

    Attributes:
        tried: How many points were tried.
    """

    def __init__(
        self, make: Callable[[], S], act: Callable[[S], object], part: Callable[[S], Cuttable], *cuts: Cut
    ) -> None:
        self.make, self.act, self.part, self.cuts = make, act, part, cuts or CUTS
        self.tried = 0

    def __iter__(self) -> Iterator[S]:
        seen = set[Hashable]()
        for cut in self.cuts:
            for point in itertools.count():
                made = self.make()
                frail = self.part(made)
                frail.switch.cut_off(point, cut)
                with contextlib.suppress(Killed, OSError, InputError):
                    self.act(made)
                if not frail.switch.mend():
                    assert point, "the action changes nothing"
                    break
                self.tried += 1
                if (state := frail.state()) not in seen:
                    seen.add(state)
                    yield made
