from collections.abc import Callable
from pathlib import Path

import pytest
from write_paths import DISKS, STORES, points_of


@pytest.mark.parametrize("path", [*STORES, *DISKS])
def test_whatever_is_cut_off_says_nothing_false_and_the_same_again_ends_it(
    path: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    points = points_of(path, tmp_path)
    record_property("points", points)
    assert points >= 4
