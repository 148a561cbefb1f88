"""Named things that a person can choose and a plug-in can add: losses, backbones, metrics, optimizers, trackers.

A registry maps a name to a *target*, ``"package.module:attribute"``, and imports it only when it is asked for, so that
listing what exists loads neither torch nor a plug-in. Names come from four places, looked at in this order:

1. the built-in targets and whatever `Registry.register` added in this process;
2. the entry points of installed packages, one group a registry;
3. a provider, for names that begin with its prefix: for ``spandrel:SwinIR``, the function that `BACKBONES` has for
   ``spandrel`` is called with ``SwinIR``;
4. a name that is itself a target, such as ``my_package.my_module:MyLoss``.
"""

import ast
import functools
import importlib
import importlib.metadata
import importlib.resources
import inspect
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sgbench.core.errors import InputError, Note, unknown
from sgbench.core.plugins import foreign
from sgbench.core.sources import Source, written_options
from sgbench.core.words import quoted

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

T = TypeVar("T")


@dataclass(frozen=True)
class Declaration:
    """What the source text of a class in sgbench declares, read without importing it.

    Attributes:
        options: The options of its constructor, with their defaults.
        summary: The first line of its docstring.
        source: Its ``source``.
        networks: Its ``networks``, the names of pretrained networks.
        reference: Its ``reference``, the code that it was compared with.
        difference: Its ``difference``, the most by which they differ.
    """

    options: Mapping[str, Any]
    summary: str
    source: str | None
    networks: tuple[str, ...]
    reference: str | None
    difference: float | None

    @classmethod
    @functools.cache
    def of(cls, target: str) -> "Declaration":
        """Read the source of ``sgbench.module:Class``, whose options are keyword-only and have literal defaults.

        What it does not declare itself, it inherits from its bases in the same module.
        """
        module, _, name = target.partition(":")
        package, *folders, file = module.split(".")
        text = importlib.resources.files(package).joinpath(*folders, f"{file}.py").read_text(encoding="utf-8")
        classes = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}
        found = classes[name]
        line = [found]
        while bases := [name for name in map(ast.unparse, line[-1].bases) if name in classes]:
            line.append(classes[bases[0]])
        options: dict[str, Any] = {}
        named: dict[str, Any] = {"source": None, "networks": (), "reference": None, "difference": None}
        for node in (node for each in reversed(line) for node in each.body):
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                defaults = map(ast.literal_eval, filter(None, node.args.kw_defaults))
                options = dict(zip((each.arg for each in node.args.kwonlyargs), defaults, strict=True))
            if isinstance(node, ast.AnnAssign) and node.value and (attribute := ast.unparse(node.target)) in named:
                named[attribute] = ast.literal_eval(node.value)
        return cls(options, (ast.get_docstring(found) or "").partition("\n")[0], **named)


PLUGIN_FOLDERS: list[str] = []
"""Folders appended to `sys.path` once a person names a plug-in as ``module:attribute``, and not before.

A file that lies in the current folder by chance is never imported in place of a package that is not installed.
"""


