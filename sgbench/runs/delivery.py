"""Packed images and networks on their way to nodes that do not share a disk with the driver.

What a run needs is put into the results store once, below ``packed/`` and ``networks/``; a node fetches it into its
cache once, and all runs there read that. Nothing travels inside a job but names.
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
    """Where the driver has it; other nodes may see that folder too."""
    sha256: str
    """The manifest hash."""

    @classmethod
    def of(cls, images: PackedImages) -> "Packed":
        """Return what a node has to know of a set."""
        return cls(str(images.path), images.sha256)


def send(sets: Iterable[Packed], networks: Iterable[str], storage: Storage) -> None:
    """Put what nodes will need into a store, unless it is there.

    Args:
        sets: Prepared sets that this machine has.
        networks: Names of networks; those that this machine lacks are left out.
        storage: The results store.
    """
    found = filter(None, map(Locator(download=False).find, networks))
    files = {
        **{packed_of(packed.sha256, file): Path(packed.folder) / file for packed in sets for file in PACKED_FILES},
        **{network_of(path.name): path for path in found},
    }
    there = storage.sizes(PACKED) | storage.sizes(SENT_NETWORKS)
    for name, path in files.items():
        if there.get(name) != path.stat().st_size:  # a driver that was killed may have left half of a file
            storage.upload(path, name)


def fetch(networks: Iterable[str], progress: Callable[[str, int, int], None]) -> dict[str, str]:
    """Fetch pretrained networks to this machine.

    Args:
        networks: Their names.
        progress: Told of each piece: the network, and its bytes so far and in all.

    Returns:
        Why some are not available, by name.
    """
    missing = {}
    for name in networks:
        try:
            Locator(progress=functools.partial(progress, name)).fetch(name)
        except MissingWeights as reason:
            missing[name] = str(reason)
    return missing


def open_packed(packed: Packed, storage: Storage) -> PackedImages:
    """Open a prepared set from the driver's folder, if this machine sees it there, or else from this machine's cache.

    Raises:
        InputError: If it is neither there nor in the store, or arrives damaged.
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
    """Fetch networks that this machine lacks and the store has into this machine's cache."""
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
            f"on this machine '{folder}' holds other images (manifest hash {images.sha256[:12]}) than where the sweep "
            f"was started ({sha256[:12]}); remove that folder."
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
