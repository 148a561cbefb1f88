"""The one path by which anything that upscales is scored on test sets."""

import contextlib
import datetime
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from sgbench.assets.locator import Locator
from sgbench.core.errors import InputError, described, machine_fault
from sgbench.core.status import ScoreStatus
from sgbench.core.storage import Storage
from sgbench.data import PackedImages, Pairing, Pixels, encode_png
from sgbench.metrics import METRICS, HrCache, Measured, Pair, Score, Suite
from sgbench.metrics.base import mean_of
from sgbench.scoring.outcomes import Outcomes
from sgbench.scoring.provenance import provenance
from sgbench.scoring.subjects import Subject
from sgbench.scoring.upscaling import FromFolder, Upscaler, check_size
from sgbench.spec import canonical_json
from sgbench.spec.sources import Code
from sgbench.store import Dataset, Store
from sgbench.store.layout import image_of
from sgbench.store.rows import ScoreRow
from sgbench.training.numerics import device_of_process, pinned, single_precision

HR_CACHE = HrCache()
"""What this process has computed for references, once for all the runs it does."""

SIDE_BY_SIDE = 4
"""The most images scored at once, as each keeps the feature maps of a pair in memory."""


def score_subject(
    subject: Subject,
    wanted: Iterable[tuple[PackedImages, Sequence[str]]],
    store: Store,
    *,
    locator: Locator,
    code: Code | None = None,
    save_images: bool = False,
    on_rows: Callable[[Sequence[ScoreRow]], object] = lambda rows: None,
) -> list[str]:
    """Compute scores of a subject and record them, one test set at a time.

    Args:
        subject: The subject to score.
        wanted: Test sets, each with the metrics to compute.
        store: Receives the scores and, unless the subject is a run, its row. The current name replaces an older one.
        locator: Finds the networks that metrics need.
        code: The code of metrics that are not built in, by name.
        save_images: Also keep the super-resolved images in the store, as
            ``images/<run_id>/<test set>@<8 digits of its hash>/<image>.png``.
        on_rows: Called with scores once they are recorded.

    Returns:
        A sentence for each score that failed. A score that lacks pretrained weights, or is undefined, is not a failure.
    """
    device, known = device_of_process(), store.run(subject.run_id) or {}
    if subject.row is not None and known.get("name", subject.name) != subject.name:
        store.write_run({**known, "name": subject.name})
    faults = []
    for images, metrics in wanted:
        upscaler = subject.upscaler(images)
        if isinstance(upscaler, FromFolder) and upscaler.pairing.by_stem:
            known["files"] = _with_files(known.get("files"), images, upscaler.pairing)
        if save_images:
            upscaler = _saving(upscaler, subject.run_id, store.storage)
        with pinned(subject.recipe) if subject.train else single_precision():
            if metrics:
                rows = score(
                    upscaler,
                    images,
                    metrics,
                    run_id=subject.run_id,
                    locator=locator,
                    device=device,
                    code=code,
                    side_by_side=subject.side_by_side,
                )
                if subject.row is not None:
                    store.write_run({**known, **subject.row, **provenance(device)})
                store.write_scores(rows)
                on_rows(rows)
                faults += faults_of(rows)
            elif save_images:
                for index in range(len(images)):
                    upscaler(images, index)
    return faults


def unscored(
    subject: Subject, tests: Iterable[PackedImages], metrics: Sequence[str], store: Store, *, locator: Locator
) -> list[tuple[PackedImages, list[str]]]:
    """Return test sets, each with the metrics whose scores of a subject are missing or failed.

    Args:
        subject: The subject to score.
        tests: The test sets.
        metrics: Names of metrics.
        store: The store with the scores.
        locator: Finds networks; a score that lacked one counts as missing once it is available.
    """
    outcomes = Outcomes(store, retry=True, locator=locator)
    return [
        (images, [metric for _, metric in outcomes.missing(subject.run_id, [(images, metric) for metric in metrics])])
        for images in tests
    ]


def _with_files(known: str | None, images: PackedImages, pairing: Pairing) -> str:
    """Add the files of a folder that belong to images of a test set, though they have other names."""
    files = {name: pairing.files[name].name for name in pairing.by_stem}
    return json.dumps({**json.loads(known or "{}"), Dataset(images.name, images.sha256).versioned: files})


def _saving(upscaler: Upscaler, run_id: str, storage: Storage) -> Upscaler:
    """Return an upscaler that also saves its output."""

    def saving(images: PackedImages, index: int) -> Pixels:
        pixels = upscaler(images, index)
        dataset = Dataset(images.name, images.sha256).versioned
        storage.write(image_of(run_id, dataset, images.images[index].name), encode_png(pixels))
        return pixels

    return saving


