"""Modules that no package installs: which of them a plug-in needs, and how another machine imports them.

A loss in a file beside the person is such a module, and so is whatever it imports from there. Python files are all that
is ever collected; a package that pip has installed is only named, so that other machines can be asked for it.
"""

import ast
import contextlib
import functools
import hashlib
import importlib.machinery
import importlib.metadata
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from sgbench.core.errors import InputError
from sgbench.core.files import cache_folder, replacing
from sgbench.core.packages import is_own, needed
from sgbench.core.words import plural, quoted

LIMIT = 5 * 2**20
"""Most bytes of modules that are sent."""


@dataclass(frozen=True)
class Module:
    """A Python file that can be imported on another machine."""

    name: str
    """By which it is imported, such as ``mine.losses``."""
    path: str
    """Where it is on this machine."""
    content: bytes
    is_package: bool
    """Whether it is the ``__init__.py`` of a folder."""

    @property
    def file(self) -> str:
        """Its path in a folder from which it can be imported."""
        return f"{self.name.replace('.', '/')}{'/__init__' if self.is_package else ''}.py"


@dataclass(frozen=True)
class Code:
    """What some plug-ins need."""

    modules: tuple[Module, ...] = ()
    """Modules of the person's own, by name."""
    packages: tuple[str, ...] = ()
    """Installed distributions that sgbench does not bring, by name, with what they require and this process uses."""


def collect(names: Iterable[str], packages: Iterable[str] = ()) -> Code:
    """Return what some modules need: those among them, and among all that they import, that no package installs.

    Imports are read from the source, including those inside functions; of a package, whatever this process has loaded
    counts too. Nothing is imported for that.

    Args:
        names: Modules, by name; one that does not exist is left out.
        packages: Distributions that are needed in any case.

    Raises:
        InputError: If a module is not a Python file, or they are too large together.
    """
    modules: dict[str, Module] = {}
    installed, seen, todo = set[str](), set[str](), list(names)
    while todo:
        name = todo.pop()
        if name in seen or name in ("", "__main__"):
            continue
        seen.add(name)
        parent, _, _ = name.rpartition(".")
        todo.append(parent)
        if (spec := find_module(name)) is None:
            continue
        if not is_local_spec(spec):
            installed |= {name.partition(".")[0]} & sys.modules.keys()
            continue
        is_package = spec.submodule_search_locations is not None
        if spec.origin is None:  # a folder without __init__.py
            continue
        modules[name] = module = _read(name, spec.origin, is_package)
        todo += _imports(module, name if is_package else parent)
        if is_package:
            todo += [loaded for loaded in sys.modules if loaded.startswith(f"{name}.")]
    _refuse_large(modules.values())
    ordered = tuple(modules[name] for name in sorted(modules))
    return Code(ordered, tuple(sorted(needed({*_distributions(installed), *packages}))))


def is_local(name: str) -> bool:
    """Return whether a loaded module is neither Python's nor sgbench's, and no package installs it."""
    spec = find_module(name) if name in sys.modules else None
    return spec is not None and is_local_spec(spec)


def install(modules: Sequence[Module]) -> None:
    """Let this process import modules of another machine.

    Where all of them are at the same paths with the same content, as on a shared disk, they are imported from there, so
    that they find other files beside them; otherwise from a folder in the cache, which their content names. Nothing
    else can be imported from there that could not before.
    """
    if modules:
        paths = {module.name: Path(module.path) for module in modules}
        if not all(_is_at(module, paths[module.name]) for module in modules):
            folder = _received(modules)
            paths = {module.name: folder / module.file for module in modules}
        sys.meta_path.insert(0, _Finder(paths))


class _Finder:
    """Finds modules at given paths, and the folders without ``__init__.py`` that hold them."""

    def __init__(self, paths: dict[str, Path]) -> None:
        self._paths = paths
        self._folders: dict[str, list[str]] = {}
        for name, path in paths.items():
            folder = path.parent.parent if path.name == "__init__.py" else path.parent
            while (name := name.rpartition(".")[0]) and name not in paths:
                self._folders.setdefault(name, []).append(str(folder))
                folder = folder.parent

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return where a module is; see `importlib.abc.MetaPathFinder`."""
        if found := self._paths.get(name):
            folders = [str(found.parent)] if found.name == "__init__.py" else None
            return importlib.util.spec_from_file_location(name, found, submodule_search_locations=folders)
        if name not in self._folders:
            return None
        there = _in_folders(name, sys.path if path is None else path)
        others = there.submodule_search_locations if there and there.loader is None else None
        return _namespace(name, [*self._folders[name], *(others or ())])


def find_module(name: str, folders: Iterable[str] = ()) -> importlib.machinery.ModuleSpec | None:
    """Return how a module is imported, without importing anything.

    Args:
        name: The module, which need not exist.
        folders: Where it is looked for besides Python's own search path.
    """
    if name in sys.modules:
        return getattr(sys.modules[name], "__spec__", None)
    parent, _, _ = name.rpartition(".")
    with contextlib.suppress(ImportError, ValueError, AttributeError):
        if not parent:
            return importlib.util.find_spec(name) or _in_folders(name, folders)
        around = find_module(parent, folders)
        if around is not None and around.submodule_search_locations is not None:
            return _in_folders(name, around.submodule_search_locations)
    return None


def find_file(name: str, folders: Iterable[str]) -> Path | None:
    """Return the Python file of a module in some folders; Python's finders of modules are not asked."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        around = _in_folders(".".join(parts[:end]), folders)
        folders = (around.submodule_search_locations if around else None) or ()
    spec = _in_folders(name, folders)
    path = Path(spec.origin) if spec and spec.origin and spec.has_location else None
    return path if path and path.suffix == ".py" else None


