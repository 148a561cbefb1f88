"""The catalogue of known data sets: their content, terms, sources and folders."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from sgbench.core.files import cache_folder, expanded
from sgbench.data.images import is_image_name

Role = Literal["train", "test"]
"""What images are used for."""


@dataclass(frozen=True)
class Part:
    """The images of a data set that serve one role."""

    images: int
    """How many there are when the set is complete."""
    folder: str = "HR"
    """Subfolder that holds them, as their authors name it; if it does not exist, the set's folder does."""
    lr: str | None = None
    """Subfolder of the low-resolution files that the set ships, with ``{scale}`` for the factor."""


@dataclass(frozen=True)
class Archive:
    """A file on a server that holds images of a data set."""

    url: str
    size: int
    """In bytes."""
    digest: str
    """``algorithm:hex``."""
    folders: Mapping[str, str]
    """Folders of images to unpack: from the path in the archive to the path below `sets_folder`."""


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
    """How to get it by hand, one sentence, with ``{folder}`` for the folder where it belongs."""
    contains: frozenset[str] = field(default_factory=frozenset)
    """Names of other sets that this one contains."""
    archives: tuple[Archive, ...] = ()
    """Where it can be downloaded; empty if a person must get it, because its authors are to be asked, say."""

    def folders(self, scales: Iterable[int] = ()) -> dict[str, int]:
        """Return the folders below `sets_folder` where its images belong, and how many belong in each.

        Args:
            scales: Include the low-resolution files of these scales.
        """
        folders: dict[str, int] = {}
        for part in self.parts.values():
            lr = [part.lr.format(scale=scale) for scale in scales] if part.lr else []
            folders |= {f"{self.name}/{folder}": part.images for folder in (part.folder, *lr)}
        return folders

    def archives_of(self, scales: Iterable[int] = ()) -> list[Archive]:
        """Return the archives that hold its images; see `folders` for ``scales``."""
        wanted = self.folders(scales).keys()
        return [archive for archive in self.archives if wanted & set(archive.folders.values())]

    def by_hand(self) -> str:
        """Return how to get the set without `sgbench.data.fetch`, one sentence."""
        return self.instructions.format(folder=f"'{sets_folder() / self.name}'")


DEMO = "demo"
"""The data set that comes with scikit-image."""

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

_BERKELEY = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html"
_EDSR = "https://github.com/sanghyun-son/EDSR-PyTorch"


def _div2k(part: str, size: int, sha256: str) -> Archive:
    """Return an archive of DIV2K, which is named after the folder that it holds."""
    folder = f"DIV2K_{part}".replace("_bicubic_", "_bicubic/")
    url = f"https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_{part}.zip"
    return Archive(url, size, f"sha256:{sha256}", {folder: f"DIV2K/{folder}"})


# Sizes and hashes are those of TensorFlow Datasets (tensorflow_datasets/datasets/div2k/checksums.tsv).
_DIV2K = (
    _div2k("train_HR", 3_530_603_713, "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335"),
    _div2k("valid_HR", 448_993_893, "20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc"),
    _div2k("train_LR_bicubic_X2", 925_390_592, "a53a424317575838dadce4bcd97cf7b744d6855f43740ed5f0245af3cf4bd850"),
    _div2k("train_LR_bicubic_X3", 427_847_282, "ad5c8e5507e2765823d3c2c5bd0934842efcd487c5370604c224090898b3163a"),
    _div2k("train_LR_bicubic_X4", 246_914_039, "f006b837f4eb52b82909aa01478e6d6d199eefce932179491d0c9dbb706dde3a"),
    _div2k("valid_LR_bicubic_X2", 117_763_600, "60eed9875c697df51204aa579e2a699e1d5215095788a097ff54dd17e2664d57"),
    _div2k("valid_LR_bicubic_X3", 54_513_392, "04b9a2ed3b4a0715d3924d3ae8514830c3328fac8d30512ce716d6f419e052a3"),
    _div2k("valid_LR_bicubic_X4", 31_505_881, "a50a5d1c4b88de4e8d300d8fb2b904c52fe93b2b298a4899697760d7cbb6d553"),
)

# The MD5 is the one in torchsr 1.0.4.
_BENCHMARK = Archive(
    url="https://cv.snu.ac.kr/research/EDSR/benchmark.tar",
    size=250_112_000,
    digest="md5:4ace41d33c2384b97e6b320cd0afd6ba",
    folders={
        f"benchmark/{name}/{folder}": f"{name}/{folder}"
        for name in ("Set5", "Set14", "B100", "Urban100")
        for folder in ("HR", "LR_bicubic/X2", "LR_bicubic/X3", "LR_bicubic/X4")
    },
)


def _by_hand(name: str, selfexsr: str) -> str:
    return (
        f"Unpack benchmark/{name} of benchmark.tar to {{folder}}, or put there the *_HR.png files of "
        f"{selfexsr}/image_SRF_4 from https://github.com/jbhuang0604/SelfExSR."
    )


# The hash is recorded by several projects that use this archive, all with this size.
_BSDS500 = Archive(
    url="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/BSR/BSR_bsds500.tgz",
    size=70_763_455,
    digest="sha256:97e49d31764f3912f0c4122707d53062ac9e783ba0f095e447a4d53c1a41af8e",
    folders={f"BSR/BSDS500/data/images/{part}": "BSDS500/HR" for part in ("train", "val", "test")},
)
_BSDS400 = replace(_BSDS500, folders={f"BSR/BSDS500/data/images/{part}": "BSDS400/HR" for part in ("train", "test")})

