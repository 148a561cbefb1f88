import errno
import io
import os
import pickle
import threading
import uuid
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pyarrow import fs

from sgbench.core import storage as storage_module
from sgbench.core.errors import InputError
from sgbench.core.location import Location
from sgbench.core.storage import Storage, absolute


class Upload(io.BytesIO):
    def __init__(self, path):
        super().__init__()
        self.path = path

    def close(self):
        if not self.closed:
            MemoryFileSystem().pipe_file(self.path, self.getvalue())
        super().close()


class Keys(MemoryFileSystem):
    """Files in memory, of which a reader sees the whole content of one upload, as in an object store."""

    def _open(self, path, mode="rb", **options):
        return Upload(path) if mode == "wb" else io.BytesIO(self.store[path].getvalue())


class ObjectStore(Storage):
    """A store that is not on a disk; pyarrow has none by URI, as its ``mock://`` is empty each time it is opened."""

    def __init__(self, root: str) -> None:
        self.location = Location("memory", root.removeprefix("memory://"))
        self._fs = fs.PyFileSystem(fs.FSSpecHandler(Keys()))


@pytest.fixture(params=["local", "file-uri", "object-store"])
def store(request, tmp_path):
    if request.param == "object-store":
        return ObjectStore(f"memory:///{uuid.uuid4().hex}")
    return Storage(f"file://{tmp_path}/store" if request.param == "file-uri" else str(tmp_path / "store"))


@pytest.fixture
def local(tmp_path):
    return Storage(str(tmp_path / "store"))


# The contract, whatever is underneath


def test_what_is_written_is_read(store):
    store.write("runs/a.bin", b"\0one")
    assert store.read("runs/a.bin") == b"\0one"
    assert store.exists("runs/a.bin")
    store.write("runs/a.bin", b"two")
    assert store.read("runs/a.bin") == b"two"


def test_nothing_is_made_before_the_first_write(store):
    assert not store.exists()
    assert store.list("runs") == []
    store.delete("runs/a.bin")
    store.delete_folder("runs")
    assert not store.exists()


def test_to_read_what_is_not_there_is_an_error(store):
    with pytest.raises(FileNotFoundError):
        store.read("runs/a.bin")


def test_listings_are_sorted_filtered_and_skip_private_names_and_folders(store):
    for name in ["runs/b.parquet", "runs/a.parquet", "runs/c.txt", "runs/.hidden.parquet", "runs/x/d.parquet"]:
        store.write(name, b"")
    assert store.list("runs") == ["runs/a.parquet", "runs/b.parquet", "runs/c.txt"]
    assert store.list("runs", ".parquet") == ["runs/a.parquet", "runs/b.parquet"]


def test_sizes_are_those_of_all_files_below_a_folder(store):
    for name in ["runs/b.parquet", "runs/.hidden", "runs/x/d.parquet", ".lock", "runs2/a"]:
        store.write(name, name.encode())
    assert store.sizes("runs") == {name: len(name) for name in ["runs/.hidden", "runs/b.parquet", "runs/x/d.parquet"]}
    assert set(store.sizes()) == {"runs/b.parquet", "runs/.hidden", "runs/x/d.parquet", ".lock", "runs2/a"}
    assert store.sizes("nowhere") == {}


def test_a_file_is_read_at_any_place(store):
    store.write("runs/a.bin", b"0123456789")
    with store.open("runs/a.bin") as file:
        file.seek(4)
        assert file.read(3) == b"456"
    with pytest.raises(FileNotFoundError):
        store.open("runs/b.bin")


