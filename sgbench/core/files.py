"""Files on local disks: atomic replacement, exclusive access, and the cache folder."""

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import secrets
import shutil
import socket
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from sgbench.core.errors import InputError
from sgbench.core.words import quoted

UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP}
"""What a file system without locks answers to a request for one."""

REMOVALS = 3
"""How often a temporary folder is removed."""


def cache_folder() -> Path:
    """Return the folder for files that can be recreated: ``$SGBENCH_CACHE``, or one in the user's cache folder.

    Raises:
        InputError: If the variable is not set and this user has no home folder.
    """
    root = os.environ.get("SGBENCH_CACHE")
    return expanded(root or platformdirs.user_cache_path("sgbench")).absolute()


def expanded(path: str | Path) -> Path:
    """Return a path as a person writes it with ``~`` expanded.

    Raises:
        InputError: If that user has no home folder, or a relative path has no current folder to begin at.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{quoted(str(path))}: that user has no home folder; give another path.") from error
    except FileNotFoundError as error:
        raise InputError(f"{quoted(str(path))} is relative to the current folder, which no longer exists.") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or folder that replaces ``path`` once it is complete.

    A reader, or a crash, sees the old content or the new and nothing in between. A file is flushed to disk before it is
    renamed. If another process has put a folder there in the meantime, that folder is kept and ours is dropped.

    Args:
        path: Where it goes, in a folder that exists.

    Raises:
        OSError: If it cannot be written, naming it; no temporary file is left.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with naming(path, part):
            yield part
            if not part.is_dir():
                with part.open("rb") as file:
                    os.fsync(file.fileno())
                part.replace(path)
            else:
                try:
                    part.rename(path)
                except OSError as error:
                    if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # which of them, depends on the file system
                        raise
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path, part: Path | None = None) -> Iterator[None]:
    """Name the file in system errors that name none, such as that of a full disk, or only its temporary name."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or str(error.filename) == str(part)):
            error.filename = str(path)
        raise


@contextlib.contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder that this user alone can read, and remove it afterwards, with those of killed processes.

    A folder is in use while its process, or a fork of it, holds a lock on it. One that nobody holds, of the same user,
    machine and prefix, is removed; none is where the file system has no locks.

    Args:
        parent: Where it is made; other users may make folders there too, as in ``/tmp``.
        prefix: What its name begins with; 14 more characters follow.

    Raises:
        OSError: If it cannot be made.
    """
    prefix = f"{prefix}-{hashlib.sha256(socket.gethostname().encode()).hexdigest()[:4]}-"
    for left in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError), _holding(left):
            shutil.rmtree(left)
    new = Path(tempfile.mkdtemp(prefix=f".{prefix}", dir=parent))
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_holding(new))
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
        folder = new.rename(parent / new.name[1:])  # only now, held, does it have a name that others look for
        try:
            yield folder
        finally:
            for _ in range(REMOVALS):  # as a process that is still ending may write to it
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _holding(folder: Path) -> Iterator[None]:
    """Hold a folder of this user.

    Raises:
        OSError: If a process holds it, it is another user's or no folder, or the file system has no locks.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid != os.getuid():
            raise PermissionError(errno.EPERM, "another user's", str(folder))
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[io.FileIO]:
    """Open a file for reading and appending, exclusively; wait if another process holds it.

    It may be renamed or removed while it is held: processes that wait then create a new one.

    Args:
        path: The file, created if it does not exist.

    Warns:
        UserWarning: If another process holds it, or the file system has no locks; then nobody waits.
    """
    while True:
        with path.open("a+b", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                warnings.warn(f"another process holds '{path}'; waiting for it to end", stacklevel=3)
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise
                warnings.warn(f"'{path.parent}' has no file locks; run one command there at a time", stacklevel=3)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                yield file
                return
