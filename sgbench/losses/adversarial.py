"""The adversarial loss: a discriminator learns to tell HR from SR, and the network to deceive it.

C(x) are the discriminator's logits for images x, σ is the logistic function, E the mean over the global batch and all
logits of an image, and R(a, b) = σ(C(a) − E C(b)). The network minimises one loss, and the discriminator the sum of
two, ``real`` and ``fake``:

vanilla
    −E log σ(C(sr)); −E log σ(C(hr)) and −E log(1 − σ(C(sr))).
    Goodfellow et al., NeurIPS 2014, Eq. (1), with the network's loss that does not saturate, of Section 3.
lsgan
    E (C(sr) − 1)²; E (C(hr) − 1)² and E C(sr)².
    Mao et al., ICCV 2017, Eq. (9), without its factors ½.
hinge
    −E C(sr); E max(0, 1 − C(hr)) and E max(0, 1 + C(sr)).
    Lim and Ye, arXiv:1705.02894; Miyato et al., ICLR 2018, Eq. (16) and (17).
relativistic
    ½ (−E log(1 − R(hr, sr)) − E log R(sr, hr)); −½ E log R(hr, sr) and −½ E log(1 − R(sr, hr)).
    Jolicoeur-Martineau, ICLR 2019; Wang et al. (ESRGAN), ECCVW 2018, Eq. (1) and (2), halved as in ESRGAN's code.

The values are BasicSR's, so that a coefficient means here what it means there. So are the gradients, except that
BasicSR lets none of the discriminator's go through the mean of a relativistic loss; here they do, as in ESRGAN's code.
"""

from collections.abc import Callable, Iterable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from sgbench.core.errors import InputError
from sgbench.core.words import quoted
from sgbench.losses import group
from sgbench.losses.discriminators import build_discriminator


class Kind(NamedTuple):
    """A pair of losses, as functions of the logits for HR and for SR."""

    network: Callable[[Tensor, Tensor], Tensor]
    """What the network minimises."""
    real: Callable[[Tensor, Tensor], Tensor]
    """What the discriminator minimises, for HR."""
    fake: Callable[[Tensor, Tensor], Tensor]
    """What it minimises, for SR."""
    compares: bool = False
    """Whether what the network minimises depends on the logits for HR."""


def _relative(one: Tensor, other: Tensor) -> Tensor:
    return one - group.mean(other)


KINDS = {
    "vanilla": Kind(
        network=lambda hr, sr: softplus(-sr).mean(),
        real=lambda hr, sr: softplus(-hr).mean(),
        fake=lambda hr, sr: softplus(sr).mean(),
    ),
    "lsgan": Kind(
        network=lambda hr, sr: (sr - 1).square().mean(),
        real=lambda hr, sr: (hr - 1).square().mean(),
        fake=lambda hr, sr: sr.square().mean(),
    ),
    "hinge": Kind(
        network=lambda hr, sr: -sr.mean(),
        real=lambda hr, sr: relu(1 - hr).mean(),
        fake=lambda hr, sr: relu(1 + sr).mean(),
    ),
    "relativistic": Kind(
        network=lambda hr, sr: (softplus(_relative(hr, sr)).mean() + softplus(-_relative(sr, hr)).mean()) / 2,
        real=lambda hr, sr: softplus(-_relative(hr, sr)).mean() / 2,
        fake=lambda hr, sr: softplus(_relative(sr, hr)).mean() / 2,
        compares=True,
    ),
}
"""By name; −log σ(x) is softplus(−x), and −log(1 − σ(x)) is softplus(x)."""


class Adversarial(nn.Module):
    """Adversarial loss, with a discriminator that is trained beside the network.

    ``forward(sr, hr)`` takes two tensors of shape [N, 3, H, W], HR with values in [0, 1], and returns what the network
    minimises, a scalar; `own_terms` returns what the discriminator minimises. In every step the discriminator is
    trained after the network, on the same SR images. It is in training mode throughout, as in BasicSR.

    Args:
        discriminator: ``unet``, ``vgg``, ``patch``, a registered name, or ``module:Class``.
        kind: ``vanilla``, ``lsgan``, ``hinge`` or ``relativistic``; see this module's docstring.
        features: Channels of the discriminator where it begins; 64 in all publications.
        lr: Learning rate of the discriminator in the first step; it follows the recipe's schedule.
        beta1: Of the discriminator's Adam.
        beta2: Of the discriminator's Adam.
        ahead: Steps in which only the discriminator is trained, before the network's first one; ``net_d_init_iters`` in
            BasicSR.
        ratio: The network is trained in every ``ratio``-th step, and the discriminator in each; ``net_d_iters`` in
            BasicSR.

    Raises:
        InputError: For an option out of its range, or a discriminator that does not exist.
    """

    source: ClassVar[str] = (
        "Goodfellow et al., NeurIPS 2014, Eq. (1); relativistic: ESRGAN, ECCVW 2018, Eq. (1) and (2)"
    )
    reference: ClassVar[str] = "basicsr 1.4.2"
    difference: ClassVar[float] = 1e-6
    own_names: ClassVar[tuple[str, ...]] = ("real", "fake")

    def __init__(
        self,
        *,
        discriminator: str = "unet",
        kind: str = "vanilla",
        features: int = 64,
        lr: float = 1e-4,
        beta1: float = 0.9,
        beta2: float = 0.999,
        ahead: int = 0,
        ratio: int = 1,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise InputError(f"kind is {quoted(str(kind))}; one of {', '.join(KINDS)} is needed")
        _check_range("features", features, features >= 1 and type(features) is int, "a whole number from 1")
        _check_range("lr", lr, 0 < lr < 1, "a number between 0 and 1")
        _check_range("beta1", beta1, 0 <= beta1 < 1, "a number from 0 to below 1")
        _check_range("beta2", beta2, 0 <= beta2 < 1, "a number from 0 to below 1")
        _check_range("ahead", ahead, ahead >= 0 and type(ahead) is int, "a whole number from 0")
        _check_range("ratio", ratio, ratio >= 1 and type(ratio) is int, "a whole number from 1")
        self.kind, self.lr, self.betas, self.ahead, self.ratio = kind, lr, (beta1, beta2), ahead, ratio
        self.discriminator = build_discriminator(discriminator, features)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return what the network minimises."""
        kind = KINDS[self.kind]
        real = self.discriminator(hr).detach() if kind.compares else hr
        return kind.network(real, self.discriminator(sr))

    def own_terms(self, sr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """Return the two terms that the discriminator minimises."""
        real, fake = self.discriminator(hr), self.discriminator(sr)
        kind = KINDS[self.kind]
        return {"real": kind.real(real, fake), "fake": kind.fake(real, fake)}

    def waits(self, step: int) -> bool:
        """Return whether the network is not trained in a step, counted from 0."""
        return step < self.ahead or (step + 1) % self.ratio != 0

    def optimizer(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Return the discriminator's optimizer."""
        return torch.optim.Adam(parameters, lr=self.lr, betas=self.betas)


def _check_range(option: str, value: object, fits: bool, needed: str) -> None:
    if not fits:
        raise InputError(f"{option} is {value}; {needed} is needed")
