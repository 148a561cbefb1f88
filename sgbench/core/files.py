"""Files on this machine's disks: there whole or not at all, held by one process at a time, and where caches are."""

import contextlib
import fcntl
import io
import os
import secrets
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return the folder for whatever can be made or fetched again: ``$SGBENCH_CACHE``, or the user's cache folder."""
    root = os.environ.get("SGBENCH_CACHE")
    return Path(root).expanduser().absolute() if root else platformdirs.user_cache_path("sgbench")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name under which a file or folder is made that takes the place of ``path`` once it is complete.

    A reader, or a crash, sees what was there before or what is there now, and nothing between. A file is on the disk
    before it gets its name. A folder that another process has put there in the meantime is kept, and ours dropped.

    Args:
        path: Where it goes, in a folder that is there.

    Raises:
        OSError: If it cannot be written, naming it; nothing is left of what was made.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with naming(path, part):
            yield part
            if not part.is_dir():
                with part.open("rb") as file:
                    os.fsync(file.fileno())
                part.replace(path)
            elif not path.is_dir():
                with contextlib.suppress(FileExistsError):
                    part.rename(path)
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path, part: Path | None = None) -> Iterator[None]:
    """Name a file in errors of the system that name none, such as that of a full disk, or only its unfinished part."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or str(error.filename) == str(part)):
            error.filename = str(path)
        raise


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[io.FileIO]:
    """Open a file for reading and appending, as the only one that does so; whoever has it is waited for.

    It may be renamed or removed while it is held: those who wait then begin a new one.

    Args:
        path: The file, made if it is not there.

    Warns:
        UserWarning: If another has it.
    """
    while True:
        with path.open("a+b", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                warnings.warn(f"another process holds '{path}'; waiting for it to end", stacklevel=3)
                fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                yield file
                return
