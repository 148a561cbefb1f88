"""What is to be run: the typed specification of one run and of a sweep, and the identity of a run.

Nothing here touches a file. A sweep is what a person asks for: its names are resolved, which imports the code of
plug-ins. A run's specification is a value that holds names, and reading one imports nothing.
"""

import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    InstanceOf,
    PlainSerializer,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from sgbench.core.bicubic import Edges, Rounding
from sgbench.core.errors import InputError, unknown
from sgbench.core.registry import BACKBONES, METRICS
from sgbench.core.words import quoted, shortened
from sgbench.spec import expression
from sgbench.spec.decisions import Asked, Question
from sgbench.spec.expression import Expression, Family, OpenLoss
from sgbench.spec.reference import as_text, held_out, lacks_hr, packed_digest, set_name
from sgbench.spec.resolve import (
    check_backbone,
    check_metric,
    check_optimizer,
    check_options,
    check_trackers,
    check_written_loss,
    split_backbone,
)
from sgbench.spec.space import read_range
from sgbench.spec.text import read_seeds, read_yaml

SPEC_VERSION = 1
"""Raised when a default changes its meaning, so that ids of before and after differ."""


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: keys sorted, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _stored_loss(value: object) -> object:
    if not isinstance(value, str | Expression):
        raise ValueError("a loss expression such as 'l1 + 0.1*sg' is needed")
    return expression.parse(value) if isinstance(value, str) else value


def _written(loss: OpenLoss) -> str | dict[str, str]:
    return {"loss": str(loss), "label": loss.label} if loss.label else str(loss)


Loss = Annotated[InstanceOf[Expression], BeforeValidator(_stored_loss), PlainSerializer(str, return_type=str)]
"""A loss expression, written as text; only its grammar is checked."""

NamedLoss = Annotated[
    InstanceOf[Expression] | InstanceOf[Family],
    BeforeValidator(lambda value: value if isinstance(value, OpenLoss) else check_written_loss(value)),
    PlainSerializer(_written),
]
"""A loss as a person writes it, perhaps with a label, whose terms must exist and whose λ may be open."""

NamedBackbone = Annotated[str, AfterValidator(check_backbone)]
"""``family-size``, a registered name, or ``module:Class``."""

NamedMetric = Annotated[str, AfterValidator(check_metric)]
"""A registered metric, or ``module:object``."""


def _no_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number is needed")
    return value


_NO_TRUTH_VALUE = BeforeValidator(_no_truth_value)
"""Comes last in an annotation: bounds that come after it would be rounded in messages."""

Whole = Annotated[int, _NO_TRUTH_VALUE]
Number = Annotated[float, _NO_TRUTH_VALUE]

Seed = Annotated[int, Field(ge=0, lt=2**63), _NO_TRUTH_VALUE]


def _spelled_out(seeds: object) -> object:
    """Return seeds as a list of numbers, if they are a text such as ``0-4`` or a list with such texts in it."""
    if not isinstance(seeds, str | list | tuple):
        return seeds
    parts = [seeds] if isinstance(seeds, str) else seeds
    return [seed for part in parts for seed in (read_seeds(part) if isinstance(part, str) else [part])]


Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), BeforeValidator(_spelled_out)]
"""Seeds, also as ranges: ``[0, 1, 2]``, ``0-2``, ``[0-2, 7]``."""

Weight = Annotated[
    Number,
    BeforeValidator(lambda value: expression.number(value) if isinstance(value, str) else value),
    Field(ge=0, allow_inf_nan=False),
]
"""The coefficient of a term of a loss."""

Weights = Annotated[tuple[Weight, ...], Field(min_length=1)]

Lambdas = Annotated[
    Annotated[Weights, Tag("(list)")] | Annotated[Mapping[str, Weights], Field(min_length=1), Tag("(by term)")],
    Discriminator(lambda value: "(by term)" if isinstance(value, Mapping) else "(list)"),
]
"""Values of λ: a list, or one for each of some terms, by the name of the term."""

Count = Annotated[int, Field(ge=1, lt=2**31), _NO_TRUTH_VALUE]
"""A positive number that a column of 32 bits can hold."""

LongCount = Annotated[int, Field(ge=1, lt=2**63), _NO_TRUTH_VALUE]
"""A positive number that a column of 64 bits can hold."""


def _several(value: object) -> object:
    return () if value is None else (value,) if isinstance(value, str) else value


