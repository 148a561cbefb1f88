"""What holds for the whole package: the floors, what an import costs, the command line, the public names."""

import operator
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import importlinter.cli
import pytest
import typer.main

import sgbench
from sgbench.cli import app

ROOT = Path(sgbench.__file__).parent.parent

SWEEP = ["[what]", "--results", "--backbone", "--loss", "--lambda", "--seeds", "--train", "--test", "--metric", "--set"]
DECIDING = ["--until-decided", "--max-seeds"]
REPEATING = ["--retry", "--retrain", "--rerun", "--rerun-stale", "--keep-stale"]
JUDGED = ["--anytime", "--g", "--equivalent"]
SURFACE = {
    "sgbench": ["--version", "--install-completion", "--show-completion"],
    "sgbench sweep": [*SWEEP, *DECIDING, "--address", "--with", "--fetch", "--shard", *REPEATING, "--json"],
    "sgbench plan": [
        *(*SWEEP, *DECIDING, "--devices", "--price", "--measure", "--address", "--with", "--times"),
        *("--detect", "--power", "--pilot", "--json"),
    ],
    "sgbench tune": [
        *SWEEP,
        *DECIDING,
        *("--trials", "--search", "--scheduler", "--rate", "--by", "--address", "--with", "--fetch", "--local"),
        *("--retry", "--rerun-stale", "--keep-stale", "--json"),
    ],
    "sgbench table": [
        *("[number]", "--results", "--show", "--rows", "--columns", "--rank", "--backbone", "--loss", "--lambda"),
        *("--seeds", "--test", "--metric", "--format", "--json"),
    ],
    "sgbench compare": ["a", "b", "--results", "--metric", "--backbone", "--test", "--alpha", *JUDGED, "--json"],
    "sgbench check": ["targets...", "--scale", "--patch", "--backbone", "--json"],
    "sgbench new": ["kind", "name"],
    "sgbench train": [*SWEEP, "--retrain", "--rerun-stale", "--keep-stale", "--json"],
    "sgbench eval": [
        *("what...", "--test!", "--results", "--metric", "--backbone", "--scale"),
        *("--self-ensemble", "--tile", "--overlap", "--save-images", "--rerun", "--json"),
    ],
    "sgbench query": ["sql", "--results", "--format", "--out", "--timeout", "--json"],
    "sgbench results": [],
    "sgbench results compact": ["--results", "--json"],
    "sgbench results merge": ["into", "sources...", "--dry-run", "--prefer", "--json"],
    "sgbench results verify": ["[store]", "--json"],
    "sgbench results tunings": ["[name]", "--results", "--format", "--json"],
    "sgbench results source": ["run", "--results", "--json"],
    "sgbench results rm": ["runs...", "--results", "--yes"],
    "sgbench results clean": ["--results", "--all", "--yes", "--json"],
    "sgbench figure": [],
    "sgbench figure gradient-maps": ["image", "--out!", "--operator", "--columns"],
    "sgbench figure lambda": ["--out!", "--results", "--backbone", "--loss", "--test", "--metric", "--columns"],
    "sgbench figure forest": [
        *("a", "b", "--out!", "--results", "--backbone", "--test", "--metric", "--alpha", *JUDGED, "--columns"),
    ],
    "sgbench figure plane": ["--out!", "--results", "--backbone", "--loss", "--test", "--metric", "--columns"],
    "sgbench figure agreement": [
        *("--out!", "--results", "--backbone", "--loss", "--test", "--metric", "--alpha", "--columns"),
    ],
    "sgbench figure rank": ["--out!", "--results", "--backbone", "--test", "--metric", "--columns"],
    "sgbench figure curves": ["--out!", "--results", "--backbone", "--loss", "--columns"],
    "sgbench figure crops": [
        *("--out!", "--test!", "--results", "--backbone", "--loss", "--image", "--box", "--regions", "--metric"),
        "--columns",
    ],
    "sgbench report": [
        *("--results", "--out", "--test", "--backbone", "--loss", "--lambda", "--seeds", "--metric", "--images"),
        "--title",
    ],
    "sgbench doctor": ["[what]", "--address", "--with", "--results", "--json"],
    "sgbench backbones": ["--scale", "--json"],
    "sgbench losses": ["--json"],
    "sgbench metrics": ["--json"],
    "sgbench metrics show": ["names...", "--json"],
    "sgbench metrics variants": ["[names...]", "--test", "--scale", "--format", "--json"],
    "sgbench metrics calibrate": ["--metric", "--test", "--scale", "--format", "--json"],
    "sgbench metrics agree": [
        *("--results", "--metric", "--backbone", "--loss", "--test", "--baseline", "--alpha", "--format", "--json"),
    ],
    "sgbench submit": [*SWEEP, *DECIDING, "--address", "--with", "--upload-data", *REPEATING],
    "sgbench status": ["[job]", "--results", "--address", "--json"],
    "sgbench logs": ["what", "--results", "--address", "--follow"],
    "sgbench stop": ["job", "--address"],
    "sgbench data": [],
    "sgbench data list": ["--json"],
    "sgbench data fetch": ["names...", "--lr", "--scale", "--json"],
    "sgbench data prepare": ["what...", "--role", "--scale", "--json"],
    "sgbench data clean": ["--older-than", "--keep", "--yes", "--json"],
    "sgbench data verify": ["[what...]", "--role", "--scale", "--json"],
    "sgbench weights": [],
    "sgbench weights list": ["[names...]", "--json"],
    "sgbench weights bundle": [*SWEEP, "--out"],
    "sgbench weights fetch": ["[names...]"],
    "sgbench weights import": ["file", "[name]"],
}
"""The command line as people's scripts know it: a change here is a change of the interface and belongs in CHANGELOG."""


