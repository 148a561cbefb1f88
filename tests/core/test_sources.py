"""The hash of a plug-in's code changes with what it computes, and with nothing else."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from sgbench.core import modules, sources
from sgbench.core.sources import Installed, Own, Source

MODULE = '''"""Losses of mine."""

import numpy as np
import torch
from helpers import blurred, sharpened as sharp
from kornia.filters import sobel

FACTOR, OTHER_FACTOR = 2.0, 3.0


class Base(torch.nn.Module):
    """What losses share."""

    eps: float = 1e-3


class Mine(Base):
    """A loss.

    Args:
        sigma: Of the blur.
    """

    def __init__(self, *, sigma: float = 1.0) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, sr, hr):
        # Charbonnier
        difference = blurred(sr, self.sigma) - blurred(hr, self.sigma)
        return FACTOR * (difference**2 + self.eps**2).sqrt().mean()


class Other(Base):
    def forward(self, sr, hr):
        return OTHER_FACTOR * (sobel(sr) - sharp(hr)).abs().mean()


if __name__ == "__main__":
    print(Mine()(torch.zeros(1), torch.ones(1)))
'''

HELPERS = """import torch
from kernels.gauss import kernel

def blurred(x, sigma):
    return torch.conv2d(x, kernel(sigma))

def sharpened(x):
    return x + kernel(1)
