"""Leases: one holder at a time, wherever no kernel can be asked whether another process still lives.

The holder has a claim in a file and changes it every `BEAT_SECONDS`. Whoever wants it watches the file: once it has not
changed for `LEASE_SECONDS` by the watcher's own clock, its holder is regarded as dead and the claim is replaced. No two
clocks are ever compared. Replacing is conditional on what was seen, so that of several that watch only one succeeds,
however late a request arrives.

A holder that was asleep for so long finds the claim of another, by the token in it, and does nothing from then on. The
token is random rather than counted: it is only compared for equality, and stays unique if the file is deleted.
"""

import contextlib
import errno
import functools
import json
import os
import re
import secrets
import socket
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sgbench.core.errors import InputError, InterruptionError
from sgbench.core.files import naming
from sgbench.core.words import listed, natural

BEAT_SECONDS = 5.0
"""Between two renewals of a claim."""

LEASE_SECONDS = 60.0
"""How long a claim must stay unchanged before another process may replace it."""

FRESH_SECONDS = 15.0
"""How long after a renewal its holder may write without renewing it again: far less than `LEASE_SECONDS`, so that a
request that is on its way arrives before anybody else can hold the lease."""

SETTLE_SECONDS = 5.0
"""How long a new holder waits after it has replaced the claim of a silent one, whose writes may be on their way."""

AWAIT_SECONDS = 8.0
"""How long whoever asks who holds a lease waits for a renewal."""

LOOK_SECONDS = 1.0
"""Between two looks at a claim that is being watched."""

BRIEF_SECONDS = 600.0
"""How long one who will hold a lock only briefly waits for another who does, before it is refused."""

_ATTEMPTS = 5
"""How often a claim is tried in vain to be written before the fault is reported."""

_LONGEST = 120
"""Characters of a purpose or a host name that are kept."""

_SIZE = 1024
"""Bytes of a claim, of which most are spaces, so that it can be overwritten in place."""

_LISTED = 8
"""Holders of a kind that a sentence names before it counts the others."""

T = TypeVar("T")

Waiting = Generator[float, None, T]
"""What takes time and returns something: it yields the seconds to wait instead of waiting."""


class Clock(Protocol):
    """What a lease knows of time; tests have their own."""

    def now(self) -> float:
        """Return the seconds since any moment. They never go backwards, and count while the machine sleeps."""

    def sleep(self, seconds: float) -> None:
        """Wait."""

    def every(self, seconds: float, act: Callable[[], None]) -> AbstractContextManager[None]:
        """Act at intervals, beside what else is done, for as long as the context lasts."""


