"""Delivering packed images and pretrained networks to nodes that do not share a disk with the driver.

The driver puts them into the results store once, below ``packed/`` and ``networks/``. Each node fetches them into its
cache once, for all its runs. A job itself carries only names.
"""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from sgbench.assets.base import MissingWeights, networks_folder
from sgbench.assets.catalogue import NETWORKS
from sgbench.assets.locator import Locator
from sgbench.core.errors import InputError
from sgbench.core.files import exclusive, replacing
from sgbench.core.storage import Storage
from sgbench.data import PACKED_FILES, PackedImages, default_cache
from sgbench.store.layout import PACKED, SENT_NETWORKS, network_of, packed_of


class Packed(NamedTuple):
    """A prepared set of images, wherever it is."""

    folder: str
    """The driver's folder, which other nodes may see too."""
    sha256: str
    """The manifest hash."""

    @classmethod
    def of(cls, images: PackedImages) -> "Packed":
        """Return what a node needs to know about a set."""
        return cls(str(images.path), images.sha256)


def send(sets: Iterable[Packed], networks: Iterable[str], storage: Storage) -> None:
    """Put the files that nodes need into a store, unless it has them.

    Args:
        sets: Prepared sets on this machine.
        networks: Names of networks; those that this machine lacks are skipped.
        storage: The results store.
    """
    found = filter(None, map(Locator(download=False).find, networks))
    files = {
        **{packed_of(packed.sha256, file): Path(packed.folder) / file for packed in sets for file in PACKED_FILES},
        **{network_of(path.name): path for path in found},
    }
    there = storage.sizes(PACKED) | storage.sizes(SENT_NETWORKS)
    for name, path in files.items():
        if there.get(name) != path.stat().st_size:  # a killed driver may have left a partial file
            storage.upload(path, name)


def fetch(networks: Iterable[str], progress: Callable[[str, int, int], None]) -> dict[str, str]:
    """Fetch pretrained networks to this machine.

    Args:
        networks: Their names.
        progress: Called for each piece with the network, its bytes so far and its total.

    Returns:
        The reason, by name, for each network that is not available.
    """
    missing = {}
    for name in networks:
        try:
            Locator(progress=functools.partial(progress, name)).fetch(name)
        except MissingWeights as reason:
            missing[name] = str(reason)
    return missing


def open_packed(packed: Packed, storage: Storage) -> PackedImages:
    """Open a prepared set from the driver's folder, if this machine can see it, or else from this machine's cache.

    Raises:
        InputError: If it is in neither the folder nor the store, or arrives damaged.
    """
    try:
        return open_in_place(packed)
    except InputError:
        if not storage.exists(f"{PACKED}/{packed.sha256}"):
            raise
    return _opened(_received(packed.sha256, storage), packed.sha256)


def open_in_place(packed: Packed) -> PackedImages:
    """Open a prepared set in the driver's folder; another machine may have another set at that path.

    Raises:
        InputError: If there is none, it is damaged, or it is another set.
    """
    return _opened(Path(packed.folder), packed.sha256)


def receive_networks(networks: Iterable[str], storage: Storage) -> None:
    """Copy networks that this machine lacks from the store to this machine's cache."""
    locator = Locator(download=False)
    for name in networks:
        if locator.find(name) is None:
            sent = (file for file in NETWORKS.load(name).files if storage.exists(network_of(file)))
            if (file := next(sent, None)) is not None:
                networks_folder().mkdir(parents=True, exist_ok=True)
                with replacing(networks_folder() / file) as part:
                    storage.download(network_of(file), part)


def _opened(folder: Path, sha256: str) -> PackedImages:
    images = PackedImages.open(folder)
    if images.sha256 != sha256:
        raise InputError(
            f"on this machine '{folder}' holds different images (manifest hash {images.sha256[:12]}) from where the "
            f"sweep was started ({sha256[:12]}); remove that folder."
        )
    return images


def _received(sha256: str, storage: Storage) -> Path:
    folder = default_cache() / f"received-{sha256[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(folder.with_name(f".{folder.name}.lock")):
        if not folder.exists():
            with replacing(folder) as part:
                part.mkdir()
                for file in PACKED_FILES:
                    storage.download(packed_of(sha256, file), part / file)
                _opened(part, sha256).verify()
    return folder
