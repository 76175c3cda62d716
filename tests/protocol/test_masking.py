"""Secrets in replies: every form of them, folded in every way, and nothing else."""

from __future__ import annotations

import timeit
from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.protocol.masking import MAX_EXAMINED, MIN_RUN, SecretMask

PASSWORD = b"hunter2-canary"
PASSPHRASE = "pässwort mit ümlaut & geist".encode()
TOKEN = b"ya29." + bytes((n * 37 % 26) + 97 for n in range(1600))
ORDINARY = [
    (b"2.0.0 Ok: queued as 4XyZ1234Ab12345",),
    (b"2.1.5 Flushed d9443c01a7336-2a0f0b5b5a1sm123456 - gsmtp",),
    (b"5.1.1 <ann@example.org>: Recipient address rejected: User unknown in local recipient table",),
    (b"relay.example", b"PIPELINING", b"SIZE 52428800", b"AUTH PLAIN LOGIN", b"8BITMIME"),
    (b"",),
]


def masked(mask: SecretMask, *lines: bytes, incomplete: bool = False) -> tuple[bytes, ...]:
    return mask.mask(lines, incomplete=incomplete)


FORMS = {
    "plain": PASSWORD,
    "base64": b64encode(PASSWORD),
    "base64 without padding": b64encode(PASSWORD).rstrip(b"="),
    "URL-safe base64": urlsafe_b64encode(b"\xff\xfe" + PASSWORD),
    "PLAIN": b64encode(b"\0ann@example.org\0" + PASSWORD),
    "PLAIN with authzid": b64encode(b"me\0ann@example.org\0" + PASSWORD),
    "XOAUTH2": b64encode(b"user=ann\1auth=Bearer " + PASSWORD + b"\1\1"),
    "OAUTHBEARER": b64encode(b"n,a=ann,\1host=h\1port=587\1auth=Bearer " + PASSWORD + b"\1\1"),
    "Basic": b64encode(b"ann:" + PASSWORD),
    "hex": PASSWORD.hex().encode(),
    "percent": quote(PASSWORD, safe="").encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_is_masked_in_each_form(form: str) -> None:
    """FT-52: alone, inside words, twice in a line, and with a comma behind it."""
    mask, echo = SecretMask(PASSWORD), FORMS[form]
    assert masked(mask, echo) == (b"***",)
    assert masked(mask, b"5.7.8 you said " + echo + b", and " + echo) == (b"5.7.8 you said ***, and ***",)
    assert masked(mask, b"5.7.8 first", b"5.7.8 <" + echo + b">", b"5.7.8 last") == (
        b"5.7.8 first",
        b"5.7.8 <***>",
        b"5.7.8 last",
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("width", [1, 3, 7, 13])
@pytest.mark.parametrize("code", [b"", b"5.7.8 ", b" ", b"\t"])
def test_folding_hides_no_secret(form: str, width: int, code: bytes) -> None:
    """FT-52: one byte a line, an enhanced code before each, an indent; nothing of it is left."""
    mask, echo = SecretMask(PASSWORD), FORMS[form]
    pieces = [echo[at : at + width] for at in range(0, len(echo), width)]
    shown = b"".join(masked(mask, *(code + piece for piece in pieces)))
    left = shown.replace(code, b"").replace(b"***", b"") if code else shown.replace(b"***", b"")
    assert PASSWORD not in left
    inside = FORMS["PLAIN"] if form == "PLAIN" else echo
    assert not any(inside[at : at + 12] in left for at in range(len(inside) - 11) if form in ("plain", "base64"))


@given(st.lists(st.integers(1, 40), max_size=12), st.sampled_from(sorted(FORMS)))
def test_a_secret_cut_anywhere_is_found(cuts: list[int], form: str) -> None:
    """FT-52: at most the two characters of base64 that also depend on what stands before it are left."""
    echo, pieces = FORMS[form], []
    for cut in cuts:
        pieces.append(echo[:cut])
        echo = echo[cut:]
    shown = masked(SecretMask(PASSWORD), *pieces, echo)
    assert any(b"***" in line for line in shown)
    assert PASSWORD not in b"".join(shown)
    assert b64encode(PASSWORD)[:17] not in b"".join(shown)


def test_white_space_hides_no_secret() -> None:
    """FT-52: neither that of the secret, an app password for one, nor of the echo."""
    mask = SecretMask(b"abcd efgh ijkl mnop")
    for echo in (b"abcd efgh ijkl mnop", b"abcdefghijklmnop", b"abcd  efgh\tijklmnop"):
        assert masked(mask, b"not <" + echo + b">") == (b"not <***>",)
    assert masked(SecretMask(PASSWORD), b"x hun ter2- canary y") == (b"x *** y",)


@pytest.mark.parametrize("begin", range(0, len(TOKEN) - 60, 97))
def test_a_part_of_a_token_is_masked(begin: int) -> None:
    """FT-52: a relay may quote some of it, such as one of the three parts of a JWT."""
    mask = SecretMask(TOKEN)
    assert masked(mask, b"no <" + TOKEN[begin : begin + 60] + b">") == (b"no <***>",)
    encoded = b64encode(b"user=ann\1auth=Bearer " + TOKEN)[40 + begin : 110 + begin]
    assert masked(mask, b"no <" + encoded + b">") == (b"no <***>",)


@pytest.mark.parametrize("begin", range(8))
def test_sixteen_bytes_of_a_long_password_are_masked(begin: int) -> None:
    """FT-52: fewer are not, and may be words of the relay's own."""
    secret = b"correct-horse-battery-staple"
    mask = SecretMask(secret)
    part = secret[begin : begin + MIN_RUN]
    assert masked(mask, b"no: " + part) == (b"no: ***",)
    assert masked(mask, b"no: " + part[:-1]) == (b"no: " + part[:-1],)
    assert masked(mask, b"battery staple, horse correct") == (b"battery staple, horse correct",)


def test_a_secret_that_repeats_itself_is_found() -> None:
    """FT-52: its substrings are not unique."""
    mask = SecretMask(b"abcdefgh-abcdefgh+XYZ12345")
    assert masked(mask, b"no abcdefgh+XYZ12345 no") == (b"no *** no",)
    assert masked(SecretMask(b"a" * 40), b"b" + b"a" * 40 + b"b") == (b"b***b",)


def test_a_password_beyond_ascii_is_masked_in_each_encoding() -> None:
    """FT-52: a relay may answer in Latin-1."""
    mask = SecretMask(PASSPHRASE)
    for echo in (PASSPHRASE, PASSPHRASE.decode().encode("latin-1"), quote(PASSPHRASE).encode()):
        assert masked(mask, b"no: " + echo) == (b"no: ***",)
    assert masked(SecretMask("пароль-секрет".encode()), "no: пароль-секрет".encode()) == (b"no: ***",)
    assert masked(SecretMask(b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8"), b"no: \xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8") == (
        b"no: ***",
    )


@pytest.mark.parametrize(
    ("password", "line", "shown"),
    [
        (b"mail", b"no mail to mailbox of mail.example, email", b"no *** to mailbox of ***.example, email"),
        (b"test", b"latest test-tested", b"latest ***-tested"),
        (b"hunter2", b"hunter22 <hunter2>", b"hunter22 <***>"),
        (b"ok", b"2.0.0 ok", b"2.0.0 ok"),
        (b"250", b"SIZE 250", b"SIZE 250"),
        (b"password", b"bad password", b"bad ***"),
        (b"a", b"a message", b"a message"),
        (b"", b"a message", b"a message"),
    ],
)
def test_a_short_password_does_not_spoil_words(password: bytes, line: bytes, shown: bytes) -> None:
    """FT-52: below 8 bytes only where it stands alone, below 4 not at all."""
    assert masked(SecretMask(password), line) == (shown,)


@pytest.mark.parametrize("password", [b"mail", b"pass1", b"secret", b"hunter2"])
def test_a_short_password_is_masked_in_base64(password: bytes) -> None:
    """FT-52: whatever stands before it; folded as well."""
    for user in (b"a", b"ab", b"abc"):
        echo = b64encode(b"\0" + user + b"\0" + password)
        assert masked(SecretMask(password), b"no " + echo + b", no") == (b"no ***, no",)
    hello = masked(SecretMask(password), b"no " + password[:2], b"5.7.8 " + password[2:] + b" is wrong")
    assert hello == (b"no ***", b"5.7.8 *** is wrong")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"no: hunter2-canar", b"no: ***"),
        (b"no: hunt", b"no: ***"),
        (b"no: hun", b"no: hun"),
        (b"hunter2-canary", b"***"),
        (b"no: " + b64encode(PASSWORD)[:9], b"no: ***"),
        (b"no", b"no"),
    ],
)
def test_a_secret_at_the_end_of_a_line_that_is_cut_off_is_masked(line: bytes, shown: bytes) -> None:
    """FT-52: the first 4 bytes of it are enough then."""
    assert masked(SecretMask(PASSWORD), line, incomplete=True) == (shown,)


