"""From a reference to a data set, as a person writes it, to image files.

`sgbench.spec.reference` has the grammar. The demo set comes with scikit-image and is always available. Other catalogued
sets are looked for in `sets_folder` unless a folder is given. Any other name may be given to your own folders, and to
lists: text files, whose names end in ``.txt``, that name an image a line.

Images are in the order of their files' names, and those of the same name in that of their pixels' hashes, so that a set
is the same set in however many folders it is, and in whatever order they are given. What is held out is every n-th
image by name of each part.
"""

import importlib.resources
import itertools
import os
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePath
from typing import NamedTuple

from sgbench.core.errors import InputError, MissingDataError, unknown
from sgbench.core.files import expanded
from sgbench.core.words import plural, quoted
from sgbench.data.catalog import CATALOG, DEMO, DEMO_IMAGES, DataSet, Role, count_images, images_folder, sets_folder
from sgbench.data.images import find_images, is_image_name, list_images, read_list
from sgbench.data.pairing import LR_SUFFIXES, pair_by_name
from sgbench.spec import Reference, packed_digest, set_name
from sgbench.spec.reference import NAME

LIST = ".txt"
"""What the name of a list of files ends in."""


@dataclass(frozen=True)
class Source:
    """Image files chosen for a role."""

    name: str
    role: Role
    images: tuple[Path, ...]
    """Absolute paths, sorted by file name; none for a test set that has only low-resolution images."""
    lr: tuple[Path, ...] = ()
    """The low-resolution file of each image, absolute; empty if they are to be made."""
    names: tuple[str, ...] = ()
    """What each image is called; empty if that is its file's name, without the extension."""
    held_out: int = 0
    """How many images a split has kept out of it."""
    of: tuple[str, ...] = ()
    """Catalogued sets among its parts, if it has several."""


def resolve(reference: str, role: Role, scale: int = 4) -> Source:
    """Find the images that a person refers to.

    Args:
        reference: See `sgbench.spec.reference`. The name of your own set has letters, digits, dashes, underscores and,
            except at its beginning, dots; it is not that of a catalogued set. Relative paths are made absolute.
        role: What the images are for. Images that are held out are those of the training set, whatever they are for.
        scale: Scale of the low-resolution files; ignored if they are to be made.

    Returns:
        The image files, which are listed but not opened.

    Warns:
        UserWarning: If a catalogued set has the wrong number of images.

    Raises:
        InputError: If the name is not known or not valid, the set has no part for the role or ships no low-resolution
            files, a folder is not given, absent, given twice or without images, a list names what does not exist,
            low-resolution files are missing or too many, or a split holds out all images or none.
    """
    asked, places = Reference.read(reference), places_of(reference)
    if role == "train" and not asked.has_hr:
        raise InputError(f"{quoted(reference)} has no high-resolution images, and training needs them.")
    if role == "test" and asked.split is not None and not asked.held_out:
        raise InputError(
            f"{quoted(reference)} is a test set without some of its images; only training sets have a split."
        )
    found = [_found(asked, place, "train" if asked.held_out else role, scale) for place in places]
    if len(places) > 1 or asked.recursive or any(place.given.endswith(LIST) for place in places):
        _refuse_repeated(asked, itertools.chain(*found))
    sides = [_is_held_out(index, asked.share) for images in found for index, _ in enumerate(images)]
    held_out = sum(sides)
    if asked.split is not None and held_out in (0, len(sides)):
        raise InputError(
            f"{quoted(reference)} holds out {held_out} of {plural(len(sides), 'image')}, and neither side may be "
            "empty; give another split."
        )
    everything = zip(itertools.chain(*found), _names(places, found), sides, strict=True)
    chosen = [(image, name) for image, name, side in everything if side == asked.held_out]
    chosen.sort(key=lambda each: each[0].path.name)
    images = tuple(image.path for image, _ in chosen)
    return Source(
        set_name(reference),
        role,
        images if asked.has_hr else (),
        tuple(image.lr for image, _ in chosen if image.lr) if asked.has_hr else images,
        tuple(name for _, name in chosen) if any(name != image.path.stem for image, name in chosen) else (),
        0 if asked.held_out else held_out,
        tuple(place.name for place in places if place.entry and len(places) > 1),
    )


