"""The opening dialogue beyond its transcripts: secrets, long tokens, endless challenges."""

from __future__ import annotations

import traceback
from base64 import b64encode

import pytest

from asyncsmtp.errors import AuthenticationRefused, InvalidArgument, Refused, UnexpectedReply
from asyncsmtp.protocol.auth.auth import MAX_CHALLENGE, Bearer, Channel, CommandGenerator, Credentials, Password, Secret
from asyncsmtp.protocol.client import ClientProtocol
from asyncsmtp.protocol.opening_handshake import OpeningOptions, Security, open_session


class Relay:
    """Answers what an opening says, one reply at a time."""

    def __init__(
        self, credentials: Credentials | None = None, name: str = "client.example", mechanisms: tuple[str, ...] = ()
    ) -> None:
        self.protocol = ClientProtocol()
        self.said: list[bytes] = []
        opening = OpeningOptions(
            name,
            Security.IMPLICIT_TLS,
            credentials,
            channel=lambda: Channel(nonce="a-nonce-for-all-tests"),
            mechanisms=mechanisms,
        )
        self.steps: CommandGenerator = open_session(self.protocol, opening)
        next(self.steps)

    def answer(self, *replies: bytes) -> bool:
        """Pass in replies; return true if the session is open."""
        for reply in replies:
            (exchange,) = self.protocol.receive(reply + b"\r\n")
            try:
                self.said.append(self.protocol.send(self.steps.send(exchange.reply)))
            except StopIteration:
                return True
        return False


def login(credentials: Credentials, mechanisms: bytes = b"PLAIN LOGIN XOAUTH2", wanted: tuple[str, ...] = ()) -> Relay:
    """A relay to which the first AUTH was just sent."""
    relay = Relay(credentials, mechanisms=wanted)
    assert not relay.answer(b"220 relay", b"250-relay\r\n250 AUTH " + mechanisms)
    return relay


ANN = Password("ann", Secret("hunter2"))
LONG = Bearer("ann@example.org", Secret("t" * 2000))
LONG_RESPONSE = b64encode(b"user=ann@example.org\x01auth=Bearer " + b"t" * 2000 + b"\x01\x01") + b"\r\n"


def test_a_session_without_credentials_is_open_after_ehlo() -> None:
    """RFC 5321 §3.2."""
    relay = Relay()
    assert relay.answer(b"220 relay", b"250 relay")
    assert relay.said == [b"EHLO client.example\r\n"]


def test_an_invalid_name_is_refused_before_anything_is_sent() -> None:
    """WO-03."""
    relay = Relay(name="me XCLIENT ADDR=192.0.2.1")
    with pytest.raises(InvalidArgument):
        relay.answer(b"220 relay")
    assert relay.said == []


@pytest.mark.parametrize("password", ["a\0b", "", "\udcff"])
def test_credentials_that_cannot_be_sent_stop_before_auth(password: str) -> None:
    """AU-13: not half-way through LOGIN either, the user name being out."""
    relay = Relay(Password("ann", Secret(password)))
    with pytest.raises(InvalidArgument):
        relay.answer(b"220 relay", b"250-relay\r\n250 AUTH LOGIN")
    assert relay.said == [b"EHLO client.example\r\n"]


def test_an_initial_response_that_makes_the_line_too_long_waits_for_its_challenge() -> None:
    """RFC 4954 §4: beyond 512 octets "the client MUST NOT use the initial response"."""
    relay = login(LONG)
    assert relay.said[-1] == b"AUTH XOAUTH2\r\n"
    assert not relay.answer(b"334 ")
    assert relay.said[-1] == LONG_RESPONSE
    assert relay.answer(b"235 welcome")


def test_a_line_of_512_octets_holds_its_initial_response() -> None:
    """RFC 5321 §4.5.3.1.4: with its CRLF."""
    for length, fits in ((369, True), (370, False)):
        relay = login(Password("a", Secret("x" * length)), b"PLAIN")
        assert (len(relay.said[-1]) > 20) is fits
        assert len(relay.said[-1]) <= 512


@pytest.mark.parametrize("prompt", [b"334 PDEyMzRAcmVsYXk+", b"334 go on", b"334  "])
def test_any_challenge_asks_for_the_initial_response_that_was_held_back(prompt: bytes) -> None:
    """FT-19: nothing was sent yet that it could be about."""
    for credentials, mechanism in ((Password("ann", Secret("x" * 400)), b"PLAIN"), (LONG, b"XOAUTH2")):
        relay = login(credentials, mechanism)
        assert not relay.answer(prompt)
        assert len(relay.said[-1]) > 400
        assert relay.answer(b"235 welcome")


def test_a_mechanism_may_be_refused_before_its_initial_response() -> None:
    """The reply to AUTH alone is as final as any."""
    relay = login(LONG)
    with pytest.raises(AuthenticationRefused):
        relay.answer(b"535 no")


def test_the_reason_of_a_failure_is_answered_after_a_late_initial_response_as_well() -> None:
    """W-50."""
    relay = login(LONG)
    assert not relay.answer(b"334 ", b"334 eyJzdGF0dXMiOiI0MDAifQ==")
    assert relay.said[-1] == b"\r\n"
    with pytest.raises(AuthenticationRefused, match="535 no"):
        relay.answer(b"535 no")


