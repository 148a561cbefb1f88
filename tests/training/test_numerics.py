import os

import pytest
import torch

from sgbench.spec import Recipe
from sgbench.training.numerics import pinned, single_precision


def settings():
    return {
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
        "matmul": torch.get_float32_matmul_precision(),
        "convolution": torch.backends.cudnn.allow_tf32,
        "fill": torch.utils.deterministic.fill_uninitialized_memory,
    }


def apply(values):
    torch.set_num_threads(values["threads"])
    torch.use_deterministic_algorithms(values["deterministic"], warn_only=values["warn_only"])
    torch.backends.cudnn.benchmark = values["benchmark"]
    torch.set_float32_matmul_precision(values["matmul"])
    torch.backends.cudnn.allow_tf32 = values["convolution"]
    torch.utils.deterministic.fill_uninitialized_memory = values["fill"]


@pytest.fixture(params=[False, True], ids=["usual", "unusual"])
def before(request):
    """The settings of whoever trains, once the usual ones and once none of them."""
    original = settings()
    if request.param:
        apply(
            {"threads": 3, "deterministic": True, "warn_only": True, "benchmark": True}
            | {"matmul": "medium", "convolution": not original["convolution"], "fill": not original["fill"]}
        )
    yield settings()
    apply(original)


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("threads", [1, 2])
def test_settings_hold_inside_and_are_restored_after(before, deterministic, threads):
    with pinned(Recipe(deterministic=deterministic, threads=threads)):
        assert settings() == {
            "threads": threads,
            "deterministic": deterministic,
            "warn_only": False,
            "benchmark": not deterministic,
            "matmul": "highest",
            "convolution": False,
            "fill": False,
        }
    assert settings() == before


@pytest.mark.parametrize("context", [single_precision, lambda: pinned(Recipe(threads=2))])
def test_settings_are_restored_after_an_error(before, context):
    with pytest.raises(KeyError), context():
        raise KeyError
    assert settings() == before


def test_single_precision_touches_nothing_else(before):
    with single_precision():
        assert settings() == before | {"matmul": "highest", "convolution": False}


def test_the_workspace_that_determinism_needs_is_not_taken_from_a_person_who_chose_one(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with pinned(Recipe()):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    with pinned(Recipe()):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
