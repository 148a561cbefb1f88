"""Running the code of plug-ins."""

import contextlib
import threading
from collections.abc import Iterator

from sgbench.core.errors import InputError, described

FAULTS = (Exception, SystemExit)
"""What the code of plug-ins may raise as a fault of its own: ``sys.exit`` in it ends no command.

In a worker, Ray raises `SystemExit` too, but only in the main thread, in which no plug-in runs there.
"""


@contextlib.contextmanager
def foreign(what: str) -> Iterator[None]:
    """Run plug-in code: whatever it raises becomes one sentence, except for Ctrl-C.

    Args:
        what: Begins that sentence, such as ``loss 'my_module:MyLoss'``.

    Raises:
        InputError: If the code raises an exception.
    """
    try:
        yield
    except InputError as error:
        said = described(error)
        raise InputError(f"{said}." if what in said else f"{what}: {said}.") from error
    except (*FAULTS, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise  # other threads receive no signals
        raise InputError(f"{what}: {described(error).rstrip('.')}.") from error
