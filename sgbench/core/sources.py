"""The code on which a plug-in's numbers depend: its class and all that this refers to, found without running any.

What is hashed are statements, not files. Beginning with the statement that defines a class, each statement adds those
of the same module that bind the names it uses and, where it imports from another module that no package installs,
those of that module. So another class in the same file changes nothing, and neither do comments, docstrings, blank
lines, the layout of the code, or what runs only in a script. Of an installed package, the version and the hashes that
its installer has recorded count; Python's own modules, sgbench, and what every installation of sgbench has do not.
"""

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sgbench.core.modules import find_file, find_module, is_local_spec
from sgbench.core.packages import is_own

DIGITS = 12
"""Hexadecimal digits of a hash of code."""


class Own(NamedTuple):
    """A module that no package installs."""

    text: str
    is_package: bool
    """Whether it is the ``__init__.py`` of a folder."""


class Installed(NamedTuple):
    """What brings a module that is not Python's or sgbench's."""

    version: str
    """The distribution with its version; of a compiled module that no package installs, the hash of its file."""


Find = Callable[[str], Own | Installed | None]
"""Finds a module by its name."""


@dataclass(frozen=True)
class Source:
    """The code behind a plug-in."""

    target: str
    """``module:attribute``."""
    modules: Mapping[str, str]
    """The text of each module of the person's own that a part is taken of, by its path, such as ``mine/losses.py``."""
    packages: Mapping[str, str]
    """`Installed.version` of what is imported from elsewhere, by the name that is imported."""
    digest: str = field(compare=False)
    """The first `DIGITS` of the SHA-256 of all that counts."""

    @classmethod
    def of(cls, target: str, find: Find) -> "Source | None":
        """Trace what the code of a target refers to.

        Args:
            target: ``module:attribute``.
            find: Finds modules.

        Returns:
            The source; None if the module is not found, or is not to be hashed.
        """
        begun, _, attribute = target.partition(":")
        traced = _Trace(find)
        traced.follow(begun, attribute.partition(".")[0])
        if not traced.modules and not traced.packages:
            return None
        counts = {"parts": sorted(traced.parts), "packages": traced.packages}
        digest = hashlib.sha256(json.dumps(counts, sort_keys=True).encode()).hexdigest()[:DIGITS]
        return cls(target, traced.modules, traced.packages, digest)

    @classmethod
    def here(cls, target: str, folders: Sequence[str] = ()) -> "Source | None":
        """Return the code behind a target as it is on this machine now; None if it is in no file.

        Args:
            target: ``module:attribute``.
            folders: Where modules are looked for besides Python's own search path.
        """
        return cls.of(target, functools.cache(lambda name: _here(name, folders)))

    def to_json(self) -> str:
        """Return it as text."""
        return json.dumps({"target": self.target, "modules": self.modules, "packages": self.packages}, indent=1)

    @classmethod
    def from_json(cls, fields: Any) -> "Source":
        """Return what `to_json` has written, its hash computed anew.

        Raises:
            ValueError: If it is something else.
        """
        try:
            modules, packages = dict(fields["modules"]), dict(fields["packages"])
            own = {_name(path): Own(str(text), path.endswith("__init__.py")) for path, text in modules.items()}
            there = {name: Installed(str(version)) for name, version in packages.items()}
            found = cls.of(str(fields["target"]), lambda name: own.get(name) or there.get(name.partition(".")[0]))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"no source of a plug-in: {error!r}") from error
        if found is None:
            raise ValueError("it lacks the code of its target")
        return found


class _Trace:
    """Follows what code refers to.

    Args:
        find: Finds modules.
    """

    def __init__(self, find: Find) -> None:
        self._find = find
        self._read: dict[str, _Statements] = {}
        self.modules: dict[str, str] = {}
        self.packages: dict[str, str] = {}
        self.parts: set[tuple[str, str]] = set()
        """Modules, and the statements that count in them."""

    def follow(self, module: str, name: str) -> None:
        """Add what a name of a module refers to, and all that this refers to."""
        todo, seen = [(module, name)], set[tuple[str, str]]()
        while todo:
            wish = todo.pop()
            if wish not in seen:
                seen.add(wish)
                todo += self._wishes(*wish)

    def _wishes(self, module: str, name: str) -> Iterator[tuple[str, str]]:
        """Add the statements that bind a name of a module, and yield the modules and names that they use."""
        found = self._find(module)
        if isinstance(found, Installed):
            self.packages[module.partition(".")[0]] = found.version
        if not isinstance(found, Own):
            return
        if module not in self._read:
            self._read[module] = _Statements(module, found)
            self.modules[_path(module, found)] = found.text
            parts = module.split(".")
            yield from ((".".join(parts[:end]), _NO_NAME) for end in range(1, len(parts)))  # which Python runs first
        read = self._read[module]
        if name not in (*read.bound, _NO_NAME) and self._find(f"{module}.{name}") is None:
            name = _EVERY_NAME
        for part in read.binding(name):
            self.parts.add((module, part.text))
            yield from ((module, each) for each in part.names & read.bound.keys())
            if part.names & _DYNAMIC:
                yield module, _EVERY_NAME
            yield from part.imports


