"""From a reference to a data set, as a person writes it, to image files.

A reference is ``NAME`` or ``NAME=DIR``. The demo set comes with scikit-image and is always available. Other catalogued
sets are looked for in `sets_folder` unless a folder is given. Any other name may be given to your own folder. With
``,lr`` at the end the low-resolution files that the set ships are used, with ``,lr=DIR`` those in a folder; otherwise
they are made from the high-resolution ones. ``NAME=packed:DIGEST`` is a packed set in a store, which has no files; see
`sgbench.runs.delivery`.
"""

import importlib.resources
import os
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sgbench.core.errors import InputError, MissingDataError, unknown
from sgbench.core.files import expanded
from sgbench.core.words import quoted
from sgbench.data.catalog import CATALOG, DEMO, DEMO_IMAGES, DataSet, Role, count_images, images_folder, sets_folder
from sgbench.data.images import list_images
from sgbench.data.pairing import LR_SUFFIXES, pair_by_name
from sgbench.spec import packed_digest, set_name


@dataclass(frozen=True)
class Source:
    """Image files chosen for a role."""

    name: str
    role: Role
    images: tuple[Path, ...]
    """Absolute paths, sorted by file name."""
    lr: tuple[Path, ...] = ()
    """The low-resolution file of each image, absolute; empty if they are to be made."""


def resolve(reference: str, role: Role, scale: int = 4) -> Source:
    """Find the images that a person refers to.

    Args:
        reference: ``NAME`` or ``NAME=DIR``, followed by ``,lr`` or ``,lr=DIR`` to use low-resolution files. The name
            of your own folder has letters, digits, dashes, underscores and, except at its beginning, dots; it is not
            that of a catalogued set. A relative ``DIR`` is made absolute.
        role: What the images are for.
        scale: Scale of the low-resolution files; ignored if they are to be made.

    Returns:
        The image files, which are listed but not opened.

    Warns:
        UserWarning: If a catalogued set has the wrong number of images.

    Raises:
        InputError: If the name is not known or not valid, the set has no part for the role or ships no low-resolution
            files, a folder is not given, absent or without images, or low-resolution files are missing or too many.
    """
    asked = _Reference.read(reference)
    images = _images(asked, role)
    return Source(asked.name, role, images, _lr_files(asked, role, images, scale) if asked.lr else ())


def is_missing(reference: str, role: Role, scale: int) -> bool:
    """Return whether a person refers to files of a catalogued set that are neither given nor available locally.

    Args:
        reference: See `resolve`.
        role: What the images are for; a set without a part for it is not missing.
        scale: Scale of the low-resolution files, if the reference asks for those of the set.
    """
    if packed_digest(reference):
        return False
    asked = _Reference.read(reference)
    entry = CATALOG.get(asked.name)
    if entry is None or asked.folder or asked.name == DEMO or role not in entry.parts:
        return False
    part, root = entry.parts[role], sets_folder() / asked.name
    shipped = root / part.lr.format(scale=scale) if asked.lr and not asked.lr_folder and part.lr else None
    return not count_images(images_folder(root, part)) or (shipped is not None and not shipped.is_dir())


def given_folders(reference: str) -> list[str]:
    """Return the folders in a reference, of its images and of low-resolution files, as they are written."""
    images, _, lr_folder = _parts(reference)
    _, given, folder = images.partition("=")
    return [*([folder] if given else []), *([] if lr_folder is None else [lr_folder])]


def uses_shipped_lr(reference: str) -> bool:
    """Return whether a reference asks for the low-resolution files that the set ships."""
    _, lr, lr_folder = _parts(reference)
    return lr and lr_folder is None


def refuse_overlap(train: Source | str, tests: Iterable[Source | str]) -> None:
    """Refuse to train on test images, as far as the catalogue knows.

    `sgbench.data.shared_images` finds the rest, once the pixels are packed.

    Args:
        train: The training set or its name.
        tests: The test sets or their names.

    Raises:
        InputError: If a test set lies inside the training set.
    """
    name = _name(train)
    contains = CATALOG[name].contains if name in CATALOG else frozenset()
    for test in map(_name, tests):
        if test in contains:
            raise InputError(
                f"training on test images is refused: {test} lies inside {name}; "
                "leave it out of the test sets or train on another set."
            )


def _name(source: Source | str) -> str:
    return source.name if isinstance(source, Source) else set_name(source)


@dataclass(frozen=True)
class _Reference:
    """The parts of a reference."""

    text: str
    name: str
    folder: Path | None
    lr: bool
    """Whether to use low-resolution files."""
    lr_folder: Path | None

    @classmethod
    def read(cls, text: str) -> "_Reference":
        if packed_digest(text):
            raise InputError(
                f"data set {quoted(text)} is in a results store, from which only sweeps read it; give the folder of "
                "its images, as in NAME=DIR."
            )
        images, lr, lr_folder = _parts(text)
        name, given, folder = images.partition("=")
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
            raise InputError(
                f"'{text}' names no data set: write NAME or NAME=DIR, NAME made of letters, digits, '_', '-' and, "
                "except at its beginning, '.', followed by ',lr' or ',lr=DIR' to use low-resolution files."
            )
        return cls(
            text,
            name,
            _directory(text, folder) if given else None,
            lr,
            None if lr_folder is None else _directory(text, lr_folder),
        )


