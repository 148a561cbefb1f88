import pickle

import pytest

from sgbench.errors import InputError, NotFiniteError, unknown


def test_unknown_names_what_was_received_the_nearest_and_everything_valid():
    error = unknown("backbone", "edrs", ["rdn", "edsr"])
    assert isinstance(error, InputError)
    assert str(error) == "unknown backbone 'edrs': did you mean 'edsr'? Valid: edsr, rdn."


def test_unknown_does_not_guess_from_nothing_alike():
    assert str(unknown("loss", "zzz", ["l1", "sg"])) == "unknown loss 'zzz'; valid: l1, sg."


@pytest.mark.parametrize("value", ["NaN", "infinite"])
def test_not_finite_survives_the_way_between_processes(value):
    error = pickle.loads(pickle.dumps(NotFiniteError(812, value)))
    assert (str(error), error.step, error.value) == (f"loss is {value} at step 812", 812, value)