_NO_NAME, _EVERY_NAME = "", "*"

_DYNAMIC = {"globals", "eval", "exec"}
"""What may use any name of a module without writing it."""


class _Part(NamedTuple):
    """A statement, in a form that only its meaning changes."""

    text: str
    names: frozenset[str]
    """Names that it uses."""
    imports: tuple[tuple[str, str], ...]
    """Modules and their names that it imports, some of which do not exist."""


class _Statements:
    """The statements of a module, by the names that they bind.

    Args:
        module: Its name.
        own: Its text; one that is no Python is a statement as a whole.
    """

    def __init__(self, module: str, own: Own) -> None:
        self._package = module if own.is_package else module.rpartition(".")[0]
        self.bound: dict[str, list[_Part]] = {}
        self._always: list[_Part] = []
        """Statements that do more than bind names, such as calls and conditions."""
        try:
            for statement in ast.parse(own.text).body:
                self._add(statement)
        except (SyntaxError, ValueError, RecursionError):
            self.bound, self._always = {}, [_Part(own.text, frozenset(), ())]

    def binding(self, name: str) -> list[_Part]:
        """Return the statements on which a name depends directly, `_EVERY_NAME` or `_NO_NAME`."""
        if name == _EVERY_NAME:
            return [*self._always, *(part for parts in self.bound.values() for part in parts)]
        return [*self._always, *self.bound.get(name, ())]

    def _add(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for alias in statement.names:
                alone: ast.stmt = (
                    ast.Import([alias])
                    if isinstance(statement, ast.Import)
                    else ast.ImportFrom(statement.module, [alias], statement.level)
                )
                name = alias.asname or alias.name.partition(".")[0]
                self._bind(alone, [] if name == "*" else [name])
        elif not (_does_nothing(statement) or _is_script(statement)):
            self._bind(statement, _bound_by(statement))

    def _bind(self, statement: ast.stmt, names: list[str]) -> None:
        used = frozenset(node.id for node in ast.walk(statement) if isinstance(node, ast.Name))
        part = _Part(json.dumps(_meaning(statement)), used, tuple(self._imported(statement)))
        for parts in [self.bound.setdefault(name, []) for name in names] or [self._always]:
            parts.append(part)

    def _imported(self, statement: ast.stmt) -> Iterator[tuple[str, str]]:
        for node in ast.walk(statement):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.name, _EVERY_NAME
                    if alias.asname is None:
                        yield alias.name.partition(".")[0], _EVERY_NAME
            elif isinstance(node, ast.ImportFrom):
                around = self._package.split(".")[: -(node.level - 1) or None] if node.level else []
                begun = ".".join([*around, *filter(None, [node.module])])
                for alias in node.names:
                    yield begun, alias.name
                    yield f"{begun}.{alias.name}", _EVERY_NAME


def _does_nothing(statement: ast.stmt) -> bool:
    """Return whether it is a docstring or the like."""
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def _is_script(statement: ast.stmt) -> bool:
    """Return whether it is ``if __name__ == "__main__":``."""
    return isinstance(statement, ast.If) and not statement.orelse and ast.unparse(statement.test) in _AS_SCRIPT


_AS_SCRIPT = ("__name__ == '__main__'", "'__main__' == __name__")


def _bound_by(statement: ast.stmt) -> list[str]:
    """Return the names that a statement binds if it does nothing else."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    targets: list[ast.expr]
    if isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    elif isinstance(statement, ast.Assign):
        targets = [each for one in statement.targets for each in (one.elts if isinstance(one, ast.Tuple) else [one])]
    else:
        return []
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    return names if len(names) == len(targets) else []


_WITHOUT_MEANING = ("ctx", "kind", "type_comment")


def _meaning(node: Any) -> Any:
    """Return a part of a syntax tree as plain data that is the same in every version of Python."""
    if isinstance(node, list):
        return [_meaning(each) for each in node if not (isinstance(each, ast.stmt) and _does_nothing(each))]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {key: value for key, value in ast.iter_fields(node) if key not in _WITHOUT_MEANING}
    there = {key: _meaning(value) for key, value in fields.items() if isinstance(node, ast.Constant) or value}
    return [type(node).__name__, {key: value for key, value in there.items() if value != []}]


def written_options(target: str, folders: Sequence[str] = ()) -> dict[str, Any]:
    """Return the options with which a module makes an object, as far as they are literals; nothing is imported.

    Args:
        target: ``module:attribute``, such as that of ``net = metric(digits=2)(Net())`` or of a function below
            ``@metric(digits=2)``.
        folders: Where modules are looked for besides Python's own search path.
    """
    module, _, attribute = target.partition(":")
    with contextlib.suppress(OSError, SyntaxError, ValueError, RecursionError):
        if path := find_file(module, [*sys.path, *folders]):
            return _options_in(path, path.stat().st_mtime_ns).get(attribute, {})
    return {}


@functools.lru_cache(maxsize=64)
def _options_in(path: Path, changed: int) -> dict[str, dict[str, Any]]:
    """Return the literal options of calls in a file by the names that these bind, as of a time of its last change."""
    found: dict[str, dict[str, Any]] = {}
    for statement in ast.parse(importlib.util.decode_source(path.read_bytes())).body:
        calls = getattr(statement, "decorator_list", [getattr(statement, "value", None)])
        for name in _bound_by(statement):
            found[name] = {key: value for call in calls for key, value in _literals(call)}
    return found


def _literals(call: ast.expr | None) -> Iterator[tuple[str, Any]]:
    while isinstance(call, ast.Call):
        for keyword in call.keywords:
            if keyword.arg and isinstance(keyword.value, ast.Constant):
                yield keyword.arg, keyword.value.value
        call = call.func


def _path(module: str, own: Own) -> str:
    return f"{module.replace('.', '/')}{'/__init__' if own.is_package else ''}.py"


def _name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _here(name: str, folders: Sequence[str]) -> Own | Installed | None:
    """Find a module on this machine, without importing it."""
    if name == "__main__":
        return _main()
    spec = find_module(name, folders)
    if spec is None:
        return None
    if not is_local_spec(spec):
        return _installed(name.partition(".")[0])
    if not spec.origin or not spec.has_location:  # a folder without __init__.py
        return None
    path = Path(spec.origin)
    try:
        content = path.read_bytes()
        if path.suffix == ".py":
            return Own(importlib.util.decode_source(content), spec.submodule_search_locations is not None)
    except (OSError, SyntaxError, ValueError):
        return None
    return Installed(hashlib.sha256(content).hexdigest()[:DIGITS])


def _main() -> Own | None:
    """Return the script that runs, or all cells that a notebook has run, of which the last to bind a name counts."""
    main = sys.modules["__main__"]
    try:
        if file := getattr(main, "__file__", None):
            return Own(importlib.util.decode_source(Path(file).read_bytes()), False)
    except (OSError, SyntaxError, ValueError):
        return None
    last: dict[str, str] = {}
    for cell in vars(main).get("In", ()):
        try:
            statements = ast.parse(cell).body
        except (SyntaxError, ValueError, RecursionError):  # such as one of IPython's own commands
            continue
        for statement in statements:
            names = _bound_by(statement)
            if isinstance(statement, ast.Import | ast.ImportFrom):
                names = [alias.asname or alias.name for alias in statement.names]
            for bound in names:
                last[bound] = ast.get_source_segment(cell, statement) or ""
    return Own("\n".join(dict.fromkeys(last.values())) + "\n", False) if last else None


@functools.cache
def _installed(name: str) -> Installed | None:
    """Return the distribution that installs a module; None for what every installation of sgbench has."""
    if name in sys.stdlib_module_names or is_own(name):
        return None
    providers = set(importlib.metadata.packages_distributions().get(name, ()))
    if len(providers) != 1 or any(map(is_own, providers)):
        return None
    distribution = importlib.metadata.distribution(providers.pop())
    recorded = (distribution.read_text("RECORD") or "").splitlines()
    files = sorted(line for line in recorded if line.partition(",")[0].endswith(".py") and not line.startswith(".."))
    digest = hashlib.sha256("\n".join(files).encode()).hexdigest()[:DIGITS]
    return Installed(f"{distribution.name} {distribution.version} ({digest})")
