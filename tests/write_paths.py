"""Every path by which sgbench writes files, cut off at every point; run as a script, it shows a table of them.

In each case, the same command afterwards ends with the same bits as one that was never disturbed, the store is sound,
and nothing is left over.
"""

import contextlib
import functools
import hashlib
import itertools
import os
import re
import sys
import tarfile
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from crash_points import EveryPoint, Frail, FrailDisk, decoded_once, in_one_thread
from made_up_runs import ID, declared, fill, history, planned, said, scores, spec_of, trained, tuned, validation, values

from sgbench.core.download import download
from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.data import PackedImages, prepare, resolve, write_png
from sgbench.data.catalog import CATALOG
from sgbench.runs.delivery import Packed, open_packed, parcels, send
from sgbench.runs.maintenance import Merge, clean, find_runs, remove
from sgbench.runs.verification import verify
from sgbench.spec import Degradation
from sgbench.store import Replaced, Store
from sgbench.training import Checkpoints, write_init

Act = Callable[[Store], object]


def kept(*runs: tuple[int, float, str, int], compacted: bool = False) -> dict[str, bytes]:
    """Return the files of a store of some runs: seed, value, status and hour."""
    store = Store(Frail())
    for seed, value, status, hour in runs:
        fill(store, seed, value, status=status, hour=hour)
        store.storage.write(f"logs/{ID[seed]}/run.log", b"what it printed")
    if compacted:
        store.compact()
    return store.storage.files()


@functools.cache
def ours() -> dict[str, bytes]:
    """Runs that are done, one compacted and scored once more since, one failed, one interrupted, and a plan."""
    store = Store(Frail(kept((0, 1.0, "done", 1), (2, 1.0, "done", 1), compacted=True)))
    store.write_scores(scores(ID[0], 1.0, metric="fid"))
    fill(store, 1, 1.0, status="failed", hour=1)
    Checkpoints(store.storage, ID[3]).save(7, {"value": 1.0})
    store.write_plan("quick", [planned(0), planned(1)])
    store.write_labels({"l2": "ours"})
    store.write_replaced({ID[0]: Replaced("before", rerun=True, scores=(("Set5", "ab" * 32, "psnr_y"),))})
    store.storage.write("sgbench.json", b'{"format": 1}')
    return store.storage.files()


@functools.cache
def theirs() -> Store:
    """A store that has each of the runs better, and asks for more."""
    files = kept((0, 2.0, "done", 2), (1, 2.0, "done", 2), (2, 1.0, "done", 1), (3, 2.0, "done", 2))
    source = Store(Frail(files, "memory://source"))
    source.write_scores(scores(ID[2], 1.0, metric="ssim_y"))
    source.write_plan("quick", [planned(1), planned(3)])
    source.write_plan("other", [planned(2)])
    source.write_labels({"l1": "base", "l2": "theirs"})
    source.declare(declared())
    source.write_tuning("quick", tuned(1))
    write_init(source.storage, {"weight": torch.full((2,), 1.0)}, "x2.pt")
    return source


def filled() -> Store:
    """A store with `ours`."""
    return Store(Frail(ours()))


def empty() -> Store:
    """A store without anything but its mark."""
    return Store(Frail({"sgbench.json": b'{"format": 1}'}))


def half_removed() -> Store:
    """What a removal left that the sgbench of before did: all but the row."""
    store = Store(Frail(ours()))
    store.tables["runs"].forget(ID[0])
    return store


def littered() -> Store:
    """A store with what killed processes left, and checkpoints of a run that is done."""
    store = Store(Frail(ours()))
    for name in (f".ray/0123abcd/{number}" for number in range(3)):
        store.storage.write(name, b"scratch")
    store.storage.write("runs/.a.parquet.0123abcd", b"123")
    Checkpoints(store.storage, ID[0]).save(7, {"value": 1.0})
    return store


def save_weights(store: Store) -> None:
    weights = {"weight": torch.full((2,), 1.0)}
    Checkpoints(store.storage, ID[0]).save_weights(weights, spec_of(0).model_dump(mode="json"))


def save_images(store: Store) -> None:
    rows = scores(ID[0], 1.0, metric="ssim_y", n_images=2)
    for image in ("baby", "bird"):
        store.storage.write(f"images/{ID[0]}/B100@abababab/{image}.png", b"1.0")
    store.write_scores(row | {"dataset": "B100"} for row in (*rows, rows[1] | {"image": "bird"}))


def merged(store: Store) -> None:
    Merge.of(store, theirs()).apply()


def removed(store: Store) -> None:
    for run_id in find_runs(store, [ID[0]]):
        remove(store, run_id)


