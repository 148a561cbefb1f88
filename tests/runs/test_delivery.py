"""Packed images and networks that reach a machine through a store."""

import contextlib
import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from crash_points import CUTS, EveryPoint, Frail, in_one_thread
from small_networks import STATE, as_file, put

from sgbench.assets.base import networks_folder
from sgbench.assets.catalogue import NETWORKS
from sgbench.core.errors import InputError, MissingDataError
from sgbench.core.storage import Storage
from sgbench.data import PackedImages, default_cache, pack_set, write_png
from sgbench.runs import delivery
from sgbench.runs.delivery import Packed, Parcel, open_packed, parcels, receive, receive_networks, send
from sgbench.spec import Degradation, Recipe

LITTLE = 1000
"""Bytes of a piece, of which the sets of these tests have several."""


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "PIECE_BYTES", LITTLE)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}/store")


@pytest.fixture
def nothing(tmp_path: Path) -> str:
    """A folder that this machine lacks."""
    return str(tmp_path / "not here")


@pytest.fixture
def to_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function after which this is another machine, with a cache of its own that is empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def go() -> None:
        shutil.rmtree(tmp_path / "node", ignore_errors=True)
        monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path / "node"))

    return go


@pytest.fixture
def away(train_images: PackedImages, storage: Storage, to_node: Callable[[], None]) -> PackedImages:
    """A set that was sent, from where it can no longer be seen."""
    send(parcels([train_images], [], storage), storage)
    to_node()
    return train_images


