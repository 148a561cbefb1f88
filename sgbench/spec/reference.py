"""How a data set is written, as text and in a file of a sweep. Nothing here touches a file.

``NAME[=PLACE[+PLACE...]][,recursive][,split=SHARE[,held-out]][,lr[=DIR[+DIR...]]]``

A place is a folder or a list of files. Where there are several, one may also be the name of a known set, or
``NAME=DIR``. A ``+`` in a path is written ``++``. The options at the end, in any order, are those of the whole set.

``NAME=none,lr=DIR`` is a test set that has only low-resolution images, for no-reference metrics.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from sgbench.core.errors import InputError, unknown
from sgbench.core.words import plural, quoted

NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
"""What the name of a set matches."""

_KEYS = ("name", "of", "recursive", "split", "lr")
_HELD_OUT = "-held-out"
_NONE = "none"
"""Stands for the place of high-resolution images where there are none."""


@dataclass(frozen=True)
class Reference:
    """A data set as a person refers to it."""

    text: str
    """As it is written."""
    name: str
    """Without what marks the images that are held out; see `set_name`."""
    places: tuple[str, ...] = ()
    """Where its images are; none for the known set of that name, wherever that is."""
    recursive: bool = False
    """Whether folders in folders are searched."""
    split: str | None = None
    """The share of images that is held out, as it is written."""
    held_out: bool = False
    """Whether the images that are held out are meant, not the others."""
    lr: bool = False
    """Whether to use low-resolution files."""
    lr_folders: tuple[str, ...] = ()
    """Where these are, for each place; none if they are those that known sets ship."""

    @classmethod
    def read(cls, text: str) -> "Reference":
        """Parse a reference to a set that has files.

        Raises:
            InputError: If it is malformed, or is a packed set in a store.
        """
        if packed_digest(text):
            raise InputError(
                f"data set {quoted(text)} is in a results store, from which only sweeps read it; give the folder of "
                "its images, as in NAME=DIR."
            )
        images, options = _cut(text)
        name, given, places = images.partition("=")
        if not given and "+" in name:
            raise InputError(
                f"{quoted(text)} names no data set: several need a name, as in {quoted(f'NAME={images}')}."
            )
        if not re.fullmatch(NAME, name):
            raise InputError(
                f"{quoted(text)} names no data set: write NAME or NAME=DIR, NAME made of letters, digits, '_', '-' "
                "and, except at its beginning, '.', followed by ',lr' or ',lr=DIR' to use low-resolution files."
            )
        lr_folders = options.get("lr")
        found = cls(
            text,
            name,
            _parted(places) if given else (),
            recursive="recursive" in options,
            split=options.get("split"),
            held_out="held-out" in options,
            lr="lr" in options,
            lr_folders=() if lr_folders is None else _parted(lr_folders),
        )
        found._check()
        return found

    @property
    def share(self) -> Fraction:
        """The share of images that is held out; 0 if none is."""
        return _share(self.split) if self.split is not None else Fraction(0)

    @property
    def has_hr(self) -> bool:
        """Whether there are high-resolution images; if not, there is one folder of low-resolution ones."""
        return self.places != (_NONE,)

    def _check(self) -> None:
        text = quoted(self.text)
        if not self.has_hr and not self.lr_folders:
            raise InputError(
                f"{text} names no images: write NAME=none,lr=DIR, with the folder of the low-resolution images, or "
                "NAME=./none for a folder of that name."
            )
        for places in (self.places, self.lr_folders):
            if "" in places:
                raise InputError(f"{text} gives no folder after '{'+' if any(places) else '='}'; write NAME=DIR.")
        if self.held_out and self.split is None:
            raise InputError(f"{text} asks for images that are held out and does not say which: add ',split=0.05'.")
        if self.lr_folders and len(self.lr_folders) != max(1, len(self.places)):
            raise InputError(
                f"{text} gives {plural(len(self.lr_folders), 'folder')} of low-resolution files for "
                f"{len(self.places)} of images; as many are needed, in the same order."
            )
        if any(re.match(f"({NAME}=)?packed:", place) for place in self.places):
            raise InputError(f"{text} has a packed set as a part; give the folder of its images.")
        _ = self.share


def set_name(reference: str) -> str:
    """Return the name of the set that a reference means; images that are held out are a set with a name of their own.

    Args:
        reference: Any text; what is malformed has some name too.
    """
    images, options = _cut(reference)
    return images.partition("=")[0].partition(",")[0] + (_HELD_OUT if "held-out" in options else "")


def lacks_hr(reference: str) -> bool:
    """Return whether a reference is to a test set that has only low-resolution images, as far as it tells."""
    images, _ = _cut(reference)
    return images.partition("=")[2] == _NONE


def held_out(reference: str) -> str:
    """Return the reference to the images that are held out of a training set.

    Args:
        reference: The training set, with ``split=``.

    Raises:
        InputError: If nothing is held out of it.
    """
    _, options = _cut(reference)
    if "split" not in options or "held-out" in options:
        raise InputError(f"nothing is held out of the training set {quoted(reference)}: add ',split=0.05'.")
    return f"{reference},held-out"


def packed_digest(reference: str) -> str | None:
    """Return the digest in a reference to a packed set in a store, ``NAME=packed:DIGEST``; None for any other.

    Raises:
        InputError: If what follows ``packed:`` is not the digest of a set.
    """
    _, _, place = reference.partition("=")
    if not place.startswith("packed:"):
        return None
    if not re.fullmatch("[0-9a-f]{64}", digest := place.removeprefix("packed:")):
        raise InputError(
            f"data set {quoted(reference)}: 'packed:' and 64 hexadecimal digits are needed, as 'sgbench submit "
            "--upload-data' writes them; a folder of that name is written NAME=./packed:…"
        )
    return digest


def as_text(value: Any) -> Any:
    """Return a reference as text, in whatever form a file gives it.

    Args:
        value: The text; a list of references, which are the parts of one set, named after them; or a mapping with
            ``name``, ``of`` (a place or a list of them, in which a ``+`` is only that), ``recursive``, ``split`` and
            ``lr`` (true, or a folder for each place). Anything else is returned as it is.

    Raises:
        InputError: If a list or mapping does not describe a set.
    """
    if isinstance(value, Mapping):
        return _of_mapping(value)
    if isinstance(value, list | tuple):
        return _of_list(value)
    return value


def _of_mapping(fields: Mapping[Any, Any]) -> str:
    for key in fields:
        if key not in _KEYS:
            raise unknown("key of a data set", str(key), _KEYS)
    name, recursive, split, lr = (fields.get(key) for key in ("name", "recursive", "split", "lr"))
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise InputError(f"name is {quoted(name)}; a name of letters, digits, '_', '-' and '.' is needed.")
    if not isinstance(recursive, bool | None):
        raise InputError(f"recursive is {quoted(recursive)}; true or false is needed.")
    if split is not None:
        _share(str(split))
    asked = Reference(
        text="",
        name=name,
        places=_texts("of", fields.get("of", ())),
        recursive=bool(recursive),
        split=None if split is None else str(split),
        lr=lr is not None and lr is not False,
        lr_folders=() if isinstance(lr, bool | None) else _texts("lr", lr),
    )
    return _written(asked)


def _texts(key: str, value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(each, str) for each in texts):
        raise InputError(f"{key} is {quoted(value)}; a folder or a list of folders is needed.")
    return tuple(f"./{each}" if each.startswith("+") else each for each in texts)


def _of_list(values: Iterable[Any]) -> str:
    texts = list(values)
    if not texts:
        raise InputError("the list is empty; a data set or its parts are needed.")
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"{quoted(text)} is no part of a data set; NAME or NAME=DIR is needed.")
    if len(texts) == 1:
        return str(texts[0])
    parts = [Reference.read(text) for text in texts]
    for part in parts:
        if part.held_out:
            raise InputError(f"{quoted(part.text)} is what is held out of a set and cannot be a part of another.")
    splits = {part.split for part in parts} - {None}
    if len(splits) > 1:
        one, other = sorted(map(str, splits))[:2]
        raise InputError(f"split is given as {quoted(one)} and as {quoted(other)}; it is one for the whole set.")
    if len({(part.lr, bool(part.lr_folders)) for part in parts}) > 1:
        raise InputError("low-resolution files are given for a part of the images only; give all or none.")
    places: list[str] = []
    for part in parts:
        named = [f"{part.name}={place}" for place in part.places]
        places += part.places if len(part.places) > 1 else named or [part.name]
    asked = Reference(
        text="",
        name="-".join(dict.fromkeys(part.name for part in parts)),
        places=tuple(places),
        recursive=any(part.recursive for part in parts),
        split=next(iter(splits), None),
        lr=parts[0].lr,
        lr_folders=tuple(folder for part in parts for folder in part.lr_folders),
    )
    return _written(asked)


def _written(asked: Reference) -> str:
    """Return the text that `Reference.read` reads as this, apart from the text."""
    text = "=".join(filter(None, (asked.name, _joined(asked.places))))
    text += ",recursive" * asked.recursive + (f",split={asked.split}" if asked.split is not None else "")
    text += ",lr" * asked.lr + f"={_joined(asked.lr_folders)}" * bool(asked.lr_folders)
    if replace(Reference.read(text), text="") != asked:
        raise InputError(f"{quoted(text)} has a path that reads like an option, such as ',lr'; rename or link it.")
    return text


def _joined(places: Iterable[str]) -> str:
    return "+".join(place.replace("+", "++") for place in places)


def _parted(text: str) -> tuple[str, ...]:
    """Return the places that ``+`` separates; ``++`` is a plus."""
    return tuple(place.replace("++", "+") for place in re.findall(r"((?:[^+]|\+\+)*)\+", f"{text}+"))


def _cut(text: str) -> tuple[str, dict[str, str | None]]:
    """Return what precedes the options of a reference, and the options with their values, None for those without.

    They are read from the end, so that a path may have commas.
    """
    pieces = text.split(",")
    options: dict[str, str | None] = {}
    end = len(pieces)
    for at in range(end - 1, 0, -1):
        key, given, value = pieces[at].partition("=")
        if key in options:
            break
        if end == at + 1 and (pieces[at] in ("recursive", "held-out", "lr") or (key == "split" and given)):
            options[key] = value if given else None
        elif key == "lr" and given:
            options[key] = ",".join([value, *pieces[at + 1 : end]])
        else:
            continue
        end = at
    return ",".join(pieces[:end]), options


def _share(text: str) -> Fraction:
    """Return the share of images to be held out, exactly as it is written."""
    if re.fullmatch(r"[0-9]{0,4}\.[0-9]{1,9}|[0-9]{1,9}/0*[1-9][0-9]{0,8}", text) and 0 < Fraction(text) < 1:
        return Fraction(text)
    raise InputError(f"split is {quoted(text)}; a share between 0 and 1 is needed, such as 0.05 or 1/20.")
