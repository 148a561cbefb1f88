import dataclasses
import errno
import hashlib
import io
import json
import os
import tarfile

import pytest
import torch
from small_networks import STATE, Attack, as_file, files, put

from sgbench.assets.bundle import CONTENTS, is_bundle, pack, unpack
from sgbench.assets.catalogue import NETWORKS
from sgbench.assets.locator import Locator
from sgbench.assets.tensors import fingerprint
from sgbench.core.errors import InputError

VGG16 = {"features.0.bias": torch.tensor([0.25])}


@pytest.fixture
def bundle(places, small, table, tmp_path):
    """A bundle of the table's AlexNet, as downloaded, and VGG-16, as converted, which lacks Inception."""
    archive = dataclasses.replace(NETWORKS.load("vgg16").archive, tensors_sha256=fingerprint(VGG16))
    table("vgg16", archive=archive)
    put(places["named"], small)
    put(places["named"], as_file(VGG16), "vgg16-features.pth")
    found = {name: Locator(download=False).find(name) for name in ("vgg16", "alexnet")}
    path = tmp_path / "quick-networks.tar"
    pack(found, ["inception"], path)
    for path_of_network in found.values():
        path_of_network.unlink()
    return path


def made(path, contents, *members):
    """A tar archive of a first member and others, each a `TarInfo` and its content."""
    with tarfile.open(path, "w") as tar:
        text = contents if isinstance(contents, bytes) else json.dumps(contents).encode()
        for member, content in ((tarfile.TarInfo(CONTENTS), text), *members):
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def said(**contents):
    """What a bundle says of itself that has these contents of networks in members of their names."""
    networks = {
        name: {"file": name, "sha256": hashlib.sha256(content).hexdigest()} for name, content in contents.items()
    }
    return {"version": 1, "networks": networks, "missing": ["theirs:network"]}


def test_what_is_packed_arrives_and_is_found_by_its_hash(places, small, bundle):
    assert is_bundle(bundle)
    paths, missing = unpack(bundle)
    assert missing == ["inception"]
    assert paths == [places["own"] / "alexnet-owt-7be5be79.pth", places["own"] / "vgg16-features.pth"]
    assert files(places["own"]) == [path.name for path in paths]
    assert paths[0].read_bytes() == small
    assert [Locator(download=False).find(name) for name in ("alexnet", "vgg16")] == paths
    assert Locator(download=False).load("vgg16").sha256 == fingerprint(VGG16)


def test_equal_networks_give_equal_bundles_which_tar_can_read(places, bundle, tmp_path):
    again, _ = unpack(bundle)
    other = tmp_path / "other.tar"
    pack(dict(zip(("alexnet", "vgg16"), again, strict=True)), ["inception"], other)
    assert other.read_bytes() == bundle.read_bytes()
    with tarfile.open(bundle) as tar:
        assert tar.getnames() == [CONTENTS, "alexnet-owt-7be5be79.pth", "vgg16-features.pth"]


def test_a_file_that_two_networks_share_is_packed_once(places, small, table, tmp_path):
    path = put(places["named"], small)
    other = table("pyiqa:alexnet-owt-7be5be79.pth", sha256=hashlib.sha256(small).hexdigest())
    pack({"alexnet": path, other.name: path}, [], tmp_path / "b.tar")
    assert unpack(tmp_path / "b.tar") == ([places["own"] / path.name], [])
    with tarfile.open(tmp_path / "b.tar") as tar:
        assert tar.getnames() == [CONTENTS, path.name]


def test_one_network_is_taken_from_a_bundle(places, bundle):
    assert unpack(bundle, "vgg16") == ([places["own"] / "vgg16-features.pth"], [])
    assert files(places["own"]) == ["vgg16-features.pth"]
    with pytest.raises(InputError, match=r"quick-networks\.tar' holds alexnet and vgg16, and no 'inception'"):
        unpack(bundle, "inception")


def test_of_a_bundle_that_is_cut_off_anywhere_nothing_is_installed(places, bundle):
    whole = bundle.read_bytes()
    with tarfile.open(bundle) as tar:
        *_, last = tar
    end = last.offset_data + last.size
    for length in (*range(len(CONTENTS) + 1, end, 199), end - 1):
        bundle.write_bytes(whole[:length])
        assert is_bundle(bundle)
        with pytest.raises(InputError, match="is damaged or not all there: pack or copy it again; nothing of it is"):
            unpack(bundle)
    assert files(places["own"]) == []


