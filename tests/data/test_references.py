import os
from pathlib import Path

import pytest

from sgbench.core.errors import InputError
from sgbench.data import CATALOG, DEMO_IMAGES, Source, read_image, refuse_overlap, resolve


@pytest.fixture
def folder(tmp_path):
    def make(name, count):
        for i in range(count):
            path = tmp_path / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / name

    return make


def test_demo_follows_its_rule():
    assert sorted(DEMO_IMAGES) == list(DEMO_IMAGES)
    train, test = resolve("demo", "train"), resolve("demo", "test")
    assert [path.stem for path in test.images] == ["chelsea", "gravel", "motorcycle_left"]
    assert {path.name for path in (*train.images, *test.images)} == set(DEMO_IMAGES)
    assert not set(train.images) & set(test.images)
    for role, source in (("train", train), ("test", test)):
        assert len(source.images) == CATALOG["demo"].parts[role].images


def test_demo_images_can_be_read():
    for role in ("train", "test"):
        for path in resolve("demo", role).images:
            assert read_image(path).shape[2] == 3


def test_a_folder_of_ones_own(folder, monkeypatch):
    path = folder("photos", 2)
    monkeypatch.chdir(path.parent)
    assert resolve("my-photos.v2=photos", "train") == Source("my-photos.v2", "train", (path / "0.png", path / "1.png"))
    with pytest.raises(InputError, match="there is no folder"):
        resolve("mine=absent", "train")
    with pytest.raises(InputError, match=r"'mine=' gives no folder after '='"):
        resolve("mine=", "train")
    with pytest.raises(InputError, match=r"'./photos' names no data set: write NAME or NAME=DIR"):
        resolve("./photos", "train")


def test_home_is_expanded(folder, monkeypatch):
    path = folder("photos", 1)
    monkeypatch.setenv("HOME", str(path.parent))
    assert resolve("mine=~/photos", "test").images == (path / "0.png",)


def test_a_catalogued_set_in_a_given_folder(folder):
    path = folder("five", 5)
    assert len(resolve(f"Set5={path}", "test").images) == 5
    with pytest.warns(UserWarning, match=r"Set14 test has 14 images, but '.*five' holds 5"):
        resolve(f"Set14={path}", "test")


def test_a_catalogued_set_is_looked_for_in_the_folder_of_sets(folder, monkeypatch, tmp_path):
    monkeypatch.delenv("SGBENCH_DATA", raising=False)
    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path))
    with pytest.raises(
        InputError, match=r"Set5 are not available locally \('.*sets/Set5' does not exist; SGBENCH_DATA is not set"
    ):
        resolve("Set5", "test")
    path = folder("sets/Set5", 5)
    assert resolve("Set5", "test").images[0] == path / "0.png"
    monkeypatch.setenv("SGBENCH_DATA", str(tmp_path / "mine"))
    with pytest.raises(InputError, match=r"\('.*mine/Set5' does not exist\): .*'sgbench data fetch Set5'.*'Set5=DIR'"):
        resolve("Set5", "test")
    path = folder("mine/Set5", 5)
    assert resolve("Set5", "test").images[0] == path / "0.png"
    folder("mine/DIV2K/DIV2K_train_HR", 800)
    with pytest.raises(
        InputError, match=r"the test images of DIV2K are not available locally \('.*mine/DIV2K' holds no image\)"
    ):
        resolve("DIV2K", "test")


def test_parts_lie_in_the_folders_of_their_authors(folder):
    root = folder("DIV2K/DIV2K_train_HR", 800).parent
    folder("DIV2K/DIV2K_valid_HR", 100)
    assert len(resolve(f"DIV2K={root}", "train").images) == 800
    assert len(resolve(f"DIV2K={root}", "test").images) == 100
    hr = folder("Set5/HR", 5)
    assert resolve(f"Set5={hr.parent}", "test").images[0].parent == hr


def test_names_that_are_not_known():
    with pytest.raises(InputError, match=r"unknown data set 'Set6': did you mean 'Set5'\?.*or NAME=DIR for a folder"):
        resolve("Set6", "test")
    with pytest.raises(InputError, match=r"unknown data set 'b100': did you mean 'B100'\?"):
        resolve(f"b100={os.curdir}", "test")


def test_a_set_has_only_its_own_roles():
    with pytest.raises(InputError, match=r"Set5 has no train part, only test;.*'my-images=DIR'"):
        resolve("Set5=.", "train")
    with pytest.raises(InputError, match="'demo' comes with scikit-image"):
        resolve("demo=.", "train")


def test_training_on_what_is_tested_is_refused():
    with pytest.raises(InputError, match="training on test images is refused: B100 lies inside BSDS500"):
        refuse_overlap("BSDS500", ["Set5", "B100"])
    with pytest.raises(InputError, match="B100 lies inside BSDS500"):
        refuse_overlap("BSDS500=/a", [Source("B100", "test", (Path("/b/1.png"),))])
    refuse_overlap("BSDS500", ["Set5"])
    refuse_overlap("BSDS400=/photos", ["B100"])
    refuse_overlap(resolve("demo", "train"), [resolve("demo", "test")])


