"""AUTH from its first line to its last, against relays of every kind, sans I/O."""

from __future__ import annotations

import traceback
from base64 import b64decode, b64encode
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsmtp.errors import (
    AuthenticationRefused,
    ExtensionNotSupported,
    InvalidArgument,
    Refused,
    ServerNotAuthenticated,
    SMTPError,
    UnexpectedReply,
)
from asyncsmtp.protocol.auth.auth import (
    MAX_ROUNDS,
    NAMES,
    Bearer,
    Channel,
    Credentials,
    External,
    Password,
    Secret,
    log_in,
)
from asyncsmtp.protocol.client import ClientProtocol
from asyncsmtp.protocol.commands import ehlo
from asyncsmtp.testing import ServerScram

ANN = Password("ann", Secret("hunter2"))
TOKEN = Bearer("ann", Secret("hunter2"))
CHANNEL = Channel("relay.example", 587, None, "a-nonce-for-all-tests")
BOUND = Channel(
    "relay.example",
    587,
    bytes.fromhex("3013 3003 020100 300a 06082a8648ce3d040302 0300"),  # the frame of one, signed ecdsa-with-SHA256
    "a-nonce-for-all-tests",
)
SCRAM = "SCRAM-SHA-256"


class Relay:
    """A login with the commands that it sent; `answer` plays the relay."""

    def __init__(
        self, offered: str, credentials: Credentials = ANN, wanted: tuple[str, ...] = (), channel: Channel = CHANNEL
    ) -> None:
        self.protocol = ClientProtocol()
        list(self.protocol.receive(b"220 relay\r\n"))
        self.protocol.send(ehlo("client.example"))
        list(self.protocol.receive(b"250-relay\r\n250 AUTH " + offered.encode() + b"\r\n"))
        self.sent: list[bytes] = []
        self.printed: list[str] = []
        self.steps = log_in(self.protocol, credentials, channel, wanted)
        self._send(next(self.steps))

    def _send(self, command: object) -> None:
        self.sent.append(self.protocol.send(command))  # type: ignore[arg-type]

    def answer(self, *replies: bytes) -> bool:
        """Pass in replies; return true if the login is done."""
        for reply in replies:
            (exchange,) = self.protocol.receive(reply + b"\r\n")
            self.printed.append(str(exchange.reply))
            try:
                self._send(self.steps.send(exchange.reply))
            except StopIteration:
                return True
        return False

    @property
    def last(self) -> bytes:
        """The last answer, base64 undone; AUTH and its mechanism left out."""
        return b64decode(self.sent[-1].split(b" ")[-1])

    def against(self, server: ServerScram, users: dict[str, str]) -> bytes:
        """Play with the server's side of SCRAM; return the final reply when it is due, `*` included."""
        exchange = server(users)
        next(exchange)
        try:
            while self.sent[-1] != b"*\r\n":
                challenge = exchange.send(self.last)
                assert not self.answer(b"334 " + b64encode(challenge))
        except StopIteration as ended:
            return b"235 welcome" if ended.value[1] else b"535 no"
        return b"501 cancelled"


def test_scram_ends_with_an_empty_answer_and_235() -> None:
    """RFC 4954 §4: what the relay proves comes in a challenge."""
    relay = Relay(SCRAM)
    assert relay.answer(relay.against(ServerScram("sha256"), {"ann": "hunter2"}))
    assert relay.sent[0].startswith(b"AUTH SCRAM-SHA-256 biwsbj1hbm4scj")
    assert relay.sent[-1] == b"\r\n"
    assert len(relay.sent) == 3


def test_a_wrong_password_is_refused_once() -> None:
    """AU-02: one AUTH."""
    relay = Relay(f"{SCRAM} PLAIN LOGIN")
    with pytest.raises(AuthenticationRefused, match=r"535 no .*check the user name"):
        relay.answer(relay.against(ServerScram("sha256"), {"ann": "other"}))
    assert [line[:4] for line in relay.sent].count(b"AUTH") == 1


