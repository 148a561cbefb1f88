"""The tensors of pretrained networks: read without running code in a file, and identified by their values."""

import functools
import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sgbench.assets.base import LoadedWeights, wrong_hash
from sgbench.assets.catalogue import Network
from sgbench.core.errors import InputError


def read(path: Path, network: Network) -> LoadedWeights:
    """Return the tensors of a network from one of its files, on the CPU.

    Raises:
        InputError: If the file holds anything but tensors, or not those of the network.
    """
    stat = path.stat()
    loaded = _read(path, network.prefix, stat.st_size, stat.st_mtime_ns)
    if network.archive and path.name == network.archive.file and loaded.sha256 != network.archive.tensors_sha256:
        raise wrong_hash(str(path), loaded.sha256, network.archive.tensors_sha256)
    return loaded


@functools.cache
def _read(path: Path, prefix: str, size: int, mtime_ns: int) -> LoadedWeights:
    """Read a file once per process; its size and time are arguments so that a changed file is read again."""
    state = {name: tensor for name, tensor in tensors_in(path).items() if name.startswith(prefix)}
    return LoadedWeights(fingerprint(state), path, state)


def tensors_in(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors by name, without running code in it.

    Raises:
        InputError: If it is anything else.
    """
    with path.open("rb") as file:
        try:
            with warnings.catch_warnings(action="ignore"):  # of pickle protocols, before it refuses them
                content = torch.load(file, map_location="cpu", weights_only=True)
            # NumPy refuses what `fingerprint` could not hash: sparse and quantised tensors, bfloat16
            return {str(name): torch.from_numpy(tensor.detach().numpy()) for name, tensor in content.items()}
        except Exception as error:  # torch.load raises whatever a malformed pickle or archive provokes
            raise InputError(
                f"'{path}' cannot be read as a file of tensors: it is damaged, or holds something else."
            ) from error


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256, in hex, of tensors: the same numbers give the same hash from whatever file they came.

    Names are sorted; each contributes a line of name, type and shape, then its values as little-endian bytes.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        array = state[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {list(array.shape)}\n".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
