import hashlib
import io

import numpy as np
import pytest
import torch
from small_networks import STATE, Attack, as_file, put

from sgbench.assets.locator import Locator
from sgbench.assets.tensors import fingerprint
from sgbench.core.errors import InputError


def test_only_the_tensors_in_use_are_loaded_and_hashed(places, small):
    put(places["named"], small)
    loaded = Locator().load("alexnet")
    assert sorted(loaded.state) == sorted(STATE)
    assert loaded.sha256 == fingerprint(STATE)


def test_the_fingerprint_is_of_names_types_shapes_and_values():
    first = fingerprint(STATE)
    assert first == fingerprint(dict(reversed(STATE.items())))
    weight = STATE["features.0.weight"]
    for other in (weight + 1, weight.reshape(2, 3), weight.double()):
        assert fingerprint({**STATE, "features.0.weight": other}) != first
    strided = torch.empty(1, 2, 1, 6)[..., ::2].copy_(weight)
    assert fingerprint({**STATE, "features.0.weight": strided}) == first


def test_a_pickle_that_runs_code_is_refused(places, table, tmp_path):
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
def test_a_file_that_holds_something_else_is_refused(places, table, content):
    table("alexnet", sha256=hashlib.sha256(content).hexdigest())
    put(places["named"], content)
    with pytest.raises(InputError, match="cannot be read as a file of tensors"):
        Locator().load("alexnet")


def test_arrays_of_numpy_are_tensors_too_and_no_object_among_them_is_unpickled(places, table, tmp_path):
    arrays = {"mean": np.arange(3.0), "covariance": np.eye(3)}
    for content in (arrays, {"mean": np.array([Attack(tmp_path / "ran")], dtype=object)}):
        with io.BytesIO() as stream:
            np.savez(stream, **content)
            table("niqe", sha256=hashlib.sha256(stream.getvalue()).hexdigest())
            put(places["named"], stream.getvalue(), "niqe_pris_params.npz")
        if content is arrays:
            loaded = Locator().load("niqe")
            assert {name: tensor.tolist() for name, tensor in loaded.state.items()} == {
                name: array.tolist() for name, array in arrays.items()
            }
            assert loaded.sha256 == fingerprint({name: torch.from_numpy(array) for name, array in arrays.items()})
        else:
            with pytest.raises(InputError, match="cannot be read as a file of arrays"):
                Locator().load("niqe")
    assert not (tmp_path / "ran").exists()
