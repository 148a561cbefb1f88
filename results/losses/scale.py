"""The coefficient with which a term pulls on SR as hard as L1 does; the grids of losses-trials are around it.

    python results/losses/scale.py DIR LOSS…

prints for each loss the ratio of the norms of the gradients, L1's divided by the loss's, with respect to SR: bicubic ×4
enlargements of 64×64 pixels from the middle of every 20th photograph in a folder, which the split of 1/20 holds out.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

from sgbench.core.resize import downscale, upscale
from sgbench.data import read_image
from sgbench.data.images import list_images
from sgbench.losses import Batch, build_loss
from sgbench.spec import check_loss

SCALE, SIDE, EVERY = 4, 64, 20


def batch_of(folder: Path) -> Batch:
    """Return the patches of a folder's images."""
    patches = []
    for file in list_images(folder)[::EVERY]:
        image = read_image(file)
        top, left = ((length - SIDE) // 2 for length in image.shape[:2])
        hr = image[top : top + SIDE, left : left + SIDE]
        lr = downscale(hr, SCALE)
        patches.append([torch.from_numpy(each).permute(2, 0, 1) / 255 for each in (lr, upscale(lr, SCALE), hr)])
    lr, sr, hr = map(torch.stack, zip(*patches, strict=True))
    return Batch(lr, sr.requires_grad_(), hr, SCALE, step=0, steps=1, average_sr=sr.detach())


def norm_of_gradient(loss: str, batch: Batch) -> Tensor:
    """Return the norm of the gradient of a loss with respect to SR."""
    torch.manual_seed(0)  # of a discriminator
    value, _ = build_loss(check_loss(loss))(batch)
    (gradient,) = torch.autograd.grad(value, batch.sr)
    return gradient.norm()


if __name__ == "__main__":
    folder, *losses = sys.argv[1:]
    batch = batch_of(Path(folder))
    l1 = norm_of_gradient("l1", batch)
    for loss in losses:
        sys.stdout.write(f"{l1 / norm_of_gradient(loss, batch):10.3g}  {loss}\n")
