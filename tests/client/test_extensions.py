"""What a sender asks for beyond delivery, over loopback: said where it is offered, refused here where it is not."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import DeliveryInDoubt, ExtensionNotSupported, InsecureConnection, LocalProtocolError
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.commands import STARTTLS
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.delivery import Outcome
from asyncsmtp.protocol.envelope import DeliverBy, Envelope, Mailbox, MailOptions, Notify, RcptOptions, Ret, ValidSince
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import NO_REPLY, OFFERS, Fin, Rule, ScriptedRelay, Stage, StageContext
from tests.client.support import message, relay_of

pytestmark = pytest.mark.usefixtures("nothing_leaks")

JUNE = datetime(2031, 6, 1, 12, tzinfo=UTC)
EVERYTHING = (*OFFERS, "DSN", "DELIVERBY", "FUTURERELEASE 86400 2032-01-01T00:00:00Z", "MT-PRIORITY", "RRVS")
PAIR = ("bob@example.net", "carol@example.net")


async def test_a_relay_understands_all_that_is_asked_for() -> None:
    """W-81: the scripted relay reads each parameter by a grammar of its own."""
    mail_options = MailOptions(
        ret=Ret.FULL,
        envid="run 7, row 1",
        deliver_by=DeliverBy(600, trace=True),
        hold_for=60,
        priority=-2,
        auth=Mailbox.parse("e=mc+2@example.org"),
    )
    bob = RcptOptions(Notify.SUCCESS | Notify.DELAY, "rfc822;b+o=b@example.org", ValidSince(JUNE, carry_on=True))
    carol = RcptOptions(Notify.NEVER, "utf-8;zoë@example.org")
    asking = Message.of(message(to=PAIR), mail_options=mail_options, rcpt_options=[bob, carol])
    async with ScriptedRelay(offers=EVERYTHING, users={"ann": "secret"}) as server:
        async with Session(relay_of(server)) as session:
            assert (await session.send(asking)).accepted
            assert (await session.send(message(2))).accepted
        first, second = server.received
    assert first.parameters == {
        "SIZE": str(asking.content.size),
        "RET": "FULL",
        "ENVID": "run+207,+20row+201",
        "BY": "600;RT",
        "HOLDFOR": "60",
        "MT-PRIORITY": "-2",
        "AUTH": "e+3Dmc+2B2@example.org",
    }
    assert first.rcpt_parameters == (
        {"NOTIFY": "SUCCESS,DELAY", "ORCPT": "rfc822;b+2Bo+3Db@example.org", "RRVS": "2031-06-01T12:00:00Z;C"},
        {"NOTIFY": "NEVER", "ORCPT": r"utf-8;zo\x{EB}@example.org"},
    )
    assert set(second.parameters) == {"SIZE"}
    assert second.rcpt_parameters == ({},)


async def test_what_is_not_offered_costs_nothing_but_itself(server: ScriptedRelay) -> None:
    """WO-12, W-81: nothing of it is said, and the next message goes over the same session."""
    async with Session(relay_of(server)) as session:
        said = len(server.dialogue)
        for mail_options in (
            MailOptions(envid="x"),
            MailOptions(hold_until=JUNE),
            MailOptions(priority=1),
            MailOptions(auth="<>"),
        ):
            with pytest.raises(ExtensionNotSupported):
                await session.send(Message.of(message(), mail_options=mail_options))
        with pytest.raises(ExtensionNotSupported, match="DSN"):
            await session.send(Message.of(message(), rcpt_options=RcptOptions(Notify.NEVER)))
        assert len(server.dialogue) == said
        assert (await session.send(message())).accepted


async def test_a_pool_refuses_it_just_so(server: ScriptedRelay) -> None:
    """One message of many asks for too much: the others are sent."""
    async with Pool(relay_of(server), sessions=1) as pool:
        with pytest.raises(ExtensionNotSupported, match="DSN"):
            await pool.send(Message.of(message(), mail_options=MailOptions(ret=Ret.HDRS)))
        assert (await pool.send(message())).accepted
    assert server.connections == 1


@pytest.mark.parametrize("verified", [True, False])
async def test_tls_is_required_of_others_by_a_session_that_is_verified(
    verified: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """TL-14, RFC 8689 §4.2.1: a certificate that nobody verified protects nothing."""
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    strict = Message.of(message(), mail_options=MailOptions(require_tls=True))
    async with ScriptedRelay(offers=(*OFFERS, "REQUIRETLS"), tls=server_tls) as server:
        relay = relay_of(server, security=Security.STARTTLS, context=client_tls if verified else blind)
        async with Session(relay) as session:
            if verified:
                assert (await session.send(strict)).accepted
            else:
                with pytest.raises(InsecureConnection, match="REQUIRETLS"):
                    await session.send(strict)
    assert [each.parameters.keys() for each in server.received] == [{"SIZE", "REQUIRETLS"}] * verified


async def test_a_relays_limits_are_kept() -> None:
    """RFC 9422: more recipients than it takes go in parts, and one result tells of each; all or nothing cannot."""
    paths = [f"r{number}@example.net" for number in range(5)]

    def no_r3(context: StageContext) -> str | None:
        return "550 5.1.1 no such user" if b"r3@" in context.line else None

    marks = []

    async def mark() -> None:
        marks.append(1)

    async with (
        ScriptedRelay({Stage.RCPT: no_r3}, offers=(*OFFERS, "LIMITS RCPTMAX=2")) as server,
        Session(relay_of(server)) as session,
    ):
        delivery = await session.transact(Envelope.of("from@example.org", paths), message().content, before_end=mark)
        with pytest.raises(ExtensionNotSupported, match="the relay accepts 2 at once"):
            await session.transact(Envelope.of(None, paths, all_or_nothing=True), message().content)
    assert [each.forward_paths for each in server.received] == [tuple(paths[:2]), (paths[2],), (paths[4],)]
    assert [outcome.value for outcome in delivery.outcomes] == [*["accepted"] * 3, "rejected", "accepted"]
    assert [reply.code for reply in delivery.replies] == [250, 250, 250, 550, 250]
    assert len({str(reply) for reply in delivery.replies}) == 4  # each part has the reply to its own content
    assert marks == [1]


@pytest.mark.parametrize(
    ("script", "outcomes"),
    [
        ({Stage.MAIL: {2: "451 4.3.0 later"}}, ["accepted", "deferred", "accepted"]),
        ({Stage.MAIL: {2: Fin()}}, ["accepted", "deferred", "deferred"]),
        ({Stage.MAIL: {1: "550 5.7.1 not you", 2: "550 5.7.1 not you", 3: "550 5.7.1 not you"}}, ["rejected"] * 3),
        ({Stage.END_OF_DATA: {2: "554 5.6.0 no"}}, ["accepted", "rejected", "accepted"]),
    ],
)
async def test_what_happens_to_one_part_is_not_the_other_s_fate(
    script: Mapping[Stage, Rule], outcomes: list[str]
) -> None:
    """RFC 9422: nor is a part sent again that was: what was not said is deferred, for the caller to send."""
    paths = [f"r{number}@example.net" for number in range(3)]
    async with (
        ScriptedRelay(script, offers=(*OFFERS, "LIMITS RCPTMAX=1")) as server,
        Session(relay_of(server)) as session,
    ):
        delivery = await session.transact(Envelope.of("from@example.org", paths), message().content)
    assert [outcome.value for outcome in delivery.outcomes] == outcomes
    taken = [path for path, outcome in zip(paths, outcomes, strict=True) if outcome == "accepted"]
    assert [each.forward_paths[0] for each in server.received] == taken


async def test_a_part_in_doubt_is_named_beside_what_is_known() -> None:
    """RFC 1047, RFC 9422: who sends again must not send to those who have it."""
    paths = [f"r{number}@example.net" for number in range(3)]
    async with (
        ScriptedRelay({Stage.END_OF_DATA: {2: (NO_REPLY, Fin())}}, offers=(*OFFERS, "LIMITS RCPTMAX=1")) as server,
        Session(relay_of(server)) as session,
    ):
        with pytest.raises(DeliveryInDoubt) as caught:
            await session.transact(Envelope.of("from@example.org", paths), message().content)
    assert list(map(str, caught.value.envelope.forward_paths)) == paths[1:2]
    assert caught.value.delivery is not None
    assert [outcome.value for outcome in caught.value.delivery.outcomes] == ["accepted", "deferred", "deferred"]


def a_hundred(context: StageContext) -> str | None:
    """RFC 5321 §4.5.3.1.10, with the code of RFC 821."""
    return "552 too many recipients" if len(context.forward_paths) >= 100 else None


async def test_of_too_many_recipients_the_rest_is_sent_again() -> None:
    """PC-f, WI-22: a relay takes 100 of 250, says 552 to the others, and takes those in the next two rounds."""
    paths = [f"r{number}@example.net" for number in range(250)]
    left: Envelope | None = Envelope.of("from@example.org", paths)
    taken = []
    async with ScriptedRelay({Stage.RCPT: a_hundred}) as server, Session(relay_of(server)) as session:
        while left is not None:
            delivery = await session.transact(left, message().content)
            taken.append(delivery.outcomes.count(Outcome.ACCEPTED))
            left = delivery.deferred
    assert taken == [100, 100, 50]
    assert [path for each in server.received for path in each.forward_paths] == paths


async def test_any_keyword_can_be_masked() -> None:
    """A relay may be known to lie about one of them."""
    async with ScriptedRelay(offers=(*OFFERS, "DSN", "LIMITS RCPTMAX=1")) as server:
        relay = relay_of(server, ignored_extensions=frozenset({"size", "LIMITS", "dsn", "PIPELINING"}))
        async with Session(relay) as session:
            assert (await session.send(message(to=PAIR))).accepted
            with pytest.raises(ExtensionNotSupported, match="DSN"):
                await session.send(Message.of(message(), mail_options=MailOptions(ret=Ret.FULL)))
    assert server.received[0].parameters == {}


async def test_no_second_starttls_is_said(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """W-43: an error without writing; the session goes on."""
    async with ScriptedRelay(tls=server_tls) as server:
        relay = relay_of(server, security=Security.STARTTLS, context=client_tls)
        async with Session(relay) as session:
            said = len(server.dialogue)
            with pytest.raises(LocalProtocolError, match="STARTTLS may not be sent"):
                await session.ask(STARTTLS)
            assert len(server.dialogue) == said
            assert (await session.send(message())).accepted


async def test_bytes_that_need_bdat_never_go_by_data() -> None:
    """RFC 3030 §3: a NUL and a bare LF arrive as they are, in a chunk, also in a dialogue that is not streamed."""
    photo = replace(message(), content=Content.from_binary(b"Subject: photo\r\n\r\n\x00\n.\n"))
    async with ScriptedRelay(offers=(*OFFERS, "BINARYMIME")) as server, Session(relay_of(server)) as session:
        assert (await session.send(photo)).accepted
        assert (await session.send(message(2))).accepted
    assert server.received[0].content == bytes(photo.content)
    assert [line for line in server.dialogue if line.startswith(("C: DATA", "C: BDAT"))] == [
        "C: BDAT 22 LAST",
        "C: DATA",
    ]


async def test_binary_bytes_need_pipelining_too() -> None:
    """Chunks are said one behind the other."""
    photo = replace(message(), content=Content.from_binary(b"Subject: photo\r\n\r\n\x00"))
    offers = (*OFFERS, "BINARYMIME")
    async with ScriptedRelay(offers=offers, hides=["PIPELINING"]) as server, Session(relay_of(server)) as session:
        with pytest.raises(ExtensionNotSupported, match="PIPELINING"):
            await session.send(photo)
    assert server.received == []
