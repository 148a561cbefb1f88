"""Which modules of a person's own a plug-in needs, and how a process that lacks them imports them."""

import importlib
import importlib.machinery
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sgbench.core import modules as module
from sgbench.core.errors import InputError
from sgbench.core.modules import collect

FILES = {
    "loss_of_mine.py": "import json, torch\nimport beside_it\nfrom parts.deep import edges\n\n"
    "def never():\n    import no_such_module\n\nVALUE = beside_it.VALUE + edges.VALUE\n",
    "beside_it.py": "VALUE = 1\n\ndef later():\n    from inside_a_function import VALUE\n    return VALUE\n",
    "inside_a_function.py": "VALUE = 2\n",
    "parts/__init__.py": "from . import near\nimportlib = __import__('importlib')\n"
    "importlib.import_module('parts.by_a_computed_name')\n",
    "parts/near.py": "from .deep.edges import VALUE\n\ndef never():\n    from .... import too_far\n",
    "parts/by_a_computed_name.py": "",
    "parts/deep/edges.py": "from .. import cousin\nVALUE = 10\n",  # parts/deep is a namespace package
    "parts/cousin.py": "",
    "parts/of_no_use.py": "raise RuntimeError('nobody imports it')\n",
    "parts/data.csv": "1,2\n",
    "of_no_use.py": "raise RuntimeError('nobody imports it')\n",
    ".git/config": "",
}
SENT = {
    *("loss_of_mine.py", "beside_it.py", "inside_a_function.py", "parts/__init__.py", "parts/near.py"),
    *("parts/by_a_computed_name.py", "parts/deep/edges.py", "parts/cousin.py"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with modules that can be imported, as the current folder of a person."""
    for name, text in FILES.items():
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "mine")
    before = set(sys.modules)
    yield tmp_path / "mine"
    for name in set(sys.modules) - before:
        del sys.modules[name]


def add(folder: Path, name: str, text: str) -> str:
    (folder / f"{name}.py").write_text(text)
    importlib.invalidate_caches()
    importlib.import_module(name)
    return name


def test_a_module_is_sent_with_what_it_imports_from_where_no_package_is_installed(folder: Path) -> None:
    add(folder, "beside_it_all", "import beside_it, parts")  # loads them, as a plug-in does
    code = collect(["loss_of_mine"])
    assert {each.file for each in code.modules} == SENT
    assert {each.file: each.content.decode() for each in code.modules} == {name: FILES[name] for name in SENT}
    assert code.packages == ()  # torch is on every node that has sgbench


def test_nothing_is_imported_to_find_out(folder: Path) -> None:
    assert {each.file for each in collect(["loss_of_mine"]).modules} == SENT - {"parts/by_a_computed_name.py"}
    assert not {"loss_of_mine", "beside_it", "parts"} & sys.modules.keys()


@pytest.mark.parametrize(
    "name", ["json", "torch", "sgbench.losses", "no_such_module", "__main__", "sys", "os.path", ""]
)
def test_what_is_on_every_node_or_nowhere_is_not_sent(name: str) -> None:
    assert collect([name]) == module.Code()


def test_a_link_is_followed_and_its_folder_is_not_sent(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    (folder.parent / "elsewhere" / "target.py").write_text("VALUE = 3\n")
    (folder / "linked.py").symlink_to(folder.parent / "elsewhere" / "target.py")
    (folder / "loop").symlink_to(folder)
    add(folder, "follows", "import linked\n")
    assert {each.file: each.content for each in collect(["follows"]).modules}["linked.py"] == b"VALUE = 3\n"


def test_installed_packages_are_named_if_they_are_loaded_and_sgbench_does_not_bring_them(
    folder: Path,
) -> None:
    add(folder, "uses_packages", "import hypothesis, numpy\ndef plot():\n    import seaborn, playwright\n")
    requirements = ("hypothesis", "sortedcontainers")
    assert collect(["uses_packages"]).packages == requirements
    assert collect(["hypothesis.strategies"], ["a-plugin"]).packages == ("a-plugin", *requirements)


def test_a_folder_that_pip_installs_into_is_none_of_the_persons_and_an_editable_package_is(folder: Path) -> None:
    (folder / "egg.egg-info").mkdir()
    (folder / "egg.egg-info" / "top_level.txt").write_text("beside_it\n")
    assert [each.file for each in collect(["inside_a_function"]).modules] == ["inside_a_function.py"]
    (folder / "theirs-1.0.dist-info").mkdir()
    (folder / "theirs-1.0.dist-info" / "RECORD").write_text("inside_a_function.py,,\n")
    module._folders_of_packages.cache_clear()
    assert collect(["inside_a_function"]).modules == ()
    module._folders_of_packages.cache_clear()


def test_what_cannot_be_sent_is_refused_in_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(folder, "needs_compiled", "def later():\n    import compiled\n")
    (folder / f"compiled{importlib.machinery.EXTENSION_SUFFIXES[0]}").write_bytes(b"")
    with pytest.raises(InputError, match=r"module 'compiled' in '.*' is not a Python file and cannot be sent to other"):
        collect(["needs_compiled"])
    monkeypatch.setattr(module, "LIMIT", 2)
    with pytest.raises(
        InputError, match=r"1 module of 0\.0 MiB would have to be sent .*largest is 'inside_a_function'"
    ):
        collect(["inside_a_function"])


USE = """
import pickle, sys
from pathlib import Path
from sgbench.core.modules import install

install(pickle.loads(Path(sys.argv[1]).read_bytes()))
import loss_of_mine, beside_it, parts.deep.edges
print(loss_of_mine.VALUE, beside_it.later(), parts.deep.edges.__file__)
try:
    import of_no_use
except ModuleNotFoundError:
    print("nothing else can be imported")
"""


def use(sent: Path, cwd: Path) -> list[str]:
    command = subprocess.run(
        [sys.executable, "-c", USE, str(sent)], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )
    assert command.returncode == 0, command.stderr
    return command.stdout.splitlines()


def test_another_process_imports_them_in_place_or_from_its_cache(folder: Path, cache: Path, tmp_path: Path) -> None:
    add(folder, "beside_it_all", "import beside_it, parts")
    sent = tmp_path / "sent"
    modules = collect(["loss_of_mine"]).modules
    sent.write_bytes(pickle.dumps(modules))
    (tmp_path / "other").mkdir()
    values, last = use(sent, tmp_path / "other")
    assert last == "nothing else can be imported"
    assert values == f"11 2 {folder / 'parts/deep/edges.py'}"
    (folder / "beside_it.py").write_text("VALUE = 'another version'\n")
    values, last = use(sent, tmp_path / "other")
    assert last == "nothing else can be imported"
    (received,) = cache.parent.glob("code-*")
    assert values == f"11 2 {received / 'parts/deep/edges.py'}"
    (received / "beside_it.py").write_text("VALUE = 'damaged'\n")
    assert use(sent, tmp_path / "other")[0] == values
    assert {str(each.relative_to(received)) for each in received.rglob("*.*") if each.suffix != ".pyc"} == SENT
