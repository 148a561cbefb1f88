import os
from pathlib import Path

import pytest

from sgbench.data import CATALOG, DEMO_IMAGES, Source, read_image, refuse_overlap, resolve
from sgbench.errors import InputError


@pytest.fixture
def folder(tmp_path):
    def make(name, count):
        for i in range(count):
            path = tmp_path / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / name

    return make


def test_every_entry_is_whole():
    for name, entry in CATALOG.items():
        assert name == entry.name
        assert all(part.images > 0 for part in entry.parts.values())
        assert entry.parts
        assert entry.contains <= CATALOG.keys()
        for sentence in (entry.description, entry.terms, entry.instructions):
            assert sentence.endswith(".")
            assert "\n" not in sentence
        assert entry.homepage.startswith("http")


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
    with pytest.warns(UserWarning, match=r"Set14 test has 14 images, '.*five' holds 5"):
        resolve(f"Set14={path}", "test")


def test_a_catalogued_set_below_sgbench_data(folder, monkeypatch):
    monkeypatch.delenv("SGBENCH_DATA", raising=False)
    with pytest.raises(InputError, match=r"Set5 are not at hand \(SGBENCH_DATA is not set\): .*'Set5=DIR'.*https://"):
        resolve("Set5", "test")
    path = folder("Set5", 5)
    monkeypatch.setenv("SGBENCH_DATA", str(path.parent))
    assert resolve("Set5", "test").images[0] == path / "0.png"
    with pytest.raises(InputError, match=r"Set14 are not at hand \('.*Set14' does not exist\)"):
        resolve("Set14", "test")


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
    with pytest.raises(InputError, match="training on what is tested is refused: B100 lies inside BSDS500"):
        refuse_overlap("BSDS500", ["Set5", "B100"])
    with pytest.raises(InputError, match="B100 lies inside BSDS500"):
        refuse_overlap("BSDS500=/a", [Source("B100", "test", (Path("/b/1.png"),))])
    refuse_overlap("BSDS500", ["Set5"])
    refuse_overlap("BSDS400=/photos", ["B100"])
    refuse_overlap(resolve("demo", "train"), [resolve("demo", "test")])
