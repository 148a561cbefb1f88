"""What every node of a cluster has and can do, and what to fix before a sweep is started on it."""

import contextlib
import functools
import importlib.metadata
import itertools
import platform
import secrets
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import sgbench
from sgbench.assets.locator import Locator
from sgbench.cluster.ray_internals import asks_for_token
from sgbench.cluster.registered import Sent, load
from sgbench.core.errors import InputError
from sgbench.core.lock import DiskLocks, is_locked, locked
from sgbench.core.packages import obstacle
from sgbench.core.storage import Storage
from sgbench.core.words import in_bytes
from sgbench.data import default_cache
from sgbench.runs.delivery import Packed, open_in_place
from sgbench.runs.progress import Lane

ANSWER_SECONDS = 120.0
"""How long a node may take to answer; a first answer imports torch."""

ASKED_AGAIN = 3
"""How often a node is asked again whose process died or was not reached; it may have been a fault of the network."""

LITTLE_DISK = 5 * 2**30
"""Free bytes below which the disk of a node's cache is called nearly full."""

NOT_INSTALLED = "not installed"
"""Stands for the version of a package that is not there."""

THIS_MACHINE = "this machine"
"""Name of a node that is the only one."""


@dataclass(frozen=True)
class Wanted:
    """What a sweep needs on every node."""

    storage: str
    """The results store."""
    packed: tuple[Packed, ...] = ()
    """Sets of images, which are sent through the store to a node that does not see them."""
    networks: tuple[str, ...] = ()
    """Of metrics."""
    sent: Sent = field(default_factory=Sent)
    """The code of plug-ins, which every node must import, and packages that it must have in this machine's version."""
    alone: bool = False
    """Whether this machine is the only node, as when Ray was started without an address."""


@dataclass(frozen=True)
class Node:
    """What a node answered."""

    name: str
    """Its host name and its address; `THIS_MACHINE` if there is no other."""
    facts: dict[str, str] = field(default_factory=dict)
    """Facts to show, by topic."""
    problems: tuple[str, ...] = ()
    """What to fix before a sweep can run here, a sentence each."""
    lacks: tuple[str, ...] = ()
    """Folders of packed images that it does not see."""
    remarks: tuple[str, ...] = ()
    """What does not stop a sweep but should be known, a sentence each."""
    sees_lock: bool = True
    """Whether it sees the kernel's lock that this machine has for the store, if it is such a lock."""
    id: str = field(default="", compare=False)
    """Ray's id of it."""


def examine(wanted: Wanted, folder: str = "") -> list[Node]:
    """Ask every node of the connected cluster what it has, and compare it with this machine.

    This machine writes a file into the store, which every node must read, and each node writes another one. If this
    machine locks the store by the kernel, it locks that file, for nodes to find that they see it.

    Args:
        wanted: What the sweep needs.
        folder: Folder of the store for these files, which a later sweep deletes if this process is killed.

    Returns:
        The nodes that are alive, by name.

    Raises:
        InputError: If this machine cannot write to the store.
    """
    storage = _existing(wanted.storage)
    mark = f"{folder}/probe" if folder else f".probe-{secrets.token_hex(4)}"
    try:
        storage.write(mark, mark.encode())
    except OSError as error:
        raise InputError(f"the results store '{wanted.storage}' cannot be written to: {error}.") from error
    try:
        alive = [node for node in ray.nodes() if node["Alive"]]
        kernel = isinstance(storage.locks, DiskLocks) and storage.locks.is_kernel_lock
        with locked(Path(storage.path(mark))) if kernel else contextlib.nullcontext():
            answers = [_ask(node["NodeID"], _question(wanted, storage) | {"locked": kernel}, mark) for node in alive]
            nodes = [_judged(node, answer, wanted) for node, answer in zip(alive, _gather(answers), strict=True)]
    finally:
        storage.delete(mark)
    return sorted(nodes, key=lambda node: node.name)


def own_id() -> str:
    """Return the id that Ray has given this process's node."""
    return str(ray.get_runtime_context().get_node_id())


