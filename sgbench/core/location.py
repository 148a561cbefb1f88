"""Where a folder is: a path on this machine or the URI of an object store, however a person writes it."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode

from pyarrow import fs

from sgbench.core.errors import InputError
from sgbench.core.files import expanded
from sgbench.core.words import quoted

CONNECT_SECONDS = 3.0
"""For which an object store may take to accept a connection; it is tried `ATTEMPTS` times before that is an error."""

ATTEMPTS = 4
"""How often a request to an object store is sent, with pauses that double, before its error is reported."""

_PATTERNS = {
    "scheme": ("https?", "http or https"),
    "endpoint_override": (r"(?:[\w.-]+|\[[0-9a-fA-F:]+\])(?::\d+)?", "a host, or host:port"),
    "region": (r"[\w-]+", "a region such as eu-central-1"),
    "project_id": (r"[\w.:-]+", "a project"),
}
"""Options of URIs: the pattern of their values, and what is valid in words."""

_OPTIONS = {
    "s3": ("region", "scheme", "endpoint_override"),
    "gs": ("scheme", "endpoint_override", "project_id"),
}
"""The options of a URI by its scheme; other schemes take what pyarrow takes."""

_SECRET = re.compile(r"key|secret|token|passw|sig|credential|auth|^sas", re.IGNORECASE)
"""What is in the names of options whose values are secret."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Names of buckets in S3 and Google Cloud Storage."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

_VARIABLE = re.compile(r"(?:^|[/?=])(\$(?:\w+|\{\w+\}))(?:$|[/?&])")
"""A part of a path or URI that a shell replaces by the value of a variable."""

_PORTS = {"http": ":80", "https": ":443"}

_KEPT = "!$&'()*+,;=:@~"
"""Characters that `str(Location)` does not escape in a path, besides letters, digits and ``-._``."""


@dataclass(frozen=True)
class Location:
    """A folder on this machine or in an object store, in one form for every way to write it."""

    scheme: str
    """``s3``, ``gs`` or another that pyarrow knows; empty on this machine."""
    path: str
    """The path as pyarrow's filesystems take it: absolute, or beginning with the bucket."""
    options: Mapping[str, str] = field(default_factory=dict)
    """The options behind the ``?`` of the URI."""

    @classmethod
    def of(cls, text: str) -> "Location":
        """Read a path, which may begin with ``~``, or a URI, in which spaces and percent-escapes mean characters.

        Raises:
            InputError: If it cannot be a folder, or is a URI with credentials, which would be stored and shown.
        """
        scheme, separator, rest = text.partition("://")
        scheme = {"gcs": "gs"}.get(scheme.lower(), scheme.lower())
        location, _, query = rest.partition("?")
        if separator:
            _refuse_credentials(scheme, location, query)
        if _CONTROL.search(text):
            raise InputError(f"storage {text[:80]!r} has control characters or is not valid Unicode.")
        if (variable := _VARIABLE.search(text)) and (separator or not Path(text).exists()):
            raise InputError(f"storage '{text}' has the variable {variable[1]}, not replaced; write its value.")
        if not separator:
            return cls("", _local(text))
        if not re.fullmatch("[a-z][a-z0-9+.-]*", scheme):
            raise InputError(f"storage '{text}': a URI begins with a scheme such as s3, as in s3://bucket/folder.")
        if "#" in text:
            raise InputError(f"storage '{text}': a '#' in a URI is written %23.")
        parts = [_unescaped(part, text) for part in location.rstrip("/").split("/")]
        if scheme == "file":
            if parts[0] or query:
                raise InputError(f"storage '{text}': a file URI is written file:///folder, without host and options.")
            return cls("", str(expanded("/".join(parts) or "/").absolute()))
        if not all(parts) or {".", ".."} & set(parts) or any("/" in part for part in parts):
            raise InputError(f"storage '{text}': a bucket and folders with names are needed, as in s3://bucket/folder.")
        if scheme in _OPTIONS and not _BUCKET.fullmatch(parts[0]):
            raise InputError(f"storage '{text}': {quoted(parts[0])} is no name of a bucket, as in s3://bucket/folder.")
        return cls(scheme, "/".join(parts), _options(scheme, query))

    @property
    def is_local(self) -> bool:
        """Whether it is on a file system of this machine."""
        return not self.scheme

    def is_same(self, other: "Location") -> bool:
        """Return whether this is the same folder as another; the region of a bucket is known, whether or not given."""
        if self.is_local and other.is_local:
            return os.path.realpath(self.path) == os.path.realpath(other.path)
        one, two = ({**each.options, "region": ""} for each in (self, other))
        return (self.scheme, self.path, one) == (other.scheme, other.path, two)

    def __str__(self) -> str:
        return self.of_name("")

    def of_name(self, name: str) -> str:
        """Return the path or URI of a name below this folder."""
        path = f"{self.path.rstrip('/')}/{name}" if name else self.path
        if self.is_local:
            return path
        query = f"?{urlencode(self.options, safe=':[]')}" if self.options else ""
        return f"{self.scheme}://{quote(path, safe=f'/{_KEPT}')}{query}"

    def open(self) -> fs.FileSystem:
        """Return pyarrow's filesystem for it; nothing is sent to a server yet, except to ask S3 for a bucket's region.

        Raises:
            InputError: If pyarrow cannot open it.
        """
        try:
            if self.is_local:
                return fs.LocalFileSystem()
            if self.scheme == "s3":
                return self._s3()
            uri = str(self)
            if self.scheme == "gs":
                uri += f"{'&' if self.options else '?'}retry_limit_seconds={CONNECT_SECONDS * ATTEMPTS:.0f}"
            return fs.FileSystem.from_uri(uri)[0]
        except (ValueError, OSError) as error:
            raise InputError(f"storage '{self}' is neither a folder nor a URI that can be opened: {error}.") from error

    def _s3(self) -> fs.FileSystem:
        options = dict(self.options)
        region = options.pop("region", None)
        if region is None and "endpoint_override" in options:  # not asked of Amazon's metadata server
            region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        return fs.S3FileSystem(
            region=region or fs.resolve_s3_region(self.path.split("/")[0]),
            connect_timeout=CONNECT_SECONDS,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
            allow_delayed_open=True,  # small files are one request
            **options,
        )


