"""A training step of each backbone, compared with the public implementation in the usual loop, and the lower bound.

    python benchmarks/train_step.py

Batch 16, 48×48 LR patches, ×4, L1; `tiny` and `light` with a thread per core, on a GPU `paper`. The public networks
(torchsr's EDSR, RDN and RCAN, spandrel's SwinIR, at the same size) run in fp32 and contiguous memory under
torch.optim.Adam, on a batch that is already there. Ours is `sgbench.training.train` itself, held between its steps: it
also draws its patches. Each has its own process, so that neither affects the other's memory allocator.

The floor is a lower bound, the least time in which the same machine could do the step: three times the MACs of the
forward pass at the rate of its best matrix product or convolution, or writing and reading what is kept for the backward
pass at the rate of a copy, whichever is longer.
"""

import argparse
import itertools
import multiprocessing
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from sgbench.backbones import build_backbone
from sgbench.backbones.cost import measure
from sgbench.core.registry import BACKBONES
from sgbench.core.storage import Storage
from sgbench.data import PackedImages, Source, prepare, write_png
from sgbench.spec import Degradation, Recipe, RunSpec, TrainingData, split_backbone
from sgbench.training import Checkpoints, train
from sgbench.training.numerics import pinned

FAMILIES = ("edsr", "rcan", "rdn", "swinir")
SIZES = {"cpu": ("tiny", "light"), "cuda": ("paper",)}
CALLS = {"tiny": 3, "light": 1, "paper": 5}
"""Steps per turn."""

PEER = "peer, fp32"
RECIPES = {
    "cpu": {"fp32": {}, "bf16": {"precision": "bf16"}},
    "cuda": {
        "fp32": {},
        "bf16": {"precision": "bf16"},
        "bf16, compiled": {"precision": "bf16", "compiled": True},
        "bf16, compiled, not deterministic": {"precision": "bf16", "compiled": True, "deterministic": False},
    },
}
"""What is compared with the peer, as changes of the default recipe."""
AIMS = {"cpu": {"fp32": "≥ 1.35×", "bf16": "≥ 3×"}, "cuda": {"bf16, compiled": "≥ 2×"}}

Turn = Callable[[], bool]
"""Called between steps: says that one is done, waits to be told to go on, and returns whether that was the last."""


def torchsr_edsr(scale: int, size: Mapping[str, Any]) -> nn.Module:
    """Return torchsr's EDSR."""
    module = import_module("torchsr.models.edsr")
    network: nn.Module = module.EDSR(
        n_resblocks=size["blocks"], n_feats=size["channels"], scale=scale, res_scale=size["res_scale"]
    )
    return network


def torchsr_rcan(scale: int, size: Mapping[str, Any]) -> nn.Module:
    """Return torchsr's RCAN."""
    module = import_module("torchsr.models.rcan")
    network: nn.Module = module.RCAN(
        n_resgroups=size["groups"],
        n_resblocks=size["blocks"],
        n_feats=size["channels"],
        reduction=size["reduction"],
        scale=scale,
    )
    return network


def torchsr_rdn(scale: int, size: Mapping[str, Any]) -> nn.Module:
    """Return torchsr's RDN."""
    module = import_module("torchsr.models.rdn")
    network: nn.Module = module.RDN(scale, G0=size["channels"], D=size["blocks"], C=size["layers"], G=size["growth"])
    return network


def spandrel_swinir(scale: int, size: Mapping[str, Any]) -> nn.Module:
    """Return spandrel's SwinIR."""
    warnings.filterwarnings("ignore", message="torch.meshgrid")  # it calls that in a deprecated way
    module = import_module("spandrel.architectures.SwinIR")
    network: nn.Module = module.SwinIR(
        upscale=scale,
        img_size=Recipe().patch,
        window_size=8,
        mlp_ratio=2.0,
        depths=[size["blocks"]] * size["groups"],
        num_heads=[size["heads"]] * size["groups"],
        embed_dim=size["channels"],
        upsampler="pixelshuffledirect" if size["direct"] else "pixelshuffle",
    )
    return network


