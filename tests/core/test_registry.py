import importlib.metadata
import subprocess
import sys

import pytest

from sgbench.core.errors import InputError, Note
from sgbench.core.registry import BACKBONES, LOSSES, METRICS, SHORT_NAMES, Registry, metric_named, unfit
from sgbench.spec import check_backbone, check_loss


class Outer:
    class Inner:
        pass


def only_classes(name, entry):
    if not isinstance(entry, type):
        raise unfit("thing", name, entry, "a class")


def provide(rest):
    if rest == "unknown":
        raise InputError("the provider's own sentence.")
    return f"made of '{rest}'"


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
    code = "import sys, sgbench.core.registry as r; r.LOSSES.names(); r.BACKBONES.names(); r.METRICS.names()\n"
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


@pytest.mark.usefixtures("script")
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


@pytest.fixture
def script(monkeypatch):
    """Make this a script, also where a process of pytest-xdist, which has no file, would count as a notebook."""
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "script.py", raising=False)


def redefined(name, module=__name__):
    return type(name, (), {"__module__": module})


def test_a_class_that_is_defined_again_takes_the_place_of_the_old_one(registry):
    registry.register("mine")(redefined("Mine"))
    again = registry.register("mine")(redefined("Mine"))
    assert registry.load("mine") is again
    for other in (redefined("Other"), redefined("Mine", module="another")):
        with pytest.raises(InputError, match="'mine' is taken"):
            registry.register("mine")(other)


@pytest.mark.usefixtures("script")
def test_an_object_is_replaced_only_where_its_class_is_defined_in_a_notebook(registry):
    registry.register("mine")(redefined("Mine", "__main__")())
    again = registry.register("mine")(redefined("Mine", "__main__")())
    assert registry.load("mine") is again
    registry.register("theirs")(redefined("Mine")())
    with pytest.raises(InputError, match="'theirs' is taken"):
        registry.register("theirs")(redefined("Mine")())


def test_what_is_not_what_the_registry_holds_is_refused_wherever_it_comes_from(plug_in):
    checked = Registry(
        "thing",
        "sgbench.no_such_group",
        {"path": "pathlib:Path", "pi": "math:pi"},
        providers={"made": f"{__name__}:provide"},
        check=f"{__name__}:only_classes",
    )
    plug_in("theirs", "math:sqrt")
    assert checked.load("path").__name__ == "Path"
    for name, what in [
        ("pi", "float"),
        ("theirs", "builtin_function_or_method"),
        ("made:x", "str"),
        ("math:e", "float"),
    ]:
        for _ in range(2):
            with pytest.raises(InputError, match=f"^thing '{name}' is a {what}; a class is needed"):
                checked.load(name)
    with pytest.raises(InputError, match="thing 'mine' is a int; a class is needed"):
        checked.register("mine")(5)
    assert "mine" not in checked.names()


def test_nothing_is_imported_to_say_what_is_available(registry, plug_in):
    plug_in("theirs", "no_such_module:Thing")
    assert registry.available("path") is registry.load("path")
    assert [registry.available(name) for name in ("theirs", "no_such_module:Thing", "unknown")] == [None] * 3
    thing = registry.register("mine")(object())
    assert registry.available("mine") is thing


@pytest.mark.parametrize(
    ("registry", "name", "sentence"),
    [
        (LOSSES, "pathlib:Path", r"loss 'pathlib:Path' is a Path; a class of torch\.nn\.Module is needed"),
        (LOSSES, "math:pi", r"loss 'math:pi' is a float; a class of torch\.nn\.Module is needed"),
        (BACKBONES, "pathlib:Path", r"backbone 'pathlib:Path' is a Path; a class of torch\.nn\.Module is needed"),
        (METRICS, "pathlib:Path", r"metric 'pathlib:Path' is a Path; a metric, such as .* is needed"),
        (
            METRICS,
            "sgbench.metrics.distortion:psnr_y",
            r"^metric 'sgbench\.metrics\.distortion:psnr_y': its attribute 'name' is 'psnr_y'; "
            r"'sgbench\.metrics\.distortion:psnr_y' is needed\.$",
        ),
    ],
)
def test_each_registry_holds_what_it_should(registry, name, sentence):
    with pytest.raises(InputError, match=sentence):
        registry.load(name)


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


