"""Logging in: said once, under TLS, and what is said is in no error, log, trace or repr."""

from __future__ import annotations

import asyncio
import logging
import ssl
import traceback
from base64 import b64encode

import pytest

from asyncsmtp.client.config.relay import Login, Relay
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import AuthenticationRefused, ExtensionNotSupported, InsecureConnection, Refused, SMTPError
from asyncsmtp.protocol.auth.auth import Secret
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import DEFAULT_REPLY, Action, Fin, Hang, ScriptedRelay, Stage
from tests.client.support import QUICK, Trail, commands, message, relay_of

pytestmark = pytest.mark.usefixtures("nothing_leaks")

CANARY = "hunter2-canary"
USER = "ann@example.org"
PLAIN = b64encode(f"\0{USER}\0{CANARY}".encode()).decode()
FORMS = (CANARY, b64encode(CANARY.encode()).decode(), PLAIN)


async def _token() -> str:
    await asyncio.sleep(0)
    return CANARY


LOGINS = {"password": Login(USER, Secret(CANARY)), "token": Login(USER, token=_token)}


@pytest.mark.parametrize(("mechanism", "login"), [("PLAIN", "password"), ("LOGIN", "password"), ("XOAUTH2", "token")])
async def test_each_mechanism_logs_in(
    mechanism: str, login: str, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """W-46, W-47 and W-50; the token comes from a coroutine."""
    users = {USER: CANARY}
    async with ScriptedRelay(tls=server_tls, users=users, mechanisms=[mechanism], needs_auth=True) as server:
        relay = relay_of(server, security=Security.STARTTLS, context=client_tls, login=LOGINS[login])
        async with Session(relay) as session:
            assert (await session.send(message())).accepted
        assert [(a.mechanism, a.user, a.accepted) for a in server.auth_attempts] == [(mechanism, USER, True)]
        assert server.received[0].user == USER


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_a_refused_password_is_said_once(mechanism: str) -> None:
    """D-08, AU-02, W-51: no walk through the mechanisms, no second try; lock-outs begin like that."""
    async with ScriptedRelay(users={USER: "another"}, mechanisms=[mechanism, "XOAUTH2", "PLAIN", "LOGIN"]) as server:
        with pytest.raises(AuthenticationRefused, match="535") as caught:
            await Session(relay_of(server, login=LOGINS["password"], cleartext_login=True)).connect()
        assert caught.value.reply.code == 535
        assert len(server.auth_attempts) == 1
        await server.wait_until_idle()
    assert commands(server)[-1] == "QUIT"


async def test_a_refused_token_ends_in_the_relays_own_words() -> None:
    """W-50: the challenge with the reason is answered with an empty line, and the 535 behind it is raised."""
    async with ScriptedRelay(users={USER: "another"}, mechanisms=["XOAUTH2"]) as server:
        with pytest.raises(AuthenticationRefused, match="535"):
            await Session(relay_of(server, login=LOGINS["token"], cleartext_login=True)).connect()


@pytest.mark.parametrize(
    "code", ["454 4.7.0 later", "500 5.5.2 what", "503 5.5.1 no", "538 5.7.11 no", "432 4.7.12 no"]
)
async def test_no_other_reply_is_a_success(code: str) -> None:
    """W-54."""
    async with ScriptedRelay({Stage.AUTH: code}, users={USER: CANARY}) as server:
        with pytest.raises(Refused, match=code[:3]):
            await Session(relay_of(server, login=LOGINS["password"], cleartext_login=True)).connect()


async def test_endless_challenges_end() -> None:
    """AU-06, W-52: after a few rounds it is cancelled."""
    script: dict[Stage, Action] = {Stage.AUTH: "334 VXNlcm5hbWU6", Stage.RESPONSE: "334 VXNlcm5hbWU6"}
    async with ScriptedRelay(script, users={USER: CANARY}, mechanisms=["LOGIN"]) as server, asyncio.timeout(5):
        with pytest.raises(SMTPError):
            await Session(relay_of(server, login=LOGINS["password"], cleartext_login=True)).connect()
        assert "C: *" in server.dialogue


@pytest.mark.parametrize("login", LOGINS)
async def test_in_clear_no_octet_of_auth_is_said(login: str, trail: Trail) -> None:
    """D-09, AU-01: the relay offers it in clear, and gets nothing."""
    async with ScriptedRelay(users={USER: CANARY}) as server:
        with pytest.raises(InsecureConnection):
            await Session(relay_of(server, login=LOGINS[login]), trace=trail).connect()
        await server.wait_until_idle()
    assert commands(server) == ["EHLO", "QUIT"]
    assert server.auth_attempts == []


async def test_a_relay_without_a_fitting_mechanism_has_an_error_of_its_own() -> None:
    """W-53."""
    async with ScriptedRelay() as server:
        with pytest.raises(ExtensionNotSupported, match="AUTH"):
            await Session(relay_of(server, login=LOGINS["password"], cleartext_login=True)).connect()


async def test_a_token_source_that_fails_closes_the_connection() -> None:
    async def fail() -> str:
        raise RuntimeError("no refresh token")

    async with ScriptedRelay(users={USER: CANARY}) as server:
        with pytest.raises((RuntimeError, SMTPError), match="no refresh token"):
            await Session(relay_of(server, login=Login(USER, token=fail), cleartext_login=True)).connect()
        assert server.auth_attempts == []


ENDINGS: dict[str, dict[Stage, Action]] = {
    "accepted": {},
    "535": {Stage.AUTH: "535 5.7.8 no"},
    "535 with an echo": {Stage.AUTH: f"535 5.7.8 {CANARY} is wrong, and so is {PLAIN}"},
    "535 with an echo in lines": {Stage.AUTH: f"535-you said\r\n535-{PLAIN}\r\n535 {CANARY}"},
    "454 with an echo": {Stage.AUTH: f"454 4.7.0 {PLAIN}"},
    "421 with an echo": {Stage.AUTH: f"421 4.7.0 {PLAIN}"},
    "235 with an echo": {Stage.AUTH: f"235 2.7.0 welcome, {CANARY}"},
    "250 with an echo": {Stage.AUTH: f"250 {PLAIN}".encode() + b"\r\n"},
    "garbage with an echo": {Stage.AUTH: f"AUTH PLAIN {PLAIN}".encode() + b"\r\n"},
    "a reply too many with an echo": {Stage.AUTH: (DEFAULT_REPLY, f"250 {CANARY}\r\n".encode())},
    "challenge with an echo": {Stage.AUTH: f"334 {PLAIN}", Stage.RESPONSE: f"535 {CANARY}"},
    "challenge that is no base64": {Stage.AUTH: f"334 {CANARY}!", Stage.RESPONSE: f"501 {CANARY}"},
    "fin": {Stage.AUTH: Fin()},
    "hang": {Stage.AUTH: Hang()},
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "XOAUTH2"])
async def test_the_secret_is_nowhere(
    ending: str, mechanism: str, trail: Trail, caplog: pytest.LogCaptureFixture
) -> None:
    """AU-08, AU-09: not in errors, tracebacks and their locals, logs, traces, reprs; not even where it is echoed."""
    caplog.set_level(logging.DEBUG)
    login = LOGINS["token" if mechanism == "XOAUTH2" else "password"]
    shown: list[str] = []
    async with ScriptedRelay(ENDINGS[ending], users={USER: CANARY}, mechanisms=[mechanism]) as server:
        relay = relay_of(server, login=login, cleartext_login=True, timeouts=QUICK)
        session = Session(relay, trace=trail)
        try:
            await session.connect()
            delivery = await session.send(message())
            shown += [repr(delivery), str(delivery)]
        except SMTPError as error:
            shown += _told_by(error)
        await session.aclose()
    shown += [repr(relay), str(relay), repr(session), repr(login), *trail.lines, *caplog.messages, caplog.text]
    for form in FORMS:
        assert [text for text in shown if form in text] == []