NamedTrackers = Annotated[tuple[str, ...], BeforeValidator(_several), AfterValidator(check_trackers)]
"""Registered trackers, or ``module:Class``: one, or a list."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False, serialize_by_alias=True)

    @model_validator(mode="before")
    @classmethod
    def _has_only_known_keys(cls, fields: Any) -> Any:
        known = [field.alias or name for name, field in cls.model_fields.items()]
        closed = cls.model_config.get("extra") != "allow"
        for key in fields if closed and isinstance(fields, Mapping) else ():
            if key not in known:
                raise unknown(cls._key(), str(key), known)
        return fields

    @classmethod
    def _key(cls) -> str:
        return "key"


class Degradation(_Model):
    """How the low-resolution image is made from the high-resolution one: MATLAB's ``imresize``.

    It is the one step of what may become a list. Steps on whole images change the packed LR pixels, and with them the
    hash of a set; steps on patches, drawn anew for every batch from a stream of their own, change none, and belong in a
    field of their own beside these, whose default is no step. Either way they are part of the recipe, and so of a run's
    identity, and no id of today changes.
    """

    kernel: Literal["bicubic"] = "bicubic"
    edges: Edges = "clamp"
    rounding: Rounding = "per-pass"


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    finite = not isinstance(value, float) or math.isfinite(value)
    if (value is None or isinstance(value, bool | int | float | str)) and finite:
        return value
    raise ValueError("a number, a text, true, false, null or a list of these is needed")


Option = Annotated[Any, BeforeValidator(_plain)]
"""An option of code that sgbench does not know."""


class _Kind(_Model):
    """One of several models that have a ``name`` each, a `Literal`."""

    _WHAT: ClassVar[str]

    @classmethod
    def _key(cls) -> str:
        (name,) = get_args(cls.model_fields["name"].annotation)
        return f"key of {cls._WHAT} {quoted(name)}"


class _Optimizer(_Kind):
    _WHAT = "optimizer"

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the optimizer's class in `torch.optim`."""
        return self.model_dump(exclude={"name"})


class _Adaptive(_Optimizer):
    lr: Number = Field(default=1e-4, gt=0)
    beta1: Number = Field(default=0.9, ge=0, lt=1)
    beta2: Number = Field(default=0.999, ge=0, lt=1)
    eps: Number = Field(default=1e-8, gt=0)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the optimizer's class in `torch.optim`."""
        return {**self.model_dump(exclude={"name", "beta1", "beta2"}), "betas": (self.beta1, self.beta2)}


class Adam(_Adaptive):
    """Adam (Kingma and Ba, ICLR 2015); the defaults are the paper's (Section 4.2)."""

    name: Literal["adam"] = "adam"
    weight_decay: Number = Field(default=0.0, ge=0)
    """Factor of an L2 penalty, whose gradient is added to that of the loss."""


class AdamW(_Adaptive):
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019)."""

    name: Literal["adamw"]
    """It has no default, so that it is part of a run's identity, as in every kind but the first."""
    weight_decay: Number = Field(default=0.01, ge=0)
    """The share of each weight that a step takes away, times the rate; the default is torch's."""


class SGD(_Optimizer):
    """Stochastic gradient descent, with momentum if asked for."""

    name: Literal["sgd"]
    lr: Number = Field(gt=0)
    momentum: Number = Field(default=0.0, ge=0, lt=1)
    nesterov: bool = False
    """Nesterov's momentum (Sutskever et al., ICML 2013)."""
    weight_decay: Number = Field(default=0.0, ge=0)
    """As that of `Adam`."""

    @model_validator(mode="after")
    def _has_momentum(self) -> "SGD":
        if self.nesterov and not self.momentum:
            raise InputError("nesterov is true, which needs a momentum above 0.")
        return self


class PluginOptimizer(_Model):
    """An optimizer of another package; every other key is an option of its class."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Option]

    name: str
    """``module:Class``, or a registered name."""
    lr: Number = Field(gt=0)

    @property
    def options(self) -> dict[str, Any]:
        """The options of its class apart from the rate."""
        return dict(self.__pydantic_extra__)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of its class."""
        return {"lr": self.lr, **self.options}


OPTIMIZER_KINDS: Mapping[str, type[_Optimizer]] = {"adam": Adam, "adamw": AdamW, "sgd": SGD}
"""By name, without those of other packages."""

_OPTIMIZER_NEEDED = "an optimizer whose name is adam, adamw, sgd or module:Class is needed"


def _optimizer_of(value: Any) -> str | None:
    name = _name_in(value, "adam")
    if not isinstance(name, str):
        return None
    return f"({name})" if name in OPTIMIZER_KINDS else "(plug-in)"


def _name_in(value: Any, default: str) -> Any:
    return value.get("name", default) if isinstance(value, Mapping) else getattr(value, "name", None)


