import pytest

from sgbench import presets
from sgbench.errors import InputError
from sgbench.spec import TrainingData, build

SWEEP = "grids: [{backbones: [edsr-tiny], losses: [l1]}]\ntrain: demo\ntests: [demo]\nmetrics: [psnr_y]\n"


def test_presets_are_listed_by_name():
    assert "quick" in presets.names()
    assert presets.names() == sorted(presets.names())


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_valid_and_describes_itself(name):
    short, fields = presets.load(name)
    assert short == name
    sweep = build(fields, name)
    assert sweep.description
    assert sweep.named_runs(TrainingData(name=sweep.train))


def test_quick_is_edsr_tiny_with_and_without_sg_for_two_seeds_on_the_demo_photographs():
    sweep = build(presets.load("quick")[1], "quick")
    runs = [(spec.backbone, spec.loss, spec.seed) for spec in sweep.named_runs(TrainingData(name="demo"))]
    assert sorted(runs) == [("edsr-tiny", loss, seed) for loss in ("l1", "l1 + 1.0*sg") for seed in (0, 1)]
    assert (sweep.train, sweep.tests) == ("demo", ("demo",))
    assert {"lpips_alex", "fid", "fd_alex", "psnr_y", "ssim_y"} <= set(sweep.metrics)


def test_loading_twice_gives_fields_of_ones_own():
    presets.load("quick")[1]["grids"].clear()
    assert presets.load("quick")[1]["grids"]


def test_a_file_of_ones_own_is_named_after_its_stem(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(SWEEP)
    name, fields = presets.load(str(file))
    assert name == "mine"
    assert build(fields, str(file)).train == "demo"


def test_an_unknown_preset_gets_the_nearest():
    with pytest.raises(InputError, match="unknown preset 'quik': did you mean 'quick'"):
        presets.load("quik")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SWEEP + "train: other\n", "is not valid YAML: .*key 'train' is given twice"),
        (SWEEP + "recipe: {steps: 1, steps: 2}\n", "key 'steps' is given twice"),
        ("a: [1", "is not valid YAML: "),
        ("- a\n- b\n", "holds list where the keys of a sweep are expected"),
        ("", "holds NoneType where the keys of a sweep are expected"),
        ("just text", "holds str where the keys of a sweep are expected"),
        ("!!python/object/apply:os.getcwd []", "is not valid YAML: .*could not determine a constructor"),
        ("[a, b]: 1\n", "is not valid YAML: .*unhashable key"),
        ("{a: 1}: 1\n", "is not valid YAML: .*unhashable key"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path, text, message):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        presets.load(str(file))
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, content):
    file = tmp_path / "mine.yaml"
    if content:
        file.write_bytes(content)
    with pytest.raises(InputError, match=f"sweep file '{file}' cannot be read: "):
        presets.load(str(file))
