"""From something that upscales, and a test set, to scores.

What is scored is a function from a low-resolution image to a super-resolved one, both uint8: a network, a built-in
method, or files that somebody else made.
"""

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sgbench.data import PackedImage, PackedImages, image_size, list_images, read_image, upscale
from sgbench.errors import InputError
from sgbench.metrics import HrCache, Pair, Suite, check_sizes, described
from sgbench.metrics.weights import Locator
from sgbench.registry import METRICS
from sgbench.spec import Recipe, canonical_json
from sgbench.training.numerics import FORMATS

Pixels = NDArray[np.uint8]
Upscaler = Callable[[PackedImages, int], Pixels]
"""Returns the super-resolved image, uint8 H×W×3, of one image of a test set."""

SUFFIXES = ("", "x{scale}", "_x{scale}", "_SR", "_sr", "SR", "_out")
"""What the name of a super-resolved file may have after the name of its reference."""


def bicubic(images: PackedImages, index: int) -> Pixels:
    """Upscale with MATLAB's bicubic `imresize`, the baseline of every table."""
    return upscale(images.lr(index), images.scale)


BUILTINS: Mapping[str, Upscaler] = {"bicubic": bicubic}
"""Methods that need no training."""


def from_network(network: nn.Module, recipe: Recipe, device: torch.device) -> Upscaler:
    """Return the upscaler that a trained network is: float32, whole images, clamped and rounded to uint8.

    Args:
        network: Maps [1, 3, H, W] in [0, 1] to [1, 3, scale·H, scale·W].
        recipe: Of its training; its memory format is used here too.
        device: Where to run it.
    """
    memory_format = FORMATS[recipe.memory_format]
    network = network.to(device).to(memory_format=memory_format).eval()

    def upscaler(images: PackedImages, index: int) -> Pixels:
        lr = torch.from_numpy(images.lr(index).copy()).permute(2, 0, 1)[None].to(device)
        with torch.inference_mode():
            sr = network(lr.to(torch.float32, memory_format=memory_format).div_(255.0))[0]
        if not torch.isfinite(sr).all():
            raise ArithmeticError("the network's output holds NaN or infinite values")
        pixels: Pixels = sr.clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        return pixels

    return upscaler


def from_folder(folder: Path, tests: Sequence[PackedImages]) -> Upscaler:
    """Return the upscaler that reads files made by somebody else.

    A file belongs to the reference whose name it has, with or without one of `SUFFIXES`.

    Args:
        folder: Holds a super-resolved image for every image of the tests.
        tests: The test sets, of one scale.

    Raises:
        InputError: If an image has no file, naming the first such images, or a file has another size than its
            reference.
    """
    files: dict[str, Path] = {}
    for path in list_images(folder):
        if (taken := files.setdefault(path.stem, path)) != path:
            raise InputError(f"'{taken.name}' and '{path.name}' in '{folder}' have the same name; remove one.")
    found: dict[tuple[str, str], Path] = {}
    missing = []
    suffixes = [suffix.format(scale=tests[0].scale) for suffix in SUFFIXES]
    for test in tests:
        for image in test.images:
            names = [image.name + suffix for suffix in suffixes if image.name + suffix in files]
            if names:
                found[test.name, image.name] = files[names[0]]
                _check_file(files[names[0]], image, test.scale)
            else:
                missing.append(image.name)
    if missing:
        listed = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise InputError(
            f"'{folder}' has no super-resolved image for {listed}; a file must have its reference's name, "
            f"which may be followed by one of {', '.join(suffix for suffix in suffixes if suffix)}."
        )
    return lambda images, index: read_image(found[images.name, images.images[index].name])


def _check_file(path: Path, reference: PackedImage, scale: int) -> None:
    """Refuse a super-resolved file of another size; one that cannot be read is left to become a failed score."""
    try:
        height, width = image_size(path)
    except InputError:
        return
    check_sizes(reference.name, (width, height), (reference.width, reference.height), scale)


def score(
    upscaler: Upscaler,
    images: PackedImages,
    metrics: Sequence[str],
    *,
    run_id: str,
    locator: Locator,
    device: torch.device,
    hr_cache: HrCache | None = None,
) -> list[dict[str, Any]]:
    """Score an upscaler on a test set, with the settings of torch that the caller has made.

    Args:
        upscaler: What is scored.
        images: The test set.
        metrics: Names of metrics.
        run_id: Enters the rows.
        locator: Finds the weights that metrics need.
        device: Where the metrics' networks run.
        hr_cache: Keeps what is known of references between calls.

    Returns:
        Rows of `sgbench.results.schema.SCORES`: for metrics of images one for each image and their mean, for metrics of
        sets one. An image that cannot be upscaled or read has ``failed`` scores, and the others go on.

    Raises:
        InputError: If a super-resolved image has not the size of its reference.
    """
    suite = Suite(metrics, locator, str(device), hr_cache)
    for index, image in enumerate(images.images):
        try:
            sr = upscaler(images, index)
        except Exception as error:  # a plug-in may raise anything, and so may a GPU without room for a large image
            ours = isinstance(error, InputError | ArithmeticError)
            suite.add_failure(image.name, str(error) if ours else described(error))
            continue
        pair = Pair(image.name, sr.transpose(2, 0, 1), images.hr(index).transpose(2, 0, 1), images.scale)
        suite.add(pair)
    now = datetime.datetime.now(datetime.UTC)
    rows = [
        {
            "run_id": run_id,
            "dataset": images.name,
            "dataset_sha256": images.sha256,
            "image": result.image,
            "metric": result.metric,
            "metric_version": result.version,
            "protocol": canonical_json({**result.protocol, "direction": METRICS.load(result.metric).direction}),
            "n_images": result.n_images,
            "value": result.score.value,
            "status": result.score.status,
            "reason": result.score.reason,
            "scored": now,
        }
        for result in suite.results()
    ]
    return rows + _means(rows)


def faults_in(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a sentence for each whole-set score that failed.

    A score that lacks the weights of its network, or that a metric does not define, is an outcome and not a fault.
    """
    failed = [row for row in rows if row["status"] == "failed" and row["image"] is None]
    return [f"{row['metric']} on {row['dataset']}: {row['reason']}" for row in failed]


def _means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the row for the whole set of each metric that has a value for each image.

    A set in which an image has no value has none either: the mean over the rest would be another set's.
    """
    by_metric: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["image"] is not None:
            by_metric.setdefault(row["metric"], []).append(row)
    means = []
    for images in by_metric.values():
        bad = [row for row in images if row["status"] != "ok"]
        whole = {**images[0], "image": None, "n_images": len(images), "value": None}
        if not bad:
            whole["value"] = math.fsum(row["value"] for row in images) / len(images)
        elif bad[0]["status"] == "no weights":
            whole |= {"reason": bad[0]["reason"], "status": "no weights"}
        else:
            whole |= {"reason": f"image '{bad[0]['image']}': {bad[0]['reason']}", "status": bad[0]["status"]}
        means.append(whole)
    return means