Optimizer = Annotated[
    Annotated[Adam, Tag("(adam)")]
    | Annotated[AdamW, Tag("(adamw)")]
    | Annotated[SGD, Tag("(sgd)")]
    | Annotated[PluginOptimizer, Tag("(plug-in)")],
    Discriminator(_optimizer_of, custom_error_type="optimizer", custom_error_message=_OPTIMIZER_NEEDED),
]
"""How gradients become steps. Tags are in brackets, which tells them from fields in an error."""


class _Schedule(_Kind):
    _WHAT = "schedule"

    warmup: Whole = Field(default=0, ge=0, lt=2**63)
    """Steps in which the rate rises by equal amounts, up to that of the schedule in the last of them."""
    warmup_from: Number = Field(default=0.0, ge=0, lt=1)
    """Share of the schedule's rate from which it rises, and which no step has."""

    @model_validator(mode="after")
    def _warms_up(self) -> "_Schedule":
        if self.warmup_from and not self.warmup:
            raise InputError(f"warmup_from is {self.warmup_from:g}, which needs a warmup of 1 step or more.")
        return self


class Step(_Schedule):
    """A learning rate that is halved in steps; the default is the paper's (Section 4.2)."""

    name: Literal["step"] = "step"
    halve_every: LongCount = 200_000
    """Steps after which the rate is halved each time."""


class Milestones(_Schedule):
    """A learning rate that is multiplied by a factor at some steps."""

    name: Literal["milestones"]
    milestones: tuple[LongCount, ...] = Field(min_length=1)
    """Steps done before each change, in order."""
    gamma: Number = Field(default=0.1, gt=0, le=1)
    """The factor; the default is that of `torch.optim.lr_scheduler.MultiStepLR`."""

    @model_validator(mode="after")
    def _rise(self) -> "Milestones":
        if any(first >= second for first, second in pairwise(self.milestones)):
            raise InputError(f"milestones is {list(self.milestones)}; steps in rising order are needed, each once.")
        return self


class Cosine(_Schedule):
    """A learning rate that falls along half a cosine."""

    name: Literal["cosine"]
    final: Number = Field(default=0.0, ge=0, le=1)
    """The last rate as a share of the first."""


class Constant(_Schedule):
    """A learning rate that stays the same."""

    name: Literal["constant"]


SCHEDULES: Mapping[str, type[_Schedule]] = {
    "step": Step,
    "milestones": Milestones,
    "cosine": Cosine,
    "constant": Constant,
}
"""By name."""


def _schedule_of(value: Any) -> str | None:
    return f"({_name_in(value, 'step')})"


Schedule = Annotated[
    Annotated[Step, Tag("(step)")]
    | Annotated[Milestones, Tag("(milestones)")]
    | Annotated[Cosine, Tag("(cosine)")]
    | Annotated[Constant, Tag("(constant)")],
    Discriminator(
        _schedule_of,
        custom_error_type="schedule",
        custom_error_message=f"a schedule whose name is {', '.join([*SCHEDULES][:-1])} or {[*SCHEDULES][-1]} is needed",
    ),
]
"""The learning rate as a function of the step; tags are in brackets as those of `Optimizer`."""


class Window(_Model):
    """Sub-images of the training photographs, in HR pixels; the defaults are the usual cut of DIV2K."""

    size: LongCount = 480
    step: LongCount = 240


class Init(_Model):
    """The weights with which training starts."""

    name: str = Field(min_length=1)
    """A checkpoint's path or URI, or ``run:ID``; on record with a run, only the file's name. It is not identity."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Hash of the tensors that the network starts with, by its own names for them; None until they have been read.

    A file of that name in a results store holds them, so whatever has the hash needs the checkpoint no longer.
    """
    drawn: tuple[str, ...] = ()
    """The network's tensors that the checkpoint does not give, which are drawn from the seed; the hash implies them."""

    @classmethod
    def _key(cls) -> str:
        return "key of 'init'"


def _named_init(value: object) -> object:
    if isinstance(value, str | os.PathLike) and (name := os.fspath(value)):
        return {"name": name}
    if value is not None and not isinstance(value, Mapping | Init):
        raise ValueError("a checkpoint's path or URI, or run:ID, is needed")
    return value


