"""Installed packages: what requires what, and which of them can be sent to machines that lack them.

A package is sent as the files that its installer has recorded, among them its metadata, so that it is installed there
for whoever asks Python: it can be imported, and has its version, its data files and its entry points. Compiled files
are for one kind of machine, so a package that has some is never sent. Of a package in editable mode only metadata is
recorded; its modules count as a person's own, see `sgbench.core.modules`.
"""

import contextlib
import functools
import importlib.metadata
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path, PurePath

from packaging.requirements import InvalidRequirement, Requirement

from sgbench.core.errors import InputError
from sgbench.core.words import quoted

LIMIT = 100 * 2**20
"""Most bytes of packages that are sent."""

FOLDER = "packages"
"""Folder of a working folder that holds them."""

COMPILED = re.compile(r"\.(so|pyd|dll|dylib|a|lib)(\.[\d.]+)?$")
"""How the names of compiled files end."""

NOT_SENT = {"__pycache__", ".gitignore", ".rayignore"}
"""Parts of the paths of files that are not sent: Ray takes the last two for what it is not to send either."""


@dataclass(frozen=True)
class Package:
    """An installed package that can be sent."""

    name: str
    version: str
    folder: Path
    """Where it is installed."""
    files: tuple[PurePath, ...]
    """In that folder."""

    @classmethod
    def of(cls, distribution: Distribution) -> "Package":
        """Return a package without what is outside of its folder, such as commands, or has been deleted."""
        folder, files = Path(str(distribution.locate_file(""))), map(PurePath, distribution.files or ())
        inside = [file for file in files if not (file.is_absolute() or {"..", *NOT_SENT} & {*file.parts})]
        there = tuple(file for file in inside if (folder / file).is_file())
        return cls(distribution.name, distribution.version, folder, there)

    @property
    def size(self) -> int:
        """In bytes."""
        return sum((self.folder / file).stat().st_size for file in self.files)

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def to_send(requirements: Sequence[str], field: str, *, cluster: bool = True) -> tuple[Package, ...]:
    """Return some installed packages and what they require, by name.

    Of what they require, that is left out which every installation of sgbench has, which is not installed here, and
    what cannot be sent, which other machines must have; see `needed`.

    Args:
        requirements: Names of packages, with extras and versions if need be: ``piq``, ``piq[extra]>=0.8``.
        field: Where they come from; messages begin with it.
        cluster: Whether there is one to send them to.

    Raises:
        InputError: If there is none, a package is not installed here, is of another version or cannot be sent, or they
            are too large together.
    """
    if requirements and not cluster:
        where = "but there is no cluster to send it to; give the address of one"
        raise InputError(f"{field} is {quoted(requirements[0])}, {where}.")
    asked = [_asked(text, field) for text in requirements]
    named = {_normal(requirement.name) for requirement in asked}
    found = _closure(asked, _own() - named) if asked else {}
    for name in sorted(named):
        if why := obstacle(name):
            raise InputError(
                f"{field}: package {quoted(name)} cannot be sent, because {why}; install version "
                f"{found[name].version} on every node."
            )
    packages = tuple(Package.of(found[name]) for name in sorted(found) if obstacle(name) is None)
    if (total := sum(package.size for package in packages)) > LIMIT:
        largest = max(packages, key=lambda package: package.size)
        raise InputError(
            f"{field}: {', '.join(map(str, packages))[:120]} would be {total / 2**20:.0f} MiB to send, and "
            f"{LIMIT / 2**20:g} MiB is the most; install the largest, {largest}, on every node."
        )
    return packages


def put(packages: Iterable[Package], folder: Path) -> dict[str, str]:
    """Copy packages into a working folder.

    Returns:
        The variables with which processes that start there import them, in preference to other versions of them.
    """
    packages = list(packages)
    for package in packages:
        for file in package.files:
            target = folder / FOLDER / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(package.folder / file, target)
    return {"PYTHONPATH": FOLDER} if packages else {}


def obstacle(name: str) -> str | None:
    """Return why an installed package cannot be sent; None if it can be, or is not installed."""
    distribution = _installed(name)
    if distribution is None:
        return None
    tags = re.findall(r"^Tag: *(\S+)", distribution.read_text("WHEEL") or "", re.MULTILINE)
    if not all(tag.endswith("-any") for tag in tags):
        return "it has compiled files"
    if (files := distribution.files) is None:
        return "nothing records which files it has"
    return "it has compiled files" if any(COMPILED.search(file.name) for file in files) else None


def needed(names: Iterable[str]) -> set[str]:
    """Return some installed packages and, of what they require, what this process has loaded.

    What every installation of sgbench has is left out of the latter.
    """
    given = set(names)
    found = _closure([Requirement(name) for name in given], _own() if given else set())
    return given | {found[name].name for name in found if _is_loaded(found[name])}


def is_own(name: str) -> bool:
    """Return whether sgbench itself is or requires a package, so that every installation of it has that."""
    return _normal(name) in {"sgbench", *(_normal(each.name) for each in _requirements("sgbench"))}


def _asked(text: str, field: str) -> Requirement:
    """Return what a person asks for.

    Raises:
        InputError: If it is no requirement that an installed package satisfies.
    """
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise InputError(f"{field} is {quoted(text)}; the name of an installed package is needed.") from error
    distribution = _installed(requirement.name)
    if distribution is None:
        brings = importlib.metadata.packages_distributions().get(requirement.name)
        hint = f"; its package is called {brings[0]}" if brings else f"; 'pip install {requirement.name}' installs it"
        raise InputError(f"{field}: package {quoted(requirement.name)} is not installed on this machine{hint}.")
    if not requirement.specifier.contains(distribution.version, prereleases=True):
        raise InputError(
            f"{field} is {quoted(text)}, and version {distribution.version} is installed on this machine, which is "
            "the one that would be sent."
        )
    return requirement


def _closure(requirements: Iterable[Requirement], without: Iterable[str]) -> dict[str, Distribution]:
    """Return the installed packages that satisfy requirements, and theirs in turn, by normalized name."""
    found: dict[str, Distribution] = {}
    seen, todo, without = set[tuple[str, frozenset[str]]](), list(requirements), set(without)
    while todo:
        requirement = todo.pop()
        name, extras = _normal(requirement.name), frozenset(requirement.extras)
        if name in without or (name, extras) in seen or (distribution := _installed(name)) is None:
            continue
        seen.add((name, extras))
        found[name] = distribution
        todo += _requirements(name, extras)
    return found


def _requirements(name: str, extras: Iterable[str] = ()) -> Iterator[Requirement]:
    """Yield what an installed package requires in this environment."""
    distribution = _installed(name)
    for text in (distribution.requires if distribution else None) or ():
        with contextlib.suppress(InvalidRequirement):  # of an old package; pip refuses new ones
            requirement, marker = (parsed := Requirement(text)), parsed.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                yield requirement


@functools.cache
def _own() -> frozenset[str]:
    """Return sgbench and all that it requires, which every installation of it has."""
    return frozenset(_closure([Requirement("sgbench")], ()))


def _is_loaded(distribution: Distribution) -> bool:
    files = map(PurePath, distribution.files or ())
    modules = (".".join((*file.parts[:-1], file.name.partition(".")[0])) for file in files)
    return any(module.removesuffix(".__init__") in sys.modules for module in modules)


def _installed(name: str) -> Distribution | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):
        return importlib.metadata.distribution(name)
    return None


def _normal(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()
