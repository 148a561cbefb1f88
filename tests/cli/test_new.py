"""What ``sgbench new`` writes works as it is."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from sgbench.cli.new import Kind, write
from sgbench.core.errors import InputError
from sgbench.core.registry import BACKBONES, LOSSES, METRICS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder; what is imported from it is forgotten afterwards."""
    for registry in (LOSSES, BACKBONES, METRICS):
        monkeypatch.setattr(registry, "_loaded", {})
    known = set(sys.modules)
    yield tmp_path
    for module in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[module], "__file__", "")):
            del sys.modules[module]


@pytest.mark.parametrize(
    ("kind", "name", "target", "module"),
    [
        ("loss", "MyLoss", "my_loss:MyLoss", "my_loss"),
        ("loss", "my_loss", "my_loss:MyLoss", "my_loss"),
        ("loss", "L1OfFFT", "l1_of_fft:L1OfFFT", "l1_of_fft"),
        ("backbone", "my_net2", "my_net2:MyNet2-tiny", "my_net2"),
        ("metric", "Sharpness", "sharpness:sharpness", "sharpness"),
    ],
)
def test_the_module_and_the_class_are_called_after_the_name(
    kind: Kind, name: str, target: str, module: str, folder: Path
) -> None:
    found, paths = write(kind, name, folder)
    assert found == target
    assert paths == [folder / f"{module}.py", folder / f"test_{module}.py"]
    text, test = (path.read_text(encoding="utf-8") for path in paths)
    assert f"class {target.partition(':')[2].removesuffix('-tiny')}(" in text or kind == "metric"
    assert f'checks("{target}", patch=16)' in test
    assert not {word for word in ("my_module", "MyClass", "TARGET") if word in text + test}


def test_the_tests_that_are_written_pass(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in get_args(Kind):
        write(kind, f"my_{kind}", folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]) == 0


@pytest.mark.parametrize("name", ["", "a-b", "1st", "class", "Lösung", "a/b", "my loss", ".."])
def test_a_name_that_no_module_can_have_is_refused(name: str, folder: Path) -> None:
    with pytest.raises(
        InputError, match=r"^the name is '.*'; letters, digits and underscores are needed, as in MyLoss\.$"
    ):
        write("loss", name, folder)
    assert not list(folder.iterdir())


def test_nothing_is_overwritten_or_hidden(folder: Path) -> None:
    (folder / "test_mine.py").write_text("theirs")
    with pytest.raises(InputError, match=r"test_mine\.py' exists and is left as it is; choose another name\.$"):
        write("loss", "Mine", folder)
    with pytest.raises(InputError, match=r"^there is a module 'torch' already, which would be hidden; "):
        write("loss", "torch", folder)
    with pytest.raises(InputError, match=r"^there is no folder '.*/missing'\.$"):
        write("loss", "mine", folder / "missing")
    assert [path.name for path in folder.iterdir()] == ["test_mine.py"]
    assert (folder / "test_mine.py").read_text() == "theirs"
