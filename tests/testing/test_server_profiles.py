"""The behavior of real servers after the end of data, each as it was observed with the server itself."""

from __future__ import annotations

import pytest

from asyncsmtp.testing import Stage
from asyncsmtp.testing.server_profiles import (
    CHASQUID,
    CLEARS_INPUT_AFTER_REFUSAL,
    COURIER,
    DOVECOT_SUBMISSION,
    GO_SMTP,
    HARAKA,
    OPENSMTPD,
    POSTFIX,
    REAL_SERVERS,
    ServerProfile,
)
from tests.testing.peer import Peer, codes

MAIL, RCPT = "MAIL FROM:<ann@example.org>\r\n", "RCPT TO:<bob@example.net>\r\n"
GROUP = MAIL + RCPT + "DATA\r\n"
CONTENT = "Subject: x\r\n\r\nx\r\n.\r\n"
CHUNK = "BDAT 3 LAST\r\nx\r\n"
pytestmark = pytest.mark.both_loops


async def replies(peer: Peer, number: int) -> list[int]:
    return [codes(await peer.reply())[0] for _ in range(number)]


@pytest.mark.parametrize("server", [s for s in REAL_SERVERS if s is not OPENSMTPD], ids=lambda s: s.name)
async def test_a_group_is_accepted_inside_a_transaction(server: ServerProfile) -> None:
    """Column a: MAIL RCPT DATA in one write works wherever PIPELINING is offered."""
    async with server.relay() as relay, await Peer.connect(relay) as peer:
        assert "PIPELINING" in await peer.greet()
        peer.write(GROUP)
        assert await replies(peer, 3) == [250, 250, 354]
        peer.write(CONTENT)
        assert await replies(peer, 1) == [250]


async def test_opensmtpd_refuses_a_group_it_did_not_offer() -> None:
    """Column a, its last line."""
    async with OPENSMTPD.relay() as relay, await Peer.connect(relay) as peer:
        offered = await peer.greet()
        assert "PIPELINING" not in offered
        assert "CHUNKING" not in offered
        peer.write(GROUP)
        assert await replies(peer, 1) == [500]
        peer.write(MAIL)
        assert await replies(peer, 1) == [250]


@pytest.mark.parametrize("rset", ["", "RSET\r\n"])
async def test_postfix_keeps_input_after_the_end_of_data(rset: str) -> None:
    """Columns b and bR."""
    async with POSTFIX.relay() as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write(GROUP)
        await replies(peer, 3)
        peer.write(CONTENT + rset + GROUP)
        assert await replies(peer, 5 if rset else 4) == [250] * (4 if rset else 3) + [354]


@pytest.mark.parametrize("rset", ["", "RSET\r\n"])
@pytest.mark.parametrize("server", [COURIER, CHASQUID], ids=lambda s: s.name)
async def test_courier_and_chasquid_discard_input_after_the_end_of_data(server: ServerProfile, rset: str) -> None:
    """Columns b and bR: silence, and the session goes on as if nothing had been sent."""
    async with server.relay() as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write(GROUP)
        await replies(peer, 3)
        peer.write(CONTENT + rset + GROUP)
        assert await replies(peer, 1) == [250]
        assert relay.count_stage(Stage.MAIL) == 1
        peer.write("NOOP\r\n")
        assert await peer.reply() == "250 2.0.0 ok"
        assert relay.count_stage(Stage.MAIL) == 1


@pytest.mark.parametrize(("behind", "refused"), [("RSET\r\n", 1), (GROUP, 3)])
async def test_haraka_refuses_each_command_after_the_end_of_data(behind: str, refused: int) -> None:
    """Columns b and bR: the message before is accepted."""
    async with HARAKA.relay() as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write(GROUP)
        await replies(peer, 3)
        peer.write(CONTENT + behind)
        assert await replies(peer, 1 + refused) == [250] + [503] * refused
        assert len(relay.received) == 1
        peer.write(MAIL)
        assert await replies(peer, 1) == [250]


@pytest.mark.parametrize("content", ["DATA\r\n", CHUNK])
async def test_dovecot_crashes_on_mail_after_the_content_it_relayed(content: str) -> None:
    """Columns b and c: the first message is out, and no reply says so."""
    async with DOVECOT_SUBMISSION.relay() as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write(MAIL + RCPT)
        await replies(peer, 2)
        if content == CHUNK:
            peer.write(CHUNK + MAIL + RCPT + CHUNK)
        else:
            peer.write(content)
            await replies(peer, 1)
            peer.write(CONTENT + GROUP)
        assert await peer.reader.read() == b""
        assert len(relay.received) == 1


async def test_dovecot_is_well_when_rset_comes_first() -> None:
    """Columns bR and cR."""
    async with DOVECOT_SUBMISSION.relay() as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write((MAIL + RCPT + CHUNK + "RSET\r\n") * 3)
        assert await replies(peer, 12) == [250] * 12
        assert len(relay.received) == 3


async def test_go_smtp_runs_a_refused_chunk_as_commands() -> None:
    """Column cr: the relay takes the bytes of a message for commands."""
    script = {Stage.RCPT: "550 5.1.1 no such user"}
    async with GO_SMTP.relay(script) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write(MAIL + RCPT + "BDAT 6 LAST\r\nRSET\r\n" + MAIL)
        assert await replies(peer, 5) == [250, 550, 554, 250, 250]


async def test_input_is_gone_after_a_refusal() -> None:
    """WI-18: PIPELINING on offer, and the rest of the group lost after each 5yz."""
    script = {Stage.RCPT: "550 5.1.1 no such user"}
    async with CLEARS_INPUT_AFTER_REFUSAL.relay(script) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write(GROUP)
        assert await replies(peer, 2) == [250, 550]
        peer.write("RSET\r\n")
        assert await replies(peer, 1) == [250]
        assert relay.count_stage(Stage.DATA) == 0