PEERS = {"edsr": torchsr_edsr, "rcan": torchsr_rcan, "rdn": torchsr_rdn, "swinir": spandrel_swinir}


def plain_loop(name: str, recipe: Recipe, turn: Turn) -> None:
    """Train the public implementation of a backbone on one batch, as toolboxes do, until the last turn."""
    torch.set_num_threads(recipe.threads)
    family, size = split_backbone(name)
    device = harness.device()
    network = PEERS[family](recipe.scale, BACKBONES.load(family).sizes[size]).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.optimizer.lr)
    lr, hr = (
        torch.rand(recipe.batch, 3, side, side, device=device) for side in (recipe.patch, recipe.patch * recipe.scale)
    )
    while not turn():
        optimizer.zero_grad()
        l1_loss(network(lr.clone()), hr).backward()  # spandrel's RCAN writes into its input
        optimizer.step()


def own_loop(name: str, recipe: Recipe, folder: Path, turn: Turn) -> None:
    """Train our backbone as a run does, until the last turn."""
    images = PackedImages.open(folder)
    spec = RunSpec(
        backbone=name,
        loss="l1",
        seed=0,
        train=TrainingData(name=images.name, sha256=images.sha256),
        recipe=recipe,
    )
    with tempfile.TemporaryDirectory() as store:
        checkpoints = Checkpoints(Storage(store), "benchmark")
        train(spec, images, checkpoints, device=harness.device(), should_stop=turn, checkpoint_seconds=float("inf"))


def held(loop: Callable[[Turn], None], connection: Connection) -> None:
    """Run a loop that does a step whenever it is told to."""
    calls = itertools.count()

    def turn() -> bool:
        if next(calls):
            harness.wait_for_device()
            connection.send(None)
        return bool(connection.recv())

    loop(turn)


@contextmanager
def stepping(loop: Callable[[Turn], None]) -> Iterator[Callable[[], None]]:
    """Start a loop in a new process, and yield a function that lets it do a step."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=held, args=(loop, there))
    process.start()
    there.close()

    def step() -> None:
        here.send(False)
        here.recv()

    try:
        yield step
    finally:
        here.send(True)
        process.join()


@dataclass(frozen=True)
class Machine:
    """What was measured of the device, for a number of threads: operations and bytes per second."""

    operations: Mapping[str, float]
    """By precision: of a matrix product or a convolution, whichever is faster."""
    bytes: float
    """Read or written by a copy."""


def measure_machine(recipe: Recipe, device: torch.device) -> Machine:
    """Measure the rates that floors are made of."""
    on_gpu = device.type == "cuda"
    side, images, channels, pixels = (8192, 64, 512, 96) if on_gpu else (2048, 8, 256, 48)
    if harness.DRY_RUN:
        side, images, channels, pixels = 64, 1, 8, 8
    rates = {}
    with pinned(recipe), torch.no_grad():
        for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            matrix = torch.rand(side, side, device=device).to(dtype)
            batch, kernel = (
                torch.rand(*shape, device=device).to(dtype, memory_format=torch.channels_last)
                for shape in ((images, channels, pixels, pixels), (channels, channels, 3, 3))
            )
            work = {"product": 2.0 * side**3, "convolution": 18.0 * images * (channels * pixels) ** 2}
            seconds = harness.take_turns(
                {
                    "product": partial(torch.mm, matrix, matrix),
                    "convolution": partial(torch.conv2d, batch, kernel, padding=1),
                },
                rounds=9,
            )
            rates[precision] = max(work[name] / min(times) for name, times in seconds.items())
        values = torch.rand(2**30 // 4 if on_gpu else 2**28 // 4, device=device)
        copy = harness.take_turns({"copy": partial(torch.empty_like(values).copy_, values)}, rounds=9)
    return Machine(rates, 2 * values.nbytes / min(copy["copy"]))


def kept_bytes(network: nn.Module, batch: Tensor, precision: str) -> int:
    """Return how many bytes a forward pass keeps for the backward pass, without those of parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.autocast(batch.device.type, torch.bfloat16, enabled=precision == "bf16"),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        network(batch)
    return sum(kept.values())


