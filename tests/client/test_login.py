"""Logging in over sockets: every mechanism, servers that are up to no good, and tokens that expire."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import pytest
import trustme

from asyncsmtp.client.config import login_config
from asyncsmtp.client.config.login_config import CredentialsProvider, Login, Token, TokenSource
from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import (
    AuthenticationRefused,
    ConnectFailed,
    ExtensionNotSupported,
    InvalidArgument,
    Refused,
    ServerNotAuthenticated,
    TokenFailed,
)
from asyncsmtp.protocol.auth.auth import Bearer, External, Password, Secret
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import Fin, ScriptedRelay, ServerScram, Stage
from tests.client.support import Trail, message, relay_of

pytestmark = pytest.mark.usefixtures("nothing_leaks")

ANN = Login("ann", Secret("hunter2"))
USERS = {"ann": "hunter2"}


async def log_in(server: ScriptedRelay, login: Login, **settings: object) -> None:
    """Open a session over a wire we trust, and close it."""
    settings.setdefault("cleartext_login", True)
    async with Session(relay_of(server, login=login, **settings)):
        pass


def attempted(server: ScriptedRelay) -> list[tuple[str, bool]]:
    return [(attempt.mechanism, attempt.accepted) for attempt in server.auth_attempts]


@pytest.mark.parametrize(
    ("login", "mechanism"),
    [
        (ANN, "PLAIN"),
        (ANN, "LOGIN"),
        (ANN, "SCRAM-SHA-1"),
        (ANN, "SCRAM-SHA-256"),
        (ANN, "SCRAM-SHA-512"),
        (Login("ann", Secret("hunter2"), mechanisms=("CRAM-MD5",)), "CRAM-MD5"),
        (Login.by_certificate("ann"), "EXTERNAL"),
        (Login.by_certificate(), "EXTERNAL"),
    ],
)
async def test_each_mechanism_logs_in(login: Login, mechanism: str) -> None:
    """W-46 to W-48."""
    async with ScriptedRelay(users=USERS, mechanisms=[mechanism]) as server:
        await log_in(server, login)
    assert attempted(server) == [(mechanism, True)]


async def test_the_safest_that_is_offered_is_used() -> None:
    """AU-02."""
    async with ScriptedRelay(users=USERS, mechanisms=["LOGIN", "PLAIN", "SCRAM-SHA-1", "CRAM-MD5"]) as server:
        await log_in(server, ANN)
        await log_in(server, Login("ann", Secret("hunter2"), mechanisms=("LOGIN",)))
    assert attempted(server) == [("SCRAM-SHA-1", True), ("LOGIN", True)]


@pytest.fixture
def bound(ca: trustme.CA) -> tuple[ssl.SSLContext, bytes]:
    """A relay's context, and the hash of its certificate, which is signed with SHA-256."""
    certificate = ca.issue_cert("relay.example")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    der = ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())
    return context, hashlib.sha256(der).digest()


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.IMPLICIT_TLS])
async def test_a_login_is_bound_to_the_certificate(
    security: Security, bound: tuple[ssl.SSLContext, bytes], client_tls: ssl.SSLContext
) -> None:
    """AU-04: over both kinds of TLS; the server computes the binding for itself."""
    context, binding = bound
    mechanisms = {"SCRAM-SHA-256": ServerScram("sha256", binding), "SCRAM-SHA-256-PLUS": ServerScram("sha256", binding)}
    implicit = security is Security.IMPLICIT_TLS
    async with ScriptedRelay(users=USERS, mechanisms=mechanisms, tls=context, implicit_tls=implicit) as server:
        await log_in(server, ANN, security=security, context=client_tls, cleartext_login=False)
    assert attempted(server) == [("SCRAM-SHA-256-PLUS", True)]


async def test_a_login_that_somebody_passes_on_is_refused(
    bound: tuple[ssl.SSLContext, bytes], client_tls: ssl.SSLContext
) -> None:
    """AU-04: another certificate in between, however valid."""
    mechanisms = {"SCRAM-SHA-256-PLUS": ServerScram("sha256", b"the hash of another certificate")}
    async with ScriptedRelay(users=USERS, mechanisms=mechanisms, tls=bound[0]) as server:
        with pytest.raises(AuthenticationRefused, match="535"):
            await log_in(server, ANN, security=Security.STARTTLS, context=client_tls)
    assert attempted(server) == [("SCRAM-SHA-256-PLUS", False)]