class Boottime:
    """The clock of this machine."""

    _ID = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # on macOS the latter counts while it sleeps

    def now(self) -> float:
        """Return the seconds since the machine was started."""
        return time.clock_gettime(self._ID)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    @contextlib.contextmanager
    def every(self, seconds: float, act: Callable[[], None]) -> Iterator[None]:
        """Act at intervals, in a thread."""
        done = threading.Event()

        def repeat() -> None:
            while not done.wait(seconds):
                act()

        thread = threading.Thread(target=repeat, name="sgbench-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


@dataclass(frozen=True)
class Claim:
    """What the file of a lock says, whoever wrote it."""

    who: str
    """The holder in words: ``'sgbench sweep quick' (process 7 on host)``."""
    token: str | None
    """What distinguishes this hold from all others; None if the file is damaged or of an earlier version."""
    held: bool | None
    """Whether it is held; None if the file is damaged or of an earlier version."""
    brief: bool = False
    """Whether the holder will give it up soon, so that it pays to wait."""
    purpose: str = ""
    since: str | None = None
    """Since when it is held, by the holder's clock: ``2026-01-02 03:04 UTC``."""
    process: tuple[str, int] | None = None
    """The holder's machine, see `_machine`, and its number there; None if the file has it not."""

    @property
    def ended(self) -> bool:
        """Whether the holder is known to have ended, because it was a process of this machine and is none now."""
        if self.process is None or self.process[0] != _machine():
            return False
        try:
            os.kill(self.process[1], 0)  # sends nothing
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            pass
        return False

    @classmethod
    def of(cls, content: bytes) -> "Claim":
        """Parse any content."""
        state = _parsed(content)
        token, held, purpose, since = map(state.get, ("token", "held", "purpose", "since"))
        return cls(
            _in_words(state if "holder" not in state else _parsed(state["holder"])),  # nested in earlier versions
            token if isinstance(token, str) else None,
            held if isinstance(held, bool) else None,
            state.get("brief") is True,
            _plain(purpose) if isinstance(purpose, str) else "",
            _plain(since) if isinstance(since, str) else None,
            _process(state),
        )


def claim(purpose: str, token: str, since: str, *, beat: int = 0, held: bool = True, brief: bool = False) -> bytes:
    """Return the content of a lock's file by which this process claims it, or gives it up."""
    who = {"purpose": _plain(purpose), "host": _plain(socket.gethostname()), "pid": os.getpid(), "since": since}
    who |= {"machine": machine} if (machine := _machine()) else {}
    state = {**who, "token": token, "beat": beat, "held": held, "brief": brief}
    return json.dumps(state, ensure_ascii=False).encode().ljust(_SIZE)


def minute() -> str:
    """Return the time by this machine's clock, for `Claim.since`."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())


def in_words(claims: Sequence[Claim]) -> str:
    """Return who holds locks, in words: ``shards 1/8 and 3/8 of paper, since 2026-01-02 03:04 UTC``.

    Args:
        claims: At least one; those whose purposes have this form, as ``shard 1/8 of paper``, are put together.
    """
    groups: dict[tuple[str, ...], list[Claim]] = {}
    for each in claims:
        found = re.fullmatch(r"(\S+) (\S+) of (.+)", each.purpose)
        groups.setdefault(found.group(1, 3) if found else (each.who,), []).append(each)
    words = []
    for about, group in groups.items():
        who = group[0].who
        if len(group) > 1:
            parts = sorted({each.purpose.split(" ")[1] for each in group}, key=natural)
            more = [f"{len(parts) - _LISTED} more"] if len(parts) > _LISTED else []
            who = f"{about[0]}s {listed([*parts[:_LISTED], *more])} of {about[-1]}"
        since = f", since {min(str(each.since) for each in group)}" if len(about) > 1 else ""
        words.append(f"{who}{since}")
    return listed(words)


@functools.cache
def _machine() -> str | None:
    """Return what no two machines share, in whose numbers of processes this one is known; None if there is nothing.

    That is the id of a boot and, as containers number their own processes, that of a namespace.
    """
    try:
        boot, space = Path("/proc/sys/kernel/random/boot_id").read_text(), Path("/proc/self/ns/pid").readlink()
    except OSError:
        return None
    return f"{boot.strip()} {space}"


def _process(state: dict[str, Any]) -> tuple[str, int] | None:
    match state:
        case {"machine": str(machine), "pid": int(pid)} if pid > 0:
            return machine, pid
    return None


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_LONGEST])


def _parsed(content: Any) -> dict[str, Any]:
    try:
        state = json.loads(content)
    except (ValueError, TypeError, RecursionError):
        return {}
    return state if isinstance(state, dict) else {}


def _in_words(state: dict[str, Any]) -> str:
    match state:
        case {"purpose": str(purpose), "host": str(host), "pid": int(pid)}:
            return f"'{_plain(purpose)}' (process {pid} on {_plain(host)})"
    return "another process"


def in_use(root: str, who: str) -> InputError:
    """Return the error for whoever is refused a lock."""
    return InputError(f"'{root}' is in use by {who}; wait for it to end, or give another --results.")


def lost(root: str, who: str | None = None) -> InterruptionError:
    """Return the error for a process whose lock is no longer its own.

    Args:
        root: What was locked.
        who: Who holds it now; None if nobody does.
    """
    if who is None:
        return InterruptionError(
            f"the lock of '{root}' was lost: its holder has ended, or the folder was renamed or its lock deleted; "
            "nothing was written since."
        )
    return InterruptionError(f"the lock of '{root}' was lost to {who}; nothing was written since.")


class Changed(Exception):  # noqa: N818 - an answer, not a fault
    """The file of a lease is no longer what it was when it was last seen."""


@dataclass(frozen=True)
class Seen:
    """A claim as it was read or written."""

    content: bytes
    version: Any
    """What the file compares, to change only what was seen."""


class Held(Protocol):
    """A lock that this process holds, or on behalf of whose holder it writes."""

    @property
    def token(self) -> str | None:
        """What distinguishes this hold from all others; None if it could not be written, on a full disk."""

    def check(self) -> None:
        """Check that the lock is still held, before a write or a delete.

        Raises:
            InterruptionError: If it is not.
            OSError: If that cannot be found out.
        """


class LeaseFile(Protocol):
    """A small file that is only changed by whoever knows its latest version."""

    def read(self) -> Seen | None:
        """Return what it is now; None if there is none.

        Raises:
            OSError: If it cannot be read.
        """

    def take(self, content: bytes, seen: Seen | None) -> Seen:
        """Replace the claim of another, or of nobody.

        Raises:
            Changed: If it is no longer what was seen.
            OSError: If it cannot be written; it may have been, all the same.
            InputError: If whatever holds the file cannot compare.
        """

    def renew(self, content: bytes, seen: Seen) -> Seen:
        """Replace one's own claim; see `take`."""

    def confirm(self, seen: Seen) -> None:
        """Check that one's own claim, renewed a moment ago, stands, unless a renewal rules out any other.

        Raises:
            Changed: If it does not.
            OSError: If it cannot be read.
        """


class Lease:
    """One process' claim to a file, or its attempts to have it.

    Args:
        file: The file.
        root: What it locks, for messages.
        purpose: What for, for others.
        clock: The clock of this process.
        brief: Whether it will be given up soon; then another such holder is waited for, instead of being refused.
    """

    def __init__(self, file: LeaseFile, root: str, purpose: str, clock: Clock, *, brief: bool = False) -> None:
        self.token = secrets.token_hex(8)
        self._file, self._root, self._purpose, self._clock, self._brief = file, root, purpose, clock, brief
        self._since = minute()
        self._own: Seen | None = None
        self._renewed = -float("inf")
        self._beats = 0
        self._lost: InterruptionError | None = None
        self._one_at_a_time = threading.Lock()

    def acquire(self) -> None:
        """Claim the file if nobody does; whoever does not renew its claim for a lease is regarded as dead.

        A live holder is known by its next renewal, so that a refusal takes a few seconds; a dead one takes the lease,
        or `FRESH_SECONDS` if it was a process of this machine: then only what was on its way must have arrived.

        Raises:
            InputError: If another process holds it, naming that process.
            OSError: If the file cannot be read or written.
        """
        together([self.attempt()], self._clock)

    def attempt(self) -> Waiting[None]:
        """Do as `acquire` says, and yield the seconds to wait instead of waiting."""
        watched, since, told, refused = None, 0.0, False, 0
        before, waited_since = None, self._clock.now()
        while refused < _ATTEMPTS:
            asked = self._clock.now()
            seen = self._file.read()
            if self._brief and seen and (now := Claim.of(seen.content)).brief and now.token != before:
                before, waited_since, refused = now.token, asked, 0  # they take turns
            if seen is None or Claim.of(seen.content).held is False:
                if self._write(self._file.take, seen):
                    return
                refused += 1
            elif watched is None:
                watched, since = seen, self._clock.now()  # after the answer: it is from then on that nothing changed
            elif seen != watched:
                now = Claim.of(seen.content)
                if not (self._brief and now.brief) or asked - waited_since > BRIEF_SECONDS:
                    raise in_use(self._root, now.who)
                watched, since = seen, self._clock.now()
            elif asked - since >= (FRESH_SECONDS if (ended := Claim.of(seen.content).ended) else LEASE_SECONDS):
                if self._write(self._file.take, seen):
                    yield SETTLE_SECONDS
                    return
            elif (ended or asked - since > 2 * BEAT_SECONDS) and not told:
                told = True
                why = f"has ended; waiting {FRESH_SECONDS:g} s for what it had sent"
                why = why if ended else f"seems dead; waiting {LEASE_SECONDS:g} s to be sure"
                warnings.warn(f"'{self._root}' was locked by {Claim.of(seen.content).who}, which {why}", stacklevel=2)
            yield LOOK_SECONDS
        raise OSError(errno.EIO, "the lock is not held and yet cannot be taken", self._root)

    def renew(self) -> None:
        """Change the claim, so that whoever watches it knows that this process lives.

        Raises:
            OSError: If that is not possible at the moment.
        """
        with self._one_at_a_time:
            if self._lost is None and not self._write(self._file.renew, self._own):
                seen = self._file.read()
                now = Claim.of(seen.content) if seen else None
                self._lost = lost(self._root, now.who if now and now.held is not False else None)

    def check(self) -> None:
        """Check that the lock is still this process', before a write or a delete.

        If its claim was renewed within `FRESH_SECONDS`, that costs a look at the clock and, on a disk, opening a small
        file; otherwise the claim is renewed first. A process that falls asleep after the check and before its request
        may still write when it wakes; a request that takes less than the rest of the lease, or a new holder's
        `SETTLE_SECONDS`, does no harm.

        Raises:
            InterruptionError: If it is not.
            OSError: If that cannot be found out.
        """
        if self._lost is None and self._clock.now() - self._renewed > FRESH_SECONDS:
            self.renew()
        if self._lost is None and self._own is not None:
            try:
                self._file.confirm(self._own)
            except Changed:
                self.renew()
        if self._lost is not None:
            raise self._lost

    def release(self) -> None:
        """Give the file up, if it is still this process'."""
        with self._one_at_a_time, contextlib.suppress(Changed, OSError):  # it is watched for a lease then
            if self._own is not None and self._lost is None:
                self._file.renew(self._claim(held=False), self._own)

    def _claim(self, *, held: bool = True) -> bytes:
        self._beats += 1
        return claim(self._purpose, self.token, self._since, beat=self._beats, held=held, brief=self._brief)

    def _write(self, write: Callable[[bytes, Any], Seen], seen: Seen | None) -> bool:
        """Write this process' claim in place of what was seen; return whether it stands.

        A request may be carried out although its answer is an error, so after one the file is read. What stands then
        may have been written by an earlier request, so it is renewed before it counts as new.
        """
        for _ in range(_ATTEMPTS):
            before = self._clock.now()
            try:
                self._own = write(self._claim(), seen)
            except (Changed, OSError) as error:
                seen = self._file.read()
                if seen is None or Claim.of(seen.content).token != self.token:
                    if isinstance(error, Changed):
                        return False
                    raise
                write = self._file.renew
            else:
                self._renewed = before
                return True
        raise OSError(errno.EIO, "the lock cannot be written", self._root)


class Leases:
    """A lock that is a lease.

    Args:
        file: The file of the claims.
        root: What it locks, for messages.
        kind: What kind of lock it is, for a person.
        clock: The clock of this process.
    """

    def __init__(self, file: LeaseFile, root: str, kind: str, clock: Clock | None = None) -> None:
        self.kind = kind
        self.clock = clock or Boottime()
        self._file, self._root = file, root

    @contextlib.contextmanager
    def hold(self, purpose: str, *, brief: bool = False) -> Iterator[Held]:
        """Hold it; see `sgbench.core.lock.Locks.hold`."""
        lease = Lease(self._file, self._root, purpose, self.clock, brief=brief)
        lease.acquire()
        try:
            with self.clock.every(BEAT_SECONDS, lambda: _renew(lease)):
                yield lease
        finally:
            lease.release()

    def claims(self) -> list[Claim]:
        """Return what the file says; nothing if there is none."""
        seen = self._file.read()
        return [Claim.of(seen.content)] if seen else []

    def look(self) -> Waiting[Claim | None]:
        """Return the claim of whoever holds it; None if nobody does.

        A holder that lives renews its claim; unless it was a process of this machine and is none now, that is awaited
        for at most `AWAIT_SECONDS`.
        """
        first, began = self._file.read(), self.clock.now()
        seen = first
        while seen is not None and Claim.of(seen.content).held is not False and not Claim.of(seen.content).ended:
            if seen != first:
                return Claim.of(seen.content)
            if self.clock.now() - began > AWAIT_SECONDS:
                return None
            yield LOOK_SECONDS / 4
            seen = self._file.read()
        return None

    def end(self) -> Waiting[None]:
        """Make sure that no holder is left that could still write; see `sgbench.core.lock.Locks.end`."""
        yield from Lease(self._file, self._root, "the end of a dead process", self.clock).attempt()


def together(tasks: Iterable[Waiting[T]], clock: Clock) -> list[T]:
    """Carry out what takes time, side by side, and return what each returns."""
    waiting, done = dict(enumerate(tasks)), dict[int, T]()
    while waiting:
        pauses = []
        for number, task in list(waiting.items()):
            try:
                pauses.append(next(task))
            except StopIteration as end:
                done[number] = end.value
                del waiting[number]
        if pauses:
            clock.sleep(max(pauses))
    return [done[number] for number in sorted(done)]


def _renew(lease: Lease) -> None:
    with contextlib.suppress(OSError):  # it is tried again at the next beat and before the next write
        lease.renew()


class LeaseFolder:
    """The file of a lease on a disk without reliable locks, such as NFS mounted with ``nolock``.

    Each hold has a file of its own, named by a number that grows, and the highest is the one that counts. Creating a
    file that must not exist is atomic everywhere. Its owner overwrites it in place. Before a new holder does anything
    else it deletes all lower ones, so whoever finds its own file, which takes one ``open``, still holds the lease; on
    NFS, that always asks the server, unlike a listing.

    Args:
        folder: A folder for these files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> Seen | None:
        """Return the claim that counts."""
        for _ in range(_ATTEMPTS):
            if not (numbers := self._numbers()):
                return None
            with contextlib.suppress(FileNotFoundError):  # somebody has just replaced it
                return Seen(self._file(numbers[-1]).read_bytes(), numbers[-1])
        raise OSError(errno.EIO, "the lock changes too often to be read", str(self._folder))

    def take(self, content: bytes, seen: Seen | None) -> Seen:
        """Create the file of the next number, and delete all lower ones."""
        number = seen.version + 1 if seen else 1
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(self._file(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError as error:
            raise Changed from error
        try:
            self._fill(file, number, content)
        except OSError:
            self._file(number).unlink(missing_ok=True)
            raise
        numbers = self._numbers()
        if numbers[-1:] != [number]:  # it had been taken, given up and deleted since it was seen
            self._file(number).unlink(missing_ok=True)
            raise Changed
        for lower in numbers[:-1]:
            self._file(lower).unlink(missing_ok=True)
        return Seen(content, number)

    def renew(self, content: bytes, seen: Seen) -> Seen:
        """Overwrite the file, if it is there."""
        try:
            file = os.open(self._file(seen.version), os.O_WRONLY)
        except FileNotFoundError as error:
            raise Changed from error
        self._fill(file, seen.version, content)
        return Seen(content, seen.version)

    def confirm(self, seen: Seen) -> None:
        """Check that the file is there."""
        try:
            os.close(os.open(self._file(seen.version), os.O_RDONLY))
        except FileNotFoundError as error:
            raise Changed from error

    def _fill(self, file: int, number: int, content: bytes) -> None:
        try:
            with naming(self._file(number)):
                os.pwrite(file, content, 0)
                os.fsync(file)
        finally:
            os.close(file)

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:06d}"

    def _numbers(self) -> list[int]:
        try:
            return sorted(int(each.name) for each in self._folder.iterdir() if re.fullmatch("[0-9]{6,}", each.name))
        except FileNotFoundError:
            return []
