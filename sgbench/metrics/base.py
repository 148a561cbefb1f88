"""The contract of a metric, its input and its results.

A metric is a small frozen object that several threads may use at once. An `ImageMetric` gives a number for one pair of
images or, if it is a no-reference metric (``needs_hr=False``), for a super-resolved image alone; with ``needs_lr``, it
also sees the low-resolution image. A `SetMetric` reduces each image to a vector and gives a number for two sets of
vectors. Neither invents a number: what cannot be computed is a `Score` without a value that says why.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgbench.assets.base import LoadedWeights, MissingWeights
from sgbench.assets.catalogue import check_networks
from sgbench.core import registry
from sgbench.core.errors import InputError, described, lacks_memory
from sgbench.core.plugins import FAULTS
from sgbench.core.status import ScoreStatus
from sgbench.spec import Degradation

T = TypeVar("T")
M = TypeVar("M", bound="Metric")
Array = NDArray[np.float64]

BT601 = (65.481, 128.553, 24.966)
"""Weights of R, G and B in Y, for values in [0, 1]; Y runs from 16 to 235 (ITU-R BT.601, as MATLAB's ``rgb2ycbcr``)."""

_STRIP = 256
"""Rows of pixels that are float64 at a time."""

PUBLISHED = Degradation()
"""How the low-resolution images of the usual benchmarks were made."""


class Undefined(Exception):  # noqa: N818 - an outcome, not a fault
    """Raised by a metric that has no value for what it was given; the message is the reason."""


class Image:
    """One picture and the views of it that metrics share, each computed once.

    The views live as long as the image does; those of a reference outlive it in a cache, see `keep_views`.

    Args:
        pixels: RGB, uint8, shape [3, H, W]; an array or a tensor on the CPU.

    Raises:
        InputError: For another type or shape.
    """

    def __init__(self, pixels: ArrayLike) -> None:
        array = np.asarray(pixels)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[0] != 3 or array.size == 0:
            raise InputError(f"an image is {array.dtype} of shape {list(array.shape)}; uint8 [3, H, W] is needed.")
        self.pixels: NDArray[np.uint8] = np.ascontiguousarray(array)
        self._views: dict[Hashable, Any] = {}
        self._cache: MutableMapping[Hashable, Any] = {}

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        _, height, width = self.pixels.shape
        return width, height

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the shape and the pixels, in hex."""
        return hashlib.sha256(f"{self.pixels.shape}".encode() + self.pixels.tobytes()).hexdigest()

    @cached_property
    def luma(self) -> Array:
        """Y of BT.601, float64 [H, W], in [16, 235], not rounded."""
        weights = np.array(BT601) / 255
        strips = np.array_split(self.pixels, range(_STRIP, self.pixels.shape[1], _STRIP), axis=1)
        return np.concatenate([np.tensordot(weights, strip, axes=1) + 16 for strip in strips])

    def keep_views(self, cache: MutableMapping[Hashable, Any]) -> None:
        """From now on store views in ``cache`` too, by `digest` and key, and reuse those that it has."""
        self._cache = cache

    def view(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return the result of ``compute`` for ``key``, which is computed once.

        Args:
            key: Names the view and all that it depends on, such as ``("alexnet", sha256, device)``.
            compute: Called at most once.
        """
        if key not in self._views:
            kept = (self.digest, key)
            try:
                self._views[key] = self._cache[kept]
            except KeyError:
                self._views[key] = self._cache[kept] = compute()
        view: T = self._views[key]
        return view


class Pair:
    """A super-resolved image and what it is compared with: its reference, the low-resolution image, or both.

    Args:
        name: What the image is called in results.
        sr: The super-resolved image, an `Image` or its pixels.
        hr: The reference, of the same size; None if there is none.
        crop: Pixels that PSNR and SSIM leave out on each side; usually the scale.
        lr: The low-resolution image, smaller than SR by a whole number; None if there is none.

    Raises:
        InputError: If the sizes do not fit, or an image is not uint8 [3, H, W].
    """

    def __init__(
        self,
        name: str,
        sr: Image | ArrayLike,
        hr: Image | ArrayLike | None,
        crop: int,
        lr: Image | ArrayLike | None = None,
    ) -> None:
        self.name = name
        self.sr = sr if isinstance(sr, Image) else Image(sr)
        self._hr, self._lr = (Image(each) if not isinstance(each, Image | None) else each for each in (hr, lr))
        self.crop = crop
        if self._hr is not None:
            check_sizes(name, self.sr.size, self._hr.size, crop)
        if self._lr is not None:
            (width, height), (columns, rows) = self.sr.size, self._lr.size
            if width % columns or width // columns * rows != height:
                sizes = f"SR is {width}×{height} pixels and LR is {columns}×{rows}"
                raise InputError(f"image '{name}': {sizes}; SR must be larger by a whole number.")
        if crop < 0:
            raise InputError(f"crop is {crop}; 0 or more pixels are needed.")

    @property
    def hr(self) -> Image:
        """The reference.

        Raises:
            InputError: If there is none.
        """
        if self._hr is None:
            raise InputError("there is no HR image to compare with; a metric that uses it declares needs_hr=True.")
        return self._hr

    @property
    def lr(self) -> Image:
        """The low-resolution image.

        Raises:
            InputError: If there is none.
        """
        if self._lr is None:
            raise InputError("there is no LR image to compare with; a metric that uses it declares needs_lr=True.")
        return self._lr

    @property
    def has_lr(self) -> bool:
        """Whether there is a low-resolution image."""
        return self._lr is not None

    @property
    def scale(self) -> int:
        """SR pixels for each pixel of `lr`.

        Raises:
            InputError: If there is no low-resolution image.
        """
        return self.sr.size[0] // self.lr.size[0]

    def seen_by(self, metric: Metric) -> Pair:
        """Return the super-resolved image with only what a metric declares to compare it with."""
        hr, lr = self._hr if metric.needs_hr else None, self._lr if metric.needs_lr else None
        return self if (hr, lr) == (self._hr, self._lr) else Pair(self.name, self.sr, hr, self.crop, lr)

    def cropped(self, view: Callable[[Image], NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return a view [..., H, W] of SR and of HR without the border.

        Raises:
            Undefined: If nothing is left of the image.
        """
        return self.without_border(view(self.sr)), self.without_border(view(self.hr))

    def cropped_sr(self, view: Callable[[Image], NDArray[Any]]) -> NDArray[Any]:
        """Return a view [..., H, W] of SR without the border; see `cropped`."""
        return self.without_border(view(self.sr))

    def without_border(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return values [..., H, W] without the border; see `cropped`."""
        width, height = self.sr.size
        if min(width, height) <= 2 * self.crop:
            raise Undefined(f"nothing is left of {width}×{height} pixels after a border of {self.crop} is cropped")
        rows, columns = slice(self.crop, height - self.crop), slice(self.crop, width - self.crop)
        return values[..., rows, columns]


def check_sizes(name: str, sr: tuple[int, int], hr: tuple[int, int], crop: int, *, reference: str = "HR") -> None:
    """Refuse a super-resolved image whose size differs from that of its reference.

    Args:
        name: What the image is called.
        sr: Its width and height.
        hr: Those of its reference.
        crop: Usually the scale; if the sizes differ by less, the message suggests cropping, and if by that factor, it
            says so.
        reference: What the reference is, for the message.

    Raises:
        InputError: If the sizes differ, stating both.
    """
    if sr != hr:
        width, height = (min(sides) for sides in zip(sr, hr, strict=True))
        close = all(abs(a - b) < max(crop, 1) for a, b in zip(sr, hr, strict=True))
        hint = f"; crop both from the top left to {width}×{height}" if close else ""
        for smaller, larger, said in ((sr, hr, "SR is as large as LR"), (hr, sr, f"{reference} is as large as LR")):
            if crop > 1 and larger == (crop * smaller[0], crop * smaller[1]):
                hint = f"; {said}"
        raise InputError(f"image '{name}': SR is {sr[0]}×{sr[1]} pixels and {reference} is {hr[0]}×{hr[1]}{hint}.")


class Estimate(NamedTuple):
    """A value that is estimated from a sample."""

    value: float
    standard_error: float | None
    """None if the sample is too small to tell."""


UNRANKED = 1000
"""The rank of metrics that do not declare one."""

MAX_DIGITS = 15
"""A float64 holds no more significant digits."""


@dataclass(frozen=True)
class Score:
    """A number, or the reason why there is none."""

    value: float | None
    status: ScoreStatus = ScoreStatus.OK
    reason: str | None = None
    standard_error: float | None = None

    @classmethod
    def of(cls, compute: Callable[[], float | Estimate]) -> Score:
        """Return the score of a computation, which may fail.

        A value that is not finite, and any exception, is a failure; `Undefined` is none.

        Raises:
            Exception: If the host's memory does not suffice, which another time it may.
        """
        try:
            result = compute()
            value, standard_error = result if isinstance(result, Estimate) else (float(result), None)
        except Undefined as reason:
            return cls(None, ScoreStatus.UNDEFINED, str(reason))
        except MissingWeights as reason:
            return cls(None, ScoreStatus.NO_WEIGHTS, str(reason))
        except FAULTS as error:  # a plug-in may raise anything, and the other metrics go on
            if lacks_memory(error):
                raise
            return cls(None, ScoreStatus.FAILED, described(error))
        if not math.isfinite(value):
            return cls(None, ScoreStatus.FAILED, f"the value is {not_finite(value)}")
        return cls(value, standard_error=standard_error)


_DETAILS = re.compile(r"'[^']*'|\d+(\.\d+)?")

_WORST = (ScoreStatus.FAILED, ScoreStatus.NO_WEIGHTS, ScoreStatus.NEEDS_HR, ScoreStatus.UNDEFINED)


def worst(statuses: Iterable[ScoreStatus]) -> ScoreStatus:
    """Return the status of what is made of scores without values, given theirs."""
    return min(statuses, key=_WORST.index)


def mean_of(images: Mapping[str, Score]) -> Score:
    """Return the score of an image metric for a set: the mean over its images, or why there is none.

    Args:
        images: At least one image, by name.
    """
    values = [score.value for score in images.values() if score.value is not None]
    if len(values) < len(images):
        return incomplete({name: score for name, score in images.items() if score.value is None})
    return Score(math.fsum(values) / len(values))


CAUSES = 5
"""How many causes the score of a set names before it counts the others."""


def incomplete(images: Mapping[str, Score]) -> Score:
    """Return the score of a set from those of its images that have no value.

    Then the set has none either: a value of the other images would be that of another set. Its status is the worst of
    theirs, and its reason lists their causes, the worst first; causes that differ only in what they quote, such as the
    name of a file, or in numbers, such as the size of an image, are one.

    Args:
        images: At least one image, by name.
    """
    causes: dict[tuple[ScoreStatus, str], list[str]] = {}
    for name, score in images.items():
        causes.setdefault((score.status, _DETAILS.sub("", str(score.reason))), []).append(name)
    of_all = (ScoreStatus.NO_WEIGHTS, ScoreStatus.NEEDS_HR)
    ordered = sorted(causes, key=lambda cause: _WORST.index(cause[0]))
    reasons = {cause: str(images[names[0]].reason) for cause, names in causes.items()}
    said = [f"{_some(causes[cause])}: " * (cause[0] not in of_all) + reasons[cause] for cause in ordered]
    left = sum(len(causes[cause]) for cause in ordered[CAUSES:])
    return Score(None, ordered[0][0], "; ".join(said[:CAUSES] + [f"and {left} more images"] * bool(left)))


def _some(names: Sequence[str]) -> str:
    return f"image '{names[0]}'" + f" and {len(names) - 1} more" * (len(names) > 1)


@dataclass(frozen=True)
class Runtime:
    """What metrics need besides the images."""

    weights: Mapping[str, LoadedWeights] = field(default_factory=dict)
    """Those of pretrained networks, by name."""
    device: str = "cpu"
    """Where networks run, as torch names it."""
    degradation: Degradation = PUBLISHED
    """How the test set shrinks images; its low-resolution images were made so, unless they came as files."""


@dataclass(frozen=True, kw_only=True)
class Metric(ABC):
    """What every metric declares; making one imports no torch, so that a plan or a table need not wait for it.

    `sgbench.metric` makes one of a function; or subclass `ImageMetric` or `SetMetric`. Register the object with
    `sgbench.register_metric` or the entry-point group ``sgbench.metrics``, or refer to it as ``module:object``. It is
    requested by its ``name``.

    Raises:
        InputError: If a field is not valid.
    """

    name: str
    """Its name in tables and in the results store."""
    direction: Literal["lower", "higher"]
    """Which values are better."""
    version: str
    """Changes whenever the same images would get another value; such as ``lpips 0.1.4 (v0.1)``."""
    protocol: Mapping[str, Any]
    """How the value is computed, ready for JSON: implementation, colour space, value range, border crop, resize."""
    unit: str = ""
    """Unit of the value, such as ``dB``."""
    digits: int | None = None
    """Decimals with which values are shown; None stands for four significant digits."""
    rank: int = UNRANKED
    """Place among other metrics: tables begin with the lowest, ties are sorted by name; built-in: 10 to 120."""
    networks: tuple[str, ...] = ()
    """Names of the pretrained networks that it needs, see `sgbench.assets`."""
    needs_hr: bool = True
    """Whether it compares with HR. One that does not, a no-reference metric, gets SR alone, even where there is HR, and
    also has a value for test sets without HR."""
    needs_lr: bool = False
    """Whether it uses the low-resolution image, `Pair.lr`, which every image of a test set has."""
    description: str
    """One line for lists."""
    source: str
    """The publication that defines it, or the formula if there is none."""
    reference: str | None = None
    """The code of others that it was compared with, and its version; such as ``DISTS-pytorch 0.1``."""
    difference: float | None = None
    """The most by which its values differ from those of that code, on equal images."""

    def __post_init__(self) -> None:
        named = isinstance(self.name, str) and re.fullmatch(r"[^\s/\\]+", self.name)
        self._require(bool(named), "name", self.name, "a text without spaces and slashes")
        for field_name in ("version", "description", "source"):
            value = getattr(self, field_name)
            self._require(isinstance(value, str), field_name, value, "a text")
        self._require(self.direction in ("lower", "higher"), "direction", self.direction, "'lower' or 'higher'")
        self._require(isinstance(self.unit, str), "unit", self.unit, "a text")
        fits = self.digits is None or (type(self.digits) is int and 0 <= self.digits <= MAX_DIGITS)
        self._require(fits, "digits", self.digits, f"a number from 0 to {MAX_DIGITS}, or None,")
        self._require(type(self.rank) is int, "rank", self.rank, "an integer")
        for field_name in ("needs_hr", "needs_lr"):
            value = getattr(self, field_name)
            self._require(type(value) is bool, field_name, value, "True or False")
        try:
            json.dumps(dict(self.protocol), allow_nan=False)
        except (TypeError, ValueError):
            self._require(False, "protocol", self.protocol, "a mapping that JSON can hold")

    def _require(self, fits: bool, name: str, value: object, needed: str) -> None:
        if not fits:
            raise InputError(f"metric '{self.name}': {name} is {value!r:.80}; {needed} is needed.")


@dataclass(frozen=True, kw_only=True)
class ImageMetric(Metric):
    """A metric with a value for every image."""

    @abstractmethod
    def score(self, pair: Pair, runtime: Runtime) -> float:
        """Return the value for one pair of images.

        Args:
            pair: SR, with HR if the metric declares ``needs_hr``, and with LR if it declares ``needs_lr``.
            runtime: Weights and device of its networks, and the degradation of the test set.

        Raises:
            Undefined: If there is none for these images.
        """


@dataclass(frozen=True, kw_only=True)
class SetMetric(Metric):
    """A metric with a value for a set of images only, compared with the set of their references."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.needs_hr, "needs_hr", self.needs_hr, "True, as for every metric of sets,")
        self._require(not self.needs_lr, "needs_lr", self.needs_lr, "False, as for every metric of sets,")

    @abstractmethod
    def features(self, image: Image, runtime: Runtime) -> Array:
        """Return the vector, float64 [D], that represents an image.

        Raises:
            Undefined: If there is none for this image.
        """

    @abstractmethod
    def distance(self, sr: Array, hr: Array) -> float | Estimate:
        """Return the value for the features of a set and of its references, both [N, D].

        Raises:
            Undefined: If N is too small.
        """


@dataclass(frozen=True, kw_only=True)
class CompositeMetric(Metric):
    """A metric with a value for a set of images only, made of the means of image metrics over the set.

    Its parts are computed once, also if they are asked for themselves. Their networks and versions become its own.
    """

    parts: tuple[str, ...]
    """Names of image metrics in the registry. One that cannot be loaded is missing from each score, which says so."""
    unavailable: tuple[str, ...] = field(init=False)
    """The parts that cannot be loaded here, without which there is no score, and the version is not known."""

    def __post_init__(self) -> None:
        super().__post_init__()
        versions, networks, unavailable = {}, set(self.networks), []
        for part in self.parts:
            try:
                metric = METRICS.load(part)
            except InputError:
                versions[part] = "missing"
                unavailable.append(part)
            else:
                self._require(isinstance(metric, ImageMetric), "parts", part, "a metric of images")
                code = METRICS.source(part)
                versions[part] = metric.version + (f", code {code.digest}" if code else "")
                networks.update(metric.networks)
        object.__setattr__(self, "networks", tuple(sorted(networks)))
        object.__setattr__(self, "unavailable", tuple(unavailable))
        version = f"{self.version} ({', '.join(f'{part}: {each}' for part, each in versions.items())})"
        object.__setattr__(self, "version", version)

    @abstractmethod
    def combine(self, means: Mapping[str, float]) -> float:
        """Return the value.

        Args:
            means: The mean of each part over the images, by its name.

        Raises:
            Undefined: If there is none.
        """


METRICS: registry.Registry[Metric] = registry.METRICS
"""Every registered metric."""


def register_metric(metric: M) -> M:
    """Register a metric in this process, and in those that it starts for a sweep.

    Raises:
        InputError: If the name is taken, or it is no metric object.
    """
    METRICS.register(getattr(metric, "name", getattr(metric, "__name__", type(metric).__name__)))(metric)
    return metric


def check(name: str, entry: object) -> None:
    """Check the entry of a metric's name in the registry.

    Raises:
        InputError: If it is no metric, has another ``name``, under which its scores would be stored, or needs a
            pretrained network that is not in the catalogue.
    """
    if not isinstance(entry, ImageMetric | SetMetric | CompositeMetric):
        raise registry.unfit(
            "metric", name, entry, "a metric, such as '@sgbench.metric(direction=…)' makes of a function,"
        )
    if entry.name != name:
        raise InputError(f"metric '{name}': its attribute 'name' is '{entry.name}'; '{name}' is needed.")
    check_networks("metric", name, entry.networks)


def not_finite(value: float) -> str:
    """Return ``NaN`` or ``infinite`` for a value that is not finite."""
    return "NaN" if math.isnan(value) else "infinite"