_LOADERS = (
    (importlib.machinery.SourceFileLoader, importlib.machinery.SOURCE_SUFFIXES),
    (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
)


def _in_folders(name: str, folders: Iterable[str]) -> importlib.machinery.ModuleSpec | None:
    """Return how a module in some folders is imported; unlike Python's own search it needs no parent to be imported."""
    portions: list[str] = []
    for folder in folders:
        spec = importlib.machinery.FileFinder(folder, *_LOADERS).find_spec(name)
        if spec is not None and spec.loader is not None:
            return spec
        if spec is not None:
            portions += spec.submodule_search_locations or ()
    return _namespace(name, portions) if portions else None


def _namespace(name: str, folders: Iterable[str]) -> importlib.machinery.ModuleSpec:
    spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = list(dict.fromkeys(folders))
    return spec


def is_local_spec(spec: importlib.machinery.ModuleSpec) -> bool:
    """Return whether a module is neither Python's nor sgbench's, and no package installs it."""
    if spec.name.partition(".")[0] == "sgbench" or not (spec.has_location or spec.submodule_search_locations):
        return False
    places = [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or ())
    installed = _folders_of_packages(tuple(sys.path))
    return not all(any(Path(place).absolute().is_relative_to(folder) for folder in installed) for place in places)


@functools.cache
def _folders_of_packages(search_path: tuple[str, ...]) -> set[Path]:
    """Return the folders of Python itself and those into which packages are installed."""
    own = [sysconfig.get_path(each) for each in ("stdlib", "platstdlib", "purelib", "platlib")]
    found = {Path(each) for each in (*own, *site.getsitepackages(), site.getusersitepackages())}
    for each in map(Path, filter(None, search_path)):
        if each.suffix == ".zip" or next(each.glob("*.dist-info/RECORD"), None):
            found.add(each.absolute())
    return found | {each.resolve() for each in found}


def _read(name: str, origin: str, is_package: bool) -> Module:
    path = Path(origin).absolute()
    if path.suffix != ".py" or not path.is_file():
        raise InputError(
            f"module {quoted(name)} in {quoted(str(path))} is not a Python file and cannot be sent to other machines; "
            "install it as a package on all of them."
        )
    return Module(name, str(path), path.read_bytes(), is_package)


def _imports(module: Module, package: str) -> Iterator[str]:
    """Yield the names that a module imports, among them some that are no modules.

    Args:
        module: The module.
        package: The package that relative imports begin at.
    """
    try:
        tree = ast.parse(module.content)
    except (SyntaxError, ValueError, RecursionError):  # it is never imported
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            begun = node.module or ""
            if node.level:
                levels = package.split(".")
                if not package or node.level > len(levels):
                    continue
                begun = ".".join([*levels[: len(levels) - node.level + 1], *filter(None, [begun])])
            yield begun
            yield from (f"{begun}.{each.name}" for each in node.names)


def _refuse_large(modules: Iterable[Module]) -> None:
    sizes = {module.name: len(module.content) for module in modules}
    if (total := sum(sizes.values())) > LIMIT:
        largest = max(sizes, key=sizes.__getitem__)
        raise InputError(
            f"{plural(len(sizes), 'module')} of {total / 2**20:.1f} MiB would have to be sent to other machines, and "
            f"{LIMIT / 2**20:g} MiB is the most (the largest is {quoted(largest)}); install them as a package on all."
        )


def _distributions(names: set[str]) -> set[str]:
    """Return the distributions of installed packages, without those that every installation of sgbench has."""
    if not names:
        return set()
    providers = importlib.metadata.packages_distributions()
    found = {next(iter(set(providers[name]))) for name in names if len(set(providers.get(name, ()))) == 1}
    return {name for name in found if not is_own(name)}


def _is_at(module: Module, path: Path) -> bool:
    try:
        return path.read_bytes() == module.content
    except OSError:
        return False


def _received(modules: Sequence[Module]) -> Path:
    """Return the folder of this machine's cache that holds modules, written if need be."""
    key = hashlib.sha256()
    for module in modules:
        key.update(f"{module.file} {len(module.content)} ".encode() + module.content)
    folder = cache_folder() / f"code-{key.hexdigest()[:16]}"
    for module in modules:
        path = folder / module.file
        if not _is_at(module, path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as part:
                part.write_bytes(module.content)
    return folder
