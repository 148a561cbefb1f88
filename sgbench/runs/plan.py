"""Planning: from a sweep's specification to the list of what is still to be done.

preset or file + flags ─► SweepSpec ─► data packed and hashed ─► runs with ids ─► compared with the store
"""

import contextlib
import dataclasses
import html
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sgbench.analysis.decisions import Decision
from sgbench.assets.locator import Locator
from sgbench.assets.needs import networks_of
from sgbench.core.errors import InputError
from sgbench.core.sources import Source
from sgbench.data import (
    PackedImages,
    PackProgress,
    PatchSampler,
    known_sets,
    pack_set,
    refuse_overlap,
    shared_images,
)
from sgbench.runs.progress import Course, Running
from sgbench.runs.status import Judge, RunStatus
from sgbench.spec import (
    Reference,
    RunSpec,
    SweepSpec,
    TrainingData,
    build,
    expression,
    override,
    packed_digest,
    presets,
    set_name,
)
from sgbench.spec.expression import Family, OpenLoss
from sgbench.spec.sources import Code, Sources, in_words
from sgbench.spec.stored import read_spec
from sgbench.store import Dataset, Declaration, Planned, Replaced, Store, identity_columns, relabelled
from sgbench.store.rows import RunKind

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Choices:
    """A person's changes to a preset, file or fields; an empty value changes nothing."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields by their paths, such as ``recipe.steps``."""
    backbones: Sequence[str] = ()
    losses: Sequence[str] = ()
    lambdas: Sequence[float] | Mapping[str, Sequence[float]] = ()
    """For all losses, or by the name of the term that is varied."""
    seeds: Sequence[int | str] = ()
    train: str | Sequence[str] | Mapping[str, Any] | None = None
    tests: Sequence[str] = ()
    metrics: Sequence[str] = ()
    questions: Sequence[str] = ()
    """Those to be decided, see `sgbench.spec.Decide`; its other fields stay as they are."""
    max_seeds: int | None = None


def read_sweep(
    what: str | Mapping[str, Any], choices: Choices | None = None, called: Mapping[str, str] | None = None
) -> tuple[str, SweepSpec]:
    """Read a sweep and apply a person's choices.

    A choice replaces its field in every grid. Chosen losses are trained as written: the λ of a grid, which belong to
    its own losses, are dropped. Chosen λ apply to the grids that have a loss in which they can be varied, and those
    that are chosen for a term leave others as they are.

    Args:
        what: A preset's name, a YAML file, or the content of such a file.
        choices: Changes to it.
        called: How the person gave each choice, for messages: the flag for a field of `Choices`.

    Returns:
        The sweep's name and its specification.

    Raises:
        InputError: If anything in it is invalid.
    """
    name, fields, flags = read_fields(what, choices, called)
    return name, build(fields, name, flags)


def read_fields(
    what: str | Mapping[str, Any], choices: Choices | None = None, called: Mapping[str, str] | None = None
) -> tuple[str, dict[str, Any], dict[str, str]]:
    """Return the name of a sweep, its fields, and how the person gave those that are chosen; see `read_sweep`."""
    choices, called = choices or Choices(), called or {}
    name, fields = presets.load(what)
    for path, value in choices.settings.items():
        override(fields, path, value, called.get("settings", "settings"))
    given = {each.name: getattr(choices, each.name) for each in dataclasses.fields(choices)}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value or isinstance(value, str | int)}
    in_grids = {key: list(chosen[key]) for key in ("backbones", "losses", "seeds") if key in chosen}
    grids = fields.get("grids")
    grids = [grid for grid in grids if isinstance(grid, dict)] if isinstance(grids, list) else []
    for grid in grids:
        grid.update(in_grids)
        if choices.losses:
            grid.pop("lambdas", None)
    if choices.lambdas:
        _vary(grids, choices.lambdas)
    fields.update({key: chosen[key] for key in ("train", "tests", "metrics") if key in chosen})
    for key in ("questions", "max_seeds"):
        if key in chosen:
            override(fields, f"decide.{key}", chosen[key], called.get(key, key))
    return name, fields, {key: called[key] for key in chosen if key in called}