CATALOG: Mapping[str, DataSet] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            DataSet(
                name=DEMO,
                description="Eleven photographs and textures that come with scikit-image; nothing to download.",
                terms=(
                    "CC0, public domain or without known restrictions, except motorcycle_left, which is from the "
                    "Middlebury 2014 stereo benchmark; all are redistributed with scikit-image."
                ),
                parts={"train": Part(8), "test": Part(3)},
                homepage="https://scikit-image.org/docs/stable/api/skimage.data.html",
                instructions="It is installed with sgbench.",
            ),
            DataSet(
                name="DIV2K",
                description="High-quality 2K photographs: the usual training set; its validation part is a test set.",
                terms="For academic research only; the photographs belong to their owners.",
                parts={
                    "train": Part(800, "DIV2K_train_HR", "DIV2K_train_LR_bicubic/X{scale}"),
                    "test": Part(100, "DIV2K_valid_HR", "DIV2K_valid_LR_bicubic/X{scale}"),
                },
                homepage="https://data.vision.ee.ethz.ch/cvl/DIV2K/",
                instructions="Unpack DIV2K_train_HR.zip and DIV2K_valid_HR.zip into {folder}.",
                archives=_DIV2K,
            ),
            DataSet(
                name="Flickr2K",
                description="2,650 photographs in 2K from Flickr; with DIV2K's they are the training set DF2K.",
                terms="For research use; photographs from Flickr, which belong to their owners.",
                parts={"train": Part(2650, "Flickr2K_HR", "Flickr2K_LR_bicubic/X{scale}")},
                homepage=_EDSR,
                instructions=(
                    "Unpack https://cv.snu.ac.kr/research/EDSR/Flickr2K.tar and put what is in its folder Flickr2K "
                    "into {folder}."
                ),
            ),
            DataSet(
                name="Set5",
                description="Five classic photographs.",
                terms="For research use; no licence is stated.",
                parts={"test": Part(5, lr="LR_bicubic/X{scale}")},
                homepage=_EDSR,
                instructions=_by_hand("Set5", "Set5"),
                archives=(_BENCHMARK,),
            ),
            DataSet(
                name="Set14",
                description="Fourteen classic photographs and drawings, one of them grey.",
                terms="For research use; no licence is stated.",
                parts={"test": Part(14, lr="LR_bicubic/X{scale}")},
                homepage=_EDSR,
                instructions=_by_hand("Set14", "Set14"),
                archives=(_BENCHMARK,),
            ),
            DataSet(
                name="Urban100",
                description="A hundred photographs of buildings.",
                terms="For research use; photographs from Flickr under Creative Commons licences.",
                parts={"test": Part(100, lr="LR_bicubic/X{scale}")},
                homepage=_EDSR,
                instructions=_by_hand("Urban100", "Urban100"),
                archives=(_BENCHMARK,),
            ),
            DataSet(
                name="B100",
                description="The hundred test photographs of BSD300, which are the validation part of BSDS500.",
                terms="For non-commercial research and education only.",
                parts={"test": Part(100, lr="LR_bicubic/X{scale}")},
                homepage=_EDSR,
                instructions=_by_hand("B100", "BSD100"),
                archives=(_BENCHMARK,),
            ),
            DataSet(
                name="Manga109",
                description="A page from each of 109 manga volumes.",
                terms="For academic use, on request from its authors.",
                parts={"test": Part(109)},
                homepage="http://www.manga109.org/en/",
                instructions="Request it from its authors, and put one page of each volume into {folder}.",
            ),
            DataSet(
                name="BSDS400",
                description="The 400 photographs of BSDS500's train and test parts, 481×321; none is in B100.",
                terms="For non-commercial research and education only.",
                parts={"train": Part(400)},
                homepage=_BERKELEY,
                instructions="Put the images of BSDS500/data/images/train and test into {folder}.",
                archives=(_BSDS400,),
            ),
            DataSet(
                name="BSDS500",
                description="All 500 photographs of the Berkeley segmentation data set, 481×321.",
                terms="For non-commercial research and education only.",
                parts={"train": Part(500)},
                homepage=_BERKELEY,
                instructions="Put the images of BSDS500/data/images/train, val and test into {folder}.",
                contains=frozenset({"B100", "BSDS400"}),
                archives=(_BSDS500,),
            ),
        )
    }
)
"""Every known data set."""


def sets_folder() -> Path:
    """Return the folder where catalogued sets are looked for and downloaded to, each in a subfolder of its name.

    That is ``$SGBENCH_DATA``, or else ``sets`` in sgbench's cache.
    """
    root = os.environ.get("SGBENCH_DATA")
    return expanded(root).absolute() if root else cache_folder() / "sets"


def count_images(folder: Path) -> int:
    """Return how many images are directly in a folder, 0 if it does not exist."""
    return sum(is_image_name(path.name) for path in folder.iterdir()) if folder.is_dir() else 0


def images_folder(root: Path, part: Part) -> Path:
    """Return the folder of a part's images: the subfolder that its authors name or, without that, the set's folder."""
    folder = root / part.folder
    return folder if folder.is_dir() else root