async def test_a_relay_that_knows_no_such_binding_gets_scram_without(
    bound: tuple[ssl.SSLContext, bytes], client_tls: ssl.SSLContext
) -> None:
    """AU-04: it refuses at once, as Exim does that knows other types; no proof was made, and no PLAIN follows."""
    moves = {Stage.AUTH: {1: "535 5.7.8 what binding"}}
    offered = ["PLAIN", "SCRAM-SHA-256"]
    mechanisms = {"SCRAM-SHA-512-PLUS": ServerScram("sha512"), "SCRAM-SHA-256-PLUS": ServerScram("sha256")}
    mechanisms |= {name: ServerScram("sha256") for name in offered}
    async with ScriptedRelay(moves, users=USERS, mechanisms=mechanisms, tls=bound[0]) as server:
        await log_in(server, ANN, security=Security.STARTTLS, context=client_tls)
    said = [line for line in server.dialogue if line.startswith("C: AUTH")]
    assert [line.split()[2] for line in said] == ["SCRAM-SHA-512-PLUS", "SCRAM-SHA-256"]


async def test_a_relay_that_hangs_up_at_a_binding_has_an_error_of_its_own(
    bound: tuple[ssl.SSLContext, bytes], client_tls: ssl.SSLContext
) -> None:
    """AU-04: as Dovecot 2.4.1 does; the error says which way out there is. At other mechanisms there is none."""
    mechanisms = {"SCRAM-SHA-256-PLUS": ServerScram("sha256"), "SCRAM-SHA-256": ServerScram("sha256")}
    async with ScriptedRelay({Stage.AUTH: Fin()}, users=USERS, mechanisms=mechanisms, tls=bound[0]) as server:
        settings = {"security": Security.STARTTLS, "context": client_tls}
        with pytest.raises(ConnectFailed, match="name another mechanism in the login of"):
            await log_in(server, ANN, **settings)
        with pytest.raises(ConnectFailed, match=r"hung up: try again$"):
            await log_in(server, Login("ann", Secret("hunter2"), mechanisms=("SCRAM-SHA-256",)), **settings)


async def test_a_plus_that_somebody_took_away_is_noticed(
    bound: tuple[ssl.SSLContext, bytes], client_tls: ssl.SSLContext
) -> None:
    """AU-04: we say `y`, and a relay that offers -PLUS refuses; one that does not is content."""
    context, binding = bound
    for side, accepted in ((ServerScram("sha256", binding), False), (ServerScram("sha256"), True)):
        async with ScriptedRelay(users=USERS, mechanisms={"SCRAM-SHA-256": side}, tls=context) as server:
            with nullcontext() if accepted else pytest.raises(AuthenticationRefused):
                await log_in(server, ANN, security=Security.STARTTLS, context=client_tls)
        assert attempted(server) == [("SCRAM-SHA-256", accepted)]


