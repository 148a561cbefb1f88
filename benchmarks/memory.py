"""The most memory that a training step takes, by network and batch.

    python benchmarks/memory.py

Each row is a process of its own that trains for three steps, 48×48 LR patches, with L1. On a GPU it is what torch has
allocated at most, networks in `paper` size in fp32 and bf16; on a CPU what the process has grown by, in `tiny` size.
"""

import multiprocessing
import resource
import tempfile
from pathlib import Path

import harness
import torch
from train_step import FAMILIES, noise

from sgbench.core.storage import Storage
from sgbench.data import PackedImages
from sgbench.spec import Recipe

SIZES = {"cpu": "tiny", "cuda": "paper"}
PRECISIONS = {"cpu": ("fp32",), "cuda": ("fp32", "bf16")}
BATCHES = {"cpu": (4, 16), "cuda": (4, 16, 64)}
STEPS = 3


def peak(folder: Path, backbone: str, recipe: Recipe) -> float:
    """Train, and return the most memory that it took, in MB."""
    images = PackedImages.open(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as store:
        harness.step_seconds(backbone, recipe, images, Storage(store))
    if harness.device().type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6


def main() -> None:
    """Measure, print and write the table."""
    kind = harness.device().type
    families, batches = (FAMILIES[:1], BATCHES[kind][:1]) if harness.DRY_RUN else (FAMILIES, BATCHES[kind])
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = noise(Path(temporary)).path
        for family in families:
            for precision in PRECISIONS[kind]:
                row: dict[str, object] = {"network": f"{family}-{SIZES[kind]}", "precision": precision}
                for batch in batches:
                    recipe = Recipe(steps=STEPS, batch=batch, precision=precision)
                    with multiprocessing.get_context("spawn").Pool(1) as pool:
                        row[f"MB at batch {batch}"] = pool.apply(peak, (folder, row["network"], recipe))
                rows.append(row)
    harness.publish("memory", rows)


if __name__ == "__main__":
    main()
