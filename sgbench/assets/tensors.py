"""The tensors of pretrained networks: read without running code in a file, and identified by their values."""

import functools
import hashlib
import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from sgbench.assets.base import LoadedWeights, wrong_hash
from sgbench.assets.catalogue import Network
from sgbench.core.errors import InputError

_ZIP = b"PK\x03\x04"


def read(path: Path, network: Network) -> LoadedWeights:
    """Return the tensors of a network from one of its files, on the CPU.

    Raises:
        InputError: If the file holds anything but tensors, or not those of the network.
    """
    stat = path.stat()
    loaded = _read(path, network.prefix, stat.st_size, stat.st_mtime_ns)
    converted = network.converted
    if converted and path.name == converted.file and loaded.sha256 != converted.tensors_sha256:
        raise wrong_hash(str(path), loaded.sha256, converted.tensors_sha256)
    return loaded


@functools.cache
def _read(path: Path, prefix: str, size: int, mtime_ns: int) -> LoadedWeights:
    """Read a file once per process; its size and time are arguments so that a changed file is read again."""
    content = _arrays_in(path) if path.suffix == ".npz" else tensors_in(path)
    state = {name: tensor for name, tensor in content.items() if name.startswith(prefix)}
    return LoadedWeights(fingerprint(state), path, state)


def _arrays_in(path: Path) -> dict[str, Tensor]:
    """Read a file that `numpy.savez` has written, and whose hash is that of a known network, without unpickling.

    Raises:
        InputError: If it holds anything but numbers.
    """
    try:
        with np.load(path) as arrays:
            return {name: torch.from_numpy(array) for name, array in arrays.items()}
    except (ValueError, TypeError) as error:
        raise InputError(f"'{path}' cannot be read as a file of arrays: it holds something else.") from error


@torch.inference_mode(False)  # whoever scores may be the first to read what a loss differentiates
def tensors_in(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors by name, without running code in it.

    Raises:
        InputError: If it is anything else.
    """
    with path.open("rb") as file:
        try:
            content = {str(name): tensor.detach() for name, tensor in load(file).items()}
            for name, tensor in content.items():
                if fault := fault_of(tensor):
                    raise ValueError(f"{name} {fault}")
            # NumPy refuses what else `fingerprint` could not hash, such as bfloat16
            return {name: torch.from_numpy(tensor.numpy()) for name, tensor in content.items()}
        except Exception as error:  # `load` raises whatever a malformed pickle or archive provokes
            raise InputError(
                f"'{path}' cannot be read as a file of tensors: it is damaged, or holds something else."
            ) from error


def load(stream: IO[bytes]) -> Any:
    """Return what a file that `torch.save` has written holds, on the CPU, without running code in it.

    Nothing larger than the file itself is made of it: archives that unpack to more, and objects that are made of a
    number only, are refused.

    Args:
        stream: Seekable, at its beginning.

    Raises:
        Exception: Of any type, if the file is damaged or holds more than tensors and plain values.
    """
    in_zip = stream.read(len(_ZIP)) == _ZIP  # as torch decides
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if in_zip:
        with zipfile.ZipFile(stream) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > size or any(entry.compress_type for entry in entries):
                raise ValueError("it is compressed, which torch's files are not")
            for entry in entries:
                _refuse_allocation(archive.read(entry))  # which checks its checksum, as torch does not
    else:
        _refuse_allocation(stream.read())
    stream.seek(0)
    with warnings.catch_warnings(action="ignore"):  # of pickle protocols, before it refuses them
        return torch.load(stream, map_location="cpu", weights_only=True)


def fault_of(tensor: Tensor) -> str | None:
    """Return why a tensor cannot be used as weights, as a clause such as ``is sparse``, or None if it can."""
    faults = {
        "is nested": tensor.is_nested,
        "is sparse": tensor.layout != torch.strided,
        "has no values, as it is on the device 'meta'": tensor.is_meta,
        "is quantised": tensor.is_quantized,
        "is complex": tensor.is_complex(),
    }
    if fault := next((clause for clause, holds in faults.items() if holds), None):
        return fault
    held = tensor.untyped_storage().nbytes() // tensor.element_size()
    return f"has {tensor.numel():,} values where the file holds {held:,}" if tensor.numel() > held else None


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256, in hex, of tensors: the same numbers give the same hash from whatever file they came.

    Names are sorted; each contributes a line of name, type and shape, then its values as little-endian bytes.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        kind = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{name} {kind} {list(tensor.shape)}\n".encode())
        array = tensor.view(torch.int16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _refuse_allocation(content: bytes) -> None:
    """Refuse a pickle that asks for a bytearray, the one object that torch admits and that may fill the memory."""
    if b"\nbytearray\n" in content:
        raise ValueError("it asks for a bytearray")
