import errno
import os
import pickle

import pytest
import safetensors.torch
import torch

from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.spec import RunSpec
from sgbench.store.layout import has_weights, latest_step
from sgbench.training import Checkpoints, read_weights_file
from sgbench.training.checkpoint import KEEP

WEIGHTS = {"conv.weight": torch.arange(6.0).view(2, 3), "conv.bias": torch.tensor([-1.0])}
SPEC_OF_RUN, SPEC_OF_ANOTHER = (
    RunSpec.model_validate(
        {"backbone": "edsr-tiny", "loss": "l1", "seed": seed, "train": {"name": "Photos", "sha256": "0" * 64}}
    )
    for seed in (0, 1)
)
SPEC = {"backbone": "edsr-tiny", "recipe": {"steps": 5, "window": None}}


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def steps(checkpoints):
    return latest_step(checkpoints.storage, checkpoints.run_id)


def finished(checkpoints):
    return has_weights(checkpoints.storage, checkpoints.run_id)


def state(step):
    return {"params": WEIGHTS, "step": step, "history": [{"step": step, "terms": {"l1": 0.25}}]}


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(Storage(str(tmp_path / "store")), "0123456789ab")


@pytest.fixture
def files(checkpoints, tmp_path):
    """The names in the run's folder of checkpoints, hidden ones as well."""
    folder = tmp_path / "store" / "checkpoints" / "0123456789ab"
    return lambda: sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_without_checkpoints_starts_at_0(checkpoints):
    assert (steps(checkpoints), checkpoints.load(), finished(checkpoints)) == (0, None, False)
    checkpoints.clear()
    with pytest.raises(FileNotFoundError):
        checkpoints.load_weights()


def test_the_newest_comes_back_and_at_most_two_are_kept(checkpoints, files):
    for count, step in enumerate([9, 10, 100, 2_000], start=1):
        checkpoints.save(step, state(step))
        loaded = checkpoints.load()
        assert (steps(checkpoints), loaded["step"], loaded["history"]) == (step, step, state(step)["history"])
        assert same(loaded["params"], WEIGHTS)
        assert len(files()) == min(count, KEEP) <= 2


def test_only_the_newest_two_are_kept_whatever_the_number_of_digits(checkpoints, files):
    for step in (99_999, 100_000, 1_000_000):
        checkpoints.save(step, state(step))
    assert files() == ["000000100000.pt", "000001000000.pt"]


def damage(content):
    half, tensor = len(content) // 2, WEIGHTS["conv.weight"].numpy().tobytes()
    assert tensor in content
    yield content.replace(tensor, tensor[::-1])
    yield b""
    yield b"not a checkpoint\n"
    yield bytes(range(256))
    yield content[:half]
    yield content[:half] + bytes(64) + content[half + 64 :]
    yield pickle.dumps({"step": Command("true")}, protocol=2)


@pytest.fixture
def folder(checkpoints, tmp_path):
    """The folder of a run with checkpoints of steps 10 and 20."""
    checkpoints.save(10, state(10))
    checkpoints.save(20, state(20))
    return tmp_path / "store" / "checkpoints" / "0123456789ab"


def test_a_damaged_newest_falls_back_to_the_one_before_and_a_warning_says_so(checkpoints, folder):
    newest = folder / "000000000020.pt"
    for content in damage(newest.read_bytes()):
        newest.write_bytes(content)
        with pytest.warns(UserWarning, match=f"^checkpoint '{newest}' is not used: it is damaged$"):
            assert checkpoints.load()["step"] == 10
    (folder / "000000000010.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match="it is damaged") as warned:
        assert checkpoints.load() is None
    assert len(warned) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "it does not hold the state of step 20"),
        (state(19), "it does not hold the state of step 20"),
        (state(20), "it has a specification that cannot be read: "),
        (state(20) | {"spec": SPEC_OF_ANOTHER.model_dump(mode="json")}, f"it is of run {SPEC_OF_ANOTHER.run_id}"),
    ],
)
def test_what_is_no_checkpoint_of_the_run_is_passed_over(checkpoints, folder, content, reason):
    checkpoints.save(10, state(10) | {"spec": SPEC_OF_RUN.model_dump(mode="json")})
    torch.save(content, folder / "000000000020.pt")
    with pytest.warns(UserWarning, match=f"is not used: {reason}"):
        assert checkpoints.load(SPEC_OF_RUN)["step"] == 10


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ETIMEDOUT])
def test_a_checkpoint_that_cannot_be_read_now_is_not_taken_for_none(checkpoints, folder, number, monkeypatch):
    def fail(storage, name):
        raise OSError(number, os.strerror(number), name)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "read", fail)
        with pytest.raises(OSError, match=os.strerror(number)):
            checkpoints.load()
    assert checkpoints.load()["step"] == 20


def test_a_lack_of_memory_is_no_damage(checkpoints, folder, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *_, **__: bytearray(2**62))
    with pytest.raises(MemoryError):
        checkpoints.load()


def test_other_files_in_the_folder_are_neither_read_nor_deleted(checkpoints, folder, files):
    others = ["best.pt", "latest.pt", "21.pt", "000000000021.pt.part", "0000000000021.pt"]
    for name in others:
        (folder / name).write_bytes(b"somebody's")
    assert (steps(checkpoints), checkpoints.load()["step"]) == (20, 20)
    checkpoints.save(30, state(30))
    assert files() == sorted([*others, "000000000020.pt", "000000000030.pt"])


