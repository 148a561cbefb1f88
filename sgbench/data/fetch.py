"""Downloading catalogued data sets: archives are checked, and their images put where `resolve` looks.

Unfinished work is in the hidden folder ``.fetch`` of `sets_folder`: archives, which the next call resumes, and images
that are being unpacked. A folder of images is moved into place once it is complete.
"""

import contextlib
import functools
import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from sgbench.core.download import DownloadError, download
from sgbench.core.errors import InputError, unknown
from sgbench.core.files import exclusive, naming
from sgbench.data.catalog import CATALOG, DEMO, Archive, DataSet, count_images, sets_folder
from sgbench.data.images import is_image_name
from sgbench.data.references import resolve
from sgbench.data.resize import SCALES

FetchProgress = Callable[[str, int, int], None]
"""Called with an archive's name, the bytes received so far and in all, 0 if the server does not say."""

_BROKEN = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)


@dataclass(frozen=True)
class Fetched:
    """The outcome for one data set."""

    name: str
    outcome: Literal["fetched", "here", "by hand", "failed"]
    """``here``: it was available already; ``by hand``: its authors give it out on request only."""
    folder: Path
    """Where it is or belongs."""
    remark: str = ""
    """For the last two outcomes, what went wrong and what to do, one sentence."""


def fetch(names: Sequence[str], *, lr_scale: int | None = None, progress: FetchProgress | None = None) -> list[Fetched]:
    """Download data sets that are not in `sets_folder`; an archive that holds several of them is downloaded once.

    If another process downloads into the same folder, this call waits for it.

    Args:
        names: Names of catalogued sets.
        lr_scale: Download the low-resolution files of this scale as well.
        progress: Called as bytes arrive.

    Returns:
        The outcome for each set, in order; a set that cannot be downloaded does not stop the others.

    Raises:
        InputError: If a set is unknown or ships no low-resolution files, a folder of it is incomplete, or an archive
            has the wrong hash or content.
        OSError: If it cannot be written to disk; what has been downloaded is kept.
    """
    entries = [_entry(name, lr_scale) for name in dict.fromkeys(names)]
    root = sets_folder()
    root.mkdir(parents=True, exist_ok=True)
    lock = root / ".fetch.lock"
    with exclusive(lock):
        try:
            return _fetch(entries, root, lr_scale, progress)
        finally:
            lock.unlink()


def _entry(name: str, lr_scale: int | None) -> DataSet:
    if name not in CATALOG:
        raise unknown("data set", name, CATALOG)
    entry = CATALOG[name]
    if lr_scale and not any(part.lr for part in entry.parts.values()):
        raise InputError(f"{name} ships no low-resolution files; fetch it without --lr.")
    return entry


def _fetch(
    entries: Sequence[DataSet], root: Path, lr_scale: int | None, progress: FetchProgress | None
) -> list[Fetched]:
    missing: dict[str, int] = {}
    wanted: set[str] = set()
    for entry in entries:
        missing |= _missing(entry, root)
        wanted |= entry.folders([lr_scale] if lr_scale else []).keys() & missing.keys()
    archives: list[Archive] = []
    for archive in (archive for entry in entries for archive in entry.archives):
        if wanted & set(archive.folders.values()) and archive not in archives:
            archives.append(archive)
    failures = {}
    for archive in archives:
        url = archive.url
        file = root / ".fetch" / PurePosixPath(url).name
        told = functools.partial(progress, file.name) if progress else None
        try:
            download(url, file, digest=archive.digest, progress=told)
        except DownloadError as error:
            failures[url] = str(error)
        else:
            _unpack(file, {inside: folder for inside, folder in archive.folders.items() if folder in missing}, missing)
    with contextlib.suppress(OSError):  # a part is left in it
        (root / ".fetch").rmdir()
    return [_outcome(entry, root, wanted, failures) for entry in entries]