def score(
    upscaler: Upscaler,
    images: PackedImages,
    metrics: Sequence[str],
    *,
    run_id: str,
    locator: Locator,
    device: torch.device,
    code: Code | None = None,
    hr_cache: HrCache = HR_CACHE,
    side_by_side: bool = False,
) -> list[ScoreRow]:
    """Score an upscaler on a test set, under the torch settings of the caller.

    Args:
        upscaler: The upscaler to score.
        images: The test set.
        metrics: Names of metrics.
        run_id: Run id for the rows.
        locator: Finds the weights that metrics need.
        device: Where the metrics' networks run.
        code: The code of metrics that are not built in, by name.
        hr_cache: Keeps what was computed for references between calls.
        side_by_side: Score up to `SIDE_BY_SIDE` images at once, each with a share of torch's threads; for upscalers
            that are thread-safe. Decoding and SSIM, for example, do not use torch's threads.

    Returns:
        The scores: one per image and their mean for image metrics, one for set metrics. An image that cannot be read or
        upscaled, or has the wrong size, gets failed scores; the others are scored.

    Raises:
        Exception: A fault of storage or machine; no score is to be recorded then.
    """
    degradation = images.degradation
    suite = Suite(metrics, locator, str(device), hr_cache, has_hr=images.has_hr, degradation=degradation)
    upscaling: dict[str | None, float] = {}

    def measure(index: int) -> Measured:
        image = images.images[index]
        name, hr = image.name, images.hr(index).transpose(2, 0, 1) if images.has_hr else None
        began = time.perf_counter()
        try:
            sr = upscaler(images, index)
            upscaling[name] = time.perf_counter() - began
            height, width, _ = sr.shape
            check_size(image, (width, height), images)
            pair = Pair(name, sr.transpose(2, 0, 1), hr, images.scale, images.lr(index).transpose(2, 0, 1))
        except Exception as error:  # such as a GPU that runs out of memory
            if machine_fault(error):
                raise
            ours = isinstance(error, InputError | ArithmeticError)
            return suite.failed(name, str(error).rstrip(".") if ours else described(error))
        return suite.measure(pair)

    with _mapping(min(SIDE_BY_SIDE, torch.get_num_threads()) if side_by_side else 1) as mapped:
        for measured in mapped(measure, range(len(images))):
            suite.add(measured)
    upscaling[None] = sum(upscaling.values())
    now = datetime.datetime.now(datetime.UTC)
    rows: list[ScoreRow] = [
        {
            "run_id": run_id,
            "dataset": images.name,
            "dataset_sha256": images.sha256,
            "image": result.image,
            "metric": result.metric,
            "metric_version": result.version,
            "metric_code": (code or {}).get(result.metric),
            "protocol": canonical_json({**result.protocol, "direction": METRICS.load(result.metric).direction}),
            "n_images": result.n_images,
            "value": result.score.value,
            "standard_error": result.score.standard_error,
            "status": result.score.status,
            "reason": result.score.reason,
            "seconds": result.seconds,
            "upscaling_seconds": upscaling.get(result.image),
            "scored": now,
        }
        for result in suite.results()
    ]
    return rows + _means(rows, upscaling[None])


@contextlib.contextmanager
def _mapping(at_once: int) -> Iterator[Callable[[Callable[[int], Measured], range], Iterator[Measured]]]:
    """Yield an ordered `map`, run by this thread or by several that share its torch threads."""
    if at_once == 1:
        yield map
        return
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(threads // at_once,)) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(threads)


def faults_of(rows: Sequence[ScoreRow]) -> list[str]:
    """Return a sentence for each whole-set score that failed.

    A score that lacks pretrained weights, or is undefined, is not a failure.
    """
    failed = [row for row in rows if row["status"] == ScoreStatus.FAILED and row["image"] is None]
    return [f"{row['metric']} on {row['dataset']}: {row['reason']}" for row in failed]


def _means(rows: Sequence[ScoreRow], upscaling: float) -> list[ScoreRow]:
    """Return the whole-set row of each image metric, given how long it took to make all images."""
    by_metric: dict[str, dict[str, ScoreRow]] = {}
    for row in rows:
        if row["image"] is not None:
            by_metric.setdefault(row["metric"], {})[row["image"]] = row
    means: list[ScoreRow] = []
    for images in by_metric.values():
        score = mean_of({name: Score(row["value"], row["status"], row["reason"]) for name, row in images.items()})
        seconds = sum(row["seconds"] or 0.0 for row in images.values())
        whole: ScoreRow = {**next(iter(images.values())), "image": None, "n_images": len(images), "seconds": seconds}
        whole["upscaling_seconds"] = upscaling
        means.append({**whole, "value": score.value, "status": score.status, "reason": score.reason})
    return means
