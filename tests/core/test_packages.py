"""Which installed packages can be sent to other machines, with what else, and how a process there finds them."""

import importlib
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sgbench.core import packages as module
from sgbench.core.errors import InputError
from sgbench.core.packages import needed, obstacle, put, to_send

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs version 1.0 of a package as pip does, given its files, what it requires and the tag of its wheel."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(site)

    def install(name: str, files: dict[str, str], *requires: str, tag: str = "py3-none-any") -> None:
        about = f"{name.replace('-', '_')}-1.0.dist-info"
        metadata = [
            "Metadata-Version: 2.1",
            f"Name: {name}",
            "Version: 1.0",
            *(f"Requires-Dist: {r}" for r in requires),
        ]
        there = {
            **files,
            f"{about}/METADATA": "\n".join(metadata),
            f"{about}/WHEEL": f"Wheel-Version: 1.0\nTag: {tag}\n",
            f"{about}/entry_points.txt": f"[sgbench.losses]\n{name} = {name}:Loss\n",
        }
        recorded = (*there, f"{about}/RECORD", "../bin/command", "__pycache__/cached.cpython-311.pyc", "deleted.py")
        there[f"{about}/RECORD"] = "".join(f"{file},,\n" for file in recorded)
        for file, text in there.items():
            path = site / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        importlib.invalidate_caches()

    return install


def names(*requirements: str) -> list[str]:
    return [package.name for package in to_send(requirements, "--with")]


USE = """
import importlib.metadata, importlib.resources, single, far.deep
print(far.deep.VALUE, single.VALUE, importlib.metadata.version("far-away"), far.__file__)
print((importlib.resources.files("far") / "table.txt").read_text())
print([point.value for point in importlib.metadata.entry_points(group="sgbench.losses", name="far-away")])
"""


def test_where_nothing_is_installed_a_package_that_is_sent_is_as_here(install: Install, tmp_path: Path) -> None:
    far = {
        "far/__init__.py": "",
        "far/deep.py": "from single import VALUE",
        "far/table.txt": "7",
        "far/.gitignore": "*",
    }
    install("far-away", far, "single>=1", "numpy")
    install("single", {"single.py": "VALUE = 3\n"})
    packages = to_send(["far_away"], "--with")
    assert [str(package) for package in packages] == ["far-away 1.0", "single 1.0"]
    (there := tmp_path / "there").mkdir()
    variables = put(packages, there)
    sent = sum(path.stat().st_size for path in there.rglob("*") if path.is_file())
    assert sent == sum(package.size for package in packages)
    assert not {"command", ".gitignore", "__pycache__"} & {path.name for path in tmp_path.rglob("there/**/*")}
    said = subprocess.run(
        [sys.executable, "-c", USE],
        cwd=there,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.splitlines() == [f"3 3 1.0 {there}/packages/far/__init__.py", "7", "['far-away:Loss']"]


def test_where_nothing_is_sent_nothing_is_changed(tmp_path: Path) -> None:
    assert put((), tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_what_a_package_requires_is_sent_with_it_as_far_as_it_is_needed_and_can_be(install: Install) -> None:
    install("optional", {"optional.py": ""}, "first")  # in a circle
    install("second", {"second.py": ""})
    install("unused", {"unused.py": ""})
    install("quick", {"quick.cpython-311-x86_64-linux-gnu.so": ""})
    requires = (
        "second",
        "quick",
        "not-installed",
        "torch",
        'unused; python_version < "3"',
        'optional; extra == "more"',
    )
    install("first", {"first.py": ""}, *requires, "(of an old package)")
    assert names("first") == ["first", "second"]
    assert names("first[more]") == ["first", "optional", "second"]
    assert names("first", "Networkx") == ["first", "networkx", "second"]  # which torch requires, so only if it is named


def test_other_machines_must_have_what_is_in_use_of_what_a_package_requires(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("first", {"first.py": ""}, "used", "not_used", "torch", "packaging")
    install("used", {"used_here/__init__.py": ""}, "used-too")
    install("used-too", {"used_too.so": ""})
    install("not_used", {"never_imported.py": "", "shared/part_of_theirs.py": ""})
    for name in ("used_here", "used_too", "shared"):
        monkeypatch.setitem(sys.modules, name, module)
    assert needed(["first"]) == {"first", "used", "used-too"}
    assert needed(["not-installed"]) == {"not-installed"}
    assert needed([]) == set()


@pytest.mark.parametrize("file", ["a.so", "libs/lib.so.5.0.1", "a.cp311-win_amd64.pyd", "a.dylib"])
def test_a_package_with_compiled_files_is_not_sent(install: Install, file: str) -> None:
    install("quick", {file: ""})
    assert obstacle("quick") == "it has compiled files"


def test_a_package_for_one_kind_of_machine_is_not_sent_whatever_its_files_are_called(install: Install) -> None:
    install("program", {"program.py": ""}, tag="py3-none-manylinux_2_17_x86_64")
    assert obstacle("program") == "it has compiled files"


def test_none_of_the_packages_here_is_sent_that_its_makers_call_platform_dependent() -> None:
    wheels = {each.name: each.read_text("WHEEL") or "" for each in importlib.metadata.distributions()}
    compiled = [name for name, wheel in wheels.items() if "Root-Is-Purelib: false" in wheel]
    assert {"torch", "numpy", "hypothesis"} <= {*compiled}
    assert [name for name in compiled if not obstacle(name)] == []
    assert {obstacle(name) for name in ("lpips", "sortedcontainers", "torchmetrics")} == {None}


def test_of_an_editable_package_the_metadata_is_sent_which_has_its_names(install: Install) -> None:
    install("in-progress", {"__editable__.in_progress.pth": "/where/it/is\n"})
    (package,) = to_send(["in-progress"], "--with")
    assert {file.name for file in package.files} >= {"METADATA", "entry_points.txt"}


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("no such name", "--with is 'no such name'; the name of an installed package is needed."),
        ("x @ https://host/x.whl", "package 'x' is not installed on this machine; 'pip install x' installs it."),
        ("PIL", "--with: package 'PIL' is not installed on this machine; its package is called pillow."),
        ("first>=2", "--with is 'first>=2', and version 1.0 is installed on this machine, which is the one that would"),
        ("quick", "package 'quick' cannot be sent, because it has compiled files; install version 1.0 on every node."),
        (
            "unrecorded",
            "cannot be sent, because nothing records which files it has; install version 1.0 on every node.",
        ),
        (
            "first",
            "--with: first 1.0, second 1.0 would be 10 MiB to send, and 1 MiB is the most; install the largest, s",
        ),
    ],
)
def test_what_cannot_be_sent_is_refused_in_a_sentence(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, sentence: str
) -> None:
    install("first", {"first.py": ""}, "second")
    install("second", {"second.py": "#" * 10 * 2**20})
    install("quick", {"quick.so": ""})
    install("unrecorded", {"unrecorded.py": ""})
    (tmp_path / "site" / "unrecorded-1.0.dist-info" / "RECORD").unlink()
    monkeypatch.setattr(module, "LIMIT", 2**20)
    with pytest.raises(InputError) as error:
        to_send([asked], "--with")
    assert sentence in str(error.value)
    assert len(str(error.value)) < 300
