import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from sgbench.backbones import build_backbone
from sgbench.core.errors import InputError
from sgbench.core.registry import BACKBONES
from sgbench.spec import (
    Degradation,
    Recipe,
    RunSpec,
    SweepSpec,
    TrainingData,
    build,
    canonical_json,
    check_backbone,
    check_loss,
    check_metrics,
    override,
    presets,
    read_setting,
    split_backbone,
)
from sgbench.spec.stored import read_spec

HASH = "0123456789abcdef" * 4
FIELDS = {"backbone": "edsr-tiny", "loss": "l1 + 1.0*sg", "seed": 0, "train": {"name": "demo", "sha256": HASH}}


class Backbone(nn.Module):
    sizes: ClassVar = {"wide": {}}

    def __init__(self, *, scale: int):
        super().__init__()


class Greedy(torch.optim.Optimizer):
    def __init__(self, params, lr, memory, rates=(0.5, 1.0), eps=1e-8, kind="fast"):
        super().__init__(params, {"lr": lr})


def run(**changes: Any) -> RunSpec:
    fields = FIELDS | changes
    return RunSpec.model_validate(fields | {"loss": check_loss(fields["loss"])})


def fields(**changes: Any) -> dict[str, Any]:
    grid = {"backbones": ["edsr-tiny"], "losses": ["l1"]}
    return {"grids": [grid], "train": "demo", "tests": ["demo"], "metrics": ["psnr_y"]} | changes


def test_importing_loads_no_torch():
    code = "import sys, sgbench.spec; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.filterwarnings("ignore::sgbench.core.errors.Note")
def test_metrics_may_have_short_names():
    validate = {"sets": ["held-out"], "metrics": ["ssim"]}
    spec = build(fields(metrics=["psnr", "lpips", "fid"], train="demo,split=0.2", validate=validate), "test")
    assert spec.all_metrics() == ["psnr_y", "lpips_alex", "fid", "ssim_y"]


# Identity


def test_the_identity_is_pinned():
    """Ids of finished runs must never change. A default that gets another meaning raises SPEC_VERSION instead."""
    recipe = {"steps": 1000, "optimizer": {"lr": 1e-3}, "schedule": {"name": "cosine"}, "window": {"size": 96}}
    identity = (
        '{"backbone":"edsr-tiny","loss":"l1 + 1.0*sg","recipe":{"optimizer":{"lr":0.001},"schedule":{"name":"cosine"},'
        '"steps":1000,"window":{"size":96}},"seed":0,"spec_version":1,"train":{"sha256":"' + HASH + '"}}'
    )
    assert run(recipe=recipe).run_id == hashlib.sha256(identity.encode()).hexdigest()[:12] == "772a7704ae73"
    assert run().run_id == "a93b41ff00c4"
    assert run(train={"name": "DF2K", "sha256": HASH, "of": ["DIV2K"]}).run_id == "a93b41ff00c4"


def test_no_id_has_changed():
    """Of specifications as 27d0b6c wrote them, which gave a schedule the fields of every schedule, with their ids."""
    for each in json.loads((Path(__file__).parent / "identities.json").read_text()):
        spec = read_spec(each["stored"], "a run")
        assert spec.run_id == each["run_id"]
        assert RunSpec.model_validate(spec.model_dump(mode="json")).run_id == each["run_id"]


def test_a_field_added_later_with_its_default_changes_no_id():
    class LaterDegradation(Degradation):
        noise: float = 0.0

    class LaterRecipe(Recipe):
        degradation: LaterDegradation = LaterDegradation()
        later: float | None = None

    class LaterRunSpec(RunSpec):
        recipe: LaterRecipe = LaterRecipe()
        student_of: str | None = None

    for recipe in ({}, {"steps": 7}, {"degradation": {"edges": "mirror"}}):
        assert LaterRunSpec.model_validate(FIELDS | {"recipe": recipe}).run_id == run(recipe=recipe).run_id
    for changed in ({"student_of": "x"}, {"recipe": {"later": 0.9}}, {"recipe": {"degradation": {"noise": 1.0}}}):
        assert LaterRunSpec.model_validate(FIELDS | changed).run_id != run().run_id


def test_defaults_that_are_spelled_out_change_no_id():
    assert run(recipe=Recipe().model_dump()).run_id == run().run_id
    assert RunSpec.model_validate_json(run().model_dump_json()).run_id == run().run_id