def test_what_a_killed_writer_leaves_is_known_by_its_name(local, monkeypatch):
    monkeypatch.setattr(Path, "unlink", lambda path, **how: None)
    monkeypatch.setattr(Path, "replace", lambda path, target: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        local.write("runs/a.parquet", b"half")
    (name,) = local.sizes("runs")
    assert storage_module.UNFINISHED.fullmatch(name.rpartition("/")[2])
    for other in ["a.parquet", ".lock", ".gitignore", ".a.parquet"]:
        assert not storage_module.UNFINISHED.fullmatch(other)


def test_deleting(store):
    for name in ["a/1", "a/2", "b/1"]:
        store.write(name, b"")
    store.delete("a/1")
    assert store.list("a") == ["a/2"]
    store.delete_folder("a")
    assert store.list("a") == []
    assert store.list("b") == ["b/1"]


def test_a_file_is_moved_over_another(store):
    store.write("new/a/1", b"new")
    store.write("old/1", b"old")
    store.move("new/a/1", "old/1")
    store.move("old/1", "elsewhere/deep/1")
    assert store.sizes() == {"elsewhere/deep/1": 3}
    with pytest.raises(FileNotFoundError):
        store.move("nowhere", "old/1")


@pytest.mark.parametrize("name", ["..", "../x", "runs/../../x", "runs/..", "/etc/passwd"])
@pytest.mark.parametrize("operation", ["read", "exists", "list", "sizes", "delete", "delete_folder"])
def test_no_name_leads_out_of_the_root(store, name, operation):
    with pytest.raises(ValueError, match=f"'{name}' leads out of '"):
        getattr(store, operation)(name)
    store.write("runs/..a..b", b"")


# Where it is


def test_a_path_is_made_absolute_and_a_uri_is_not(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert absolute("results/quick/") == str(tmp_path / "results/quick")
    assert absolute("~/results") == "/home/somebody/results"
    assert absolute("s3://bucket/results") == "s3://bucket/results"


@pytest.mark.parametrize("folder", ["with space", "100%20", "a#b?c=d", "Größe"])
def test_odd_folder_names_are_taken_literally(tmp_path, folder):
    Storage(str(tmp_path / folder)).write("a", b"here")
    assert (tmp_path / folder / "a").read_bytes() == b"here"


def test_it_travels_to_other_processes_as_its_root(local):
    local.write("a", b"here")
    assert pickle.loads(pickle.dumps(local)).read("a") == b"here"


@pytest.mark.parametrize("uri", ["nope://bucket/results", "http://host/results"])
def test_an_unknown_scheme_is_bad_input(uri):
    with pytest.raises(InputError, match=f"storage '{uri}' is neither a folder nor a URI that can be opened"):
        Storage(uri)


def test_a_file_as_root_is_bad_input_and_is_left_alone(tmp_path):
    file = tmp_path / "results"
    file.write_text("mine")
    with pytest.raises(InputError, match="is a file; a folder is needed"):
        Storage(str(file))
    assert file.read_text() == "mine"


# Writes


def test_readers_see_the_old_content_or_the_new_and_nothing_between(local):
    contents = [bytes([letter]) * 2_000_000 for letter in b"ab"]
    local.write("file", contents[0])
    done, torn = threading.Event(), []

    def watch():
        while not done.is_set():
            content = local.read("file")
            if content not in contents:
                torn.append(len(content))

    readers = [threading.Thread(target=watch) for _ in range(3)]
    for reader in readers:
        reader.start()
    for turn in range(40):
        local.write("file", contents[turn % 2])
    done.set()
    for reader in readers:
        reader.join()
    assert torn == []


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_content_and_leaves_nothing(local, monkeypatch, broken):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    local.write("runs/file", b"old")
    monkeypatch.setattr(*((os, "fsync") if broken == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OSError, match="No space left"):
        local.write("runs/file", b"new")
    assert [path.name for path in Path(local.path("runs")).iterdir()] == ["file"]
    assert local.read("runs/file") == b"old"


class Broken:
    """Fails so many times, and then does what it stands for."""

    def __init__(self, real, times, error):
        self.real, self.left, self.error = real, times, error

    def __call__(self, *arguments, **options):
        if self.left:
            self.left -= 1
            raise self.error
        return self.real(*arguments, **options)


def test_a_fault_that_passes_is_waited_out(store, monkeypatch):
    monkeypatch.setattr(storage_module, "PAUSES_SECONDS", (0.01, 0.02))
    broken = Broken(Storage._put, 2, OSError("the network is away"))
    monkeypatch.setattr(Storage, "_put", lambda *arguments: broken(*arguments))
    store.write("runs/a", b"here")
    assert (store.read("runs/a"), broken.left) == (b"here", 0)


@pytest.mark.parametrize(
    ("error", "attempts"),
    [(errno.EIO, 3), (errno.ETIMEDOUT, 3), (errno.EACCES, 1), (errno.ENOENT, 1)],
)
def test_what_cannot_be_read_is_tried_again_unless_that_is_in_vain(store, monkeypatch, error, attempts):
    monkeypatch.setattr(storage_module, "PAUSES_SECONDS", (0.01, 0.02))
    store.write("runs/a", b"here")
    broken = Broken(Storage._get, 2, OSError(error, os.strerror(error)))
    monkeypatch.setattr(Storage, "_get", lambda *arguments: broken(*arguments))
    if attempts == 3:
        assert store.read("runs/a") == b"here"
    else:
        with pytest.raises(OSError, match=os.strerror(error)):
            store.read("runs/a")
    assert broken.left == max(0, 2 - attempts)


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (OSError(errno.EIO, "Input/output error"), 3),
        (OSError("When uploading: ACCESS_DENIED"), 3),  # Arrow's have no number
        (OSError(errno.ENOSPC, "No space left on device"), 1),
        (OSError(errno.EROFS, "Read-only file system"), 1),
    ],
)
def test_a_fault_that_stays_is_raised_with_the_name_of_the_file(store, monkeypatch, error, attempts):
    monkeypatch.setattr(storage_module, "PAUSES_SECONDS", (0.01, 0.02))
    broken = Broken(Storage._put, 9, error)
    monkeypatch.setattr(Storage, "_put", lambda *arguments: broken(*arguments))
    with pytest.raises(OSError, match=error.strerror or str(error)) as raised:
        store.write("runs/a", b"here")
    assert raised.value.filename == store.address("runs/a")
    assert broken.left == 9 - attempts
    assert not store.exists("runs")


@pytest.mark.parametrize("what", ["a pipe", "a folder"])
def test_only_regular_files_are_read_and_nothing_is_waited_for(tmp_path, what):
    store = Storage(str(tmp_path))
    if what == "a pipe":
        os.mkfifo(tmp_path / "x.pt")
    else:
        (tmp_path / "x.pt").mkdir()
    for read in (store.read, store.open, lambda name: store.download(name, tmp_path / "copy")):
        with pytest.raises(OSError, match="a regular file is needed"):
            read("x.pt")
    assert not (tmp_path / "copy").exists()
