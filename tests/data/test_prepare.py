import importlib
import json
import os
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sgbench.core.errors import InputError
from sgbench.core.resize import downscale
from sgbench.data import (
    PackedImages,
    Source,
    default_cache,
    list_images,
    prepare,
    resolve,
    shared_images,
    write_png,
)
from sgbench.spec import Degradation

SIZES = [(17, 21), (32, 24), (20, 45)]


def noise(i):
    return np.random.default_rng(i).integers(0, 256, (*SIZES[i], 3), dtype=np.uint8)


@pytest.fixture
def source(tmp_path):
    for i in range(3):
        write_png(tmp_path / "photos" / f"photo{i}.png", noise(i))
    return Source("mine", "train", tuple(list_images(tmp_path / "photos")))


@pytest.fixture
def pack(tmp_path):
    def call(source, **changes):
        options = {"scale": 4, "degradation": Degradation(), "cache": tmp_path / "cache"} | changes
        return prepare(source, **options)

    return call


def test_what_is_ignored_in_many_images_is_said_once(source, pack, recwarn):
    for path in source.images[:2]:
        exif = Image.Exif()
        exif[0x0112] = 6  # orientation
        Image.open(path).save(path, exif=exif)
    pack(source)
    (warning,) = recwarn
    assert str(warning.message) == (
        f"'{source.images[0]}' has orientation 6; pixels are used as they are stored (also 1 other image of mine)"
    )


