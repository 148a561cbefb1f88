"""The rules that ``TARGET`` keeps: run ``pytest`` in this folder."""

import pytest

from sgbench.testing import Check, checks


@pytest.mark.parametrize("check", checks("TARGET", patch=16), ids=str)
def test_it_keeps_the_rules(check: Check) -> None:
    """Try one of them."""
    check()