def replacing(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda challenge: challenge.replace(old, new)


@pytest.mark.parametrize(
    "server_side",
    [
        ServerScram("sha256", alter_challenge=replacing(b"i=4096", b"i=1000000000")),
        ServerScram("sha256", alter_challenge=replacing(b"i=4096", b"i=1")),
        ServerScram("sha256", alter_challenge=replacing(b"r=", b"r=x")),
        ServerScram("sha256", nonce=b""),
        ServerScram("sha256", alter_challenge=lambda challenge: b"m=x," + challenge),
        ServerScram("sha256", alter_challenge=lambda challenge: b"e=other-error"),
        ServerScram("sha256", alter_challenge=replacing(b"v=", b"v=AAAA")),
        ServerScram("sha256", skips_proof=True),
    ],
    ids=["i=10^9", "i=1", "another nonce", "no nonce of its own", "m=", "e=", "wrong v=", "235 without v="],
)
async def test_a_server_that_is_up_to_no_good_gets_neither_password_nor_mail(server_side: ServerScram) -> None:
    """AU-03, AU-07: eight scripts; one AUTH, no PLAIN behind it, and no MAIL."""
    mechanisms = {"SCRAM-SHA-256": server_side, "PLAIN": ServerScram("sha256")}
    async with ScriptedRelay(users=USERS, mechanisms=mechanisms) as server:
        with pytest.raises(AuthenticationRefused) as refused:
            await log_in(server, ANN)
    assert isinstance(refused.value, ServerNotAuthenticated) is server_side.skips_proof
    verbs = [line.split()[1] for line in server.dialogue if line.startswith("C: ")]
    assert verbs.count("AUTH") == 1
    assert "MAIL" not in verbs


async def test_a_million_iterations_do_not_stop_the_event_loop() -> None:
    """AU-03: the most that is accepted is computed in a thread, and everything else goes on."""
    slowest = 0.0

    async def watch() -> None:
        nonlocal slowest
        clock = asyncio.get_running_loop().time
        while True:
            before = clock()
            await asyncio.sleep(0.005)
            slowest = max(slowest, clock() - before)

    server_side = ServerScram("sha512", iterations=1_000_000, skips_proof=True)
    async with ScriptedRelay(users=USERS, mechanisms={"SCRAM-SHA-512": server_side}) as server:
        watching = asyncio.create_task(watch())
        began = asyncio.get_running_loop().time()
        with pytest.raises(ServerNotAuthenticated):
            await log_in(server, ANN)
        took = asyncio.get_running_loop().time() - began
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert slowest < max(0.25, took / 2)


async def test_no_secret_is_in_the_dialogue(trail: Trail) -> None:
    """AU-08: neither AUTH, nor an answer, nor a challenge."""
    async with (
        ScriptedRelay(users=USERS, mechanisms=["SCRAM-SHA-256"]) as server,
        Session(relay_of(server, login=ANN, cleartext_login=True), trace=trail),
    ):
        pass
    login = [line for line in trail.lines if "***" in line]
    assert login == ["C: AUTH SCRAM-SHA-256 ***", "S: 334 ***", "C: ***", "S: 334 ***", "C: ***"]


# tokens


class Source:
    """Fetches one token after the other, and counts."""

    def __init__(self, tokens: Sequence[str | Token | Exception]) -> None:
        self.asked = 0
        self.together = 0
        self._tokens = tokens
        self._now = 0

    async def __call__(self) -> str | Token:
        self._now += 1
        self.together = max(self.together, self._now)
        await asyncio.sleep(0.01)
        self._now -= 1
        token = self._tokens[min(self.asked, len(self._tokens) - 1)]
        self.asked += 1
        if isinstance(token, Exception):
            raise token
        return token


BEARER = {"users": {"ann": "fresh"}, "mechanisms": ["OAUTHBEARER"]}


@pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "XOAUTH2"])
async def test_a_token_that_is_refused_is_fetched_anew_once(mechanism: str) -> None:
    """AU-10, W-50: on a new connection, since many a relay hangs up behind a 535."""
    source = Source(["expired", "fresh"])
    async with ScriptedRelay(users={"ann": "fresh"}, mechanisms=[mechanism]) as server:
        await log_in(server, Login("ann", token=source))
    assert attempted(server) == [(mechanism, False), (mechanism, True)]
    assert source.asked == 2
    assert server.connections == 2


@pytest.mark.parametrize(("tokens", "attempts"), [(["expired", "also expired", "fresh"], 2), (["expired"], 1)])
async def test_there_is_one_retry_and_none_with_the_same_token(tokens: list[str], attempts: int) -> None:
    """AU-10, AU-02: one attempt for each set of credentials."""
    source = Source(tokens)
    async with ScriptedRelay(**BEARER) as server:  # type: ignore[arg-type]
        with pytest.raises(AuthenticationRefused, match="the token's status: invalid_token"):
            await log_in(server, Login("ann", token=source))
    assert attempted(server) == [("OAUTHBEARER", False)] * attempts
    assert source.asked == 2


async def test_a_refusal_that_is_not_about_the_token_fetches_none() -> None:
    """AU-10: 454 is for later, 501 is for us."""
    for reply in ("454 4.7.0 later", "501 5.5.4 what"):
        source = Source(["fresh"])
        async with ScriptedRelay({Stage.AUTH: reply}, **BEARER) as server:  # type: ignore[arg-type]
            with pytest.raises(Refused, match=reply[:3]):
                await log_in(server, Login("ann", token=source))
        assert source.asked == 1


async def test_a_wrong_password_is_said_once() -> None:
    """AU-02: a token may be renewed, a password may not."""
    async with ScriptedRelay(users=USERS) as server:
        with pytest.raises(AuthenticationRefused, match="535"):
            await log_in(server, Login("ann", Secret("wrong")))
    assert len(server.auth_attempts) == 1


async def test_twenty_sessions_with_an_expired_token_refresh_it_once() -> None:
    """AU-10: single flight, and the first session of the pool alone finds out (AU-12)."""
    source = Source(["expired", "fresh"])
    async with ScriptedRelay(**BEARER) as server:  # type: ignore[arg-type]
        relay = relay_of(server, login=Login("ann", token=source), cleartext_login=True)
        async with Pool(relay, sessions=20, depth=1) as pool:
            await asyncio.gather(*(pool.send(message(number)) for number in range(20)))
        assert server.connections > 1
    assert source.asked == 2
    assert [accepted for _, accepted in attempted(server)].count(False) == 1


