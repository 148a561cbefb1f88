"""Metrics of the library pyiqa, as ``pyiqa:NAME``; `sgbench.metrics.pyiqa_models` computes them.

pyiqa (https://github.com/chaofengc/IQA-PyTorch, the extra ``sgbench[pyiqa]``) is imported by the first score. What a
metric declares is read from the text of the library: its model, whether it compares with HR, which values are better,
and the options that it is made with, such as its colour space, crop and test size. A metric gets what pyiqa reads from
a file: RGB in [0, 1], the whole image.
"""

import ast
import functools
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from packaging.version import Version

from sgbench.assets.from_pyiqa import FILES
from sgbench.core.errors import InputError, unknown
from sgbench.metrics.base import ImageMetric, Pair, Runtime

OLDEST = "0.1.14"
"""The first version of pyiqa that keeps its downloads where they can be given to it."""


@dataclass(frozen=True, kw_only=True)
class PyiqaMetric(ImageMetric):
    """A metric as ``pyiqa.create_metric`` makes it."""

    model: str
    """Its name in pyiqa."""

    def score(self, pair: Pair, runtime: Runtime) -> float:
        """Return the value for one pair of images, or for SR alone, computed on the runtime's device.

        Raises:
            Undefined: If pyiqa cannot compute it for images of that size, or the value is NaN.
            InputError: If it has another value when it is called again.
        """
        from sgbench.metrics.pyiqa_models import value  # here, as a plan does not need torch

        return value(self, pair, runtime)


def metric(name: str) -> PyiqaMetric:
    """Return a metric of the library.

    Args:
        name: One of `FILES`.

    Raises:
        InputError: If there is none of that name, or pyiqa is not installed or too old.
    """
    if name not in FILES:
        raise unknown("metric of pyiqa", name, FILES)
    folder, installed = _installed()
    configurations = _configurations(folder)
    if name not in configurations:
        raise InputError(f"pyiqa {installed} has no metric '{name}'.")
    configured = configurations[name]
    options = dict(configured["metric_opts"])
    architecture = options.pop("type")
    options = {**_defaults(folder, architecture), **options}
    on_luma = options.get("test_y_channel")
    return PyiqaMetric(
        name=f"pyiqa:{name}",
        direction="lower" if configured.get("lower_better", False) else "higher",
        version=f"pyiqa {installed}",
        unit="dB" if architecture == "PSNR" else "",
        needs_hr=configured["metric_mode"] == "FR",
        protocol={
            "implementation": f"pyiqa.create_metric('{name}')",
            "model": architecture,
            "colour_space": f"Y of {options.get('color_space') or 'pyiqa'}" if on_luma else "RGB",
            "value_range": [0, 1],
            "border_crop": options.get("crop_border") or None,
            "resize": options.get("test_img_size"),
            "score_range": configured.get("score_range"),
            "options": ", ".join(f"{name}={value!r}" for name, value in options.items() if value is not None),
        },
        networks=tuple(f"pyiqa:{file}" for file in FILES[name]),
        description=f"{architecture} as pyiqa configures it",
        source="https://github.com/chaofengc/IQA-PyTorch",
        model=name,
    )


def _installed() -> tuple[Path, str]:
    """Return pyiqa's folder and version, without importing it.

    Raises:
        InputError: If it is not installed, or too old.
    """
    found = find_spec("pyiqa")
    how = "pip install 'sgbench[pyiqa]'"
    try:
        installed = version("pyiqa")
    except PackageNotFoundError:
        installed = None
    if found is None or installed is None or not found.submodule_search_locations:
        raise InputError(f"metrics 'pyiqa:…' need pyiqa (not installed); {how}.")
    if Version(installed) < Version(OLDEST):
        raise InputError(f"metrics 'pyiqa:…' need pyiqa {OLDEST} or newer, and {installed} is installed; {how}.")
    return Path(found.submodule_search_locations[0]), installed


@functools.cache
def _configurations(folder: Path) -> dict[str, dict[str, Any]]:
    """Return pyiqa's ``DEFAULT_CONFIGS``, read from its text."""
    text = (folder / "default_model_configs.py").read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            found: dict[str, dict[str, Any]] = ast.literal_eval(node.value.args[0])
            return found
    raise InputError(f"'{folder / 'default_model_configs.py'}' does not list metrics as pyiqa {OLDEST} does.")


@functools.cache
def _defaults(folder: Path, architecture: str) -> dict[str, Any]:
    """Return the options of the constructor of a model with their defaults, read from its text."""
    for path in sorted((folder / "archs").glob("*_arch.py")):
        if f"class {architecture}(" in (text := path.read_text(encoding="utf-8")):
            classes = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef))
            found = next(node for node in classes if node.name == architecture)
            return _of_constructor(found)
    return {}


def _of_constructor(found: ast.ClassDef) -> dict[str, Any]:
    options = {}
    for node in found.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            given = node.args.defaults
            for argument, default in zip(node.args.args[-len(given) :] if given else [], given, strict=True):
                if isinstance(default, ast.Constant | ast.List | ast.Tuple | ast.UnaryOp):
                    options[argument.arg] = ast.literal_eval(default)
    return options
