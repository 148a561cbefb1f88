import pytest

from sgbench.core.errors import InputError
from sgbench.data import pair_by_name
from sgbench.data.pairing import LR_SUFFIXES

SUFFIXES = [suffix.format(scale=4) for suffix in LR_SUFFIXES]


@pytest.fixture
def folder(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path / name).touch()
        return tmp_path

    return make


@pytest.mark.parametrize("suffix", ["", "x4", "_x4", "X4", "_X4", "_LR", "_lr", "LR"])
def test_usual_suffixes_are_known(folder, suffix):
    where = folder(f"baby{suffix}.png", f"bird{suffix}.jpg")
    pairs = pair_by_name(["bird", "baby"], where, SUFFIXES)
    assert pairs == {"baby": where / f"baby{suffix}.png", "bird": where / f"bird{suffix}.jpg"}


def test_files_of_another_scale_and_names_that_only_begin_alike_are_passed_over(folder):
    where = folder("babyx2.png", "baby2.png", "bird.png", "x4.png")
    assert pair_by_name(["baby", "bir", ""], where, SUFFIXES) == {"": where / "x4.png"}


def test_earlier_suffixes_come_first(folder):
    where = folder("babyx4.png", "baby_LR.png")
    assert pair_by_name(["baby"], where, SUFFIXES) == {"baby": where / "babyx4.png"}
    assert pair_by_name(["baby"], where, ["_LR", "x4"]) == {"baby": where / "baby_LR.png"}


def test_an_ending_hr_may_be_missing_in_the_file(folder):
    where = folder("img_001_SRF_4_LR.png", "img_002_HR.png", "img_002.png")
    assert pair_by_name(["img_001_SRF_4_HR", "img_002_HR"], where, SUFFIXES) == {
        "img_001_SRF_4_HR": where / "img_001_SRF_4_LR.png",
        "img_002_HR": where / "img_002_HR.png",
    }


def test_two_files_of_one_name_are_refused(folder):
    with pytest.raises(InputError, match=r"'baby\.(png|bmp)' and 'baby\.(png|bmp)' in '.*' have the same name; remove"):
        pair_by_name(["bird"], folder("baby.png", "baby.bmp"), SUFFIXES)