"""

FILES = {
    "mine.py": MODULE,
    "helpers.py": HELPERS,
    "kernels/__init__.py": "",
    "kernels/gauss.py": "import math\n\ndef kernel(sigma):\n    return math.exp(-(sigma**2))\n",
}


def source(target: str = "mine:Mine", files: dict[str, str] = FILES, kornia: str = "kornia 0.7.0") -> Source:
    """Return the source of a target in some files."""
    there: dict[str, Own | Installed] = {
        path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): Own(text, path.endswith("__init__.py"))
        for path, text in files.items()
    }
    found = Source.of(target, {**there, "kornia.filters": Installed(kornia)}.get)
    assert found is not None
    return found


def edited(file: str, *edits: tuple[str, str]) -> dict[str, str]:
    """Return `FILES` with some texts replaced in one of them."""
    text = FILES[file]
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return {**FILES, file: text}


SAME = {
    "comments": edited("mine.py", ("        # Charbonnier\n", "")),
    "docstrings": edited("mine.py", ('    """What losses share."""\n\n', ""), ('"""Losses of mine."""', '"""Mine."""')),
    "layout": edited(
        "mine.py", ("    def __init__(self, *, sigma: float = 1.0)", "    def __init__(\n self,*,sigma:float=1.0,\n)")
    ),
    "brackets": edited("mine.py", ("(difference**2 + self.eps**2)", "((difference**2) + (self.eps**2))")),
    "the way a number is written": edited("mine.py", ("1e-3", "0.001")),
    "another class of the file": edited("mine.py", ("return OTHER_FACTOR *", "return 1000 *")),
    "a class more": {
        **FILES,
        "mine.py": MODULE.replace("class Other", "class Third(Base):\n    pass\n\n\nclass Other"),
    },
    "an import of no use": edited("mine.py", ("import numpy as np\n", "")),
    "another name of an import": edited("mine.py", ("blurred, sharpened as sharp", "blurred")),
    "what runs as a script": edited("mine.py", ("print(Mine()", "print(2 * Mine()")),
    "another function of a module beside it": edited("helpers.py", ("x + kernel(1)", "x - kernel(1)")),
    "the order of definitions": {**FILES, "helpers.py": HELPERS.replace("import torch\n", "") + "\nimport torch\n"},
}

OTHER = {
    "a factor": edited("mine.py", ("return FACTOR *", "return 1000 * FACTOR *")),
    "a constant": edited("mine.py", ("= 2.0, 3.0", "= 2000.0, 3.0")),
    "a default": edited("mine.py", ("sigma: float = 1.0", "sigma: float = 2.0")),
    "the class it inherits from": edited("mine.py", ("1e-3", "1e-6")),
    "a function of a module beside it": edited("helpers.py", ("torch.conv2d(x, ", "torch.conv2d(2 * x, ")),
    "a module that this imports": edited("kernels/gauss.py", ("-(sigma**2)", "-(sigma**3)")),
    "what a folder's module does": {
        **FILES,
        "kernels/__init__.py": "import torch\n\ntorch.set_default_dtype('half')\n",
    },
    "what its module does to it": {**FILES, "mine.py": f"{MODULE}\nMine.forward = Other.forward\n"},
    "where an import leads": edited("mine.py", ("from helpers import blurred", "from kernels import blurred")),
    "text": edited("mine.py", ("self.sigma = sigma", "self.sigma = 'sigma'")),
}


@pytest.mark.parametrize("what", SAME)
def test_what_does_not_change_what_a_loss_computes_does_not_change_its_hash(what: str) -> None:
    assert SAME[what] != FILES
    assert source(files=SAME[what]).digest == source().digest


@pytest.mark.parametrize("what", OTHER)
def test_what_changes_what_a_loss_computes_changes_its_hash(what: str) -> None:
    assert source(files=OTHER[what]).digest != source().digest


def test_a_hash_is_the_same_for_ever() -> None:
    assert (source().digest, source("mine:Other").digest) == ("9e75bfeb9764", "c3a312150842")


def test_the_version_of_a_package_counts_for_what_uses_it() -> None:
    assert source(kornia="kornia 0.8.0").digest == source().digest
    assert source("mine:Other", kornia="kornia 0.8.0").digest != source("mine:Other").digest
    assert source("mine:Other").packages == {"kornia": "kornia 0.7.0"}


WHOLE = {
    "import beside": "import beside\n\nclass Mine:\n    two = beside.used()\n",
    "from beside import *": "from beside import *\n\nclass Mine:\n    two = used()\n",
    "an import in a function": "class Mine:\n    def one(self):\n        import beside\n        return beside.used()\n",
    "from . import beside": "from . import beside\n\nclass Mine:\n    two = beside.used()\n",
    "globals": "from beside import later\n\nclass Mine:\n    two = later('used')\n",
    "what no statement binds": "from beside import made_at_run_time\n\nclass Mine:\n    two = made_at_run_time\n",
}


@pytest.mark.parametrize("how", WHOLE)
def test_of_a_module_that_is_used_as_a_whole_everything_counts(how: str) -> None:
    def digest(value: str) -> str:
        beside = f"def later(name):\n    return globals()[name]\n\ndef used():\n    return {value}\n"
        files = {
            "of_mine/__init__.py": "",
            "of_mine/beside.py": beside,
            "beside.py": beside,
            "of_mine/part.py": WHOLE[how],
        }
        return source("of_mine.part:Mine", files).digest

    assert digest("1") == digest("1  # one") != digest("2")


def test_what_is_no_python_counts_as_it_is_and_what_is_not_found_has_no_source() -> None:
    broken = {**FILES, "kernels/gauss.py": "def kernel(\n"}
    assert source(files=broken).digest != source().digest
    assert Source.of("nowhere:Loss", {}.get) is None
    assert Source.here("torch.nn:L1Loss") is None
    assert Source.here("math:sqrt") is None
    assert Source.here("sgbench.losses.pixel:L1") is None


def test_a_source_is_kept_with_the_texts_that_it_is_made_of_and_read_again() -> None:
    other = source("mine:Other")
    assert list(other.modules) == ["mine.py", "helpers.py", "kernels/gauss.py", "kernels/__init__.py"]
    again = Source.from_json(json.loads(other.to_json()))
    assert (again, again.digest) == (other, other.digest)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        {},
        {"target": "mine:Mine", "modules": [1], "packages": {}},
        {"target": "mine:M", "modules": {}, "packages": {}},
    ],
)
def test_what_is_no_source_is_refused(fields: object) -> None:
    with pytest.raises(ValueError, match=r"no source of a plug-in|lacks the code of its target"):
        Source.from_json(fields)


def test_a_module_on_this_machine_is_read_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "from only_read_too import one\n\nclass Loss:\n    value = one\n\nraise SystemExit\n"
    (tmp_path / "only_read.py").write_text(text)
    (tmp_path / "only_read_too.py").write_text("one = 1\n")
    here = Source.here("only_read:Loss", [str(tmp_path)])
    assert here is not None
    assert here.modules == {"only_read.py": text, "only_read_too.py": "one = 1\n"}
    assert not {"only_read", "only_read_too"} & sys.modules.keys()
    monkeypatch.syspath_prepend(tmp_path)
    assert Source.here("only_read:Loss") == here


@pytest.fixture
def _forgetting() -> Iterator[None]:
    yield
    modules._folders_of_packages.cache_clear()
    sources._installed.cache_clear()


@pytest.mark.usefixtures("_forgetting")
def test_of_an_installed_package_its_version_and_its_files_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bought.py").write_text("class Loss:\n    pass\n")
    about = tmp_path / "bought-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: Bought\nVersion: 1.0\n")
    record = "bought.py,sha256={},24\nbought-1.0.dist-info/INSTALLER,sha256=0,4\n../../bin/b.py,sha256=0,1\n"
    (about / "RECORD").write_text(record.format("one"))
    monkeypatch.syspath_prepend(tmp_path)

    def found() -> Source:
        modules._folders_of_packages.cache_clear()
        sources._installed.cache_clear()
        here = Source.here("bought:Loss")
        assert here is not None
        return here

    first = found()
    assert first.modules == {}
    assert first.packages["bought"].startswith("Bought 1.0 (")
    assert found().digest == first.digest
    (about / "RECORD").write_text(record.format("one").replace("INSTALLER,sha256=0", "INSTALLER,sha256=1"))
    assert found().digest == first.digest
    (about / "RECORD").write_text(record.format("two"))
    assert found().digest != first.digest


def test_in_a_notebook_the_last_definition_of_each_name_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [
        "import torch",
        "FACTOR = 2",
        "class Mine:\n    two = FACTOR  # once",
        "Mine.two + 1",
        "!ls",
        "class Other:\n    pass",
    ]

    def digest(*more: str) -> str:
        notebook = ModuleType("__main__")
        vars(notebook)["In"] = [*cells, *more]
        monkeypatch.setitem(sys.modules, "__main__", notebook)
        found = Source.here("__main__:Mine")
        assert found is not None
        return found.digest

    first = digest()
    assert digest("class Mine:\n    two = FACTOR") == first
    assert digest("class Other:\n    two = 3", "Mine()") == first
    assert digest("FACTOR = 2000") != first
    assert digest("class Mine:\n    two = 1000 * FACTOR") != first
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    assert Source.here("__main__:Mine") is None
