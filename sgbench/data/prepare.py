"""Images decoded once into one file of pixels, which is then read through a memory map.

A prepared set is a folder of three files:

- ``hr.bin`` and ``lr.bin``: the uint8 H×W×3 pixels of all images, one after the other; the first is empty for a test
  set without high-resolution images;
- ``manifest.json``: where each image lies in them, hashes of its pixels, and where low-resolution files were taken from
  if they were not made.

The folder is named after the set and a key: a hash of the paths, sizes and times of the image files, the scale and the
degradation. It is made under a hidden name and renamed once it is complete.
"""

import contextlib
import functools
import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from sgbench.core.errors import InputError
from sgbench.core.files import cache_folder, replacing
from sgbench.core.resize import downscale
from sgbench.core.storage import PART, PART_IN_WORDS
from sgbench.core.words import plural
from sgbench.data.catalog import DEMO, Role
from sgbench.data.images import Pixels, crop_to_multiple, image_size, read_with_remarks
from sgbench.data.references import Source, resolve
from sgbench.spec import Degradation, Recipe, canonical_json

FORMAT_VERSION = 2
"""Raised when the layout or the rules of reading change, so that old and new folders differ."""

MAX_DEFAULT_WORKERS = 8
"""More threads than this would only wait for the disk."""

CHANNELS = 3

PIXEL_FILES = ("hr.bin", "lr.bin")
"""The files of a prepared set that hold pixels."""

MANIFEST = "manifest.json"
"""The file of a prepared set that is written last, and says what is in the others."""


@dataclass(frozen=True)
class PackedImage:
    """One image of a prepared set."""

    name: str
    """The file's name without its extension, unique in the set: if other folders have a file so called, with theirs."""
    file: str
    """The file's name."""
    height: int
    """Height of the high-resolution or, without one, of the super-resolved image in pixels, a multiple of the scale."""
    width: int
    """Its width in pixels, a multiple of the scale."""
    hr_offset: int
    """First byte in ``hr.bin``."""
    lr_offset: int
    """First byte in ``lr.bin``."""
    hr_sha256: str
    """SHA-256 of the high-resolution pixels, hexadecimal; empty if there are none."""
    lr_sha256: str
    """SHA-256 of the low-resolution pixels, hexadecimal."""


