import pickle

import pytest

from sgbench.core.errors import InputError, NotFiniteError, unknown


def test_unknown_names_what_was_received_the_nearest_and_everything_valid():
    error = unknown("backbone", "edrs", ["rdn", "edsr"])
    assert isinstance(error, InputError)
    assert str(error) == "unknown backbone 'edrs': did you mean 'edsr'? Valid: edsr, rdn."


@pytest.mark.parametrize(
    ("received", "valid", "meant"),
    [
        ("lpips", ["psnr_y", "lpips_vgg", "lpips_alex"], "'lpips_alex' or 'lpips_vgg'"),
        ("lpips", ["psnr_y", "lpips_alex"], "'lpips_alex'"),
        ("SET", ["Set5", "Set14", "Urban100"], "'Set14' or 'Set5'"),
        ("t", ["table5", "table3", "table2", "table1"], "'table1', 'table2' or 'table3'"),
        ("psnrs", ["psnr_y", "psnr_rgb"], "'psnr_y'"),
    ],
)
def test_unknown_suggests_what_begins_so_before_what_is_near(received, valid, meant):
    assert f"'{received}': did you mean {meant}? Valid: " in str(unknown("name", received, valid))


def test_unknown_does_not_guess_from_nothing_alike():
    assert str(unknown("loss", "zzz", ["l1", "sg"])) == "unknown loss 'zzz'; valid: l1, sg."
    assert str(unknown("loss", "", ["l1", "sg"])) == "unknown loss ''; valid: l1, sg."


@pytest.mark.parametrize("value", ["NaN", "infinite"])
def test_not_finite_survives_the_way_between_processes(value):
    error = pickle.loads(pickle.dumps(NotFiniteError(812, value)))
    assert (str(error), error.step, error.value) == (f"loss is {value} at step 812", 812, value)