def planned_again(store: Store) -> None:
    store.write_plan("quick", [planned(2), planned(3, "fid")])


@in_one_thread
@decoded_once()
def on_a_store(make: Callable[[], Store], act: Act) -> int:
    """Cut off an action on a store in memory at every point; return how many there were.

    In between, no run that was there is missing, what there is of a run is of one training, and `verify` names only
    what was interrupted.
    """
    before, whole = make(), make()
    act(whole)
    expected = said(whole)
    allowed = [values(store, orphans=True) for store in (before, whole)]
    plans = [*before.plans().items(), *whole.plans().items()]
    everything_stays = allowed[0].keys() <= allowed[1].keys()
    clean(whole)
    left = beside(whole)
    points = EveryPoint(make, act, lambda store: store.storage)
    for store in points:
        found = values(store, orphans=True)
        assert not everything_stays or found.keys() >= allowed[0].keys()
        for run_id, value in found.items():
            assert value in [each.get(run_id) for each in allowed]
        assert all(plan in plans for plan in store.plans().items())
        assert [fault for fault in verify(store) if not INTERRUPTED.search(fault)] == []
        ended(store, act, expected, left)
    return points.tried


def ended(store: Store, act: Act, expected: dict[str, Any], left: set[str]) -> None:
    """Check that the same action again ends what was cut off."""
    with contextlib.suppress(InputError):  # that there is no such run any more
        act(store)
    assert said(store) == expected
    assert list(verify(store)) == []
    clean(store)
    assert beside(store) == left


def beside(store: Store) -> set[str]:
    """Return the names of the files that are not of tables, which may be small or compacted."""
    return {name for name in store.storage.sizes() if not name.endswith(".parquet")}


INTERRUPTED = re.compile(
    "but no row in 'runs'; repeat|left over from a killed compaction|, but no score |is done, but has no training curve"
)
"""What `verify` may say between a cut and the repetition."""


def on_a_disk(
    folder: Path,
    make: Callable[[Path], object],
    act: Callable[[Path], object],
    seen: Callable[[Path], dict[str, Any]],
) -> int:
    """Cut off an action on a folder of a disk at every point; return how many there were.

    In between, whatever is seen is whole, either as before or as it will be.

    Args:
        folder: Where to make folders to act on.
        make: Puts something into such a folder.
        act: The action.
        seen: Returns what is seen of a folder.
    """
    numbers = itertools.count()

    def made() -> FrailDisk:
        disk = FrailDisk(folder / str(next(numbers)))
        disk.folder.mkdir(parents=True)
        make(disk.folder)
        return disk

    def acted(disk: FrailDisk) -> None:
        with disk.watched():
            act(disk.folder)

    before, whole = made().folder, made().folder
    act(whole)
    expected, allowed = seen(whole), {*seen(before).items(), *seen(whole).items()}
    points = EveryPoint(made, acted, lambda disk: disk)
    for disk in points:
        assert seen(disk.folder).items() <= allowed
        act(disk.folder)
        assert seen(disk.folder) == expected
    return points.tried


