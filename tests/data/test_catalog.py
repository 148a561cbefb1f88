import re

import pytest

from sgbench.core.resize import SCALES
from sgbench.data import CATALOG, sets_folder
from sgbench.data.catalog import cache_folder

FETCHED = [entry for entry in CATALOG.values() if entry.archives]


def test_every_entry_is_whole():
    for name, entry in CATALOG.items():
        assert name == entry.name
        assert all(part.images > 0 for part in entry.parts.values())
        assert entry.parts
        assert entry.contains <= CATALOG.keys()
        for sentence in (entry.description, entry.terms, entry.instructions, entry.by_hand()):
            assert sentence.endswith(".")
            assert "\n" not in sentence
        assert entry.homepage.startswith("http")


def test_what_can_be_fetched_is_all_that_there_is_by_name():
    assert {entry.name for entry in FETCHED} == CATALOG.keys() - {"demo", "Flickr2K", "Manga109"}


@pytest.mark.parametrize("entry", FETCHED, ids=lambda entry: entry.name)
def test_the_archives_hold_every_folder_of_a_set(entry):
    unpacked = {folder for archive in entry.archives for folder in archive.folders.values()}
    assert entry.folders(SCALES).keys() <= unpacked


@pytest.mark.parametrize("entry", FETCHED, ids=lambda entry: entry.name)
def test_archives_are_named_and_hashed_as_their_publishers_do(entry):
    for archive in entry.archives:
        assert re.fullmatch(r"https://[^ ]+\.(zip|tar|tgz)", archive.url)
        assert re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", archive.digest)
        assert archive.size > 10_000_000
    assert len({archive.digest for archive in entry.archives}) == len(entry.archives)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("Set5", "Set5"), ("Set14", "Set14"), ("B100", "B100"), ("Urban100", "Urban100"), ("DIV2K", "Div2K")],
)
def test_torchsr_knows_the_same_archives_and_the_same_folders_in_them(name, theirs):
    peer = getattr(pytest.importorskip("torchsr.datasets"), theirs)
    md5 = {url.replace("http://", "https://"): digest for url, digest in peer.urls}
    folders = {
        folder for (kind, _, scale), folder in peer.track_dirs.items() if kind in ("hr", "bicubic") and scale < 8
    }
    inside = {folder for archive in CATALOG[name].archives for folder in archive.folders if name in folder}
    assert inside == {folder for folder in folders if not folder.startswith("DIV2K_test")}
    for archive in CATALOG[name].archives:
        assert archive.url in md5
        algorithm, _, digest = archive.digest.partition(":")
        assert algorithm == "sha256" or digest == md5[archive.url]


def test_the_folders_are_those_that_people_know():
    assert CATALOG["Set5"].folders([4]) == {"Set5/HR": 5, "Set5/LR_bicubic/X4": 5}
    assert CATALOG["BSDS500"].folders(SCALES) == {"BSDS500/HR": 500}
    assert CATALOG["DIV2K"].folders([2]) == {
        "DIV2K/DIV2K_train_HR": 800,
        "DIV2K/DIV2K_train_LR_bicubic/X2": 800,
        "DIV2K/DIV2K_valid_HR": 100,
        "DIV2K/DIV2K_valid_LR_bicubic/X2": 100,
    }


def test_sets_lie_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path))
    monkeypatch.delenv("SGBENCH_DATA", raising=False)
    assert sets_folder() == tmp_path / "sets"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SGBENCH_DATA", "data")
    assert sets_folder() == tmp_path / "data"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SGBENCH_DATA", "~/sets")
    assert sets_folder() == tmp_path / "sets"
    monkeypatch.delenv("SGBENCH_CACHE")
    assert cache_folder().name == "sgbench"
