"""The engine behind ``sgbench eval`` and `sgbench.evaluate`: scoring without training."""

from collections.abc import Sequence
from dataclasses import dataclass

from sgbench.assets.locator import Locator
from sgbench.core.errors import resumable
from sgbench.core.storage import Storage
from sgbench.data import PackedImages
from sgbench.runs.sweep import Observer, fetch_networks
from sgbench.scoring.evaluation import score_subject, unscored
from sgbench.scoring.subjects import Subject, find_subject, merged, pack_tests
from sgbench.scoring.upscaling import WHOLE, Inference
from sgbench.spec import check_metrics, check_tests
from sgbench.store import Store

METRICS = ("lpips_alex", "fid", "fd_alex", "psnr_y", "psnr_rgb", "ssim_y", "ssim_rgb")
"""The metrics to compute if none are named."""


@dataclass(frozen=True)
class Evaluated:
    """What was scored, and which scores failed."""

    subjects: list[Subject]
    tests: list[PackedImages]
    metrics: tuple[str, ...]
    faults: list[str]
    """A sentence for each score that failed."""


def evaluate(
    what: Sequence[str],
    tests: Sequence[str],
    storage: Storage,
    observer: Observer,
    *,
    metrics: Sequence[str] = METRICS,
    backbone: str | None = None,
    scale: int = 4,
    inference: Inference = WHOLE,
    save_images: bool = False,
    rerun: bool = False,
) -> Evaluated:
    """Score things on test sets, without training, and keep the scores in a store.

    Args:
        what: See `sgbench.scoring.subjects.find_subject`, also for ``backbone``, ``scale`` and ``inference``.
        tests: Test sets, written as in a sweep.
        storage: The results store, which is also searched for runs.
        observer: Shows what happens.
        metrics: Names of metrics.
        backbone: See `what`.
        scale: See `what`.
        inference: See `what`.
        save_images: Also keep the super-resolved images.
        rerun: Recompute existing scores.

    Raises:
        InputError: If a subject does not exist, or images cannot be used; nothing has been written then.
        InterruptionError: If storage or machine failed; the same call computes what is missing.
    """
    store, locator = Store(storage), Locator(download=False)
    store.refuse_other_folders()
    metrics = check_metrics(metrics)
    check_tests(tests)
    subjects = merged(find_subject(each, store, backbone=backbone, scale=scale, inference=inference) for each in what)
    with observer.packing() as progress:
        packed = [pack_tests(subject, tests, progress) for subject in subjects]
    locator.folders()  # refuses one that does not exist, before anything is written
    faults = []
    with store.writing(f"sgbench eval {' '.join(what)}"):
        fetch_networks(metrics, (), storage, observer)
        for subject, images in zip(subjects, packed, strict=True):
            missing = unscored(subject, images, metrics, store, locator=locator)
            wanted = [(each, metrics) for each in images] if rerun else missing
            with resumable("the evaluation"):
                found = score_subject(subject, wanted, store, locator=locator, save_images=save_images)
            faults += [f"{subject.name}: {fault}" for fault in found]
    return Evaluated(subjects, packed[0], metrics, faults)