async def test_a_token_that_expires_while_sessions_are_open_is_refreshed_once() -> None:
    """AU-10: twenty sessions are refused at a time, one refresh is made."""
    source = Source(["old", "fresh"])
    async with ScriptedRelay(**BEARER) as server:  # type: ignore[arg-type]
        relay = relay_of(server, login=Login("ann", token=source), cleartext_login=True)
        provider = CredentialsProvider(relay.login, 5.0)
        sessions = [Session(relay, credentials=provider) for _ in range(20)]
        await asyncio.gather(*(session.connect() for session in sessions))
        await asyncio.gather(*(session.aclose() for session in sessions))
    assert source.asked == 2
    assert source.together == 1


async def test_a_token_is_kept_until_a_minute_before_its_end() -> None:
    """AU-10: and one that does not say when it ends, for five minutes."""
    for tokens, asked in (
        ([Token(Secret("fresh"), 3600)], 1),
        (["fresh"], 1),
        ([Token(Secret("fresh"), login_config.REFRESH_MARGIN - 1.0)], 3),
    ):
        source = Source(tokens)
        provider = CredentialsProvider(Login("ann", token=source), 5.0)
        for _ in range(3):
            assert await provider.credentials() == Bearer("ann", Secret("fresh"))
        assert source.asked == asked


async def test_a_source_that_fails_is_not_asked_for_a_while() -> None:
    """AU-10: `invalid_grant` a thousand times over would be an attack on the issuer; one connection fewer, too."""
    source = Source([PermissionError("invalid_grant"), "fresh"])
    async with ScriptedRelay(**BEARER) as server:  # type: ignore[arg-type]
        relay = relay_of(server, login=Login("ann", token=source), cleartext_login=True)
        async with Pool(relay, sessions=5, depth=1) as pool:
            for number in range(3):
                with pytest.raises(
                    TokenFailed, match=r"PermissionError: invalid_grant.: no login was attempted"
                ) as failed:
                    await pool.send(message(number))
                assert isinstance(failed.value.__cause__, PermissionError)
        assert server.connections == 0
    assert source.asked == 1


