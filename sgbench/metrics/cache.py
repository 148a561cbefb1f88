"""A cache of what is computed of references, kept between evaluations within a memory budget."""

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

    When the budget is exceeded, the largest entries are evicted first, and an entry that would be the largest is not
    added. So short vectors, which save as much work as large feature maps, stay, and of a data set that exceeds the
    budget the part that fits stays, however often it is iterated over. Several threads may use it.

    Args:
        budget: Bytes that arrays and tensors may take, on whatever device they are.
    """

    def __init__(self, budget: int = BUDGET_BYTES) -> None:
        super().__init__()
        self.budget = budget
        self._changing = threading.Lock()
        self._sizes: dict[Hashable, int] = {}

    @property
    def nbytes(self) -> int:
        """Bytes that the entries take."""
        return sum(self._sizes.values())

    def __setitem__(self, key: Hashable, value: Any) -> None:
        with self._changing:
            self.data[key], self._sizes[key] = value, _nbytes(value)
            while self.nbytes > self.budget:
                largest = max(reversed(self._sizes), key=self._sizes.__getitem__)
                del self.data[largest], self._sizes[largest]


def _nbytes(value: Any) -> int:
    """Return the bytes of an array, a tensor or a tuple of such."""
    if isinstance(value, tuple):
        return sum(map(_nbytes, value))
    return int(getattr(value, "nbytes", sys.getsizeof(value)))
