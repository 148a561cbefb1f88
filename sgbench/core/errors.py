"""Errors that are shown to people: one sentence, never a traceback."""

import contextlib
import difflib
import errno
import os
import re
from collections.abc import Iterable, Iterator

from sgbench.core.words import MOST_QUOTED, printable, quoted, shortened, without_credentials

_LONGEST = 290
"""Characters of a sentence at most."""

_LONGEST_PATH = 200
"""Characters of a path that a sentence quotes at most, for a path without its middle leads nowhere."""


def sentence(text: str) -> str:
    """Return what is shown to a person on one line: printable, without passwords, and not too long to be read."""
    line = " ".join(shortened(text, 10 * _LONGEST).split())
    return shortened(printable(without_credentials(line)), _LONGEST)


class InputError(ValueError):
    """Bad input from a person: a name, a value, a file or a folder.

    The message is one sentence that names the key, the value received and what would be valid. The command line
    prints it without a traceback and exits with code 2.
    """

    def __init__(self, text: str) -> None:
        super().__init__(sentence(text))


class MissingDataError(InputError):
    """A known data set is not available on this machine."""


class Note(UserWarning):
    """How something that a person wrote was understood, which is no reason to worry.

    In Python it is a warning, shown once; the command line prints it after «note:».
    """


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


AGAIN = "run the same command again to resume"
"""What a person can do after a fault of storage or machine."""


def described(error: BaseException) -> str:
    """Return an exception's type and the first line of its message; of our own, the sentence without its period.

    URIs in it are without user and password, as it is stored with a run that fails.
    """
    try:
        lines = without_credentials(str(error)).splitlines()
    except Exception:  # what a plug-in raises may have no message that can be made
        lines = []
    if isinstance(error, InputError | InterruptionError) and lines:
        return lines[0].removesuffix(".")
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


_CREDENTIALS = "check the credentials, such as AWS_ACCESS_KEY_ID, and the rights to the bucket"

_OF_OBJECT_STORES = {
    "NO_SUCH_KEY": (errno.ENOENT, "there is no such file"),
    "NO_SUCH_BUCKET": (errno.ENXIO, "there is no such bucket"),
    "ACCESS_DENIED|AccessDenied": (errno.EACCES, f"access is denied; {_CREDENTIALS}"),
    "INVALID_ACCESS_KEY_ID|SIGNATURE_DOES|InvalidAccessKeyId|SignatureDoes": (
        errno.EACCES,
        f"the credentials are wrong; {_CREDENTIALS}",
    ),
    "ExpiredToken|InvalidToken": (errno.EACCES, f"the credentials have expired; {_CREDENTIALS}"),
    "REQUEST_TIME_TOO_SKEWED|RequestTimeTooSkewed": (
        errno.EACCES,
        "the clock of this machine differs too much from the server's",
    ),
    "status 301|configured region": (errno.ENXIO, "the bucket is in another region; give ?region=REGION in the URI"),
    "status( code:)? 400": (errno.EACCES, f"the server refuses the request, as with old credentials; {_CREDENTIALS}"),
    "status( code:)? 40[13]": (errno.EACCES, f"access is denied; {_CREDENTIALS}"),
    "NETWORK_CONNECTION|HTTP error": (errno.EHOSTUNREACH, "no connection to the server"),
    "SLOW_DOWN|INTERNAL_FAILURE|SERVICE_UNAVAIL|status( code:)? 5": (
        errno.EIO,
        "the server reports an error of its own",
    ),
}
"""What the messages of Arrow's and obstore's errors contain, which have no number: its number on a disk, and what it
means."""


def explained_by_store(message: str) -> tuple[int, str]:
    """Return the number and the reason of an error of an object store, by the message of Arrow or obstore."""
    for pattern, meaning in _OF_OBJECT_STORES.items():
        if re.search(pattern, message):
            return meaning
    lines = message.rpartition("operation: ")[2].splitlines() or ["unknown error"]
    return errno.EIO, shortened(lines[0].rstrip("."), 2 * MOST_QUOTED)


def explained(error: OSError) -> tuple[int, str]:
    """Return the number and the reason of an error of the system or of an object store, without a file's name."""
    message = str(error)
    if error.errno is not None:
        return error.errno, str((error.filename and error.strerror) or os.strerror(error.errno))
    if isinstance(error, FileNotFoundError):
        return errno.ENOENT, os.strerror(errno.ENOENT)
    if "AWS Error" in message:
        return explained_by_store(message)
    lines = message.splitlines() or [type(error).__name__]
    return errno.EIO, shortened(lines[0].rstrip("."), 2 * MOST_QUOTED)


def in_a_sentence(error: OSError) -> str:
    """Return an error of the system or of an object store in a sentence, which names the file if the error does."""
    named = "" if error.filename is None else f"{quoted(os.fsdecode(error.filename), _LONGEST_PATH)}: "
    return f"{named}{explained(error)[1]}."


_LOST_PROCESS = ("gloo/transport", "remote process exited")
"""Words in the errors of Gloo and NCCL when another process of the group is gone."""


def machine_fault(error: BaseException) -> str | None:
    """Return which fault of storage, network or machine an exception is, or None if another one.

    After such a fault, the same run may succeed. An `OSError` is one, because what the code of plug-ins raises is an
    `InputError`, see `sgbench.core.plugins.foreign`. So are a lack of memory, except on a GPU, which will be as small
    the next time, and in a group of processes the loss of another one, which has a reason of its own.
    """
    if isinstance(error, InterruptionError):
        return described(error)
    if isinstance(error, OSError):
        return in_a_sentence(error).removesuffix(".")
    lost = any(words in described(_origin(error)) for words in _LOST_PROCESS)
    return described(error) if lost or lacks_memory(error) else None


@contextlib.contextmanager
def resumable(what: str) -> Iterator[None]:
    """Let a fault of storage or machine end a command in a sentence.

    Args:
        what: What it ends, such as ``the sweep``.

    Raises:
        InterruptionError: For such a fault.
    """
    try:
        yield
    except InterruptionError:
        raise
    except Exception as error:
        if (fault := machine_fault(error)) is None:
            raise
        raise InterruptionError(f"{what} was interrupted: {fault}; {AGAIN}.") from error


def lacks_memory(error: BaseException) -> bool:
    """Return whether the host's memory did not suffice, for Python or torch, perhaps in the code of a plug-in."""
    origin = _origin(error)
    return isinstance(origin, MemoryError) or "DefaultCPUAllocator" in described(origin)


def _origin(error: BaseException) -> BaseException:
    """Return what the code of a plug-in raised, if `sgbench.core.plugins.foreign` has made an `InputError` of it."""
    while isinstance(error, InputError) and error.__cause__ is not None:
        error = error.__cause__
    return error


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
