"""A small name server over UDP on loopback: it knows the records that it is given."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import cast

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

__all__ = ["NameServer", "Zone", "name_server", "naming"]


Zone = Mapping[str | tuple[str, str], Sequence[str]]


class NameServer(asyncio.DatagramProtocol):
    """Answers for `zone`: a domain's MX as "10 mx.example.", other records under (domain, kind), as in a zone file.

    None where a domain has only others, NXDOMAIN where it is unknown.

    Attributes:
        silent: domains that get no reply; None: all of them.
        asked: how often each was asked for.
    """

    def __init__(self, zone: Zone, silent: frozenset[str] | None = frozenset()) -> None:
        self.zone = zone
        self.silent = silent
        self.asked: Counter[str] = Counter()
        self.port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        domain = question.name.to_text().rstrip(".")
        self.asked[domain] += 1
        if self.silent is None or domain in self.silent:
            return
        answer = dns.message.make_response(query)
        kind = dns.rdatatype.to_text(question.rdtype)
        found = self.zone.get((domain, kind)) or (self.zone.get(domain) if kind == "MX" else None)
        if found:
            answer.answer.append(dns.rrset.from_text(question.name, 300, "IN", kind, *found))
        elif domain not in self.zone and not any(key[0] == domain for key in self.zone if isinstance(key, tuple)):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        self._transport.sendto(answer.to_wire(), addr)


@asynccontextmanager
async def name_server(zone: Zone, silent: frozenset[str] | None = frozenset()) -> AsyncGenerator[NameServer]:
    """Run one on 127.0.0.1."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(
        lambda: NameServer(zone, silent), local_addr=("127.0.0.1", 0)
    )
    try:
        yield server
    finally:
        transport.close()


@contextmanager
def naming(zone: Zone) -> Iterator[NameServer]:
    """One on a thread and a loop of its own, for what blocks."""
    loop, stop, ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    servers: list[NameServer] = []

    async def serve() -> None:
        async with name_server(zone) as server:
            servers.append(server)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield servers[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