async def test_a_source_that_failed_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The issuer may have been away."""
    monkeypatch.setattr(login_config, "FAILURE_PAUSE", 0.0)
    provider = CredentialsProvider(Login("ann", token=Source([OSError(), "fresh"])), 5.0)
    with pytest.raises(TokenFailed, match=r"failed .OSError."):
        await provider.credentials()
    assert await provider.credentials() == Bearer("ann", Secret("fresh"))


async def test_all_who_wait_share_the_failure() -> None:
    """AU-10: twenty wait, one asks."""
    source = Source([ValueError("no")])
    provider = CredentialsProvider(Login("ann", token=source), 5.0)
    results = await asyncio.gather(*(provider.credentials() for _ in range(20)), return_exceptions=True)
    assert {type(result) for result in results} == {TokenFailed}
    assert source.asked == 1


async def test_a_source_that_does_not_answer_is_given_up() -> None:
    """No await without an end."""

    async def silent() -> str:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    with pytest.raises(TokenFailed, match=r"did not answer within 0.05 s"):
        await CredentialsProvider(Login("ann", token=silent), 0.05).credentials()


async def test_who_gives_up_waiting_for_a_token_leaves_it_to_the_next() -> None:
    """Cancelled, the flight is not a failure of the source."""
    source = Source(["fresh"])
    provider = CredentialsProvider(Login("ann", token=source), 5.0)
    first, second = (asyncio.create_task(provider.credentials()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == Bearer("ann", Secret("fresh"))
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_relay_that_hangs_up_behind_a_refused_token_gets_the_fresh_one() -> None:
    """AU-10: its 535 is what counts, not the end of the connection."""
    source = Source(["expired", "fresh"])
    moves = {Stage.AUTH: {1: ("535 5.7.8 expired", Fin())}}
    async with ScriptedRelay(moves, **BEARER) as server:  # type: ignore[arg-type]
        await log_in(server, Login("ann", token=source))
    assert attempted(server)[-1] == ("OAUTHBEARER", True)
    assert source.asked == 2


# the value


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"username": ""}, "needs a user name: give username="),
        ({"username": "ann"}, "give password= or token="),
        ({"username": "ann", "password": Secret("x"), "token": Source([])}, "give password= or token="),
        (
            {"username": "ann", "password": Secret("x"), "mechanisms": ("NTLM",)},
            "NTLM.* is not a supported SASL mechanism",
        ),
        ({"username": "ann", "mechanisms": ("EXTERNAL",)}, "the client certificate names the user"),
        ({"password": Secret("x"), "mechanisms": ("EXTERNAL",)}, "the client certificate names the user"),
    ],
)
def test_a_login_that_cannot_be_meant_is_refused(settings: dict[str, object], why: str) -> None:
    """Before any connection."""
    with pytest.raises(InvalidArgument, match=why):
        Login(**settings)  # type: ignore[arg-type]


def test_a_url_may_name_the_mechanisms() -> None:
    """AU-05: so may the command line; what is unknown is refused."""
    relay = Relay.from_url("smtps://ann@relay.example?auth=cram-md5,PLAIN", password="x")
    assert relay.login == Login("ann", Secret("x"), mechanisms=("CRAM-MD5", "PLAIN"))
    for wrong in ("", "PLAIN,", "NTLM"):
        with pytest.raises(InvalidArgument, match="is not a supported SASL mechanism"):
            Relay.from_url(f"smtps://ann@relay.example?auth={wrong}", password="x")


def test_a_login_shows_no_secret() -> None:
    """AU-08."""
    assert "hunter2" not in repr(ANN)
    assert "Source" not in repr(Login("ann", token=Source(["x"])))


async def test_a_provider_has_the_credentials_of_its_login() -> None:
    """A password, a certificate, nothing; none of them is fetched anew."""
    assert await CredentialsProvider(None, 1.0).credentials() is None
    provider = CredentialsProvider(Login("ann", Secret("x"), authzid="bob"), 1.0)
    password = await provider.credentials()
    assert password == Password("ann", Secret("x"), "bob")
    assert await provider.replace(password) is None
    assert await CredentialsProvider(Login.by_certificate("bob"), 1.0).credentials() == External("bob")


async def test_a_mechanism_that_is_asked_for_and_not_offered_is_an_error() -> None:
    """AU-05, W-53: nothing weaker is used instead."""
    async with ScriptedRelay(users=USERS, mechanisms=["PLAIN", "LOGIN"]) as server:
        with pytest.raises(ExtensionNotSupported, match="and only SCRAM-SHA-256 may be used"):
            await log_in(server, Login("ann", Secret("hunter2"), mechanisms=("SCRAM-SHA-256",)))
    assert server.auth_attempts == []


TOKEN_SOURCE: TokenSource = Source(["a callable object will do"])


@pytest.mark.parametrize(("tokens", "asked"), [(["expired"], 2), (["expired", "also expired"], 2)])
async def test_ten_sessions_refused_with_the_same_token_ask_for_another_one_once(tokens: list[str], asked: int) -> None:
    """FT-84: the source has no better one: asking it ten times gets an account locked."""
    source = Source(tokens)
    async with ScriptedRelay(**BEARER) as server:  # type: ignore[arg-type]
        relay = relay_of(server, login=Login("ann", token=source), cleartext_login=True)
        provider = CredentialsProvider(relay.login, 5.0)
        sessions = [Session(relay, credentials=provider) for _ in range(10)]
        results = await asyncio.gather(*(session.connect() for session in sessions), return_exceptions=True)
    assert all(isinstance(result, AuthenticationRefused) for result in results)
    assert source.asked == asked


async def test_a_session_that_comes_after_a_refused_token_does_not_ask_again() -> None:
    """FT-84: one after the other, as with ten at a time."""
    source = Source(["expired"])
    async with ScriptedRelay(**BEARER) as server:  # type: ignore[arg-type]
        relay = relay_of(server, login=Login("ann", token=source), cleartext_login=True)
        provider = CredentialsProvider(relay.login, 5.0)
        for _ in range(3):
            with pytest.raises(AuthenticationRefused):
                await Session(relay, credentials=provider).connect()
    assert source.asked == 2


async def test_messages_of_a_pool_refused_with_the_same_token_ask_once() -> None:
    """FT-84: those that wait for a session share the refusal of the first."""
    source = Source(["expired"])
    async with ScriptedRelay(**BEARER) as server:  # type: ignore[arg-type]
        relay = relay_of(server, login=Login("ann", token=source), cleartext_login=True)
        async with Pool(relay, sessions=5, depth=1) as pool:
            results = await asyncio.gather(*(pool.send(message(n)) for n in range(20)), return_exceptions=True)
            with pytest.raises(AuthenticationRefused):
                await pool.send(message())
    assert all(isinstance(result, AuthenticationRefused) for result in results)
    assert source.asked == 2
    assert len(attempted(server)) == 1