@dataclass(frozen=True)
class Place:
    """Where the images of a set are, or of a part of it: a catalogued set, a folder or a list of files."""

    name: str
    """The set's name, or that of the part if it has one."""
    entry: DataSet | None
    """What the catalogue knows by that name."""
    given: str
    """The folder or list as it is written; empty if none is."""
    lr_given: str
    """The same for low-resolution files."""
    label: tuple[str, ...]
    """What distinguishes its images from those of the same name in other parts, the most telling last."""

    @property
    def folder(self) -> Path | None:
        """The folder or list, absolute."""
        return expanded(self.given).absolute() if self.given else None

    @property
    def lr_folder(self) -> Path | None:
        """The folder of low-resolution files, absolute."""
        return expanded(self.lr_given).absolute() if self.lr_given else None

    def is_missing(self, role: Role, lr_scale: int | None) -> bool:
        """Return whether it is a catalogued set whose files are neither given nor available locally.

        Args:
            role: What the images are for; a set without a part for it is not missing.
            lr_scale: Scale of the low-resolution files, if they are needed as well.
        """
        if self.entry is None or self.given or self.name == DEMO or role not in self.entry.parts:
            return False
        part, root = self.entry.parts[role], sets_folder() / self.name
        shipped = root / part.lr.format(scale=lr_scale) if lr_scale and not self.lr_given and part.lr else None
        return not count_images(images_folder(root, part)) or (shipped is not None and not shipped.is_dir())


def places_of(reference: str) -> list[Place]:
    """Return the places of a set's images, without looking whether they exist.

    Raises:
        InputError: If the reference is malformed, or its name is that of a catalogued set and may not be.
    """
    asked = Reference.read(reference)
    several = len(asked.places) > 1
    if asked.places:
        _refuse_other_case(asked.name)
    if not asked.has_hr:
        if asked.name in CATALOG:
            raise InputError(
                f"{quoted(reference)} has the name of a known set, which has HR images; give it another name."
            )
        return [Place(asked.name, None, asked.lr_folders[0], "", ())]
    if several and asked.name in CATALOG:
        raise InputError(f"{quoted(reference)} has the name of a known set; give a set of several parts another name.")
    lr = asked.lr_folders or [""] * max(1, len(asked.places))
    places = []
    for given, lr_given in zip(asked.places or [""], lr, strict=True):
        name, equals, folder = given.partition("=")
        if not several:
            places.append(Place(asked.name, CATALOG.get(asked.name), given, lr_given, ()))
        elif given in CATALOG:
            places.append(Place(given, CATALOG[given], "", lr_given, (given,)))
        elif equals and re.fullmatch(NAME, name):
            _refuse_other_case(name)
            places.append(Place(name, CATALOG.get(name), folder, lr_given, (*_components(folder), name)))
        else:
            places.append(Place(asked.name, None, given, lr_given, _components(given)))
    return places


def _components(folder: str) -> tuple[str, ...]:
    return expanded(folder).absolute().parts[1:]


def missing_sets(reference: str, role: Role, scale: int) -> list[DataSet]:
    """Return the catalogued sets that a person refers to and whose files are neither given nor available locally.

    Args:
        reference: See `resolve`.
        role: What the images are for.
        scale: Scale of the low-resolution files, if the reference asks for those that sets ship.
    """
    if packed_digest(reference):
        return []
    asked = Reference.read(reference)
    role = "train" if asked.held_out else role
    lr_scale = scale if asked.lr else None
    return [place.entry for place in places_of(reference) if place.entry and place.is_missing(role, lr_scale)]


def known_sets(reference: str) -> list[str]:
    """Return the names of the catalogued sets that a set consists of, as far as the reference tells."""
    if packed_digest(reference):
        return [set_name(reference)]
    return [place.name for place in places_of(reference) if place.entry]


def uses_shipped_lr(reference: str) -> bool:
    """Return whether a reference asks for the low-resolution files that the set ships."""
    asked = Reference.read(reference)
    return asked.lr and not asked.lr_folders