def _parts(reference: str) -> tuple[str, bool, str | None]:
    """Return a reference without its low-resolution files, whether it asks for some, and their folder."""
    if match := re.fullmatch(r"(.*),lr(?:=(.*))?", reference, re.DOTALL):
        return match[1], True, match[2]
    return reference, False, None


def _images(asked: _Reference, role: Role) -> tuple[Path, ...]:
    name = asked.name
    entry = CATALOG.get(name)
    if entry is None:
        _refuse_other_case(name)
        if asked.folder is None:
            error = str(unknown("data set", name, CATALOG)).removesuffix(".")
            raise InputError(f"{error}, or NAME=DIR for a folder of your own.")
        return tuple(list_images(asked.folder))
    if role not in entry.parts:
        raise InputError(
            f"{name} has no {role} part, only {' and '.join(entry.parts)}; to use its images for that, "
            f"give them another name, as in 'my-images=DIR'."
        )
    if name == DEMO:
        if asked.folder is not None:
            raise InputError(f"the data set 'demo' comes with scikit-image; give '{asked.folder}' another name.")
        return _demo(role)
    part = entry.parts[role]
    folder = images_folder(asked.folder, part) if asked.folder else _installed(entry, role)
    images = tuple(list_images(folder))
    if len(images) != part.images:
        warnings.warn(
            f"{name} {role} has {part.images} images, but '{images[0].parent}' holds {len(images)}", stacklevel=3
        )
    return images


def _lr_files(asked: _Reference, role: Role, images: tuple[Path, ...], scale: int) -> tuple[Path, ...]:
    """Return the low-resolution file of each image."""
    folder = asked.lr_folder or _shipped_lr(asked, role, images[0].parent, scale)
    pairs = pair_by_name((path.stem for path in images), folder, LR_SUFFIXES, scale)
    for path in images:
        if path.stem not in pairs.files:
            suffixes = [suffix.format(scale=scale) for suffix in LR_SUFFIXES if suffix]
            raise InputError(
                f"'{folder}' has no low-resolution file for '{path.name}' of {asked.name}; its name must begin with "
                f"the image's, optionally followed by one of {', '.join(suffixes)}."
            )
    if pairs.unused:
        raise InputError(f"'{pairs.unused[0]}' belongs to no image of {asked.name} in '{images[0].parent}'.")
    if pairs.by_stem:
        warnings.warn(f"low-resolution files of {asked.name}: {pairs}", stacklevel=3)
    return tuple(pairs.files[path.stem] for path in images)


def _shipped_lr(asked: _Reference, role: Role, images: Path, scale: int) -> Path:
    """Return the folder of the low-resolution files that come with a set whose images lie in the given folder."""
    name = asked.name
    if name not in CATALOG:
        raise InputError(f"'{asked.text}' does not say where the low-resolution files are; write NAME=DIR,lr=DIR.")
    part = CATALOG[name].parts[role]
    if part.lr is None:
        raise InputError(f"{name} ships no low-resolution files; give your own folder, as in '{name},lr=DIR'.")
    folder = (images.parent if images.name == part.folder else images) / part.lr.format(scale=scale)
    if not folder.is_dir():
        raise MissingDataError(
            f"the low-resolution files of {name} at ×{scale} are not available locally ('{folder}' does not exist): "
            f"run 'sgbench data fetch {name} --lr --scale {scale}', or give their folder, as in '{name},lr=DIR'."
        )
    return folder


def _directory(reference: str, folder: str) -> Path:
    if not folder:
        raise InputError(f"'{reference}' gives no folder after '='; write NAME=DIR.")
    return expanded(folder).absolute()


def _refuse_other_case(name: str) -> None:
    """Keep ``b100=DIR`` from passing for a user's own set, of which nothing is known."""
    for known in CATALOG:
        if known.lower() == name.lower():
            raise InputError(f"unknown data set '{name}': did you mean '{known}'?")


def _demo(role: Role) -> tuple[Path, ...]:
    folder = Path(str(importlib.resources.files("skimage"))) / "data"
    tested = DEMO_IMAGES[2::3]
    return tuple(folder / name for name in DEMO_IMAGES if (name in tested) == (role == "test"))


def _installed(entry: DataSet, role: Role) -> Path:
    """Return the folder of a catalogued set's images when the reference gives none."""
    folder = images_folder(sets_folder() / entry.name, entry.parts[role])
    if not count_images(folder):
        state = "holds no image" if folder.is_dir() else "does not exist"
        unset = "" if os.environ.get("SGBENCH_DATA") else "; SGBENCH_DATA is not set"
        how = f"run 'sgbench data fetch {entry.name}'" if entry.archives else "get them by hand"
        raise MissingDataError(
            f"the {role} images of {entry.name} are not available locally ('{folder}' {state}{unset}): {how}, or give "
            f"their folder, as in '{entry.name}=DIR'."
        )
    return folder