@pytest.fixture
def shipped(tmp_path):
    """Makes a set of five in the layout of its authors, or two images of one's own, with files of lower resolution."""

    def make(name="Set5", suffix="x4", lr="LR_bicubic/X4", count=5):
        for i in range(count):
            for path in (tmp_path / name / "HR" / f"{i}.png", tmp_path / name / lr / f"{i}{suffix}.png"):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        return tmp_path / name

    return make


def test_without_being_asked_for_shipped_files_are_not_used(shipped):
    assert resolve(f"Set5={shipped()}", "test").lr == ()


@pytest.mark.parametrize("given", ["", "/HR"])
def test_the_files_that_a_set_ships_are_found_from_its_folder_and_from_that_of_its_images(shipped, given):
    root = shipped()
    source = resolve(f"Set5={root}{given},lr", "test")
    assert source.images == tuple(root / "HR" / f"{i}.png" for i in range(5))
    assert source.lr == tuple(root / "LR_bicubic" / "X4" / f"{i}x4.png" for i in range(5))


def test_the_files_that_a_set_ships_are_found_by_its_name_alone(shipped, monkeypatch, tmp_path):
    root = shipped()
    monkeypatch.setenv("SGBENCH_DATA", str(tmp_path))
    assert resolve("Set5,lr", "test").lr[0] == root / "LR_bicubic" / "X4" / "0x4.png"
    shipped("Set5", "x2", "LR_bicubic/X2")
    assert resolve("Set5,lr", "test", 2).lr[0] == root / "LR_bicubic" / "X2" / "0x2.png"
    with pytest.raises(
        InputError, match=r"of Set5 at ×3 are not available locally .*fetch Set5 --lr --scale 3'.*'Set5,lr=DIR'"
    ):
        resolve("Set5,lr", "test", 3)


def test_low_resolution_files_of_a_given_folder(shipped, monkeypatch, tmp_path):
    shipped("photos", "", "small", count=2)
    monkeypatch.chdir(tmp_path)
    source = resolve("mine=photos/HR,lr=photos/small", "train")
    assert source.name == "mine"
    assert source.lr == tuple(tmp_path / "photos" / "small" / f"{i}.png" for i in range(2))


def test_low_resolution_files_with_another_ending_are_matched_and_it_is_said(shipped):
    root = shipped("photos", "_bicubic_x4", "small", count=2)
    said = r"low-resolution files of mine: matched 2 of 2 by the longest common stem: 0_bicubic_x4.png → 0, 1_bicubic"
    with pytest.warns(UserWarning, match=said):
        source = resolve(f"mine={root / 'HR'},lr={root / 'small'}", "train")
    assert source.lr == tuple(root / "small" / f"{i}_bicubic_x4.png" for i in range(2))


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("mine=HR,lr", "'mine=HR,lr' does not say where the low-resolution files are; write NAME=DIR,lr=DIR"),
        ("mine=HR,lr=", "'mine=HR,lr=' gives no folder after '='"),
        ("mine=,lr", "'mine=,lr' gives no folder after '='"),
        ("mine=HR,lr=absent", "there is no folder '.*absent'"),
        ("Set5,LR", r"'Set5,LR' names no data set: .*followed by ',lr' or ',lr=DIR'"),
        (",lr", "',lr' names no data set"),
        ("demo,lr", "demo ships no low-resolution files; give your own folder, as in 'demo,lr=DIR'"),
        ("lr", "unknown data set 'lr'"),
    ],
)
def test_references_to_low_resolution_files_that_are_refused(shipped, monkeypatch, reference, sentence):
    monkeypatch.chdir(shipped("photos"))
    with pytest.raises(InputError, match=sentence):
        resolve(reference, "test")


@pytest.mark.parametrize("name", ["a,b", "a,lr.old", "a,lrb", "a,lr,b"])
def test_only_the_end_of_a_reference_asks_for_low_resolution_files(shipped, name):
    root = shipped(name, count=1)
    assert resolve(f"mine={root}/HR", "test") == Source("mine", "test", (root / "HR" / "0.png",))
    lr = root / "LR_bicubic" / "X4"
    assert resolve(f"mine={root}/HR,lr={lr}", "test").lr == (lr / "0x4.png",)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda lr: (lr / "2x4.png").unlink(),
            r"X4' has no low-resolution file for '2\.png' of Set5; .* one of x4, _x4",
        ),
        (lambda lr: (lr / "5x4.png").touch(), r"5x4\.png' belongs to no image of Set5 in '.*HR'"),
        (lambda lr: (lr / "2.png").touch(), r"2x4\.png' belongs to no image of Set5"),
        (lambda lr: (lr / "2x4.bmp").touch(), r"'2x4\.(bmp|png)' and '2x4\.(bmp|png)' in '.*' have the same name"),
    ],
    ids=["missing", "extra", "two", "same"],
)
def test_low_resolution_files_must_fit_the_images_one_by_one(shipped, change, sentence):
    root = shipped()
    change(root / "LR_bicubic" / "X4")
    with pytest.raises(InputError, match=sentence):
        resolve(f"Set5={root},lr", "test")


def test_overlap_is_found_whatever_follows_the_name():
    with pytest.raises(InputError, match="B100 lies inside BSDS500"):
        refuse_overlap("BSDS500,lr=/a", ["B100=/b,lr"])