def own_name() -> str:
    """Return Ray's name of this process's node: the name that it was started with, or else its address."""
    own = own_id()
    return next(str(node["NodeName"]) for node in ray.nodes() if node["NodeID"] == own)


def own_lane(workers: int = 1) -> Lane:
    """Return where this process is: its node and, if Ray has given it GPUs, these.

    Args:
        workers: Of its group.
    """
    gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    kind = torch.cuda.get_device_name() if gpus and torch.cuda.is_available() else ""
    return Lane(own_name(), ",".join(map(str, gpus)), kind, workers)


def refuse_unfit(nodes: Sequence[Node]) -> None:
    """Refuse a cluster before anything starts on it.

    Raises:
        InputError: With the first problem of the first node that has one.
    """
    unfit = [node for node in nodes if node.problems]
    if unfit:
        more = f" ({len(unfit)} of {len(nodes)} nodes have problems)" if len(unfit) > 1 else ""
        first = f"node {unfit[0].name}: {unfit[0].problems[0].rstrip('.')}{more}"
        raise InputError(f"{first}; 'sgbench doctor' with this --address lists all.")


def _existing(store: str) -> Storage:
    """Return a store or, if it does not exist yet, the folder that is to hold it, so that no folder is created."""
    storage = Storage(store)
    if not storage.is_local:
        return storage
    folder = Path(storage.path())
    return Storage(str(next(each for each in (folder, *folder.parents) if each.exists())))


def _question(wanted: Wanted, storage: Storage) -> dict[str, Any]:
    """Return what a node is asked, in built-in types only, as it may have another version of sgbench."""
    packed = [tuple(each) for each in wanted.packed]
    more = {"networks": list(wanted.networks), "packages": list(wanted.sent.packages), "code": wanted.sent.code}
    return {"storage": storage.root, "packed": packed, **more}


def _ask(node_id: str, question: dict[str, Any], mark: str) -> Any:
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(num_cpus=0, max_retries=ASKED_AGAIN, scheduling_strategy=there)(_answer).remote(question, mark)


def _gather(answers: Sequence[Any]) -> list[dict[str, Any]]:
    """Return what nodes answered, or why one did not."""
    ray.wait(list(answers), num_returns=len(answers), timeout=ANSWER_SECONDS)
    gathered: list[dict[str, Any]] = []
    for answer in answers:
        try:
            gathered.append(ray.get(answer, timeout=0))
        except ray.exceptions.GetTimeoutError:
            gathered.append({"silent": f"it did not answer within {ANSWER_SECONDS:g} s"})
        except ray.exceptions.RayError as error:
            gathered.append({"silent": f"sgbench cannot be run on it: {str(error).strip().splitlines()[-1]}"})
    return gathered


def _answer(question: dict[str, Any], mark: str) -> dict[str, Any]:
    """Run on a node; values are why something cannot be used, or None."""
    cache = default_cache()
    cache.mkdir(parents=True, exist_ok=True)
    return {
        "versions": versions(question["packages"]),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "store": _trouble(lambda: _use(Storage(question["storage"]), mark)),
        "lock": _lock(question["storage"]),
        "sees_lock": not question["locked"] or is_locked(Path(question["storage"]) / mark),
        "packed": {
            packed.folder: _trouble(functools.partial(open_in_place, packed))
            for packed in itertools.starmap(Packed, question["packed"])
        },
        "plugins": _trouble(functools.partial(_load, question["code"])),
        "networks": {name: _trouble(functools.partial(_find, name)) for name in question["networks"]},
        "cache": str(cache),
        "free": shutil.disk_usage(cache).free,
        "token": asks_for_token(),
    }


