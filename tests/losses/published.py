"""What published implementations of discriminators and adversarial losses compute, and how `published.json` was made.

    python tests/losses/published.py BASICSR PIX2PIX

BASICSR is the unpacked source archive of basicsr 1.4.2 from the package index, which cannot be installed beside a
torchvision of today, and PIX2PIX `models/networks.py` of github.com/junyanz/pytorch-CycleGAN-and-pix2pix. The files are
used as they are. Numbers that go in are made here, from seeds alone.
"""

import importlib.util
import json
import sys
import types
from pathlib import Path

import torch

FILE = Path(__file__).with_suffix(".json")
FEATURES = 4
SIDES = {"unet": 16, "vgg": 128, "patch": 40}
"""Of the square images, by discriminator."""
KINDS = ("vanilla", "lsgan", "hinge")


def uniform(seed, *shape):
    """Return numbers from -1 to 1."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def images(name):
    """Return the images that a discriminator is shown, shape [2, 3, side, side]."""
    return (uniform(1, 2, 3, SIDES[name], SIDES[name]) + 1) / 2


def filled(discriminator):
    """Return a discriminator whose tensors depend on their names' order and their shapes alone."""
    with torch.no_grad():
        for seed, (name, tensor) in enumerate(discriminator.state_dict().items()):
            if tensor.is_floating_point():
                tensor.copy_(uniform(seed, *tensor.shape) * 0.2 + (1 if "bn" in name or "running" in name else 0))
    return discriminator.train()


def outputs(discriminator, name):
    """Return what a discriminator makes of its images when it is called for the second time, as a list."""
    discriminator = filled(discriminator)
    return [discriminator(images(name)) for _ in range(2)][1].flatten().tolist()


def logits():
    """Return logits for HR and for SR images, as of a discriminator that judges each pixel."""
    return 3 * uniform(2, 2, 1, 3, 4), 3 * uniform(3, 2, 1, 3, 4)


def gradients(function):
    """Return a function's value for the logits, and its gradients to both."""
    leaves = [leaf.requires_grad_() for leaf in logits()]
    value = function(*leaves)
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    return {
        "value": value.item(),
        "gradients": [
            (torch.zeros_like(leaf) if gradient is None else gradient).flatten().tolist()
            for leaf, gradient in zip(leaves, found, strict=True)
        ],
    }


def _loaded(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _relativistic(criterion):
    """Return what BasicSR's ``ESRGANModel.optimize_parameters`` computes of logits, for the network and on its own."""

    def network(real, fake):
        real = real.detach()
        return (criterion(real - fake.mean(), False) + criterion(fake - real.mean(), True)) / 2

    def own(real, fake):
        return (
            criterion(real - fake.mean().detach(), True, is_disc=True) / 2,
            criterion(fake - real.mean().detach(), False, is_disc=True) / 2,
        )

    return network, own


def main(basicsr, networks):
    """Write `published.json`."""
    for package in ("basicsr", "basicsr.utils"):
        sys.modules[package] = types.ModuleType(package)
    root = Path(basicsr, "basicsr")
    _loaded("basicsr.utils.registry", root / "utils" / "registry.py")
    archs = _loaded("basicsr.archs.discriminator_arch", root / "archs" / "discriminator_arch.py")
    losses = _loaded("basicsr.losses.gan_loss", root / "losses" / "gan_loss.py")
    made = {
        "unet": archs.UNetDiscriminatorSN(3, FEATURES),
        "vgg": archs.VGGStyleDiscriminator(3, FEATURES),
        "patch": _loaded("pix2pix", networks).NLayerDiscriminator(3, FEATURES),
    }
    discriminators = {
        name: {
            "tensors": {key: list(tensor.shape) for key, tensor in each.state_dict().items()},
            "outputs": outputs(each, name),
        }
        for name, each in made.items()
    }
    kinds = {}
    for kind in KINDS:
        criterion = losses.GANLoss(kind)
        kinds[kind] = {
            "network": gradients(lambda real, fake, of=criterion: of(fake, True)),
            "real": gradients(lambda real, fake, of=criterion: of(real, True, is_disc=True)),
            "fake": gradients(lambda real, fake, of=criterion: of(fake, False, is_disc=True)),
        }
    network, own = _relativistic(losses.GANLoss("vanilla"))
    kinds["relativistic"] = {
        "network": gradients(network),
        "real": gradients(lambda real, fake: own(real, fake)[0]),
        "fake": gradients(lambda real, fake: own(real, fake)[1]),
    }
    FILE.write_text(json.dumps({"discriminators": discriminators, "kinds": kinds}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