def _vary(grids: Sequence[dict[str, Any]], lambdas: Sequence[float] | Mapping[str, Sequence[float]]) -> None:
    """Give λ to the grids in which it varies something, or to all if there is none, which `build` then refuses."""
    losses = [(grid, _losses(grid)) for grid in grids]
    if not isinstance(lambdas, Mapping):
        for grid in [grid for grid, each in losses if _varied(each)] or grids:
            grid["lambdas"] = list(lambdas)
        return
    for name, values in lambdas.items():
        having = [
            (grid, each) for grid, each in losses if any(term.name == name for loss in each for term in loss.terms)
        ]
        for grid, each in having or losses:
            before = grid.get("lambdas") or {}
            others = before if isinstance(before, Mapping) else dict.fromkeys(_varied(each), before)
            grid["lambdas"] = {**others, name: values}


def _losses(grid: Mapping[str, Any]) -> list[OpenLoss]:
    """Return the losses of a grid that has not been validated yet; none if one is wrong, which `build` says."""
    with contextlib.suppress(ValueError, TypeError):
        return [expression.parse_open(expression.split_label(loss)[1]) for loss in grid.get("losses") or ()]
    return []


def _varied(losses: Iterable[OpenLoss]) -> list[str]:
    """Return the names of the terms that λ varies if none is named."""
    names = (loss.varied.name if isinstance(loss, Family) else "sg" * bool(loss.weight_of("sg")) for loss in losses)
    return list(dict.fromkeys(filter(None, names)))


@dataclass(frozen=True)
class Data:
    """The packed images of a sweep."""

    train: PackedImages
    tests: tuple[PackedImages, ...]
    validation: tuple[PackedImages, ...] = ()

    @property
    def training(self) -> TrainingData:
        """The part of the training images that enters a run's identity."""
        return TrainingData(name=self.train.name, sha256=self.train.sha256, of=self.train.of)


@dataclass(frozen=True)
class Recorded:
    """A store's record of the images of a sweep, which are not available locally."""

    training: TrainingData
    tests: tuple[Dataset, ...]


def recorded(sweep: SweepSpec, store: Store) -> Recorded | None:
    """Return the images with the names of a sweep's data sets on which runs of a store were trained and scored.

    Args:
        sweep: The sweep.
        store: The store; only its runs with the same scale and degradation count, including planned ones.

    Returns:
        The record, or None unless the store has exactly one training set and one test set of each name, or if images
        are held out.
    """
    if packed_digest(sweep.train) is None and Reference.read(sweep.train).split is not None:
        return None  # the record does not say what was held out
    planned, recipe = store.planned(), sweep.recipe
    runs = [row for row in store.runs().to_pylist() if row["kind"] == RunKind.TRAIN] + [each.run for each in planned]
    specs = {row["run_id"]: read_spec(row["spec"], f"run {row['run_id']}") for row in runs}
    packing = (recipe.scale, recipe.degradation)
    alike = {run: spec for run, spec in specs.items() if (spec.recipe.scale, spec.recipe.degradation) == packing}
    scored = {
        (row["run_id"], Dataset(row["dataset"], row["dataset_sha256"]))
        for row in store.totals().select(["run_id", "dataset", "dataset_sha256"]).to_pylist()
    }
    scored |= {(each.run_id, test) for each in planned for test in each.tests}
    training = {spec.train.sha256: spec.train for spec in alike.values() if spec.train.name == set_name(sweep.train)}
    tests = [{test for run, test in scored if run in alike and test.name == set_name(name)} for name in sweep.tests]
    if len(training) != 1 or any(len(found) != 1 for found in tests):
        return None
    return Recorded(training.popitem()[1], tuple(found.pop() for found in tests))