def _told_by(error: BaseException) -> list[str]:
    """All that an error can show of itself, its causes and the frames it came through; ours, not the test's."""
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    texts = [str(error), repr(error), repr(vars(error))]
    while report is not None:
        for frame in report.stack:
            if "/asyncsmtp/" in frame.filename and "/tests/" not in frame.filename:
                texts += [f"{name}={value}" for name, value in (frame.locals or {}).items()]
        report = report.__cause__ or report.__context__  # type: ignore[assignment]
    return texts


async def test_a_pool_shows_no_secret_either(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with ScriptedRelay(ENDINGS["535 with an echo"], users={USER: CANARY}) as server:
        relay = relay_of(server, login=LOGINS["password"], cleartext_login=True)
        async with Pool(relay) as pool:
            results = await asyncio.gather(*(pool.send(message(n)) for n in range(5)), return_exceptions=True)
            told = [text for result in results if isinstance(result, BaseException) for text in _told_by(result)]
    for form in FORMS:
        assert [text for text in [*told, repr(pool), caplog.text] if form in text] == []


async def test_a_url_with_a_password_is_refused_without_showing_it() -> None:
    """AU-11: it would be in the history of a shell and in a list of processes."""
    with pytest.raises(ValueError, match="must not hold a password") as caught:
        Relay.from_url(f"smtp://ann:{CANARY}@relay.example")
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("secret", [f"{CANARY}\0", f"{CANARY}\ud800"], ids=["NUL", "surrogate"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_a_secret_that_cannot_be_said_is_refused_without_showing_it(secret: str, mechanism: str) -> None:
    """AU-13: NUL would part PLAIN's fields anew; nothing is sent."""
    async with ScriptedRelay(users={USER: CANARY}, mechanisms=[mechanism]) as server:
        with pytest.raises(SMTPError) as caught:
            await Session(relay_of(server, login=Login(USER, Secret(secret)), cleartext_login=True)).connect()
        assert [text for text in _told_by(caught.value) if CANARY in text] == []
        assert not any(attempt.accepted for attempt in server.auth_attempts)
