"""Files of weights that are damaged or made to harm: each is one sentence, at once, and nothing in it is run."""

import io
import json
import os
import pickle
import signal
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from sgbench.assets.tensors import tensors_in
from sgbench.backbones import build_backbone
from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.scoring.subjects import find_subject
from sgbench.store import Store
from sgbench.training import Checkpoints

STATE = build_backbone("edsr-tiny", 4).state_dict()
KEY = "conv_first.weight"
TENSOR = STATE[KEY]


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def torch_file(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def with_tensor(tensor):
    return torch_file({**STATE, KEY: tensor})


def containing_itself():
    content = {}
    content["model"] = {"params": content}
    return torch_file(content)


def nested(depth):
    content = []
    for _ in range(depth):
        content = [content, content]
    return torch_file({"params": STATE, "spec": content})


def rezipped(compression=zipfile.ZIP_STORED, **extra):
    """Return a file of torch packed again, with entries added."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(torch_file(STATE))) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
        for name, content in extra.items():
            new.writestr(name, content)
    return buffer.getvalue()


def safetensors(header, body=bytes(12), length=None):
    text = header if isinstance(header, bytes) else json.dumps({"a": {"dtype": "F32", **header}}).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


DAMAGED = "cannot be read: it is damaged, or holds more than tensors and plain values"
CASES = {
    "integer keys": (torch_file(dict(enumerate(STATE.values()))), "tensors by parameter name are needed"),
    "sparse": (with_tensor(TENSOR.to_sparse()), rf"'{KEY}' is sparse"),
    "complex": (with_tensor(TENSOR.to(torch.complex64)), rf"'{KEY}' is complex"),
    "meta": (with_tensor(TENSOR.to("meta")), rf"'{KEY}' has no values, as it is on the device 'meta'"),
    "empty tensor": (with_tensor(TENSOR[:0]), r"has shape \(0, 3, 3, 3\) where \(16, 3, 3, 3\) is needed"),
    "whole numbers": (with_tensor(TENSOR.int()), rf"'{KEY}' is int32 where float32 is needed"),
    "not a number": (with_tensor(TENSOR * torch.nan), rf"'{KEY}' has NaN or infinite values"),
    "too large": (with_tensor(TENSOR.double() + 1e300), rf"'{KEY}' has NaN or infinite values"),
    "one value as many": (
        with_tensor(torch.ones(1).expand(10**6, 10**6)),
        "has 1,000,000,000,000 values where the file holds 1",
    ),
    "itself": (containing_itself(), "tensors by parameter name are needed"),
    "lists of lists": (nested(100), "has a specification that cannot be read"),
    "code": (torch_file({"a": Call(os.system, "touch ran")}), DAMAGED),
    "code without archive": (pickle.dumps({"a": Call(os.system, "touch ran")}, 2), DAMAGED),
    "much memory": (torch_file({"params": STATE, "spec": Call(bytearray, 10**13)}), DAMAGED),
    "compressed": (rezipped(zipfile.ZIP_DEFLATED, **{"archive/data/999": bytes(10**7)}), DAMAGED),
    "escape sequences": (torch_file({"\x1b[31m\n\u202e": TENSOR}), r"unexpected '\\x1b\[31m\\n\\u202e'"),
    "a long name": (torch_file({"x" * 10**6: TENSOR}), r"has an unexpected 'x{40}…x{39}'"),
    "cut": (torch_file(STATE)[:-100], DAMAGED),
    "safetensors header too long": (safetensors({}, length=2**60), DAMAGED),
    "safetensors shape too large": (safetensors({"shape": [10**9] * 2, "data_offsets": [0, 12]}), DAMAGED),
    "safetensors offset too large": (safetensors({"shape": [3], "data_offsets": [0, 10**15]}), DAMAGED),
    "safetensors header deep": (safetensors(b"[" * 10**6), DAMAGED),
}


@pytest.fixture(autouse=True)
def limit():
    """End a test that would not end."""
    signal.alarm(60)
    yield
    signal.alarm(0)


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda file: find_subject(file, Store(Storage(str(tmp_path / "store"))), backbone="edsr-tiny")


@pytest.mark.parametrize(("content", "reason"), CASES.values(), ids=CASES)
def test_a_hostile_file_is_one_sentence_and_nothing_is_left(read, tmp_path, content, reason):
    file = tmp_path / ("net.safetensors" if content[8:9] in b"{[" else "net.pt")
    file.write_bytes(content)
    with pytest.raises(InputError, match=reason) as error:
        read(str(file))
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300
    assert [each.name for each in tmp_path.iterdir()] == [file.name]


@pytest.mark.filterwarnings("ignore:.*quantize")
def test_a_quantised_file_is_one_sentence(read, tmp_path):
    (tmp_path / "net.pt").write_bytes(with_tensor(torch.quantize_per_tensor(TENSOR, 0.1, 0, torch.qint8)))
    with pytest.raises(InputError, match=f"'{KEY}' is quantised"):
        read("net.pt")


def test_a_pipe_is_not_waited_for(read, tmp_path):
    os.mkfifo(tmp_path / "net.pt")
    with pytest.raises(InputError, match=r"'net\.pt' is neither a file nor a folder"):
        read("net.pt")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floating_point_types_are_converted(read, tmp_path, dtype):
    exact = {name: value.half().to(dtype) if value.is_floating_point() else value for name, value in STATE.items()}
    rounded = {name: value.float() if value.is_floating_point() else value for name, value in exact.items()}
    ids = set()
    for state in (exact, rounded):
        torch.save(state, tmp_path / "net.pt")
        ids.add(read("net.pt").run_id)
    assert len(ids) == 1


def test_a_pretrained_network_is_read_with_the_same_care(tmp_path):
    for name in ("sparse", "complex", "meta", "one value as many", "code", "much memory", "compressed", "cut"):
        (tmp_path / "net.pth").write_bytes(CASES[name][0])
        with pytest.raises(InputError, match="cannot be read as a file of tensors"):
            tensors_in(tmp_path / "net.pth")


@pytest.mark.parametrize(
    "name", ["integer keys", "sparse", "meta", "itself", "code", "much memory", "compressed", "cut"]
)
def test_final_weights_in_a_store_are_read_with_the_same_care(tmp_path, name):
    content, reason = CASES[name]
    storage = Storage(str(tmp_path / "store"))
    storage.write("weights/0123456789ab.pt", content)
    with pytest.raises(InputError, match=reason):
        Checkpoints(storage, "0123456789ab").load_weights()


def test_a_plug_in_that_only_a_file_names_is_not_imported(tmp_path, monkeypatch, read):
    (tmp_path / "evil.py").write_text("import pathlib; pathlib.Path('ran').touch()")
    monkeypatch.syspath_prepend(tmp_path)
    spec = {"backbone": "evil:Net", "loss": "evil:Loss", "seed": 0, "train": {"name": "a", "sha256": "0" * 64}}
    torch.save({"params": STATE, "spec": spec}, tmp_path / "net.pt")
    with pytest.raises(InputError, match=r"needs the plug-in 'evil:Net'; to let its code run, name it with --backbone"):
        find_subject("net.pt", Store(Storage(str(tmp_path / "store"))))
    assert not Path("ran").exists()