# Providers


@pytest.fixture
def provided():
    return Registry("thing", "sgbench.no_such_group", {}, providers={"path": f"{__name__}:provide"})


@pytest.mark.parametrize("rest", ["SwinIR", "a-b", "a:b", ""])
def test_a_provider_is_given_all_that_follows_its_prefix(provided, rest):
    assert provided.load(f"path:{rest}") == f"made of '{rest}'"
    assert provided.load(f"path:{rest}") is provided.load(f"path:{rest}")
    assert provided.names() == []


def test_a_prefix_is_the_whole_of_what_stands_before_the_colon(provided):
    assert provided.is_provided("path:x")
    assert [name for name in ("path", "pathlib:Path", "mypath:x", "x:path:y") if provided.is_provided(name)] == []
    assert provided.load("pathlib:Path").__module__.startswith("pathlib")


def test_what_a_provider_refuses_is_told_in_its_own_words(provided):
    with pytest.raises(InputError, match=r"^the provider's own sentence\.$"):
        provided.load("path:unknown")


def test_a_registered_name_goes_before_a_provider(provided):
    thing = provided.register("path:mine")(object())
    assert provided.load("path:mine") is thing


# Packages that are installed


MODULE = """
from torch import nn

class Loss(nn.Module):
    def __init__(self, *, power: float = 1.0) -> None:
        super().__init__()

class Net(nn.Module):
    sizes = {"big": {}, "small": {}}
"""

ENTRY_POINTS = """
[sgbench.losses]
theirs = their_module:Loss
broken = their_module:Missing

[sgbench.backbones]
their-net = their_module:Net
broken = no_such_module:Net
"""


def test_a_short_name_of_a_metric_is_that_of_a_column_unless_a_metric_is_called_so():
    with pytest.warns(Note, match=r"^metric 'psnr' is psnr_y, the column that papers call so; 'sgbench metrics' lists"):
        assert metric_named("psnr", METRICS.names()) == "psnr_y"
    assert metric_named("psnr", ["psnr", "psnr_y"]) == "psnr"
    assert [metric_named(name, ()) for name in ("fid", "psnr_rgb", "unknown")] == ["fid", "psnr_rgb", "unknown"]
    assert set(SHORT_NAMES.values()) <= set(METRICS.names())


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package on the path that announces losses and backbones, two of which cannot be imported."""
    (tmp_path / "their_module.py").write_text(MODULE)
    metadata = tmp_path / "theirs-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    for registry in (LOSSES, BACKBONES):
        monkeypatch.setattr(registry, "_loaded", {})


@pytest.mark.usefixtures("installed")
def test_a_loss_of_an_installed_package_is_used_like_a_built_in_one():
    assert {"theirs", "broken", "l1"} <= set(LOSSES.names())
    assert str(check_loss("0.5*theirs(power=2) + l1 + theirs(power=1)")) == ("l1 + 1.0*theirs + 0.5*theirs(power=2.0)")
    with pytest.raises(InputError, match="did you mean 'power'"):
        check_loss("theirs(pwer=2)")


@pytest.mark.usefixtures("installed")
def test_a_backbone_of_an_installed_package_is_used_like_a_built_in_one():
    assert {"their-net", "broken", "edsr"} <= set(BACKBONES.names())
    assert check_backbone("their-net") == "their-net-big"
    assert check_backbone("their-net-small") == "their-net-small"
    with pytest.raises(InputError, match="unknown size of backbone 'their-net' 'smal': did you mean 'small'"):
        check_backbone("their-net-smal")
    with pytest.raises(InputError, match="backbone 'their_module:Loss' has no sizes, but 'big' is asked for"):
        check_backbone("their_module:Loss-big")


@pytest.mark.usefixtures("installed")
def test_a_broken_package_spoils_only_its_own_names():
    with pytest.raises(InputError, match=r"unknown backbone 'thier-net': did you mean 'their-net'\? Valid: .*broken"):
        check_backbone("thier-net")
    with pytest.raises(InputError, match="backbone 'broken' cannot be imported from 'no_such_module:Net'"):
        check_backbone("broken")
    with pytest.raises(InputError, match="loss 'broken' cannot be imported from 'their_module:Missing'"):
        check_loss("l1 + broken")