def test_a_checkpoint_that_is_deleted_after_it_was_listed_is_none(checkpoints, folder, monkeypatch):
    read = Storage.read
    monkeypatch.setattr(
        Storage, "read", lambda *asked: (folder / "000000000020.pt").unlink(missing_ok=True) or read(*asked)
    )
    assert checkpoints.load()["step"] == 10


def test_what_is_behind_a_damaged_checkpoint_is_not_deleted_in_favour_of_it(checkpoints, folder, files):
    (folder / "000000000098.pt").write_bytes(b"damaged")
    (folder / "000000000099.pt").write_bytes(b"damaged")
    checkpoints.save(30, state(30))
    assert files() == [f"0000000000{step}.pt" for step in (20, 30, 98, 99)]
    with pytest.warns(UserWarning, match="it is damaged"):
        assert checkpoints.load()["step"] == 30


def test_a_failed_save_keeps_those_before(checkpoints, files, monkeypatch):
    checkpoints.save(10, state(10))
    checkpoints.save(20, state(20))

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(30, state(30))
    assert files() == ["000000000010.pt", "000000000020.pt"]


def test_runs_do_not_see_each_other(checkpoints):
    other = Checkpoints(checkpoints.storage, "ba9876543210")
    other.save(10, state(10))
    other.save_weights(WEIGHTS, SPEC)
    assert (steps(checkpoints), finished(checkpoints)) == (0, False)


def test_clearing_leaves_the_final_weights(checkpoints, files):
    checkpoints.save(10, state(10))
    checkpoints.save_weights(WEIGHTS, SPEC)
    checkpoints.clear()
    assert files() == []
    assert same(checkpoints.load_weights(), WEIGHTS)


# Files of weights


def test_final_weights_are_read_with_their_specification(checkpoints, tmp_path):
    checkpoints.save_weights(WEIGHTS, SPEC)
    weights, spec = read_weights_file(str(tmp_path / "store" / "weights" / "0123456789ab.pt"))
    assert same(weights, WEIGHTS)
    assert spec == SPEC


def test_a_checkpoint_is_read(checkpoints, tmp_path):
    checkpoints.save(10, state(10))
    weights, spec = read_weights_file(str(tmp_path / "store" / "checkpoints" / "0123456789ab" / "000000000010.pt"))
    assert same(weights, WEIGHTS)
    assert spec is None


def test_a_state_dict_is_read_whatever_the_working_directory(tmp_path, monkeypatch):
    torch.save(WEIGHTS, tmp_path / "net.pth")
    monkeypatch.chdir(tmp_path)
    for path in ("net.pth", "./net.pth", str(tmp_path / "net.pth")):
        weights, spec = read_weights_file(path)
        assert same(weights, WEIGHTS)
        assert spec is None


@pytest.mark.parametrize("wrapper", ["params_ema", "params", "state_dict", "model"])
def test_a_public_checkpoint_is_unwrapped(tmp_path, wrapper):
    torch.save({wrapper: WEIGHTS}, tmp_path / "net.pth")
    weights, spec = read_weights_file(str(tmp_path / "net.pth"))
    assert same(weights, WEIGHTS)
    assert spec is None


def test_a_safetensors_file_is_read(tmp_path):
    safetensors.torch.save_file(WEIGHTS, tmp_path / "net.safetensors")
    weights, spec = read_weights_file(str(tmp_path / "net.safetensors"))
    assert same(weights, WEIGHTS)
    assert spec is None


def test_a_damaged_safetensors_file_is_refused_in_one_sentence(tmp_path):
    file = tmp_path / "net.safetensors"
    safetensors.torch.save_file(WEIGHTS, file)
    for content in (b"", b"text", file.read_bytes()[:-1]):
        file.write_bytes(content)
        with pytest.raises(InputError, match=f"checkpoint '{file}' cannot be read: it is damaged"):
            read_weights_file(str(file))


def test_code_in_a_pickle_is_not_run_and_the_file_is_refused_in_one_sentence(tmp_path):
    witness = tmp_path / "witness"
    torch.save({"params": WEIGHTS, "spec": Command(f"touch {witness}")}, tmp_path / "new.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps(Command(f"touch {witness}"), protocol=2))
    for file in ("new.pt", "old.pt"):
        with pytest.raises(InputError) as error:
            read_weights_file(str(tmp_path / file))
        reason = "it is damaged, or holds more than tensors and plain values"
        assert str(error.value) == f"checkpoint '{tmp_path / file}' cannot be read: {reason}."
    assert not witness.exists()


def test_damaged_files_are_refused_in_one_sentence(tmp_path):
    file = tmp_path / "net.pt"
    torch.save(WEIGHTS, file)
    for content in damage(file.read_bytes()):
        file.write_bytes(content)
        with pytest.raises(InputError, match=f"checkpoint '{file}' cannot be read: it is damaged") as error:
            read_weights_file(str(file))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [{}, [], {"params": {}}, {"a": 1}, torch.zeros(3), None])
def test_a_file_without_weights_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(InputError, match="holds no weights: tensors by parameter name are needed"):
        read_weights_file(str(tmp_path / "net.pt"))


def test_a_file_that_is_not_there_or_is_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"checkpoint '.*/missing.pt' does not exist\.$"):
        read_weights_file(str(tmp_path / "missing.pt"))
    with pytest.raises(InputError, match=r"cannot be read: "):
        read_weights_file(str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be read: '.*/file' is a file; a folder is needed\.$"):
        read_weights_file(str(tmp_path / "file" / "net.pt"))
