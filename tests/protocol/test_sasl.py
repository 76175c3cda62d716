"""SASL mechanisms, and secrets that stay where they are."""

from __future__ import annotations

import traceback
from base64 import b64decode, b64encode

import pytest

from asyncsmtp.errors import BadArgument
from asyncsmtp.protocol.replies import Reply
from asyncsmtp.protocol.sasl import MECHANISMS, Bearer, Credentials, Password, Secret, choose, unspeakable

BY_NAME = {mechanism.name: mechanism for mechanism in MECHANISMS}
TIM = Password("tim", Secret("tanstaaftanstaaf"))
USER = Password("username", Secret("password"))
TOKEN = Bearer("username", Secret("password"))


def said(mechanism: str, credentials: Credentials, *challenges: bytes) -> list[bytes | None]:
    """What the mechanism says first, and to each challenge; it must be over then."""
    dialogue = BY_NAME[mechanism].begin(credentials)
    found = [next(dialogue), *map(dialogue.send, challenges)]
    with pytest.raises(StopIteration):
        dialogue.send(b"more")
    return found


@pytest.mark.parametrize(
    ("credentials", "initial"),
    [
        (TIM, b"AHRpbQB0YW5zdGFhZnRhbnN0YWFm"),
        (USER, b"AHVzZXJuYW1lAHBhc3N3b3Jk"),
        (Password("zoë", Secret("pässword")), b64encode("\0zoë\0pässword".encode())),
    ],
)
def test_plain(credentials: Password, initial: bytes) -> None:
    """wire.md row 46 and SASL vectors (RFC 4616 §4); a server that says `334 ` is told again."""
    assert said("PLAIN", credentials) == [b64decode(initial)]
    assert said("PLAIN", credentials, b"") == [b64decode(initial)] * 2


@pytest.mark.parametrize(
    "prompts", [("Username:", "Password:"), ("User Name\0", "Password\0"), ("username:", ""), ("", "")]
)
def test_login_answers_two_prompts_whatever_they_say(prompts: tuple[str, str]) -> None:
    """wire.md row 47 and SASL vectors: they differ between servers."""
    assert said("LOGIN", USER, *(prompt.encode() for prompt in prompts)) == [None, b"username", b"password"]


def test_xoauth2_answers_the_reason_of_a_failure_with_nothing() -> None:
    """wire.md row 50 and SASL vectors."""
    initial = b64decode(b"dXNlcj11c2VybmFtZQFhdXRoPUJlYXJlciBwYXNzd29yZAEB")
    assert said("XOAUTH2", TOKEN, b'{"status":"400"}') == [initial, b""]


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=lambda mechanism: mechanism.name)
@pytest.mark.parametrize(
    ("user", "secret", "why"),
    [
        ("a\0b", "x", "a NUL"),
        ("a", "x\0y", "a NUL"),
        ("a\x01auth=Bearer z", "x", "U\\+0001"),
        ("a", "x\x01", "U\\+0001"),
        ("", "x", "the user name is empty"),
        ("a", "", "is empty"),
        ("a\udcff", "x", "a lone surrogate"),
        ("a", "hunter2\udcff", "a lone surrogate"),
    ],
)
def test_credentials_that_would_break_the_frame_are_refused_before_anything_is_said(
    mechanism: object, user: str, secret: str, why: str
) -> None:
    """AU-13: at the first step of each mechanism, the secret not being in the error."""
    assert mechanism in MECHANISMS
    for found in MECHANISMS:
        if found is mechanism:
            with pytest.raises(BadArgument, match=why) as refused:
                next(found.begin(found.takes(user, Secret(secret))))
            assert "hunter2" not in "".join(traceback.format_exception(refused.value))
            assert refused.value.__cause__ is None
            assert refused.value.__context__ is None


@pytest.mark.parametrize(
    ("credentials", "offered", "names"),
    [
        (USER, ["LOGIN", "PLAIN", "CRAM-MD5"], ["PLAIN", "LOGIN"]),
        (USER, ["LOGIN"], ["LOGIN"]),
        (USER, ["XOAUTH2"], []),
        (TOKEN, ["PLAIN", "XOAUTH2"], ["XOAUTH2"]),
        (TOKEN, ["PLAIN", "LOGIN"], []),
        (USER, [], []),
    ],
)
def test_the_preferred_mechanism_that_fits_is_chosen(
    credentials: Credentials, offered: list[str], names: list[str]
) -> None:
    """AU-02: a token is never sent as a password, nor a password as a token."""
    assert [mechanism.name for mechanism in choose(credentials, offered)] == names


def test_a_secret_shows_itself_to_nobody() -> None:
    """AU-08."""
    secret = Secret("hunter2")
    for shown in (repr(secret), str(secret), f"{secret}", repr(Password("ann", secret)), repr(Bearer("ann", secret))):
        assert "hunter2" not in shown
    assert not hasattr(secret, "__dict__")
    assert secret.reveal() == "hunter2"


def test_secrets_are_equal_when_their_texts_are() -> None:
    """Relays are compared, and kept in sets."""
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1


@pytest.mark.parametrize("credentials", [Password("ann", Secret("A")), Password("ann", Secret("hunter2")), TOKEN, TIM])
def test_no_form_of_the_secret_can_be_echoed(credentials: Credentials) -> None:
    """AU-09: a short secret must not be starred out of its own base64 first, which would leave the rest readable."""
    secret = credentials.secret.reveal().encode()
    forms = [secret, b64encode(secret)]
    forms += [b64encode(first) for m in MECHANISMS if (first := next(m.begin(credentials)))]
    forms += [form.rstrip(b"=") for form in forms]
    for form in forms:
        shown = Reply(535, (b"", form)).without(unspeakable(credentials)).lines[1]
        assert shown.replace(b"=", b"").replace(b"***", b"") == b""
