"""The front door for programs and notebooks: what the commands do, as functions that return what they found.

They print nothing; what a person has to know of the results is a Python warning. With ``progress=True`` they show on
standard error what the commands show. Bad input is an `sgbench.core.errors.InputError`.
"""

import contextlib
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from sgbench.analysis import Filters, Results, View, load_results
from sgbench.analysis.compare import ALPHA
from sgbench.cluster import on_ray
from sgbench.core.storage import Storage, absolute
from sgbench.report import compare as comparison
from sgbench.report import tables
from sgbench.report.screen import Screen
from sgbench.report.shown import Shown
from sgbench.runs import evaluate as evaluation
from sgbench.runs.plan import Choices, Plan, read_sweep
from sgbench.runs.sweep import Observer, Quiet, Runner, carry_out, look, run_all_here
from sgbench.scoring.upscaling import Inference
from sgbench.spec import SweepSpec

Sweep = str | os.PathLike[str] | Mapping[str, Any] | SweepSpec
"""A preset's name, the path of a sweep file, what such a file would hold, or a specification."""

Folder = str | os.PathLike[str]
"""A results store: a folder or a URI."""


def sweep(
    what: Sweep,
    *,
    results: Folder | None = None,
    backbones: str | Iterable[str] = (),
    losses: str | Iterable[str] = (),
    lambdas: float | Iterable[float] = (),
    seeds: int | Iterable[int] = (),
    train: str | None = None,
    tests: str | Iterable[str] = (),
    metrics: str | Iterable[str] = (),
    settings: Mapping[str, Any] | None = None,
    address: str | None = None,
    local: bool = False,
    retry: bool = False,
    retrain: bool = False,
    rerun: bool = False,
    progress: bool = False,
) -> Results:
    """Train and score every run of a sweep that is missing in a store, like ``sgbench sweep``.

    Runs that were interrupted continue from their last checkpoint; finished ones are not repeated. What
    `sgbench.register_loss`, `sgbench.register_backbone` and `sgbench.register_metric` have registered in this process
    can be named, classes of a notebook's cells included.

    Args:
        what: A preset's name such as ``"quick"``, a YAML file, what such a file would hold, or a specification.
        results: The results store; by default ``results/<name of the sweep>``.
        backbones: Networks, such as ``"edsr-tiny"``, instead of the sweep's.
        losses: Losses as text, such as ``"l1 + 0.1*mine"``, instead of the sweep's and their λ.
        lambdas: Weights of ``sg`` in each loss that has it.
        seeds: Seeds instead of the sweep's.
        train: Training images, ``NAME`` or ``NAME=DIR``.
        tests: Test sets, written alike.
        metrics: Metrics, such as ``"psnr_y"``.
        settings: Any other field of the sweep by its path, such as ``{"recipe.steps": 500}``.
        address: A Ray cluster to join, such as ``"10.0.0.1:6379"``; without one Ray is started here, and ended.
        local: Run one after another in this process, without Ray.
        retry: Do failed runs and scores again.
        retrain: Train done runs again that lack scores and have no final weights.
        rerun: Do everything again; each run keeps its results until its new training is complete.
        progress: Show on standard error how it goes.

    Returns:
        The results of the sweep's runs. A run that fails raises nothing: it is in `Results.failed` with its reason,
        and there is a warning.

    Raises:
        InputError: For bad input; nothing has been started then.
        InterruptionError: If something that is no run's fault, such as the death of Ray, ended the sweep.
        KeyboardInterrupt: If it was interrupted; runs have written checkpoints, and the same call continues.
    """
    choices = _choices(backbones, losses, lambdas, seeds, train, tests, metrics, settings)
    name, spec = _read(what, choices)
    storage = _storage(results, name)
    here: AbstractContextManager[Runner] = contextlib.nullcontext(run_all_here)
    outcome = carry_out(
        name,
        spec,
        storage,
        here if local else on_ray(address),
        _observer(progress),
        retry=retry,
        retrain=retrain,
        rerun=rerun,
    )
    if outcome.interrupted:
        raise KeyboardInterrupt("the sweep was interrupted; the same call continues")
    for failed, consequence in (
        (outcome.failed, "retry=True does them again"),
        (outcome.kept, "their results are kept"),
    ):
        for reason in list(failed.values())[:1]:
            _warn(f"{len(failed)} of {len(outcome.plan.runs)} runs failed, the first because {reason}; {consequence}")
    if remark := outcome.plan.to_retrain("retrain=True does that"):
        _warn(remark)
    return load_results(storage.root).of_runs(str(run.spec.run_id) for run in outcome.plan.runs)


