"""A small name server over UDP on loopback: it knows the MX records that it is given."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import cast

import dns.message
import dns.rcode
import dns.rrset

__all__ = ["NameServer", "name_server"]


class NameServer(asyncio.DatagramProtocol):
    """Answers for `zone`: a domain's MX as "10 mx.example.", none where it has no others, NXDOMAIN where it is unknown.

    Attributes:
        silent: domains about which nothing is said; None: all of them.
        asked: how often each was asked for.
    """

    def __init__(self, zone: Mapping[str, Sequence[str]], silent: frozenset[str] | None = frozenset()) -> None:
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
        if domain not in self.zone:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif self.zone[domain]:
            answer.answer.append(dns.rrset.from_text(question.name, 300, "IN", "MX", *self.zone[domain]))
        self._transport.sendto(answer.to_wire(), addr)


@asynccontextmanager
async def name_server(
    zone: Mapping[str, Sequence[str]], silent: frozenset[str] | None = frozenset()
) -> AsyncGenerator[NameServer]:
    """Run one on 127.0.0.1."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(
        lambda: NameServer(zone, silent), local_addr=("127.0.0.1", 0)
    )
    try:
        yield server
    finally:
        transport.close()