CHANGES = {
    "scale": 2,
    "degradation": {"edges": "mirror"},
    "degradation ": {"rounding": "once"},
    "optimizer": {"lr": 2e-4},
    "optimizer ": {"beta1": 0.5},
    "optimizer  ": {"beta2": 0.5},
    "optimizer   ": {"eps": 1e-6},
    "optimizer    ": {"weight_decay": 0.1},
    "optimizer     ": {"name": "adamw"},
    "optimizer      ": {"name": "sgd", "lr": 1e-4},
    "optimizer       ": {"name": "sgd", "lr": 1e-4, "momentum": 0.9},
    "optimizer        ": {"name": "sgd", "lr": 1e-4, "momentum": 0.9, "nesterov": True},
    "optimizer         ": {"name": "m:Lion", "lr": 1e-4},
    "optimizer          ": {"name": "m:Lion", "lr": 1e-4, "betas": [0.9, 0.99]},
    "schedule": {"name": "cosine"},
    "schedule ": {"halve_every": 1},
    "schedule  ": {"name": "cosine", "final": 0.1},
    "schedule   ": {"name": "constant"},
    "schedule    ": {"name": "milestones", "milestones": [3]},
    "schedule     ": {"name": "milestones", "milestones": [3], "gamma": 0.5},
    "schedule      ": {"warmup": 5},
    "schedule       ": {"warmup": 5, "warmup_from": 0.5},
    "steps": 1,
    "batch": 1,
    "accumulate": 2,
    "clip_norm": 1.0,
    "ema": 0.999,
    "patch": 32,
    "window": {},
    "window ": {"size": 96},
    "window  ": {"step": 96},
    "augment": False,
    "precision": "bf16",
    "memory_format": "contiguous",
    "threads": 2,
    "deterministic": False,
    "compiled": True,
    "init": {"name": "x2.pt", "sha256": HASH},
    "init ": {"name": "x2.pt", "sha256": HASH[::-1]},
}


def test_every_field_of_the_recipe_that_changes_weights_is_identity():
    implied = {"init_partial", "max_hours"}  # a hash implies the former, and the latter changes no weights
    assert {key.strip() for key in CHANGES} == set(Recipe.model_fields) - implied
    ids = {run(recipe={key.strip(): value}).run_id for key, value in CHANGES.items()}
    assert len(ids | {run().run_id}) == len(CHANGES) + 1
    assert run(recipe={"max_hours": 2}).run_id == run().run_id
    assert run(recipe={"steps": 1, "max_hours": 2}).run_id == run(recipe={"steps": 1}).run_id


def test_backbone_loss_seed_and_pixels_are_identity_and_the_name_of_the_data_is_not():
    changed = [
        run(backbone="edsr-light"),
        run(loss="l1"),
        run(loss="l1 + 1.0*sg(order=1)"),
        run(seed=1),
        run(train={"name": "demo", "sha256": HASH[::-1]}),
    ]
    assert len({spec.run_id for spec in [run(), *changed]}) == 6
    assert run(train={"name": "other", "sha256": HASH}).run_id == run().run_id


def test_without_hashed_data_or_first_weights_there_is_no_id():
    assert run(train={"name": "demo"}).run_id is None
    assert run(recipe={"init": "x2.pt"}).run_id is None


def test_of_first_weights_only_the_hash_is_identity():
    known = run(recipe={"init": {"name": "x2.pt", "sha256": HASH}})
    other = {"name": "run:0123456789ab", "sha256": HASH, "drawn": ["upsample.0.weight"]}
    assert run(recipe={"init": other, "init_partial": True}).run_id == known.run_id != run().run_id
    assert run(recipe={"init": None}).run_id == run().run_id


@pytest.mark.parametrize("loss", ["sg + l1", "l1+1*sg", "l1 + 0.5*sg + 0.5*sg(order=2)", "1.0*l1 + 1e0*sg(eps=1e-8)"])
def test_spellings_of_one_loss_are_one_run(loss):
    assert str(run(loss=loss).loss) == "l1 + 1.0*sg"
    assert run(loss=loss).run_id == run().run_id


def test_a_loss_with_lambda_0_is_the_loss_without_it():
    assert run(loss="l1 + 0*sg(operator=sobel)").run_id == run(loss="l1").run_id
    assert (run(loss="l1 + 0*sg").lam, run(loss="l1 + 0.25*sg").lam) == (0.0, 0.25)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"optimizer": {"beta1": 0}}, {"optimizer": {"beta1": 0.0}}),
        ({"optimizer": {"lr": 1}}, {"optimizer": {"lr": "1.0"}}),
        ({"schedule": {"name": "cosine", "final": 1}}, {"schedule": {"name": "cosine", "final": 1.0}}),
        ({"steps": 100}, {"steps": 100.0}),
        ({"optimizer": {"lr": 0.0001}}, {"optimizer": {"lr": 1e-4}}),
    ],
)
def test_spellings_of_one_number_are_one_run(one, other):
    assert run(recipe=one).run_id == run(recipe=other).run_id


def test_a_bare_family_is_its_paper_size():
    assert check_backbone("edsr") == check_backbone("edsr-paper") == "edsr-paper"


def test_a_backbone_given_by_its_module_has_one_name():
    target = f"{__name__}:Backbone"
    assert check_backbone(target) == check_backbone(f"{target}-wide") == f"{target}-wide"
    assert type(build_backbone(f"{target}-wide", 4)) is Backbone
    with pytest.raises(InputError, match="'paper'; valid: wide"):
        check_backbone(f"{target}-paper")
    for wrong in (f"{__name__}:run", f"{__name__}:HASH"):
        with pytest.raises(InputError, match=r"a class of torch\.nn\.Module is needed"):
            check_backbone(wrong)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.dictionaries(st.text(), c)))
