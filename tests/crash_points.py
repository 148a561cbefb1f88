"""A store that is cut off at any point: whatever changes files can be made to fail, or to be the last that happens.

`every_point` tries a write path with its n-th change failing, for every n. A path is a function that changes a store,
and what makes the store before it; what must be so afterwards is the test's own.
"""

import contextlib
import datetime
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from obstore.store import MemoryStore
from pyarrow import fs

from sgbench.core.lease import Leases
from sgbench.core.location import Location
from sgbench.core.lock import LOCK
from sgbench.core.object_stores import LeaseObject
from sgbench.core.storage import Storage
from sgbench.store import Store

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)

Cut = Literal["dies", "fails once", "fails for ever"]
"""What happens at a point: the process is killed there, or the system refuses the change, once or from then on."""

CUTS: tuple[Cut, ...] = ("dies", "fails once", "fails for ever")


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


class Frail(Storage):
    """A store in memory, like an object store, that can be cut off before any of its changes.

    A folder is deleted file by file, and half of an upload may arrive: what is no single operation can be cut in two.
    """

    def __init__(self, files: Mapping[str, bytes] | None = None, root: str = "memory://store") -> None:
        self.location, self._fs = Location.of(root), fs._MockFileSystem(NOW)
        self.locks = Leases(LeaseObject(MemoryStore(), LOCK, LOCK), root, "a lease in memory")
        self.changes = 0
        self._point: int | None = None
        self._cut: Cut = "dies"
        for name, content in (files or {}).items():
            self.write(name, content)

    def cut_off(self, point: int, cut: Cut) -> None:
        """Let the change of that number fail, counted from now on, from 0."""
        self.changes, self._point, self._cut = 0, point, cut

    def mend(self) -> bool:
        """Let all succeed again, and return whether anything failed."""
        struck = self._point is not None and self.changes > self._point
        self._point = None
        return struck

    def files(self) -> dict[str, bytes]:
        """Return the content of all files."""
        return {name: self.read(name) for name in self.sizes()}

    def upload(self, path: Path, name: str) -> None:
        try:
            self._change(name)
        except BaseException:
            self._store(self.path(name), path.read_bytes()[: path.stat().st_size // 2])
            raise
        super().upload(path, name)

    def move(self, name: str, target: str) -> None:
        self._change(name)
        super().move(name, target)

    def delete(self, name: str) -> None:
        self._change(name)
        super().delete(name)

    def delete_folder(self, name: str) -> None:
        for each in self.sizes(name):
            self.delete(each)
        super().delete_folder(name)

    def _put(self, path: str, content: bytes) -> None:
        self._change(path)
        self._store(path, content)

    def _store(self, path: str, content: bytes) -> None:
        self._fs.create_dir(path.rpartition("/")[0])
        with self._fs.open_output_stream(path) as stream:
            stream.write(content)

    def _change(self, name: str) -> None:
        number, self.changes = self.changes, self.changes + 1
        if self._point is None or number < self._point:
            return
        if self._cut == "dies":
            raise Killed
        if self._cut == "fails for ever" or number == self._point:
            raise PermissionError(13, "Permission denied", name)


def every_point(make: Callable[[], Store], act: Callable[[Store], object], cut: Cut) -> Iterator[Store]:
    """Yield what an action leaves that is cut off, for every point at which it can be.

    Args:
        make: Makes the store before it, on a `Frail` storage.
        act: The action; what it raises is of no account.
        cut: What happens at the point.
    """
    for point in itertools.count():
        store = make()
        storage = store.storage
        assert isinstance(storage, Frail)
        storage.cut_off(point, cut)
        with contextlib.suppress(Killed, OSError):
            act(store)
        if not storage.mend():
            assert point, "the action changes nothing"
            return
        yield store
