"""How fast training patches come from packed images, compared with decoding PNG files, and how long a step waits.

    python benchmarks/patches.py
    python benchmarks/patches.py --images DIV2K/DIV2K_train_HR

Batches of 16 pairs, 48×48 and 192×192 pixels (×4), rotated at random, in one thread. The peers do what a PyTorch data
set without a cache does for each patch: read a random image and its low-resolution one, decode both, and cut. They read
files of whole images, or sub-images of 480×480 as they are usually cut beforehand, as files or in an LMDB.

A step waits for its patches from when it asks for them until they are floats on the device. That is compared with the
steps of the training loop itself; a GPU, which gets the next step while it does the last, waits for less.
"""

import argparse
import functools
import io
import itertools
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import harness
import lmdb
import numpy as np
import torch
from PIL import Image

from sgbench.core.storage import Storage
from sgbench.data import (
    PackedImages,
    PatchSampler,
    Pixels,
    Source,
    image_size,
    list_images,
    prepare,
    resolve,
    windows,
    write_png,
)
from sgbench.spec import Degradation, Recipe, Window
from sgbench.training.feeding import nearest
from sgbench.training.loop import as_images

SCALE, PATCH, BATCH = 4, 48, 16

MOST_IMAGES = 24
"""More would only make the peers' files take longer to write."""

NETWORKS = {"cpu": ("edsr-tiny", "edsr-light"), "cuda": ("edsr-light", "edsr-paper")}
"""Whose steps wait, by the kind of device."""

STEPS = {"cpu": 4, "cuda": 400}
"""Steps of a turn. The loop reads the clock a hundred times, and should not wait for a GPU after every step."""

Pair = tuple[Path, Path]
"""A low-resolution file and its high-resolution one."""

Read = Callable[[int], tuple[Pixels, Pixels]]
"""Decodes a pair by its number."""


def packed_in(cache: Path, images: Sequence[Path]) -> tuple[Path, float, float]:
    """Prepare images, and return where, in how many seconds, and how many MB the process grew for it."""
    before, began = peak_mb(), time.perf_counter()
    source = Source("benchmark", "train", tuple(images))
    packed = prepare(source, scale=SCALE, degradation=Degradation(), cache=cache)
    return packed.path, time.perf_counter() - began, peak_mb() - before


def peak_mb() -> float:
    """Return the most memory that this process has had, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def as_files(packed: PackedImages, folder: Path, window: Window | None) -> list[Pair]:
    """Write the images, or their windows, as PNG files."""
    pairs = []
    for index, image in enumerate(packed.images):
        for top, left, height, width in windows(image.height, image.width, window):
            pair = (folder / "lr" / f"{len(pairs)}.png", folder / "hr" / f"{len(pairs)}.png")
            for path, pixels, scale in zip(pair, (packed.lr(index), packed.hr(index)), (SCALE, 1), strict=True):
                rows, columns = (
                    slice(start // scale, (start + size) // scale) for start, size in ((top, height), (left, width))
                )
                write_png(path, pixels[rows, columns])
            pairs.append(pair)
    return pairs


def from_files(pairs: Sequence[Pair]) -> Read:
    """Return what decodes a pair of files."""

    def read(number: int) -> tuple[Pixels, Pixels]:
        lr, hr = (np.asarray(Image.open(path).convert("RGB")) for path in pairs[number])
        return lr, hr

    return read


def from_lmdb(pairs: Sequence[Pair], path: Path) -> Read:
    """Put the bytes of files into an LMDB, and return what decodes a pair of them."""
    room = 2 * sum(file.stat().st_size for pair in pairs for file in pair) + 2**20
    with lmdb.open(str(path), map_size=room) as database, database.begin(write=True) as transaction:
        for number, pair in enumerate(pairs):
            for kind, file in zip(("lr", "hr"), pair, strict=True):
                transaction.put(f"{kind}-{number}".encode(), file.read_bytes())
    transaction = lmdb.open(str(path), readonly=True, lock=False, readahead=False).begin(buffers=True)

    def read(number: int) -> tuple[Pixels, Pixels]:
        stored = (transaction.get(f"{kind}-{number}".encode()) for kind in ("lr", "hr"))
        lr, hr = (np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for png in stored)
        return lr, hr

    return read


def decoded_batch(read: Read, pairs: int, random: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Decode a pair for each patch, and cut and rotate it."""
    lr = np.empty((BATCH, 3, PATCH, PATCH), np.uint8)
    hr = np.empty((BATCH, 3, PATCH * SCALE, PATCH * SCALE), np.uint8)
    for i in range(BATCH):
        small, large = read(int(random.integers(pairs)))
        top, left = (int(random.integers(side - PATCH + 1)) for side in small.shape[:2])
        turns = int(random.integers(4))
        for batch, pixels, scale in ((lr, small, 1), (hr, large, SCALE)):
            cut = pixels[top * scale : (top + PATCH) * scale, left * scale : (left + PATCH) * scale]
            batch[i] = np.rot90(cut, turns).transpose(2, 0, 1)
    return lr, hr


