"""Delivering packed images and pretrained networks through a results store to machines that do not share a disk.

Whoever starts a sweep on a cluster puts them into the store once, below ``packed/`` and ``networks/``: the driver, or
``sgbench submit`` on a machine that is not in the cluster. Each node fetches them into its own cache once, for all its
runs; a job itself carries only names.

A set is kept under the hash of its manifest, which has the hashes of all pixels, so that what is there is never sent
again, and what arrives is compared with what was asked for. Large files are sent in pieces, each of which appears whole
or not at all: a transfer that was killed is completed by the next.
"""

import concurrent.futures
import functools
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sgbench.assets.base import MissingWeights
from sgbench.assets.catalogue import NETWORKS
from sgbench.assets.install import install
from sgbench.assets.locator import Locator
from sgbench.core.download import Progress
from sgbench.core.errors import InputError, MissingDataError
from sgbench.core.files import exclusive, naming, replacing
from sgbench.core.storage import Storage
from sgbench.core.words import quoted
from sgbench.data import MANIFEST, PIXEL_FILES, PackedImages, Role, default_cache, discard, unused
from sgbench.spec import Recipe, packed_digest, set_name
from sgbench.store.layout import PACKED, SENT_NETWORKS, network_of, packed_of, piece_of

Moved = Callable[[str, int, int], None]
"""Called with the name of a set or network, its bytes moved so far and in all."""

PIECE_BYTES = 8 * 2**20
"""Of a large file in a store; the last piece of a file is shorter, or empty, which shows that it is the last.

It is a single request to an object store, so that no half of one is left there, and part of the format.
"""

LANES = 4
"""Pieces that are on their way at once."""

RECEIVED_DAYS = 30
"""For which nothing must have used a received set until the next one that arrives takes its place."""


class Packed(NamedTuple):
    """A prepared set of images, wherever it is."""

    folder: str
    """The driver's folder, which other nodes may see too."""
    digest: str
    """`PackedImages.digest`."""

    @classmethod
    def of(cls, images: PackedImages) -> "Packed":
        """Return what a node needs to know about a set."""
        return cls(str(images.path), images.digest)

    @property
    def size(self) -> int:
        """Bytes of the driver's files; only there."""
        return sum(file.stat().st_size for file in Path(self.folder).glob("*"))


class Piece(NamedTuple):
    """A part of a file, or all of it, which is a file of its own in a store."""

    path: Path
    """The file on this machine."""
    name: str
    """In the store."""
    first: int
    """Its first byte in the file."""
    size: int
    """In bytes."""


class Parcel(NamedTuple):
    """What a store lacks of a set or network that is on this machine."""

    name: str
    """Of the set or network."""
    pieces: tuple[Piece, ...]
    """In the order in which they are to be sent; the last shows that all are there. None if nothing is lacking."""

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(piece.size for piece in self.pieces)


def parcels(
    sets: Iterable[PackedImages], networks: Iterable[str], storage: Storage, files: Mapping[str, Path] | None = None
) -> list[Parcel]:
    """Return what a store lacks of each of some sets, then of each network that this machine has, then of other files.

    Args:
        sets: Prepared sets on this machine.
        networks: Names of networks; those that this machine lacks are left out.
        storage: The results store.
        files: Where this machine has them, by their names in the store.
    """
    found = [Parcel(images.name, tuple(_lacking(images, storage))) for images in sets]
    there = storage.sizes(SENT_NETWORKS)
    for network in networks:
        if (path := Locator(download=False).find(network)) is not None:
            pieces = _cut(path, network_of(path.name))
            found.append(Parcel(network, tuple(piece for piece in pieces if there.get(piece.name) != piece.size)))
    for name, path in (files or {}).items():
        lacking = () if storage.exists(name) else (Piece(path, name, 0, path.stat().st_size),)
        found.append(Parcel(path.name, lacking))
    return found


