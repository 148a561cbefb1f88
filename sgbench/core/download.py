"""Files from the network: continued where they broke off, hashed as they arrive, and there whole or not at all."""

import hashlib
import http.client
import io
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from sgbench.core.errors import InputError
from sgbench.core.files import exclusive, naming

Progress = Callable[[int, int], None]
"""Told of the bytes that are here and of those expected, 0 where the server does not say."""

TIMEOUT_SECONDS = 20.0
"""How long a server may stay silent."""

_BLOCK_BYTES = 1 << 18


class DownloadError(OSError):
    """A file could not be had from the network; what has arrived of it is kept."""


def download(url: str, target: Path, *, digest: str, progress: Progress | None = None) -> None:
    """Fetch a file, unless it is there.

    Until it is whole its name ends in ``.part``. A part that an earlier call left is continued where the server can do
    that; the digest tells whether both halves are of one file. Another process that fetches the same file is waited
    for.

    Args:
        url: Where it is. Redirects are followed, and proxies used as the environment says.
        target: Where it goes; missing folders are made.
        digest: ``algorithm:hex``: an algorithm of `hashlib` and at least the first digits.
        progress: Told of the bytes as they arrive.

    Raises:
        DownloadError: If the server cannot be reached, refuses, falls silent or ends too early.
        InputError: If the file has another digest; the part is deleted.
        OSError: If the disk cannot take it; what it took is kept.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with exclusive(part) as file:
        if target.exists():  # who was waited for has fetched it
            part.unlink()
            return
        algorithm, _, expected = digest.partition(":")
        hasher = _hashed(file, algorithm)
        if not hasher.hexdigest().startswith(expected):  # a part may be whole and lack but its name
            try:
                hasher = _receive(url, file, hasher, progress)
            except DownloadError:
                if not file.tell():
                    part.unlink()
                raise
        if not hasher.hexdigest().startswith(expected):
            part.unlink()
            raise InputError(
                f"'{url}' has the {algorithm} {hasher.hexdigest()}, and {expected} is expected; "
                "what was received is deleted: fetch it again, or see whether its authors have changed it."
            )
        part.replace(target)


def _hashed(file: io.FileIO, algorithm: str) -> "hashlib._Hash":
    """Return the hash of a whole file, which is then at its end."""
    file.seek(0)
    return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))


def _receive(url: str, file: io.FileIO, hasher: "hashlib._Hash", progress: Progress | None) -> "hashlib._Hash":
    """Append to a part what it lacks, or all of it anew where the server cannot continue, and return the whole's hash.

    Raises:
        DownloadError: If the server does not give it.
        OSError: If it cannot be written.
    """
    done = file.tell()
    with _request(url, done) as response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            file.truncate(0)
            hasher, done = _hashed(file, hasher.name), 0
        length = response.headers.get("Content-Length", "")
        expected = done + int(length) if length.isdecimal() else 0
        for block in _blocks(url, response):
            _append(file, block)
            hasher.update(block)
            done += len(block)
            if progress is not None:
                progress(done, expected)
    if expected and done < expected:
        raise DownloadError(f"'{url}' broke off after {done} of {expected} bytes")
    return hasher


def _request(url: str, offset: int) -> http.client.HTTPResponse:
    """Ask for a file from an offset on; the answer's status says whether the server heeds that."""
    headers = {"User-Agent": "sgbench"} | ({"Range": f"bytes={offset}-"} if offset else {})
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS
        )
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
            return _request(url, 0)  # the part is longer than the file
        raise DownloadError(f"'{url}' cannot be had: the server answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(f"'{url}' cannot be had: {_reason(error)}") from error
    return response


def _blocks(url: str, response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while block := response.read(_BLOCK_BYTES):
            yield block
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(f"'{url}' broke off: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", error)  # what urllib wraps
    return str(getattr(cause, "strerror", None) or cause)


def _append(file: io.FileIO, block: bytes) -> None:
    rest = memoryview(block)
    with naming(Path(file.name)):
        while rest:
            rest = rest[file.write(rest) :]
