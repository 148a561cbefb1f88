import os

import pytest

from sgbench.core.errors import InputError
from sgbench.data import CATALOG, DEMO_IMAGES, Source, known_sets, missing_sets, read_image, refuse_overlap, resolve


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
        refuse_overlap(known_sets("BSDS500"), ["Set5", "B100"])
    with pytest.raises(InputError, match="B100 lies inside BSDS500"):
        refuse_overlap(known_sets("BSDS500=/a"), ["B100=/b"])
    with pytest.raises(InputError, match="B100 lies inside BSDS500"):
        refuse_overlap(known_sets("mix=DIV2K+BSDS500=/a"), ["B100"])
    with pytest.raises(InputError, match="BSDS400 lies inside BSDS500, and its images would count twice"):
        refuse_overlap(known_sets("mix=BSDS400+BSDS500"), ["Set5"])
    with pytest.raises(InputError, match="training on validation images is refused: B100 lies inside BSDS500; leave"):
        refuse_overlap(["BSDS500"], ["B100"], "validation")
    refuse_overlap(known_sets("BSDS500"), ["Set5"])
    refuse_overlap(known_sets("BSDS400=/photos"), ["B100"])
    refuse_overlap(["demo"], ["demo"])


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
        refuse_overlap(known_sets("BSDS500,lr=/a"), ["B100=/b,lr"])


