"""Flags that several commands share, and how their values are read."""

import contextlib
import dataclasses
import functools
import inspect
import itertools
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from sgbench.core.errors import InputError, unknown
from sgbench.core.streams import nothing_on_stdout
from sgbench.core.words import printable, quoted, shortened

if TYPE_CHECKING:
    from sgbench.core.storage import Storage
    from sgbench.runs.plan import Choices
    from sgbench.spec import SweepSpec

T = TypeVar("T")

REFERENCE = "NAME[=DIR][,lr[=DIR]]"
"""How a data set is written; see `sgbench.data.resolve`."""

TRAINING = "NAME[=DIR[+DIR]][,OPTION]"
"""How a training set is written, if it may have several parts; see `sgbench.spec.reference`."""


def _scale(value: int) -> int:
    if value not in (2, 3, 4):
        raise InputError(f"--scale is {value}; valid: 2, 3, 4.")
    return value


FLAGS = {
    "backbones": "--backbone",
    "losses": "--loss",
    "lambdas": "--lambda",
    "seeds": "--seeds",
    "train": "--train",
    "tests": "--test",
    "metrics": "--metric",
    "settings": "--set",
    "questions": "--until-decided",
    "max_seeds": "--max-seeds",
}
"""The flag for each field of `sgbench.runs.plan.Choices`."""

_DECIDING = ("questions", "max_seeds")

