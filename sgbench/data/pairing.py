"""Finding the files of another folder that belong to the images of a set, by name."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from sgbench.core.errors import InputError
from sgbench.data.images import list_images

LR_SUFFIXES = ("", "x{scale}", "_x{scale}", "X{scale}", "_X{scale}", "_LR", "_lr", "LR")
"""What the name of a low-resolution file may add to the name of its high-resolution image."""


def pair_by_name(names: Iterable[str], folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Find the file that belongs to each image.

    Its name is the image's, followed by the first of the suffixes for which there is a file. An ``_HR`` at the end of
    the image's name may be left out: ``img_001_LR.png`` belongs to ``img_001_HR.png``.

    Args:
        names: Names of the images, without file extensions.
        folder: Where the other files are.
        suffixes: What a file's name may add to the image's; an empty one stands for the same name.

    Returns:
        The file of each image that has one, by the image's name.

    Raises:
        InputError: If the folder does not exist, holds no image, or has two files that differ only in their extensions.
    """
    files: dict[str, Path] = {}
    for path in list_images(folder):
        if (taken := files.setdefault(path.stem, path)) != path:
            raise InputError(f"'{taken.name}' and '{path.name}' in '{folder}' have the same name; remove one.")
    pairs = {}
    for name in names:
        candidates = (stem + suffix for stem in (name, name.removesuffix("_HR")) for suffix in suffixes)
        if (found := next(filter(files.__contains__, candidates), None)) is not None:
            pairs[name] = files[found]
    return pairs
