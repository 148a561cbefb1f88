"""From what a person asks for to the list of what is still to be done.

preset or file + flags ─► SweepSpec ─► data packed and hashed ─► runs with ids ─► held against the store
"""

import contextlib
import dataclasses
import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sgbench.assets.locator import Locator
from sgbench.assets.needs import networks_of
from sgbench.core.errors import InputError
from sgbench.data import (
    PackedImages,
    PackProgress,
    PatchSampler,
    pack_set,
    refuse_overlap,
    shared_images,
)
from sgbench.runs.status import Judge, RunStatus
from sgbench.spec import RunSpec, SweepSpec, TrainingData, build, expression, override, presets, set_name
from sgbench.spec.stored import read_spec
from sgbench.store import Dataset, Planned, Replaced, Store, identity_columns
from sgbench.store.rows import RunKind

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Choices:
    """What a person wants otherwise than the preset, file or fields have it; an empty value leaves theirs."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields by their paths, such as ``recipe.steps``."""
    backbones: Sequence[str] = ()
    losses: Sequence[str] = ()
    lambdas: Sequence[float] = ()
    seeds: Sequence[int] = ()
    train: str | None = None
    tests: Sequence[str] = ()
    metrics: Sequence[str] = ()


def read_sweep(
    what: str | Mapping[str, Any], choices: Choices | None = None, called: Mapping[str, str] | None = None
) -> tuple[str, SweepSpec]:
    """Read a sweep and apply a person's choices.

    A choice takes the place of its field in every grid. Losses are chosen as they are to be trained: the λ of a grid,
    which belong to its own losses, are dropped. λ that are chosen apply to the grids with a loss that has ``sg``.

    Args:
        what: A preset's name, a YAML file, or what such a file would hold.
        choices: On top of it.
        called: How the person gave a choice, for messages: the flag of a field of `Choices`.

    Returns:
        The sweep's name and its specification.

    Raises:
        InputError: If anything in it is wrong.
    """
    choices, called = choices or Choices(), called or {}
    name, fields = presets.load(what)
    for path, value in choices.settings.items():
        override(fields, path, value, called.get("settings", "settings"))
    chosen = {each.name: value for each in dataclasses.fields(choices) if (value := getattr(choices, each.name))}
    in_grids = {key: list(chosen[key]) for key in ("backbones", "losses", "seeds") if key in chosen}
    grids = fields.get("grids")
    grids = [grid for grid in grids if isinstance(grid, dict)] if isinstance(grids, list) else []
    for grid in grids:
        grid.update(in_grids)
        if choices.losses:
            grid.pop("lambdas", None)
    if choices.lambdas:
        for grid in list(filter(_has_sg, grids)) or grids:
            grid["lambdas"] = list(choices.lambdas)
    fields.update({key: chosen[key] for key in ("train", "tests", "metrics") if key in chosen})
    return name, build(fields, name, {key: called[key] for key in chosen if key in called})


def _has_sg(grid: Mapping[str, Any]) -> bool:
    """Return whether λ has something to vary in a grid, which may hold anything yet."""
    losses = grid.get("losses")
    with contextlib.suppress(InputError, TypeError):  # `build` says what is wrong
        return any(expression.parse(loss).weight_of("sg") for loss in losses or ())
    return True


@dataclass(frozen=True)
class Data:
    """The packed images of a sweep."""

    train: PackedImages
    tests: tuple[PackedImages, ...]

    @property
    def training(self) -> TrainingData:
        """What of the training images enters a run."""
        return TrainingData(name=self.train.name, sha256=self.train.sha256)


@dataclass(frozen=True)
class Recorded:
    """What a store has on record of the images of a sweep that are not at hand."""

    training: TrainingData
    tests: tuple[Dataset, ...]


def recorded(sweep: SweepSpec, store: Store) -> Recorded | None:
    """Return which images the runs of a store were trained and scored on that bear the names of a sweep's.

    Args:
        sweep: The sweep.
        store: The store; its runs of the same scale and degradation tell, also those that are only planned.

    Returns:
        None unless the store has exactly one training set and one test set of each name.
    """
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
    training = {spec.train for spec in alike.values() if spec.train.name == set_name(sweep.train)}
    tests = [{test for run, test in scored if run in alike and test.name == set_name(name)} for name in sweep.tests]
    if len(training) != 1 or any(len(found) != 1 for found in tests):
        return None
    return Recorded(training.pop(), tuple(found.pop() for found in tests))


def pack(sweep: SweepSpec, progress: PackProgress | None = None) -> Data:
    """Pack the images of a sweep, or find them packed, and check that they can be trained and tested on.

    Args:
        sweep: The sweep.
        progress: Told of each image.

    Raises:
        InputError: If images are missing, unreadable or smaller than a patch, or a test image is trained on.
    """
    recipe = sweep.recipe
    refuse_overlap(sweep.train, sweep.tests)
    data = Data(
        pack_set(sweep.train, "train", recipe, progress),
        tuple(pack_set(test, "test", recipe, progress) for test in sweep.tests),
    )
    for test in data.tests:
        if same := shared_images(data.train, test):
            trained, tested = same[0]
            raise InputError(
                f"training on test images is refused: image '{trained}' of {data.train.name} is '{tested}' of "
                f"{test.name}{f', and so are {len(same) - 1} more' if len(same) > 1 else ''}."
            )
    # Refuses an image that is smaller than a patch.
    PatchSampler(data.train, patch=recipe.patch, batch=1, seed=0, augment=False, window=recipe.window)
    return data


@dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep, held against the store."""

    spec: RunSpec
    status: RunStatus
    step: int = 0
    """Steps done, by the newest checkpoint or the run's row."""
    error: str | None = None
    missing: tuple[tuple[str, str], ...] = ()
    """Scores that are still to be computed: names of test sets and metrics."""
    replaced: Replaced | None = None
    """What a new training replaces."""

    @property
    def row(self) -> dict[str, Any]:
        """What a person is shown of it."""
        return {
            "run_id": self.spec.run_id,
            "backbone": self.spec.backbone,
            "loss": str(self.spec.loss),
            "seed": self.spec.seed,
            "status": self.status,
            "step": None if self.status is RunStatus.UNKNOWN else f"{self.step}/{self.spec.recipe.steps}",
            "error": self.error,
        }

    @property
    def pending(self) -> bool:
        """Whether a sweep has something to do for this run."""
        return self.status.pending


@dataclass(frozen=True, repr=False)
class Plan:
    """The runs of a sweep without repetitions, in the order in which they are to start."""

    name: str
    sweep: SweepSpec
    named: int
    """Runs that the grids name, repetitions included."""
    runs: tuple[PlannedRun, ...]
    tests: tuple[Dataset, ...] = ()
    """What the runs are scored on; empty while the data is not at hand."""

    @property
    def pending(self) -> list[PlannedRun]:
        """Runs for which there is something to do."""
        return [run for run in self.runs if run.pending]

    @property
    def metrics(self) -> list[str]:
        """Metrics of the scores to be computed."""
        return sorted({metric for run in self.pending for _, metric in run.missing})

    def to_retrain(self, how: str = "sweep and train do that with --retrain") -> str | None:
        """Return a sentence on the runs that are to be trained again for missing scores; None if there are none."""
        if not (count := self.count(RunStatus.TO_RETRAIN)):
            return None
        runs = "1 run" if count == 1 else f"{count} runs"
        return f"{runs} would be trained again for scores that are missing, because the final weights are gone; {how}."

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a table of the runs: id, backbone, loss, seed, status, steps done, and why it failed."""
        import pandas

        return pandas.DataFrame.from_records([run.row for run in self.runs])

    def __repr__(self) -> str:
        return f"{self.name}: {self.summary()}\n{self.to_pandas().to_string()}"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(f'{self.name}: {self.summary()}')}</p>{self.to_pandas().to_html()}"

    def count(self, status: RunStatus) -> int:
        """Return how many runs are at a status."""
        return sum(run.status == status for run in self.runs)

    def summary(self) -> str:
        """Return the counts in words: ``4 runs: 1 done, 1 resumable, 2 to do``."""
        counts = ((status, self.count(status)) for status in RunStatus)
        runs = "1 run" if len(self.runs) == 1 else f"{len(self.runs)} runs"
        return f"{runs}: {', '.join(f'{count} {status}' for status, count in counts if count)}"

    def records(self) -> list[Planned]:
        """Return what the store keeps of the plan, so that tables know what is still to come."""
        metrics = self.sweep.metrics
        return [Planned(run=identity_columns(run.spec), tests=self.tests, metrics=metrics) for run in self.runs]


def make_plan(
    name: str,
    sweep: SweepSpec,
    data: Data | Recorded | None,
    store: Store,
    *,
    retry: bool = False,
    retrain: bool = False,
    rerun: bool = False,
    locator: Locator | None = None,
) -> Plan:
    """Expand a sweep and hold each run against the store.

    Args:
        name: The sweep's name.
        sweep: What is asked for.
        data: Its images; None if they are neither at hand nor on record, and then no run has an id.
        store: What there is already.
        retry: See `sgbench.runs.status.Judge`, also for the others.
        retrain: See there.
        rerun: See there.
        locator: See there.
    """
    training = data.training if data else TrainingData(name=set_name(sweep.train))
    named = sweep.named_runs(training)
    unique = list(dict.fromkeys(named))
    if data is None:
        nothing = not store.runs().num_rows and not store.planned()
        status = RunStatus.TO_DO if rerun or nothing else RunStatus.UNKNOWN
        return Plan(name, sweep, len(named), tuple(PlannedRun(spec, status) for spec in unique))
    tests = tuple(Dataset(test.name, test.sha256) for test in data.tests)
    judge = Judge(store, retry=retry, retrain=retrain, rerun=rerun, locator=locator)
    planned = (PlannedRun(spec, *judge.standing(str(spec.run_id), tests, sweep.metrics)) for spec in unique)
    return Plan(name, sweep, len(named), tuple(planned), tests)


def refuse_losses(made: Plan, locator: Locator) -> None:
    """Refuse to replace runs some of whose scores would not be computed again.

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
            "training again is refused, because it would lose scores that this command cannot compute again: "
            f"{', '.join(f'{score} ({count} of the runs)' for score, count in sorted(lost.items()))}; name their test "
            "sets with --test and their metrics with --metric, or delete the runs with 'sgbench results rm'."
        )