class Registry(Generic[T]):
    """A set of names, each loaded on first use; what is loaded or registered is checked to be a ``T``.

    Args:
        kind: What an entry is, in the singular, for messages: ``"loss"``.
        group: Entry-point group in which other packages announce their entries.
        targets: The built-in names and where each one lives.
        providers: For each prefix, which is the name of a package, the target of a function that takes the rest of a
            name, after the colon, and returns the entry.
        check: Target of a function that takes a name and its entry, and raises `InputError` if the registry cannot hold
            that entry; imported with the first entry.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        targets: Mapping[str, str],
        providers: Mapping[str, str] | None = None,
        check: str | None = None,
    ) -> None:
        self.kind = kind
        self.group = group
        self._targets: dict[str, str] = dict(targets)
        self._providers: dict[str, str] = dict(providers or {})
        self._check = check
        self._loaded: dict[str, T] = {}
        self._found: tuple[tuple[str, ...], dict[str, importlib.metadata.EntryPoint]] | None = None

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that adds its object under ``name``.

        Raises:
            InputError: If the name is taken by something else, or the object is not what the registry holds.
        """

        def decorate(entry: T) -> T:
            taken = self._loaded.get(name)
            if name in self._targets or not (taken is None or taken is entry or _defined_again(taken, entry)):
                raise InputError(f"the {self.kind} name '{name}' is taken; choose another.")
            self._loaded[name] = self._checked(name, entry)
            return entry

        return decorate

    def names(self) -> list[str]:
        """Return every name known without importing anything, sorted."""
        registered = (name for name in self._loaded if ":" not in name)  # the rest are targets
        return sorted({*self._targets, *registered, *self._entry_points()})

    def registered(self, names: Iterable[str]) -> dict[str, T]:
        """Return what `register` has added in this process under some names, and no target or package brings."""
        elsewhere = {*self._targets, *self._entry_points()}
        return {
            name: self._loaded[name]
            for name in sorted(names)
            if name in self._loaded and ":" not in name and name not in elsewhere
        }

    def source(self, name: str) -> Source | None:
        """Return the code behind a name as it is now, found without importing it.

        None for what is built in or made by a provider, what this machine does not have, and what is in no file.
        """
        target = self._plugin(name)
        return Source.here(target, PLUGIN_FOLDERS) if target else None

    def written_options(self, name: str) -> dict[str, Any]:
        """Return the options with which the object behind a name is made, as far as its module has them as literals.

        Nothing is imported. None are found for what is built in, made by a provider, or not on this machine.
        """
        target = self._plugin(name)
        return written_options(target, PLUGIN_FOLDERS) if target else {}

    def _plugin(self, name: str) -> str | None:
        """Return the target of a name; None for what is built in, made by a provider, or unknown."""
        if name in self._targets:
            return None
        if (point := self._entry_points().get(name)) is not None:
            return f"{point.module}:{point.attr}"
        if self.is_provided(name):
            return None
        if ":" in name:
            return name
        return _target(self._loaded[name]) if name in self._loaded else None

    def distribution(self, name: str) -> str | None:
        """Return the installed distribution that announces a name by an entry point."""
        point = self._entry_points().get(name)
        return point.dist.name if point is not None and point.dist is not None else None

    def is_provided(self, name: str) -> bool:
        """Return whether a name begins with the prefix of a provider, which alone knows what the rest means."""
        prefix, colon, _ = name.partition(":")
        return bool(colon) and prefix in self._providers

    def is_built_in(self, name: str) -> bool:
        """Return whether ``name`` is built into sgbench."""
        return name in self._targets

    def declaration(self, name: str) -> Declaration | None:
        """Return what a built-in class declares, without importing it; None if ``name`` is not built in."""
        return Declaration.of(self._targets[name]) if self.is_built_in(name) else None

    def load(self, name: str) -> T:
        """Return the entry called ``name``, importing it on first use.

        Args:
            name: A registered name, one with a provider's prefix, or a target ``module:attribute``.

        Raises:
            InputError: If the name is unknown, its target cannot be imported, or the registry cannot hold the entry.
        """
        if name not in self._loaded:
            self._loaded[name] = self._checked(name, self.imported(name))
        return self._loaded[name]

    def available(self, name: str) -> T | None:
        """Return the entry called ``name`` if it is built in or was loaded before; no plug-in's code runs."""
        return self.load(name) if name in self._targets else self._loaded.get(name)

    def _checked(self, name: str, entry: T) -> T:
        if self._check is not None:
            module, _, function = self._check.partition(":")
            getattr(importlib.import_module(module), function)(name, entry)
        return entry

    def _entry_points(self) -> dict[str, importlib.metadata.EntryPoint]:
        path = tuple(sys.path)
        if self._found is None or self._found[0] != path:  # a search reads the metadata of every installed package
            found = importlib.metadata.entry_points(group=self.group)
            self._found = (path, {point.name: point for point in found})
        return self._found[1]

    def imported(self, name: str) -> T:
        """Return what a name stands for, imported and not checked to be a ``T``.

        Raises:
            InputError: If the name is unknown, or its target cannot be imported.
        """
        target = self._targets.get(name)
        if target is None and (point := self._entry_points().get(name)) is not None:
            target = point.value
        if target is None and self.is_provided(name):
            prefix, _, rest = name.partition(":")
            provided: T = self._resolve(name, self._providers[prefix])(rest)
            return provided
        if target is None and ":" in name:
            target = name
            sys.path += [folder for folder in PLUGIN_FOLDERS if folder not in sys.path]
        if target is None:
            raise unknown(self.kind, name, self.names())
        loaded: T = self._resolve(name, target)
        return loaded

    def _resolve(self, name: str, target: str) -> Any:
        module, _, attribute = target.partition(":")
        with foreign(f"{self.kind} {quoted(name)} cannot be imported from {quoted(target)}"):
            entry: Any = importlib.import_module(module)
            for part in attribute.split("."):
                entry = getattr(entry, part)
        return entry