Results = Annotated[
    str | None,
    typer.Option("--results", metavar="DIR", help="Results store, a folder or URI. Default: the only one in results/."),
]
Backbones = Annotated[
    list[str] | None, typer.Option("--backbone", metavar="NAME", help="edsr-tiny, edsr-light, … (repeatable).")
]
Losses = Annotated[
    list[str] | None, typer.Option("--loss", metavar="EXPR", help="'l1 + 0.1*sg', …, or a label (repeatable).")
]
OnlySeeds = Annotated[str | None, typer.Option("--seeds", metavar="0-4,7", help="Only these seeds.")]
Tests = Annotated[list[str] | None, typer.Option("--test", metavar=REFERENCE, help="A test set (repeatable).")]
Metrics = Annotated[list[str] | None, typer.Option("--metric", metavar="NAME", help="lpips_alex, fid, … (repeatable).")]
DefaultMetrics = Annotated[
    list[str] | None,
    typer.Option("--metric", metavar="NAME", help="Default: lpips_alex, or all if there is none (repeatable)."),
]
Alpha = Annotated[
    float, typer.Option("--alpha", metavar="0.05", help="Significance level: probability of any false positive.")
]
Anytime = Annotated[
    bool, typer.Option("--anytime", help="Use tests that hold however often you look and add seeds, even undeclared.")
]
G = Annotated[
    float | None,
    typer.Option("--g", metavar="4", help="With --anytime: expect effects of √g standard deviations of the seeds."),
]
Equivalent = Annotated[
    float | None,
    typer.Option("--equivalent", metavar="MARGIN", help="Ask whether they differ by less, in the unit of --metric."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
Scale = Annotated[int, typer.Option("--scale", metavar="2|3|4", help="Super-resolution factor.", callback=_scale)]
Address = Annotated[
    str | None, typer.Option("--address", metavar="HOST:PORT", help="Ray cluster to join. Default: start Ray here.")
]
With = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar="PACKAGE",
        help="Send an installed package, and what it requires, to every node of the cluster (repeatable).",
    ),
]
Shard = Annotated[
    str | None, typer.Option("--shard", metavar="I/N", help="Do the I-th of N parts of the sweep, in this process.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Fetch = Annotated[
    bool | None,
    typer.Option(
        "--fetch/--no-fetch",
        help="Download known data sets that are not available locally. Default: only with --address.",
    ),
]
Retry = Annotated[bool, typer.Option("--retry", help="Repeat failed runs and scores.")]
Retrain = Annotated[
    bool, typer.Option("--retrain", help="Retrain finished runs that lack scores and have no final weights.")
]
Rerun = Annotated[bool, typer.Option("--rerun", help="Repeat everything, including finished runs.")]
RerunStale = Annotated[bool, typer.Option("--rerun-stale", help="Repeat runs of plug-ins whose code has changed.")]
KeepStale = Annotated[bool, typer.Option("--keep-stale", help="Take such runs as they are, and mark them.")]
Dashboard = Annotated[
    str | None,
    typer.Option("--address", metavar="URL", help="Ray dashboard of the cluster. Default: http://127.0.0.1:8265."),
]
Job = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job, as 'sgbench submit' prints it.")]


@dataclass(frozen=True)
class Asked:
    """A sweep as given on the command line."""

    what: str
    """A preset or file."""
    choices: "Choices"
    """Changes to it."""
    results: str | None
    """Its results store, as the person wrote it."""
    flags: str = ""
    """The flags that were given, except for where it runs and where its results go."""

    @functools.cached_property
    def _read(self) -> "tuple[str, SweepSpec]":
        from sgbench.runs.plan import read_sweep

        return read_sweep(self.what, self.choices, FLAGS)

    @property
    def name(self) -> str:
        """Its name."""
        return self._read[0]

    @property
    def sweep(self) -> "SweepSpec":
        """Its specification, read when it is first asked for."""
        return self._read[1]

    @functools.cached_property
    def storage(self) -> "Storage":
        """Its results store, opened."""
        return store_of(self.results, self.name)


def store_of(results: str | None, name: str) -> "Storage":
    """Return the results store of a sweep, opened.

    Args:
        results: The store as a person wrote it, if they did.
        name: The sweep's name.
    """
    from sgbench.core.storage import Storage, absolute

    return Storage(absolute(results or f"results/{name}"))


def format_of(form: str | None, forms: list[str], *, as_json: bool) -> str:
    """Return the format that --format and --json ask for, by default the first.

    Raises:
        InputError: If they contradict each other, or there is no such format.
    """
    if as_json and form not in (None, "json"):
        raise InputError(f"--json and --format {form} contradict each other; leave one out.")
    if form is not None and form not in forms:
        raise unknown("format", form, forms)
    return "json" if as_json else form or forms[0]


def of_sweep(command: Callable[..., None], *, decides: bool = True, reads: bool = True) -> Callable[..., None]:
    """Give a command the flags that define a sweep.

    Args:
        command: Its first parameter is an `Asked`; the others become its own flags, after the shared ones.
        decides: Whether it can be asked to decide questions.
        reads: Whether the sweep is read before the command is called.
    """
    shared = {
        name: parameter
        for name, parameter in inspect.signature(_asked).parameters.items()
        if decides or name not in _DECIDING
    }
    own = list(inspect.signature(command).parameters.values())[1:]
    parameters = [*shared.values(), *own]

    def run(**values: Any) -> None:
        flags = _flags(parameters, values)
        with reading(values["what"]):
            asked = dataclasses.replace(_asked(**{name: values.pop(name) for name in shared}), flags=flags)
            _ = asked.sweep if reads else None
        command(asked, **values)

    run.__doc__ = command.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # typer reads the flags from here
    return run


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Say on a terminal what takes the next seconds, in which torch is imported, and let nothing print to stdout."""
    with nothing_on_stdout(), _saying(f"reading {what}…"):
        yield


@contextlib.contextmanager
def _saying(what: str) -> Iterator[None]:
    """Say what takes the next seconds on a terminal and until they are over."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True, force_jupyter=False).status(Text(printable(what))):
        yield


def _flags(parameters: Iterable[inspect.Parameter], values: Mapping[str, Any]) -> str:
    """Return the flags that a person gave, as they could be typed; see `Asked.flags`."""
    words: list[str] = []
    for parameter in parameters:
        value, kept = values[parameter.name], parameter.name not in ("results", "address", "as_json")
        for option in parameter.annotation.__metadata__ if value and kept else ():
            flag = str(option.default)  # where typer has the name of an annotated option
            if flag.startswith("--"):
                words += [flag] if value is True else itertools.chain(*((flag, str(each)) for each in _listed(value)))
    return shlex.join(words)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _asked(
    what: Annotated[str, typer.Argument(metavar="[WHAT]", help="A preset or a YAML sweep file.")] = "quick",
    results: Annotated[
        str | None,
        typer.Option("--results", metavar="DIR", help="Results store, a folder or URI. Default: results/<sweep>."),
    ] = None,
    backbone: Backbones = None,
    loss: Annotated[
        list[str] | None,
        typer.Option(
            "--loss",
            metavar="[LABEL=]EXPR",
            help="'l1 + 0.1*sg', 'ours=l1 + mine:Loss', … (repeatable); the preset's λ do not apply to it.",
        ),
    ] = None,
    lam: Annotated[
        str | None,
        typer.Option(
            "--lambda",
            metavar="[TERM=]0,0.1,1",
            help="For λ in 'l1 + λ*ssim', or for the coefficient of sg, or TERM.",
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="0-4,7", help="Seeds; the paper's trial k is seed k-1.")
    ] = None,
    train: Annotated[
        list[str] | None,
        typer.Option(
            "--train",
            metavar=TRAINING,
            help="Training images; repeated, the parts of one set. Options: recursive, split, lr.",
        ),
    ] = None,
    test: Tests = None,
    metric: Metrics = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=VALUE", help="Any field of the sweep: recipe.steps=500 (repeatable)."),
    ] = None,
    questions: Annotated[
        list[str] | None,
        typer.Option(
            "--until-decided",
            metavar="QUESTION",
            help="Add seeds until a question such as 'l1 vs ours on lpips_alex' is decided (repeatable).",
        ),
    ] = None,
    max_seeds: Annotated[
        int | None, typer.Option("--max-seeds", metavar="20", help="The most seeds for --until-decided.")
    ] = None,
) -> Asked:
    """Return the sweep that the shared flags define; its parameters are these flags."""
    from sgbench.runs.plan import Choices

    choices = Choices(
        settings=_settings(settings or ()),
        backbones=backbone or (),
        losses=loss or (),
        lambdas=_lambdas(lam),
        seeds=read_seeds(seeds),
        train=train or None,
        tests=test or (),
        metrics=metric or (),
        questions=questions or (),
        max_seeds=max_seeds,
    )
    return Asked(what, choices, results)


