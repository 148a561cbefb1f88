"""Commands that read a store start without pandas, which takes a quarter of a second to load."""

import importlib.abc
import sys


class _NoPandas(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "pandas":
            raise ImportError("pandas is not loaded to find out whether a value is one of its own")


def skip_pandas() -> None:
    """Let pyarrow know that no value in this process is one of pandas.

    When pyarrow first converts a Python value, it loads pandas to recognise its objects, and remembers whether it
    could. A data frame that is asked for is made all the same: for that pyarrow tries again.
    """
    import pyarrow

    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pyarrow.array([])
    finally:
        sys.meta_path.remove(finder)