def _defined_again(old: object, new: object) -> bool:
    """Return whether ``new`` is the same class, or in a script or notebook an object or function of the same name."""
    old_one, new_one = _definition(old), _definition(new)
    same = (old_one.__module__, old_one.__qualname__) == (new_one.__module__, new_one.__qualname__)
    in_notebook = not hasattr(sys.modules["__main__"], "__file__")
    return same and (isinstance(new, type) or new_one.__module__ == "__main__" or in_notebook)


def module_of(entry: object) -> str:
    """Return the name of the module that defines an entry, its class, or the function that it is made of."""
    return str(_definition(entry).__module__)


def _definition(entry: object) -> Any:
    """Return the class or function that an entry is, is made of, or is an object of."""
    made_of: Any = inspect.unwrap(entry)  # type: ignore[arg-type] # it returns what wraps nothing as it is
    return made_of if hasattr(made_of, "__qualname__") else type(made_of)


def _target(entry: object) -> str:
    """Return ``module:attribute`` of what defines an entry; of an object, a variable that holds it, if there is one."""
    definition = _definition(entry)
    if isinstance(definition, type) and not isinstance(entry, type):
        for module in (definition.__module__, "__main__"):
            for variable, value in vars(sys.modules[module]).items():
                if value is entry and not variable.startswith("_"):
                    return f"{module}:{variable}"
    return f"{definition.__module__}:{definition.__qualname__}"


def unfit(kind: str, name: str, entry: object, needed: str) -> InputError:
    """Build the error for an entry that a registry cannot hold.

    Args:
        kind: The registry's.
        name: The entry's.
        entry: What was found under it.
        needed: What would be valid.
    """
    what = entry.__name__ if isinstance(entry, type) else type(entry).__name__
    return InputError(f"{kind} '{name}' is a {what}; {needed} is needed.")


LOSSES: "Registry[type[nn.Module]]" = Registry(
    "loss",
    "sgbench.losses",
    {
        "charbonnier": "sgbench.losses.pixel:Charbonnier",
        "consistency": "sgbench.losses.consistency:Consistency",
        "contextual": "sgbench.losses.perceptual:Contextual",
        "contextual19": "sgbench.losses.perceptual:Contextual19",
        "dists": "sgbench.losses.quality:DISTS",
        "fft": "sgbench.losses.frequency:Fourier",
        "focal_frequency": "sgbench.losses.frequency:FocalFrequency",
        "gan": "sgbench.losses.adversarial:Adversarial",
        "gradient": "sgbench.losses.gradient:FirstOrderGradient",
        "l1": "sgbench.losses.pixel:L1",
        "l2": "sgbench.losses.pixel:L2",
        "laplacian": "sgbench.losses.differences:Laplacian",
        "ldl": "sgbench.losses.artifacts:LocallyDiscriminative",
        "lpips": "sgbench.losses.quality:LPIPS",
        "lpips_squeeze": "sgbench.losses.quality:LPIPSSqueeze",
        "lpips_vgg": "sgbench.losses.quality:LPIPSVGG",
        "ms_ssim": "sgbench.losses.structural:MultiScaleSSIM",
        "sg": "sgbench.losses.gradient:SecondOrderGradient",
        "ssim": "sgbench.losses.structural:SSIM",
        "tv": "sgbench.losses.differences:TotalVariation",
        "vgg": "sgbench.losses.perceptual:VGG16",
        "vgg19": "sgbench.losses.perceptual:VGG19",
    },
    check="sgbench.losses:check",
)
"""Classes of `torch.nn.Module` with keyword-only options, called as ``loss(sr, hr) -> scalar``."""

DISCRIMINATORS: "Registry[type[nn.Module]]" = Registry(
    "discriminator",
    "sgbench.discriminators",
    {
        "patch": "sgbench.losses.discriminators:Patch",
        "unet": "sgbench.losses.discriminators:UNet",
        "vgg": "sgbench.losses.discriminators:VGG",
    },
    check="sgbench.losses.discriminators:check",
)
"""Classes of `torch.nn.Module` whose constructor takes ``features``, called as ``discriminator(images) -> logits``."""

