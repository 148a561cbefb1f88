"""The Python interface for programs and notebooks: what the commands do, as functions that return results.

They print nothing; what a person must know about the results is a Python warning. With ``progress=True`` they show the
same progress as the commands, on standard error. Bad input raises `sgbench.core.errors.InputError`.
"""

import contextlib
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from sgbench.analysis import Results, load_results
from sgbench.cluster import on_ray
from sgbench.core.packages import to_send
from sgbench.core.storage import Storage, absolute
from sgbench.report.screen import Screen
from sgbench.report.summaries import Folder, many
from sgbench.runs import evaluate as evaluation
from sgbench.runs.plan import Choices, Plan, read_sweep
from sgbench.runs.sweep import Observer, Quiet, Runner, carry_out, look, run_all_here
from sgbench.scoring.upscaling import Inference
from sgbench.spec import SweepSpec

Sweep = str | os.PathLike[str] | Mapping[str, Any] | SweepSpec
"""A preset's name, the path of a sweep file, the content of such a file, or a specification."""

Lambdas = float | Iterable[float] | Mapping[str, Sequence[float]]
"""Values of λ, for all losses or by the name of the term that is varied."""


def sweep(
    what: Sweep,
    *,
    results: Folder | None = None,
    backbones: str | Iterable[str] = (),
    losses: str | Iterable[str] = (),
    lambdas: Lambdas = (),
    seeds: int | str | Iterable[int] = (),
    train: str | Sequence[str] | Mapping[str, Any] | None = None,
    tests: str | Iterable[str] = (),
    metrics: str | Iterable[str] = (),
    settings: Mapping[str, Any] | None = None,
    until_decided: str | Iterable[str] = (),
    max_seeds: int | None = None,
    address: str | None = None,
    packages: str | Iterable[str] = (),
    local: bool = False,
    fetch: bool | None = None,
    retry: bool = False,
    retrain: bool = False,
    rerun: bool = False,
    rerun_stale: bool = False,
    keep_stale: bool = False,
    progress: bool = False,
) -> Results:
    """Train and score every run of a sweep that is missing in a store, like ``sgbench sweep``.

    Interrupted runs resume from their last checkpoint; finished runs are not repeated. A sweep can name whatever
    `sgbench.register_loss`, `sgbench.register_backbone` and `sgbench.register_metric` have registered in this process,
    including classes defined in notebook cells.

    Args:
        what: A preset's name such as ``"quick"``, a YAML file, the content of such a file, or a specification.
        results: The results store; by default ``results/<name of the sweep>``.
        backbones: Networks, such as ``"edsr-tiny"``, instead of the sweep's.
        losses: Losses as text, such as ``"l1 + 0.1*mine"`` or with a label ``"ours=l1 + 0.1*mine"``, instead of the
            sweep's and their λ.
        lambdas: Values of λ where a loss has λ as a coefficient, and of the coefficient of ``sg`` in the others that
            have it; or, as in ``{"ssim": [0, 0.1, 1]}``, those of a term in each loss that has it.
        seeds: Seeds instead of the sweep's: numbers, or a text such as ``"0-4"``.
        train: Training images, ``NAME`` or ``NAME=DIR``; a list of parts; or a mapping, as in a sweep file.
        tests: Test sets, written the same way.
        metrics: Metrics, such as ``"psnr_y"``.
        settings: Any other field of the sweep by its path, such as ``{"recipe.steps": 500}``.
        until_decided: Questions such as ``"l1 vs l1 + 1.0*sg on lpips_alex"``; seeds are added until each is decided.
        max_seeds: The most seeds for that; by default 20.
        address: A Ray cluster to join, such as ``"10.0.0.1:6379"``; by default, Ray is started here and then stopped.
        packages: Installed packages that plug-ins import and nodes of the cluster lack, such as ``"piq"``; they are
            sent there with what they require.
        local: Do one run after another in this process, without Ray.
        fetch: Download known data sets that are not available locally; by default, only for a cluster.
        retry: Repeat failed runs and scores.
        retrain: Retrain finished runs that lack scores and have no final weights.
        rerun: Repeat everything; each run keeps its results until its new training is complete.
        rerun_stale: Repeat runs of plug-ins whose code has changed; without this or the next, they are refused.
        keep_stale: Take such runs as they are.
        progress: Show progress on standard error.

    Returns:
        The results of the sweep's runs. A run that fails raises nothing: it is in `Results.failed` with its reason,
        and there is a warning.

    Raises:
        InputError: For bad input; nothing has been started then.
        InterruptionError: If something that is not the fault of a run, such as the death of Ray, ended the sweep.
        KeyboardInterrupt: If it was interrupted; runs have written checkpoints, and the same call resumes them.
    """
    choices = _choices(backbones, losses, lambdas, seeds, train, tests, metrics, settings, until_decided, max_seeds)
    name, spec = _read(what, choices)
    storage = _storage(results, name)
    sent = to_send(many(packages), "packages", cluster=bool(address) and not local)
    here: AbstractContextManager[Runner] = contextlib.nullcontext(run_all_here)
    observer = _observer(progress)
    outcome = carry_out(
        name,
        spec,
        storage,
        here if local else on_ray(address, observer, sent),
        observer,
        download=address is not None if fetch is None else fetch,
        retry=retry,
        retrain=retrain,
        rerun=rerun,
        rerun_stale=rerun_stale,
        keep_stale=keep_stale,
    )
    if outcome.interrupted:
        raise KeyboardInterrupt("the sweep was interrupted; the same call resumes it")
    for failed, consequence in (
        (outcome.failed, "retry=True repeats them"),
        (outcome.kept, "their previous results are kept"),
    ):
        for reason in list(failed.values())[:1]:
            _warn(f"{len(failed)} of {len(outcome.plan.runs)} runs failed, the first because {reason}; {consequence}")
    if told := outcome.out_of_budget():
        _warn(told)
    if remark := outcome.plan.to_retrain("retrain=True does that"):
        _warn(remark)
    return load_results(storage.root).of_runs(str(run.spec.run_id) for run in outcome.plan.runs)


