"""How many small runs to do at once on a machine: one after another on all cores, or side by side on one core each.

    python benchmarks/lanes.py
    python benchmarks/lanes.py --images DIR

Every layout does the same runs, edsr-tiny with the recipe of `quick`, in processes of its own as a sweep does. On a CPU
a layout is a number of lanes and of threads in each, with or without a dedicated core for each lane; on a GPU it is how
many lanes share the card, as with ``--set gpus=0.25``. All processes read every pixel of the same packed images, and
Linux says how much memory that takes, in each process and in all together.
"""

import argparse
import functools
import math
import multiprocessing
import os
import re
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import harness
import torch

from sgbench.core.storage import Storage
from sgbench.data import PackedImages, Source, list_images, prepare, resolve
from sgbench.runs.plan import read_sweep
from sgbench.spec import Degradation, Recipe, RunSpec, TrainingData
from sgbench.training import Checkpoints, train

CORES = min(os.cpu_count() or 1, 8)
"""More would only need more runs to fill them."""

STEPS = {"cpu": 25, "cuda": 300}
"""Of a run."""


@dataclass(frozen=True)
class Layout:
    """How runs share a machine."""

    lanes: int
    threads: int
    pinned: bool = False
    """Whether each lane is pinned to its own core."""

    def __str__(self) -> str:
        text = f"{self.lanes} lane{'s' * (self.lanes > 1)} × {self.threads} thread{'s' * (self.threads > 1)}"
        return f"{text}, a core each" if self.pinned else text


ALONE = Layout(1, 1)
"""One run after another on one core, while the others have nothing to do."""

LAYOUTS = {
    "cpu": (ALONE, Layout(1, CORES), Layout(CORES, 1), Layout(CORES, 1, pinned=True), Layout(2 * CORES, 1)),
    "cuda": (ALONE, Layout(2, 1), Layout(4, 1), Layout(8, 1)),
}
"""The layouts to compare, by the kind of device."""

BASES = {"cpu": Layout(1, CORES), "cuda": ALONE}
"""One run after another."""

DEFAULTS = {"cpu": Layout(CORES, 1), "cuda": ALONE}
"""What a sweep does by default."""


@dataclass(frozen=True)
class Memory:
    """What a process has, in MB."""

    private: float
    """Not shared with others: what one more process of this kind takes."""
    mapped: float
    """Pixels of the packed images, which it may share."""
    part: float
    """Its share of these pixels, each page divided by the number of processes that share it."""
    gpu: float
    """GPU memory that torch has allocated."""


def memory() -> Memory:
    """Return the memory of this process, as Linux reports it."""
    private = mapped = part = 0
    of_images = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match(r"(\w+): +(\d+) kB", line):
            key, size = match[1], 1024 * int(match[2])
            private += size * key.startswith("Private_")
            mapped += size * (of_images and key == "Rss")
            part += size * (of_images and key == "Pss")
        elif re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            of_images = line.endswith(("/hr.bin", "/lr.bin"))
    return Memory(private / 1e6, mapped / 1e6, part / 1e6, torch.cuda.memory_reserved() / 1e6)


@functools.cache
def opened(folder: Path) -> PackedImages:
    """Open packed images and read every pixel, once in a process."""
    packed = PackedImages.open(folder)
    for index in range(len(packed)):
        packed.hr(index).max(), packed.lr(index).max()
    return packed


def do_runs(folder: Path, store: str, recipe: Recipe, seeds: Sequence[int]) -> None:
    """Train a network for each seed, one after the other."""
    packed = opened(folder)
    for seed in seeds:
        data = TrainingData(name=packed.name, sha256=packed.sha256)
        spec = RunSpec(backbone="edsr-tiny", loss="l1", seed=seed, train=data, recipe=recipe)
        checkpoints = Checkpoints(Storage(store), str(spec.run_id))
        train(spec, packed, checkpoints, device=harness.device(), checkpoint_seconds=math.inf)


class Lanes:
    """The processes of a layout.

    Args:
        layout: How many there are, and where.
        stack: Ends them when it closes.
    """

    def __init__(self, layout: Layout, stack: ExitStack) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.layout = layout
        self._pools = [stack.enter_context(spawn.Pool(1)) for _ in range(layout.lanes)]
        for core, pool in enumerate(self._pools):
            if layout.pinned:
                pool.apply(os.sched_setaffinity, (0, {core}))

    def train(self, folder: Path, store: str, recipe: Recipe, runs: int) -> None:
        """Do some runs, equally many in each lane, and wait for the last."""
        threads = recipe.model_copy(update={"threads": self.layout.threads})
        shares = [range(lane, runs, self.layout.lanes) for lane in range(self.layout.lanes)]
        answers = [
            pool.apply_async(do_runs, (folder, store, threads, share))
            for pool, share in zip(self._pools, shares, strict=True)
        ]
        for answer in answers:
            answer.get()

    def memory(self) -> list[Memory]:
        """Return what each lane has."""
        return [pool.apply(memory) for pool in self._pools]


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, help="a folder of images to train on; else the demo set")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    kind = harness.device().type
    source = (
        Source("mine", "train", tuple(list_images(arguments.images))) if arguments.images else resolve("demo", "train")
    )
    layouts = LAYOUTS[kind][:2] if harness.DRY_RUN else LAYOUTS[kind]
    runs = max(layout.lanes for layout in layouts)
    recipe = read_sweep("quick")[1].recipe.model_copy(update={"steps": 1 if harness.DRY_RUN else STEPS[kind]})
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = prepare(source, scale=recipe.scale, degradation=Degradation(), cache=Path(temporary)).path
        store = f"{temporary}/store"
        lanes = {str(layout): Lanes(layout, stack) for layout in layouts}
        work = {name: functools.partial(each.train, folder, store, recipe, runs) for name, each in lanes.items()}
        seconds = harness.take_turns(work, rounds=arguments.rounds)
        taken = {name: each.memory() for name, each in lanes.items()}
    everybody = [each for of_layout in taken.values() for each in of_layout]
    rows = [
        {
            "layout": name,
            "steps/s in all": runs * recipe.steps / statistics.median(seconds[name]),
            "against one after another": harness.ratio(seconds, str(BASES[kind]), name)["median"],
            "against 1 lane × 1 thread": harness.ratio(seconds, str(ALONE), name)["median"],
            "MB a lane": statistics.mean(each.private for each in taken[name]),
            "MB of GPU a lane": statistics.mean(each.gpu for each in taken[name]),
            harness.AIM: "the best" if each.layout == DEFAULTS[kind] else None,
        }
        for name, each in lanes.items()
    ]
    harness.publish(
        "lanes",
        rows,
        notes=[
            f"{runs} runs of edsr-tiny, batch {recipe.batch}, {recipe.patch}×{recipe.patch}, {recipe.steps} steps.",
            *([f"{ALONE} leaves all but one core idle: {CORES} times that is the limit."] if kind == "cpu" else []),
            f"Each of the {len(everybody)} processes has {max(each.mapped for each in everybody):.1f} MB of pixels "
            f"mapped; together they take {sum(each.part for each in everybody):.1f} MB of memory for them.",
        ],
    )


if __name__ == "__main__":
    main()
