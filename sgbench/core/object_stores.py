"""What pyarrow cannot do in an object store: writes that are conditional on what is there."""

import configparser
import contextlib
import errno
import functools
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pyarrow import fs

from sgbench.core.errors import InputError, explained_by_store
from sgbench.core.lease import Changed, Clock, Leases, Seen
from sgbench.core.location import Location
from sgbench.core.lock import LOCK, WRITER, WRITERS

if TYPE_CHECKING:
    from obstore.store import ObjectStore

T = TypeVar("T")

_CLIENT = {"timeout": timedelta(seconds=10), "connect_timeout": timedelta(seconds=5)}

_RETRY = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
"""Far less than a lease, so that a request is answered or given up while it still matters."""


def object_store(location: Location, filesystem: fs.FileSystem) -> "ObjectStore":
    """Return a client of the bucket that a filesystem of pyarrow reads, with the same address and rights.

    Credentials come from the environment, from the machine's role or, for S3, from the shared credentials file. Of ways
    to log in that need the AWS CLI, such as single sign-on, ``aws configure export-credentials --format env`` makes the
    first of these.

    Args:
        location: What the URI says.
        filesystem: The filesystem that pyarrow opens for it, which has found out the region of the bucket.

    Raises:
        InputError: If it is in neither S3 nor Google Cloud Storage, or the rights are incomplete.
    """
    from obstore.exceptions import BaseError
    from obstore.store import GCSStore, S3Store

    bucket, options = location.path.partition("/")[0], location.options
    endpoint = options.get("endpoint_override", "")
    scheme = options.get("scheme", "https")
    if endpoint:
        endpoint = f"{scheme}://{endpoint}"
    how: Any = {"client_options": _CLIENT | {"allow_http": scheme == "http"}, "retry_config": _RETRY}
    try:
        if location.scheme == "s3":
            # The variable of this name would win over `endpoint`.
            config = {"region": filesystem.region, "aws_endpoint_url_s3": endpoint} | _shared_credentials()
            return S3Store(bucket, config=_given(config), **how)
        if location.scheme == "gs":
            return GCSStore(bucket, config=_given({"base_url": endpoint}), **how)
    except BaseError as error:
        raise InputError(f"'{location}' cannot be used: {str(error).splitlines()[0][:120]}.") from error
    raise InputError(f"'{location}' can only be read; sweeps need a folder, or a URI that begins with s3:// or gs://.")


def _given(config: dict[str, Any]) -> Any:
    return {key: value for key, value in config.items() if value}


def _shared_credentials() -> dict[str, str]:
    """Return the keys of the current profile in AWS' shared credentials file, which only pyarrow reads by itself."""
    if "AWS_ACCESS_KEY_ID" in os.environ:
        return {}
    file = os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"
    profiles = configparser.RawConfigParser()
    try:
        profiles.read(Path(file).expanduser(), encoding="utf-8")
        keys = profiles[os.environ.get("AWS_PROFILE", "default")]
        return {
            "access_key_id": keys["aws_access_key_id"],
            "secret_access_key": keys["aws_secret_access_key"],
            "session_token": keys.get("aws_session_token", ""),
        }
    except (configparser.Error, OSError, RuntimeError, ValueError, KeyError):
        return {}


_UNCONDITIONAL = (
    "this object store ignores or refuses conditional writes (If-None-Match, If-Match), without which two sweeps could "
    "write to it at once; use one that has them, such as Amazon S3, Google Cloud Storage, MinIO or Ceph since Quincy."
)