def test_canonical_json_is_ascii_and_has_one_order(value):
    text = canonical_json(value)
    assert text.isascii()
    assert json.loads(text) == value
    assert canonical_json(json.loads(text, object_pairs_hook=lambda pairs: dict(reversed(pairs)))) == text


# The specification of a sweep


def test_what_a_sweep_may_say_is_kept():
    sweep = build(fields(workers=2, recipe={"steps": 5}, description="hello"), "file.yaml")
    assert (sweep.workers, sweep.recipe.steps, sweep.description) == (2, 5, "hello")
    assert sweep.grids[0].seeds == (0,)


@pytest.mark.parametrize(
    ("seeds", "numbers"),
    [("0-4", (0, 1, 2, 3, 4)), ("7, 0-2", (7, 0, 1, 2)), (["3-3", 9, "0-1"], (3, 9, 0, 1)), ([5], (5,)), ("8", (8,))],
)
def test_seeds_may_be_ranges(seeds: object, numbers: tuple[int, ...]):
    assert build(grid(seeds=seeds), "preset").grids[0].seeds == numbers


@pytest.mark.parametrize(
    ("losses", "lambdas", "labels"),
    [
        (["l1", "ours=sg + l1"], None, {"l1 + 1.0*sg": "ours"}),
        (["l1", {"loss": "sg + l1", "label": "ours = best"}], None, {"l1 + 1.0*sg": "ours = best"}),
        ([{"loss": "l1"}, "Ours (1) = sg(order=1)"], None, {"sg(order=1)": "Ours (1)"}),
        (["ours=l1 + 1.0*sg"], [0.5], {"l1 + 0.5*sg": "ours"}),
        (["l2", "ours=l1 + λ*sg"], [0, 0.1, 1], {"l1 + 0.1*sg": "ours (λ = 0.1)", "l1 + 1.0*sg": "ours (λ = 1)"}),
        (["l1 + λ*sg", "base=l1"], [0, 1], {"l1": "base"}),
        (["ours=l1 + ssim", "l1 + λ*sg"], [0.1, 1], {"l1 + 1.0*ssim": "ours"}),
        (["ours=l1 + ssim"], {"ssim": [2, 3]}, {"l1 + 2.0*ssim": "ours (λ = 2)", "l1 + 3.0*ssim": "ours (λ = 3)"}),
    ],
)
def test_a_loss_may_have_a_label_which_says_which_of_several_lambdas_it_is(losses: Any, lambdas: Any, labels: Any):
    sweep = build(grid(losses=losses) if lambdas is None else grid(losses=losses, lambdas=lambdas), "preset")
    assert sweep.labels() == labels
    assert build(sweep.model_dump(mode="json"), "preset").labels() == labels


def test_a_label_is_no_part_of_a_run():
    train = TrainingData(name="Mine", sha256=HASH)
    plain, called = (build(grid(losses=[loss]), "preset").named_runs(train) for loss in ("l1 + sg", "ours=l1 + sg"))
    assert plain == called
    assert [each.run_id for each in plain] == [each.run_id for each in called]
    assert [each.model_dump_json() for each in plain] == [each.model_dump_json() for each in called]


def test_losses_and_backbones_are_canonical_inside():
    sweep = build(fields(grids=[{"backbones": ["edsr"], "losses": ["sg + l1"]}]), "preset")
    assert (sweep.grids[0].backbones, *map(str, sweep.grids[0].losses)) == (("edsr-paper",), "l1 + 1.0*sg")


