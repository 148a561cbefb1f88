"""What each loss costs: the whole training step with it, compared with the step with L1 alone.

    python benchmarks/losses.py

On a CPU the network is edsr-tiny, batch 8, 32×32 LR patches; on a GPU EDSR as published, batch 16, 48×48. The SG
loss is compared with straightforward implementations: the same formula by slices or by a grouped convolution,
differentiated by autograd. An adversary's own step counts; on a CPU its discriminator has 8 features, not 64.
Losses whose pretrained networks are not available locally are left out.
"""

import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import harness
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from sgbench.assets.locator import Locator
from sgbench.assets.needs import networks_of
from sgbench.backbones import build_backbone
from sgbench.losses import Batch, WeightedSum, build_loss
from sgbench.losses.pixel import L1
from sgbench.spec import Recipe, check_loss
from sgbench.spec.expression import parse
from sgbench.training.loop import as_images
from sgbench.training.memory import kept_memory
from sgbench.training.method import Learner, learners_of
from sgbench.training.numerics import FORMATS, pinned

BASE = "l1"
AIMS = {("cpu", "l1 + 1.0*sg"): "≤ 10%", ("cuda", "l1 + 1.0*sg"): "≤ 2%"}
"""What a loss may cost over l1, by the kind of device."""

LOSSES = [BASE, "l2", "charbonnier", "l1 + 1.0*sg", "l1 + 1.0*sg(operator=sobel)", "l1 + 1.0*ssim"]
LOSSES += ["l1 + 1.0*ms_ssim(scales=4)", "l1 + 1.0*gradient", "l1 + 1.0*laplacian", "l1 + 1.0*tv", "l1 + 1.0*fft"]
LOSSES += ["l1 + 1.0*fft(part=amplitude)", "l1 + 1.0*focal_frequency", "l1 + 1.0*consistency", "l1 + 1.0*ldl"]
PERCEPTUAL = ["l1 + 1.0*vgg", "l1 + 1.0*lpips", "l1 + 1.0*lpips_vgg", "l1 + 1.0*dists", "l1 + 0.1*contextual"]
"""Compared where their networks are available locally."""


class PlainSG(nn.Module):
    """SG of order 2 with central differences and eps 1e-8, left to autograd."""

    def __init__(self, differences: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.differences = differences

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return mean |M(M(sr)) − M(M(hr))|."""
        with torch.no_grad():
            target = self.gradient_map(hr)
        return (self.gradient_map(sr) - target).abs().mean()

    def gradient_map(self, image: Tensor) -> Tensor:
        """Return M(M(image))."""
        for _ in range(2):
            across, down = self.differences(pad(image, (1, 1, 1, 1), mode="replicate"))
            image = (across**2 + down**2 + 1e-8).sqrt()
        return image


def by_slices(padded: Tensor) -> tuple[Tensor, Tensor]:
    """Return both central differences."""
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    return across, padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]


def by_convolution(padded: Tensor) -> tuple[Tensor, Tensor]:
    """Return both central differences."""
    across = padded.new_tensor([[0, 0, 0], [-1, 0, 1], [0, 0, 0]])
    kernels = torch.stack([across, across.T]).repeat(3, 1, 1).unsqueeze(1)
    both = conv2d(padded, kernels, groups=3)
    return both[:, 0::2], both[:, 1::2]


def criteria(device: torch.device) -> dict[str, WeightedSum]:
    """Return the losses to compare, by their names in the table."""
    losses = [*LOSSES, "l1 + 0.005*gan(features=8)" if device.type == "cpu" else "l1 + 0.005*gan"]
    losses += [text for text in PERCEPTUAL if all(map(Locator(download=False).find, networks_of(losses=[parse(text)])))]
    peers = {"l1 + SG by slices": by_slices, "l1 + SG by grouped convolution": by_convolution}
    return {text: build_loss(check_loss(text)) for text in losses} | {
        name: WeightedSum([("l1", 1.0, L1()), ("sg", 1.0, PlainSG(differences))]) for name, differences in peers.items()
    }


def measure(backbone: str, recipe: Recipe, device: torch.device, rounds: int) -> list[dict[str, object]]:
    """Time training steps of one network on one batch of noise, the losses taking turns, and return rows."""
    with pinned(recipe), kept_memory():
        torch.manual_seed(0)
        network = build_backbone(backbone, recipe.scale).to(device, memory_format=FORMATS[recipe.memory_format])
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-6, fused=device.type == "cuda")
        lr, hr = (
            as_images(torch.randint(256, (recipe.batch, 3, side, side)).byte().numpy(), device, recipe.memory_format)
            for side in (recipe.patch, recipe.patch * recipe.scale)
        )

        def step(criterion: WeightedSum, learners: list[Learner]) -> None:
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                sr = network(lr)
                with torch.no_grad():
                    average_sr = network(lr) if criterion.asking_for("average_sr") else None
            batch = Batch(lr, sr, hr, recipe.scale, step=0, steps=1, average_sr=average_sr)
            loss, _ = criterion(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for learner in learners:
                learner.step([(1.0, replace(batch, sr=sr.detach()))], 1.0)

        steps = {
            name: partial(step, criterion.to(device), learners_of(criterion, recipe))
            for name, criterion in criteria(device).items()
        }
        # Several steps per turn, because in a run a step finds the memory as the same loss left it.
        seconds = harness.take_turns(steps, rounds=rounds, calls=3)
    where = f"cpu, {recipe.threads} thread(s)" if device.type == "cpu" else f"gpu, {recipe.precision}"
    return [
        {"network": backbone, "on": where, "loss": name, "ms a step": 1e3 * statistics.median(times)}
        | {f"over l1, %, {key}": 100 * (value - 1) for key, value in harness.ratio(seconds, name, BASE).items()}
        | {harness.AIM: AIMS.get((device.type, name))}
        for name, times in seconds.items()
    ]


def main() -> None:
    """Measure, print and write."""
    rows = []
    if harness.device().type == "cuda":
        for precision in ("fp32", "bf16"):
            rows += measure("edsr-paper", Recipe(precision=precision), harness.device(), rounds=5)
    else:
        batch, patch, each = (1, 24, (1,)) if harness.DRY_RUN else (8, 32, (1, 2))
        for threads in each:
            rows += measure("edsr-tiny", Recipe(batch=batch, patch=patch, threads=threads), harness.device(), rounds=9)
    harness.publish("losses", rows, notes=["'over l1': what a step takes more than the one with l1 in the same round."])


if __name__ == "__main__":
    main()