def refuse_overlap(train: Iterable[str], tests: Iterable[str], what: str = "test") -> None:
    """Refuse to train on test images or twice on the same, as far as the catalogue knows.

    `sgbench.data.shared_images` finds the rest, once the pixels are packed.

    Args:
        train: Names of the sets that the training set consists of; see `known_sets`.
        tests: The test sets, or others that must be apart.
        what: What they are: ``test`` or ``validation`` sets.

    Raises:
        InputError: If one of them or a part lies inside the training set.
    """
    names, tested = list(train), list(map(set_name, tests))
    for name in names:
        contains = CATALOG[name].contains if name in CATALOG else frozenset()
        for test in tested:
            if test in contains:
                raise InputError(
                    f"training on {what} images is refused: {test} lies inside {name}; "
                    f"leave it out of the {what} sets or train on another set."
                )
        for other in names:
            if other in contains:
                raise InputError(
                    f"{other} lies inside {name}, and its images would count twice; leave one of them out."
                )


class _Image(NamedTuple):
    """An image file that was found."""

    path: Path
    folder: PurePath
    """Where it lies below the folder of its part."""
    lr: Path | None


def _found(asked: Reference, place: Place, role: Role, scale: int) -> list[_Image]:
    """Return the images of a place, sorted by name, then by path."""
    root, paths = _files(asked, place, role)
    folders = [_below(root, path.parent) for path in paths]
    with_lr = asked.lr and asked.has_hr
    lr = _lr_files(asked, place, role, root, list(zip(paths, folders, strict=True)), scale) if with_lr else paths
    return [
        _Image(path, folder, small if with_lr else None) for path, folder, small in zip(paths, folders, lr, strict=True)
    ]


def _below(root: Path, folder: Path) -> PurePath:
    return PurePath(os.path.relpath(folder, root))


def _names(places: Sequence[Place], found: Sequence[Sequence[_Image]]) -> list[str]:
    """Return what each image is called: as its file, and if several files are called so, as the folders say as well."""
    stems = Counter(image.path.stem for images in found for image in images)
    labels = [place.label for place in places]
    for length in range(max(map(len, labels)) + 1):
        if len({label[-length:] if length else () for label in labels}) == len(labels):
            labels = [label[-length:] if length else () for label in labels]
            break
    return [
        image.path.stem
        if stems[image.path.stem] == 1
        else "-".join((*label, *(part for part in image.folder.parts if part != ".."), image.path.stem))
        for label, images in zip(labels, found, strict=True)
        for image in images
    ]


def _refuse_repeated(asked: Reference, found: Iterable[_Image]) -> None:
    """Refuse to take a file twice, by whatever path."""
    taken: dict[Path, Path] = {}
    for image in found:
        if (other := taken.setdefault(image.path.resolve(), image.path)) is not image.path:
            also = "" if other == image.path else f", also as '{image.path}'"
            raise InputError(f"the file '{other}' is in {quoted(asked.text)} twice{also}; leave it out once.")


def _is_held_out(index: int, share: Fraction) -> bool:
    """Return whether an image is held out: every n-th if the share is 1/n, and as evenly as possible otherwise."""
    return (index + 1) * share // 1 > index * share // 1


def _files(asked: Reference, place: Place, role: Role) -> tuple[Path, list[Path]]:
    """Return the folder of a place, and its image files, sorted by name, then by path."""
    name, entry, folder = place.name, place.entry, place.folder
    if entry is None:
        if folder is None:
            _refuse_other_case(name)
            error = str(unknown("data set", name, CATALOG)).removesuffix(".")
            raise InputError(f"{error}, or NAME=DIR for a folder of your own.")
        return _listed(asked, place, folder)
    if role not in entry.parts:
        raise InputError(
            f"{name} has no {role} part, only {' and '.join(entry.parts)}; to use its images for that, "
            f"give them another name, as in 'my-images=DIR'."
        )
    if name == DEMO:
        if folder is not None:
            raise InputError(f"the data set 'demo' comes with scikit-image; give '{folder}' another name.")
        images = _demo(role)
        return images[0].parent, images
    part = entry.parts[role]
    root, paths = _listed(asked, place, images_folder(folder, part) if folder else _installed(entry, role))
    if len(paths) != part.images:
        warnings.warn(f"{name} {role} has {part.images} images, but '{root}' holds {len(paths)}", stacklevel=4)
    return root, paths