class PackedImages:
    """A prepared set of images; made by `prepare`, opened by `PackedImages.open`.

    It is pickled as its path alone, so that sending it to other processes costs nothing. The memory maps are opened
    when the first pixel is read.

    Attributes:
        path: The folder.
        name: The set's name.
        role: ``"train"`` or ``"test"``.
        scale: HR pixels for each LR pixel.
        degradation: How the LR images were made, unless they were taken from files.
        images: Where each image lies.
        has_hr: Whether it has high-resolution images, as all but some test sets do.
        lr_folder: The folder of the files that the LR images were taken from; None if they were made.
        held_out: How many images a split has kept out of it.
        of: Catalogued sets among its parts, if it has several.
        sha256: The manifest hash: which pixels the set holds, in order, whatever the files are called.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        role: Role,
        scale: int,
        degradation: Degradation,
        images: Sequence[PackedImage],
        lr_folder: str | None = None,
        held_out: int = 0,
        of: Sequence[str] = (),
    ) -> None:
        self.path = path
        self.name = name
        self.role = role
        self.scale = scale
        self.degradation = degradation
        self.images = tuple(images)
        self.has_hr = all(image.hr_sha256 for image in self.images)
        self.lr_folder = lr_folder
        self.held_out = held_out
        self.of = tuple(of)
        self.sha256 = _manifest_sha256(self.images, scale)

    @classmethod
    def open(cls, path: Path) -> "PackedImages":
        """Open a prepared set.

        Raises:
            InputError: If the folder is not a whole prepared set of this version.
        """
        try:
            manifest = json.loads((path / MANIFEST).read_bytes())
            if manifest["format"] != FORMAT_VERSION:
                raise ValueError(f"its format is {manifest['format']}, not {FORMAT_VERSION}")
            opened = cls(
                path=path,
                name=manifest["name"],
                role=manifest["role"],
                scale=manifest["scale"],
                degradation=Degradation.model_validate(manifest["degradation"]),
                images=[PackedImage(**record) for record in manifest["images"]],
                lr_folder=manifest.get("lr_folder"),
                held_out=manifest.get("held_out", 0),
                of=manifest.get("of", ()),
            )
            for name in (opened.name, *(image.name for image in opened.images)):
                if not re.fullmatch(PART, name):
                    raise ValueError(f"it contains the name {name[:80]!r}; {PART_IN_WORDS} is needed")
            if not opened.has_hr and any(image.hr_sha256 for image in opened.images):
                raise ValueError("it has high-resolution pixels of some images only")
            if opened.sha256 != manifest["sha256"]:
                raise ValueError("its records do not match their hash")
            for file, expected in zip(PIXEL_FILES, opened.byte_counts(), strict=True):
                if (size := (path / file).stat().st_size) != expected:
                    raise ValueError(f"{file} has {size} bytes, not {expected}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"the prepared images in '{path}' are damaged ({error}); remove that folder.") from error
        with contextlib.suppress(OSError):  # the folder may be read-only
            os.utime(path / MANIFEST)  # when the set was last used, for `sgbench data clean`
        return opened

    @functools.cached_property
    def digest(self) -> str:
        """The SHA-256 of the manifest: which set this is, with the names in it; stores keep it under that."""
        return hashlib.sha256((self.path / MANIFEST).read_bytes()).hexdigest()

    def __reduce__(self) -> tuple[Callable[[Path], "PackedImages"], tuple[Path]]:
        return PackedImages.open, (self.path,)

    def __len__(self) -> int:
        return len(self.images)

    def hr(self, index: int) -> Pixels:
        """Return a high-resolution image, a read-only view of the memory map, uint8, H×W×3.

        Raises:
            ValueError: If the set has none.
        """
        image = self.images[index]
        return _view(self._hr, image.hr_offset, image.height, image.width)

    def lr(self, index: int) -> Pixels:
        """Return a low-resolution image, a read-only view of the memory map, uint8, H/scale × W/scale × 3."""
        image = self.images[index]
        return _view(self._lr, image.lr_offset, image.height // self.scale, image.width // self.scale)

    def verify(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Read every pixel and compare the hashes.

        Args:
            progress: Called after each image with the number of images done and of all.

        Raises:
            InputError: If an image is not what it was when it was prepared.
        """

        def intact(index: int) -> bool:
            image = self.images[index]
            hr_sha256 = _sha256(self.hr(index)) if self.has_hr else ""
            return (hr_sha256, _sha256(self.lr(index))) == (image.hr_sha256, image.lr_sha256)

        with _threads() as pool:
            for index, sound in enumerate(pool.map(intact, range(len(self)))):
                if not sound:
                    raise InputError(
                        f"the prepared image '{self.images[index].name}' in '{self.path}' has changed on disk; "
                        "remove that folder."
                    )
                if progress is not None:
                    progress(index + 1, len(self))

    def byte_counts(self) -> tuple[int, int]:
        """Return the bytes of all high-resolution pixels and of all low-resolution ones."""
        whole = sum(image.height * image.width * CHANNELS for image in self.images)
        return whole * self.has_hr, whole // self.scale**2

    @functools.cached_property
    def _hr(self) -> Pixels:
        return np.asarray(np.memmap(self.path / "hr.bin", dtype=np.uint8, mode="r"))

    @functools.cached_property
    def _lr(self) -> Pixels:
        return np.asarray(np.memmap(self.path / "lr.bin", dtype=np.uint8, mode="r"))


