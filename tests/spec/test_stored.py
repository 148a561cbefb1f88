"""Reading what a file says of a run, wherever the code that it names is not."""

import json

import pytest

from sgbench.core.errors import InputError
from sgbench.spec import RunSpec, TrainingData
from sgbench.spec.expression import parse
from sgbench.spec.stored import find_loss, read_recipe, read_spec

ELSEWHERE = RunSpec(
    backbone="no_such_module:Net",
    loss=parse("l1 + 0.5*no_such_module:Edge(sigma=2.0)"),
    seed=3,
    train=TrainingData(name="demo", sha256="ab" * 32),
)
FIELDS = ELSEWHERE.model_dump(mode="json")


def test_a_specification_of_code_that_is_not_here_is_read_as_it_was_written():
    assert read_spec(FIELDS, "run 1") == read_spec(json.dumps(FIELDS), "run 1") == ELSEWHERE
    assert read_spec(FIELDS, "run 1").run_id == ELSEWHERE.run_id
    assert read_recipe(json.dumps({"recipe": FIELDS["recipe"]}), "run 1") == ELSEWHERE.recipe


@pytest.mark.parametrize("read", [read_spec, read_recipe])
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (FIELDS | {"recipe": {"stages": 2}}, "recipe: unknown key 'stages': did you mean 'steps'? Valid: "),
        (FIELDS | {"recipe": None}, "recipe: Input should be a valid dictionary or instance of Recipe."),
        ("{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)."),
        (None, "Input should be a valid dictionary or instance of "),
    ],
)
def test_one_that_cannot_be_read_is_one_sentence(read, spec, message):
    with pytest.raises(InputError) as error:
        read(spec, "run 1")
    assert str(error.value).startswith(f"run 1 has a specification that cannot be read: {message}")
    assert "\n" not in str(error.value)


STORED = ["l1", "l1 + 0.5*no_such:Edge(sigma=2.0)", "l1 + 1.0*sg", "l1 + 1.0*sg(order=1)", "{not: an expression}"]


@pytest.mark.parametrize(
    ("text", "loss"),
    [
        ("l1", "l1"),
        ("sg(order=2, eps=1e-8) + l1", "l1 + 1.0*sg"),
        ("sg(order=1.0) + 1*l1", "l1 + 1.0*sg(order=1)"),
        ("0.5*no_such:Edge(sigma=2) + l1", "l1 + 0.5*no_such:Edge(sigma=2.0)"),
        ("{not: an expression}", "{not: an expression}"),
        ("sg", "sg"),
        ("2*no_such:Other", "2.0*no_such:Other"),
    ],
)
def test_a_persons_spelling_is_found_among_the_losses_of_a_store(text, loss):
    assert find_loss(text, STORED) == loss


def test_an_option_that_a_built_in_loss_has_not_is_refused():
    with pytest.raises(InputError, match="unknown option of loss 'sg' 'odrer': did you mean 'order'"):
        find_loss("l1 + sg(odrer=1)", STORED)