class Recipe(_Model):
    """How a network is trained, apart from the network, the loss and the seed. All but `max_hours` is identity."""

    scale: Literal[2, 3, 4] = 4
    degradation: Degradation = Degradation()
    optimizer: Optimizer = Adam()
    schedule: Schedule = Step()
    steps: LongCount = 500_000
    """Optimiser steps; the paper does not state its number."""
    batch: Count = 16
    """Patches per step, over all workers together."""
    accumulate: Count = 1
    """Parts in which a worker computes its patches of a step one after another, for less memory."""
    clip_norm: Number | None = Field(default=None, gt=0)
    """Largest norm of the gradient of all the network's parameters together; None means any."""
    ema: Number | None = Field(default=None, gt=0, lt=1)
    """Decay of an exponential moving average of the weights, which is what is scored; None means no average."""
    patch: Whole = Field(default=48, ge=8, lt=2**31)
    """Side of a patch in LR pixels."""
    window: Window | None = None
    """Draw patches from sub-images; None means from whole images."""
    augment: bool = True
    """Rotations by 90, 180 and 270 degrees and flips."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the network's forward and backward pass; losses and weights are always fp32."""
    memory_format: Literal["channels_last", "contiguous"] = "channels_last"
    threads: Count = 1
    """CPU threads per worker; the rounding of convolutions depends on it."""
    deterministic: bool = True
    compiled: bool = False
    """Whether torch.compile makes fewer and larger kernels of the network; it needs a C++ compiler on every node."""
    init: Annotated[Init | None, BeforeValidator(_named_init)] = None
    """The weights with which training starts; None means that all are drawn from the seed."""
    init_partial: bool = False
    """Whether ``init`` may give only some of them, as that of another scale; what it gives is what the hash is of."""
    max_hours: Number | None = Field(default=None, gt=0)
    """Hours of training, interruptions not counted, after which a run ends at a checkpoint; None means any."""

    def at_rate(self, rate: float | None) -> "Recipe":
        """Return it with another learning rate; None is its own."""
        if rate is None:
            return self
        return self.model_copy(update={"optimizer": self.optimizer.model_copy(update={"lr": rate})})


class TrainingData(_Model):
    """The training images of a run."""

    name: str
    """The set's name; not part of the identity."""
    sha256: str | None = None
    """Hash of the packed pixels; None until the data is available locally."""
    of: tuple[str, ...] = ()
    """Known sets among its parts, if it has several; not part of the identity."""

    @property
    def sets(self) -> tuple[str, ...]:
        """The names by which the catalogue may know its images."""
        return (self.name, *self.of)


_NO_IDENTITY: Any = {
    "varied": True,
    "train": {"name", "of"},
    "recipe": {"init": {"name", "drawn"}, "init_partial": True},
}
"""Fields of a run that its id does not depend on: names of what is hashed, what follows from a hash, and `varied`."""


class RunSpec(_Model):
    """One network trained once; the names that it holds are canonical and are not looked up."""

    backbone: str = Field(min_length=1)
    loss: Loss
    seed: Seed
    train: TrainingData
    recipe: Recipe = Recipe()
    varied: str | None = None
    """The term whose coefficient is λ, without it, as in ``sg(order=1)``; λ = 0 drops it from the loss. None means what
    is called ``sg``. The sweep decides, so it is not identity."""

    @property
    def run_id(self) -> str | None:
        """First 12 hex digits of the SHA-256 of the run's identity; None while data or first weights are not hashed.

        Only fields that differ from their defaults enter, so that a field added later changes no id.
        """
        return self._digest()

    @property
    def conditions(self) -> str | None:
        """A hash, as `run_id`, of what it shares with runs that it is compared with: all but backbone, loss, seed."""
        return self._digest("backbone", "loss", "seed")

    def _digest(self, *without: str) -> str | None:
        """Return the digest of the run's identity, without some fields."""
        if self.train.sha256 is None or (self.recipe.init and self.recipe.init.sha256 is None):
            return None
        unlimited = self.model_copy(update={"recipe": self.recipe.model_copy(update={"max_hours": None})})
        identity = unlimited.model_dump(mode="json", exclude_defaults=True, exclude=_NO_IDENTITY)
        identity["spec_version"] = SPEC_VERSION
        fixed = {key: value for key, value in identity.items() if key not in without}
        return hashlib.sha256(canonical_json(fixed).encode()).hexdigest()[:12]

    def called(self, loss: str) -> str:
        """Return what it is called, with a name for its loss."""
        return f"{self.backbone} · {loss} · seed {self.seed}"

    @property
    def lam(self) -> float:
        """λ: the coefficient of the varied term in the loss, 0 if it has none."""
        if self.varied is None:
            return self.loss.weight_of("sg")
        return math.fsum(term.weight for term in self.loss.terms if term.call == self.varied)

    def __str__(self) -> str:
        return self.called(str(self.loss))


