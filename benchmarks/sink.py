"""A server that takes everything and keeps nothing, in a process of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["name", "sink"]

PROGRAM = shutil.which("smtp-sink", path=os.environ.get("PATH", "") + ":/usr/sbin")
EHLO = b"250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n"
REPLIES = {b"EHLO": EHLO, b"DATA": b"354 go on\r\n", b"QUIT": b"221 2.0.0 bye\r\n"}


def name() -> str:
    """Return the name of the sink, for the table."""
    return "smtp-sink" if PROGRAM else "own sink (smtp-sink is not installed)"


@contextmanager
def sink() -> Iterator[int]:
    """Start the sink; give its port on loopback; end it on the way out."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", __name__, str(port)]
    if PROGRAM:  # it will not stay root
        command = [PROGRAM, *(("-u", "nobody") if os.geteuid() == 0 else ()), f"127.0.0.1:{port}", "200"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until_it_listens(port)
        yield port
    finally:
        process.kill()
        process.wait()


def _wait_until_it_listens(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return
    raise TimeoutError(f"{name()} does not listen on port {port}")


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 sink.test ESMTP\r\n")
    while line := await reader.readline():
        verb = line[:4].upper()
        writer.write(REPLIES.get(verb, b"250 2.0.0 ok\r\n"))
        if verb == b"DATA":
            await reader.readuntil(b"\r\n.\r\n")
            writer.write(b"250 2.0.0 ok\r\n")
        if verb == b"QUIT":
            break
    writer.close()


async def _main(port: int) -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", port, limit=2**24)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
