"""What is said where there is no Ray to be had; none is started."""

import os
from typing import Any

import pytest
import ray

from sgbench.cluster import session
from sgbench.errors import InputError


def test_a_ray_that_does_not_start_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_slow(*_: Any, **__: Any) -> None:
        raise Exception("The current node timed out during startup.\nMore lines.")

    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(ray, "init", too_slow)
    with pytest.raises(InputError) as refused, session.connect(None):
        raise AssertionError("it was started")
    assert str(refused.value) == "Ray cannot be started: The current node timed out during startup."
