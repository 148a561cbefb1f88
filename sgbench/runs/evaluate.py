"""The engine behind ``sgbench eval`` and `sgbench.evaluate`: scoring without training."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sgbench.assets.locator import Locator
from sgbench.core.errors import InputError, resumable
from sgbench.core.storage import Storage
from sgbench.core.words import some
from sgbench.data import PackedImages, PackProgress
from sgbench.runs.sweep import Observer, fetch_networks
from sgbench.scoring.evaluation import score_subject, unscored
from sgbench.scoring.subjects import Subject, distinct, find_subject, merged, pack_test
from sgbench.scoring.upscaling import WHOLE, FromFolder, Inference
from sgbench.spec import check_distinct, check_metrics, check_scorable
from sgbench.spec.sources import Sources
from sgbench.store import Store

METRICS = ("lpips_alex", "fid", "fd_alex", "psnr_y", "psnr_rgb", "ssim_y", "ssim_rgb")
"""The metrics to compute if none are named."""


@dataclass(frozen=True)
class Evaluated:
    """What was scored, and what could not be."""

    run_ids: list[str]
    tests: list[str]
    """Names of the test sets."""
    metrics: tuple[str, ...]
    remarks: list[str]
    """How files of folders were matched with images, if not by their names."""
    faults: list[str]
    """A sentence for each subject, or test set of one, that was left out, and for each score that failed."""


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

    What cannot be used of several subjects, or of one on several test sets, is left out, and the rest is scored.

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
        InputError: If nothing of it can be scored, or a test set cannot be used; nothing has been written then.
        InterruptionError: If storage or machine failed; the same call computes what is missing.
    """
    store, locator = Store(storage), Locator(download=False)
    store.refuse_other_folders()
    metrics = check_metrics(metrics)
    check_distinct(tests, "test set")
    if not save_images:
        check_scorable(tests, metrics)
    left_out: list[tuple[str, InputError]] = []
    found = []
    for each in what:
        try:
            found.append(find_subject(each, store, backbone=backbone, scale=scale, inference=inference))
        except InputError as error:
            left_out.append((each, error))
    subjects = distinct(merged(found), store)
    with observer.packing() as progress:
        packed, refused = _packed(subjects, tests, progress)
    left_out += refused
    wanted, remarks, refused = _matched(subjects, packed)
    left_out += refused
    if not wanted:
        raise _nothing_left(left_out, observer)
    locator.folders()  # refuses one that does not exist, before anything is written
    for remark in remarks:
        observer.say(remark)
    faults = _told(left_out)
    code = Sources().of_metrics(metrics)
    with store.writing(f"sgbench eval {' '.join(what)}"):
        fetch_networks(metrics, (), storage, observer)
        for subject in subjects:
            images = [images for of, images in wanted if of is subject]
            missing = unscored(subject, images, metrics, store, locator=locator)
            asked = [(each, metrics) for each in images] if rerun else missing
            with resumable("the evaluation"):
                failed = score_subject(subject, asked, store, locator=locator, code=code, save_images=save_images)
            faults += [f"{subject.name}: {fault}" for fault in failed]
    run_ids = dict.fromkeys(subject.run_id for subject, _ in wanted)
    names = dict.fromkeys(images.name for _, images in wanted)
    return Evaluated(list(run_ids), list(names), metrics, remarks, faults)


LeftOut = list[tuple[str, InputError]]
"""Names of subjects, each with why it, or a test set for it, cannot be used."""

Pairs = list[tuple[Subject, PackedImages]]
"""Subjects, each with a test set."""


def _packed(subjects: Sequence[Subject], tests: Sequence[str], progress: PackProgress) -> tuple[Pairs, LeftOut]:
    """Pack every test set for every subject.

    Raises:
        InputError: If a test set can be packed for none.
    """
    pairs, left_out = [], []
    for test in tests:
        refused = []
        for subject in subjects:
            try:
                pairs.append((subject, pack_test(subject, test, progress)))
            except InputError as error:
                refused.append((subject.name, error))
        if refused and len(refused) == len(subjects):
            raise refused[0][1]
        left_out += refused
    return pairs, left_out


def _matched(subjects: Sequence[Subject], pairs: Pairs) -> tuple[Pairs, list[str], LeftOut]:
    """Return which subjects have what a test set needs, and how files of folders were matched with its images."""
    fit, remarks, left_out = [], [], []
    for subject in subjects:
        unused: list[set[str]] = []
        told = []
        for images in (images for of, images in pairs if of is subject):
            try:
                upscaler = subject.upscaler(images)
            except InputError as error:
                left_out.append((subject.name, error))
                continue
            fit.append((subject, images))
            if isinstance(upscaler, FromFolder):
                unused.append({path.name for path in upscaler.pairing.unused})
                told += [f"{subject.name} on {images.name}: {upscaler.pairing}"] if upscaler.pairing.by_stem else []
        if told and (left := sorted(set.intersection(*unused))):
            told.append(f"{subject.name}: no image for {some(left)}")
        remarks += told
    return fit, remarks, left_out


def _nothing_left(left_out: LeftOut, observer: Observer) -> InputError:
    """Return the first error, and tell the others."""
    first = left_out[0][1]
    for other in _told(each for each in left_out[1:] if str(each[1]) != str(first)):
        observer.warn(other)
    return first


def _told(left_out: Iterable[tuple[str, InputError]]) -> list[str]:
    return [str(error) if name in str(error) else f"{name}: {error}" for name, error in left_out]