@pytest.mark.parametrize("role", ["train", "test"])
def test_nothing_is_said_of_the_images_that_come_with_scikit_image(pack, recwarn, role):
    pack(resolve("demo", role))
    assert not list(recwarn)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_pixels_are_the_cropped_images_and_their_degradation(source, pack, scale, workers):
    degradation = Degradation(edges="mirror")
    packed = pack(source, scale=scale, workers=workers, degradation=degradation)
    assert len(packed) == 3
    assert (packed.name, packed.role, packed.scale, packed.degradation) == ("mine", "train", scale, degradation)
    for i, image in enumerate(packed.images):
        hr = noise(i)[: SIZES[i][0] // scale * scale, : SIZES[i][1] // scale * scale]
        np.testing.assert_array_equal(packed.hr(i), hr)
        np.testing.assert_array_equal(packed.lr(i), downscale(hr, scale, edges="mirror"))
        assert (image.name, image.file, image.height, image.width) == (f"photo{i}", f"photo{i}.png", *hr.shape[:2])
    packed.verify()


def test_views_are_read_only_and_share_memory(source, pack):
    packed = pack(source)
    assert not packed.hr(1).flags.writeable
    assert not packed.lr(1).flags.writeable
    assert np.shares_memory(packed.hr(1), packed.hr(1))


def test_the_second_time_nothing_is_decoded(source, pack, monkeypatch):
    first = pack(source)
    module = importlib.import_module("sgbench.data.prepare")
    monkeypatch.setattr(module, "read_with_remarks", None)
    monkeypatch.setattr(module, "image_size", None)
    assert pack(source).path == first.path


def test_progress_counts_images(source, pack):
    seen = []
    pack(source, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_the_key_follows_files_scale_and_degradation(source, pack):
    paths = {pack(source).path, pack(source, scale=2).path, pack(source, degradation=Degradation(edges="mirror")).path}
    write_png(source.images[0], noise(1))
    paths.add(pack(source).path)
    assert len(paths) == 4
    assert pack(source).path.name.startswith("mine-train-x4-")


def test_the_manifest_hash_is_of_pixels_and_not_of_names(source, pack, tmp_path):
    for i in range(3):
        write_png(tmp_path / "other" / f"x{i}.png", noise(i))
    renamed = Source("yours", "test", tuple(list_images(tmp_path / "other")))
    assert pack(renamed).sha256 == pack(source).sha256
    assert pack(source, scale=2).sha256 != pack(source).sha256
    assert pack(source, degradation=Degradation(edges="mirror")).sha256 != pack(source).sha256
    assert pack(Source("less", "train", source.images[:2])).sha256 != pack(source).sha256


def test_a_packed_set_is_pickled_as_its_path(source, pack):
    packed = pack(source)
    packed.hr(0)
    pickled = pickle.dumps(packed)
    assert len(pickled) < 500
    np.testing.assert_array_equal(pickle.loads(pickled).hr(2), packed.hr(2))


def test_a_set_without_hr_is_its_low_resolution_images(source, pack, tmp_path):
    packed = pack(source)
    for i in range(3):
        write_png(tmp_path / "lr" / f"{i}.png", packed.lr(i))
    alone = pack(resolve(f"real=none,lr={tmp_path / 'lr'}", "test"))
    assert (packed.has_hr, alone.has_hr) == (True, False)
    assert alone.byte_counts() == (0, packed.byte_counts()[1])
    for i, (image, whole) in enumerate(zip(alone.images, packed.images, strict=True)):
        np.testing.assert_array_equal(alone.lr(i), packed.lr(i))
        assert (image.height, image.width, image.hr_sha256) == (whole.height, whole.width, "")
    alone.verify()
    assert shared_images(packed, alone) == [("photo0", "0"), ("photo1", "1"), ("photo2", "2")]
    assert shared_images(alone, alone) == [(name, name) for name in "012"]
    assert alone.sha256 != packed.sha256


def test_shared_images_are_found_by_their_pixels(source, pack, tmp_path):
    write_png(tmp_path / "test" / "same.png", noise(1))
    write_png(tmp_path / "test" / "another.png", noise(1)[::-1])
    other = Source("other", "test", tuple(list_images(tmp_path / "test")))
    assert shared_images(pack(source), pack(other)) == [("photo1", "same")]
    assert shared_images(pack(other), pack(source)) == [("same", "photo1")]


def test_a_bad_image_leaves_nothing_behind(source, pack, tmp_path):
    source.images[1].write_bytes(source.images[1].read_bytes()[:-60])
    with pytest.raises(InputError, match=r"photo1\.png' cannot be read as an image"):
        pack(source)
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_interruption_leaves_nothing_behind(source, pack, tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(source, progress=interrupt)
    assert list((tmp_path / "cache").iterdir()) == []
    pack(source).verify()


def test_two_at_once_make_one(source, pack, tmp_path):
    barrier = threading.Barrier(2, timeout=30)

    def meet(done, total):
        if done == total:
            barrier.wait()

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: pack(source, progress=meet), range(2))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [one.path.name] == [other.path.name]
    other.verify()


def test_files_that_would_have_one_name_are_refused(source, pack, tmp_path):
    shutil.copy(source.images[1], tmp_path / "photos" / "photo1.bmp")
    twice = Source("mine", "train", tuple(list_images(tmp_path / "photos")))
    with pytest.raises(InputError, match=r"'photo1\.bmp' and 'photo1\.png' .* would have the same name"):
        pack(twice)


def test_an_image_smaller_than_the_scale_is_refused(pack, tmp_path):
    write_png(tmp_path / "small" / "a.png", noise(0)[:3])
    with pytest.raises(InputError, match=r"a\.png' is smaller than 4×4 pixels"):
        pack(Source("small", "test", tuple(list_images(tmp_path / "small"))))


def test_a_file_that_is_gone_is_refused(pack, tmp_path):
    with pytest.raises(InputError, match="an image of gone cannot be read"):
        pack(Source("gone", "test", (tmp_path / "a.png",)))


def test_a_cache_that_cannot_be_written_is_refused(source, pack, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot prepare mine in the cache '.*file'"):
        pack(source, cache=tmp_path / "file")


def damage_json(path):
    (path / "manifest.json").write_text("{")


def damage_field(path):
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["scale"]
    (path / "manifest.json").write_text(json.dumps(manifest))


def damage_record(path):
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["images"][0]["height"] += 4
    (path / "manifest.json").write_text(json.dumps(manifest))


def damage_version(path):
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"format": 0}))


