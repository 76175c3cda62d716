"""DKIM: a signature by the domain over a message's header and body (RFC 6376, RFC 8301, RFC 8463).

What is signed are the octets of the content, before dots are doubled. All of the body is signed: a length
(`l=`) would let anyone write on below it. Fields that must not be added later are named once more than
they occur, so that one more breaks the signature (§5.4.2).

Octets in, octets out; line ends are CRLF, as in every `Content`.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256

from asyncsmtp.errors import MessageError
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.replies import safe_text

__all__ = ["BodyHash", "DkimKey", "Signer", "fields_of", "relaxed_field"]

_FIELD_END = re.compile(rb"\r\n(?![ \t])")
_BLANK = b" \t\r\n"


def fields_of(section: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of a header section, each as its name in lower case and its octets without the last CRLF."""
    fields = [field for field in _FIELD_END.split(section) if field]
    return [(field.partition(b":")[0].rstrip(b" \t").lower(), field) for field in fields]


def relaxed_field(field: bytes) -> bytes:
    """Name in lower case, unfolded, each white space one space, none at the ends or around the colon; no CRLF."""
    name, _, value = field.partition(b":")
    return name.rstrip(b" \t").lower() + b":" + _single_spaced(value.replace(b"\r\n", b"")).strip(b" ")


class BodyHash:
    """SHA-256 of a body's relaxed form: each white space one space, none before a line end, no empty lines at the end.

    The body comes in parts, wherever they are cut; a state can be kept and gone on from (`copy`).
    """

    __slots__ = ("_begun", "_blank", "_hash")

    def __init__(self) -> None:
        self._hash = sha256()
        self._blank = b""  # the end so far, which counts only if something follows it
        self._begun = False

    def copy(self) -> BodyHash:
        """The same state, to go on from twice."""
        twin = BodyHash()
        twin._hash, twin._blank, twin._begun = self._hash.copy(), self._blank, self._begun
        return twin

    def update(self, part: bytes) -> None:
        """Take the next part."""
        octets = self._blank + part if self._blank else part
        kept = octets.rstrip(_BLANK)
        self._blank = octets[len(kept) :]
        if kept:
            self._hash.update(_relaxed(kept))
            self._begun = True

    def digest(self) -> bytes:
        """The hash of all that came; a body of nothing but blanks is an empty one (§3.4.4)."""
        if not self._begun:
            return sha256().digest()
        whole = self._hash.copy()
        whole.update(b"\r\n")
        return whole.digest()


def _relaxed(octets: bytes) -> bytes:
    """Octets that end with what is no blank, so that nothing behind them can change how they are written."""
    return _single_spaced(octets).replace(b" \r\n", b"\r\n")


def _single_spaced(octets: bytes) -> bytes:
    """Most of what is signed, base64 above all, has no such blanks; looking for them costs next to nothing."""
    if b"\t" in octets:
        octets = octets.replace(b"\t", b" ")
    while b"  " in octets:
        octets = octets.replace(b"  ", b" ")
    return octets


LEAST_BITS = 1024  # below it a signer MUST NOT sign and no verifier looks, RFC 8301 §3.2
GOOD_BITS = 2048  # SHOULD, the same

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+{_LABEL}")
_SELECTOR = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_TXT = "v=DKIM1; k={}; p={}"


