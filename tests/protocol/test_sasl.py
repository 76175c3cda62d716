"""The choice of a mechanism, and the redaction of secrets."""

from __future__ import annotations

import ssl
import traceback
from base64 import b64encode
from collections.abc import Sequence

import pytest
import trustme

from asyncsmtp.errors import InvalidArgument
from asyncsmtp.protocol.auth.auth import (
    MECHANISMS,
    NAMES,
    Bearer,
    Channel,
    Credentials,
    External,
    Mechanism,
    Password,
    Secret,
    choose_mechanisms,
    mask_credentials,
)
from asyncsmtp.protocol.masking import SecretMask

CERTIFICATE = ssl.PEM_cert_to_DER_cert(trustme.CA().issue_cert("relay.example").cert_chain_pems[0].bytes().decode())
CHANNEL = Channel("relay.example", 587, CERTIFICATE, "a nonce for tests".replace(" ", "-"))
TIM = Password("tim", Secret("tanstaaftanstaaf"))
USER = Password("username", Secret("password"))
TOKEN = Bearer("username", Secret("password"))
UNPREPARABLE = Password("username", Secret("pass\u0007word"))
SCRAM = ["SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1"]
PLUS = [f"{name}-PLUS" for name in SCRAM]


def names(mechanisms: Sequence[Mechanism]) -> list[str]:
    return [mechanism.name for mechanism in mechanisms]


@pytest.mark.parametrize(
    ("credentials", "offered", "chosen"),
    [
        (USER, NAMES, [*PLUS, *SCRAM, "PLAIN", "LOGIN"]),
        (USER, ["LOGIN", "PLAIN", "CRAM-MD5"], ["PLAIN", "LOGIN"]),
        (USER, ["SCRAM-SHA-1", "PLAIN", "SCRAM-SHA-256"], ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"]),
        (USER, ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-512"], ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-512"]),
        (USER, ["LOGIN"], ["LOGIN"]),
        (USER, ["XOAUTH2", "EXTERNAL", "GSSAPI", "DIGEST-MD5", "NTLM"], []),
        (TOKEN, NAMES, ["OAUTHBEARER", "XOAUTH2"]),
        (TOKEN, ["PLAIN", "LOGIN", *SCRAM], []),
        (External(), NAMES, ["EXTERNAL"]),
        (USER, [], []),
    ],
)
def test_the_preferred_mechanism_that_fits_is_chosen(
    credentials: Credentials, offered: list[str], chosen: list[str]
) -> None:
    """AU-02, AU-05: a token is never sent as a password, nor a password as a token; CRAM-MD5 is not offered to."""
    assert names(choose_mechanisms(credentials, offered, CHANNEL)) == chosen


@pytest.mark.parametrize("certificate", [None, b"", b"no certificate"])
def test_nothing_is_bound_to_no_certificate(certificate: bytes | None) -> None:
    """AU-04, wire.md negative SASL cases: -PLUS offered and no binding to be had, then SCRAM without."""
    assert names(choose_mechanisms(USER, [*PLUS, *SCRAM], Channel(certificate=certificate))) == SCRAM


def test_the_only_binding_is_to_the_certificate() -> None:
    """SV-07, AU-04: tls-unique is not defined for TLS 1.3, so no mechanism ever names it."""
    bound = [mechanism for mechanism in choose_mechanisms(USER, NAMES, CHANNEL) if mechanism.plus]
    assert names(bound) == PLUS
    for mechanism in bound:
        first = next(mechanism.begin(USER, CHANNEL))
        assert first is not None
        assert first.startswith(b"p=tls-server-end-point,,")


def test_a_password_that_scram_cannot_compute_with_goes_by_plain() -> None:
    """RFC 4013 prohibits characters that passwords have."""
    assert names(choose_mechanisms(UNPREPARABLE, NAMES, CHANNEL)) == ["PLAIN", "LOGIN"]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (["CRAM-MD5"], ["CRAM-MD5"]),
        (["LOGIN", "PLAIN"], ["LOGIN", "PLAIN"]),
        (["SCRAM-SHA-256"], ["SCRAM-SHA-256"]),
        (["XOAUTH2"], []),
        (["SCRAM-SHA-256", "XOAUTH2", "PLAIN"], ["SCRAM-SHA-256", "PLAIN"]),
    ],
)
def test_requested_mechanisms_are_used_in_their_order(wanted: list[str], chosen: list[str]) -> None:
    """AU-05: so CRAM-MD5 is there for who must have it."""
    assert names(choose_mechanisms(USER, NAMES, CHANNEL, wanted)) == chosen


def made(takes: type[Password] | type[Bearer] | type[External], user: str, secret: str) -> Credentials:
    return External(user or "\0") if takes is External else takes(user, Secret(secret))


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=lambda mechanism: mechanism.name)
@pytest.mark.parametrize(
    ("user", "secret", "why"),
    [
        ("a\0b", "x", "a NUL"),
        ("a\x01auth=Bearer z", "x", "U\\+0001"),
        ("a\udcff", "x", "a lone surrogate"),
        ("", "x", "the user name is empty|a NUL"),
        ("a", "x\0y", "a NUL"),
        ("a", "x\x01", "U\\+0001"),
        ("a", "", "is empty"),
        ("a", "hunter2\udcff", "a lone surrogate"),
    ],
)
def test_credentials_with_separators_are_refused_before_anything_is_sent(
    mechanism: Mechanism, user: str, secret: str, why: str
) -> None:
    """AU-13: at the first step of each mechanism, the secret not being in the error."""
    if mechanism.credentials_type is External and user == "a":
        return  # there is no secret
    with pytest.raises(InvalidArgument, match=why) as refused:
        next(mechanism.begin(made(mechanism.credentials_type, user, secret), CHANNEL))
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


@pytest.mark.parametrize(
    "credentials",
    [
        Password("ann", Secret("hunt")),
        Password("ann", Secret("hunter2"), "bob"),
        Password("ann", Secret("hunter2 canary")),
        Password("ann", Secret("correct horse battery staple")),
        TOKEN,
        TIM,
    ],
)
def test_no_form_of_the_secret_can_be_echoed(credentials: Password | Bearer) -> None:
    """FT-52, AU-09: a short secret must not be starred out of its own base64 first, which would leave the rest."""
    secret = credentials.secret.reveal().encode()
    telling = [
        m for m in MECHANISMS if m.name in ("PLAIN", "XOAUTH2", "OAUTHBEARER") and m.is_usable(credentials, CHANNEL)
    ]
    assert telling
    forms = [secret, b64encode(secret)]
    forms += [b64encode(next(m.begin(credentials, CHANNEL)) or b"") for m in telling]
    forms += [form.rstrip(b"=") for form in forms]
    mask_credentials(mask := SecretMask(), credentials)
    for form in forms:
        assert mask.mask((b"5.7.8 no", b"5.7.8 " + form)) == (b"5.7.8 no", b"5.7.8 ***")


def test_without_a_secret_nothing_is_masked() -> None:
    """EXTERNAL."""
    mask_credentials(mask := SecretMask(), External("ann"))
    mask_credentials(mask, None)
    assert mask.mask(lines := (b"5.7.8 ann",)) is lines
