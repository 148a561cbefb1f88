"""Where data sets, pretrained networks and first weights of a submitted sweep come from, found out before it is a job.

A cluster downloads what has a download, reads what is in a folder of its own, and gets the rest from the store, where
`sgbench.runs.delivery` puts what is on the submitting machine.
"""

import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sgbench.assets.catalogue import NETWORKS
from sgbench.assets.locator import Locator
from sgbench.assets.needs import networks_of
from sgbench.core.errors import InputError, MissingDataError
from sgbench.core.location import Location
from sgbench.core.storage import Storage
from sgbench.core.words import quoted
from sgbench.data import (
    CATALOG,
    DEMO,
    Archive,
    PackedImages,
    PackProgress,
    Place,
    hosts,
    known_sets,
    missing_sets,
    pack_set,
    places_of,
    refuse_overlap,
    resolve,
    sets_folder,
    uses_shipped_lr,
)
from sgbench.runs.delivery import Parcel
from sgbench.runs.initial import RUN, Start, explained, is_remote, label, server_of
from sgbench.spec import Recipe, SweepSpec, packed_digest, set_name

SENT = "sent from here"
IN_STORE = "in the store"
DOWNLOADED = "downloaded by the cluster"
OF_CLUSTER = "folder on the cluster"
FILE_OF_CLUSTER = "file on the cluster"
FROM_URI = "read by the cluster"
INSTALLED = "part of scikit-image"

_CHOICES = "give --upload-data to send it"


@dataclass(frozen=True)
class Supply:
    """How a data set or network reaches the nodes of a cluster."""

    name: str
    kind: str
    """``training set``, ``test set``, ``validation set``, ``network`` or ``initial weights``."""
    how: str
    """One of `SENT`, `IN_STORE`, `DOWNLOADED`, `OF_CLUSTER`, `FILE_OF_CLUSTER`, `FROM_URI` and `INSTALLED`."""
    size: int | None = None
    """Bytes to be sent or downloaded, by the cluster once; None if nothing moves, or if the cluster knows."""
    source: str = ""
    """The server or folder where it is."""
    images: PackedImages | None = None
    """A set of this machine that is to be in the store."""
    archives: tuple[Archive, ...] = ()
    """What the cluster downloads for a set."""
    start: Start | None = None
    """Initial weights that have been read, which are to be in the store."""


def supplies(sweep: SweepSpec, *, upload: bool, progress: PackProgress | None = None) -> list[Supply]:
    """Return where all that a sweep needs comes from.

    Args:
        sweep: The sweep.
        upload: Whether what is on this machine is to be sent: sets, which are packed here, and networks. What is not,
            and has a download, is left to the cluster.
        progress: Called for each image that is packed.

    Raises:
        InputError: If a set or network can be had in none of these ways, or a set cannot be used.
    """
    refuse_overlap(known_sets(sweep.train), sweep.tests)
    refuse_overlap(known_sets(sweep.train), sweep.validation_sets, "validation")
    sets = sweep.sets()
    kinds = ["training set", *["test set"] * len(sweep.tests)]
    kinds += ["validation set"] * (len(sets) - len(kinds))
    found: list[Supply] = []
    for kind, (reference, role) in zip(kinds, sets, strict=True):
        supply = Supply(set_name(reference), kind, IN_STORE)
        if packed_digest(reference):
            found.append(supply)
            continue
        places = places_of(reference)
        missing = missing_sets(reference, role, sweep.recipe.scale)
        if upload and not missing and [place.name for place in places] != [DEMO]:
            images = pack_set(reference, role, sweep.recipe, progress)
            folders = [folder for each in places for folder in _folders(each) or [str(sets_folder() / each.name)]]
            found.append(replace(supply, how=SENT, source=" and ".join(folders), images=images))
            continue
        if not missing and not any(map(_folders, places)):
            resolve(reference, role, sweep.recipe.scale)  # refuses a name that nobody knows
        for place in places:
            part = supply if len(places) == 1 else replace(supply, name=place.given or place.name)
            found.append(_of_cluster(part, reference, place, sweep.recipe, found))
    return found + [_network(name, upload=upload) for name in networks_of(sweep.all_metrics(), sweep.losses())]


def _folders(place: Place) -> list[str]:
    """Return the folders that a person gave for a place, of its images and of low-resolution files."""
    return [*filter(None, (place.given, place.lr_given))]