def pack(
    sweep: SweepSpec, progress: PackProgress | None = None, received: Mapping[str, PackedImages] | None = None
) -> Data:
    """Pack the images of a sweep, or find them packed, and check that they are usable for training and testing.

    Args:
        sweep: The sweep.
        progress: Called for each image.
        received: Sets from the results store, by their references; see `sgbench.runs.delivery.receive`.

    Raises:
        InputError: If images are missing, unreadable or smaller than a patch, a test image is in the training set, or
            an image of a validation set is in that or in a test set.
    """
    recipe = sweep.recipe
    refuse_overlap(known_sets(sweep.train), sweep.tests)
    refuse_overlap(known_sets(sweep.train), sweep.validation_sets, "validation")
    train, *scored = (
        (received or {}).get(reference) or pack_set(reference, role, recipe, progress)
        for reference, role in sweep.sets()
    )
    data = Data(train, tuple(scored[: len(sweep.tests)]), tuple(scored[len(sweep.tests) :]))
    for test in data.tests:
        _refuse_shared("training on test images", data.train, test)
    for images in data.validation:
        _refuse_shared("validation on training images", data.train, images)
        for test in data.tests:
            _refuse_shared("validation on test images", images, test)
    # Refuses an image that is smaller than a patch.
    PatchSampler(data.train, patch=recipe.patch, batch=1, seed=0, augment=False, window=recipe.window)
    return data


def _refuse_shared(what: str, a: PackedImages, b: PackedImages) -> None:
    """Refuse two sets that have an image in common.

    Raises:
        InputError: Naming the first such image.
    """
    if same := shared_images(a, b):
        first, second = same[0]
        more = f", and so are {len(same) - 1} more" if len(same) > 1 else ""
        raise InputError(f"{what} is refused: image '{first}' of {a.name} is '{second}' of {b.name}{more}.")


@dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep, compared with the store."""

    spec: RunSpec
    status: RunStatus
    step: int = 0
    """Steps done, by the newest checkpoint or the run's row."""
    error: str | None = None
    missing: tuple[tuple[str, str], ...] = ()
    """Scores that are still to be computed: names of test sets and metrics."""
    replaced: Replaced | None = None
    """What a new training replaces."""
    stale: tuple[str, ...] = ()
    """The plug-ins whose code is another now than when it was trained, by kind and name."""
    sources: Mapping[str, Source] = field(default_factory=dict, hash=False)
    """The code of its plug-ins as it is now."""
    metric_code: Code = field(default_factory=dict, hash=False)
    """The hashes of the code of those missing metrics that are not built in."""
    label: str | None = None
    """What tables call its loss, if it has a label."""

    @property
    def code(self) -> Code:
        """The hashes of `sources`."""
        return {name: source.digest for name, source in self.sources.items()}

    @property
    def row(self) -> dict[str, Any]:
        """The fields that a person is shown."""
        return {
            "run_id": self.spec.run_id,
            "backbone": self.spec.backbone,
            "loss": str(self.spec.loss),
            "label": self.label,
            "seed": self.spec.seed,
            "status": self.status,
            "step": None if self.status is RunStatus.UNKNOWN else f"{self.step}/{self.spec.recipe.steps}",
            "error": self.error,
        }

    @property
    def pending(self) -> bool:
        """Whether a sweep has something to do for this run."""
        return self.status.pending


_SHOWN = 60
"""Runs that a console or notebook shows of a plan, the first and the last of them."""


