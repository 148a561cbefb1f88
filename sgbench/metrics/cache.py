"""What is known of references, kept between evaluations within a budget of memory."""

from __future__ import annotations

import sys
import threading
from collections import UserDict
from collections.abc import Hashable
from typing import Any

BUDGET_BYTES = 512 << 20
"""AlexNet's feature maps take 40 bytes a pixel: those of 13 megapixels are kept, three times Set5 and Set14."""


class HrCache(UserDict[Hashable, Any]):
    """Views of references, by hash of the image and key of the view; see `sgbench.metrics.base.Image.view`.

    What does not fit is not kept: the largest entries are the first to go, and an entry that would be the largest does
    not come in. So the short vectors, which save as much work as large feature maps do, stay; and a data set that
    exceeds the budget keeps the part of it that fits, however often it is gone through. Several threads may use it.

    Args:
        budget: Bytes that arrays and tensors may take, on whatever device they are.
    """

    def __init__(self, budget: int = BUDGET_BYTES) -> None:
        super().__init__()
        self.budget = budget
        self._changing = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes that the entries take."""
        return sum(map(_nbytes, self.values()))

    def __setitem__(self, key: Hashable, value: Any) -> None:
        with self._changing:
            self.data[key] = value
            while self.nbytes > self.budget:
                del self.data[max(reversed(self.data), key=lambda each: _nbytes(self.data[each]))]


def _nbytes(value: Any) -> int:
    """Return the bytes of an array, a tensor or a tuple of such."""
    if isinstance(value, tuple):
        return sum(map(_nbytes, value))
    return int(getattr(value, "nbytes", sys.getsizeof(value)))
