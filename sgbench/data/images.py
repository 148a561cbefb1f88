"""Image files to arrays and back.

Every image in sgbench is uint8, height × width × 3, RGB, values 0 to 255: the pixels as they are stored in the file. An
orientation is not applied and colours are not converted by a profile or gamma, as in MATLAB, so that a high-resolution
image fits the low-resolution file published with it. The rules are in ``docs/protocol.md``.
"""

import contextlib
import functools
import io
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, ImageFile, TiffImagePlugin

from sgbench.core.errors import InputError
from sgbench.core.files import expanded, replacing
from sgbench.core.words import in_bytes, plural, quoted

Pixels = npt.NDArray[np.uint8]
"""An image, uint8, H×W×C, values 0 to 255."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""File extensions of images, in upper or lower case."""

_LARGEST_LIST = 10**8
"""Bytes of a list of images that is read at once: a million paths."""

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
_NARROW_MODES = ("1", "L", "P", "RGB", "YCbCr", "CMYK")
_PHOTOMETRIC = TiffImagePlugin.PHOTOMETRIC_INTERPRETATION
_SRGB_GAMMA = 1 / 2.2
_ROUNDING = 3
"""The most levels of 255 by which the rounded curves in profiles that mean sRGB differ from it."""
_OTHER_BYTE = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGB;16N": "RGB;16B" if sys.byteorder == "little" else "RGB;16L",
}
"""Pillow keeps the high byte of a 16-bit RGB sample; told of the other byte order, it keeps the low one."""


def read_image(path: Path) -> Pixels:
    """Read a PNG, JPEG, BMP, TIFF or WebP file, all by the same rules.

    Grey, 1-bit and palette images become RGB. If a file has several pages or frames, the first is read.

    Args:
        path: The file.

    Returns:
        uint8, H×W×3, RGB, 0 to 255. A 16-bit value v becomes v/257, rounded, so that 65535 becomes 255.

    Warns:
        UserWarning: If pixels were converted (16-bit, CMYK) or something in the file was ignored (orientation, colour
            profile, gamma, further pages); the message names the file.

    Raises:
        InputError: If the file cannot be read or decoded, has transparency, or holds pixels of another kind, such as
            floating point.
    """
    return _remarked(*read_with_remarks(path), str(path))


def read_with_remarks(path: Path) -> tuple[Pixels, list[str]]:
    """Read an image like `read_image`, and return what that would warn of instead, each without the file's name."""
    return _decoded(path, str(path))


def decode_image(content: bytes, name: str) -> Pixels:
    """Decode the content of an image file; otherwise like `read_image`.

    Args:
        content: The file's bytes.
        name: The file, for messages.
    """
    return _remarked(*_decoded(io.BytesIO(content), name), name)


def image_size(path: Path) -> tuple[int, int]:
    """Return the height and width of an image file in pixels, as they are stored, from its header alone.

    Raises:
        InputError: If the file cannot be read.
    """
    with _opened(path, str(path)) as image:
        if isinstance(image, TiffImagePlugin.TiffImageFile):  # Pillow swaps the sides if the orientation does
            return image.tag_v2[TiffImagePlugin.IMAGELENGTH], image.tag_v2[TiffImagePlugin.IMAGEWIDTH]
        return image.height, image.width


def list_images(folder: Path) -> list[Path]:
    """Return the image files directly in a folder, sorted by name, without hidden ones.

    Raises:
        InputError: If the folder does not exist, is a file, or holds no image.
    """
    if not folder.exists():
        raise InputError(f"there is no folder '{folder}'.")
    if not folder.is_dir():
        raise InputError(f"'{folder}' is a file; a folder of images is needed.")
    images = [path for path in folder.iterdir() if is_image_name(path.name) and path.is_file()]
    if not images:
        raise InputError(f"the folder '{folder}' holds no image; files that end in {', '.join(SUFFIXES)} are read.")
    return sorted(images, key=lambda path: path.name)


def find_images(folder: Path) -> list[Path]:
    """Return the image files in a folder and in all folders below it, sorted by name, then by path.

    Links are followed; what is hidden is left out.

    Raises:
        InputError: If the folder does not exist, is a file, holds no image, or has a link to a folder above it in it.
    """
    if not folder.is_dir():
        return list_images(folder)
    images: list[Path] = []
    waiting = [(folder, frozenset({_identity(folder)}))]
    while waiting:
        here, above = waiting.pop()
        for path in here.iterdir():
            if path.is_dir() and not path.name.startswith("."):
                if (identity := _identity(path)) in above:
                    raise InputError(f"'{path}' is a link to a folder that it lies in; remove it to search '{folder}'.")
                waiting.append((path, above | {identity}))
            elif is_image_name(path.name) and path.is_file():
                images.append(path)
    if not images:
        raise InputError(
            f"the folder '{folder}' and those in it hold no image; files that end in {', '.join(SUFFIXES)} are read."
        )
    return sorted(images, key=lambda path: (path.name, path))


