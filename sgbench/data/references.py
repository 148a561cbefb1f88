"""From what a person writes to image files.

A set is referred to as ``NAME`` or ``NAME=DIR``. The demo set comes with scikit-image and is always there. Another
catalogued set is looked for in `sets_folder` unless its folder is given. Any other name is free for a folder of one's
own. ``,lr`` after that asks for the low-resolution files that the set ships, ``,lr=DIR`` for those in a folder; without
it they are made from the high-resolution ones.
"""

import importlib.resources
import os
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sgbench.core.errors import InputError, MissingDataError, unknown
from sgbench.data.catalog import CATALOG, DEMO_IMAGES, DataSet, Role, count_images, images_folder, sets_folder
from sgbench.data.images import list_images
from sgbench.data.pairing import LR_SUFFIXES, pair_by_name
from sgbench.spec import set_name


@dataclass(frozen=True)
class Source:
    """Image files chosen for a role."""

    name: str
    role: Role
    images: tuple[Path, ...]
    """Absolute paths, sorted by file name."""
    lr: tuple[Path, ...] = ()
    """The low-resolution file of each image, absolute; none if they are to be made."""


def resolve(reference: str, role: Role, scale: int = 4) -> Source:
    """Find the images that a person refers to.

    Args:
        reference: ``NAME`` or ``NAME=DIR``, followed by ``,lr`` or ``,lr=DIR`` where low-resolution files are to be
            used. A folder of one's own may have any name of letters, digits, dashes, underscores and, but for its
            beginning, dots that is not a catalogued one's. A relative ``DIR`` is made absolute.
        role: What the images are for.
        scale: Of the low-resolution files; of no account where they are to be made.

    Returns:
        The image files, which are listed but not opened.

    Warns:
        UserWarning: If a catalogued set has another number of images than it should have.

    Raises:
        InputError: If the name is not known or not valid, the set has no part for the role or ships no low-resolution
            files, a folder is not given, absent or without images, or low-resolution files are missing or too many.
    """
    asked = _Reference.read(reference)
    images = _images(asked, role)
    return Source(asked.name, role, images, _lr_files(asked, role, images, scale) if asked.lr else ())


def refuse_overlap(train: Source | str, tests: Iterable[Source | str]) -> None:
    """Refuse to train on what is tested, as far as the catalogue knows.

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
                f"training on what is tested is refused: {test} lies inside {name}; "
                "leave it out of the test sets or train on something else."
            )


def _name(source: Source | str) -> str:
    return source.name if isinstance(source, Source) else set_name(source)


@dataclass(frozen=True)
class _Reference:
    """What a person writes, taken apart."""

    text: str
    name: str
    folder: Path | None
    lr: bool
    """Whether low-resolution files are to be used."""
    lr_folder: Path | None

    @classmethod
    def read(cls, text: str) -> "_Reference":
        images, lr, lr_folder = text, None, None
        if match := re.fullmatch(r"(.*),(lr)(?:=(.*))?", text, re.DOTALL):
            images, lr, lr_folder = match.groups()
        name, given, folder = images.partition("=")
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
            raise InputError(
                f"'{text}' names no data set: write NAME or NAME=DIR, NAME made of letters, digits, '_', '-' and, not "
                "at its beginning, '.', followed by ',lr' or ',lr=DIR' where low-resolution files are to be used."
            )
        return cls(
            text,
            name,
            _directory(text, folder) if given else None,
            lr is not None,
            None if lr_folder is None else _directory(text, lr_folder),
        )


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
            f"{name} has no {role} part, only {' and '.join(entry.parts)}; to use its images so, "
            f"give them another name, as in 'my-images=DIR'."
        )
    if name == "demo":
        if asked.folder is not None:
            raise InputError(f"the data set 'demo' comes with scikit-image; give '{asked.folder}' another name.")
        return _demo(role)
    part = entry.parts[role]
    folder = images_folder(asked.folder, part) if asked.folder else _installed(entry, role)
    images = tuple(list_images(folder))
    if len(images) != part.images:
        warnings.warn(f"{name} {role} has {part.images} images, '{images[0].parent}' holds {len(images)}", stacklevel=3)
    return images


def _lr_files(asked: _Reference, role: Role, images: tuple[Path, ...], scale: int) -> tuple[Path, ...]:
    """Return the low-resolution file of each image."""
    folder = asked.lr_folder or _shipped_lr(asked, role, images[0].parent, scale)
    suffixes = [suffix.format(scale=scale) for suffix in LR_SUFFIXES]
    pairs = pair_by_name((path.stem for path in images), folder, suffixes)
    for path in images:
        if path.stem not in pairs:
            raise InputError(
                f"'{folder}' has no low-resolution file for '{path.name}' of {asked.name}; it must have the image's "
                f"name, which may be followed by one of {', '.join(filter(None, suffixes))}."
            )
    if extra := sorted(set(list_images(folder)) - set(pairs.values())):
        raise InputError(f"'{extra[0]}' belongs to no image of {asked.name} in '{images[0].parent}'.")
    return tuple(pairs[path.stem] for path in images)


def _shipped_lr(asked: _Reference, role: Role, images: Path, scale: int) -> Path:
    """Return the folder of the low-resolution files that come with a set whose images lie in the given folder."""
    name = asked.name
    if name not in CATALOG:
        raise InputError(f"'{asked.text}' does not say where the low-resolution files are; write NAME=DIR,lr=DIR.")
    part = CATALOG[name].parts[role]
    if part.lr is None:
        raise InputError(f"{name} ships no low-resolution files; give a folder of your own, as in '{name},lr=DIR'.")
    folder = (images.parent if images.name == part.folder else images) / part.lr.format(scale=scale)
    if not folder.is_dir():
        raise InputError(
            f"the low-resolution files of {name} at ×{scale} are not at hand ('{folder}' does not exist): get them "
            f"with 'sgbench data fetch {name} --lr --scale {scale}', or give their folder, as in '{name},lr=DIR'."
        )
    return folder


def _directory(reference: str, folder: str) -> Path:
    if not folder:
        raise InputError(f"'{reference}' gives no folder after '='; write NAME=DIR.")
    return Path(folder).expanduser().absolute()


def _refuse_other_case(name: str) -> None:
    """Keep ``b100=DIR`` from passing for a set of one's own, of which nothing is known."""
    for known in CATALOG:
        if known.lower() == name.lower():
            raise InputError(f"unknown data set '{name}': did you mean '{known}'?")


def _demo(role: Role) -> tuple[Path, ...]:
    folder = Path(str(importlib.resources.files("skimage"))) / "data"
    tested = DEMO_IMAGES[2::3]
    return tuple(folder / name for name in DEMO_IMAGES if (name in tested) == (role == "test"))


def _installed(entry: DataSet, role: Role) -> Path:
    """Return the folder with the images of a catalogued set that no folder is given for."""
    folder = images_folder(sets_folder() / entry.name, entry.parts[role])
    if not count_images(folder):
        state = "holds no image" if folder.is_dir() else "does not exist"
        unset = "" if os.environ.get("SGBENCH_DATA") else "; SGBENCH_DATA is not set"
        raise MissingDataError(
            f"the {role} images of {entry.name} are not at hand ('{folder}' {state}{unset}): get them with "
            f"'sgbench data fetch {entry.name}', or give their folder, as in '{entry.name}=DIR'."
        )
    return folder
