import os
import pickle

import pytest
import safetensors.torch
import torch

from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.store.layout import has_weights, latest_step
from sgbench.training import Checkpoints, read_weights_file
from sgbench.training.checkpoint import KEEP

WEIGHTS = {"conv.weight": torch.arange(6.0).view(2, 3), "conv.bias": torch.tensor([-1.0])}
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


def test_a_damaged_newest_falls_back_to_the_one_before(checkpoints, tmp_path):
    checkpoints.save(10, state(10))
    checkpoints.save(20, state(20))
    newest = tmp_path / "store" / "checkpoints" / "0123456789ab" / "000000000020.pt"
    for content in damage(newest.read_bytes()):
        newest.write_bytes(content)
        assert checkpoints.load()["step"] == 10
    (newest.parent / "000000000010.pt").write_bytes(b"")
    assert checkpoints.load() is None


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