def _missing(entry: DataSet, root: Path) -> dict[str, int]:
    """Return the folders of a set that have no image yet, with the number of images that belong there.

    Raises:
        InputError: If one has another number of images; whatever they are, they are not replaced.
    """
    flat = count_images(root / entry.name)  # which `resolve` takes if there is no subfolder
    missing = {}
    for folder, expected in entry.folders(SCALES).items():
        found = count_images(root / folder)
        if found not in (0, expected):
            raise InputError(f"'{root / folder}' holds {found} images, but {entry.name} has {expected}; move it away.")
        if found == 0 and not (folder in entry.folders() and flat == expected):
            missing[folder] = expected
    return missing


def _unpack(archive: Path, folders: Mapping[str, str], expected: Mapping[str, int]) -> None:
    """Move the images of a downloaded archive into place, and delete it.

    No path in the archive decides where anything is written: a file is taken only if it is directly in one of the
    given folders.

    Args:
        archive: The file, in the hidden folder.
        folders: From a folder in the archive to one below `sets_folder`.
        expected: How many images each of the latter must hold.

    Raises:
        InputError: If the archive is damaged, suspicious or incomplete; it is deleted in that case too.
    """
    root = archive.parent.parent
    unpacked = archive.parent / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)  # left by a process that was killed
    try:
        _extract(archive, folders, unpacked)
        places = sorted(set(folders.values()))
        for folder in places:
            if (found := count_images(unpacked / folder)) != expected[folder]:
                raise InputError(f"'{archive.name}' holds {found} images for '{folder}', not {expected[folder]}.")
        for folder in reversed(places):  # LR first: if cut off, HR is missing, and so all is taken again
            (root / folder).parent.mkdir(parents=True, exist_ok=True)
            (unpacked / folder).rename(root / folder)
    except InputError:
        archive.unlink()
        raise
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    archive.unlink()


def _extract(archive: Path, folders: Mapping[str, str], target: Path) -> None:
    try:
        for path, regular, read in _members(archive):
            if path.is_absolute() or ".." in path.parts:
                raise InputError(f"'{archive.name}' is refused: its member '{path}' leads out of it.")
            folder = folders.get(str(path.parent))
            if folder is None or not is_image_name(path.name):
                continue
            if not regular:
                raise InputError(f"'{archive.name}' is refused: its member '{path}' is a link or a device, not a file.")
            _write(target / folder / path.name, read())
    except _BROKEN as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise InputError(f"'{archive.name}' is damaged ({reason}) and was deleted; fetch it again.") from error


def _members(archive: Path) -> Iterator[tuple[PurePosixPath, bool, Callable[[], bytes]]]:
    """Yield the path of each member of a tar or zip file, whether it is a regular file, and how to read it."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was made on Windows
                yield PurePosixPath(info.filename), kind in (0, stat.S_IFREG), functools.partial(zipped.read, info)
    else:
        with tarfile.open(archive) as tar:
            for member in tar:
                yield PurePosixPath(member.name), member.isreg(), functools.partial(_read_tar, tar, member)


def _read_tar(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    assert stream is not None  # a regular file
    return stream.read()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        path.write_bytes(content)


def _outcome(entry: DataSet, root: Path, wanted: set[str], failures: Mapping[str, str]) -> Fetched:
    name, folder = entry.name, root / entry.name
    if name == DEMO:
        return Fetched(name, "here", resolve(name, "train").images[0].parent)
    if not wanted & entry.folders(SCALES).keys():
        return Fetched(name, "here", folder)
    if not entry.archives:
        remark = f"{name} is given out on request only ({entry.homepage}): {entry.by_hand()}"
        return Fetched(name, "by hand", folder, remark)
    for archive in entry.archives:
        if archive.url in failures:
            how = f"run the same command again to resume, or do it by hand ({entry.homepage}): {entry.by_hand()}"
            remark = f"{failures[archive.url]}; {how}"
            return Fetched(name, "failed", folder, remark)
    return Fetched(name, "fetched", folder)
