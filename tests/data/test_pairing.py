import pytest

from sgbench.core.errors import InputError
from sgbench.data import pair_by_name
from sgbench.data.pairing import LR_SUFFIXES, Pairing


def pairing(names, folder, suffixes=LR_SUFFIXES, scale=4) -> Pairing:
    return pair_by_name(names, folder, suffixes, scale)


def pair(*arguments) -> dict[str, object]:
    return pairing(*arguments).files


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
    assert pair(["bird", "baby"], where) == {"baby": where / f"baby{suffix}.png", "bird": where / f"bird{suffix}.jpg"}


def test_files_of_another_scale_and_names_that_only_begin_alike_are_passed_over(folder):
    where = folder("babyx2.png", "baby2.png", "bird.png", "x4.png")
    assert pair(["baby", "bir", ""], where) == {"": where / "x4.png"}


def test_earlier_suffixes_come_first(folder):
    where = folder("babyx4.png", "baby_LR.png")
    assert pair(["baby"], where) == {"baby": where / "babyx4.png"}
    assert pair(["baby"], where, ["_LR", "x4"]) == {"baby": where / "baby_LR.png"}


def test_an_ending_hr_may_be_missing_in_the_file(folder):
    where = folder("img_001_SRF_4_LR.png", "img_002_HR.png", "img_002.png")
    assert pair(["img_001_SRF_4_HR", "img_002_HR"], where) == {
        "img_001_SRF_4_HR": where / "img_001_SRF_4_LR.png",
        "img_002_HR": where / "img_002_HR.png",
    }


def test_two_files_of_one_name_are_refused(folder):
    with pytest.raises(InputError, match=r"'baby\.(png|bmp)' and 'baby\.(png|bmp)' in '.*' have the same name; remove"):
        pair(["bird"], folder("baby.png", "baby.bmp"))


# Longest common stems: names that public tools give their results

SET5 = ["baby", "bird", "butterfly", "head", "woman"]
SRF = [f"img_00{number}_SRF_4_HR" for number in (1, 2, 3)]
DIV2K = ["0801", "0802", "0810"]


@pytest.mark.parametrize(
    ("names", "written"),
    [
        (SET5, "{}_SwinIR"),  # SwinIR, HAT and what else is made with BasicSR
        (SET5, "{}_HR_x4_SR"),
        (SET5, "{}_out"),  # Real-ESRGAN
        (SET5, "{}_rlt"),  # ESRGAN
        (SET5, "{}x4_HAT-L_SRx4_ImageNet-pretrain"),
        (SET5, "{}-upscayl-4x-realesrgan"),
        (SET5, "{}(CUnet)(scale x4)"),  # waifu2x
        (SET5, "out_srf_4_{}"),
        (SET5, "SwinIR_{}_x4"),
        (DIV2K, "{}x4_edsr"),
        (DIV2K, "{}_x4_edsr"),
        (SRF, "img_00{number}_SRF_4_LR"),
        (SRF, "img_00{number}_SRF_4_SwinIR"),
        (SRF, "img_00{number}_SwinIR"),
        (SRF, "img_00{number}_SRF_4_HR_SwinIR"),
        (["babyx4", "birdx4"], "{stem}_SwinIR"),  # the images are low-resolution files
        (["baby", "baby_girl", "baby_girl_2"], "{}_SwinIR"),
    ],
)
def test_a_file_belongs_to_the_image_with_the_longest_common_stem(folder, names, written):
    made = {
        name: f"{written.format(name, number=number, stem=name[:4])}.png" for number, name in enumerate(names, start=1)
    }
    where = folder(*made.values(), "notes.png")
    found = pairing(names, where, [""])
    assert found.files == {name: where / file for name, file in made.items()}
    assert found.by_stem == tuple(names)
    assert found.unused == (where / "notes.png",)


def test_exact_names_come_first_and_keep_their_files(folder):
    where = folder("baby.png", "baby_SwinIR.png", "bird_SwinIR.png")
    found = pairing(["baby", "bird"], where)
    assert found.files == {"baby": where / "baby.png", "bird": where / "bird_SwinIR.png"}
    assert found.by_stem == ("bird",)
    assert found.unused == (where / "baby_SwinIR.png",)
    assert str(found) == "matched 1 of 2 by the longest common stem: bird_SwinIR.png → bird"
    exact = pairing(["baby"], where)
    assert (str(exact), exact.by_stem) == ("", ())


@pytest.mark.parametrize(
    "file", ["babys_SwinIR", "baby2_SwinIR", "my2baby_SwinIR", "bab_SwinIR", "baby_x2_SwinIR", "baby_2x", "babyx3_SR"]
)
def test_a_part_of_a_word_or_number_is_no_stem_and_another_scale_no_match(folder, file):
    assert pair(["baby"], folder(f"{file}.png")) == {}


def test_results_of_several_scales_may_lie_in_one_folder(folder):
    where = folder("baby_x2_SwinIR.png", "baby_x4_SwinIR.png", "baby_SRF_3_SwinIR.png")
    assert pair(["baby"], where) == {"baby": where / "baby_x4_SwinIR.png"}
    assert pairing(["baby"], where, scale=2).files == {"baby": where / "baby_x2_SwinIR.png"}


def test_a_number_is_matched_as_a_whole(folder):
    where = folder("img_0010_SR2.png", "img_001_SR2.png", "img_01_SR2.png")
    assert pair(["img_001", "img_0010"], where) == {
        "img_001": where / "img_001_SR2.png",
        "img_0010": where / "img_0010_SR2.png",
    }


def test_what_is_not_one_to_one_is_refused_by_name(folder):
    where = folder("baby_HAT.png", "baby_SwinIR.png")
    with pytest.raises(InputError, match=r"several files for image 'baby': baby_HAT.png, baby_SwinIR.png; leave one"):
        pair(["baby"], where)
    with pytest.raises(InputError, match=r"baby_HAT.png' may belong to baby_GT or baby_HR; give it the name of one"):
        pair(["baby_GT", "baby_HR"], where)
