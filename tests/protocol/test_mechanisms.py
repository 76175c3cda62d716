"""The simple mechanisms, by the vectors that their documents give."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest

from asyncsmtp.errors import InvalidArgument
from asyncsmtp.protocol.auth.auth import MECHANISMS, oauth_error
from asyncsmtp.protocol.auth.credentials import (
    Bearer,
    Channel,
    Credentials,
    External,
    MechanismFailed,
    Password,
    Secret,
)

BY_NAME = {mechanism.name: mechanism for mechanism in MECHANISMS}
SUBMISSION = Channel("server.example.com", 587)
TIM = Password("tim", Secret("tanstaaftanstaaf"))
USER = Password("username", Secret("password"))
TOKEN = Bearer("username", Secret("password"))


def said(
    mechanism: str, credentials: Credentials, *challenges: bytes, channel: Channel = SUBMISSION
) -> list[bytes | None]:
    """Return the initial response and the answer to each challenge; the mechanism must end then."""
    dialogue = BY_NAME[mechanism].begin(credentials, channel)
    found = [next(dialogue), *map(dialogue.send, challenges)]
    if challenges or mechanism not in ("PLAIN", "EXTERNAL"):  # which answer one prompt, if there is one
        with pytest.raises(StopIteration):
            dialogue.send(b"more")
    return found


@pytest.mark.parametrize(
    ("credentials", "initial"),
    [
        (TIM, b"AHRpbQB0YW5zdGFhZnRhbnN0YWFm"),
        (USER, b"AHVzZXJuYW1lAHBhc3N3b3Jk"),
        (Password("username", Secret("password"), "authzid"), b"YXV0aHppZAB1c2VybmFtZQBwYXNzd29yZA=="),
        (Password("zoë", Secret("pässword")), b64encode("\0zoë\0pässword".encode())),
    ],
)
def test_plain(credentials: Password, initial: bytes) -> None:
    """FT-19, W-46, SV-09 (RFC 4616 §4); a server that sends `334 ` gets the message again, whatever follows it."""
    assert said("PLAIN", credentials) == [b64decode(initial)]
    for prompt in (b"", b"go on"):
        assert said("PLAIN", credentials, prompt) == [b64decode(initial)] * 2


@pytest.mark.parametrize(
    ("mechanism", "credentials", "what"),
    [
        ("PLAIN", Password("tim", Secret("a\0b")), "password"),
        ("PLAIN", Password("t\0m", Secret("x")), "user name"),
        ("LOGIN", Password("t\0m", Secret("x")), "user name"),
        ("XOAUTH2", Bearer("tim", Secret("a\0b")), "token"),
        ("XOAUTH2", Bearer("t\0m", Secret("x")), "user name"),
        ("OAUTHBEARER", Bearer("tim", Secret("a\0b")), "token"),
        ("OAUTHBEARER", Bearer("t\0m", Secret("x")), "user name"),
        ("EXTERNAL", External("t\0m"), "identity to act as"),
    ],
)
def test_what_a_mechanism_cannot_send_is_named(mechanism: str, credentials: Credentials, what: str) -> None:
    """And not shown."""
    with pytest.raises(InvalidArgument, match=rf"\bthe {what}\b") as refused:
        said(mechanism, credentials)
    assert "a\0b" not in str(refused.value)


@pytest.mark.parametrize(
    "prompts",
    [(b"VXNlcm5hbWU6", b"UGFzc3dvcmQ6"), (b"VXNlciBOYW1lAA==", b"UGFzc3dvcmQA"), (b"dXNlcm5hbWU6", b""), (b"", b"")],
)
def test_login_answers_two_prompts_of_any_text(prompts: tuple[bytes, bytes]) -> None:
    """W-47, SV-10: they differ between servers."""
    assert said("LOGIN", USER, *map(b64decode, prompts)) == [None, b"username", b"password"]


@pytest.mark.parametrize(
    ("challenge", "digest"),
    [
        (b"<1896.697170952@postoffice.reston.mci.net>", b"b913a602c7eda7a495b4e6e7334d3890"),
        (b"<1896.697170952@postoffice.example.net>", b"3dbc88f0624776a737b39093f6eb6427"),
    ],
)
def test_cram_md5(challenge: bytes, digest: bytes) -> None:
    """W-48, SV-01, SV-02 (RFC 2195 §2): never an initial response."""
    assert said("CRAM-MD5", TIM, challenge) == [None, b"tim " + digest]


def test_cram_md5_does_not_hash_nothing() -> None:
    """An empty challenge would make the same answer good for ever."""
    dialogue = BY_NAME["CRAM-MD5"].begin(TIM, SUBMISSION)
    next(dialogue)
    with pytest.raises(MechanismFailed, match="the challenge is empty"):
        dialogue.send(b"")


def test_xoauth2_answers_the_reason_of_a_failure_with_nothing() -> None:
    """W-50, SV-11."""
    initial = b64decode(b"dXNlcj11c2VybmFtZQFhdXRoPUJlYXJlciBwYXNzd29yZAEB")
    assert said("XOAUTH2", TOKEN, b'{"status":"400"}') == [initial, b""]


def test_oauthbearer_answers_the_reason_of_a_failure_with_0x01() -> None:
    """SV-12 (RFC 7628 §4.1, with port 587): `AQ==`."""
    initial = (
        b"bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9NTg3AWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRj"
        b"Mk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB"
    )
    token = Bearer("user@example.com", Secret("vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="))
    assert said("OAUTHBEARER", token, b'{"status":"invalid_token"}') == [b64decode(initial), b64decode(b"AQ==")]


def test_oauthbearer_omits_an_unknown_host() -> None:
    """RFC 7628 §3.1: host and port are for who has them; a comma in the name is written =2C (RFC 5801 §4)."""
    first = said("OAUTHBEARER", Bearer("a,b=c", Secret("t")), b"{}", channel=Channel())[0]
    assert first == b"n,a=a=2Cb=3Dc,\x01auth=Bearer t\x01\x01"


@pytest.mark.parametrize("authzid", ["", "zoë"])
def test_external_sends_at_most_the_identity(authzid: str) -> None:
    """RFC 4422, Appendix A."""
    assert said("EXTERNAL", External(authzid)) == [authzid.encode()]
    assert said("EXTERNAL", External(authzid), b"") == [authzid.encode()] * 2


@pytest.mark.parametrize(
    ("challenge", "reason"),
    [
        (b'{"status":"invalid_token","scope":"mail"}', "the token's status: invalid_token"),
        (b'{"status":"a\\u001bb"}', "the token's status: a\\x1bb"),
        (b'{"status":""}', ""),
        (b'{"status":401}', ""),
        (b"[]", ""),
        (b"no JSON", ""),
        (b"\xff", ""),
        (b"[" * 6000, ""),
    ],
)
def test_the_reason_for_a_refused_token_is_reported(challenge: bytes, reason: str) -> None:
    """A peer's oldest complaint: the reason comes in a challenge, and was thrown away."""
    assert oauth_error(challenge) == reason
