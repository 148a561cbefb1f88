"""Image files to arrays and back.

Every image in sgbench is uint8, height × width × 3, RGB, values 0 to 255: the pixels as they are stored in the file. An
orientation in EXIF is not applied and a colour profile is not converted, as in MATLAB, so that a high-resolution image
fits the low-resolution file published with it.
"""

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, TiffImagePlugin

from sgbench.core.errors import InputError
from sgbench.core.files import replacing

Pixels = npt.NDArray[np.uint8]
"""An image, uint8, H×W×C, values 0 to 255."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""File extensions of images, in upper or lower case."""

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
_NARROW_MODES = ("1", "L", "P", "RGB", "YCbCr", "CMYK")
_OTHER_BYTE = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGB;16N": "RGB;16B" if sys.byteorder == "little" else "RGB;16L",
}
"""Pillow keeps the high byte of a 16-bit RGB sample; told of the other byte order, it keeps the low one."""


def read_image(path: Path) -> Pixels:
    """Read a PNG, JPEG, BMP, TIFF or WebP file.

    Grey, 1-bit and palette images become RGB. If a file has several pages or frames, the first is read.

    Args:
        path: The file.

    Returns:
        uint8, H×W×3, RGB, 0 to 255. A 16-bit value v becomes v/257, rounded, so that 65535 becomes 255.

    Warns:
        UserWarning: If the file is 16-bit or CMYK and was converted; the message names it.

    Raises:
        InputError: If the file cannot be read or decoded, has transparency, or holds pixels of another kind, such as
            floating point.
    """
    with _opened(path) as image:
        if image.has_transparency_data:
            raise InputError(f"'{path}' has an alpha channel or a transparent colour; only opaque images are read.")
        kind = _kind(image)
        if kind == "other":
            raise InputError(f"'{path}' holds pixels of an unusual kind ({_describe(image)}); convert it to 8-bit RGB.")
        pixels = _sixteen_bit(image, path) if kind == "16-bit" else np.array(image.convert("RGB"))
    if kind != "8-bit":
        warnings.warn(f"'{path}' is {kind} and was converted to 8-bit RGB", stacklevel=2)
    return pixels


def image_size(path: Path) -> tuple[int, int]:
    """Return the height and width of an image file in pixels, from its header alone.

    Raises:
        InputError: If the file cannot be read.
    """
    with _opened(path) as image:
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


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            yield image
    except InputError:
        raise
    except Exception as error:  # damaged bytes make the decoders raise anything, from SyntaxError to struct.error
        raise InputError(f"'{path}' cannot be read as an image: {error}.") from error


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


def _sixteen_bit(image: ImageFile.ImageFile, path: Path) -> Pixels:
    if image.mode != "RGB":
        grey = _narrow(np.asarray(image))
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    with _opened(path) as again:
        again.tile = [tile._replace(args=_swap_bytes(tile.args)) for tile in again.tile]
        low = np.asarray(again)
    return _narrow(np.asarray(image).astype(np.uint16) << 8 | low)


def _swap_bytes(arguments: tuple[object, ...] | str | None) -> tuple[object, ...] | str:
    if isinstance(arguments, tuple):
        return _OTHER_BYTE[str(arguments[0])], *arguments[1:]
    return _OTHER_BYTE[str(arguments)]


def _narrow(wide: npt.NDArray[np.uint16]) -> Pixels:
    """Map 0..65535 to 0..255, rounded; 257 is odd, so that nothing lies halfway."""
    return ((wide.astype(np.uint32) + 128) // 257).astype(np.uint8)
