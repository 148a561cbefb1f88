import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sgbench.scoring import provenance
from sgbench.training.numerics import device_of_process


def test_the_revision_is_marked_where_the_code_has_changes_and_not_where_results_have(tmp_path: Path) -> None:
    package = tmp_path / "checkout" / "sgbench"
    package.mkdir(parents=True)

    def git(*words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        return subprocess.run(["git", "-C", package, *who, *words], capture_output=True, text=True, check=True).stdout

    def revision() -> str | None:
        provenance._git_revision.cache_clear()
        return provenance._git_revision(package)

    assert revision() is None
    (package / "code.py").write_text("1")
    (tmp_path / "checkout" / "results.parquet").write_text("1")
    git("init", "..")
    git("add", "..")
    git("commit", "-m", "first")
    commit = git("rev-parse", "--short=12", "HEAD").strip()
    (tmp_path / "checkout" / "results.parquet").write_text("2")
    assert revision() == commit
    (package / "code.py").write_text("2")
    assert revision() == f"{commit}+"


def test_a_result_of_a_gpu_has_its_type_and_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    there = SimpleNamespace(name="NVIDIA H100 80GB HBM3", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: there)
    row = provenance.provenance(torch.device("cuda", 0))
    assert (row["device"], row["gpu"], row["gpu_memory_bytes"]) == (there.name, there.name, there.total_memory)


def test_a_result_of_a_cpu_has_no_gpu() -> None:
    row = provenance.provenance(torch.device("cpu"))
    assert row["device"]
    assert (row["gpu"], row["gpu_memory_bytes"]) == (None, None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_this_gpu_has_a_type_and_more_memory_than_is_free() -> None:
    row = provenance.provenance(device_of_process())
    assert row["gpu"] == torch.cuda.get_device_name()
    assert row["gpu_memory_bytes"] >= torch.cuda.mem_get_info()[0]