def test_a_long_reply_with_a_secret_is_masked_whole() -> None:
    """FT-52: finding each place in 64 KiB would block the event loop."""
    mask = SecretMask(PASSWORD)
    words = (b"x " * (MAX_EXAMINED // 2), b"y")
    assert mask.mask(words) is words
    assert mask.mask((*words, PASSWORD)) == (b"***",) * 3


def test_a_text_is_masked_like_a_line() -> None:
    """FT-52: a reason that was decoded already; what cannot be encoded is escaped."""
    mask = SecretMask(PASSWORD)
    assert mask.mask_text("expired: hunter2-canary \udcff") == "expired: *** \\udcff"
    assert mask.mask_text("expired: \udcff") == "expired: \udcff"


@pytest.mark.parametrize("lines", ORDINARY, ids=range(len(ORDINARY)))
@pytest.mark.parametrize("secret", [PASSWORD, PASSPHRASE, TOKEN, b"mail", b"hunter2"])
def test_an_ordinary_reply_stays_the_same_object(lines: tuple[bytes, ...], secret: bytes) -> None:
    """FT-52: so does every reply where there is no secret."""
    assert SecretMask(secret).mask(lines) is lines
    assert SecretMask().mask(lines) is lines


def test_no_repr_shows_a_secret() -> None:
    """AU-08."""
    mask = SecretMask(PASSWORD)
    mask.add(PASSWORD)
    mask.add_encoded(b"aGVsbG8gd29ybGQ=", b"aGVsbG8gd29ybGQ=")
    assert masked(mask, b"no aGVsbG8gd29ybGQ=") == (b"no ***",)
    assert repr(mask) == "SecretMask(***)"


@pytest.mark.parametrize("secret", [PASSWORD, TOKEN])
def test_masking_costs_nothing_that_can_be_measured(secret: bytes) -> None:
    """FT-52: about 1 µs for a reply, where a message takes 60; ten times that is allowed on a busy machine."""
    mask, line = SecretMask(secret), ORDINARY[0]
    assert min(timeit.repeat(lambda: mask.mask(line), number=2000, repeat=5)) / 2000 < 10e-6