def commands(command: Any, name: str = "sgbench") -> dict[str, Any]:
    found = {name: command}
    for child, subcommand in getattr(command, "commands", {}).items():
        found |= commands(subcommand, f"{name} {child}")
    return found


COMMANDS = commands(typer.main.get_command(app))


def described(parameter: Any) -> str:
    """Return an option with ``!`` if it is required; an argument with dots if repeatable, brackets if optional."""
    if parameter.param_type_name == "option":
        return str(parameter.opts[0]) + "!" * parameter.required
    name = f"{parameter.name}..." if parameter.nargs == -1 else parameter.name
    return name if parameter.required else f"[{name}]"


def test_rooms_import_only_from_floors_below_and_only_the_cluster_room_imports_ray(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = importlinter.cli.lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    said = capsys.readouterr().out
    assert status == 0, said
    assert "3 kept, 0 broken" in said


@pytest.mark.parametrize(
    "code",
    [
        "import sgbench",
        "import sgbench.cli, sys; sys.argv = ['sgbench', '--help']; sgbench.cli.main()",
        "import sgbench.cli, sys; sys.argv = ['sgbench', 'sweep', '--help']; sgbench.cli.main()",
    ],
    ids=["import", "help", "sweep-help"],
)
def test_neither_an_import_nor_help_loads_anything_heavy(code: str) -> None:
    heavy = ["torch", "ray", "pyarrow", "pandas", "skimage", "PIL", "matplotlib"]
    report = f"import atexit, sys; atexit.register(lambda: print([m for m in {heavy} if m in sys.modules], 'loaded'))"
    answer = subprocess.run(
        [sys.executable, "-c", f"{report}\n{code}"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert answer.stdout.splitlines()[-1] == "[] loaded"


def test_the_command_line_is_the_one_that_is_written_down() -> None:
    surface = {name: [described(each) for each in command.params] for name, command in COMMANDS.items()}
    assert surface == SURFACE


def test_the_public_names_are_those_that_are_written_down() -> None:
    names = ["Results", "__version__", "agreement", "compare", "evaluate", "load_results", "metric", "plan"]
    kinds = ("backbone", "discriminator", "loss", "metric", "optimizer", "tracker")
    names += [*(f"register_{kind}" for kind in kinds), "sweep", "table"]
    assert sorted(sgbench.__all__) == names
    for name in names:
        assert getattr(sgbench, name) is not None
    with pytest.raises(AttributeError, match="'sgbench' has no attribute 'nonsense'"):
        operator.attrgetter("nonsense")(sgbench)


def test_the_version_is_that_of_the_project_file() -> None:
    (version,) = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sgbench.__version__ == version
