"""The data sets that sgbench knows by name, and folders that a person names.

A set is referred to as ``NAME`` or ``NAME=DIR``. The demo set comes with scikit-image and is always there. Another
catalogued set is looked for in ``$SGBENCH_DATA/NAME`` unless its folder is given. Any other name is free for a folder
of one's own.
"""

import importlib.resources
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from sgbench.data.images import list_images
from sgbench.errors import InputError, unknown

Role = Literal["train", "test"]
"""What images are used for."""


@dataclass(frozen=True)
class Part:
    """The images of a data set that serve one role."""

    images: int
    """How many there are when the set is complete."""
    folder: str = "HR"
    """Folder inside the set's own that holds them, as their authors name it; where it is absent, the set's own does."""


@dataclass(frozen=True)
class DataSet:
    """A catalogued data set."""

    name: str
    description: str
    """One line."""
    terms: str
    """Licence or terms of use, one sentence."""
    parts: Mapping[Role, Part]
    homepage: str
    instructions: str
    """How to get it by hand, one sentence."""
    contains: frozenset[str] = field(default_factory=frozenset)
    """Names of other sets whose images are all among this one's."""


@dataclass(frozen=True)
class Source:
    """Image files chosen for a role."""

    name: str
    role: Role
    images: tuple[Path, ...]
    """Absolute paths, sorted by file name."""


DEMO_IMAGES = (
    "astronaut.png",
    "brick.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
"""The demo set: eleven photographs and textures in the scikit-image wheel, in alphabetical order; three are grey.

Every third one (chelsea, gravel, motorcycle_left) is the test part, the others are the training part. motorcycle_right
shows the same scene as motorcycle_left and is in neither.
"""

_SELFEXSR = "https://github.com/jbhuang0604/SelfExSR"

CATALOG: Mapping[str, DataSet] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            DataSet(
                name="demo",
                description="Eleven photographs and textures that come with scikit-image; nothing to download.",
                terms=(
                    "CC0, public domain or without known restrictions, but for motorcycle_left, which is from the "
                    "Middlebury 2014 stereo benchmark; all are redistributed with scikit-image."
                ),
                parts={"train": Part(8), "test": Part(3)},
                homepage="https://scikit-image.org/docs/stable/api/skimage.data.html",
                instructions="It is installed with sgbench.",
            ),
            DataSet(
                name="DIV2K",
                description="High-quality 2K photographs; the usual training set, its validation part as test set.",
                terms="For academic research only; the photographs belong to their owners.",
                parts={"train": Part(800, "DIV2K_train_HR"), "test": Part(100, "DIV2K_valid_HR")},
                homepage="https://data.vision.ee.ethz.ch/cvl/DIV2K/",
                instructions="Unpack DIV2K_train_HR.zip and DIV2K_valid_HR.zip into one folder.",
            ),
            DataSet(
                name="Set5",
                description="Five classic photographs.",
                terms="For research use; no licence is stated.",
                parts={"test": Part(5)},
                homepage=_SELFEXSR,
                instructions="Take the *_HR.png files of Set5/image_SRF_4.",
            ),
            DataSet(
                name="Set14",
                description="Fourteen classic photographs and drawings, one of them grey.",
                terms="For research use; no licence is stated.",
                parts={"test": Part(14)},
                homepage=_SELFEXSR,
                instructions="Take the *_HR.png files of Set14/image_SRF_4.",
            ),
            DataSet(
                name="Urban100",
                description="A hundred photographs of buildings.",
                terms="For research use; photographs from Flickr under Creative Commons licences.",
                parts={"test": Part(100)},
                homepage=_SELFEXSR,
                instructions="Take the *_HR.png files of Urban100/image_SRF_4.",
            ),
            DataSet(
                name="B100",
                description="The hundred test photographs of BSD300, which are the validation part of BSDS500.",
                terms="For non-commercial research and education only.",
                parts={"test": Part(100)},
                homepage=_SELFEXSR,
                instructions="Take the *_HR.png files of BSD100/image_SRF_4.",
            ),
            DataSet(
                name="Manga109",
                description="A page from each of 109 manga volumes.",
                terms="For academic use, on application to its authors.",
                parts={"test": Part(109)},
                homepage="http://www.manga109.org/en/",
                instructions="Apply for it and keep one page of each volume.",
            ),
            DataSet(
                name="BSDS500",
                description=(
                    "All 500 photographs of the Berkeley segmentation data set, 481×321; its train and test parts "
                    "together are known as BSDS400 and share nothing with B100."
                ),
                terms="For non-commercial research and education only.",
                parts={"train": Part(500)},
                homepage="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html",
                instructions="Put the files of BSDS500/data/images/{train,val,test} into one folder.",
                contains=frozenset({"B100"}),
            ),
        )
    }
)
"""Every data set known by name."""


def resolve(reference: str, role: Role) -> Source:
    """Find the images that a person refers to.

    Args:
        reference: ``NAME`` or ``NAME=DIR``. A folder of one's own may have any name of letters, digits, dots, dashes
            and underscores that is not a catalogued one's. A relative ``DIR`` is made absolute.
        role: What the images are for.

    Returns:
        The image files, which are listed but not opened.

    Warns:
        UserWarning: If a catalogued set has another number of images than it should have.

    Raises:
        InputError: If the name is not known or not valid, the set has no part for the role, or its folder is not
            given, absent or without images.
    """
    name, given, folder = reference.partition("=")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise InputError(
            f"'{reference}' names no data set: write NAME or NAME=DIR, NAME made of letters, digits, '.', '_' and '-'."
        )
    entry = CATALOG.get(name)
    if entry is None:
        _refuse_other_case(name)
        if not given:
            error = str(unknown("data set", name, CATALOG)).removesuffix(".")
            raise InputError(f"{error}, or NAME=DIR for a folder of your own.")
        return Source(name, role, tuple(list_images(_directory(reference, folder))))
    if role not in entry.parts:
        raise InputError(
            f"{name} has no {role} part, only {' and '.join(entry.parts)}; to use its images so, "
            f"give them another name, as in 'my-images=DIR'."
        )
    if name == "demo":
        if given:
            raise InputError(f"the data set 'demo' comes with scikit-image; give '{folder}' another name.")
        return Source(name, role, _demo(role))
    part = entry.parts[role]
    root = _directory(reference, folder) if given else _installed(entry, role)
    images = tuple(list_images(root / part.folder if (root / part.folder).is_dir() else root))
    if len(images) != part.images:
        warnings.warn(f"{name} {role} has {part.images} images, '{images[0].parent}' holds {len(images)}", stacklevel=2)
    return Source(name, role, images)


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
    return source.name if isinstance(source, Source) else source.partition("=")[0]


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
    root = os.environ.get("SGBENCH_DATA")
    folder = Path(root).expanduser().absolute() / entry.name if root else None
    if folder is None or not folder.is_dir():
        where = f"'{folder}' does not exist" if folder else "SGBENCH_DATA is not set"
        raise InputError(
            f"the {role} images of {entry.name} are not at hand ({where}): "
            f"give their folder, as in '{entry.name}=DIR', or put them into $SGBENCH_DATA/{entry.name}; "
            f"they are to be had from {entry.homepage} ({entry.instructions.removesuffix('.')})."
        )
    return folder