@dataclass(frozen=True, slots=True)
class DkimKey:
    """A private key and the name under which its public half is found: `selector._domainkey.domain`.

    Attributes:
        algorithm: the tag `a=`: `rsa-sha256` or `ed25519-sha256` (RFC 8463).
        sign: signs octets; the same octets, the same signature.
        record: the text of the TXT record to publish.
        bits: the size of an RSA key; 256 for Ed25519.
    """

    domain: str
    selector: str
    algorithm: str
    sign: Callable[[bytes], bytes] = field(repr=False, compare=False)
    record: str
    bits: int

    @classmethod
    def of_pem(cls, domain: str, selector: str, pem: bytes) -> DkimKey:
        """Read an RSA or Ed25519 key in PEM: PKCS#8, or PKCS#1 as `openssl genrsa` used to write it; unencrypted.

        Args:
            domain: the tag `d=`; letters, digits, hyphens and dots. An international one as `xn--…`.
        Raises:
            MessageError: a name that would not stand in its tag, or a key that cannot be used; or the
                package `cryptography` is not there.
        """
        _check("domain", domain, _DOMAIN, "example.com")
        _check("selector", selector, _SELECTOR, "s1")
        return _read(domain.lower(), selector, pem)

    @property
    def name(self) -> str:
        """Where the record is to be published."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def weak(self) -> bool:
        """Whether it is an RSA key of fewer than 2048 bits, which signs but should be replaced (RFC 8301 §3.2)."""
        return self.algorithm == "rsa-sha256" and self.bits < GOOD_BITS


def _check(what: str, text: str, form: re.Pattern[str], like: str) -> None:
    """What is no name could end its tag and begin another."""
    if len(text) > 253 or not form.fullmatch(text):
        raise MessageError(f"the {what} “{safe_text(text, 80)}” is not one: it must look like {like}", "DKIM")


def _read(domain: str, selector: str, pem: bytes) -> DkimKey:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
    except ImportError as error:
        raise MessageError("signing needs the package cryptography: pip install 'asyncsmtp[dkim]'", "DKIM") from error
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise MessageError("the key is encrypted: store it decrypted, readable by its owner only", "DKIM") from None
    except (ValueError, UnsupportedAlgorithm):  # not chained: what it says may quote the key
        raise MessageError(
            "there is no private key in PEM, which begins with -----BEGIN PRIVATE KEY-----", "DKIM"
        ) from None
    if isinstance(key, rsa.RSAPrivateKey):
        private = key
        if key.key_size < LEAST_BITS:
            raise MessageError(f"an RSA key of {key.key_size} bits is too weak: make one of {GOOD_BITS}", "DKIM")
        der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        padded, hashed = padding.PKCS1v15(), hashes.SHA256()
        record = _TXT.format("rsa", b64encode(der).decode())
        return DkimKey(
            domain, selector, "rsa-sha256", lambda octets: private.sign(octets, padded, hashed), record, key.key_size
        )
    if isinstance(key, ed25519.Ed25519PrivateKey):
        edwards = key
        raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        record = _TXT.format("ed25519", b64encode(raw).decode())
        return DkimKey(domain, selector, "ed25519-sha256", lambda octets: edwards.sign(_digest(octets)), record, 256)
    raise MessageError("the key is neither RSA nor Ed25519, and DKIM knows no other", "DKIM")


def _digest(octets: bytes) -> bytes:
    """Ed25519 signs the SHA-256 of what RSA signs (RFC 8463 §3)."""
    from hashlib import sha256

    return sha256(octets).digest()


_OVERSIGNED = (
    *("From", "Reply-To", "Subject", "Date", "Message-ID", "To", "Cc"),
    *("MIME-Version", "Content-Type", "Content-Transfer-Encoding"),
    *("List-ID", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Help", "List-Subscribe", "List-Owner"),
    *("List-Post", "List-Archive"),
)
_SIGNED = ("Sender", "In-Reply-To", "References", "Feedback-ID", "Auto-Submitted")  # where they occur
_LINE = 72  # octets of a folded line of base64 or names


_Tail = tuple[bytes, int]  # a part, and where in it the body begins


class Signer:
    """Signs messages with one key or more, each giving a field of its own; the last key's field comes first.

    It remembers how far the bodies it saw began with the same parts, the very same `bytes`, as those of one
    template do, and hashes that beginning once.
    """

    def __init__(self, *keys: DkimKey) -> None:
        if not keys:
            raise MessageError("there is no key to sign with", "DKIM")
        self._keys = keys
        self._seen: list[tuple[bytes, int, BodyHash]] = []

    def sign(self, message: Message, date: datetime | None = None) -> Message:
        """The message with signatures before its first field; the same arguments give the same octets.

        Args:
            date: of the signature, the tag `t=`; without an offset it is UTC. None leaves the tag out.
        Raises:
            MessageError: it has not exactly one From, is not canonical (BINARYMIME), or is not in memory.
        """
        if not isinstance(message.content, Content):
            raise MessageError("content that is read while it is sent cannot be signed: read it first", "DKIM")
        return Message(message.envelope, self.signed(message.content, date))

    def signed(self, content: Content, date: datetime | None = None) -> Content:
        """The same for a content."""
        if content.binary:
            raise MessageError("binary content cannot be signed: encode its parts as base64", "DKIM")
        section, body = _halves(content.parts)
        fields = fields_of(section)
        if (authors := sum(name == b"from" for name, _ in fields)) != 1:
            raise MessageError(f"there are {authors} From fields where a signature needs exactly one", "From")
        names, canonical = _chosen(fields)
        digest = b64encode(self._hash(body)).decode("ascii")
        stamp = "" if date is None else f" t={_seconds(date)};"
        tags = f"{stamp}\r\n h={_folded(names)};\r\n bh={digest};\r\n b="
        signatures = b"".join(_field(key, tags, canonical) for key in reversed(self._keys))
        parts = (signatures + content.parts[0], *content.parts[1:])
        size = content.size + len(signatures)
        return Content(
            parts, size, content.eight_bit, content.utf8_headers, needs_dot_stuffing=content.needs_dot_stuffing
        )

    def _hash(self, body: Sequence[_Tail]) -> bytes:
        """Go on from the last state whose parts are those of this body."""
        same = 0
        for (part, start), (seen, begin, _) in zip(body, self._seen, strict=False):
            if part is not seen or start != begin:
                break
            same += 1
        del self._seen[same:]  # what differed between two bodies will differ again
        hash_ = self._seen[-1][2].copy() if same else BodyHash()
        for part, start in body[same:]:
            hash_.update(part[start:])
            if not same:
                self._seen.append((part, start, hash_.copy()))
        return hash_.digest()


def _field(key: DkimKey, tags: str, canonical: bytes) -> bytes:
    """One DKIM-Signature; it signs itself too, with an empty `b=` and no CRLF at the end (§3.7)."""
    start = f"DKIM-Signature: v=1; a={key.algorithm}; c=relaxed/relaxed;\r\n d={key.domain}; s={key.selector};"
    field = (start + tags).encode("ascii")
    signature = b64encode(key.sign(canonical + relaxed_field(field))).decode("ascii")
    lines = [signature[at : at + _LINE] for at in range(0, len(signature), _LINE)]
    return field + "\r\n  ".join(lines).encode("ascii") + b"\r\n"


def _halves(parts: Sequence[bytes]) -> tuple[bytes, list[_Tail]]:
    """The header section, and the parts of the body, uncopied: the first begins behind the empty line."""
    head = b""
    for index, part in enumerate(parts):
        before = len(head)
        head += part
        if (end := head.find(b"\r\n\r\n", max(before - 3, 0))) >= 0:
            return head[: end + 2], [(part, max(end + 4 - before, 0)), *((rest, 0) for rest in parts[index + 1 :])]
    return head, []


def _chosen(fields: Sequence[tuple[bytes, bytes]]) -> tuple[list[str], bytes]:
    """The names for `h=`, and the canonical fields they stand for: of one name, the lowest first (§5.4.2)."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        found.setdefault(name, []).append(value)
    names: list[str] = []
    chosen: list[bytes] = []
    for wanted in (*_OVERSIGNED, *_SIGNED):
        mine = found.get(wanted.lower().encode("ascii"), [])
        names += [wanted] * (len(mine) + (wanted in _OVERSIGNED))
        chosen += [relaxed_field(value) + b"\r\n" for value in reversed(mine)]
    return names, b"".join(chosen)


def _folded(names: Sequence[str]) -> str:
    """Names with colons between them, broken behind a colon."""
    text, line = "", 0
    for name in names:
        if line + len(name) > _LINE - 4:
            text, line = text + "\r\n  ", 0
        text, line = f"{text}{name}:", line + len(name) + 1
    return text.removesuffix(":")


def _seconds(date: datetime) -> int:
    return int((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp())
