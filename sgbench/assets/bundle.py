"""Bundles: several pretrained networks in one file, to be carried to machines without internet.

A bundle is a tar archive whose first member, a JSON text, says which networks it holds, in which of its members, and
which others are needed too. It proves nothing: each network is checked against the catalogue where it is unpacked.
"""

import contextlib
import io
import itertools
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from sgbench.assets.base import networks_folder
from sgbench.assets.catalogue import NETWORKS, Network
from sgbench.assets.install import recognised
from sgbench.assets.locator import sha256_of
from sgbench.core.errors import InputError, unknown
from sgbench.core.files import naming, replacing, temporary_folder
from sgbench.core.words import listed, quoted
from sgbench.spec.text import read_json

CONTENTS = "sgbench-networks.json"
"""Name of the first member."""

VERSION = 1

_BLOCK_BYTES = 1 << 20
_MOST_CONTENTS = 1 << 16
"""Bytes of the first member."""


def pack(networks: Mapping[str, Path], missing: Iterable[str], bundle: Path) -> None:
    """Write a bundle, whole or not at all; equal networks give equal bytes.

    Args:
        networks: The checked file of each network, by name.
        missing: Names of networks that are needed too and are not here.
        bundle: The file, in a folder that exists.

    Raises:
        OSError: If it cannot be written.
    """
    contents = {
        "version": VERSION,
        "networks": {name: {"file": path.name, "sha256": sha256_of(path)} for name, path in sorted(networks.items())},
        "missing": sorted(missing),
    }
    text = json.dumps(contents, indent=2).encode()
    with replacing(bundle) as part, tarfile.open(part, "w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(_member(CONTENTS, len(text)), io.BytesIO(text))
        for name, path in sorted({path.name: path for path in networks.values()}.items()):  # two may share a file
            with path.open("rb") as file:
                tar.addfile(_member(name, path.stat().st_size), file)


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def is_bundle(file: Path) -> bool:
    """Return whether a file begins as a bundle does; it may be damaged further on."""
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(len(CONTENTS) + 1) == f"{CONTENTS}\0".encode()


def unpack(bundle: Path, name: str | None = None) -> tuple[list[Path], list[str]]:
    """Copy the networks of a bundle into sgbench's cache: all of them, or none if one is not what it should be.

    Args:
        bundle: For which `is_bundle` holds.
        name: The only network that is wanted; all by default.

    Returns:
        The paths of the copies, and the names of networks that are needed too and were not there to be packed.

    Raises:
        InputError: If it is damaged, holds a network that the catalogue does not have, or lacks the wanted one.
        OSError: If it cannot be read, or the copies cannot be written.
    """
    target = networks_folder()
    target.mkdir(parents=True, exist_ok=True)
    with _undamaged(bundle), tarfile.open(bundle, "r:") as tar, temporary_folder(target, "bundle") as folder:
        networks, missing = _contents(tar)
        if name is not None:
            if name not in networks:
                raise InputError(f"{quoted(str(bundle))} holds {listed(networks) or 'no network'}, and no '{name}'.")
            networks, missing = {name: networks[name]}, []
        packed = {file: (_loaded(each), digest) for each, (file, digest) in networks.items()}
        found = {}
        for member in tar:
            if member.name not in packed:
                continue
            network, digest = packed[member.name]
            copy = folder / network.file
            _copy(tar, member, copy)
            if (received := sha256_of(copy)) != digest:
                raise ValueError("other bytes than were packed")
            if (place := recognised(copy, [network])) is None:
                raise InputError(
                    f"{quoted(str(bundle))} holds as {network.name} a file with the SHA-256 {received[:8]}…, but "
                    f"{network.sha256[:8]}… is needed; nothing of it is installed."
                )
            found[copy] = place
        if len(found) < len(packed):
            raise ValueError("a network is missing")
        for copy, (_, path) in found.items():
            with replacing(path) as part:
                copy.rename(part)
    return [path for _, path in found.values()], list(filter(_known, missing))


@contextlib.contextmanager
def _undamaged(bundle: Path) -> Iterator[None]:
    """Say what is wrong with a bundle that is not as it was packed."""
    try:
        yield
    except InputError:
        raise
    except (tarfile.TarError, ValueError, TypeError, KeyError, EOFError) as error:
        raise InputError(
            f"{quoted(str(bundle))} is a bundle of pretrained networks that is damaged or not all there: pack or copy "
            "it again; nothing of it is installed."
        ) from error


def _known(name: str) -> bool:
    """Return whether a network is in the catalogue; nothing may be imported because a bundle names it."""
    return name in NETWORKS.names() or NETWORKS.is_provided(name)


def _loaded(name: str) -> Network:
    if not _known(name):
        raise unknown(NETWORKS.kind, name, NETWORKS.names())
    return NETWORKS.load(name)


def _contents(tar: tarfile.TarFile) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Return the file of each network and its SHA-256, by name, and the names of those that are missing.

    Raises:
        ValueError: If that is not what the first member says.
        InputError: If it was packed by a newer version.
    """
    member = tar.next()
    if member is None or member.size > _MOST_CONTENTS or (stream := tar.extractfile(member)) is None:
        raise ValueError("no contents")
    match read_json(stream.read()):
        case {"version": int(version)} if version > VERSION:
            raise InputError(
                "the bundle was packed by a newer version of sgbench; install that here, or pack it again."
            )
        case {"networks": dict(networks), "missing": list(missing)}:
            found = {name: (entry["file"], entry["sha256"]) for name, entry in networks.items()}
            if all(isinstance(each, str) for each in (*itertools.chain(*found.values()), *missing)):
                return found, missing
    raise ValueError("other contents")


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """Copy a member to a file.

    Raises:
        ValueError: If it is not a plain file.
    """
    stream = tar.extractfile(member) if member.type == tarfile.REGTYPE else None
    if stream is None:
        raise ValueError("not a plain file")
    with naming(target), target.open("wb") as file:
        while block := stream.read(_BLOCK_BYTES):
            file.write(block)