# Several places, folders in folders, lists


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes empty files with paths below the current folder."""
    monkeypatch.chdir(tmp_path)

    def call(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return call


def test_several_places_are_one_set_in_the_order_of_names(make, monkeypatch):
    root = make("a/3.png", "a/1.png", "b/2.png", "sets/BSDS400/HR/0.png")
    monkeypatch.setenv("SGBENCH_DATA", str(root / "sets"))
    with pytest.warns(UserWarning, match="BSDS400 train has 400 images"):
        source = resolve("mine=a+BSDS400+other=b", "train")
    expected = ("sets/BSDS400/HR/0.png", "a/1.png", "b/2.png", "a/3.png")
    assert (source.name, source.images) == ("mine", tuple(root / name for name in expected))
    assert (source.names, source.lr, source.held_out, source.of) == ((), (), 0, ("BSDS400",))


def test_names_that_several_folders_have_are_told_by_their_folders(make):
    make("x/HR/1.png", "y/HR/1.png", "y/HR/2.png", "z/deep/1.png", "z/1.png", "x.v1/1.png", "x.v2/1.png")
    assert resolve("mine=x.v1+x.v2", "train").names == ("x.v1-1", "x.v2-1")
    assert resolve("mine=x/HR+y/HR", "train").names == ("x-HR-1", "y-HR-1", "2")
    assert resolve("mine=x/HR+other=y/HR", "train").names == ("HR-1", "other-1", "2")
    assert resolve("mine=z,recursive", "train").names == ("1", "deep-1")


def test_folders_are_searched_on_request(make):
    root = make("all/a/2.png", "all/b/c/1.png", "all/3.png", "all/.hidden/4.png", "all/b/.5.png", "all/note.txt")
    (root / "all" / "d").symlink_to(root / make("other/0.png") / "other")
    (root / "all" / "broken").symlink_to(root / "absent")
    expected = ("all/d/0.png", "all/b/c/1.png", "all/a/2.png", "all/3.png")
    assert resolve("mine=all,recursive", "train").images == tuple(root / name for name in expected)
    assert resolve("mine=all", "train").images == (root / "all" / "3.png",)


def test_low_resolution_files_lie_as_the_images_do(make):
    root = make("hr/a/1.png", "hr/b/1.png", "lr/a/1x4.png", "lr/b/1.png", "more/2.png", "small/2.png")
    source = resolve("mine=hr+more,lr=lr+small,recursive", "train")
    assert source.lr == tuple(root / name for name in ("lr/a/1x4.png", "lr/b/1.png", "small/2.png"))
    make("lr/b/0.png")
    with pytest.raises(InputError, match=r"lr/b/0\.png' belongs to no image of mine in '.*hr/b'"):
        resolve("mine=hr,lr=lr,recursive", "train")
    (root / "lr/a/1x4.png").unlink()
    with pytest.raises(InputError, match=r"the folder '.*lr/a' holds no image"):
        resolve("mine=hr,lr=lr,recursive", "train")


def test_a_list_names_files_as_those_of_basicsr_do(make):
    root = make("hr/b 1.png", "hr/sub/a.png", "hr/unused.png", "other/c.png", "lr/b 1.png", "lr/sub/a_x4.png")
    (root / "hr" / "meta_info.txt").write_text(f"b 1.png (480,480,3)\n\nsub/a.png (16, 16, 1)\r\n{root}/other/c.png\n")
    source = resolve("mine=hr/meta_info.txt", "train")
    assert source.images == tuple(root / name for name in ("hr/sub/a.png", "hr/b 1.png", "other/c.png"))
    (root / "hr" / "meta_info.txt").write_text("b 1.png\nsub/a.png\n")
    source = resolve("mine=hr/meta_info.txt,lr=lr", "train")
    assert source.lr == (root / "lr/sub/a_x4.png", root / "lr/b 1.png")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", r"the list '.*list\.txt' names no image; one path a line"),
        (b"\xff\xfe\x00", r"the list '.*list\.txt' cannot be read: 'utf-8' codec"),
        (b"1.png\n2.npy\n", r"names '2\.npy', which is no image"),
        (b"1.png\n1.png\n", r"the file '.*1\.png' is in 'mine=hr/list\.txt' twice; leave it out once"),
        (
            b"1.png\n2.png\n3.png\n4.png\n5.png\n",
            r"4 of 5 files that the list '.*' names, relative to its folder, do not exist: "
            r"'2\.png', '3\.png', '4\.png', …",
        ),
    ],
)
def test_a_list_that_is_no_list_of_images_is_refused(make, content, sentence):
    root = make("hr/1.png")
    (root / "hr" / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        resolve("mine=hr/list.txt", "train")


def test_a_list_is_read_within_limits(make):
    os.truncate(make("hr/list.txt") / "hr" / "list.txt", 10**8 + 1)
    with pytest.raises(InputError, match=r"the list '.*list\.txt' cannot be read: it has more than 100 MB"):
        resolve("mine=hr/list.txt", "train")


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("mine=above", r"the folder '.*above' holds no image, but folders in it do: add ',recursive'"),
        ("mine=empty", "the folder '.*empty' holds no image; files that end in"),
        ("mine=empty,recursive", "the folder '.*empty' and those in it hold no image"),
        ("mine=a+a", r"the file '.*a/1\.png' is in 'mine=a\+a' twice; leave it out once"),
        ("mine=a+above/../a", r"the file '.*a/1\.png' is in .* twice, also as '.*above/\.\./a/1\.png'"),
        ("mine=above+a,recursive", r"twice, also as '.*"),
        ("mine=loop,recursive", r"'.*loop/in/up' is a link to a folder that it lies in; remove it to search '.*loop'"),
        ("mine=c+d", r"there is no folder '.*/c'; '\+' separates folders, and a '\+' in a path is written '\+\+'"),
        ("mine=BSDS400", r"there is no folder '.*/BSDS400'; the known set is BSDS400 alone"),
        ("BSDS400=a+above", "has the name of a known set; give a set of several parts another name"),
        ("bsds400=a+above", "unknown data set 'bsds400': did you mean 'BSDS400'"),
        ("mine=a+Demo=above", "unknown data set 'Demo': did you mean 'demo'"),
        ("mine=a+Set5", "Set5 has no train part"),
        ("mine=link.txt", r"the list '.*link\.txt' names no image"),
        ("mine=note.md", r"note\.md' is a file; a folder of images is needed, or a list of them ending in \.txt"),
        ("mine=a,split=0.4", r"'mine=a,split=0.4' holds out 0 of 1 image, and neither side may be empty"),
    ],
)
def test_sets_of_several_folders_that_are_refused(make, reference, sentence):
    root = make("a/1.png", "loop/1.png", "loop/in/2.png", "empty/note.md", "note.md")
    (root / "link.txt").symlink_to(root / "note.md")
    (root / "above").mkdir()
    (root / "above" / "link").symlink_to(root / "a")
    (root / "loop" / "in" / "up").symlink_to(root / "loop")
    with pytest.raises(InputError, match=sentence) as refused:
        resolve(reference, "train")
    assert len(str(refused.value).replace(str(root), "")) < 300


def test_a_plus_in_the_name_of_a_folder_is_doubled(make):
    root = make("c++/1.png")
    assert resolve("mine=c++++", "train").images == (root / "c++" / "1.png",)


# Splits


def test_every_nth_image_by_name_is_held_out_of_each_part(make):
    root = make(*(f"a/{i:02}.png" for i in range(40)), *(f"b/{i:02}.png" for i in range(10, 50)))

    def names(reference):
        source = resolve(reference, "train")
        return [str(path.relative_to(root)).removesuffix(".png") for path in source.images], source

    out, source = names("mine=a,split=1/20,held-out")
    assert (out, source.name, source.held_out) == (["a/19", "a/39"], "mine-held-out", 0)
    kept, source = names("mine=a,split=0.05")
    assert (len(kept), source.name, source.held_out, set(kept) & set(out)) == (38, "mine", 2, set())
    for both in ("mine=a+b,split=.05,held-out", "mine=b+a,split=.05,held-out"):
        assert set(names(both)[0]) == {"a/19", "a/39", "b/29", "b/49"}
    for share, count in (("0.29", 11), ("2/3", 26), ("0.975", 39), ("1/40", 1)):
        assert len(names(f"mine=a,split={share},held-out")[0]) == count


def test_what_is_held_out_are_training_images_whatever_they_are_for(make, monkeypatch):
    out = resolve("demo,split=1/4,held-out", "test")
    assert (out.role, [path.stem for path in out.images]) == ("test", ["grass", "rocket"])
    assert set(out.images) < set(resolve("demo", "train").images)
    assert resolve("demo,split=1/4", "train").held_out == 2
    with pytest.raises(InputError, match="'demo,split=1/3' is a test set without some of its images"):
        resolve("demo,split=1/3", "test")
    monkeypatch.setenv("SGBENCH_DATA", str(make("sets/x")))
    assert [entry.name for entry in missing_sets("DIV2K,split=0.05,held-out", "test", 4)] == ["DIV2K"]


def test_each_part_of_a_set_is_downloaded_if_it_is_missing(make, monkeypatch):
    root = make("a/1.png", "sets/BSDS400/1.png")
    monkeypatch.setenv("SGBENCH_DATA", str(root / "sets"))
    missing = missing_sets("mine=a+DIV2K+BSDS400+demo+BSDS500=/x", "train", 4)
    assert [entry.name for entry in missing] == ["DIV2K"]
