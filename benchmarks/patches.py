"""How fast training patches come from the packed images, beside decoding a PNG for each, and what packing costs.

    python benchmarks/patches.py
    python benchmarks/patches.py --images DIV2K/DIV2K_train_HR

Batches of 16 pairs, 48×48 and 192×192 pixels (×4), turned at random, in one thread. The peers do what a PyTorch data
set without a cache does for each patch: open a random file and its low-resolution one, decode both, and cut. The files
are whole images, or sub-images of 480×480 as they are usually cut beforehand.
"""

import argparse
import functools
import itertools
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import harness
import numpy as np
from PIL import Image

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
from sgbench.spec import Degradation, Window

SCALE, PATCH, BATCH = 4, 48, 16

MOST_IMAGES = 24
"""More would only make the peers' files take longer to write."""

Pair = tuple[Path, Path]
"""A low-resolution file and its high-resolution one."""


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


def decoded_batch(pairs: Sequence[Pair], random: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Decode two files for each patch, and cut and turn it."""
    lr = np.empty((BATCH, 3, PATCH, PATCH), np.uint8)
    hr = np.empty((BATCH, 3, PATCH * SCALE, PATCH * SCALE), np.uint8)
    for i in range(BATCH):
        small, large = (np.asarray(Image.open(path).convert("RGB")) for path in pairs[random.integers(len(pairs))])
        top, left = (int(random.integers(side - PATCH + 1)) for side in small.shape[:2])
        turns = int(random.integers(4))
        for batch, pixels, scale in ((lr, small, 1), (hr, large, SCALE)):
            cut = pixels[top * scale : (top + PATCH) * scale, left * scale : (left + PATCH) * scale]
            batch[i] = np.rot90(cut, turns).transpose(2, 0, 1)
    return lr, hr


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, help=f"a folder, {MOST_IMAGES} of its images; else the demo set")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    images = list_images(arguments.images) if arguments.images else resolve("demo", "train").images
    images = [path for path in images if min(image_size(path)) >= PATCH * SCALE][:MOST_IMAGES]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            path, seconds, growth = pool.apply(packed_in, (folder, images))
        packed = PackedImages.open(path)
        sampler = PatchSampler(packed, patch=PATCH, batch=BATCH, seed=0, augment=True, window=None)
        steps = itertools.count()
        candidates = {"packed": lambda: sampler.batch(next(steps))}
        for name, window in (("a PNG a patch", None), ("a 480×480 PNG a patch", Window())):
            pairs = as_files(packed, folder / name, window)
            candidates[name] = functools.partial(decoded_batch, pairs, np.random.default_rng(0))
        taken = harness.take_turns(candidates, rounds=arguments.rounds, calls=2)
    rows = [
        {
            "patches from": name,
            "patches/s": BATCH / float(np.median(taken[name])),
            "packed is faster by": harness.ratio(taken, name, "packed")["median"],
        }
        for name in candidates
    ]
    megapixels = sum(image.height * image.width for image in packed.images) / 1e6
    harness.publish(
        "patches",
        rows,
        notes=[
            f"{len(packed)} images of {megapixels / len(packed):.2f} megapixels on average.",
            f"Packing took {seconds:.1f} s, {seconds / megapixels:.3f} s a megapixel, and {growth:.0f} MB of memory.",
        ],
        pillow=Image.__version__,
    )


if __name__ == "__main__":
    main()
