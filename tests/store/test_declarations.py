import dataclasses
import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.spec import ALL_SETS, Question
from sgbench.store import Declaration, Store

NOW = datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC)
DECLARED = Declaration(
    question=Question("l1", "l1 + 1.0*sg", "psnr_y", ("Set5", ALL_SETS), 0.1),
    alpha=0.05,
    g=4.0,
    seeds=(3, 1, 2),
    looks=(2, 3),
    backbones=("edsr-tiny", "rdn-tiny"),
    tests=(("Set5", "5" * 64), ("Set14", "e" * 64)),
    conditions="0123456789ab",
    sweep="mine",
    declared=NOW,
)


def test_a_declaration_is_read_as_it_was_written_and_stays_as_it_was_first(tmp_path: Path) -> None:
    store = Store(Storage(str(tmp_path)))
    store.declare(DECLARED)
    store.declare(dataclasses.replace(DECLARED, sweep="other", declared=NOW + datetime.timedelta(days=1)))
    assert store.declarations() == [DECLARED]


def test_its_cells_are_those_of_its_question() -> None:
    """Set14 is only asked about together with Set5."""
    assert DECLARED.cells == {(name, test) for name in DECLARED.backbones for test in ("5" * 64, ALL_SETS)}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"tests": [["Set14", "e" * 64]]}, "it asks about Set5, whose pixels it does not name"),
        ({"alpha": 1.5}, "its alpha is 1.5 and its g 4"),
        ({"g": 0}, "its alpha is 0.05 and its g 0"),
        ({"looks": []}, "it needs looks after 2 seeds or more, and each seed once"),
        ({"seeds": [1, 1]}, "it needs looks after 2 seeds or more, and each seed once"),
        ({"backbones": None}, "TypeError"),
    ],
)
def test_a_file_that_declares_nothing_sensible_is_refused_in_a_sentence(
    tmp_path: Path, fields: dict[str, Any], why: str
) -> None:
    store = Store(Storage(str(tmp_path)))
    store.declare(DECLARED)
    (file,) = (tmp_path / "declared").glob("*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    with pytest.raises(InputError, match="is not what a sweep declared: ") as error:
        store.declarations()
    assert why in str(error.value)