def damage_length(path):
    (path / "hr.bin").write_bytes(b"short")


def damage_presence(path):
    (path / "lr.bin").unlink()


@pytest.mark.parametrize(
    "damage", [damage_json, damage_field, damage_record, damage_version, damage_length, damage_presence]
)
def test_damage_is_found_when_opened(source, pack, damage):
    path = pack(source).path
    damage(path)
    with pytest.raises(InputError, match=rf"'{path}' are damaged .*; remove that folder"):
        PackedImages.open(path)
    with pytest.raises(InputError, match="are damaged"):
        pack(source)


@pytest.mark.parametrize("file", ["hr.bin", "lr.bin"])
def test_changed_pixels_are_found_when_verified(source, pack, file):
    packed = pack(source)
    content = bytearray((packed.path / file).read_bytes())
    content[-1] ^= 1
    (packed.path / file).write_bytes(content)
    with pytest.raises(InputError, match=r"the prepared image 'photo2' .* has changed on disk"):
        packed.verify()


def test_default_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path))
    assert default_cache() == tmp_path / "data"
    monkeypatch.delenv("SGBENCH_CACHE")
    assert default_cache().parts[-2:] == ("sgbench", "data")


def test_two_folders_with_files_of_one_name_size_and_time_are_two_sets(tmp_path, pack):
    packed = []
    for i in (0, 1):
        path = tmp_path / str(i) / "photo.bmp"
        path.parent.mkdir()
        Image.fromarray(noise(i)[:16, :16]).save(path)
        os.utime(path, (1, 1))
        packed.append(pack(Source("mine", "train", (path,))))
    assert packed[0].sha256 != packed[1].sha256


