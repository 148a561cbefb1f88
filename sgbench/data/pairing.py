"""Finding the files of another folder that belong to the images of a set, by name."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sgbench.core.errors import InputError
from sgbench.core.words import some
from sgbench.data.images import list_images

LR_SUFFIXES = ("", "x{scale}", "_x{scale}", "X{scale}", "_X{scale}", "_LR", "_lr", "LR")
"""What the name of a low-resolution file may add to the name of its high-resolution image."""

_ALNUM = r"[^\W_]"
_END = rf"(?=(?:[xX]\d)?(?!{_ALNUM}))"
"""Where a stem ends: ``baby`` and ``babyx4_SwinIR`` have one in common, ``baby`` and ``baby2`` have not."""

_MARKS = r"(?:[_-]?[xX]{scale}|[_-](?i:HR|LR|SR|GT|SRF[_-]?{scale}))+$"
"""What the name of an image may end in that tells it from other versions of it, not from other images."""
_SCALES = re.compile(rf"(?<!{_ALNUM})(?:[xX](\d)|(\d)[xX]|SRF[_-]?(\d))(?!{_ALNUM})")
"""The scale of an image in what its name adds to its stem."""


@dataclass(frozen=True)
class Pairing:
    """Which file belongs to which image of a set.

    Attributes:
        files: The file of each image that has one, by the image's name.
        by_stem: Names of the images whose file was found by the longest common stem.
        unused: Files that belong to no image.
    """

    files: dict[str, Path]
    by_stem: tuple[str, ...]
    unused: tuple[Path, ...]

    def __str__(self) -> str:
        """Say which files were found by the longest common stem; empty if none was."""
        if not self.by_stem:
            return ""
        pairs = some([f"{self.files[name].name} → {name}" for name in self.by_stem], 2)
        return f"matched {len(self.by_stem)} of {len(self.files)} by the longest common stem: {pairs}"


def pair_by_name(names: Iterable[str], folder: Path, suffixes: Sequence[str], scale: int) -> Pairing:
    """Find the file that belongs to each image.

    Its name is the image's, followed by the first of the suffixes for which there is a file. An ``_HR`` at the end of
    the image's name may be left out: ``img_001_LR.png`` belongs to ``img_001_HR.png``.

    An image without such a file gets the one whose longest common stem is with it, if that is the only one: a file has
    a stem in common with an image if it begins with the image's name, or else contains it, as whole words; marks such
    as ``x4``, ``_SRF_4`` and ``_HR`` at the end of the image's name do not count. So ``baby_HR_x4_SwinIR.png`` belongs
    to ``baby.png``, and neither ``babies.png`` nor, at scale 4, ``baby_x2_SwinIR.png`` does.

    Args:
        names: Names of the images, without file extensions.
        folder: Where the other files are.
        suffixes: What a file's name may add to the image's, with ``{scale}`` for the scale; an empty one stands for the
            same name.
        scale: The scale of the set.

    Raises:
        InputError: If the folder does not exist, holds no image, or has two files that differ only in their extensions,
            or if it is not clear which file belongs to which image.
    """
    names, suffixes = list(dict.fromkeys(names)), [suffix.format(scale=scale) for suffix in suffixes]
    files: dict[str, Path] = {}
    for path in list_images(folder):
        if (taken := files.setdefault(path.stem, path)) != path:
            raise InputError(f"'{taken.name}' and '{path.name}' in '{folder}' have the same name; remove one.")
    pairs = {}
    for name in names:
        candidates = (stem + suffix for stem in (name, name.removesuffix("_HR")) for suffix in suffixes)
        if (found := next(filter(files.__contains__, candidates), None)) is not None:
            pairs[name] = files[found]
    missing = [name for name in names if name not in pairs]
    paired = set(pairs.values())
    free = [path for path in files.values() if path not in paired]
    by_stem = _by_stem(names, missing, free, scale) if missing else {}
    used = set(by_stem.values())
    return Pairing(pairs | by_stem, tuple(by_stem), tuple(path for path in free if path not in used))


def _by_stem(names: Sequence[str], missing: Sequence[str], files: Iterable[Path], scale: int) -> dict[str, Path]:
    """Return the file of each missing image that has a stem in common with it and with no other image."""
    stems: defaultdict[str, set[str]] = defaultdict(set)
    for name in names:
        for stem in {name, re.sub(_MARKS.format(scale=scale), "", name)} - {""}:
            stems[stem].add(name)
    patterns = {stem: re.compile(rf"(?<!{_ALNUM}){re.escape(stem)}{_END}") for stem in stems}
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for path in files:
        matches = [match for stem in stems if stem in path.stem and (match := patterns[stem].search(path.stem))]
        if not matches:
            continue
        best = max(matches, key=lambda match: (match.start() == 0, len(match[0])))
        scales = {int(digit) for marks in _SCALES.findall(path.stem[best.end() :]) for digit in marks if digit}
        if scales and scale not in scales:
            continue
        owners = sorted(stems[best[0]])
        if len(owners) > 1 and not set(owners).isdisjoint(missing):
            raise InputError(f"'{path}' may belong to {' or '.join(owners)}; give it the name of one of them.")
        found[owners[0]].append(path)
    for name in missing:
        if len(found[name]) > 1:
            several = some([path.name for path in found[name]])
            raise InputError(
                f"'{found[name][0].parent}' has several files for image '{name}': {several}; leave one, or give one "
                "exactly its name."
            )
    return {name: found[name][0] for name in missing if found[name]}
