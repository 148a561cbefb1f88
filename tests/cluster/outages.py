"""An S3 server on this machine that can be away: the server goes on, and a relay in front of it does not."""

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

from place import PATIENCE_SECONDS, environment, wait_until
from pyarrow import fs

OUTAGES = ("refusing", "silent", "busy")
"""How a server is away: nothing listens, nothing answers, or every answer is 503."""

RIGHTS = {
    "AWS_ACCESS_KEY_ID": "somebody",
    "AWS_SECRET_ACCESS_KEY": "hunter2",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}

BUSY = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length: 64\r\n\r\n"
    b"<Error><Code>SlowDown</Code><Message>Slow down</Message></Error>"
)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


class Server:
    """An S3 server with a bucket called ``bucket``, for commands that have the `RIGHTS` in their environment."""

    def __init__(self) -> None:
        self._own, self._port = _free_port(), _free_port()
        self._moto = self._start("-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._own))
        wait_until(lambda: _listens(self._own), PATIENCE_SECONDS)
        self._relay = self._start_relay()
        self.filesystem = fs.S3FileSystem(
            access_key=RIGHTS["AWS_ACCESS_KEY_ID"],
            secret_key=RIGHTS["AWS_SECRET_ACCESS_KEY"],
            region="us-east-1",
            scheme="http",
            endpoint_override=f"127.0.0.1:{self._own}",
            allow_bucket_creation=True,
        )
        self.filesystem.create_dir("bucket")

    def uri(self, name: str) -> str:
        return f"s3://bucket/{name}?endpoint_override=127.0.0.1:{self._port}&scheme=http"

    def files(self, name: str) -> dict[str, tuple[int, int]]:
        """Return the bytes of all files of a store, and when each was written, except of its lock."""
        everything = self.filesystem.get_file_info(fs.FileSelector(f"bucket/{name}", recursive=True))
        files = {each.path: (each.size, each.mtime_ns) for each in everything if each.type == fs.FileType.File}
        files.pop(f"bucket/{name}/.lock", None)
        return files

    @contextlib.contextmanager
    def away(self, how: str) -> Iterator[None]:
        """Let it be away for as long as the context lasts, in one of the ways of `OUTAGES`."""
        if how == "silent":
            self._relay.send_signal(signal.SIGSTOP)
        else:
            _end(self._relay)
        if how == "busy":
            self._relay = self._start_relay("busy")
        yield
        if how == "silent":
            self._relay.send_signal(signal.SIGCONT)
            return
        _end(self._relay)
        self._relay = self._start_relay()

    def stop(self) -> None:
        _end(self._relay)
        _end(self._moto)

    def _start_relay(self, *busy: str) -> subprocess.Popen[bytes]:
        relay = self._start(__file__, str(self._port), str(self._own), *busy)
        wait_until(lambda: _listens(self._port), PATIENCE_SECONDS)
        return relay

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        return subprocess.Popen([sys.executable, *arguments], stdin=quiet, stdout=quiet, stderr=quiet)


@contextlib.contextmanager
def a_server() -> Iterator[Server]:
    """Start a server, and give this process and those that it starts the rights to it."""
    with environment(RIGHTS):
        server = Server()
        try:
            yield server
        finally:
            server.stop()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(2**16):
            writer.write(piece)
            await writer.drain()
    writer.close()


async def relay(port: int, to: int, *, busy: bool) -> None:
    """Pass connections on, or answer them that the server is busy, for ever."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if busy:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(BUSY)
                await writer.drain()
                writer.close()
                return
            there, onward = await asyncio.open_connection("127.0.0.1", to)
            await asyncio.gather(_pass_on(reader, onward), _pass_on(there, writer))

    async with await asyncio.start_server(accept, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(relay(int(sys.argv[1]), int(sys.argv[2]), busy=len(sys.argv) > 3))
