import dataclasses
import errno
import hashlib
import os
import shutil

import pytest
from small_networks import STATE, Attack, as_file, files, put

from sgbench.assets.catalogue import NETWORKS, known_networks
from sgbench.assets.install import install
from sgbench.assets.locator import Locator
from sgbench.assets.tensors import fingerprint
from sgbench.core.errors import InputError


@pytest.fixture
def converted(table):
    """The table's AlexNet as a small archive gives it, in another file of the same numbers."""
    archive = dataclasses.replace(NETWORKS.load("alexnet").archive, tensors_sha256=fingerprint(STATE))
    table("alexnet", archive=archive)
    return as_file(dict(reversed(STATE.items())))


@pytest.mark.parametrize("name", [None, "alexnet"])
@pytest.mark.parametrize("file", ["alexnet-owt-7be5be79.pth", "download (1)"])
def test_the_usual_file_is_known_by_its_hash_whatever_it_is_called(places, small, tmp_path, file, name):
    brought = put(tmp_path / "brought", small, file)
    path = install(brought, name)
    assert path == places["own"] / NETWORKS.load("alexnet").file == Locator(download=False).find("alexnet")
    assert path.read_bytes() == brought.read_bytes() == small
    assert files(places["own"]) == [path.name]


def test_a_converted_file_is_known_by_its_tensors(places, converted, tmp_path):
    path = install(put(tmp_path, converted, "a.pth"), "alexnet")
    assert path == places["own"] / "alexnet-features.pth" == Locator(download=False).find("alexnet")
    assert Locator(download=False).load("alexnet").sha256 == fingerprint(STATE)


def test_it_replaces_a_file_that_is_not_sound(places, small, tmp_path):
    put(places["own"], b"half a file")
    assert install(put(tmp_path, small)).read_bytes() == small


def test_what_is_there_can_be_brought_again(places, small):
    path = put(places["own"], small)
    assert install(path) == path
    assert path.read_bytes() == small


def test_a_wrong_hash_is_refused_with_what_was_received_and_what_is_needed(places, small, tmp_path):
    file = put(tmp_path, b"something else")
    received = f"{hashlib.sha256(b'something else').hexdigest()[:8]}… (14 bytes)"
    needed = f"{NETWORKS.load('alexnet').sha256[:8]}… (alexnet, 244,408,911 bytes)"
    with pytest.raises(InputError) as error:
        install(file, "alexnet")
    assert str(error.value) == f"'{file.name}' has the SHA-256 {received}, but {needed} is needed."
    with pytest.raises(InputError) as error:
        install(file)
    for network in known_networks():
        assert f"{network.sha256[:8]}… ({network.name})" in str(error.value)
    assert files(places["own"]) == []


def test_another_network_than_the_named_one_is_refused(places, small, tmp_path):
    with pytest.raises(InputError, match="holds the weights of alexnet, but those of vgg16 are needed"):
        install(put(tmp_path, small), "vgg16")
    assert files(places["own"]) == []


def test_an_unknown_network_is_refused(places, small, tmp_path):
    with pytest.raises(InputError, match="unknown pretrained network 'alexnett': did you mean 'alexnet'"):
        install(put(tmp_path, small), "alexnett")


def test_what_is_no_file_is_refused(places, tmp_path):
    with pytest.raises(InputError, match=rf"there is no file '{tmp_path}/missing\.pth'"):
        install(tmp_path / "missing.pth")
    with pytest.raises(InputError, match=f"'{tmp_path}' is a folder; a file is needed"):
        install(tmp_path)


def test_a_pickle_that_runs_code_is_refused(places, tmp_path):
    file = put(tmp_path, as_file({"features.0.bias": Attack(tmp_path / "ran")}))
    with pytest.raises(InputError, match="has the SHA-256"):
        install(file)
    assert not (tmp_path / "ran").exists()
    assert files(places["own"]) == []


def test_a_full_disk_leaves_what_was_there_and_is_named(places, small, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    brought, path = put(tmp_path, small), put(places["own"], b"before")
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left") as error:
        install(brought)
    assert error.value.filename == str(path)
    assert path.read_bytes() == b"before"
    assert files(places["own"]) == [path.name]