def plan(
    what: Sweep,
    *,
    results: Folder | None = None,
    backbones: str | Iterable[str] = (),
    losses: str | Iterable[str] = (),
    lambdas: float | Iterable[float] = (),
    seeds: int | Iterable[int] = (),
    train: str | None = None,
    tests: str | Iterable[str] = (),
    metrics: str | Iterable[str] = (),
    settings: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Plan:
    """Show the runs of a sweep and how far each one is, like ``sgbench plan``; starts nothing.

    Args:
        what: See `sweep`, and there for the others.
        results: See `sweep`.
        backbones: See `sweep`.
        losses: See `sweep`.
        lambdas: See `sweep`.
        seeds: See `sweep`.
        train: See `sweep`.
        tests: See `sweep`.
        metrics: See `sweep`.
        settings: See `sweep`.
        progress: Show on standard error how images are packed.

    Returns:
        The plan; a notebook shows it as a table, and `Plan.to_pandas` is that table.

    Raises:
        InputError: For bad input.
    """
    choices = _choices(backbones, losses, lambdas, seeds, train, tests, metrics, settings)
    name, spec = _read(what, choices)
    return look(name, spec, _storage(results, name), _observer(progress))


def evaluate(
    what: Folder | Iterable[Folder],
    tests: str | Iterable[str],
    *,
    results: Folder = "results/eval",
    metrics: str | Iterable[str] = evaluation.METRICS,
    backbone: str | None = None,
    scale: int = 4,
    self_ensemble: bool = False,
    tile: int | None = None,
    overlap: int = 32,
    save_images: bool = False,
    rerun: bool = False,
    progress: bool = False,
) -> Results:
    """Score something on test sets, without training, and keep the scores in a store, like ``sgbench eval``.

    Args:
        what: A run's id, a checkpoint, a folder of super-resolved images or ``"bicubic"``; or several of these.
        tests: Test sets, ``NAME`` or ``NAME=DIR``.
        results: The results store, in which runs are looked for too.
        metrics: Metrics.
        backbone: Of a checkpoint that does not name its own, or a plug-in, whose code is run only if it is named here.
        scale: 2, 3 or 4; of whatever does not know its own.
        self_ensemble: Score a network's mean over 8 rotations and reflections.
        tile: Side of the tiles into which images are cut to save memory, in LR pixels.
        overlap: LR pixels around a tile that are computed with it.
        save_images: Keep the super-resolved images as PNG in the store.
        rerun: Compute scores again that are there.
        progress: Show on standard error how images are packed and networks fetched.

    Returns:
        The results of what was scored. A score that fails raises nothing: it is in the results with its reason, and
        there is a warning.

    Raises:
        InputError: For bad input; nothing is written then.
    """
    subjects = [os.fspath(each) for each in ([what] if isinstance(what, str | os.PathLike) else what)]
    storage = _storage(results, "eval")
    done = evaluation.evaluate(
        subjects,
        _many(tests),
        storage,
        _observer(progress),
        metrics=_many(metrics),
        backbone=backbone,
        scale=scale,
        inference=Inference(self_ensemble, tile, overlap),
        save_images=save_images,
        rerun=rerun,
    )
    for fault in done.faults:
        _warn(fault)
    return load_results(storage.root).of_runs(subject.run_id for subject in done.subjects)


def compare(
    results: Results | Folder,
    a: str,
    b: str,
    *,
    metrics: str | Iterable[str] = (),
    backbones: str | Iterable[str] = (),
    tests: str | Iterable[str] = (),
    alpha: float = ALPHA,
) -> Shown:
    """Say by how much one loss differs from another, and whether that is significant, like ``sgbench compare``.

    Runs are paired by seed, with backbones that have both losses; see `sgbench.analysis.compare.comparisons`.

    Args:
        results: From `sweep` or `sgbench.load_results`, or a store.
        a: The loss to compare with, such as ``"l1"``.
        b: The loss in question.
        metrics: Only these; by default ``lpips_alex``, or all if there is none.
        backbones: Only these; what is shown stays corrected for all that there is.
        tests: Only these test sets.
        alpha: Significance level: the chance of any false positive.

    Returns:
        A comparison for each metric, recipe, test set and backbone. A notebook shows a table and what it means,
        ``print`` shows them as text, and `Shown.to_pandas` has every number.

    Raises:
        InputError: If a name is unknown, neither loss has been scored, or ``alpha`` is out of its range.
    """
    cells = comparison.compared(
        View(_results(results)),
        a,
        b,
        metrics=_many(metrics) or None,
        backbones=_many(backbones) or None,
        tests=_many(tests) or None,
        alpha=alpha,
    )
    return comparison.shown(cells)


def table(
    results: Results | Folder | Mapping[str, Results],
    number: int | str | None = None,
    *,
    show: str = tables.OURS,
    rows: Sequence[str] = tables.ROWS,
    columns: Sequence[str] = tables.COLUMNS,
    backbones: str | Iterable[str] = (),
    losses: str | Iterable[str] = (),
    lambdas: float | Iterable[float] = (),
    seeds: int | Iterable[int] = (),
    tests: str | Iterable[str] = (),
    metrics: str | Iterable[str] = (),
) -> Shown:
    """Summarise scores as mean ± sample standard deviation over the seeds, like ``sgbench table``.

    Args:
        results: From `sweep` or `sgbench.load_results`, or a store; or several by what each is to be called.
        number: A table of the paper, in its layout: 1, 2, 3 or 5; by default a table of ``rows`` and ``columns``.
        show: Of a table of the paper: ``ours``, ``paper`` or ``both``.
        rows: Of dataset, store, scale, backbone, loss, lambda, recipe, seed and metric.
        columns: Of the same.
        backbones: Only these.
        losses: Only these; tables of the paper have losses, λ and seeds of their own.
        lambdas: Only these coefficients of ``sg``.
        seeds: Only these.
        tests: Only these test sets.
        metrics: Only these.

    Returns:
        The table. A notebook shows it, ``print`` shows it as text, and `Shown.to_pandas` has a row for each cell.

    Raises:
        InputError: If a name is unknown.
    """
    view = View(results if isinstance(results, Mapping) else _results(results))
    filters = Filters(
        backbones=_many(backbones) or None,
        losses=_many(losses) or None,
        lambdas=_many(lambdas) or None,
        seeds=_many(seeds) or None,
        datasets=_many(tests) or None,
        metrics=_many(metrics) or None,
    )
    if number is None:
        return tables.shown(tables.pivot(view, filters, rows=rows, columns=columns))
    return tables.shown(tables.paper_table(str(number), view, show, filters))


def _results(results: Results | Folder) -> Results:
    return results if isinstance(results, Results) else load_results(absolute(os.fspath(results)))


def _choices(
    backbones: str | Iterable[str],
    losses: str | Iterable[str],
    lambdas: float | Iterable[float],
    seeds: int | Iterable[int],
    train: str | None,
    tests: str | Iterable[str],
    metrics: str | Iterable[str],
    settings: Mapping[str, Any] | None,
) -> Choices:
    return Choices(
        settings=settings or {},
        backbones=_many(backbones),
        losses=_many(losses),
        lambdas=_many(lambdas),
        seeds=_many(seeds),
        train=train,
        tests=_many(tests),
        metrics=_many(metrics),
    )


def _many(value: Any) -> list[Any]:
    """Return one value or several as a list; a text is one."""
    return [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)


def _read(what: Sweep, choices: Choices) -> tuple[str, SweepSpec]:
    if isinstance(what, SweepSpec):
        what = what.model_dump(mode="json")
    return read_sweep(os.fspath(what) if isinstance(what, os.PathLike) else what, choices)


def _storage(results: Folder | None, name: str) -> Storage:
    return Storage(absolute(os.fspath(results or Path("results", name))))


def _observer(progress: bool) -> Observer:
    return Screen() if progress else Quiet()


def _warn(text: str) -> None:
    warnings.warn(text.rstrip("."), stacklevel=3)