def versions(more: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions of what this process runs with, which must be the same on all nodes.

    Args:
        more: Distributions that plug-ins need, besides what sgbench needs.
    """
    packages = {"sgbench": sgbench, "torch": torch, "ray": ray}
    found = {"python": platform.python_version()} | {name: package.__version__ for name, package in packages.items()}
    for name in more:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = NOT_INSTALLED
    return found


def _load(code: bytes) -> None:
    if code:
        with ThreadPoolExecutor(1) as pool:  # see `sgbench.core.plugins.FAULTS`
            pool.submit(load, code).result()


def _trouble(attempt: Callable[[], object]) -> str | None:
    try:
        attempt()
    except (OSError, InputError) as error:
        return str(error).rstrip(".")
    return None


def _use(storage: Storage, mark: str) -> None:
    if storage.read(mark) != mark.encode():
        raise OSError("it holds another file than this machine wrote")
    own = f"{mark}-{secrets.token_hex(4)}"
    storage.write(own, b"")
    storage.delete(own)


def _lock(store: str) -> str:
    """Return what kind of lock this node has for the store, or why it has none."""
    try:
        return Storage(store).locks.kind
    except (OSError, InputError) as error:
        return f"none: {error}"


def _find(network: str) -> None:
    if Locator(download=False).find(network) is None:
        raise FileNotFoundError("not available locally")


def _remedy(package: str, wanted: Wanted) -> str:
    """Return what to do about a package of which a node has another version, or none."""
    install = "install the same version on all nodes"
    if package not in wanted.sent.packages:
        return install
    why = obstacle(package)
    return f"{install} (--with cannot send it: {why})" if why else f"send it with --with {package}, or {install}"


def _judged(node: dict[str, Any], answer: dict[str, Any], wanted: Wanted) -> Node:
    """Compare the answer of a node with what is wanted and with this machine."""
    host, at = node["NodeName"], node["NodeManagerAddress"]
    name = THIS_MACHINE if wanted.alone else host if host == at else f"{host} ({at})"
    if silent := answer.get("silent"):
        return Node(name, problems=(f"{silent}.",), id=node["NodeID"])
    own = versions(wanted.sent.packages)
    problems = [
        f"{package} is {there}, and {own[package]} on this machine: {_remedy(package, wanted)}."
        for package, there in answer["versions"].items()
        if there != own[package]
    ]
    if answer["plugins"]:
        problems.append(f"{answer['plugins']}, although this machine can import it.")
    if answer["store"]:
        problems.append(
            f"the results store '{wanted.storage}' cannot be used ({answer['store']}): give a folder that all nodes "
            "share, or a URI such as s3://."
        )
    lacks = tuple(folder for folder, trouble in answer["packed"].items() if trouble)
    remarks = [
        f"it does not see the packed images in '{folder}'; a sweep sends them to its cache through the store "
        f"({in_bytes(packed.size)})."
        for packed in wanted.packed
        if (folder := packed.folder) in lacks
    ]
    cannot = "it cannot be downloaded" if wanted.alone else "this machine cannot send it nor the node download it"
    remarks += [
        f"the pretrained network {network} is {trouble}: if {cannot}, its metrics will be 'no weights'."
        for network, trouble in answer["networks"].items()
        if trouble
    ]
    if not answer["sees_lock"]:
        remarks.append(
            "it does not see the lock that this machine has on a file of the store; a sweep from here holds a lease in "
            "the store too, which every machine sees."
        )
    if answer["free"] < LITTLE_DISK:
        remarks.append(f"the disk of '{answer['cache']}' has only {answer['free'] / 2**30:.1f} GiB free.")
    facts = {
        "store": wanted.storage,
        "lock": answer["lock"],
        "versions": ", ".join(f"{package} {there}" for package, there in answer["versions"].items()),
        "CPU": f"{node['Resources'].get('CPU', 0):g}",
        "GPU": ", ".join(answer["gpus"]) or f"{node['Resources'].get('GPU', 0):g}",
        "cache": f"{answer['cache']}, {answer['free'] / 2**30:.1f} GiB free",
        "token": "required" if answer["token"] else "not required: anyone who reaches its ports can run programs",
    }
    gpus, seen = node["Resources"].get("GPU", 0), len(answer["gpus"])
    if gpus > seen:
        problems.append(f"Ray has {gpus:g} GPU and torch sees {seen}: check the driver and the build of torch.")
    return Node(name, facts, tuple(problems), lacks, tuple(remarks), answer["sees_lock"], node["NodeID"])