def grid(**changes: Any) -> dict[str, Any]:
    return fields(grids=[{"backbones": ["edsr-tiny"], "losses": ["l1"]} | changes])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            fields(metric=["fid"]),
            "unknown key 'metric': did you mean 'metrics'? Valid: checkpoint_seconds, decide, description, ",
        ),
        (grid(lamdas=[1]), "grids.0: unknown key 'lamdas': did you mean 'lambdas'? Valid: backbones, "),
        (fields(recipe={"stepz": 1}), "recipe: unknown key 'stepz': did you mean 'steps'? Valid: accumulate"),
        (
            fields(recipe={"optimizer": {"l_r": 1}}),
            "recipe.optimizer: unknown key of optimizer 'adam' 'l_r': did you mean 'lr'?",
        ),
        (
            fields(recipe={"schedule": {"every": 1}}),
            "recipe.schedule: unknown key of schedule 'step' 'every': did you mean 'halve_every'?",
        ),
        (fields(recipe={"degradation": {"edge": 1}}), "recipe.degradation: unknown key 'edge': did you mean 'edges'?"),
        (fields(recipe={"window": {"sice": 1}}), "recipe.window: unknown key 'sice': did you mean 'size'?"),
        (grid(lambdas=[0.1, -1]), "grids.0.lambdas.1 is -1: input should be greater than or equal to 0."),
        (grid(lambdas=[float("nan")]), "grids.0.lambdas.0 is nan: "),
        (grid(lambdas=["1e-400"]), "grids.0.lambdas.0: 1e-400 is too small to differ from 0."),
        (grid(lambdas=[]), "grids.0.lambdas is []: "),
        (grid(seeds=[-1]), "grids.0.seeds.0 is -1: "),
        (grid(seeds=[]), "grids.0.seeds is []: "),
        (grid(losses=["l1 + -1*sg"]), "grids.0.losses.0: loss 'l1 + -1*sg': the coefficient of 'sg' is -1; "),
        (grid(backbones=["edrs-tiny"]), "grids.0.backbones.0: unknown backbone 'edrs-tiny': did you mean 'edsr-tiny'?"),
        (grid(backbones=["edsr-small"]), "unknown size of backbone 'edsr' 'small'; valid"),
        (fields(metrics=["psnr_z"]), "metrics.0: unknown metric 'psnr_z': did you mean 'psnr_y'?"),
        (fields(tests=["Set5", "demo", "Set5=/data/Set5"]), "test set 'Set5' is given twice"),
        (fields(tests=[]), "tests is []: "),
        (fields(grids=[]), "grids is []: "),
        ({"grids": []} | {key: fields()[key] for key in ("tests", "metrics")}, "grids is []: "),
        (
            fields(recipe={"schedule": {"name": "cosine", "halve_every": 200_000}}),
            "recipe.schedule: unknown key of schedule 'cosine' 'halve_every'; valid: final, name, warmup, warmup_from.",
        ),
        (
            fields(recipe={"schedule": {"final": 0.0}}),
            "recipe.schedule: unknown key of schedule 'step' 'final'; valid: halve_every, name, warmup, warmup_from.",
        ),
        (
            fields(recipe={"schedule": {"name": "linear"}}),
            "{'name': 'linear'}: a schedule whose name is step, milestones, cosine or constant is needed.",
        ),
        (
            fields(recipe={"schedule": {"name": ["step"]}}),
            "{'name': ['step']}: a schedule whose name is step, milestones, cosine or constant is needed.",
        ),
        (
            fields(recipe={"schedule": 3}),
            "recipe.schedule is 3: a schedule whose name is step, milestones, cosine or constant is needed.",
        ),
        (fields(recipe={"schedule": {"halve_every": 0}}), "recipe.schedule.halve_every is 0: input should be greater"),
        (
            fields(recipe={"schedule": {"halve_every": 99999999999999999999}}),
            "recipe.schedule.halve_every is 99999999999999999999: input should be less than 9223372036854775808.",
        ),
        (fields(recipe={"batch": 2**31}), "recipe.batch is 2147483648: input should be less than 2147483648."),
        (fields(recipe={"optimizer": {"name": "sgd"}}), "'recipe.optimizer.lr' is missing."),
        (
            fields(recipe={"optimizer": {"name": "sdg", "lr": 1}}),
            "recipe: unknown optimizer 'sdg': did you mean 'sgd'? Valid: adam, adamw, sgd.",
        ),
        (
            fields(recipe={"optimizer": {"name": ["adam"]}}),
            "recipe.optimizer is {'name': ['adam']}: an optimizer whose name is adam, adamw, sgd or module:Class is",
        ),
        (
            fields(recipe={"optimizer": {"name": "adamw", "momentum": 0.9}}),
            "recipe.optimizer: unknown key of optimizer 'adamw' 'momentum'; valid: beta1, beta2, eps, lr, name, ",
        ),
        (
            fields(recipe={"optimizer": {"name": "sgd", "lr": 1, "nesterov": True}}),
            "recipe.optimizer: nesterov is true, which needs a momentum above 0.",
        ),
        (fields(recipe={"optimizer": {"name": "adamw", "weight_decay": -1}}), "recipe.optimizer.weight_decay is -1: "),
        (fields(recipe={"optimizer": {"name": "torch.optim:NAdam"}}), "'recipe.optimizer.lr' is missing."),
        (
            fields(recipe={"optimizer": {"name": "torch.optim:NAdam", "lr": 1, "beta": 1}}),
            "recipe: unknown option of optimizer 'torch.optim:NAdam' 'beta': did you mean 'betas'?",
        ),
        (
            fields(recipe={"optimizer": {"name": "torch.optim:NAdam", "lr": 1, "eps": "small"}}),
            "recipe: optimizer 'torch.optim:NAdam': eps is 'small'; a number is needed.",
        ),
        (
            fields(recipe={"optimizer": {"name": "torch.optim:NAdam", "lr": 1, "betas": {"first": 0.9}}}),
            "betas is {'first': 0.9}: a number, a text, true, false, null or a list of these is needed.",
        ),
        (
            fields(recipe={"optimizer": {"name": f"{__name__}:Greedy", "lr": 1}}),
            "Greedy' needs its option 'memory': recipe.optimizer.memory=….",
        ),
        (
            fields(recipe={"optimizer": {"name": f"{__name__}:Backbone", "lr": 1}}),
            "is a Backbone; a class of torch.optim.Optimizer is needed.",
        ),
        (
            fields(recipe={"schedule": {"name": "milestones", "milestones": [7, 5]}}),
            "recipe.schedule: milestones is [7, 5]; steps in rising order are needed, each once.",
        ),
        (
            fields(recipe={"schedule": {"name": "constant", "warmup_from": 0.1}}),
            "recipe.schedule: warmup_from is 0.1, which needs a warmup of 1 step or more.",
        ),
        (
            fields(recipe={"steps": 10, "schedule": {"warmup": 11}}),
            "recipe.schedule.warmup is 11, which is more than the 10 steps.",
        ),
        (
            fields(recipe={"batch": 7, "accumulate": 4}, workers=2),
            "recipe.accumulate is 4, which is more than the patches of a worker in a step, 3.",
        ),
        (
            fields(recipe={"batch": 7, "accumulate": 8}),
            "recipe.accumulate is 8, which is more than the batch of 7.",
        ),
        (fields(recipe={"ema": 1}), "recipe.ema is 1: input should be less than 1."),
        (fields(recipe={"ema": 0}), "recipe.ema is 0: input should be greater than 0."),
        (fields(recipe={"clip_norm": 0}), "recipe.clip_norm is 0: input should be greater than 0."),
        (fields(recipe={"max_hours": 0}), "recipe.max_hours is 0: input should be greater than 0."),
        (fields(recipe={"scale": 5}), "recipe.scale is 5: input should be 2, 3 or 4."),
        (fields(recipe={"steps": 0}), "recipe.steps is 0: "),
        (fields(recipe={"steps": 1.5}), "recipe.steps is 1.5: "),
        (fields(recipe={"patch": 4}), "recipe.patch is 4: "),
        (fields(recipe={"optimizer": {"lr": 0}}), "recipe.optimizer.lr is 0: "),
        (fields(recipe={"optimizer": {"beta2": 1}}), "recipe.optimizer.beta2 is 1: "),
        (fields(recipe=3), "recipe is 3: "),
        (fields(recipe={"init": 3}), "recipe.init is 3: a checkpoint's path or URI, or run:ID, is needed."),
        (fields(recipe={"init": ""}), "recipe.init is '': a checkpoint's path or URI, or run:ID, is needed."),
        (fields(recipe={"init": {"nam": "a"}}), "recipe.init: unknown key of 'init' 'nam': did you mean 'name'?"),
        (fields(recipe={"init": {"name": "a", "sha256": "../a"}}), "recipe.init.sha256 is '../a': string should match"),
        (fields(recipe={"init_partial": True}), "recipe.init_partial is on, but recipe.init is not given."),
        (
            fields(recipe={"init": "a.pt"}, grids=[*fields()["grids"], {"backbones": ["rdn-tiny"], "losses": ["l1"]}]),
            "recipe.init gives the weights of one network, but the grids name 2, such as 'edsr-tiny' and 'rdn-tiny'; ",
        ),
        (fields(workers=-1), "workers is -1: "),
        (fields(validate={"sets": ["a"], "evry": 1}), "validate: unknown key 'evry': did you mean 'every'?"),
        (fields(validate={"sets": ["a"], "every": 0}), "validate.every is 0: input should be greater than or equal"),
        (fields(validate={"every": 1}), "'validate.sets' is missing."),
        (fields(validate=5), "validate is 5: a mapping such as {key: value} is needed."),
        (fields(validate={"sets": "a"}), "validate.sets is 'a': a list is needed."),
        (
            fields(train="a=b,split=0.5", validate={"sets": ["held-out", "a=b,split=0.5,held-out"]}),
            "validation set 'a-held-out' is given twice",
        ),
        (fields(recipe={"init": "a", "init_partial": "2"}), "recipe.init_partial is '2': true or false is needed."),
        (fields(validate={"sets": ["a", "a=b"]}), "validate.sets: validation set 'a' is given twice"),
        (fields(validate={"sets": ["a", "demo=b"]}), "'demo' is a validation set and a test set; validate on other"),
        (fields(validate={"sets": ["held-out"]}), "nothing is held out of the training set 'demo': add ',split=0.05'."),
        (fields(validation={"sets": ["a"]}), "unknown key 'validation': did you mean 'validate'? Valid: "),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_with_its_place(wrong, message):
    with pytest.raises(InputError) as error:
        build(wrong, "preset quick")
    assert str(error.value).startswith("preset quick: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_tracker_that_is_named_twice_is_told_once():
    assert build(fields(track=["mlflow", "wandb", "mlflow"]), "mine.yaml").track == ("mlflow", "wandb")


def test_validation_is_no_identity_and_can_be_set_field_by_field():
    changed = fields()
    override(changed, "validate.sets", ["mine=photos"])
    override(changed, "validate.every", 7)
    sweep, data = build(changed, "mine.yaml"), TrainingData(name="demo", sha256=HASH)
    assert sweep.named_runs(data) == build(fields(), "mine.yaml").named_runs(data)
    assert build(sweep.model_dump(mode="json"), "again") == sweep
    assert sweep.sets()[-1] == ("mine=photos", "test")
    split = {"train": "demo,split=0.5", "validate": {"sets": ["held-out"]}}
    assert build(fields(**split), "mine.yaml").sets()[-1] == ("demo,split=0.5,held-out", "test")


def test_spellings_of_one_optimizer_of_another_package_are_one_run():
    """YAML reads 1e-8 as a text."""
    ids = set()
    for spelled in (
        {"memory": 3, "lr": 1e-3},
        {"memory": "3", "lr": "1e-3", "eps": "1e-8"},
        {"memory": 3, "lr": 0.001, "rates": [0.5, "1"], "kind": "fast"},
    ):
        sweep = build(fields(recipe={"optimizer": {"name": f"{__name__}:Greedy", **spelled}}), "preset")
        assert sweep.recipe.optimizer.arguments == {"memory": 3, "lr": 1e-3}
        assert build(sweep.model_dump(mode="json", by_alias=True), "again") == sweep
        ids |= {spec.run_id for spec in sweep.named_runs(TrainingData(name="demo", sha256=HASH))}
    assert len(ids) == 1


@pytest.mark.parametrize("key", ["grids", "train", "tests", "metrics"])
def test_a_missing_key_is_named(key):
    with pytest.raises(InputError, match=f"^mine.yaml: '{key}' is missing.$"):
        build({name: value for name, value in fields().items() if name != key}, "mine.yaml")


def test_a_specification_cannot_be_changed():
    with pytest.raises(ValidationError):
        run().seed = 1


def test_metrics_are_checked_by_name():
    assert check_metrics(["psnr_y", "fid"]) == ("psnr_y", "fid")
    with pytest.raises(InputError, match="unknown metric 'lpips_alx': did you mean 'lpips_alex'"):
        check_metrics(["psnr_y", "lpips_alx"])


# The runs of a sweep


def names(sweep: SweepSpec) -> list[tuple[str, str, int]]:
    runs = sweep.named_runs(TrainingData(name="demo", sha256=HASH))
    assert all(spec.recipe == sweep.recipe for spec in runs)
    return [(spec.backbone.removeprefix("edsr-"), str(spec.loss), spec.seed) for spec in runs]


def test_every_combination_comes_once_before_the_second_seed_of_any():
    sweep = build(grid(backbones=["edsr-tiny", "edsr-light"], losses=["l1", "l1+sg"], seeds=[3, 0]), "preset")
    each = [("tiny", "l1"), ("tiny", "l1 + 1.0*sg"), ("light", "l1"), ("light", "l1 + 1.0*sg")]
    assert names(sweep) == [(*combination, seed) for seed in (3, 0) for combination in each]


def test_lambda_varies_the_sg_of_each_loss_and_leaves_the_others_alone():
    losses = ["l1", "l1 + sg", "sg(operator=sobel) + 2*l1"]
    sweep = build(grid(losses=losses, lambdas=[0, 0.1, 1]), "preset")
    assert [loss for _, loss, _ in names(sweep)] == [
        "l1",  # of the first loss three times, and of the second with λ = 0
        "l1 + 0.1*sg",
        "l1 + 1.0*sg",
        "2.0*l1",
        "2.0*l1 + 0.1*sg(operator=sobel)",
        "2.0*l1 + 1.0*sg(operator=sobel)",
    ]


LAMBDAS = [0, 0.1, 1]


@pytest.mark.parametrize(
    ("losses", "lambdas", "expected"),
    [
        (["l1 + λ*ssim"], LAMBDAS, [("l1", "ssim", 0), ("l1 + 0.1*ssim", "ssim", 0.1), ("l1 + 1.0*ssim", "ssim", 1)]),
        (["l2 + lambda*ssim + 0.5*sg"], [2], [("l2 + 0.5*sg + 2.0*ssim", "ssim", 2)]),
        (["0.5*l1 + λ*sg"], [0.1], [("0.5*l1 + 0.1*sg", None, 0.1)]),
        (["sg + λ*sg(order=1)"], [0, 3], [("sg", "sg(order=1)", 0), ("sg + 3.0*sg(order=1)", "sg(order=1)", 3)]),
        (["l1 + 0.5*ssim", "l2"], {"ssim": [0, 1]}, [("l1", "ssim", 0), ("l1 + 1.0*ssim", "ssim", 1), ("l2", None, 0)]),
        (
            ["l1 + λ*ssim", "l1 + λ*l2"],
            {"ssim": [1], "l2": [2]},
            [("l1 + 1.0*ssim", "ssim", 1), ("l1 + 2.0*l2", "l2", 2)],
        ),
        (["l1 + sg + ssim"], LAMBDAS[1:], [("l1 + 0.1*sg + 1.0*ssim", None, 0.1), ("l1 + 1.0*sg + 1.0*ssim", None, 1)]),
        (["l1 + 0.1*ssim", "l1 + λ*ssim"], [0.1], [("l1 + 0.1*ssim", "ssim", 0.1)]),
    ],
)
def test_lambda_varies_what_is_open_or_named(losses, lambdas, expected):
    sweep = build(grid(losses=losses, lambdas=lambdas), "preset")
    runs = sweep.runs(TrainingData(name="demo", sha256=HASH))
    assert [(str(each.loss), each.varied, each.lam) for each in runs] == expected
    again = build(sweep.model_dump(mode="json"), "preset")
    assert again.runs(TrainingData(name="demo", sha256=HASH)) == runs


def test_what_is_varied_is_no_identity_and_a_run_is_done_once_whatever_varies_it():
    names_of = {"backbones": ["edsr-tiny"]}
    grids = [
        {**names_of, "losses": ["l1", "l1 + 0.5*ssim"]},
        {**names_of, "losses": ["l1 + λ*ssim"], "lambdas": [0, 0.5]},
        {**names_of, "losses": ["l1 + λ*l2"], "lambdas": [0]},
    ]
    sweep, data = build(fields(grids=grids), "preset"), TrainingData(name="demo", sha256=HASH)
    runs = sweep.runs(data)
    assert [(str(each.loss), each.varied) for each in runs] == [("l1", "ssim"), ("l1 + 0.5*ssim", "ssim")]
    assert [run.run_id for run in runs] == [each.run_id for each in sweep.named_runs(data)[:2]]
    assert run(loss="l1", varied="ssim").run_id == run(loss="l1").run_id


@pytest.mark.parametrize(
    ("losses", "lambdas", "message"),
    [
        (
            ["l1", "l1 + λ*ssim"],
            None,
            r"loss 'l1 \+ λ\*ssim' leaves λ open; give its values, as in --lambda 0,0.1,1 or",
        ),
        (["l1 + λ*ssim"], {"sg": [1]}, r"loss 'l1 \+ λ\*ssim' leaves λ open"),
        (["l1 + sg"], {"ssim": [1]}, r"none of the losses l1 \+ 1.0\*sg has a term 'ssim'\.$"),
        (["l1 + sg"], {"sg": [1], "l2": [1]}, r"none of the losses l1 \+ 1.0\*sg has a term 'l2'\.$"),
        (["l1 + ssim"], [1], r"none of the losses l1 \+ 1.0\*ssim has a term 'sg' or λ\.$"),
        (
            ["l1 + ssim + sg"],
            {"ssim": [1], "sg": [1]},
            "λ is ambiguous in .*: values are given for 'ssim' and 'sg'; give ",
        ),
        (["λ*ssim"], [0, 1], r"'λ\*ssim with λ = 0.0' has no term with a coefficient above 0"),
        (["l1 + λ*ssim"], {"ssim": [1, -1]}, r"lambdas.ssim.1 is -1: input should be greater than or equal to 0"),
        (["l1 + λ*ssim"], {"ssim": []}, r"lambdas.ssim is \[\]: at least one is needed"),
        (["l1 + λ*ssim"], {}, r"lambdas is {}: at least one is needed"),
        (["l1 + λ*ssim"], {"ssim": 1}, r"lambdas.ssim is 1: a list is needed"),
        (["l1 + λ*ssim"], 1, r"lambdas is 1: a list is needed"),
    ],
)
def test_lambda_that_is_not_clear_is_refused(losses, lambdas, message):
    with pytest.raises(InputError, match=message) as error:
        build(grid(losses=losses, lambdas=lambdas), "preset")
    assert len(str(error.value)) < 300


def test_a_run_that_two_grids_name_is_listed_by_both_under_one_id():
    tables = [
        {"backbones": ["edsr-tiny"], "losses": ["l1", "l1+sg"]},
        {"backbones": ["edsr-tiny"], "losses": ["l1 + sg"], "lambdas": [0, 1, 10]},
    ]
    runs = build(fields(grids=tables), "preset").named_runs(TrainingData(name="demo", sha256=HASH))
    assert [str(spec.loss) for spec in runs] == ["l1", "l1 + 1.0*sg", "l1", "l1 + 1.0*sg", "l1 + 10.0*sg"]
    assert len({spec.run_id for spec in runs}) == 3


def test_lambda_of_two_sg_terms_is_refused():
    with pytest.raises(InputError, match="λ is ambiguous"):
        build(grid(losses=["l1 + sg + sg(order=1)"], lambdas=[1]), "preset")


def test_a_run_says_what_it_is():
    assert str(run()) == "edsr-tiny · l1 + 1.0*sg · seed 0"


# --set


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("recipe.steps=5", ["recipe", "steps"], 5),
        ("recipe.optimizer.lr=1.0e-3", ["recipe", "optimizer", "lr"], 1e-3),
        ("recipe.window={size: 96, step: 48}", ["recipe", "window"], {"size": 96, "step": 48}),
        ("train=Photos=/a=b", ["train"], "Photos=/a=b"),
        ("grids.0.seeds=[1, 2]", ["grids", 0, "seeds"], [1, 2]),
        ("grids.0.losses.0=l1 + sg", ["grids", 0, "losses", 0], "l1 + sg"),
        ("recipe.augment=false", ["recipe", "augment"], False),
        ("description=", ["description"], None),
    ],
)
def test_set_changes_one_field(assignment, path, value):
    changed = fields()
    override(changed, *read_setting(assignment))
    place: Any = changed
    for key in path:
        place = place[key]
    assert place == value