def prepare(
    source: Source,
    *,
    scale: int,
    degradation: Degradation,
    cache: Path,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> PackedImages:
    """Decode a set of images, make the low-resolution ones and pack both, unless that was done before.

    Threads are enough: decoding, resizing and hashing all release the interpreter's lock. Two processes may prepare
    the same set at once: the slower one uses the other's result.

    Args:
        source: The image files. The high-resolution images are cropped from the top left to a multiple of the scale; if
            there are none, the set has only low-resolution ones.
        scale: 2, 3 or 4.
        degradation: How the low-resolution images are made if the source has no files of them.
        cache: Folder for prepared sets, created if it does not exist.
        workers: Threads; 0 means one per processor, at most `MAX_DEFAULT_WORKERS`.
        progress: Called after each image with the number of images done and of all.

    Returns:
        The prepared set.

    Warns:
        UserWarning: What `sgbench.data.read_image` warns of, once for all images with the same remark, and
            not of the images that come with scikit-image.

    Raises:
        InputError: If a file cannot be read or has the wrong size, two files differ only in their extensions, or the
            cache cannot be written. Nothing is left behind.
    """
    target = cache / folder_name(source, scale, degradation)
    if target.is_dir():
        return PackedImages.open(target)
    plan, told = _plan(source, scale), _told(source)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with replacing(target) as folder:
            folder.mkdir()
            images = _pack(source, plan, folder, degradation, scale, workers, progress)
            images.sort(key=lambda image: (image.file, image.hr_sha256 or image.lr_sha256))
            _warn_of_duplicates(source.name, images)
            manifest = {
                "format": FORMAT_VERSION,
                "name": source.name,
                "role": source.role,
                "scale": scale,
                "degradation": degradation.model_dump(),
                "lr_folder": os.path.commonpath([path.parent for path in source.lr]) if source.lr else None,
                **told,
                "sha256": _manifest_sha256(images, scale),
                "images": [asdict(image) for image in images],
            }
            (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    except OSError as error:
        raise InputError(f"cannot prepare {source.name} in the cache '{cache}': {error}.") from error
    return PackedImages.open(target)


def default_cache() -> Path:
    """Return the folder for prepared sets: ``data`` in sgbench's cache."""
    return cache_folder() / "data"


def folder_name(source: Source, scale: int, degradation: Degradation) -> str:
    """Return the name of a prepared set's folder: set, role, scale and a key that depends on the files.

    Raises:
        InputError: If a file no longer exists.
    """
    try:
        images, lr = ([_file_identity(path) for path in paths] for paths in (source.images, source.lr))
    except OSError as error:
        raise InputError(f"an image of {source.name} cannot be read: {error}.") from error
    told = _told(source) | ({"names": source.names} if source.names else {})
    identity = [FORMAT_VERSION, images, scale, degradation.model_dump(), *filter(None, (lr, told))]
    key = hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:12]
    return f"{source.name}-{source.role}-x{scale}-{key}"


def shared_images(a: PackedImages, b: PackedImages) -> list[tuple[str, str]]:
    """Return the names of images with the same pixels in two sets, as pairs, in the order of ``a``.

    The high-resolution pixels are compared, or the low-resolution ones if a set has no others.
    """

    def pixels(image: PackedImage) -> str:
        return image.hr_sha256 if a.has_hr and b.has_hr else image.lr_sha256

    names: dict[str, list[str]] = {}
    for image in b.images:
        names.setdefault(pixels(image), []).append(image.name)
    return [(image.name, other) for image in a.images for other in names.get(pixels(image), ())]


def _file_identity(path: Path) -> tuple[str, int, int, int]:
    stat = path.stat()
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _told(source: Source) -> dict[str, object]:
    """Return what a manifest says of a set besides its images, if there is anything to say."""
    said = {"held_out": source.held_out, "of": source.of}
    return {key: value for key, value in said.items() if value}


def _plan(source: Source, scale: int) -> list[PackedImage]:
    """Lay out the files of pixels from the headers of the images; the hashes are left empty."""
    plan: list[PackedImage] = []
    files: dict[str, Path] = {}
    offset = 0
    paths = source.images or source.lr
    for path, name in zip(paths, source.names or [path.stem for path in paths], strict=True):
        if not re.fullmatch(PART, name):
            raise InputError(f"'{path.parent}' has an image named {path.name[:80]!r}; {PART_IN_WORDS} is needed.")
        if (taken := files.setdefault(name, path)) is not path:
            raise InputError(
                f"'{taken.name}' and '{path.name}' in '{path.parent}' would have the same name; rename one."
            )
        height, width = (side // scale * scale if source.images else side * scale for side in image_size(path))
        if not height or not width:
            raise InputError(f"'{path}' is smaller than {scale}×{scale} pixels, which scale {scale} needs.")
        plan.append(PackedImage(name, path.name, height, width, offset, offset // scale**2, "", ""))
        offset += height * width * CHANNELS
    for path, image in zip(source.lr, plan, strict=bool(source.lr)):
        received, needed = image_size(path), (image.height // scale, image.width // scale)
        if received != needed:
            raise InputError(
                f"'{path}' has {received[0]}×{received[1]} pixels; {needed[0]}×{needed[1]} are needed for "
                f"'{image.file}' at scale {scale}."
            )
    return plan


def _pack(
    source: Source,
    plan: Sequence[PackedImage],
    folder: Path,
    degradation: Degradation,
    scale: int,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> list[PackedImage]:
    """Write the pixels of every image to its place and return the plan with the hashes filled in."""
    for file in PIXEL_FILES:
        (folder / file).touch()

    remarks: dict[str, list[Path]] = {}

    def read(path: Path) -> Pixels:
        pixels, said = read_with_remarks(path)
        for remark in said:
            remarks.setdefault(remark, []).append(path)
        return pixels

    def pack(image: PackedImage, path: Path | None, lr_path: Path | None) -> PackedImage:
        if path:
            hr = crop_to_multiple(read(path), scale)
            _write(folder / "hr.bin", image.hr_offset, hr)
            image = replace(image, hr_sha256=_sha256(hr))
        lr = read(lr_path) if lr_path else downscale(hr, scale, edges=degradation.edges, rounding=degradation.rounding)
        _write(folder / "lr.bin", image.lr_offset, lr)
        return replace(image, lr_sha256=_sha256(lr))

    packed: list[PackedImage] = []
    nothing = [None] * len(plan)
    with _threads(workers) as pool:
        for image in pool.map(pack, plan, source.images or nothing, source.lr or nothing):
            packed.append(image)
            if progress is not None:
                progress(len(packed), len(plan))
    if source.name != DEMO:  # of its images all is known
        for remark, paths in remarks.items():
            others = f" (also {plural(len(paths) - 1, 'other image')} of {source.name})" if len(paths) > 1 else ""
            warnings.warn(f"'{min(paths)}' {remark}{others}", stacklevel=4)
    return packed


def _warn_of_duplicates(name: str, images: Sequence[PackedImage]) -> None:
    first: dict[str, PackedImage] = {}
    pixels = ((image.hr_sha256 or image.lr_sha256, image) for image in images)
    pairs = [(other, image) for sha256, image in pixels if (other := first.setdefault(sha256, image)) is not image]
    if pairs:
        (one, two), more = pairs[0], len(pairs) - 1
        others = f", and so {'do' if more > 1 else 'does'} {plural(more, 'other image')}" if more else ""
        warnings.warn(f"image '{two.name}' of {name} has the same pixels as '{one.name}'{others}", stacklevel=3)


def _threads(workers: int = 0) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers or min(os.cpu_count() or 1, MAX_DEFAULT_WORKERS))


def _write(path: Path, offset: int, pixels: Pixels) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(np.ascontiguousarray(pixels).data)


def _view(pixels: Pixels, offset: int, height: int, width: int) -> Pixels:
    return pixels[offset : offset + height * width * CHANNELS].reshape(height, width, CHANNELS)


def _sha256(pixels: Pixels) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def _manifest_sha256(images: Sequence[PackedImage], scale: int) -> str:
    pixels = [(image.hr_sha256, image.lr_sha256, image.height, image.width) for image in images]
    return hashlib.sha256(canonical_json([pixels, scale]).encode()).hexdigest()


PackProgress = Callable[[str, int, int], None]
"""Called with a set's name, the number of its images done and of all."""


def pack_set(reference: str, role: Role, recipe: Recipe, progress: PackProgress | None = None) -> PackedImages:
    """Pack the images of one set for a recipe, unless they are packed already.

    Args:
        reference: ``NAME`` or ``NAME=DIR``, and ``,lr`` or ``,lr=DIR``; see `sgbench.data.resolve`.
        role: What the images are for.
        recipe: Gives the scale and the degradation.
        progress: Called after each image.

    Raises:
        InputError: If the set is unknown, or images are missing or unreadable.
    """
    source = resolve(reference, role, recipe.scale)
    return prepare(
        source,
        scale=recipe.scale,
        degradation=recipe.degradation,
        cache=default_cache(),
        progress=functools.partial(progress, source.name) if progress else None,
    )
