"""Errors that are shown to people: one sentence, never a traceback."""

import difflib
from collections.abc import Iterable

from sgbench.core.words import printable, quoted, shortened

_LONGEST = 290
"""Characters of a sentence at most."""


def sentence(text: str) -> str:
    """Return what is shown to a person on one line: printable, and without its middle if it is too long to be read."""
    return shortened(printable(" ".join(shortened(text, 10 * _LONGEST).split())), _LONGEST)


class InputError(ValueError):
    """Bad input from a person: a name, a value, a file or a folder.

    The message is one sentence that names the key, the value received and what would be valid. The command line
    prints it without a traceback and exits with code 2.
    """

    def __init__(self, text: str) -> None:
        super().__init__(sentence(text))


class MissingDataError(InputError):
    """A known data set is not available on this machine."""


class InterruptionError(RuntimeError):
    """A sweep ended early for a reason that is no run's fault.

    The message is one sentence that says what to do. The command line prints it without a traceback and exits with
    code 1.
    """

    def __init__(self, text: str) -> None:
        super().__init__(sentence(text))


class NotFiniteError(ArithmeticError):
    """A loss became NaN or infinite during training.

    Attributes:
        step: The first optimiser step, counted from 1, whose loss was not finite.
        value: ``"NaN"`` or ``"infinite"``.
    """

    def __init__(self, step: int, value: str) -> None:
        super().__init__(f"loss is {value} at step {step}")
        self.step = step
        self.value = value

    def __reduce__(self) -> tuple[type["NotFiniteError"], tuple[int, str]]:
        return type(self), (self.step, self.value)


def described(error: BaseException) -> str:
    """Return an exception's type and the first line of its message."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


_SUGGESTED = 3
"""Most names that are suggested because they begin with what was written."""


def unknown(kind: str, received: str, valid: Iterable[str]) -> InputError:
    """Build the error for a name that is not in a closed list, suggesting valid names that may have been meant.

    It suggests the names that begin with what was written, or else the nearest one.

    Args:
        kind: What the name stands for, such as ``"backbone"``.
        received: The name as the person wrote it.
        valid: Every name that would have been accepted.

    Returns:
        An `InputError` such as ``unknown backbone 'edrs': did you mean 'edsr'? Valid: edsr, rdn.``
    """
    names = sorted(map(printable, valid))
    received = shortened(received)
    by_case = {name.lower(): name for name in names}
    begun = [name for name in names if received and name.lower().startswith(received.lower())]
    nearest = difflib.get_close_matches(received.lower(), by_case, n=1, cutoff=0.6)
    meant = [quoted(name) for name in begun[:_SUGGESTED] or [by_case[close] for close in nearest]]
    either = " or ".join(filter(None, (", ".join(meant[:-1]), *meant[-1:])))
    hint = f": did you mean {either}? Valid" if either else "; valid"
    return InputError(f"unknown {kind} {quoted(received)}{hint}: {', '.join(names)}.")