@pytest.fixture
def shipped(source, tmp_path):
    """Makes low-resolution files for the source, of the pixels that a function returns for the given ones."""

    def make(change=lambda lr: lr):
        for i, path in enumerate(source.images):
            hr = noise(i)[: SIZES[i][0] // 4 * 4, : SIZES[i][1] // 4 * 4]
            write_png(tmp_path / "lr" / f"{path.stem}x4.png", change(downscale(hr, 4)))
        return replace(source, lr=tuple(list_images(tmp_path / "lr")))

    return make


def test_shipped_files_are_packed_as_they_are(shipped, source, pack, tmp_path):
    packed = pack(shipped(lambda lr: 255 - lr))
    for i in range(3):
        np.testing.assert_array_equal(packed.hr(i), pack(source).hr(i))
        np.testing.assert_array_equal(packed.lr(i), 255 - pack(source).lr(i))
    assert packed.lr_folder == str(tmp_path / "lr")
    assert pack(source).lr_folder is None
    assert packed.sha256 != pack(source).sha256
    packed.verify()


def test_shipped_files_that_are_what_would_be_made_are_the_same_set(shipped, source, pack):
    packed, made = pack(shipped()), pack(source)
    assert packed.path != made.path
    assert packed.sha256 == made.sha256
    assert packed.images == made.images


def test_the_key_follows_the_shipped_files(shipped, pack, tmp_path):
    paths = {pack(shipped()).path}
    paths.add(pack(shipped(lambda lr: 255 - lr)).path)
    shutil.copytree(tmp_path / "lr", tmp_path / "copy")
    paths.add(pack(replace(shipped(), lr=tuple(list_images(tmp_path / "copy")))).path)
    assert len(paths) == 3


def test_shipped_files_of_another_size_are_refused(shipped, pack, tmp_path):
    asked = shipped()
    write_png(tmp_path / "lr" / "photo1x4.png", noise(0)[:8, :7])
    with pytest.raises(InputError, match=r"photo1x4\.png' has 8×7 pixels; 8×6 are needed for 'photo1\.png' at scale 4"):
        pack(asked)
    assert not list((tmp_path / "cache").glob("*"))
    with pytest.raises(InputError, match=r"photo0x4\.png' has 4×5 pixels; 8×10 are needed"):
        pack(asked, scale=2)


def test_a_prepared_set_of_before_there_were_shipped_files_is_still_read(source, pack):
    path = pack(source).path
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["lr_folder"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert PackedImages.open(path).lr_folder is None


def test_verifying_tells_how_far_it_is(source, pack):
    seen = []
    pack(source).verify(progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


# Several folders


@pytest.fixture
def folders(tmp_path):
    """Two nested folders of images, some with the same name, and a folder of links to those with names of their own."""
    for i, name in enumerate(("all/a/1.png", "all/b/deep/2.png", "all/a/3.png")):
        write_png(tmp_path / name, noise(i))
    (tmp_path / "flat").mkdir()
    for path in (tmp_path / "all").rglob("*.png"):
        (tmp_path / "flat" / path.name).symlink_to(path)
    return tmp_path


def test_a_set_is_the_same_in_however_many_folders_it_is(folders, pack):
    references = ("flat={0}/flat", "nested={0}/all,recursive", "parts={0}/all/a+{0}/all/b/deep")
    flat, nested, parts = (pack(resolve(each.format(folders), "train")) for each in references)
    assert flat.sha256 == nested.sha256 == parts.sha256
    assert [image.name for image in parts.images] == ["1", "2", "3"]
    for index in range(3):
        np.testing.assert_array_equal(parts.hr(index), flat.hr(index))
    with pytest.raises(InputError, match="twice, also as"):
        resolve(f"mine={folders}/all/a+{folders}/flat", "train")


def test_the_order_of_parts_with_the_same_names_makes_no_difference(folders, pack):
    write_png(folders / "more" / "1.png", noise(2)[:17])
    one, other = (
        pack(resolve(reference.format(folders), "train"))
        for reference in ("mine={0}/all/a+{0}/more,split=1/2", "mine={0}/more+{0}/all/a,split=1/2")
    )
    assert one.sha256 == other.sha256
    one, other = (
        pack(resolve(reference.format(folders), "train"))
        for reference in ("mine={0}/all/a+{0}/more", "mine={0}/more+{0}/all/a")
    )
    assert one.sha256 == other.sha256 == PackedImages.open(one.path).sha256
    assert one.path != other.path
    assert {image.name for image in one.images} == {image.name for image in other.images} == {"a-1", "more-1", "3"}
    for packed in (one, other):
        packed.verify()


def test_what_is_held_out_is_another_set_and_counted(folders, pack):
    whole = pack(resolve(f"mine={folders}/flat", "train"))
    kept = pack(resolve(f"mine={folders}/flat,split=1/3", "train"))
    out = pack(resolve(f"mine={folders}/flat,split=1/3,held-out", "test"))
    assert [image.name for image in kept.images] == ["1", "2"]
    assert [image.name for image in out.images] == ["3"]
    assert (whole.held_out, kept.held_out, out.held_out) == (0, 1, 0)
    assert len({whole.sha256, kept.sha256, out.sha256}) == 3
    (folders / "flat" / "3.png").unlink()
    same = pack(resolve(f"mine={folders}/flat", "train"))
    assert (same.sha256, same.held_out) == (kept.sha256, 0)


def test_images_with_the_same_pixels_are_named(folders, pack):
    write_png(folders / "more" / "copy.png", noise(0))
    write_png(folders / "more" / "third.png", noise(0))
    with pytest.warns(UserWarning, match="image 'copy' of mine has the same pixels as '1', and so does 1 other image$"):
        pack(resolve(f"mine={folders}/all/a+{folders}/more", "train"))


def test_low_resolution_files_of_several_folders_are_packed(folders, pack):
    for i, name in enumerate(("small/1.png", "tiny/2.png", "small/3.png")):
        write_png(folders / name, noise(i)[: SIZES[i][0] // 4, : SIZES[i][1] // 4])
    packed = pack(resolve(f"mine={folders}/all/a+{folders}/all/b/deep,lr={folders}/small+{folders}/tiny", "train"))
    assert packed.lr_folder == str(folders)
    np.testing.assert_array_equal(packed.lr(1), noise(1)[:8, :6])