class Grid(_Model):
    """Every combination of some backbones, losses, λ and seeds."""

    backbones: tuple[NamedBackbone, ...] = Field(min_length=1)
    losses: tuple[NamedLoss, ...] = Field(min_length=1)
    lambdas: Lambdas | None = None
    """Coefficients for the term that a loss has λ with, or else for ``sg`` in each loss that has it; or, by the name of
    a term, for λ or the coefficient of that term in each loss that has it. 0 is the loss without the term."""
    seeds: Seeds = (0,)
    rate: Number | None = Field(default=None, gt=0)
    """Learning rate of these runs in place of the recipe's, as for losses whose rates have been tuned."""

    def with_lambdas(self) -> list[tuple[Expression, str | None]]:
        """Return each loss with each λ, once, and what is varied in it: `RunSpec.varied`.

        Raises:
            InputError: If λ is open and not given, given where there is nothing to vary, or ambiguous.
        """
        found: dict[Expression, str | None] = {}
        used = set[str]()
        for loss in self.losses:
            if isinstance(varied := self.varied(loss), Expression):
                found.setdefault(varied, None)
                continue
            family, lambdas = varied
            used.add(family.varied.name)
            for each in map(family.at, lambdas):
                found[each] = found.get(each) or family.called
        if isinstance(self.lambdas, Mapping):
            lacking = [f"a term {quoted(name)}" for name in self.lambdas if name not in used]
        else:
            lacking = ["a term 'sg' or λ"] if self.lambdas and not used else []
        if lacking:
            losses = ", ".join(map(str, self.losses))
            raise InputError(f"lambdas are given and none of the losses {losses} has {lacking[0]}.")
        return list(found.items())

    def varied(self, loss: OpenLoss) -> Expression | tuple[Family, Weights]:
        """Return a loss in which nothing is varied, or the family of one in which λ is, with the values of λ."""
        if isinstance(self.lambdas, Mapping):
            given = self.lambdas
        else:
            given = {loss.varied.name if isinstance(loss, Family) else "sg": self.lambdas} if self.lambdas else {}
        if isinstance(loss, Family):
            if loss.varied.name not in given:
                raise InputError(
                    f"loss {quoted(str(loss))} leaves λ open; give its values, as in --lambda 0,0.1,1 or "
                    "lambdas: [0, 0.1, 1]."
                )
            return loss, given[loss.varied.name]
        families = [(family, values) for name, values in given.items() if (family := loss.varying(name))]
        if len(families) > 1:
            terms = " and ".join(quoted(family.varied.name) for family, _ in families)
            raise InputError(f"λ is ambiguous in {quoted(str(loss))}: values are given for {terms}; give those of one.")
        return families[0] if families else loss

    def labels(self) -> Iterator[tuple[str, str]]:
        """Yield each loss that is given a label, and that label; of several λ, it says which."""
        for loss in (loss for loss in self.losses if loss.label):
            if isinstance(varied := self.varied(loss), Expression):
                yield str(loss), str(loss.label)
                continue
            family, lambdas = varied
            for lam in filter(None, lambdas):  # λ = 0 is the loss without the term, which is another
                label = str(loss.label)
                yield str(family.at(lam)), expression.label_at(label, lam) if len(lambdas) > 1 else label


HELD_OUT = "held-out"
"""The validation set of the images that a split has held out of the training set."""


class Validation(_Model):
    """How runs are validated while they train. It costs time and changes no bit of a run, so it is not identity."""

    sets: tuple[str, ...] = Field(min_length=1)
    """Validation sets, written like test sets, or `HELD_OUT`; no image may be in the training set or a test set."""
    every: LongCount = 500
    """Steps between two validations; there is one more at the last step."""
    metrics: tuple[NamedMetric, ...] = Field(default=("psnr_y",), min_length=1)

    @field_validator("sets")
    @classmethod
    def _distinct(cls, sets: tuple[str, ...]) -> tuple[str, ...]:
        for reference in sets:
            packed_digest(reference)
        check_distinct(sets, "validation set")
        return sets


def _asked(value: object) -> object:
    return Question.read(value) if isinstance(value, str) else value


class Decide(_Model):
    """Questions for which a sweep adds seeds until they are decided. It changes no run, so it is not identity."""

    questions: tuple[
        Annotated[InstanceOf[Question], BeforeValidator(_asked), PlainSerializer(str, return_type=str)], ...
    ] = Field(min_length=1)
    """Such as ``l1 vs l1 + 1.0*sg on lpips_alex``; see `sgbench.spec.decisions.Question`."""
    max_seeds: Whole = Field(default=20, ge=2, le=1000)
    """The most seeds of a cell; those of the grids come first, then the numbers that follow."""
    alpha: Number = Field(default=0.05, ge=0.001, le=0.5)
    """Significance level of each question, over all its backbones and test sets."""
    g: Number = Field(default=4.0, gt=0)
    """Prior variance of the effect, in squared standard deviations of the seeds' differences: 4 expects an effect of
    about 2 standard deviations."""
    per_round: Count = 1
    """Seeds that each round after the first adds; with more, more devices have work, and some of it is not needed."""