def replacing(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda challenge: challenge.replace(old, new)


@pytest.mark.parametrize(
    ("server", "why"),
    [
        (ServerScram("sha256", alter_challenge=replacing(b"i=4096", b"i=1000000000")), "1000000000 iterations"),
        (ServerScram("sha256", alter_challenge=replacing(b"i=4096", b"i=1")), "1 iterations"),
        (ServerScram("sha256", alter_challenge=replacing(b"r=a-nonce", b"r=another")), "does not extend the client's"),
        (ServerScram("sha256", nonce=b""), "does not extend the client's"),
        (ServerScram("sha256", alter_challenge=lambda challenge: b"m=x," + challenge), "an unknown extension"),
        (ServerScram("sha256", alter_challenge=lambda challenge: b"e=other-error"), "the relay reports other-error"),
        (ServerScram("sha256", alter_challenge=replacing(b"v=", b"v=AAAA")), "did not prove"),
        (ServerScram("sha256", alter_challenge=replacing(b"s=", b"s=!")), "not valid SCRAM"),
    ],
    ids=["i=10^9", "i=1", "another nonce", "no nonce of its own", "m=", "e=", "wrong v=", "bad salt"],
)
def test_a_login_with_a_malicious_server_is_cancelled(server: ServerScram, why: str) -> None:
    """AU-03: `*`, a reason, and no other mechanism to which it could talk us down (W-49)."""
    relay = Relay(f"{SCRAM} PLAIN LOGIN CRAM-MD5")
    final = relay.against(server, {"ann": "hunter2"})
    assert relay.sent[-1] == b"*\r\n"
    with pytest.raises(AuthenticationRefused, match=rf"the client cancelled: .*{why}"):
        relay.answer(final)
    assert [line[:4] for line in relay.sent].count(b"AUTH") == 1


@pytest.mark.parametrize("rounds", [0, 1])
def test_a_235_before_the_proof_is_no_success(rounds: int) -> None:
    """AU-03, AU-07: behind AUTH, and behind our proof; two peers take it."""
    relay = Relay(f"{SCRAM} PLAIN")
    if rounds:
        final = relay.against(ServerScram("sha256", skips_proof=True), {"ann": "hunter2"})
        assert final == b"235 welcome"
    with pytest.raises(ServerNotAuthenticated, match="235 welcome to AUTH before it had proved") as unproved:
        relay.answer(b"235 welcome")
    assert isinstance(unproved.value, AuthenticationRefused)
    assert unproved.value.reply.code == 235
    assert bytes(unproved.value.command) == b"AUTH SCRAM-SHA-256\r\n"


@pytest.mark.parametrize("code", [504, 534])
def test_another_mechanism_follows_only_if_this_one_is_not_accepted(code: int) -> None:
    """AU-02: SCRAM, then PLAIN."""
    relay = Relay(f"PLAIN {SCRAM}")
    assert not relay.answer(b"%d not this one" % code)
    assert relay.sent[-1] == b"AUTH PLAIN AGFubgBodW50ZXIy\r\n"
    assert relay.answer(b"235 welcome")


PLUSES = "SCRAM-SHA-512-PLUS SCRAM-SHA-256-PLUS"


@pytest.mark.parametrize("code", [500, 501, 535, 550])
def test_scram_follows_a_plus_that_is_refused_before_any_proof(code: int) -> None:
    """AU-04, AU-02: EHLO does not tell which bindings a relay knows. `n`, since it offers -PLUS; and no PLAIN."""
    relay = Relay(f"{PLUSES} {SCRAM} PLAIN", channel=BOUND)
    assert relay.sent[0].startswith(b"AUTH SCRAM-SHA-512-PLUS cD10bHMtc2VydmVyLWVuZC1wb2lud")
    assert not relay.answer(b"%d what binding" % code)
    assert relay.sent[-1].startswith(b"AUTH SCRAM-SHA-256 ")
    assert relay.last.startswith(b"n,,")
    with pytest.raises(AuthenticationRefused, match="no user"):
        relay.answer(b"535 no user")


@pytest.mark.parametrize(
    ("offered", "reply", "error"),
    [
        (f"{PLUSES} PLAIN LOGIN", b"535 no", AuthenticationRefused),
        (f"{PLUSES} {SCRAM}", b"454 later", Refused),
        (f"{PLUSES} {SCRAM}", b"421 bye", Refused),
    ],
)
def test_nothing_weaker_follows_a_plus_that_is_refused(offered: str, reply: bytes, error: type[Refused]) -> None:
    """AU-02: neither a password in the clear of TLS, nor anything after "later"."""
    relay = Relay(offered, channel=BOUND)
    with pytest.raises(error, match=reply.decode()):
        relay.answer(reply)


def test_a_plus_that_is_refused_after_its_proof_is_final() -> None:
    """AU-02: then the password was judged, or somebody sits in between."""
    relay = Relay(f"{PLUSES} {SCRAM}", channel=BOUND)
    with pytest.raises(AuthenticationRefused, match="535 no"):
        relay.answer(relay.against(ServerScram("sha512", b"another"), {"ann": "hunter2"}))


def test_an_accepted_mechanism_is_not_followed_by_another() -> None:
    """AU-02: after a challenge was answered the secret may have been judged."""
    relay = Relay("PLAIN LOGIN", wanted=("LOGIN", "PLAIN"))
    assert not relay.answer(b"334 VXNlcm5hbWU6", b"334 UGFzc3dvcmQ6")
    with pytest.raises(AuthenticationRefused, match="504 changed my mind"):
        relay.answer(b"504 changed my mind")


@pytest.mark.parametrize("cancelled", [b"501 cancelled", b"454 later", b"504 what", b"421 bye"])
def test_a_cancelled_login_is_never_retried(cancelled: bytes) -> None:
    """AU-03: whatever the reply to `*` is."""
    relay = Relay(f"{SCRAM} PLAIN")
    assert not relay.answer(b"334 AAAA")
    assert relay.sent[-1] == b"*\r\n"
    with pytest.raises(AuthenticationRefused, match="the client cancelled"):
        relay.answer(cancelled)


@pytest.mark.parametrize("positive", [b"235 welcome", b"334 ", b"250 ok"])
def test_a_cancelled_login_cannot_succeed(positive: bytes) -> None:
    """AU-06: RFC 4954 §4 has 501 behind `*`."""
    relay = Relay("CRAM-MD5", wanted=("CRAM-MD5",))
    assert not relay.answer(b"334 !!!")
    with pytest.raises(UnexpectedReply):
        relay.answer(positive)


def test_endless_challenges_are_cancelled() -> None:
    """AU-06, W-52: LOGIN asks twice, then it is over."""
    relay = Relay("LOGIN")
    assert not relay.answer(*[b"334 VXNlcm5hbWU6"] * 3)
    assert relay.sent[-1] == b"*\r\n"
    with pytest.raises(AuthenticationRefused, match="the relay sent another challenge after the end of the mechanism"):
        relay.answer(b"501 cancelled")


PROMPTS = [b"Username:", b"VXNlcm5hbWU6 ", b" VXNlcm5hbWU6", b"VXNlcm5hbWU", b"", b"!!!", b"\xff", b"go on"]


@pytest.mark.parametrize("first", PROMPTS)
@pytest.mark.parametrize("second", PROMPTS)
def test_the_prompts_of_login_are_not_judged(first: bytes, second: bytes) -> None:
    """FT-19: words in clear, without padding, with a blank; none of it says anything about the password."""
    relay = Relay("LOGIN")
    assert not relay.answer(b"334 " + first)
    assert relay.last == b"ann"
    assert not relay.answer(b"334 " + second)
    assert relay.last == b"hunter2"
    assert relay.answer(b"235 welcome")


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize(
    ("mechanism", "credentials", "response"),
    [("PLAIN", ANN, b"\0ann\0hunter2"), ("EXTERNAL", External("ann"), b"ann"), ("EXTERNAL", External(), b"")],
)
def test_the_prompt_of_a_mechanism_without_challenges_is_not_judged(
    mechanism: str, credentials: Credentials, response: bytes, prompt: bytes
) -> None:
    """FT-19: `334 go on` to PLAIN."""
    relay = Relay(mechanism, credentials)
    assert not relay.answer(b"334 " + prompt)
    assert relay.last == response
    assert relay.answer(b"235 welcome")


@pytest.mark.parametrize("prompt", [b"no, expired", b"e30", b"!!!"])
def test_a_token_is_refused_in_the_relays_own_words_whatever_its_challenge_is(prompt: bytes) -> None:
    """FT-19: the reason in JSON may be missing; the 535 behind it counts."""
    relay = Relay("XOAUTH2", TOKEN)
    assert not relay.answer(b"334 " + prompt)
    assert relay.sent[-1] == b"\r\n"
    with pytest.raises(AuthenticationRefused, match=r"535 5\.7\.8 token expired"):
        relay.answer(b"535 5.7.8 token expired")


@pytest.mark.parametrize(
    "challenge", [b"PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+", b"PGFAYj4", b"PGFAYj4="]
)
def test_a_challenge_that_counts_may_lack_its_padding(challenge: bytes) -> None:
    """FT-19: and have blanks around it; it means the same."""
    for written in (challenge.rstrip(b"="), challenge + b" ", b" " + challenge):
        relay = Relay("CRAM-MD5", wanted=("CRAM-MD5",))
        assert not relay.answer(b"334 " + written)
        assert relay.last.startswith(b"ann ")


@pytest.mark.parametrize(
    ("reply", "advice"),
    [
        ("535 5.7.8 no", "check the user name and the password"),
        ("535 no", "check the user name and the password"),
        ("535 5.7.139 SMTP AUTH is disabled for the tenant", ""),
        ("535 5.7.3 unsuccessful", ""),
        ("500 5.5.1 what", "does not know AUTH"),
        ("502 5.5.1 what", "does not know AUTH"),
        ("503 5.5.1 EHLO first", "does not expect a login here"),
        ("504 5.5.4 not that one", "name another one in the login"),
        ("534 5.7.9 application-specific password required", "name another one in the login"),
        ("530 5.7.0 must issue STARTTLS first", "the relay wants TLS"),
        ("538 5.7.11 encryption required", "the relay wants TLS"),
        ("550 5.7.1 blocked", ""),
    ],
)
def test_a_refused_login_has_advice_that_fits(reply: str, advice: str) -> None:
    """FT-16: "check the password" was said of 500, 503, 504 and 538, which do not speak of it."""
    relay = Relay("PLAIN")
    with pytest.raises(AuthenticationRefused) as refused:
        relay.answer(reply.encode())
    said = str(refused.value)
    assert said.startswith(f"the relay refused AUTH: {reply}")
    assert said.removeprefix(f"the relay refused AUTH: {reply}") == "" if not advice else advice in said
    assert ("password" in said.removeprefix(f"the relay refused AUTH: {reply}")) is (advice.startswith("check"))


@pytest.mark.parametrize("reply", [b"503 already authenticated", b"503 5.5.1 Error: Already authenticated"])
def test_a_session_that_is_logged_in_needs_no_login(reply: bytes) -> None:
    """FT-16, RFC 4954 §4: by its address or its certificate; only a proof of the relay may not be left out."""
    assert Relay("PLAIN").answer(reply)
    with pytest.raises(ServerNotAuthenticated, match="lready authenticated"):
        Relay(SCRAM).answer(reply)
    relay = Relay("CRAM-MD5", wanted=("CRAM-MD5",))
    assert not relay.answer(b"334 !")
    with pytest.raises(AuthenticationRefused, match="the client cancelled"):
        relay.answer(reply)


def test_what_was_to_be_sent_is_in_no_traceback() -> None:
    """FT-52: a response that is too long for a line, with the local variables of the frames that refused it."""
    with pytest.raises(InvalidArgument, match="too long") as refused:
        Relay("PLAIN", Password("ann", Secret("hunter2-canary" * 1000)))
    report = traceback.TracebackException.from_exception(refused.value, capture_locals=True)
    shown = "".join(str(frame.locals) for frame in report.stack if "/tests/" not in frame.filename)
    assert "hunter2-canary" not in shown
    assert b64encode(b"hunter2-canaryhunter2-canary").decode()[4:20] not in shown


@pytest.mark.parametrize(("mechanism", "end"), [("OAUTHBEARER", b"AQ==\r\n"), ("XOAUTH2", b"\r\n")])
def test_the_reason_for_a_refused_token_is_reported(mechanism: str, end: bytes) -> None:
    """W-50: the challenge has it, the final reply has not; the secret is not in it (AU-09)."""
    relay = Relay(mechanism, TOKEN)
    assert not relay.answer(b"334 " + b64encode(b'{"status":"expired: hunter2"}'))
    assert relay.sent[-1] == end
    with pytest.raises(AuthenticationRefused, match=r"535 no .*the token's status: expired: \*\*\*"):
        relay.answer(b"535 no")


def test_a_challenge_reaches_the_mechanism_and_no_log() -> None:
    """AU-08, AU-09: a relay may echo a secret in a challenge, in forms that nobody foresees."""
    relay = Relay("CRAM-MD5", Password("tim", Secret("tanstaaftanstaaf")), ("CRAM-MD5",))
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    assert not relay.answer(b"334 " + b64encode(challenge))
    assert relay.last == b"tim b913a602c7eda7a495b4e6e7334d3890"
    assert relay.printed == ["334 ***"]


@pytest.mark.parametrize("password", ["V", "a", "VXNl"])
def test_a_secret_that_is_part_of_a_challenge_does_not_spoil_it(password: str) -> None:
    """AU-09: scrubbing is for what is shown."""
    relay = Relay("LOGIN", Password("ann", Secret(password)))
    assert not relay.answer(b"334 VXNlcm5hbWU6", b"334 UGFzc3dvcmQ6")
    assert relay.last == password.encode()
    assert relay.answer(b"235 welcome")


@pytest.mark.parametrize(
    ("credentials", "said"), [(External(), b"AUTH EXTERNAL =\r\n"), (External("ann"), b"AUTH EXTERNAL YW5u\r\n")]
)
def test_external_sends_the_identity_or_an_equals_sign(credentials: External, said: bytes) -> None:
    """RFC 4954 §4: an empty initial response is `=`."""
    relay = Relay("EXTERNAL PLAIN", credentials)
    assert relay.sent == [said]
    assert relay.answer(b"235 welcome")


@pytest.mark.parametrize(
    ("offered", "credentials", "wanted", "why"),
    [
        ("", ANN, (), "it offers no login here; many relays offer it only under TLS"),
        ("XOAUTH2 GSSAPI", ANN, (), "it offers XOAUTH2, GSSAPI, which cannot use these credentials$"),
        ("PLAIN", ANN, ("CRAM-MD5",), "cannot use these credentials, and only CRAM-MD5 may be used"),
        (SCRAM, Password("ann", Secret("a\u0007")), (), "SCRAM does not allow this user name or password"),
        ("SCRAM-SHA-256-PLUS", ANN, (), "it offers SCRAM-SHA-256-PLUS, which"),
        ("CRAM-MD5", ANN, (), "it offers CRAM-MD5, which"),
        ("PLAIN", TOKEN, (), "it offers PLAIN, which"),
    ],
)
def test_a_login_that_is_not_offered_is_not_tried(
    offered: str, credentials: Credentials, wanted: tuple[str, ...], why: str
) -> None:
    """W-53: nothing is sent, and the error names what to look at."""
    with pytest.raises(ExtensionNotSupported, match=why):
        Relay(offered, credentials, wanted)


def test_a_secret_that_breaks_a_frame_is_found_before_auth() -> None:
    """AU-13: for LOGIN, whose password comes last."""
    with pytest.raises(InvalidArgument):
        Relay("LOGIN", Password("ann", Secret("a\0b")))


def challenge(octets: bytes) -> bytes:
    """As a 334, in several lines where it is long."""
    text = b64encode(octets)
    lines = [text[start : start + 1000] for start in range(0, len(text), 1000)] or [b""]
    return b"\r\n".join([*(b"334-" + line for line in lines[:-1]), b"334 " + lines[-1]])


NONCES = st.binary(max_size=8).map(lambda octets: b"r=a-nonce-for-all-tests" + octets)
RESTS = st.sampled_from([b",s=c2FsdA==,i=4096", b",s=c2FsdA==,i=5000,x=y", b",s=,i=4096", b"", b",s=c2FsdA==,i=0"])
KNOWN = st.sampled_from([b"", b"e=other-error", b"v=AAAA", b'{"status":"hunter2"}', b"m=x", b"x" * 9000, b"[" * 3000])
RAW = st.binary(max_size=64).map(lambda octets: b"334 " + bytes(octet for octet in octets if octet not in b"\0\r\n"))
FINAL = st.sampled_from([b"235 hunter2", b"535 hunter2", b"504 no", b"421 bye", b"454 no", b"250 ok"])
REPLIES = (st.binary(max_size=64) | st.builds(bytes.__add__, NONCES, RESTS) | KNOWN).map(challenge) | RAW | FINAL


def outcome(relay: Relay, replies: list[bytes]) -> SMTPError | None:
    """Return the error of the login; None for success, or if it has not ended; SCRAM cannot succeed by luck."""
    try:
        for reply in replies:
            if relay.answer(reply):
                assert not relay.sent[0].startswith(b"AUTH SCRAM") or b"AUTH LOGIN\r\n" in relay.sent
                break
    except SMTPError as error:
        return error
    return None


@settings(max_examples=500)
@given(
    st.sampled_from([name for name in NAMES if not name.endswith("-PLUS")]),
    st.lists(REPLIES, max_size=12),
    st.lists(st.sampled_from(NAMES), max_size=3),
)
def test_no_challenges_break_a_login(mechanism: str, replies: list[bytes], more: list[str]) -> None:
    """F10, AU-06: it succeeds, or ends in a typed error that shows no secret; at most four answers to an AUTH."""
    credentials = TOKEN if mechanism in ("OAUTHBEARER", "XOAUTH2") else External() if mechanism == "EXTERNAL" else ANN
    relay = Relay(" ".join([mechanism, *more]), credentials, (mechanism, "LOGIN"))
    error = outcome(relay, replies)
    assert error is None or isinstance(error, Refused | UnexpectedReply)
    if credentials != External():
        assert "hunter2" not in "".join(traceback.format_exception(error))
    attempts = [line.split()[1].decode() for line in relay.sent if line.startswith(b"AUTH ")]
    assert attempts in ([mechanism], [mechanism, "LOGIN"])
    assert len(relay.sent) <= len(attempts) * (MAX_ROUNDS + 2)