def test_set_reaches_into_what_earlier_sets_made():
    changed = fields()
    for assignment in ["recipe.schedule.name=cosine", "recipe.schedule.final=0.1", "tests.0=Set5", "recipe.scale=2"]:
        override(changed, *read_setting(assignment))
    sweep = build(changed, "preset")
    assert (sweep.recipe.schedule.name, sweep.recipe.schedule.final, sweep.recipe.scale) == ("cosine", 0.1, 2)
    assert sweep.tests == ("Set5",)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("recipe.steps", "--set 'recipe.steps' is not of the form a.b=value, such as recipe.steps=500."),
        ("=5", "--set '=5' is not of the form a.b=value, such as recipe.steps=500."),
        (
            "recipe.steps={",
            "--set recipe.steps: '{' is not valid YAML: line 1: expected the node content, but found '<stream end>'.",
        ),
        ("train.folder=x", "--set train.folder: 'train' is a value and has no field 'folder'."),
        ("train.folder.name=x", "--set train.folder.name: 'train' is a value and has no field 'folder'."),
        ("tests.1=Set5", "--set tests.1: '1' is not an index into a list of 1."),
        ("tests.first=Set5", "--set tests.first: 'first' is not an index into a list of 1."),
        ("grids.1.seeds=[0]", "--set grids.1.seeds: '1' is not an index into a list of 1."),
        ("grids.-1.seeds=[0]", "--set grids.-1.seeds: '-1' is not an index into a list of 1."),
        ("grids.seeds=[0]", "--set grids.seeds: 'seeds' is not an index into a list of 1."),
        ("grids.seeds.0=5", "--set grids.seeds.0: 'seeds' is not an index into a list of 1."),
        ("grids.².seeds=[0]", "--set grids.².seeds: '²' is not an index into a list of 1."),
    ],
)
def test_a_bad_set_is_one_sentence(assignment, message):
    with pytest.raises(InputError) as error:
        override(fields(), *read_setting(assignment))
    assert str(error.value) == message