def _local(text: str) -> str:
    """Return the absolute path of a folder on this machine."""
    if not text.strip():
        raise InputError("storage '' is empty; a folder, or a URI such as s3://bucket/folder, is needed.")
    if scheme := re.match(r"(s3|gcs|gs|file):", text, re.IGNORECASE):
        valid = "file:///folder" if scheme[1].lower() == "file" else f"{scheme[1]}://bucket/folder"
        raise InputError(f"storage '{text}': a URI is written {valid}, and a folder of this name ./{text[:80]}.")
    return str(expanded(text).absolute())


def _unescaped(part: str, text: str) -> str:
    """Return a part of a URI with its percent-escapes replaced."""
    if re.search("%(?![0-9a-fA-F]{2})", part):
        raise InputError(f"storage '{text}': a '%' in a URI is written %25.")
    try:
        plain = unquote(part, errors="strict")
    except UnicodeDecodeError:
        plain = "\0"
    if _CONTROL.search(plain):
        raise InputError(f"storage '{text}' has escapes of control characters or of no character.")
    return plain


def _refuse_credentials(scheme: str, location: str, query: str) -> None:
    """Refuse a URI that has credentials, wherever they are, without repeating it."""
    location, query = unquote(location), unquote(query)
    host = location.partition("/")[0]
    if scheme in _OPTIONS and re.fullmatch(r"[^:@]+:\d{1,5}", host):
        raise InputError(f"a URI {scheme}://… begins with a bucket; host and port go to ?endpoint_override=HOST:PORT.")
    user = host if scheme in _OPTIONS else location.rpartition("@")[0]  # a secret key may have slashes
    names = [option.partition("=")[0] for option in re.split("[&;]", query)]
    if ":" in user or "@" in query or (scheme in _OPTIONS and "@" in host) or any(map(_SECRET.search, names)):
        raise InputError(
            f"a URI {scheme}://… has credentials in it, which would be stored and shown; give them by environment "
            "variables such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or by a profile."
        )


def _options(scheme: str, query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) < len(pairs):
        raise InputError(f"the URI {scheme}://… has an option twice: ?{query[:80]}.")
    if (known := _OPTIONS.get(scheme)) is None:
        return options
    for key, value in options.items():
        if key not in known:
            raise InputError(f"the URI {scheme}://… has the option '{key[:80]}'; valid: {', '.join(known)}.")
        pattern, valid = _PATTERNS[key]
        if key == "scheme":
            value = options[key] = value.lower()
        if not re.fullmatch(pattern, value):
            raise InputError(f"the URI {scheme}://… has {key}={value[:80]}; {valid} is needed.")
    return _in_one_form(options)


def _in_one_form(options: dict[str, str]) -> dict[str, str]:
    """Return options in order and without what is so anyway."""
    protocol = options.get("scheme", "https")
    if "endpoint_override" in options:
        options["endpoint_override"] = options["endpoint_override"].lower().removesuffix(_PORTS[protocol])
    return {key: options[key] for key in sorted(options) if (key, options[key]) != ("scheme", "https")}