def _listed(asked: Reference, place: Place, folder: Path) -> tuple[Path, list[Path]]:
    """Return the folder that paths are relative to, and the image files in a folder or list."""
    if folder.is_file():
        if folder.suffix != LIST:
            raise InputError(f"'{folder}' is a file; a folder of images is needed, or a list of them ending in {LIST}.")
        return folder.parent, read_list(folder)
    if not folder.exists():
        hint = f"; the known set is {place.given} alone" if place.given in CATALOG else ""
        if "+" in asked.text:
            hint += "; '+' separates folders, and a '+' in a path is written '++'"
        raise InputError(f"there is no folder '{folder}'{hint}.")
    if asked.recursive:
        return folder, find_images(folder)
    if folder.is_dir() and not count_images(folder) and any(is_image_name(path.name) for path in folder.glob("*/*")):
        raise InputError(
            f"the folder '{folder}' holds no image, but folders in it do: add ',recursive' to search them."
        )
    return folder, list_images(folder)


def _lr_files(
    asked: Reference, place: Place, role: Role, root: Path, images: Sequence[tuple[Path, PurePath]], scale: int
) -> list[Path]:
    """Return the low-resolution file of each image, which lies as its image does below the folder of its place."""
    top = place.lr_folder or _shipped_lr(asked, place, role, root, scale)
    stems: defaultdict[PurePath, list[str]] = defaultdict(list)
    for path, below in images:
        stems[below].append(path.stem)
    pairs = {below: pair_by_name(names, top / below, LR_SUFFIXES, scale) for below, names in stems.items()}
    for path, below in images:
        if path.stem not in pairs[below].files:
            suffixes = [suffix.format(scale=scale) for suffix in LR_SUFFIXES if suffix]
            raise InputError(
                f"'{top / below}' has no low-resolution file for '{path.name}' of {place.name}; its name must begin "
                f"with the image's, optionally followed by one of {', '.join(suffixes)}."
            )
    for below, found in pairs.items():
        if found.unused and not place.given.endswith(LIST):
            raise InputError(f"'{found.unused[0]}' belongs to no image of {place.name} in '{root / below}'.")
        if found.by_stem:
            warnings.warn(f"low-resolution files of {place.name}: {found}", stacklevel=5)
    return [pairs[below].files[path.stem] for path, below in images]


def _shipped_lr(asked: Reference, place: Place, role: Role, images: Path, scale: int) -> Path:
    """Return the folder of the low-resolution files that come with a set whose images lie in the given folder."""
    name = place.name
    if place.entry is None:
        raise InputError(f"'{asked.text}' does not say where the low-resolution files are; write NAME=DIR,lr=DIR.")
    part = place.entry.parts[role]
    if part.lr is None:
        raise InputError(f"{name} ships no low-resolution files; give your own folder, as in '{name},lr=DIR'.")
    folder = (images.parent if images.name == part.folder else images) / part.lr.format(scale=scale)
    if not folder.is_dir():
        raise MissingDataError(
            f"the low-resolution files of {name} at ×{scale} are not available locally ('{folder}' does not exist): "
            f"run 'sgbench data fetch {name} --lr --scale {scale}', or give their folder, as in '{name},lr=DIR'."
        )
    return folder


def _refuse_other_case(name: str) -> None:
    """Keep ``b100=DIR`` from passing for a user's own set, of which nothing is known."""
    for known in CATALOG:
        if known.lower() == name.lower() and name not in CATALOG:
            raise InputError(f"unknown data set '{name}': did you mean '{known}'?")


def _demo(role: Role) -> list[Path]:
    folder = Path(str(importlib.resources.files("skimage"))) / "data"
    tested = DEMO_IMAGES[2::3]
    return [folder / name for name in DEMO_IMAGES if (name in tested) == (role == "test")]


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