def _lacking(images: PackedImages, storage: Storage) -> Iterator[Piece]:
    there = storage.sizes(f"{PACKED}/{images.digest}")
    manifest = images.path / MANIFEST
    for file in PIXEL_FILES:
        for piece in _cut(images.path / file, packed_of(images.digest, file)):
            if there.get(piece.name) != piece.size:
                yield piece
    if (name := packed_of(images.digest, MANIFEST)) not in there:
        yield Piece(manifest, name, 0, manifest.stat().st_size)


def _cut(path: Path, name: str) -> Iterator[Piece]:
    """Yield the pieces of a file, the last of which is shorter than the others, or empty."""
    whole = path.stat().st_size
    for index in range(whole // PIECE_BYTES + 1):
        first = index * PIECE_BYTES
        yield Piece(path, piece_of(name, index), first, min(PIECE_BYTES, whole - first))


def send(parcels: Iterable[Parcel], storage: Storage, moved: Moved | None = None) -> None:
    """Put into a store what it lacks; what has arrived stays there if this is killed.

    Args:
        parcels: What to send.
        storage: The results store.
        moved: Called after each piece.
    """

    def put(piece: Piece) -> int:
        with piece.path.open("rb") as file:
            file.seek(piece.first)
            storage.write(piece.name, file.read(piece.size))
        return piece.size

    for parcel in filter(lambda parcel: parcel.pieces, parcels):
        *pieces, last = parcel.pieces
        done = 0
        for size in itertools.chain(_in_lanes(put, pieces), _in_lanes(put, [last])):
            done += size
            if moved is not None:
                moved(parcel.name, done, parcel.size)


def fetch(networks: Iterable[str], progress: Moved) -> dict[str, str]:
    """Fetch pretrained networks to this machine.

    Args:
        networks: Their names.
        progress: Called for each piece.

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


def receive(
    references: Iterable[tuple[str, Role]], recipe: Recipe, storage: Storage, moved: Moved
) -> dict[str, PackedImages]:
    """Fetch the sets that are referred to as ``NAME=packed:DIGEST``, unless they are here, and open them.

    Args:
        references: Each with what the images are for; other references are left out.
        recipe: What the sets must have been packed for.
        storage: The results store.
        moved: Called after each piece.

    Returns:
        The sets by their references.

    Raises:
        MissingDataError: If the store lacks one.
        InputError: If one arrives damaged, or is of another name, role, scale or degradation.
    """
    received = {}
    for reference, role in references:
        if (digest := packed_digest(reference)) is None:
            continue
        try:
            images = _received(digest, storage, functools.partial(moved, set_name(reference)))
        except FileNotFoundError as error:
            raise _absent(reference, storage) from error
        asked: dict[str, object] = {"name": set_name(reference), "role": role, "scale": recipe.scale}
        if not images.lr_folder:
            asked["degradation"] = recipe.degradation
        for what, value in asked.items():
            if (there := getattr(images, what)) != value:
                raise InputError(f"data set {quoted(reference, 100)}: its {what} is '{there}'; '{value}' is needed.")
        received[reference] = images
    return received


def refuse_absent(references: Iterable[str], storage: Storage) -> None:
    """Refuse references to sets that a store does not have.

    Raises:
        MissingDataError: With the first of them.
    """
    for reference in references:
        digest = packed_digest(reference)
        if digest and not storage.exists(packed_of(digest, MANIFEST)):
            raise _absent(reference, storage)


def _absent(reference: str, storage: Storage) -> MissingDataError:
    return MissingDataError(
        f"data set {quoted(reference, 100)} is not in the store '{storage}'; send it there with 'sgbench submit "
        "--upload-data'."
    )


def open_packed(packed: Packed, storage: Storage) -> PackedImages:
    """Open a prepared set from the driver's folder, if this machine can see it, or else from this machine's cache.

    Raises:
        InputError: If it is in neither the folder nor the store, or arrives damaged.
    """
    try:
        return open_in_place(packed)
    except InputError as error:
        try:
            return _received(packed.digest, storage)
        except FileNotFoundError:
            raise error from None


def open_in_place(packed: Packed) -> PackedImages:
    """Open a prepared set in the driver's folder; another machine may have another set at that path.

    Raises:
        InputError: If there is none, it is damaged, or it is another set.
    """
    return _opened(Path(packed.folder), packed.digest)


def receive_networks(networks: Iterable[str], storage: Storage, moved: Moved | None = None) -> None:
    """Copy networks that this machine lacks, and a store has, from there to this machine's cache.

    Args:
        networks: Their names.
        storage: The results store.
        moved: Called after each piece.

    Raises:
        InputError: If one arrives damaged.
    """
    lacking = [name for name in networks if Locator(download=False).find(name) is None]
    there = storage.sizes(SENT_NETWORKS) if lacking else {}
    for name in lacking:
        for file in NETWORKS.load(name).files:
            with tempfile.TemporaryDirectory() as folder:
                if not (pieces := _pieces(Path(folder, file), network_of(file), there)):
                    continue
                _get(pieces, storage, functools.partial(moved, name) if moved else None)
                try:
                    install(Path(folder, file), name)
                except InputError as error:
                    where = storage.address(network_of(file))
                    raise InputError(f"the network in '{where}.*' is damaged; delete it, and send it again.") from error
            break


def _opened(folder: Path, digest: str) -> PackedImages:
    images = PackedImages.open(folder)
    if images.digest != digest:
        raise InputError(
            f"on this machine '{folder}' holds a different set (manifest hash {images.digest[:12]}) from where the "
            f"sweep was started ({digest[:12]}); remove that folder."
        )
    return images


def _received(digest: str, storage: Storage, told: Progress | None = None) -> PackedImages:
    """Open a set in this machine's cache, where it is copied to if it is not there.

    Raises:
        FileNotFoundError: If it is neither there nor in the store.
        InputError: If it arrives damaged.
    """
    cache = default_cache()
    folder = cache / f"received-{digest[:16]}"
    cache.mkdir(parents=True, exist_ok=True)
    with exclusive(folder.with_name(f".{folder.name}.lock")):
        if not folder.exists():
            manifest = storage.read(packed_of(digest, MANIFEST))
            for each in unused(cache, RECEIVED_DAYS):
                if each.path.name.startswith("received-"):
                    discard(each.path)
            with replacing(folder) as part:
                part.mkdir()
                (part / MANIFEST).write_bytes(manifest)
                there = storage.sizes(f"{PACKED}/{digest}")
                names = {file: packed_of(digest, file) for file in PIXEL_FILES}
                pieces = [piece for file, name in names.items() for piece in _pieces(part / file, name, there)]
                try:
                    _get(pieces, storage, told)
                    _opened(part, digest).verify()
                except InputError as error:
                    where = storage.address(f"{PACKED}/{digest}")
                    raise InputError(
                        f"the set in '{where}' is damaged; delete that folder, and send it again."
                    ) from error
    return _opened(folder, digest)


def _pieces(path: Path, name: str, there: dict[str, int]) -> list[Piece]:
    """Return the pieces of a file in a store, as they are to be put together; none unless all are there."""
    pieces: list[Piece] = []
    while (size := there.get(piece := piece_of(name, len(pieces)))) is not None:
        pieces.append(Piece(path, piece, PIECE_BYTES * len(pieces), size))
        if size < PIECE_BYTES:
            return pieces
    return []


def _get(pieces: Sequence[Piece], storage: Storage, told: Progress | None) -> None:
    """Copy pieces to this machine."""
    for piece in pieces:
        piece.path.touch()

    def get(piece: Piece) -> int:
        content = storage.read(piece.name)
        with naming(piece.path), piece.path.open("r+b") as file:
            file.seek(piece.first)
            file.write(content)
        return piece.size

    total, done = sum(piece.size for piece in pieces), 0
    for size in _in_lanes(get, pieces):
        done += size
        if told is not None:
            told(done, total)


def _in_lanes(move: Callable[[Piece], int], pieces: Sequence[Piece]) -> Iterator[int]:
    """Move pieces, `LANES` at once, and yield their sizes; none is begun after a fault."""
    with concurrent.futures.ThreadPoolExecutor(LANES) as pool:
        yield from pool.map(move, pieces)