def _ends(value: object) -> object:
    return read_range(value) if isinstance(value, str) else value


def _range(ends: tuple[float, float]) -> str:
    return ":".join(map("{:.15g}".format, ends))


class Tune(_Model):
    """How the settings of losses are searched, see `sgbench.spec.space`. It changes no run, so it is not identity."""

    trials: Count = 20
    """Trials of each loss with each backbone; fewer if it has fewer different settings."""
    search: Literal["random", "grid", "optuna"] = "random"
    """What suggests settings."""
    scheduler: Literal["none", "asha"] = "none"
    """What stops trials early, if anything."""
    by: NamedMetric | None = None
    """The metric of the validation by which the best trial is chosen; None is the first of ``validate.metrics``."""
    rate: Annotated[
        tuple[Annotated[Number, Field(gt=0)], Number] | None,
        BeforeValidator(_ends),
        PlainSerializer(lambda ends: ends and _range(ends), return_type=str | None),
    ] = None
    """A range for the learning rate, such as ``1e-4:1e-2``, which is then searched too; None is that of the recipe."""
    seed: Seed = 1000
    """With which trials are trained and settings are suggested; not one of the grids' seeds, with which what was chosen
    is trained."""
    batch: Count = 4
    """Trials of a loss that optuna suggests at once, without knowing the results of the others."""