@pytest.fixture
def alexnet(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The content of a network that this machine has, a few bytes under the name of a large one."""
    content = as_file(STATE)
    entry = dataclasses.replace(NETWORKS.load("alexnet"), sha256=hashlib.sha256(content).hexdigest(), archive=None)
    monkeypatch.setitem(NETWORKS._loaded, "alexnet", entry)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    put(networks_folder(), content)
    return content


def same(a: PackedImages, b: PackedImages) -> bool:
    return (a.sha256, a.name, a.images) == (b.sha256, b.name, b.images) and all(
        (a.hr(i) == b.hr(i)).all() and (a.lr(i) == b.lr(i)).all() for i in range(len(a))
    )


def sizes(found: list[Parcel]) -> list[tuple[str, int]]:
    return [(parcel.name, parcel.size) for parcel in found]


def test_a_folder_that_is_seen_is_read_where_it_is(train_images: PackedImages, storage: Storage) -> None:
    assert open_packed(Packed.of(train_images), storage).path == train_images.path


def test_what_is_there_is_not_sent_again_and_progress_is_told(
    train_images: PackedImages, alexnet: bytes, storage: Storage
) -> None:
    found = parcels([train_images], ["alexnet", "inception"], storage)
    whole = sum(train_images.byte_counts()) + (train_images.path / "manifest.json").stat().st_size
    assert sizes(found) == [("Photos", whole), ("alexnet", len(alexnet))]
    told: list[tuple[str, int, int]] = []
    send(found, storage, lambda *moved: told.append(moved))
    assert [each for each in told if each[1] == each[2]] == [("Photos", whole, whole), ("alexnet", *[len(alexnet)] * 2)]
    assert told == sorted(told)
    assert max(storage.sizes("packed").values()) <= max(LITTLE, (train_images.path / "manifest.json").stat().st_size)
    assert sizes(parcels([train_images], ["alexnet"], storage)) == [("Photos", 0), ("alexnet", 0)]


def test_a_set_without_hr_arrives_as_it_is(
    test_images: PackedImages, storage: Storage, tmp_path: Path, to_node: Callable[[], None]
) -> None:
    for index in range(len(test_images)):
        write_png(tmp_path / "photos" / f"{index}.png", test_images.lr(index))
    images = pack_set(f"real=none,lr={tmp_path / 'photos'}", "test", Recipe())
    send(parcels([images], [], storage), storage)
    to_node()
    reference = f"real=packed:{images.digest}"
    received = receive([(reference, "test")], Recipe(), storage, lambda *moved: None)[reference]
    assert received.path != images.path
    assert (received.has_hr, received.sha256) == (False, images.sha256)
    assert (received.lr(1) == test_images.lr(1)).all()


@in_one_thread
def test_sending_that_is_cut_off_anywhere_is_completed_by_the_next(
    train_images: PackedImages,
    alexnet: bytes,
    monkeypatch: pytest.MonkeyPatch,
    to_node: Callable[[], None],
    nothing: str,
) -> None:
    monkeypatch.setattr(delivery, "PIECE_BYTES", 9_000)
    found = parcels([train_images], ["alexnet"], Frail())
    to_node()
    points = EveryPoint(Frail, lambda storage: send(found, storage), lambda storage: storage)
    for storage in points:
        to_node()
        with contextlib.suppress(InputError):  # if it lacks a part
            assert same(open_packed(Packed(nothing, train_images.digest), storage), train_images)
        send([*parcels([train_images], [], storage), found[1]], storage)  # what is there is whole
        to_node()
        assert same(open_packed(Packed(nothing, train_images.digest), storage), train_images)
        receive_networks(["alexnet"], storage)
        assert (networks_folder() / "alexnet-owt-7be5be79.pth").read_bytes() == alexnet
    assert points.tried == 5 * len(CUTS)


def test_a_set_is_fetched_once_a_node(
    away: PackedImages, storage: Storage, nothing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = Packed(nothing, away.digest)
    first = open_packed(packed, storage)
    assert same(first, away)
    assert first.path.parent == default_cache()
    monkeypatch.delattr(Storage, "read")
    assert open_packed(packed, storage).path == first.path
    assert [path for path in first.path.parent.iterdir() if path.is_dir()] == [first.path]


def test_the_same_pixels_under_other_names_are_another_set(
    train_images: PackedImages, train_folder: Path, storage: Storage, nothing: str, to_node: Callable[[], None]
) -> None:
    """Or scores would be recorded under the names of whoever sent such pixels first."""
    for path in train_folder.iterdir():
        path.rename(path.with_name(f"other-{path.name}"))
    other = pack_set(f"Mine={train_folder}", "train", Recipe())
    assert other.sha256 == train_images.sha256
    send(parcels([train_images, other], [], storage), storage)
    to_node()
    for images in (other, train_images):
        assert same(open_packed(Packed(nothing, images.digest), storage), images)


@pytest.mark.parametrize("sent", [True, False])
def test_another_set_at_the_path_of_the_driver_s_is_not_used(
    train_images: PackedImages, test_images: PackedImages, storage: Storage, sent: bool
) -> None:
    """As where every machine packs into a cache of its own, and one of them from images of another day."""
    wanted = Packed(str(test_images.path), train_images.digest)
    if sent:
        send(parcels([train_images], [], storage), storage)
        assert same(open_packed(wanted, storage), train_images)
    else:
        with pytest.raises(InputError) as refused:
            open_packed(wanted, storage)
        assert str(refused.value) == (
            f"on this machine '{test_images.path}' holds a different set (manifest hash {test_images.digest[:12]}) "
            f"from where the sweep was started ({train_images.digest[:12]}); remove that folder."
        )


def damaged(content: bytes) -> bytes:
    return content[:7] + bytes([content[7] ^ 1]) + content[8:]


@pytest.mark.parametrize(
    ("file", "why"),
    [("hr.bin.00001", "has changed on disk"), ("manifest.json", "a different set"), ("lr.bin.00000", "lr.bin")],
)
def test_a_set_that_arrives_damaged_or_in_part_is_refused_and_not_kept(
    away: PackedImages, storage: Storage, nothing: str, file: str, why: str
) -> None:
    name = f"packed/{away.digest}/{file}"
    if file.startswith("lr"):
        storage.delete(name)
    else:
        content = storage.read(name)
        storage.write(name, content.replace(b"photo0", b"photo9") if why == "a different set" else damaged(content))
    for _ in range(2):
        with pytest.raises(InputError, match=f"the set in '.*/packed/{away.digest}' is damaged; delete that") as error:
            open_packed(Packed(nothing, away.digest), storage)
        assert why in str(error.value.__cause__)
    assert not [path for path in default_cache().iterdir() if path.is_dir()]


def test_a_set_that_is_nowhere_is_refused(train_images: PackedImages, storage: Storage, nothing: str) -> None:
    with pytest.raises(InputError, match="are damaged"):
        open_packed(Packed(nothing, train_images.digest), storage)


def test_received_sets_that_nothing_uses_make_way_for_others(
    away: PackedImages,
    test_folder: Path,
    storage: Storage,
    nothing: str,
    monkeypatch: pytest.MonkeyPatch,
    to_node: Callable[[], None],
) -> None:
    other = pack_set(f"Few={test_folder}", "test", Recipe())
    send(parcels([other], [], storage), storage)
    to_node()
    own = pack_set("demo", "test", Recipe())
    old = open_packed(Packed(nothing, away.digest), storage)
    monkeypatch.setattr(delivery, "RECEIVED_DAYS", 0)
    open_packed(Packed(nothing, other.digest), storage)
    assert own.path.exists()  # it was made here
    assert not old.path.exists()


# References


def test_a_reference_to_what_was_sent_is_the_set_that_was_packed(away: PackedImages, storage: Storage) -> None:
    reference = f"Photos=packed:{away.digest}"
    told: list[tuple[str, int, int]] = []

    def moved(*each: object) -> None:
        told.append(each)  # type: ignore[arg-type]

    received = receive([(reference, "train"), ("demo", "test")], Recipe(), storage, moved)
    assert list(received) == [reference]
    assert same(received[reference], away)
    whole = sum(away.byte_counts())
    assert told[-1] == ("Photos", whole, whole)


@pytest.mark.parametrize(
    ("name", "role", "recipe", "why"),
    [
        ("Other", "train", {}, "its name is 'Photos'; 'Other' is needed"),
        ("Photos", "test", {}, "its role is 'train'; 'test' is needed"),
        ("Photos", "train", {"scale": 2}, "its scale is '4'; '2' is needed"),
        ("Photos", "train", {"degradation": Degradation(edges="mirror")}, "edges='mirror' .*' is needed"),
    ],
    ids=["name", "role", "scale", "degradation"],
)
def test_a_set_that_was_packed_for_something_else_is_refused(
    away: PackedImages, storage: Storage, name: str, role: str, recipe: dict[str, object], why: str
) -> None:
    asked = [(f"{name}=packed:{away.digest}", role)]
    with pytest.raises(InputError, match=why):
        receive(asked, Recipe.model_validate(recipe), storage, lambda *_: None)  # type: ignore[arg-type]


def test_a_set_that_a_store_lacks_is_missing_data(storage: Storage, cache: Path) -> None:
    asked = f"Photos=packed:{'0' * 64}"
    with pytest.raises(
        MissingDataError, match=r"is not in the store '.*'; send it there with 'sgbench submit --upload"
    ):
        receive([(asked, "train")], Recipe(), storage, lambda *_: None)
    with pytest.raises(InputError, match="is in a results store, from which only sweeps read it; give the folder"):
        pack_set(asked, "train", Recipe())


# Networks


def test_networks_travel_and_what_the_driver_lacks_does_not(
    storage: Storage, alexnet: bytes, to_node: Callable[[], None]
) -> None:
    send(parcels([], ["alexnet", "inception"], storage), storage)
    assert {name.rpartition(".")[0] for name in storage.sizes()} == {"networks/alexnet-owt-7be5be79.pth"}
    assert len(storage.sizes()) == len(alexnet) // LITTLE + 1
    to_node()
    receive_networks(["alexnet", "inception"], storage)
    assert {path.name: path.read_bytes() for path in networks_folder().iterdir()} == {
        "alexnet-owt-7be5be79.pth": alexnet
    }
    before = networks_folder().stat().st_mtime_ns
    receive_networks(["alexnet"], Storage("/nowhere"))  # who has it asks no store
    assert networks_folder().stat().st_mtime_ns == before


def test_a_network_that_arrives_damaged_is_refused_and_half_of_one_is_not_there(
    storage: Storage, alexnet: bytes, to_node: Callable[[], None]
) -> None:
    send(parcels([], ["alexnet"], storage), storage)
    first, *_, last = storage.sizes()
    to_node()
    storage.write(first, damaged(storage.read(first)))
    with pytest.raises(InputError, match=r"the network in '.*/networks/alexnet.*\.\*' is damaged; delete it, and"):
        receive_networks(["alexnet"], storage)
    storage.delete(last)
    receive_networks(["alexnet"], storage)
    assert not networks_folder().exists()