def test_other_bytes_than_were_packed_spoil_a_bundle(places, small, bundle):
    content = bytearray(bundle.read_bytes())
    content[content.index(small) + 100] ^= 1
    bundle.write_bytes(content)
    with pytest.raises(InputError, match="is damaged or not all there"):
        unpack(bundle)
    assert files(places["own"]) == []


def test_a_network_with_another_hash_than_the_catalogue_s_spoils_a_bundle(places, small, tmp_path):
    members = ((tarfile.TarInfo("alexnet"), small), (tarfile.TarInfo("inception"), small))
    path = made(tmp_path / "b.tar", said(alexnet=small, inception=small), *members)
    digest = hashlib.sha256(small).hexdigest()
    sentence = f"holds as inception a file with the SHA-256 {digest[:8]}…, but 6726825d… is needed; nothing of it is"
    with pytest.raises(InputError, match=sentence):
        unpack(path)
    assert files(places["own"]) == []
    assert unpack(made(path, said(alexnet=small), *members)) == ([places["own"] / "alexnet-owt-7be5be79.pth"], [])


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        (said(alexnet=b"a"), "is damaged or not all there"),
        (said() | {"networks": {"alexnet": 1}}, "is damaged or not all there"),
        (said() | {"networks": {"alexnet": {"file": 1, "sha256": "0"}}}, "is damaged or not all there"),
        (said() | {"networks": {"alexnet": {}}}, "is damaged or not all there"),
        (said() | {"missing": [1]}, "is damaged or not all there"),
        (said(theirs=b"a"), "unknown pretrained network 'theirs'"),
        (said(**{"theirs:network": b"a"}), "unknown pretrained network 'theirs:network'"),
        ({"version": 2, "anything": "else"}, "was packed by a newer version of sgbench"),
        ([], "is damaged or not all there"),
        (b"[" * 60_000, "is damaged or not all there"),
        (b"\xff", "is damaged or not all there"),
        (b" " * 70_000, "is damaged or not all there"),
    ],
    ids=[
        *("absent", "no entry", "no name", "empty", "no text", "unknown", "to be imported"),
        *("newer", "list", "deep", "no UTF-8", "long"),
    ],
)
def test_what_says_something_else_is_refused(places, tmp_path, contents, sentence):
    bundle = made(tmp_path / "b.tar", contents)
    with pytest.raises(InputError, match=sentence):
        unpack(bundle)
    assert files(places["own"]) == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.GNUTYPE_SPARSE, tarfile.DIRTYPE])
def test_only_plain_files_are_unpacked(places, tmp_path, small, kind):
    member = tarfile.TarInfo("alexnet")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(InputError, match="is damaged or not all there"):
        unpack(made(tmp_path / "b.tar", said(alexnet=b""), (member, b"")))


def test_names_lead_nowhere_and_no_code_is_run(places, tmp_path):
    member = tarfile.TarInfo("../../out.pth")
    attack = as_file({"features.0.bias": Attack(tmp_path / "ran")})
    contents = said(vgg16=attack)
    contents["networks"]["vgg16"]["file"] = member.name
    before = files(tmp_path)
    with pytest.raises(InputError, match="holds as vgg16 a file with the SHA-256"):
        unpack(made(tmp_path / "b.tar", contents, (member, attack)))
    assert files(tmp_path) == ["b.tar", *before]


@pytest.mark.parametrize(
    "content", [b"", b"PK\3\4", as_file(STATE), CONTENTS.encode()], ids=["none", "zip", "torch", "text"]
)
def test_other_files_are_no_bundles(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    assert not is_bundle(tmp_path / "file")
    assert not is_bundle(tmp_path / "absent")
    assert not is_bundle(tmp_path)


def test_a_full_disk_leaves_nothing(places, bundle, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        unpack(bundle)
    with pytest.raises(OSError, match="No space left") as error:
        pack({"alexnet": bundle}, [], tmp_path / "other.tar")
    assert error.value.filename == str(tmp_path / "other.tar")
    assert files(places["own"]) == []
    assert not (tmp_path / "other.tar").exists()