@dataclass(frozen=True, repr=False)
class Plan:
    """The runs of a sweep without duplicates, in the order in which they are to start."""

    name: str
    sweep: SweepSpec
    named: int
    """Number of runs that the grids name, including duplicates."""
    runs: tuple[PlannedRun, ...]
    tests: tuple[Dataset, ...] = ()
    """The test sets; empty while the data is not available locally."""
    whole: tuple[RunSpec, ...] = ()
    """All runs of the sweep without duplicates, of which ``runs`` may be a part; empty while they have no ids."""
    train: PackedImages | None = field(default=None, compare=False)
    """The training images; None while they are not available locally."""
    validation: tuple[Dataset, ...] = ()
    """The validation sets; empty while they are not available locally."""
    images: Mapping[str, int] = field(default_factory=dict, compare=False)
    """The number of images of each test set; empty while they are not available locally."""
    decisions: tuple[Decision, ...] = ()
    """Where the questions stand that it has declared."""
    undeclared: tuple[Declaration, ...] = ()
    """What it will declare when it starts."""

    @property
    def pending(self) -> list[PlannedRun]:
        """Runs for which there is something to do."""
        return [run for run in self.runs if run.pending]

    @property
    def metrics(self) -> list[str]:
        """Metrics of the scores to be computed, and of the validation of runs to be trained."""
        metrics = {metric for run in self.pending for _, metric in run.missing}
        if self.sweep.validation and any(run.status is not RunStatus.TO_SCORE for run in self.pending):
            metrics |= {*self.sweep.validation.metrics}
        return sorted(metrics)

    def to_retrain(self, how: str = "sweep and train do that with --retrain") -> str | None:
        """Return a sentence on the runs that need retraining for missing scores; None if there are none."""
        if not (count := self.count(RunStatus.TO_RETRAIN)):
            return None
        runs = "1 run" if count == 1 else f"{count} runs"
        return f"{runs} must be retrained for missing scores, because the final weights are missing too; {how}."

    def to_decide(self, how: str = "--rerun-stale repeats them, and --keep-stale takes them as they are") -> str | None:
        """Return a sentence on the runs since which the code of a plug-in has changed; None if there are none."""
        stale = [run for run in self.runs if run.stale]
        if not stale:
            return None
        first, runs = stale[0], "1 run was" if len(stale) == 1 else f"{len(stale)} runs were"
        changed = f"the code of {in_words(first.stale)} has changed since {runs} trained"
        return f"{changed}, the first {first.spec.run_id}; {how}."

    def course(self) -> Course:
        """Return the course of a sweep that is about to carry it out."""
        idle = self.count(RunStatus.TO_RETRAIN) + self.count(RunStatus.EXHAUSTED)
        return Course(len(self.runs) - idle, self.count(RunStatus.DONE))

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a table of the runs: id, backbone, loss, its label, seed, status, steps done, and why it failed."""
        import pandas

        return pandas.DataFrame.from_records([run.row for run in self.runs])

    def __repr__(self) -> str:
        return f"{self.name}: {self.summary()}\n{self.to_pandas().to_string(max_rows=_SHOWN)}"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(f'{self.name}: {self.summary()}')}</p>{self.to_pandas().to_html(max_rows=_SHOWN)}"

    def count(self, status: RunStatus) -> int:
        """Return how many runs have a status."""
        return sum(run.status == status for run in self.runs)

    def summary(self) -> str:
        """Return the counts in words: ``4 runs: 1 done, 1 resumable, 2 to do``."""
        counts = ((status, self.count(status)) for status in RunStatus)
        runs = "1 run" if len(self.runs) == 1 else f"{len(self.runs)} runs"
        return ": ".join(filter(None, (runs, ", ".join(f"{count} {status}" for status, count in counts if count))))

    def records(self) -> list[Planned]:
        """Return the store's record of the whole sweep, from which tables know which runs are pending."""
        metrics = self.sweep.metrics
        return [Planned(run=identity_columns(spec), tests=self.tests, metrics=metrics) for spec in self.whole]


