"""What is available locally: catalogued data sets, and the cache of prepared sets."""

import contextlib
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sgbench.core.errors import InputError
from sgbench.core.resize import SCALES
from sgbench.core.storage import UNFINISHED
from sgbench.data.catalog import CATALOG, DEMO, DataSet, Role, count_images, images_folder, sets_folder
from sgbench.data.prepare import MANIFEST, PackedImages, default_cache, folder_name
from sgbench.data.references import resolve
from sgbench.spec import set_name


@dataclass(frozen=True)
class Packing:
    """A folder with a prepared set, which may be damaged."""

    path: Path
    name: str
    role: Role
    scale: int


@dataclass(frozen=True)
class PartStatus:
    """How much of a part of a data set is available locally."""

    role: Role
    folder: Path
    """Where its images are, or are expected."""
    found: int
    expected: int
    lr_scales: tuple[int, ...]
    """Scales for which all low-resolution files that the set ships are available."""


@dataclass(frozen=True)
class SetStatus:
    """How much of a catalogued data set is available locally."""

    entry: DataSet
    parts: tuple[PartStatus, ...]
    packed: tuple[Packing, ...]
    """Prepared sets of its name, made from any folder."""


def inventory() -> list[SetStatus]:
    """Return what is available locally of every catalogued set."""
    packings = list_packings(default_cache())
    return [
        SetStatus(
            entry,
            tuple(_part(entry, role) for role in entry.parts),
            tuple(packing for packing in packings if packing.name == entry.name),
        )
        for entry in CATALOG.values()
    ]


@dataclass(frozen=True)
class Unused:
    """A folder of a cache that nothing has used for a while."""

    path: Path
    size: int
    """Bytes."""
    days: float
    """Since it was last used."""


def unused(cache: Path, days: float, keep: int | None = None) -> list[Unused]:
    """Return the sets that nothing has used for some days, and what killed processes left, oldest first.

    Every process that trains or scores with a set marks it as used when it opens it.

    Args:
        cache: The folder for prepared and received sets, which need not exist.
        days: How long a set must not have been used.
        keep: Only as many sets, the oldest, as must go for the rest to take at most so many bytes.
    """
    found = []
    for path in cache.glob("*"):
        if not path.is_dir() or not (UNFINISHED.fullmatch(path.name) or (path / MANIFEST).is_file()):
            continue
        try:
            sizes = [file.stat().st_size for file in path.iterdir()]
            used = max(file.stat().st_mtime for file in (path, *path.glob(MANIFEST)))
        except FileNotFoundError:  # another process has deleted it
            continue
        found.append(Unused(path, sum(sizes), (time.time() - used) / 86_400))
    found.sort(key=lambda each: -each.days)
    left, chosen = sum(each.size for each in found), []
    for each in found:
        if each.days >= days and (keep is None or left > keep):
            chosen.append(each)
            left -= each.size
    return chosen


def discard(folder: Path) -> None:
    """Delete a folder of a cache; no process ever finds a part of it under its name."""
    aside = folder.with_name(f".{folder.name.lstrip('.')}.{secrets.token_hex(4)}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(aside)
        shutil.rmtree(aside)


def list_packings(cache: Path, references: Sequence[str] = ()) -> list[Packing]:
    """Return the prepared sets in a cache, sorted by their folders.

    Args:
        cache: The folder for prepared sets, which need not exist.
        references: Only prepared sets of these, in this order: ``NAME`` means all of that name, a reference with a
            folder those that were made from the files in it as they are now.

    Raises:
        InputError: If a reference has never been prepared, or is not valid.
    """
    everything = list(_packings(cache))
    chosen = []
    for reference in references:
        of_it = [packing for packing in everything if packing.name == set_name(reference)]
        if reference != set_name(reference):
            of_it = [packing for packing in of_it if _is_of(packing, reference)]
        if not of_it:
            raise InputError(f"{reference} is not prepared in '{cache}'; run 'sgbench data prepare {reference}'.")
        chosen += of_it
    return list(dict.fromkeys(chosen)) if references else everything


def _part(entry: DataSet, role: Role) -> PartStatus:
    part = entry.parts[role]
    if entry.name == DEMO:
        images = resolve(DEMO, role).images
        return PartStatus(role, images[0].parent, len(images), part.images, ())
    root = sets_folder() / entry.name
    folder = images_folder(root, part)
    shipped = {scale: root / part.lr.format(scale=scale) for scale in SCALES} if part.lr else {}
    lr_scales = tuple(scale for scale, lr in shipped.items() if count_images(lr) == part.images)
    return PartStatus(role, folder, count_images(folder), part.images, lr_scales)


def _packings(cache: Path) -> Iterator[Packing]:
    for path in sorted(cache.glob("*")):
        if match := re.fullmatch(r"(.+)-(train|test)-x(\d)-[0-9a-f]{12}", path.name):
            name, role, scale = match.groups()
            yield Packing(path, name, "train" if role == "train" else "test", int(scale))


def _is_of(packing: Packing, reference: str) -> bool:
    try:
        degradation = PackedImages.open(packing.path).degradation
    except InputError:  # damaged, which is reported when it is opened
        return True
    source = resolve(reference, packing.role, packing.scale)
    return packing.path.name == folder_name(source, packing.scale, degradation)