TOO_LONG = b"".join(b"334-" + b"QUJD" * 400 + b"\r\n" for _ in range(6)) + b"334 QUJD"


@pytest.mark.parametrize(
    ("mechanism", "challenge"),
    [
        ("CRAM-MD5", b"334 !!!"),
        ("CRAM-MD5", b"334 VXNlcm5hbW"[:-1]),
        ("CRAM-MD5", b"334 VXNlcm5hbWU6 x"),
        ("SCRAM-SHA-256", b"334 \xff"),
        ("CRAM-MD5", TOO_LONG),
        ("LOGIN", TOO_LONG),
    ],
)
def test_a_challenge_that_cannot_be_read_is_cancelled(mechanism: str, challenge: bytes) -> None:
    """N-08, D-07, AU-06, W-49: bad base64 where the challenge counts, and more than 8 KiB of it."""
    relay = login(ANN, mechanism.encode(), (mechanism,))
    assert not relay.answer(challenge)
    assert relay.said[-1] == b"*\r\n"
    with pytest.raises(AuthenticationRefused, match="501 cancelled"):
        relay.answer(b"501 cancelled")


def test_a_long_challenge_is_read() -> None:
    """AU-06: up to 8 KiB."""
    relay = login(ANN, b"LOGIN")
    lines = MAX_CHALLENGE // 1024
    challenge = b"".join(b"334-" + b"QUJD" * 256 + b"\r\n" for _ in range(lines - 1)) + b"334 " + b"QUJD" * 256
    assert not relay.answer(challenge)
    assert relay.said[-1] == b64encode(b"ann") + b"\r\n"


def test_challenges_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """AU-06, W-52: four are answered, though the mechanism would go on."""
    from asyncsmtp.protocol.auth import auth
    from asyncsmtp.protocol.auth.auth import Mechanism, SaslDialogue

    def patient(credentials: Credentials, channel: Channel) -> SaslDialogue:
        while True:
            yield b"yes"

    monkeypatch.setattr(auth, "MECHANISMS", (Mechanism("PATIENT", Password, patient),))
    relay = login(ANN, b"PATIENT")
    assert not relay.answer(*[b"334 QUJD"] * 5)
    assert relay.said[1:] == [b"AUTH PATIENT eWVz\r\n", *[b"eWVz\r\n"] * 4, b"*\r\n"]
    assert login(ANN, b"PATIENT").answer(*[b"334 QUJD"] * 4, b"235 welcome")


@pytest.mark.parametrize("code", [500, 501, 503, 535, 538, 550])
def test_a_refusal_is_final(code: int) -> None:
    """AU-02, W-51 and W-54: one AUTH, whatever else is offered."""
    relay = login(ANN)
    with pytest.raises(AuthenticationRefused, match=f"{code} no"):
        relay.answer(b"%d no" % code)
    assert [line[:4] for line in relay.said] == [b"EHLO", b"AUTH"]


@pytest.mark.parametrize("code", [504, 534])
def test_a_refused_mechanism_makes_room_for_the_next_and_the_last_refusal_counts(code: int) -> None:
    """AU-02: PLAIN, LOGIN, and no third."""
    relay = login(ANN)
    assert not relay.answer(b"%d not PLAIN" % code)
    assert relay.said[-1] == b"AUTH LOGIN\r\n"
    with pytest.raises(AuthenticationRefused, match="not LOGIN"):
        relay.answer(b"%d not LOGIN" % code)


@pytest.mark.parametrize("code", [421, 432, 451, 454])
def test_a_refusal_for_now_is_not_about_the_password(code: int) -> None:
    """W-54, RFC 4954 §6: the campaign may come back; after a wrong password it must not."""
    relay = login(ANN)
    with pytest.raises(Refused, match="try again later") as refused:
        relay.answer(b"%d later" % code)
    assert not isinstance(refused.value, AuthenticationRefused)


@pytest.mark.parametrize("reply", [b"250 ok", b"354 go", b"220 hello"])
def test_only_235_is_a_success(reply: bytes) -> None:
    """WI-13, W-54."""
    with pytest.raises(UnexpectedReply):
        login(ANN).answer(reply)


def test_plain_needs_no_proof_from_the_relay() -> None:
    """AU-07: 235 is enough, the certificate was verified."""
    assert login(ANN).answer(b"235 welcome")


@pytest.mark.parametrize(
    "echo",
    [
        b"hunter2",
        b64encode(b"hunter2"),
        b64encode(b"\0ann\0hunter2"),
        b64encode(b"user=ann\x01auth=Bearer hunter2\x01\x01"),
    ],
)
@pytest.mark.parametrize("code", [535, 421, 250, 354])
def test_no_error_repeats_the_secret_that_the_relay_repeats(code: int, echo: bytes) -> None:
    """AU-08, AU-09: neither its text, nor what is attached to it, nor its traceback."""
    relay = login(ANN)
    with pytest.raises((Refused, UnexpectedReply)) as refused:
        relay.answer(b"%d you said %s?" % (code, echo))
    error = refused.value
    attached = repr(vars(error)) + repr(getattr(error, "reply", "")) + repr(bytes(getattr(error, "command", b"")))
    shown = "".join(traceback.TracebackException.from_exception(error).format()) + attached
    assert "you said ***" in shown
    assert "hunter2" not in shown
    assert echo.decode().rstrip("=") not in shown
