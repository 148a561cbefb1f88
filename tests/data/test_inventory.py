import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sgbench.core.errors import InputError
from sgbench.data import CATALOG, PackedImages, discard, inventory, list_packings, prepare, resolve, unused, write_png
from sgbench.spec import Degradation


def noise(i):
    return np.random.default_rng(i).integers(0, 256, (16, 20, 3), dtype=np.uint8)


@pytest.fixture
def source(tmp_path):
    write_png(tmp_path / "photos" / "photo0.png", noise(0))
    return resolve(f"mine={tmp_path / 'photos'}", "train")


@pytest.fixture
def pack(tmp_path):
    def call(source, scale=4):
        return prepare(source, scale=scale, degradation=Degradation(), cache=tmp_path / "cache")

    return call


def test_the_inventory_counts_images_where_they_are_looked_for(monkeypatch, tmp_path):
    def touch(folder: str, count: int) -> Path:
        (tmp_path / folder).mkdir(parents=True)
        for i in range(count):
            (tmp_path / folder / f"{i}.png").touch()
        return tmp_path / folder

    monkeypatch.setenv("SGBENCH_DATA", str(tmp_path))
    hr = touch("Set5/HR", 5)
    touch("Set5/LR_bicubic/X2", 5)
    touch("Set5/LR_bicubic/X4", 4)
    flat = touch("Set14", 13)
    status = {status.entry.name: status for status in inventory()}
    assert list(status) == list(CATALOG)
    (five,), (fourteen,), (urban,) = (status[name].parts for name in ("Set5", "Set14", "Urban100"))
    assert (five.folder, five.found, five.expected, five.lr_scales) == (hr, 5, 5, (2,))
    assert (fourteen.folder, fourteen.found, fourteen.expected, fourteen.lr_scales) == (flat, 13, 14, ())
    assert (urban.found, urban.expected) == (0, 100)
    assert [(part.role, part.found, part.expected) for part in status["demo"].parts] == [
        ("train", 8, 8),
        ("test", 3, 3),
    ]


def test_what_is_prepared_is_listed_even_if_it_is_damaged(source, pack, tmp_path):
    assert list_packings(tmp_path / "cache") == []
    pack(replace(source, name="a-train-x2-b", role="test"))
    (pack(source, scale=2).path / "manifest.json").unlink()
    (tmp_path / "cache" / ".mine-train-x4-000000000000.tmp").mkdir()
    (tmp_path / "cache" / "something else").mkdir()
    listed = list_packings(tmp_path / "cache")
    assert [(each.name, each.role, each.scale) for each in listed] == [
        ("a-train-x2-b", "test", 4),
        ("mine", "train", 2),
    ]


def test_what_is_prepared_is_chosen_by_name_or_by_the_files_themselves(pack, tmp_path, source):
    cache, photos = tmp_path / "cache", tmp_path / "photos"
    one, two = pack(source).path, pack(source, scale=2).path
    write_png(tmp_path / "others" / "a.png", noise(0))
    other = pack(resolve(f"mine={tmp_path / 'others'}", "train")).path
    assert {each.path for each in list_packings(cache, ["mine"])} == {one, two, other}
    assert {each.path for each in list_packings(cache, [f"mine={photos}", "mine"])} == {one, two, other}
    assert {each.path for each in list_packings(cache, [f"mine={photos}"])} == {one, two}
    (one / "manifest.json").write_text("{")  # whoever opens it is to say so
    assert {each.path for each in list_packings(cache, [f"mine={photos}"])} == {one, two}
    shutil.rmtree(one)
    with pytest.raises(InputError, match=r"Set5 is not prepared in '.*cache'; run 'sgbench data prepare Set5'"):
        list_packings(cache, ["Set5"])
    write_png(photos / "photo0.png", noise(1))
    with pytest.raises(InputError, match=r"mine=.*photos is not prepared in"):
        list_packings(cache, [f"mine={photos}"])


def age(folder: Path, days: float) -> None:
    for path in (folder, *folder.iterdir()):
        os.utime(path, (time.time() - 86_400 * days,) * 2)


def test_what_nothing_has_used_for_a_while_is_found_oldest_first(source, pack, tmp_path):
    old, older, new = (pack(source, scale).path for scale in (2, 3, 4))
    age(old, 40)
    age(older, 50)
    (left := tmp_path / "cache" / f".{old.name}.0123abcd").mkdir()
    (left / "hr.bin").write_bytes(b"12345")
    age(left, 60)
    (tmp_path / "cache" / ".git").mkdir()
    cache = tmp_path / "cache"
    assert [each.path for each in unused(cache, 30)] == [left, older, old]
    assert unused(cache, 30)[0].size == 5
    assert [each.path for each in unused(cache, 45)] == [left, older]
    sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in (old, new)}
    assert [each.path for each in unused(cache, 30, sum(sizes.values()))] == [left, older]
    assert [each.path for each in unused(cache, 30, 10**9)] == []
    assert unused(tmp_path / "nothing", 30) == []


def test_a_set_that_is_opened_is_in_use(source, pack, tmp_path):
    packed = pack(source)
    age(packed.path, 40)
    PackedImages.open(packed.path)
    assert unused(tmp_path / "cache", 1) == []


def test_an_open_set_can_be_read_when_it_has_been_deleted(source, pack, tmp_path):
    packed = pack(source)
    pixels = packed.hr(0).copy()
    discard(packed.path)
    discard(packed.path)
    assert list((tmp_path / "cache").iterdir()) == []
    assert np.array_equal(packed.hr(0), pixels)
