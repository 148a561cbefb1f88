import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest

from sgbench.core.files import cache_folder, exclusive, naming, replacing, temporary_folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_is_there_only_once_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replacing(path) as part:
        part.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def break_off(path: Path, kind: str, error: BaseException) -> None:
    with replacing(path) as part:
        if kind == "folder":
            part.mkdir()
        (part / "half" if kind == "folder" else part).write_bytes(b"new")
        raise error


@pytest.mark.parametrize("error", [full(), KeyboardInterrupt(), ValueError("something else")], ids=repr)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_goes_wrong_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, kind: str, error: BaseException
) -> None:
    path = tmp_path / "it"
    if kind == "file":
        path.write_bytes(b"old")
    with pytest.raises(type(error)):
        break_off(path, kind, error)
    assert names(tmp_path) == (["it"] if kind == "file" else [])
    assert kind == "folder" or path.read_bytes() == b"old"


def test_a_full_disk_and_a_missing_folder_name_the_file_and_not_its_part(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "file"
    with pytest.raises(FileNotFoundError) as error, replacing(path) as part:
        part.write_bytes(b"")
    assert error.value.filename == str(path)
    with pytest.raises(OSError, match="No space left") as error, replacing(tmp_path / "file"):
        raise full()
    assert error.value.filename == str(tmp_path / "file")


def test_errors_that_name_another_file_or_are_not_the_system_s_stay_as_they_are(tmp_path: Path) -> None:
    for said in (OSError("the server is silent"), FileNotFoundError(errno.ENOENT, "gone", "another")):
        with pytest.raises(OSError) as error, naming(tmp_path):  # noqa: PT011 - what it says is compared below
            raise said
        assert error.value is said
        assert said.filename in (None, "another")


def test_a_folder_is_there_only_once_it_is_complete(tmp_path: Path) -> None:
    with replacing(tmp_path / "it") as part:
        part.mkdir()
        (part / "file").write_bytes(b"new")
        assert not (tmp_path / "it").exists()
    assert names(tmp_path) == ["it"]
    assert names(tmp_path / "it") == ["file"]


def test_a_folder_that_another_process_made_meanwhile_is_kept(tmp_path: Path) -> None:
    with replacing(tmp_path / "it") as part:
        part.mkdir()
        (tmp_path / "it").mkdir()
        (tmp_path / "it" / "theirs").touch()
    assert names(tmp_path) == ["it"]
    assert names(tmp_path / "it") == ["theirs"]


def test_who_has_to_wait_is_told_and_starts_with_a_new_file(tmp_path, recwarn):
    path, order = tmp_path / "lock", []

    def wait():
        with exclusive(path) as file:
            order.append(("second", file.read()))

    with exclusive(path) as file:
        file.write(b"old")
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(0.2)
        order.append("first")
        path.unlink()
    thread.join(10)
    assert order == ["first", ("second", b"")]
    assert str(recwarn.pop().message) == f"another process holds '{path}'; waiting for it to end"


def test_the_cache_is_where_the_environment_says_or_the_user_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("SGBENCH_CACHE", "~/cache")
    assert cache_folder() == Path.home() / "cache"
    monkeypatch.delenv("SGBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "sgbench"


@pytest.mark.parametrize("number", ["ENOSYS", "ENOLCK", "EINVAL", "ENOTSUP"])
def test_where_there_are_no_file_locks_nobody_waits_and_a_warning_says_so(tmp_path, monkeypatch, number):
    def fail(*arguments):
        raise OSError(getattr(errno, number), "no locks")

    monkeypatch.setattr(fcntl, "flock", fail)
    warned = pytest.warns(UserWarning, match=f"'{tmp_path}' has no file locks; run one command")
    with warned, exclusive(tmp_path / "lock") as file:
        assert file.write(b"1") == 1


def test_a_temporary_folder_is_for_this_user_alone_and_gone_afterwards_whatever_happens(tmp_path: Path) -> None:
    def interrupted() -> None:
        with temporary_folder(tmp_path, "mine") as folder:
            assert folder.stat().st_mode & 0o777 == 0o700
            assert len(folder.name) == len("mine") + 14
            (folder / "file").write_bytes(b"")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(tmp_path) == []


def test_a_temporary_folder_that_a_killed_process_left_is_removed_by_the_next_and_no_other(tmp_path: Path) -> None:
    with temporary_folder(tmp_path, "mine") as left:
        pass
    for folder in (left, tmp_path / "theirs", tmp_path / "mine-ffff-abcdefgh"):  # the last is of another machine
        folder.mkdir()
        (folder / "file").write_bytes(b"")
    (tmp_path / f"{left.name}2").symlink_to(tmp_path / "theirs")
    with temporary_folder(tmp_path, "mine") as in_use, temporary_folder(tmp_path, "mine"):
        assert not left.exists()
        assert in_use.exists()
    assert names(tmp_path) == sorted(["mine-ffff-abcdefgh", "theirs", f"{left.name}2"])
    assert names(tmp_path / "theirs") == ["file"]


def test_without_locks_no_temporary_folder_of_another_process_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    with temporary_folder(tmp_path, "mine") as first, temporary_folder(tmp_path, "mine"):
        assert first.exists()
    assert names(tmp_path) == []
