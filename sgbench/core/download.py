"""Downloads: resumed after an interruption, hashed as they arrive, and renamed into place once complete."""

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
"""Called with the bytes received so far and the bytes expected, 0 if the server does not say."""

TIMEOUT_SECONDS = 20.0
"""How long a server may stay silent."""

_BLOCK_BYTES = 1 << 18


class DownloadError(OSError):
    """A file could not be downloaded; what was received is kept."""


def download(url: str, target: Path, *, digest: str, progress: Progress | None = None) -> None:
    """Download a file unless it exists.

    The name of an incomplete file ends in ``.part``. A part left by an earlier call is resumed if the server supports
    that; the digest shows whether both halves belong to one file. If another process is downloading the same file,
    this call waits for it.

    Args:
        url: Its address. Redirects are followed, and proxies are taken from the environment.
        target: Where to put it; missing folders are created.
        digest: ``algorithm:hex``: a `hashlib` algorithm and at least the first digits.
        progress: Called as bytes arrive.

    Raises:
        DownloadError: If the server cannot be reached, refuses, falls silent or ends too early.
        InputError: If the digest is wrong; the part is deleted.
        OSError: If it cannot be written to disk; what was written is kept.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with exclusive(part) as file:
        if target.exists():  # another process has downloaded it meanwhile
            part.unlink()
            return
        algorithm, _, expected = digest.partition(":")
        hasher = _hashed(file, algorithm)
        if not hasher.hexdigest().startswith(expected):  # a part may be complete and only not renamed yet
            try:
                hasher = _receive(url, file, hasher, progress)
            except DownloadError:
                if not file.tell():
                    part.unlink()
                raise
        if not hasher.hexdigest().startswith(expected):
            part.unlink()
            raise InputError(
                f"'{url}' has the {algorithm} {hasher.hexdigest()}, but {expected} is expected; "
                "the download was deleted."
            )
        part.replace(target)


def _hashed(file: io.FileIO, algorithm: str) -> "hashlib._Hash":
    """Return the hash of a whole file, reading it to its end."""
    file.seek(0)
    return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))


def _receive(url: str, file: io.FileIO, hasher: "hashlib._Hash", progress: Progress | None) -> "hashlib._Hash":
    """Append the rest of the file, or start over if the server cannot resume, and return the hash of the whole.

    Raises:
        DownloadError: If the server does not deliver it.
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
        raise DownloadError(f"'{url}' was interrupted after {done} of {expected} bytes")
    return hasher


def _request(url: str, offset: int) -> http.client.HTTPResponse:
    """Request a file from an offset; the status of the response says whether the server honours it."""
    headers = {"User-Agent": "sgbench"} | ({"Range": f"bytes={offset}-"} if offset else {})
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS
        )
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
            return _request(url, 0)  # the part is longer than the file
        raise DownloadError(f"'{url}' cannot be downloaded: the server answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(f"'{url}' cannot be downloaded: {_reason(error)}") from error
    return response


def _blocks(url: str, response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while block := response.read(_BLOCK_BYTES):
            yield block
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(f"'{url}' was interrupted: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", error)  # what urllib wraps
    return str(getattr(cause, "strerror", None) or cause)


def _append(file: io.FileIO, block: bytes) -> None:
    rest = memoryview(block)
    with naming(Path(file.name)):
        while rest:
            rest = rest[file.write(rest) :]
