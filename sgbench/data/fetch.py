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
import urllib.parse
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from sgbench.core.download import DownloadError, download
from sgbench.core.errors import InputError, MissingDataError, unknown
from sgbench.core.files import exclusive, naming
from sgbench.core.resize import SCALES
from sgbench.core.words import in_bytes, listed
from sgbench.data.catalog import CATALOG, DEMO, Archive, DataSet, Role, count_images, sets_folder
from sgbench.data.images import is_image_name
from sgbench.data.references import missing_sets, resolve, uses_shipped_lr

FetchProgress = Callable[[str, int, int], None]
"""Called with an archive's name, the bytes received so far and in all, 0 if the server does not say."""

_BROKEN = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)


@dataclass(frozen=True)
class Fetched:
    """The outcome for one data set."""

    name: str
    outcome: Literal["fetched", "here", "by hand", "failed"]
    """``here``: it was available already; ``by hand``: a person must get it."""
    folder: Path
    """Where it is or belongs."""
    remark: str = ""
    """For the last two outcomes, what went wrong and what to do, one sentence."""
    fault: str = ""
    """If it failed, what went wrong."""


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
    scales = (lr_scale,) if lr_scale else ()
    return _fetch([_Asked(_entry(name, lr_scale), scales) for name in dict.fromkeys(names)], progress)


def fetch_missing(
    references: Iterable[tuple[str, Role]],
    scale: int,
    say: Callable[[str], None],
    progress: FetchProgress | None = None,
) -> None:
    """Download the catalogued sets that are referred to, have a download, and are neither given nor available locally.

    Args:
        references: Each with what the images are for; see `sgbench.data.resolve`.
        scale: The scale of low-resolution files.
        say: Told which sets are downloaded, how large they are and to where, before it begins.
        progress: See `fetch`.

    Raises:
        MissingDataError: If a set cannot be downloaded.
        InputError: As `fetch`.
        OSError: As `fetch`.
    """
    asked = _asked(references, scale)
    archives = _archives(asked, sets_folder())
    if not archives:
        return
    size = in_bytes(sum(archive.size for archive in archives))
    names = listed(each.entry.name for each in asked)
    say(f"downloading {names} ({size}) from {hosts(archives)} to '{sets_folder()}'")
    for each in _fetch(asked, progress):
        if each.outcome == "failed":
            raise MissingDataError(
                f"{each.fault}; run the same command again to resume, or see in 'sgbench data list' how to get "
                f"{each.name} by hand."
            )


def download_size(reference: str, role: Role, scale: int) -> int:
    """Return how many bytes `fetch_missing` downloads for one set."""
    return sum(archive.size for archive in _archives(_asked([(reference, role)], scale), sets_folder()))


def hosts(archives: Iterable[Archive]) -> str:
    """Return the servers of some archives, for a person."""
    return listed(dict.fromkeys(urllib.parse.urlsplit(archive.url).hostname or "this machine" for archive in archives))


def _entry(name: str, lr_scale: int | None) -> DataSet:
    if name not in CATALOG:
        raise unknown("data set", name, CATALOG)
    entry = CATALOG[name]
    if lr_scale and not any(part.lr for part in entry.parts.values()):
        raise InputError(f"{name} ships no low-resolution files; fetch it without --lr.")
    return entry


class _Asked(NamedTuple):
    """A set to download."""

    entry: DataSet
    scales: tuple[int, ...]
    """Those of the low-resolution files to download as well."""


def _asked(references: Iterable[tuple[str, Role]], scale: int) -> list[_Asked]:
    """Return the sets with a download that are referred to, and neither given nor available locally."""
    lacking: dict[str, bool] = {}
    for reference, role in references:
        for entry in missing_sets(reference, role, scale):
            lacking[entry.name] = lacking.get(entry.name, False) or uses_shipped_lr(reference)
    return [_Asked(CATALOG[name], (scale,) if lr else ()) for name, lr in lacking.items() if CATALOG[name].archives]


def _fetch(asked: Sequence[_Asked], progress: FetchProgress | None) -> list[Fetched]:
    root = sets_folder()
    root.mkdir(parents=True, exist_ok=True)
    lock = root / ".fetch.lock"
    with exclusive(lock):
        try:
            return _fetch_to(root, asked, progress)
        finally:
            lock.unlink()


def _fetch_to(root: Path, asked: Sequence[_Asked], progress: FetchProgress | None) -> list[Fetched]:
    missing, wanted = _lacking(asked, root)
    failures = {}
    for archive in _archives(asked, root):
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
    return [_outcome(each.entry, root, wanted, failures) for each in asked]


def _lacking(asked: Iterable[_Asked], root: Path) -> tuple[dict[str, int], set[str]]:
    """Return the folders of some sets that have no image, see `_missing`, and which of them are asked for."""
    missing: dict[str, int] = {}
    wanted: set[str] = set()
    for entry, scales in asked:
        missing |= _missing(entry, root)
        wanted |= entry.folders(scales).keys() & missing.keys()
    return missing, wanted


def _archives(asked: Sequence[_Asked], root: Path) -> list[Archive]:
    """Return the archives, each once, that hold images that are asked for and missing."""
    _, wanted = _lacking(asked, root)
    archives: list[Archive] = []
    for archive in (archive for entry, _ in asked for archive in entry.archives):
        if wanted & set(archive.folders.values()) and archive not in archives:
            archives.append(archive)
    return archives


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
        remark = f"{name} must be got by hand ({entry.homepage}): {entry.by_hand()}"
        return Fetched(name, "by hand", folder, remark)
    for archive in entry.archives:
        if archive.url in failures:
            how = f"run the same command again to resume, or do it by hand ({entry.homepage}): {entry.by_hand()}"
            fault = failures[archive.url]
            return Fetched(name, "failed", folder, f"{fault}; {how}", fault)
    return Fetched(name, "fetched", folder)