def test_a_misspelt_set_is_told_the_right_name_when_the_sweep_is_built():
    changed = fields()
    override(changed, "recipe.optimiser.lr", 1)
    with pytest.raises(InputError, match=r"recipe: unknown key 'optimiser': did you mean 'optimizer'"):
        build(changed, "preset quick")


def test_every_preset_is_valid():
    for name in presets.names():
        build(presets.load(name)[1], name).named_runs(TrainingData(name="demo"))


def test_a_registered_family_may_have_a_dash_and_sizes_of_its_own(monkeypatch):
    monkeypatch.setitem(BACKBONES._loaded, "my-net", Backbone)
    assert check_backbone("my-net") == check_backbone("my-net-wide") == "my-net-wide"
    assert split_backbone("my-net-wide") == ("my-net", "wide")
    assert split_backbone("edsr-tiny") == ("edsr", "tiny")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"workers": 64}, "workers is 64, which is more than the batch of 16"),
        (
            {"recompute": True, "grids": [{"backbones": ["torch.nn:Identity"], "losses": ["l1"]}]},
            "recompute is on and backbone 'torch.nn:Identity' does not name its 'recomputed' blocks",
        ),
        (
            {"recipe": {"optimizer": {"lr": float("inf")}}},
            "recipe.optimizer.lr is inf: input should be a finite number",
        ),
        (
            {"grids": [{"backbones": ["edsr-tiny"], "losses": ["sg"], "lambdas": [0]}]},
            "has no term with a coefficient above 0",
        ),
        ({"metrics": ["os:path"]}, "makes of a function, is needed"),
        (
            {"grids": [{"backbones": ["edsr-tiny"], "losses": ["l1", "l2"], "lambdas": [1]}]},
            "lambdas are given and none of the losses l1, l2 has a term 'sg'",
        ),
    ],
)
def test_what_can_never_run_is_refused_at_once(change, sentence):
    grids = [{"backbones": ["edsr-tiny"], "losses": ["l1"]}]
    fields = {"grids": grids, "train": "demo", "tests": ["demo"], "metrics": ["psnr_y"]}
    with pytest.raises(InputError, match=re.escape(sentence)):
        build(fields | change, "mine")