def _settings(assignments: Sequence[str]) -> dict[str, Any]:
    """Read the values of ``--set``.

    Raises:
        InputError: If one is malformed, or a field is set twice.
    """
    from sgbench.spec import read_setting

    settings: dict[str, Any] = {}
    for assignment in assignments:
        path, value = read_setting(assignment)
        if path in settings:
            raise InputError(
                f"--set {shortened(path)} is given twice, as {quoted(settings[path])} and {quoted(value)}."
            )
        settings[path] = value
    return settings


def _lambdas(text: str | None) -> "Sequence[float] | Mapping[str, Sequence[float]]":
    """Read ``0,0.1,1`` or ``ssim=0,0.1,1``."""
    from sgbench.spec.expression import number

    term, equals, values = (text or "").rpartition("=")
    found = numbers("--lambda", values if equals else text, number)
    return {term: found} if equals else found


def find_store(results: str | None) -> str:
    """Return the store that ``--results`` names, by default the only one in the folder ``results``.

    Raises:
        InputError: If that folder has none, or more than one.
    """
    from sgbench.core.storage import absolute
    from sgbench.store.layout import SIGNS

    if results:
        return absolute(results)
    stores = sorted({str(path.parent) for sign in SIGNS for path in Path("results").glob(f"*/{sign}")})
    if len(stores) != 1:
        there = (
            f"several stores: {', '.join(stores)}; name one with --results"
            if stores
            else "no store; 'sgbench sweep quick' makes one"
        )
        raise InputError(f"--results is not given, and the folder 'results' has {there}.")
    return absolute(stores[0])


def numbers(flag: str, text: str | None, kind: Callable[[str], T]) -> list[T]:
    """Read a list such as ``0,0.1,1``.

    Raises:
        InputError: If a part is not a number of that kind.
    """
    try:
        return [kind(part) for part in text.split(",")] if text is not None else []
    except InputError as error:
        raise InputError(f"{flag}: {error}") from error
    except ValueError as error:
        raise InputError(f"{flag} is {quoted(text)}; a list of numbers such as 0,0.1,1 is needed.") from error


def read_seeds(text: str | None) -> list[int]:
    """Read the seeds of ``--seeds``, such as ``0-4,7``; none if it is not given.

    Raises:
        InputError: If a part is neither a number nor a range.
    """
    from sgbench.spec import text as spec

    try:
        return spec.read_seeds(text) if text is not None else []
    except ValueError as error:
        raise InputError(f"--seeds is {quoted(text)}: {error}.") from error


def ask(question: str, yes: bool) -> None:
    """Ask a person to confirm a deletion, unless ``yes`` says so.

    Raises:
        InputError: If nobody can be asked.
        typer.Abort: If the answer is no.
    """
    if not yes and not sys.stdin.isatty():
        raise InputError("not a terminal, so it cannot ask for confirmation; pass --yes to delete.")
    if not yes:
        typer.confirm(question, abort=True, err=True)