def measure_sources(sampler: PatchSampler, folder: Path, rounds: int) -> list[dict[str, object]]:
    """Time batches from the packed images and from each peer, and return rows."""
    packed, steps = sampler.images, itertools.count()
    candidates: dict[str, Callable[[], object]] = {"packed images": lambda: sampler.batch(next(steps))}
    whole = as_files(packed, folder / "whole", None)
    parts = as_files(packed, folder / "parts", Window())
    for name, read, pairs in (
        ("a PNG a patch", from_files(whole), whole),
        ("a 480×480 PNG a patch", from_files(parts), parts),
        ("a 480×480 PNG a patch, in an LMDB", from_lmdb(parts, folder / "lmdb"), parts),
    ):
        candidates[name] = functools.partial(decoded_batch, read, len(pairs), np.random.default_rng(0))
    taken = harness.take_turns(candidates, rounds=rounds, calls=2)
    return [
        {
            "patches from": name,
            "patches/s": BATCH / statistics.median(taken[name]),
            "packed is faster by": harness.ratio(taken, name, "packed images")["median"],
            harness.AIM: "≥ 20×" if name == "a PNG a patch" else None,
        }
        for name in candidates
    ]


def measure_waiting(sampler: PatchSampler, backbone: str, scratch: Storage, rounds: int) -> dict[str, object]:
    """Time the patches of a step and the steps of the training loop, and return a row."""
    device = harness.device()
    recipe = Recipe(steps=1 if harness.DRY_RUN else STEPS[device.type])
    source, steps = nearest(sampler, device), itertools.count()

    def patches() -> None:
        for pixels in source.batch(next(steps)):
            as_images(pixels, device, recipe.memory_format)

    waits, takes = [], []
    for _ in range(rounds):
        waits.append(statistics.median(harness.take_turns({"patches": patches}, rounds=9)["patches"]))
        takes.append(harness.step_seconds(backbone, recipe, sampler.images, scratch))
    share = [100 * wait / step for wait, step in zip(waits, takes, strict=True)]
    return {
        "a step of": backbone,
        "ms a step": 1e3 * statistics.median(takes),
        "ms for its patches": 1e3 * statistics.median(waits),
        "share, %": statistics.median(share),
        harness.AIM: "< 3%",
    }


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, help=f"a folder, {MOST_IMAGES} of its images; else the demo set")
    parser.add_argument("--network", action="append", help="whose steps wait (repeatable)")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = list_images(arguments.images) if arguments.images else resolve("demo", "train").images
    images = [path for path in images if min(image_size(path)) >= PATCH * SCALE][:MOST_IMAGES]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            path, seconds, growth = pool.apply(packed_in, (folder, images))
        packed = PackedImages.open(path)
        sampler = PatchSampler(packed, patch=PATCH, batch=BATCH, seed=0, augment=True, window=None)
        sources = measure_sources(sampler, folder, arguments.rounds)
        networks, scratch = arguments.network or NETWORKS[harness.device().type], Storage(str(folder / "store"))
        waiting = [measure_waiting(sampler, network, scratch, rounds=3) for network in networks]
    megapixels = sum(image.height * image.width for image in packed.images) / 1e6
    what = f"{len(packed)} images of {megapixels / len(packed):.2f} megapixels on average."
    notes = [
        what,
        f"Packing took {seconds:.1f} s, {seconds / megapixels:.3f} s a megapixel, and {growth:.0f} MB of memory.",
    ]
    harness.publish("patches", sources, notes=notes, pillow=Image.__version__, lmdb=version("lmdb"))
    harness.publish("patches-waiting", waiting, notes=[what, "fp32, the loss is l1."])


if __name__ == "__main__":
    main()
