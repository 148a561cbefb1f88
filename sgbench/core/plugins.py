"""Running the code of plug-ins."""

import contextlib
import sys
from collections.abc import Iterator

from sgbench.core.errors import InputError, described


@contextlib.contextmanager
def foreign(what: str, *, exits: bool = False) -> Iterator[None]:
    """Run plug-in code: what it prints goes to standard error, and any failure becomes one sentence.

    Args:
        what: Begins that sentence, such as ``loss 'my_module:MyLoss'``.
        exits: Whether `SystemExit` counts as a failure; not in a worker, which Ray may end with it at any moment.

    Raises:
        InputError: If the code raises an exception.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except InputError as error:
        said = str(error).rstrip(".")
        raise InputError(f"{said}." if what in said else f"{what}: {said}.") from error
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and not exits:
            raise
        raise InputError(f"{what}: {described(error).rstrip('.')}.") from error