def make_plan(
    name: str,
    sweep: SweepSpec,
    data: Data | Recorded | None,
    store: Store,
    *,
    retry: bool = False,
    retrain: bool = False,
    rerun: bool = False,
    rerun_stale: bool = False,
    keep_stale: bool = False,
    locator: Locator | None = None,
    running: Mapping[str, Running] | None = None,
    sources: Sources | None = None,
    added: Sequence[RunSpec] = (),
    only: Collection[RunSpec] | None = None,
) -> Plan:
    """Expand a sweep and compare each run with the store.

    Args:
        name: The sweep's name.
        sweep: The sweep's specification.
        data: Its images; None if they are neither available locally nor on record, and then no run has an id.
        store: The results store.
        retry: See `sgbench.runs.status.Judge`, also for the others.
        retrain: See there.
        rerun: See there.
        rerun_stale: See there.
        keep_stale: See there.
        locator: See there.
        running: See there.
        sources: The code of plug-ins, as a command saw it at first; by default as it is now.
        added: Runs beyond those of the grids, with hashed data, for which its questions ask.
        only: The runs that count, with hashed data; by default all of the sweep.
    """
    training = data.training if data else TrainingData(name=set_name(sweep.train))
    named, unique = [*sweep.named_runs(training), *added], [*sweep.runs(training), *added]
    labels = relabelled(store.labels(), sweep.labels())
    if data is None:
        nothing = not store.runs().num_rows and not store.planned()
        status = RunStatus.TO_DO if rerun or nothing else RunStatus.UNKNOWN
        waiting = (PlannedRun(spec, status, label=labels.get(str(spec.loss))) for spec in unique)
        return Plan(name, sweep, len(named), tuple(waiting))
    tests = tuple(Dataset(test.name, test.sha256) for test in data.tests)
    sources = sources or Sources()
    judge = Judge(
        store,
        retry=retry,
        retrain=retrain,
        rerun=rerun,
        rerun_stale=rerun_stale,
        keep_stale=keep_stale,
        locator=locator,
        running=running,
        sources=sources,
    )
    chosen = unique if only is None else [spec for spec in unique if spec in only]

    def planned(spec: RunSpec) -> PlannedRun:
        found = sources.of_run(spec)
        code = {name: source.digest for name, source in found.items()}
        standing = judge.standing(str(spec.run_id), spec.recipe, tests, sweep.metrics, lambda: code)
        metric_code = sources.of_metrics(metric for _, metric in standing.missing)
        return PlannedRun(spec, *standing, found, metric_code, label=labels.get(str(spec.loss)))

    train, validated = (data.train, data.validation) if isinstance(data, Data) else (None, ())
    validation = tuple(Dataset(images.name, images.sha256) for images in validated)
    images = {test.name: len(test) for test in data.tests} if isinstance(data, Data) else {}
    return Plan(name, sweep, len(named), tuple(map(planned, chosen)), tests, tuple(unique), train, validation, images)


def refuse_stale(made: Plan) -> None:
    """Refuse a plan with stale runs, unless a person has said what is to be done about them.

    Raises:
        InputError: If there are such runs.
    """
    if made.count(RunStatus.STALE):
        raise InputError(str(made.to_decide()))


def refuse_losses(made: Plan, locator: Locator) -> None:
    """Refuse to retrain runs if some of their scores could not be recomputed.

    Args:
        made: The plan.
        locator: Finds the networks of metrics.

    Raises:
        InputError: If there are such scores, naming them.
    """
    lost: Counter[str] = Counter()
    for run in made.pending:
        for name, sha256, metric in run.replaced.scores if run.replaced else ():
            known = Dataset(name, sha256) in made.tests and (name, metric) in run.missing
            if not known or not all(map(locator.find, networks_of([metric]))):
                lost[f"{metric} on {name}"] += 1
    if lost:
        raise InputError(
            "retraining is refused, because it would lose scores that this command cannot recompute: "
            f"{', '.join(f'{score} ({count} of the runs)' for score, count in sorted(lost.items()))}; name their test "
            "sets with --test and their metrics with --metric, or delete the runs with 'sgbench results rm'."
        )