def initial_supplies(sweep: SweepSpec, store: Storage | None) -> list[Supply]:
    """Return where the weights come from with which the runs of a sweep start; nothing if all are drawn.

    Args:
        sweep: The sweep.
        store: The results store to which what is on this machine is to be sent; None if nothing is.

    Raises:
        InputError: If they can be had in no way or, where they are to be sent, cannot be used.
    """
    if (init := sweep.recipe.init) is None:
        return []
    supply = Supply(label(init.name), "initial weights", IN_STORE)
    if init.sha256 is not None or init.name.startswith(RUN):
        return [supply]
    elsewhere = FROM_URI if is_remote(init.name) else FILE_OF_CLUSTER if init.name.startswith("/") else None
    if store is not None:
        try:
            start = Start.of(sweep, store)
        except MissingDataError:
            if elsewhere is None:
                raise
        else:
            supply = replace(supply, start=start)
            return [replace(supply, how=SENT, source=init.name) if start.weights else supply]
    if elsewhere is None:
        raise InputError(
            f"recipe.init {quoted(init.name)} is a file of this machine: {_CHOICES}, or the absolute path of a file on "
            "the cluster."
        )
    with explained():
        server = server_of(init.name)
        if server is None:
            Location.of(init.name)  # refuses a URI with credentials, which Ray would keep
    return [replace(supply, how=DOWNLOADED if server else elsewhere, source=server or init.name)]


def _of_cluster(supply: Supply, reference: str, place: Place, recipe: Recipe, before: Iterable[Supply]) -> Supply:
    """Return how a cluster gets a set, or a part of one, that is not sent there.

    Args:
        supply: What is known of it.
        reference: The reference to the set.
        place: Where it is.
        recipe: Of the sweep.
        before: Other sets, with which it may share archives.

    Raises:
        InputError: If it cannot.
    """
    for folder in _folders(place):
        if not folder.startswith("/"):
            raise InputError(
                f"data set {quoted(reference)} is in a folder of this machine: {_CHOICES}, or the absolute path of a "
                "folder on the cluster."
            )
    name = place.name
    if place.given:
        return replace(supply, how=OF_CLUSTER, source=" and ".join(_folders(place)))
    if name == DEMO:
        return replace(supply, how=INSTALLED)
    archives = CATALOG[name].archives_of([recipe.scale] if uses_shipped_lr(reference) else [])
    if not archives:
        raise MissingDataError(
            f"{name} has no download from which the cluster could get it: {_CHOICES} from a machine that has its "
            f"images, a folder on the cluster as in '{name}=/DIR', or other sets."
        )
    for other in before:
        if set(map(_url, archives)) <= set(map(_url, other.archives)):
            return replace(supply, how=DOWNLOADED, source=f"with {other.name}")
    size = sum(archive.size for archive in archives)
    return replace(supply, how=DOWNLOADED, size=size, source=hosts(archives), archives=tuple(archives))


def _url(archive: Archive) -> str:
    return archive.url


def _network(name: str, *, upload: bool) -> Supply:
    """Return how a cluster gets a network.

    Raises:
        InputError: If it cannot.
    """
    network = NETWORKS.load(name)
    if upload and (path := Locator(download=False).find(name)) is not None:
        return Supply(name, "network", SENT, source=str(path))
    url = urllib.parse.urlsplit(network.url)
    if url.scheme not in ("http", "https", "ftp") or not url.hostname:
        raise InputError(
            f"the pretrained network {name} has no download from which the cluster could get it "
            f"({quoted(network.url)}): {_CHOICES} from a machine that has it, as 'sgbench weights list' shows."
        )
    return Supply(name, "network", DOWNLOADED, network.size, url.hostname)


def with_sizes(found: Iterable[Supply], parcels: Sequence[Parcel]) -> list[Supply]:
    """Return supplies with the size of what is to be sent of each, or that the store has it already.

    Args:
        found: The supplies.
        parcels: What the store lacks of each that is sent, in the same order.
    """
    sizes = iter([parcel.size for parcel in parcels])
    told = []
    for supply in found:
        if supply.how == SENT:
            size = next(sizes)
            supply = replace(supply, size=size) if size else replace(supply, how=IN_STORE, source="")
        told.append(supply)
    return told


def as_sent(sweep: SweepSpec, found: Iterable[Supply]) -> SweepSpec:
    """Return a sweep whose sets and first weights are those that were sent, whatever a cluster has of their names."""
    found = list(found)
    sent = {(each.kind, each.name): f"{each.name}=packed:{each.images.digest}" for each in found if each.images}

    def all_sent(kind: str, references: Iterable[str]) -> tuple[str, ...]:
        return tuple(sent.get((kind, set_name(reference)), reference) for reference in references)

    validation = sweep.validation
    if validation:
        validation = validation.model_copy(update={"sets": all_sent("validation set", sweep.validation_sets)})
    (train,) = all_sent("training set", [sweep.train])
    return sweep.model_copy(
        update={
            "train": train,
            "tests": all_sent("test set", sweep.tests),
            "validation": validation,
            "recipe": next((each.start.sweep.recipe for each in found if each.start), sweep.recipe),
        }
    )
