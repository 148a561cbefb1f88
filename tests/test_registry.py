import importlib.metadata
import subprocess
import sys

import pytest

from sgbench.errors import InputError
from sgbench.registry import BACKBONES, LOSSES, METRICS, Registry


class Outer:
    class Inner:
        pass


@pytest.fixture
def registry():
    return Registry("thing", "sgbench.no_such_group", {"path": "pathlib:Path", "broken": "no_such_module:Thing"})


@pytest.fixture
def plug_in(monkeypatch):
    """Announces an entry point, as an installed package would."""

    def announce(name, target):
        point = importlib.metadata.EntryPoint(name, target, "sgbench.no_such_group")
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point] if group == point.group else [])

    return announce


def test_names_are_known_without_importing_anything():
    code = "import sys, sgbench.registry as r; r.LOSSES.names(); r.BACKBONES.names(); r.METRICS.names()\n"
    code += "print(sorted({'torch', 'skimage', 'lpips'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("registry", [LOSSES, BACKBONES, METRICS], ids=lambda registry: registry.kind)
def test_every_built_in_target_exists(registry):
    for name in registry._targets:
        assert registry.load(name) is registry.load(name)


def test_a_registered_object_is_returned_as_it_is(registry):
    thing = registry.register("mine")(object())
    assert registry.load("mine") is thing
    assert registry.names() == ["broken", "mine", "path"]


@pytest.mark.parametrize("taken", ["path", "mine"])
def test_a_taken_name_is_refused_and_stays_what_it_was(registry, taken):
    registry.register("mine")("first")
    before = registry.load(taken)
    with pytest.raises(InputError, match=f"the thing name '{taken}' is taken"):
        registry.register(taken)("second")
    assert registry.load(taken) is before


def test_the_same_object_may_be_registered_again(registry):
    thing = object()
    registry.register("mine")(thing)
    assert registry.register("mine")(thing) is thing


def test_a_plug_in_is_found_by_its_entry_point(registry, plug_in):
    plug_in("theirs", f"{__name__}:Outer")
    assert "theirs" in registry.names()
    assert registry.load("theirs").__name__ == "Outer"


def test_a_plug_in_cannot_take_the_place_of_a_built_in(registry, plug_in):
    plug_in("path", f"{__name__}:Outer")
    assert registry.load("path").__module__.startswith("pathlib")


def test_a_target_is_imported_down_to_nested_attributes(registry):
    assert registry.load(f"{__name__}:Outer.Inner").__qualname__ == "Outer.Inner"


def test_an_unknown_name_gets_the_nearest(registry):
    with pytest.raises(InputError, match=r"unknown thing 'pth': did you mean 'path'\? Valid: broken, path\."):
        registry.load("pth")


@pytest.mark.parametrize("name", ["broken", "no_such_module:Thing", "pathlib:NoSuchThing", "pathlib:"])
def test_a_target_that_cannot_be_imported_is_bad_input(registry, name):
    with pytest.raises(InputError, match=f"thing '{name}' cannot be imported from"):
        registry.load(name)
