"""The metadata services of clouds, on loopback."""

import contextlib
import datetime
import http.server
import json
import threading
from collections.abc import Iterator


class Metadata:
    """What the metadata services of EC2 and Compute Engine say of a spot instance.

    Args:
        broken: How many requests fail before the first answer.
    """

    def __init__(self, broken: int = 0) -> None:
        self.end: datetime.datetime | None = None
        self.broken = broken
        self.url = ""

    def end_in(self, seconds: float) -> None:
        """Announce the end of the instance."""
        self.end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)

    def answer(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        """Return the status and text of an answer."""
        if self.broken:
            self.broken -= 1
            return 503, ""
        match method, path:
            case "PUT", "/latest/api/token" if headers.get("x-aws-ec2-metadata-token-ttl-seconds") == "60":
                return 200, "a token"
            case "GET", "/latest/meta-data/spot/instance-action" if (
                headers.get("x-aws-ec2-metadata-token") == "a token"
            ):
                if self.end is None:
                    return 404, ""
                return 200, json.dumps({"action": "terminate", "time": f"{self.end:%Y-%m-%dT%H:%M:%SZ}"})
            case "GET", "/computeMetadata/v1/instance/preempted" if headers.get("metadata-flavor") == "Google":
                return 200, "TRUE" if self.end else "FALSE"
        return 401, ""


@contextlib.contextmanager
def metadata(broken: int = 0) -> Iterator[Metadata]:
    """Run the services; `Metadata.url` is where they are."""
    says = Metadata(broken)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = says.answer(
                self.command, self.path, {name.lower(): self.headers[name] for name in self.headers}
            )
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        do_PUT = do_GET  # noqa: N815 - the name that http.server calls

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        says.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield says
        server.shutdown()
