"""The server's side of each SASL mechanism: who is let in, and who is not."""

from __future__ import annotations

import hmac
from collections.abc import Callable

import pytest

from asyncsmtp.testing.policy import DEFAULT_MECHANISMS, MECHANISMS

USERS = {"ann": "secret", "zoë": "geheim"}


def log_in(mechanism: str, *responses: Callable[[bytes], bytes]) -> tuple[str | None, bool]:
    """Run an exchange; each response is made from its challenge. What is asked for behind them is answered with b""."""
    exchange = MECHANISMS[mechanism](USERS)
    challenge = next(exchange)
    try:
        for respond in responses:
            challenge = exchange.send(respond(challenge))
        exchange.send(b"")
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise AssertionError("the exchange goes on")


def cram(user: str, password: str) -> Callable[[bytes], bytes]:
    return lambda challenge: f"{user} {hmac.digest(password.encode(), challenge, 'md5').hex()}".encode()


RESPONSES: dict[str, Callable[[str, str], list[Callable[[bytes], bytes]]]] = {
    "PLAIN": lambda user, password: [lambda _: f"\0{user}\0{password}".encode()],
    "LOGIN": lambda user, password: [lambda _: user.encode(), lambda _: password.encode()],
    "XOAUTH2": lambda user, token: [lambda _: f"user={user}\x01auth=Bearer {token}\x01\x01".encode()],
    "OAUTHBEARER": lambda user, token: [lambda _: f"n,a={user},\x01host=x\x01auth=Bearer {token}\x01\x01".encode()],
    "CRAM-MD5": lambda user, password: [cram(user, password)],
}


@pytest.mark.parametrize("mechanism", RESPONSES)
def test_the_user_and_the_password_must_fit(mechanism: str) -> None:
    """RFC 4616, RFC 7628, RFC 2195: a known name with another's password is refused, and so is an unknown name."""
    for user, password, accepted in (
        ("ann", "secret", True),
        ("zoë", "geheim", True),
        ("ann", "geheim", False),
        ("ann", "", False),
        ("eve", "secret", False),
        ("eve", "", False),
    ):
        assert log_in(mechanism, *RESPONSES[mechanism](user, password)) == (user, accepted)


@pytest.mark.parametrize(
    ("mechanism", "response"),
    [
        ("PLAIN", b""),
        ("PLAIN", b"ann\0secret"),
        ("PLAIN", b"\0ann\0secret\0"),
        ("XOAUTH2", b"user=ann\x01auth=Basic secret\x01\x01"),
        ("XOAUTH2", b"user=ann\x01auth=Bearer secret\x01"),
        ("OAUTHBEARER", b"y,a=ann,\x01auth=Bearer secret\x01\x01"),
    ],
)
def test_what_is_not_of_the_mechanism_names_nobody(mechanism: str, response: bytes) -> None:
    assert log_in(mechanism, lambda _: response) == (None, False)


@pytest.mark.parametrize(("user", "accepted"), [("", True), ("ann", True), ("eve", False)])
def test_tls_has_authenticated_who_uses_external(user: str, accepted: bool) -> None:
    """RFC 4422, Appendix A: an empty name is the one of the certificate."""
    assert log_in("EXTERNAL", lambda _: user.encode()) == (user, accepted)


def test_what_is_asked_for_is_the_mechanism_s_own() -> None:
    """The challenges as servers send them; a refused token is answered with the reason first."""
    assert next(MECHANISMS["LOGIN"](USERS)) == b"Username:"
    exchange = MECHANISMS["LOGIN"](USERS)
    next(exchange)
    assert exchange.send(b"ann") == b"Password:"
    for mechanism, reason in (
        ("XOAUTH2", b'{"status": "401", "schemes": "bearer", "scope": "mail"}'),
        ("OAUTHBEARER", b'{"status": "invalid_token", "scope": "mail"}'),
    ):
        exchange = MECHANISMS[mechanism](USERS)
        assert next(exchange) == b""
        assert exchange.send(b"x") == reason
    assert list(DEFAULT_MECHANISMS) == ["PLAIN", "LOGIN", "XOAUTH2"]
    assert MECHANISMS.items() >= DEFAULT_MECHANISMS.items()