class LeaseObject:
    """The file of a lease in an object store, changed by ``If-None-Match`` and ``If-Match``.

    A renewal that succeeds proves that nobody else replaced the claim before it, and whoever watches it starts anew, so
    until `sgbench.core.lease.FRESH_SECONDS` later nothing needs to be read.

    Args:
        store: The bucket, or a store in memory.
        key: The object's key.
        address: Its address, for messages.
    """

    def __init__(self, store: "ObjectStore", key: str, address: str) -> None:
        self._store, self._key, self._address = store, key, address

    def read(self) -> Seen | None:
        """Return the claim as it is."""
        import obstore

        try:
            found = asked(self._address, lambda: obstore.get(self._store, self._key))
            return Seen(bytes(found.bytes()), _version(found.meta))
        except FileNotFoundError:
            return None

    def take(self, content: bytes, seen: Seen | None) -> Seen:
        """Replace the claim, and see to it that the object store compares.

        Raises:
            InputError: If it overwrites whatever is there: then two could hold the lease at once.
        """
        import obstore

        own = self._put(content, seen.version if seen else "create")
        for wrong in ("create", {"e_tag": '"00000000000000000000000000000000"', "version": "1"}):
            try:
                self._put(content, wrong)
            except Changed:
                continue
            asked(self._address, lambda: obstore.delete(self._store, self._key))
            raise InputError(_UNCONDITIONAL)
        return own

    def renew(self, content: bytes, seen: Seen) -> Seen:
        """Replace one's own claim."""
        return self._put(content, seen.version)

    def confirm(self, seen: Seen) -> None:
        """Do nothing: a renewal rules out any other claim."""

    def _put(self, content: bytes, mode: Any) -> Seen:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            put = asked(self._address, lambda: obstore.put(self._store, self._key, content, mode=mode))
            return Seen(content, _version(put))
        except (AlreadyExistsError, PreconditionError) as error:
            raise Changed from error
        except FileNotFoundError as error:
            if mode == "create":
                raise OSError(errno.ENOENT, "there is no such bucket", self._address) from error
            raise Changed from error


def asked(address: str, ask: Callable[[], T]) -> T:
    """Send a request, whose faults become system errors with an object's address."""
    from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError, PreconditionError

    try:
        return ask()
    except (AlreadyExistsError, PreconditionError):
        raise
    except NotSupportedError as error:
        raise InputError(_UNCONDITIONAL) from error
    except (BaseError, ValueError) as error:
        raise OSError(*explained_by_store(str(error)), address) from error


def _version(meta: Any) -> dict[str, str]:
    """Return what identifies the content of an object: an ETag, and in Google Cloud Storage a generation."""
    return {key: meta[key] for key in ("e_tag", "version") if meta[key]}


class ObjectLocks(Leases):
    """The lock of a folder in an object store.

    Args:
        store: The bucket, or a store in memory.
        folder: The key of the folder, with a slash at its end unless it is empty.
        root: The storage, for messages.
        clock: The clock of this process.
    """

    def __init__(self, store: "ObjectStore", folder: str, root: str, clock: Clock | None = None) -> None:
        self._store, self._folder = store, folder
        super().__init__(LeaseObject(store, folder + LOCK, root), root, "a lease by conditional writes", clock)

    def writer(self, number: str) -> "ObjectLocks":
        """Return the lock of one of those who write side by side."""
        return ObjectLocks(self._store, f"{self._folder}{WRITERS}/{number}/", self._root, self.clock)

    def writers(self) -> list[str]:
        """Return the numbers of those who write side by side, whether or not they are alive; sorted."""
        import obstore

        folder = f"{self._folder}{WRITERS}/"
        found = asked(self._root, lambda: obstore.list(self._store, folder).collect())
        numbers = {each["path"].removeprefix(folder).partition("/")[0] for each in found}
        return sorted(filter(WRITER.fullmatch, numbers))

    def remove(self) -> None:
        """Delete the folder of a lock that nobody holds, and will not be wanted again.

        pyarrow would leave a mark of the folder when it deletes what is in it.
        """
        import obstore

        for each in asked(self._root, lambda: obstore.list(self._store, self._folder).collect()):
            with contextlib.suppress(FileNotFoundError):
                asked(self._root, functools.partial(obstore.delete, self._store, each["path"]))
