"""Packed images and networks that reach a machine through a store."""

import shutil
from pathlib import Path

import pytest
from crash_points import CUTS, EveryPoint, Frail

from sgbench.assets.locator import Locator
from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.data import PackedImages
from sgbench.runs import delivery
from sgbench.runs.delivery import Packed, open_packed, receive_networks, send


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}/store")


@pytest.fixture
def away(train_images: PackedImages, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackedImages:
    """A set that was sent, and then is no longer where the driver has it, as if this were another machine."""
    send([Packed.of(train_images)], [], storage)
    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path / "node"))
    return PackedImages.open(train_images.path.rename(tmp_path / "driver"))


def same(a: PackedImages, b: PackedImages) -> bool:
    return a.sha256 == b.sha256 and all(
        (a.hr(i) == b.hr(i)).all() and (a.lr(i) == b.lr(i)).all() for i in range(len(a))
    )


def test_a_folder_that_is_seen_is_read_where_it_is(train_images: PackedImages, storage: Storage) -> None:
    send([Packed.of(train_images)], [], storage)
    assert open_packed(Packed.of(train_images), storage).path == train_images.path


def test_a_set_is_sent_once(train_images: PackedImages, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    send([Packed.of(train_images)], [], storage)
    assert [name.rpartition("/")[2] for name in storage.sizes()] == ["hr.bin", "lr.bin", "manifest.json"]
    monkeypatch.delattr(Storage, "upload")
    send([Packed.of(train_images)], [], storage)


def test_sending_that_is_cut_off_anywhere_is_completed_by_the_next(
    train_images: PackedImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here := tmp_path / "alexnet-owt-7be5be79.pth").write_bytes(b"weights")
    monkeypatch.setattr(Locator, "find", lambda _, name: here)

    def sent(storage: Frail) -> None:
        send([Packed.of(train_images)], ["alexnet"], storage)

    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path / "node"))
    points = EveryPoint(Frail, sent, lambda storage: storage)
    for storage in points:
        sent(storage)
        assert storage.read(f"networks/{here.name}") == b"weights"
        assert same(open_packed(Packed(str(tmp_path / "not here"), train_images.sha256), storage), train_images)
        shutil.rmtree(tmp_path / "node")
    assert points.tried == 4 * len(CUTS)


def test_a_set_is_fetched_once_a_node(
    away: PackedImages, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = Packed(str(tmp_path / "not here"), away.sha256)
    first = open_packed(packed, storage)
    assert same(first, away)
    assert first.path.is_relative_to(tmp_path / "node")
    monkeypatch.delattr(Storage, "download")
    assert open_packed(packed, storage).path == first.path
    assert [path for path in first.path.parent.iterdir() if path.is_dir()] == [first.path]


@pytest.mark.parametrize("sent", [True, False])
def test_another_set_at_the_path_of_the_driver_s_is_not_used(
    train_images: PackedImages, test_images: PackedImages, storage: Storage, sent: bool
) -> None:
    """As where every machine packs into a cache of its own, and one of them from images of another day."""
    wanted = Packed(str(test_images.path), train_images.sha256)
    if sent:
        send([Packed.of(train_images)], [], storage)
        assert same(open_packed(wanted, storage), train_images)
    else:
        with pytest.raises(InputError) as refused:
            open_packed(wanted, storage)
        assert str(refused.value) == (
            f"on this machine '{test_images.path}' holds different images (manifest hash {test_images.sha256[:12]}) "
            f"from where the sweep was started ({train_images.sha256[:12]}); remove that folder."
        )


def test_a_set_that_arrives_damaged_is_refused_and_not_kept(
    away: PackedImages, storage: Storage, tmp_path: Path
) -> None:
    name = f"packed/{away.sha256}/hr.bin"
    pixels = bytearray(storage.read(name))
    pixels[7] ^= 1
    storage.write(name, bytes(pixels))
    for _ in range(2):
        with pytest.raises(InputError, match="has changed on disk"):
            open_packed(Packed(str(tmp_path / "not here"), away.sha256), storage)
    assert not [path for path in (tmp_path / "node").rglob("*") if path.is_dir() and "received" in path.name]


def test_a_set_that_is_nowhere_is_refused(train_images: PackedImages, storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="are damaged"):
        open_packed(Packed(str(tmp_path / "not here"), train_images.sha256), storage)


def test_networks_travel_and_what_the_driver_lacks_does_not(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here := tmp_path / "alexnet-owt-7be5be79.pth").write_bytes(b"weights")
    monkeypatch.setattr(delivery, "networks_folder", lambda: tmp_path / "node")
    with monkeypatch.context() as driver:
        driver.setattr(Locator, "find", lambda _, name: here if name == "alexnet" else None)
        send([], ["alexnet", "inception"], storage)
        receive_networks(["alexnet"], storage)  # who has it fetches nothing
    assert list(storage.sizes()) == ["networks/alexnet-owt-7be5be79.pth"]
    assert not (tmp_path / "node").exists()
    monkeypatch.setattr(Locator, "find", lambda *_: None)
    receive_networks(["alexnet", "inception"], storage)
    assert {path.name: path.read_bytes() for path in (tmp_path / "node").iterdir()} == {here.name: b"weights"}