def plan(
    what: Sweep,
    *,
    results: Folder | None = None,
    backbones: str | Iterable[str] = (),
    losses: str | Iterable[str] = (),
    lambdas: Lambdas = (),
    seeds: int | str | Iterable[int] = (),
    train: str | Sequence[str] | Mapping[str, Any] | None = None,
    tests: str | Iterable[str] = (),
    metrics: str | Iterable[str] = (),
    settings: Mapping[str, Any] | None = None,
    until_decided: str | Iterable[str] = (),
    max_seeds: int | None = None,
    progress: bool = False,
) -> Plan:
    """List the runs of a sweep and their status, like ``sgbench plan``, without starting anything.

    Args:
        what: See `sweep`, also for the other arguments.
        results: See `sweep`.
        backbones: See `sweep`.
        losses: See `sweep`.
        lambdas: See `sweep`.
        seeds: See `sweep`.
        train: See `sweep`.
        tests: See `sweep`.
        metrics: See `sweep`.
        settings: See `sweep`.
        until_decided: See `sweep`.
        max_seeds: See `sweep`.
        progress: Show the progress of packing images on standard error.

    Returns:
        The plan; a notebook shows it as a table, and `Plan.to_pandas` is that table.

    Raises:
        InputError: For bad input.
    """
    choices = _choices(backbones, losses, lambdas, seeds, train, tests, metrics, settings, until_decided, max_seeds)
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
    """Score runs, checkpoints, images or built-in methods on test sets, and store the scores, like ``sgbench eval``.

    Args:
        what: A run id, a checkpoint, a folder of super-resolved images or ``"bicubic"``; or several of these.
        tests: Test sets, ``NAME`` or ``NAME=DIR``.
        results: The results store, which is also searched for runs.
        metrics: Metrics.
        backbone: Backbone of a checkpoint that names none, or a plug-in, whose code is run only if it is named here.
        scale: 2, 3 or 4, for subjects that do not record their own scale.
        self_ensemble: Average a network's output over 8 rotations and reflections.
        tile: Side of the square tiles that save memory, in LR pixels; by default, the whole image.
        overlap: Margin around each tile, in LR pixels.
        save_images: Keep the super-resolved images in the store, as PNG.
        rerun: Recompute existing scores.
        progress: Show the progress of packing images and fetching networks on standard error.

    Returns:
        The results of what was scored. A score that fails raises nothing: it is in the results with its reason, and
        there is a warning, as there is for what cannot be used of several things.

    Raises:
        InputError: If a test set cannot be used, or nothing of ``what``; nothing has been written then.
    """
    subjects = [os.fspath(each) for each in ([what] if isinstance(what, str | os.PathLike) else what)]
    storage = _storage(results, "eval")
    done = evaluation.evaluate(
        subjects,
        many(tests),
        storage,
        _observer(progress),
        metrics=many(metrics),
        backbone=backbone,
        scale=scale,
        inference=Inference(self_ensemble, tile, overlap),
        save_images=save_images,
        rerun=rerun,
    )
    for fault in done.faults:
        _warn(fault)
    return load_results(storage.root).of_runs(done.run_ids)


def _choices(
    backbones: str | Iterable[str],
    losses: str | Iterable[str],
    lambdas: Lambdas,
    seeds: int | str | Iterable[int],
    train: str | Sequence[str] | Mapping[str, Any] | None,
    tests: str | Iterable[str],
    metrics: str | Iterable[str],
    settings: Mapping[str, Any] | None,
    until_decided: str | Iterable[str],
    max_seeds: int | None,
) -> Choices:
    return Choices(
        settings=settings or {},
        backbones=many(backbones),
        losses=many(losses),
        lambdas=lambdas if isinstance(lambdas, Mapping) else many(lambdas),
        seeds=many(seeds),
        train=train,
        tests=many(tests),
        metrics=many(metrics),
        questions=many(until_decided),
        max_seeds=max_seeds,
    )


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