def read_list(file: Path) -> list[Path]:
    """Return the image files that a text file names, one a line, sorted by name, then by path.

    Paths are relative to the folder of the list; what follows one in brackets, as in ``0001.png (480,480,3)``, does
    not count.

    Raises:
        InputError: If the list cannot be read, is empty, or names something twice, that is no image or does not exist.
    """
    try:
        if file.stat().st_size > _LARGEST_LIST:
            raise ValueError(f"it has more than {in_bytes(_LARGEST_LIST)}")
        lines = [re.sub(r"\s+\([\d,\s]*\)$", "", line.strip()) for line in file.read_text("utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"the list '{file}' cannot be read: {error}.") from error
    named = [line for line in lines if line]
    if not named:
        raise InputError(f"the list '{file}' names no image; one path a line is needed.")
    for line in named:
        if not is_image_name(PurePath(line).name):
            raise InputError(
                f"the list '{file}' names {quoted(line)}, which is no image; files that end in {', '.join(SUFFIXES)} "
                "are read."
            )
    paths = [file.parent / expanded(line) for line in named]
    if missing := [quoted(line) for line, path in zip(named, paths, strict=True) if not path.is_file()]:
        raise InputError(
            f"{len(missing)} of {plural(len(named), 'file')} that the list '{file}' names, relative to its folder, do "
            f"not exist: {', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}."
        )
    return sorted(paths, key=lambda path: (path.name, path))


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def is_image_name(name: str) -> bool:
    """Return whether a file of that name counts as an image: it ends in one of `SUFFIXES` and is not hidden."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def crop_to_multiple(image: Pixels, scale: int) -> Pixels:
    """Return the largest part of an image, from the top left, whose sides are multiples of the scale.

    Args:
        image: H×W×C.
        scale: 1 or more.

    Returns:
        A view of the image.

    Raises:
        InputError: If the image is smaller than the scale.
    """
    height, width = (side // scale * scale for side in image.shape[:2])
    if not height or not width:
        raise InputError(f"an image of {image.shape[0]}×{image.shape[1]} pixels is too small for scale {scale}.")
    return image[:height, :width]


def encode_png(image: Pixels) -> bytes:
    """Return the content of a PNG file.

    Args:
        image: uint8, H×W×3, RGB.
    """
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def write_png(path: Path, image: Pixels) -> None:
    """Write a PNG file atomically; missing folders are created.

    Args:
        path: The file, replaced if it exists.
        image: uint8, H×W×3, RGB.

    Raises:
        OSError: If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_bytes(encode_png(image))


def _remarked(pixels: Pixels, remarks: list[str], name: str) -> Pixels:
    for remark in remarks:
        warnings.warn(f"'{name}' {remark}", stacklevel=3)
    return pixels


def _decoded(source: Path | io.BytesIO, name: str) -> tuple[Pixels, list[str]]:
    with _opened(source, name) as image:
        if image.has_transparency_data:
            raise InputError(f"'{name}' has an alpha channel or a transparent colour; only opaque images are read.")
        kind = _kind(image)
        if kind == "other":
            raise InputError(f"'{name}' holds pixels of an unusual kind ({_describe(image)}); convert it to 8-bit RGB.")
        orientation, ignored = _orientation(image), _ignored(image)
        pixels = _sixteen_bit(image, source, name) if kind == "16-bit" else np.array(image.convert("RGB"))
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            pixels = np.ascontiguousarray(_UNTURNED[orientation](pixels))
    remarks = [f"is {kind} and was converted to 8-bit RGB"] if kind != "8-bit" else []
    if ignored:
        remarks.append(f"has {' and '.join(ignored)}; pixels are used as they are stored")
    return pixels, remarks


@contextlib.contextmanager
def _opened(source: Path | io.BytesIO, name: str) -> Iterator[ImageFile.ImageFile]:
    try:
        if isinstance(source, Path) and source.exists() and not source.is_file():  # a pipe would be waited for
            raise ValueError("it is not a regular file")
        with Image.open(source, formats=_FORMATS) as image:
            yield image
    except InputError:
        raise
    except Exception as error:  # damaged bytes make the decoders raise anything, from SyntaxError to struct.error
        raise InputError(f"'{name}' cannot be read as an image: {error}.") from error


_UNTURNED: Mapping[int, Callable[[Pixels], Pixels]] = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: np.rot90(image, -1),
}
"""Pillow turns a TIFF by its orientation when it decodes it, and no other format; these turn it back."""


def _orientation(image: ImageFile.ImageFile) -> int:
    """Return the orientation that a file asks for, 1 to 8; 1 if it has none, or none that can be read."""
    with contextlib.suppress(Exception):  # metadata may be damaged
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        return orientation if orientation in _UNTURNED else 1
    return 1


def _ignored(image: ImageFile.ImageFile) -> list[str]:
    """Return what a file says of its image that other programs may apply and sgbench does not."""
    ignored = []
    if (orientation := _orientation(image)) != 1:
        ignored.append(f"orientation {orientation}")
    profile = image.info.get("icc_profile")
    if profile and _differs_from_srgb(profile, grey=image.mode in ("1", "L") or image.mode.startswith("I")):
        ignored.append("a colour profile other than sRGB")
    gamma = image.info.get("gamma", _SRGB_GAMMA)
    if "srgb" not in image.info and abs(gamma - _SRGB_GAMMA) > _SRGB_GAMMA / 100:
        ignored.append(f"gamma {gamma:g}")
    if (count := getattr(image, "n_frames", 1)) > 1:
        ignored.append(f"{count} pages or frames, of which the first is read")
    return ignored


@functools.cache
def _differs_from_srgb(profile: bytes, *, grey: bool) -> bool:
    """Return whether a colour profile, if applied, would change values by more than rounding does."""
    steps = np.arange(0, 256, 17, dtype=np.uint8)
    rgb = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(len(steps), -1, 3)
    given = np.repeat(steps[:, np.newaxis, np.newaxis], 3, axis=2) if grey else rgb
    image = Image.fromarray(given[..., 0] if grey else given)
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        shown = ImageCms.profileToProfile(image, opened, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):  # damaged, or for other channels
        return True
    return bool(np.abs(np.asarray(shown).astype(int) - given).max() > _ROUNDING)


def _kind(image: ImageFile.ImageFile) -> str:
    raw = _raw_mode(image)
    if image.mode.startswith("I;16") and raw.startswith("I;16"):
        return "16-bit"
    if image.mode == "RGB" and raw in _OTHER_BYTE:
        return "16-bit"
    if image.mode not in _NARROW_MODES or _bits(image) > 8:
        return "other"
    return "CMYK" if image.mode == "CMYK" else "8-bit"


def _describe(image: ImageFile.ImageFile) -> str:
    return f"{image.format}, mode {image.mode}, {_raw_mode(image) or 'compressed'}"


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """Return how samples are stored in the file, such as ``RGB;16B``; empty if the decoder does not say."""
    if not image.tile:
        return ""
    arguments = image.tile[0].args
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _bits(image: ImageFile.ImageFile) -> int:
    """Return the bits per sample: those a TIFF declares, else 8, as the 8-bit modes of other formats have no more."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 8
    return int(max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))))


def _sixteen_bit(image: ImageFile.ImageFile, source: Path | io.BytesIO, name: str) -> Pixels:
    if image.mode != "RGB":
        wide = np.asarray(image)
        if isinstance(image, TiffImagePlugin.TiffImageFile) and not image.tag_v2[_PHOTOMETRIC]:
            wide = 65535 - wide  # 0 is white, which Pillow heeds for 8 bits only
        return np.repeat(_narrow(wide)[:, :, np.newaxis], 3, axis=2)
    high = np.asarray(image).astype(np.uint16) << 8
    with _opened(source, name) as again:
        again.tile = [tile._replace(args=_swap_bytes(tile.args)) for tile in again.tile]
        low = np.asarray(again)
    return _narrow(high | low)


def _swap_bytes(arguments: tuple[object, ...] | str | None) -> tuple[object, ...] | str:
    if isinstance(arguments, tuple):
        return _OTHER_BYTE[str(arguments[0])], *arguments[1:]
    return _OTHER_BYTE[str(arguments)]


def _narrow(wide: npt.NDArray[np.uint16]) -> Pixels:
    """Map 0..65535 to 0..255, rounded; 257 is odd, so that nothing lies halfway."""
    return ((wide.astype(np.uint32) + 128) // 257).astype(np.uint8)