def floor(name: str, recipe: Recipe, machine: Machine, device: torch.device) -> dict[str, float]:
    """Return the operations and bytes that a step takes at least, and the seconds that these take."""
    operations = 3 * 2.0 * recipe.batch * measure(name, recipe.scale, recipe.patch).macs
    with pinned(recipe):
        network = build_backbone(name, recipe.scale).to(device, memory_format=torch.channels_last)
        one, two = (
            kept_bytes(network, torch.rand(images, 3, recipe.patch, recipe.patch, device=device), recipe.precision)
            for images in (1, 2)
        )
    moved = 2.0 * (one + (recipe.batch - 1) * (two - one))  # once out and once in
    seconds = max(operations / machine.operations[recipe.precision], moved / machine.bytes)
    return {"GFLOP": operations / 1e9, "GB": moved / 1e9, "floor, s": seconds}


def compare(
    name: str, recipes: Mapping[str, Recipe], folder: Path, machine: Machine, rounds: int
) -> list[dict[str, object]]:
    """Time a backbone's steps, peer and ours taking turns, and return rows."""
    plain = next(iter(recipes.values()))
    loops: dict[str, Callable[[Turn], None]] = {PEER: partial(plain_loop, name, plain)}
    loops |= {mode: partial(own_loop, name, recipe, folder) for mode, recipe in recipes.items()}
    with ExitStack() as stack:
        steps = {mode: stack.enter_context(stepping(loop)) for mode, loop in loops.items()}
        seconds = harness.take_turns(steps, rounds=rounds, calls=CALLS[name.rpartition("-")[2]])
    rows = []
    for mode, times in seconds.items():
        least = floor(name, recipes.get(mode, plain), machine, harness.device())
        rows.append(
            {
                "network": name,
                "step": mode,
                "s a step": statistics.median(times),
                "faster than the peer by": harness.ratio(seconds, PEER, mode)["median"],
                harness.AIM: AIMS[harness.device().type].get(mode),
                **least,
                "floor, % of the step": 100 * least["floor, s"] / statistics.median(times),
            }
        )
    return rows


def noise(folder: Path) -> PackedImages:
    """Pack one image of random pixels."""
    file = folder / "noise.png"
    write_png(file, np.random.default_rng(0).integers(256, size=(480, 480, 3), dtype=np.uint8))
    source = Source("noise", "train", (file,))
    return prepare(source, scale=Recipe().scale, degradation=Degradation(), cache=folder)


def chosen(arguments: Sequence[str] | None, device: torch.device) -> argparse.Namespace:
    """Return what the command line asks for."""
    every = [f"{family}-{size}" for size in SIZES[device.type] for family in FAMILIES]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", action="append", help=f"repeatable; else {', '.join(every)}")
    parser.add_argument("--rounds", type=int, default=3)
    parsed = parser.parse_args(arguments)
    parsed.network = parsed.network or every
    return parsed


def main() -> None:
    """Measure, print and write the table."""
    device = harness.device()
    arguments = chosen(None, device)
    threads = len(os.sched_getaffinity(0))
    recipes = {
        mode: Recipe.model_validate({"threads": threads, **changes}) for mode, changes in RECIPES[device.type].items()
    }
    if harness.DRY_RUN:
        recipes = dict(list(recipes.items())[:1])
    torch.set_num_threads(threads)
    machine = measure_machine(next(iter(recipes.values())), device)
    with tempfile.TemporaryDirectory() as temporary:
        folder = noise(Path(temporary)).path
        rows = [row for name in arguments.network for row in compare(name, recipes, folder, machine, arguments.rounds)]
    rates = ", ".join(f"{precision} {rate / 1e9:.0f} GFLOP/s" for precision, rate in machine.operations.items())
    notes = [
        f"Measured, for the floors: {rates}; a copy reads and writes {machine.bytes / 1e9:.1f} GB/s.",
        "GB: what is kept for the backward pass, out and in. Normalisation, softmax, losses and Adam are in no floor.",
    ]
    harness.publish("train_step", rows, notes=notes, torchsr=version("torchsr"), spandrel=version("spandrel"))


if __name__ == "__main__":
    main()