class SweepSpec(_Model):
    """Which runs to do and how to score them; a preset or a file in YAML."""

    description: str = ""
    grids: tuple[Grid, ...] = Field(min_length=1)
    train: Annotated[str, BeforeValidator(as_text)]
    """Training data: a reference, see `sgbench.spec.reference`, also as a list or a mapping; or ``NAME=packed:DIGEST``,
    a packed set in the results store."""
    tests: tuple[str, ...] = Field(min_length=1)
    """Test sets, written like the training data."""
    metrics: tuple[NamedMetric, ...] = Field(min_length=1)
    validation: Validation | None = Field(default=None, alias="validate")
    """Written ``validate``; a field of that name would hide a method of pydantic's models."""
    decide: Decide | None = None
    """Questions for which seeds are added until they are decided; None means the seeds of the grids and no more."""
    tune: Tune | None = None
    """How ``sgbench tune`` searches the settings of the losses."""
    recipe: Recipe = Recipe()
    workers: Whole = Field(default=0, ge=0, lt=2**31)
    """Ray Train workers per run; 0 is one device inside the process that schedules the run."""
    gpus: Number = Field(default=1, gt=0, le=1)
    """GPUs per worker if the cluster has any; a fraction packs several small runs on one."""
    recompute: bool = False
    """Recompute activations in the backward pass (gradient checkpointing): less memory, more time, the same numbers."""
    checkpoint_seconds: Number = Field(default=10.0, ge=0)
    """Least time between two checkpoints of a run, and so about the most that a killed one loses."""
    track: NamedTrackers = ()
    """Where to show training curves, besides TensorBoard's files: one tracker, such as ``mlflow``, or a list."""

    @field_validator("train", "tests")
    @classmethod
    def _has_whole_digests(cls, references: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for reference in (references,) if isinstance(references, str) else references:
            packed_digest(reference)
        return references

    @field_validator("tests")
    @classmethod
    def _distinct(cls, tests: tuple[str, ...]) -> tuple[str, ...]:
        check_distinct(tests, "test set")
        return tests

    @field_validator("recipe", mode="wrap")
    @classmethod
    def _has_an_optimizer(cls, fields: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        named = _name_in(fields.get("optimizer"), "adam") if isinstance(fields, Mapping) else None
        if isinstance(named, str):
            check_optimizer(named)
        recipe = validate(fields)
        if isinstance(optimizer := recipe.optimizer, PluginOptimizer):
            checked = check_options(optimizer.name, optimizer.arguments)
            return recipe.model_copy(update={"optimizer": PluginOptimizer(name=optimizer.name, **checked)})
        return recipe

    @model_validator(mode="after")
    def _can_be_run(self) -> "SweepSpec":
        recipe = self.recipe
        if self.workers > recipe.batch:
            raise ValueError(f"workers is {self.workers}, which is more than the batch of {recipe.batch}")
        if recipe.accumulate > (share := recipe.batch // max(1, self.workers)):
            whose = f"the patches of a worker in a step, {share}" if self.workers > 1 else f"the batch of {share}"
            raise ValueError(f"recipe.accumulate is {recipe.accumulate}, which is more than {whose}")
        if recipe.schedule.warmup > recipe.steps:
            raise ValueError(
                f"recipe.schedule.warmup is {recipe.schedule.warmup}, which is more than the {recipe.steps} steps"
            )
        backbones = list(dict.fromkeys(backbone for grid in self.grids for backbone in grid.backbones))
        if recipe.init and len(backbones) > 1:
            raise ValueError(
                f"recipe.init gives the weights of one network, but the grids name {len(backbones)}, such as "
                f"'{backbones[0]}' and '{backbones[1]}'; choose one with --backbone"
            )
        if recipe.init_partial and not recipe.init:
            raise ValueError("recipe.init_partial is on, but recipe.init is not given")
        check_scorable(self.tests, self.metrics)
        if self.validation:
            check_scorable(self.validation.sets, self.validation.metrics)
        check_distinct(self.validation_sets, "validation set")  # also of what 'held-out' means
        tested = set(map(set_name, self.tests))
        for name in map(set_name, self.validation_sets):
            if name in tested:
                raise ValueError(f"{quoted(name)} is a validation set and a test set; validate on other images")
        self.labels()
        for grid in self.grids:
            grid.with_lambdas()
            for backbone in grid.backbones if self.recompute else ():
                if not hasattr(BACKBONES.load(split_backbone(backbone)[0]), "recomputed"):
                    raise ValueError(f"recompute is on and backbone '{backbone}' does not name its 'recomputed' blocks")
        self.asked()
        return self

    def sets(self) -> list[tuple[str, Literal["train", "test"]]]:
        """Return the references to its data sets, each with the part of the set that is meant.

        The training set comes first, then the test sets, then the validation sets, which are prepared like test sets.
        """
        return [(self.train, "train"), *((each, "test") for each in (*self.tests, *self.validation_sets))]

    @property
    def validation_sets(self) -> tuple[str, ...]:
        """The references to its validation sets.

        Raises:
            InputError: If images that are held out of the training set are to be used, and none are.
        """
        sets = self.validation.sets if self.validation else ()
        return tuple(held_out(self.train) if each == HELD_OUT else each for each in sets)

    def all_metrics(self) -> list[str]:
        """Return the metrics by which it scores and validates, each once."""
        return list(dict.fromkeys((*self.metrics, *(self.validation.metrics if self.validation else ()))))

    def losses(self) -> list[OpenLoss]:
        """Return the losses that its grids name, each once, before λ is varied."""
        return list(dict.fromkeys(loss for grid in self.grids for loss in grid.losses))

    def labels(self) -> dict[str, str]:
        """Return what losses are called in tables, by their text, as far as a label is given.

        Raises:
            InputError: If two losses have one label, or one has two.
        """
        labels: dict[str, str] = {}
        losses: dict[str, str] = {}
        for loss, label in (each for grid in self.grids for each in grid.labels()):
            if (other := losses.setdefault(label, loss)) != loss:
                raise InputError(f"label {quoted(label)} is given to two losses, {quoted(other)} and {quoted(loss)}.")
            if (other := labels.setdefault(loss, label)) != label:
                raise InputError(f"loss {quoted(loss)} is given two labels, {quoted(other)} and {quoted(label)}.")
        return labels

    def asked(self) -> list[Asked]:
        """Return the questions that it is to decide, with nothing left open.

        Raises:
            InputError: As `Asked.of`.
        """
        if not self.decide:
            return []
        runs = [(run.backbone, str(run.loss), run.seed) for run in self.runs(TrainingData(name=""))]
        scored = {metric: METRICS.load(metric).needs_hr for metric in self.metrics}
        sets = {
            metric: [set_name(each) for each in self.tests if not (needs_hr and lacks_hr(each))]
            for metric, needs_hr in scored.items()
        }
        most, labels = self.decide.max_seeds, self.labels()
        return [Asked.of(each, runs, most, labels=labels, sets=sets) for each in self.decide.questions]

    def named_runs(self, train: TrainingData) -> list[RunSpec]:
        """Return every run that the grids name, repetitions included, in order: seeds vary slowest.

        A first result for each combination comes before the second seed of any.
        """
        return [
            RunSpec(backbone=backbone, loss=loss, seed=seed, train=train, recipe=recipe, varied=varied)
            for grid in self.grids
            for recipe in [self.recipe.at_rate(grid.rate)]
            for seed in grid.seeds
            for backbone in grid.backbones
            for loss, varied in grid.with_lambdas()
        ]

    def runs(self, train: TrainingData) -> list[RunSpec]:
        """Return `named_runs` without repetitions; of equal runs, the first of a sweep's λ, if any, is kept."""
        found: dict[RunSpec, RunSpec] = {}
        for run in self.named_runs(train):
            same = run.model_copy(update={"varied": None})
            if found.setdefault(same, run).varied is None:
                found[same] = run
        return list(found.values())


def check_distinct(references: Sequence[str], what: str) -> None:
    """Refuse two sets of the same name, whose scores could not be distinguished.

    Args:
        references: The sets.
        what: What they are, such as ``test set``.

    Raises:
        InputError: With the name that is given twice.
    """
    for name, count in Counter(map(set_name, references)).items():
        if count > 1:
            raise InputError(f"{what} {quoted(name)} is given twice; give one of them another name, as in 'mine=DIR'.")


def check_scorable(references: Iterable[str], metrics: Sequence[str]) -> None:
    """Refuse a set without HR images if every metric needs them.

    Raises:
        InputError: Naming it.
    """
    lacking = [reference for reference in references if lacks_hr(reference)]
    if lacking and all(METRICS.load(metric).needs_hr for metric in metrics):
        raise InputError(
            f"{quoted(set_name(lacking[0]))} has no HR images, which every metric that is asked for needs "
            f"({shortened(', '.join(metrics))}); add one that 'sgbench metrics' marks with 'no HR', or one of your own."
        )


def build(fields: Mapping[str, Any], source: str, flags: Mapping[str, str] | None = None) -> SweepSpec:
    """Validate the fields of a sweep.

    Args:
        fields: The parsed YAML, with overrides applied.
        source: Where they come from, for messages: a preset's name or a file.
        flags: For fields that the command line gave, by name, what to call them in messages.

    Raises:
        InputError: With one sentence about the first field that is wrong.
    """
    try:
        return SweepSpec.model_validate(fields)
    except ValidationError as error:
        raise InputError(_sentence(error, source, flags or {})) from error


def read_setting(assignment: str) -> tuple[str, Any]:
    """Return the path and the value of ``a.b=value``; the value is read as YAML.

    Raises:
        InputError: If it is not of that form.
    """
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise InputError(f"--set {quoted(assignment)} is not of the form a.b=value, such as recipe.steps=500.")
    return path, read_yaml(text, f"--set {shortened(path)}: {quoted(text)}")


def override(fields: dict[str, Any], path: str, value: Any, called: str = "--set") -> None:
    """Set one field of a sweep, in place.

    Args:
        fields: Fields of the sweep.
        path: Such as ``recipe.steps``.
        value: Its value.
        called: Where it was given, for messages.

    Raises:
        InputError: If the path leads through something that has no fields.
    """
    called = f"{called} {shortened(path)}"
    *parents, last = path.split(".")
    place: Any = fields
    for key, field in zip(parents, path.split(".")[1:], strict=True):
        place = place[_index(place, key, called)] if isinstance(place, list) else place.setdefault(key, {})
        if not isinstance(place, dict | list):
            raise InputError(f"{called}: {quoted(key)} is a value and has no field {quoted(field)}.")
    if isinstance(place, list):
        place[_index(place, last, called)] = value
    else:
        place[last] = value


def _index(place: list[Any], key: str, called: str) -> int:
    if not (re.fullmatch("[0-9]{1,9}", key) and int(key) < len(place)):
        raise InputError(f"{called}: {quoted(key)} is not an index into a list of {len(place)}.")
    return int(key)


_NEEDED = {
    "bool_parsing": "true or false is needed",
    "bool_type": "true or false is needed",
    "dict_type": "a mapping such as {key: value} is needed",
    "model_type": "a mapping such as {key: value} is needed",
    "string_too_short": "it may not be empty",
    "string_type": "a text is needed",
    "too_short": "at least one is needed",
    "tuple_type": "a list is needed",
}
"""What pydantic says in the words of Python, by the kind of error."""


def _sentence(error: ValidationError, source: str, flags: Mapping[str, str]) -> str:
    """Turn pydantic's first complaint into one sentence naming the key, the value and what is valid."""
    first = error.errors()[0]
    where = path_of(first["loc"])
    if first["type"] == "missing":
        return f"{source}: {quoted(where)} is missing."
    cause = first.get("ctx", {}).get("error")
    if not where:  # of the sweep as a whole
        return f"{source}: {str(cause).rstrip('.')}."
    place = next((flags[str(part)] for part in first["loc"] if part in flags), f"{source}: {where}")
    if isinstance(cause, InputError):
        return f"{place}: {cause}"
    said = _NEEDED.get(first["type"]) or first["msg"][0].lower() + first["msg"][1:]
    message = str(cause) if cause is not None else said
    return f"{place} is {quoted(first['input'])}: {message}."


def path_of(location: Iterable[int | str]) -> str:
    """Return where pydantic found an error as a person writes it: ``recipe.schedule.final``."""
    return ".".join(part for part in map(str, location) if not part.startswith("("))
