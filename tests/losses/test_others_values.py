import json
from dataclasses import replace

import pytest
import references

from sgbench.core.registry import LOSSES
from sgbench.losses import build_loss
from sgbench.spec import check_loss
from sgbench.spec.expression import parse

PUBLISHED = json.loads(references.FILE.read_text(encoding="utf-8"))
ELSEWHERE = {"contextual", "contextual19", "dists", "gan", "lpips", "lpips_squeeze", "lpips_vgg", "vgg", "vgg19"}
"""Compared in `test_adversarial`, `test_perceptual` and `test_quality`, and in `perceptual/test_dists`."""


def name_of(text):
    return parse(text).terms[0].name


def test_every_built_in_loss_is_compared_with_the_code_of_others():
    assert {*map(name_of, PUBLISHED), *ELSEWHERE} == set(LOSSES._targets)


@pytest.mark.parametrize("text", PUBLISHED)
def test_it_differs_from_that_code_by_no_more_than_it_says(text):
    theirs, kind = PUBLISHED[text], LOSSES.load(name_of(text))
    loss, given = build_loss(check_loss(text)), references.batch(theirs["side"])
    ours = references.value_and_slopes(lambda sr: loss(replace(given, sr=sr))[0], given)
    assert theirs["reference"] == kind.reference
    assert references.difference(ours, (theirs["value"], theirs["slopes"])) <= kind.difference