BACKBONES: "Registry[type[nn.Module]]" = Registry(
    "backbone",
    "sgbench.backbones",
    {
        "edsr": "sgbench.backbones.edsr:EDSR",
        "rdn": "sgbench.backbones.rdn:RDN",
        "rcan": "sgbench.backbones.rcan:RCAN",
        "swinir": "sgbench.backbones.swinir:SwinIR",
    },
    providers={"spandrel": "sgbench.backbones.from_spandrel:architecture"},
    check="sgbench.backbones:check",
)
"""Classes of `torch.nn.Module` whose constructor takes ``scale`` and which may carry named ``sizes``."""

OPTIMIZERS: "Registry[type[Optimizer]]" = Registry(
    "optimizer",
    "sgbench.optimizers",
    {"adam": "torch.optim:Adam", "adamw": "torch.optim:AdamW", "sgd": "torch.optim:SGD"},
    check="sgbench.training.optimizers:check",
)
"""Classes of `torch.optim.Optimizer`, constructed as ``optimizer(parameters, lr=…, **options)``."""

METRICS: Registry[Any] = Registry(
    "metric",
    "sgbench.metrics",
    {
        "lpips_alex": "sgbench.metrics.lpips:lpips_alex",
        "lpips_vgg": "sgbench.metrics.lpips:lpips_vgg",
        "lpips_squeeze": "sgbench.metrics.lpips:lpips_squeeze",
        "dists": "sgbench.metrics.dists:dists",
        "flip": "sgbench.metrics.flip:flip",
        "ssimulacra2": "sgbench.metrics.ssimulacra2:ssimulacra2",
        "fid": "sgbench.metrics.frechet:fid",
        "kid": "sgbench.metrics.kernel:kid",
        "kid_standard": "sgbench.metrics.kernel:kid_standard",
        "fd_alex": "sgbench.metrics.frechet:fd_alex",
        "fd_dinov2": "sgbench.metrics.frechet:fd_dinov2",
        "ntire2025": "sgbench.metrics.ntire:ntire2025",
        "psnr_y": "sgbench.metrics.distortion:psnr_y",
        "psnr_rgb": "sgbench.metrics.distortion:psnr_rgb",
        "ssim_y": "sgbench.metrics.distortion:ssim_y",
        "ssim_rgb": "sgbench.metrics.distortion:ssim_rgb",
        "niqe": "sgbench.metrics.niqe:niqe",
        "lr_psnr": "sgbench.metrics.distortion:lr_psnr",
    },
    providers={
        "pyiqa": "sgbench.metrics.from_pyiqa:metric",
        "torchmetrics": "sgbench.metrics.from_torchmetrics:metric",
    },
    check="sgbench.metrics.base:check",
)
"""`sgbench.metrics.base.Metric` objects; `sgbench.metrics` has this registry with their type."""

SHORT_NAMES = {"lpips": "lpips_alex", "psnr": "psnr_y", "ssim": "ssim_y"}
"""Of metrics: what the tables of papers on super-resolution call so. ``fid`` is one's own name."""


def metric_named(name: str, there: Collection[str]) -> str:
    """Return the name of the metric that a person means, and say so once if it is not the one that is written.

    Args:
        name: A name, or one of `SHORT_NAMES`.
        there: The names of all metrics; one of them that is also a short name stands for itself.
    """
    meant = name if name in there else SHORT_NAMES.get(name, name)
    if meant != name:
        said = f"metric '{name}' is {meant}, the column that papers call so; 'sgbench metrics' lists all"
        warnings.warn(Note(said), stacklevel=2)
    return meant


TRACKERS: Registry[Any] = Registry(
    "tracker",
    "sgbench.trackers",
    {
        "tensorboard": "sgbench.trackers.tensorboard:TensorBoard",
        "mlflow": "sgbench.trackers.mlflow:MLflow",
        "wandb": "sgbench.trackers.wandb:WandB",
    },
    check="sgbench.trackers.base:check",
)
"""Classes of `sgbench.trackers.Tracker`; `sgbench.trackers` has this registry with their type."""