def visible(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder, without hidden ones and parts of downloads."""
    files = FrailDisk(folder).files()
    return {name: content for name, content in files.items() if not re.search(r"(^|/)\.|/$|\.part$", name)}


def rows_of(folder: Path) -> dict[str, str]:
    """Return the rows of the runs of a store."""
    return {run_id: str(row) for run_id, row in Store(Storage(str(folder))).rows().items()}


def nothing(folder: Path) -> None:
    """Leave a folder empty."""


@functools.cache
def elsewhere() -> Path:
    """A folder for what is read, which nothing cuts off."""
    return Path(tempfile.mkdtemp(prefix="sgbench-test-"))


@functools.cache
def photos() -> Path:
    """Two images."""
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 20, 3), np.uint8)
        write_png(elsewhere() / "photos" / f"photo{number}.png", pixels)
    return elsewhere() / "photos"


def pack(cache: Path) -> PackedImages:
    source = resolve(f"Photos={photos()}", "train")
    return prepare(source, scale=4, degradation=Degradation(), cache=cache, workers=1)


@functools.cache
def packed() -> PackedImages:
    """The same images, packed elsewhere."""
    return pack(elsewhere() / "packed")


def packed_again(folder: Path) -> None:
    pack(folder).verify()


def sent(store: Store) -> None:
    send(parcels([packed()], [], store.storage), store.storage)


@functools.cache
def store_with_images() -> Store:
    store = Store(Frail())
    sent(store)
    return store


def received(folder: Path) -> None:
    with mock.patch.dict(os.environ, SGBENCH_CACHE=str(folder)):
        open_packed(Packed(str(folder / "nowhere"), packed().digest), store_with_images().storage).verify()


@functools.cache
def archive() -> Path:
    """An archive like that of Set5."""
    path = elsewhere() / "benchmark.tar"
    with tarfile.open(path, "w") as tar:
        for inside in ("HR", "LR_bicubic/X2", "LR_bicubic/X3", "LR_bicubic/X4"):
            for number in range(5):
                name = f"benchmark/Set5/{inside}/image{number}.png"
                tar.add(photos() / "photo0.png", name)
    return path


def digest() -> str:
    return f"sha256:{hashlib.sha256(archive().read_bytes()).hexdigest()}"


def downloaded(folder: Path) -> None:
    download(archive().as_uri(), folder / "benchmark.tar", digest=digest())


def fetched(folder: Path) -> None:
    local = replace(CATALOG["Set5"].archives[0], url=archive().as_uri(), digest=digest())
    entry = replace(CATALOG["Set5"], archives=(local,))
    module = sys.modules["sgbench.data.fetch"]
    with mock.patch.dict(os.environ, SGBENCH_DATA=str(folder)), mock.patch.object(module, "CATALOG", {"Set5": entry}):
        (outcome,) = module.fetch(["Set5"])
    if outcome.outcome == "failed":
        raise OSError(outcome.remark)


def compacted(folder: Path) -> None:
    Store(Storage(str(folder))).compact()


def done_side_by_side(folder: Path) -> None:
    storage = Storage(str(folder))
    with storage.register("shard 1/2 of paper"):
        if taken := storage.book(["run"]):
            raise InputError(f"'run' is booked by {storage.in_words(taken.values())}.")
        storage.write("run", b"done")


def fill_small(folder: Path) -> None:
    store = Store(Storage(str(folder)))
    for seed in (0, 1):
        store.write_run(trained(seed))


def written(folder: Path) -> None:
    Store(Storage(str(folder))).write_run(trained(0, hour=5))


STORES: dict[str, tuple[Callable[..., Store], Act]] = {
    "run row": (filled, lambda store: store.write_run(trained(0, hour=5, wall_seconds=1.0))),
    "scores": (filled, lambda store: store.write_scores([*scores(ID[0], 1.0, 5), *scores(ID[0], 1.0, 5, "ssim_y")])),
    "history": (filled, lambda store: store.write_history(history(ID[0], 1.0))),
    "validation": (filled, lambda store: store.write_validation(validation(ID[0], 1.0))),
    "checkpoint": (filled, lambda store: Checkpoints(store.storage, ID[3]).save(9, {"value": 1.0})),
    "final weights": (filled, save_weights),
    "images": (filled, save_images),
    "plan": (filled, planned_again),
    "labels": (filled, lambda store: store.write_labels({"l1": "ours"})),
    "declaration": (filled, lambda store: store.declare(declared())),
    "tuning": (filled, lambda store: store.write_tuning("quick", tuned(2))),
    "send packed images": (empty, sent),
    "compact": (filled, Store.compact),
    "merge": (filled, merged),
    "merge into nothing": (empty, merged),
    "rm": (filled, removed),
    "rm of what was left": (half_removed, removed),
    "clean": (littered, clean),
    "clean of all": (littered, functools.partial(clean, everything=True)),
}
"""What each path begins with, given the storage, and what it does."""

DISKS: dict[str, tuple[Callable[[Path], object], Callable[[Path], object], Callable[[Path], dict[str, Any]]]] = {
    "run row, on a disk": (fill_small, written, rows_of),
    "first run row, on a disk": (nothing, written, rows_of),
    "compact, on a disk": (fill_small, compacted, rows_of),
    "prepare": (nothing, packed_again, visible),
    "register and book": (nothing, done_side_by_side, visible),
    "receive packed images": (nothing, received, visible),
    "download": (nothing, downloaded, visible),
    "fetch": (nothing, fetched, visible),
}
"""What each path begins with in an empty folder, what it does there, and what is seen of it."""


def points_of(name: str, folder: Path) -> int:
    """Cut off a path at every point, with an empty folder at hand; return how many there were."""
    return on_a_store(*STORES[name]) if name in STORES else on_a_disk(folder, *DISKS[name])


def main() -> int:
    """Show each path with its points and failures; return 1 if one fails."""
    failed, total = 0, 0
    for name in (*STORES, *DISKS):
        told = ""
        with tempfile.TemporaryDirectory() as folder:
            try:
                total += (points := points_of(name, Path(folder)))
                told = f"{points:>6} points"
            except AssertionError:
                failed += 1
                told = "failed:\n" + traceback.format_exc()
        sys.stdout.write(f"{name:<26}{told}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{len(STORES) + len(DISKS)} paths, {total} points, {failed} paths failed\n")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
