"""The grammar of references to data sets."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgbench.core.errors import InputError
from sgbench.spec import Reference, SweepSpec, build, held_out, set_name
from sgbench.spec.reference import as_text

FIELDS = {
    "grids": [{"backbones": ["edsr-tiny"], "losses": ["l1"]}],
    "tests": ["demo"],
    "metrics": ["psnr_y"],
}


def sweep(train: Any) -> SweepSpec:
    return build({**FIELDS, "train": train}, "mine.yaml")


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("DIV2K", ()),
        ("mine=DIR", ("DIR",)),
        ("DF2K=DIV2K+Flickr2K=/a/b", ("DIV2K", "Flickr2K=/a/b")),
        ("mine=/a/c++++", ("/a/c++",)),
        ("mine=a+++b", ("a+", "b")),
        ("mine=/a,b/x=1", ("/a,b/x=1",)),
    ],
)
def test_places_are_separated_by_a_plus_and_a_doubled_one_is_part_of_a_path(text: str, places: tuple[str, ...]) -> None:
    assert Reference.read(text).places == places


def test_options_follow_in_any_order_and_are_of_the_whole_set() -> None:
    asked = Reference.read("mine=a+b,lr=c+d,split=1/20,recursive")
    assert (asked.places, asked.lr_folders) == (("a", "b"), ("c", "d"))
    assert (asked.recursive, asked.share, asked.held_out) == (True, Fraction(1, 20), False)
    assert Reference.read("DIV2K,split=0.05").share == asked.share
    other = Reference.read(held_out("DIV2K,split=0.05,lr"))
    assert (other.held_out, other.lr, set_name(other.text)) == (True, True, "DIV2K-held-out")


@pytest.mark.parametrize(
    ("train", "text"),
    [
        (["DIV2K", "Flickr2K=/a"], "DIV2K-Flickr2K=DIV2K+Flickr2K=/a"),
        (["mine=a", "mine=b"], "mine=mine=a+mine=b"),
        (["a=x,lr=y", "b=z,lr=w,recursive"], "a-b=a=x+b=z,recursive,lr=y+w"),
        (["mine=a+b", "c=d,split=.1"], "mine-c=a+b+c=d,split=.1"),
        (["mine=DIR"], "mine=DIR"),
        ({"name": "DIV2K", "split": 0.05, "lr": True}, "DIV2K,split=0.05,lr"),
        ({"name": "x", "of": ["DIV2K", "/a+b", "+c"], "recursive": True}, "x=DIV2K+/a++b+./++c,recursive"),
        ({"name": "x", "of": "a", "lr": "b", "recursive": False}, "x=a,lr=b"),
        ("DF2K=DIV2K+/a", "DF2K=DIV2K+/a"),
    ],
)
def test_a_file_may_give_a_list_or_a_mapping(train: Any, text: str) -> None:
    assert sweep(train).train == text
    assert sweep(train).model_dump(mode="json")["train"] == text


PATHS = st.lists(st.text("ab+=,./ ", min_size=1, max_size=6), min_size=1, max_size=3)


@given(PATHS, st.booleans(), st.none() | st.just("1/3"), PATHS | st.booleans())
def test_a_mapping_means_what_its_text_means(of: list[str], recursive: bool, split: str | None, lr: Any) -> None:
    fields = {"name": "x", "of": of, "recursive": recursive, "lr": lr} | ({"split": split} if split else {})
    try:
        asked = Reference.read(as_text(fields))
    except InputError:  # a path like an option, or folders that are not as many
        return
    plain = tuple(f"./{each}" if each.startswith("+") else each for each in of)
    assert (asked.places, asked.recursive, asked.split, asked.lr) == (plain, recursive, split, lr is not False)


@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        (
            {"name": "x", "form": ["a"]},
            "mine.yaml: train: unknown key of a data set 'form'; valid: lr, name, of",
        ),
        ({"of": ["a", "b"]}, "mine.yaml: train: name is None; a name of letters"),
        ({"name": "x", "of": [1]}, r"of is \[1\]; a folder or a list of folders is needed"),
        ({"name": "x", "of": "a", "recursive": "yes"}, "recursive is 'yes'; true or false is needed"),
        ({"name": "x", "of": "a", "split": 20}, "split is '20'; a share between 0 and 1 is needed, such as 0.05"),
        ({"name": "x", "of": "a", "split": "1/0"}, "split is '1/0'; a share between 0 and 1"),
        ({"name": "x", "of": "/a,lr"}, "'x=/a,lr' has a path that reads like an option"),
        (["a=x", 3], "3 is no part of a data set"),
        (["a=x,split=.1", "b=y,split=.2"], "split is given as '.1' and as '.2'; it is one for the whole set"),
        (["a=x,lr=y", "b=z"], "low-resolution files are given for a part of the images only"),
        (["a=x", "b=packed:" + 64 * "0"], "data set 'b=packed:0.*' is in a results store"),
        (7, "mine.yaml: train is 7: a text is needed"),
        (["a=x,split=.1,held-out", "b=y"], "is what is held out of a set and cannot be a part of another"),
        ([], "train: the list is empty"),
    ],
)
def test_what_is_no_set_is_refused_in_a_sentence(train: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as refused:
        sweep(train)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mine=a+", r"'mine=a\+' gives no folder after '\+'"),
        ("mine=a+b,lr=", "gives no folder after '='"),
        ("mine=a+b,lr=c", "gives 1 folder of low-resolution files for 2 of images"),
        ("mine=a,split=2", "split is '2'; a share between 0 and 1"),
        ("mine=a,split=0.0", "split is '0.0'"),
        ("mine=a,held-out", "asks for images that are held out and does not say which: add ',split=0.05'"),
        ("mine=a+b=packed:x", "has a packed set as a part"),
        ("DIV2K+Flickr2K", r"'DIV2K\+Flickr2K' names no data set: several need a name, as in 'NAME=DIV2K\+Flickr2K'"),
    ],
)
def test_a_reference_that_is_malformed_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Reference.read(text)


def test_nothing_is_held_out_without_a_split() -> None:
    for text in ("DIV2K", "DIV2K,split=0.05,held-out", "mine=packed:" + 64 * "0"):
        with pytest.raises(InputError, match="nothing is held out of the training set"):
            held_out(text)
