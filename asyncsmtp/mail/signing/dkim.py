"""DKIM signatures: keys, relaxed canonicalization and signing (RFC 6376, RFC 8301, RFC 8463).

The bytes of the content are signed, before dots are doubled. All of the body is signed: a length (`l=`) would let
anyone append to it. Fields that must not be added later are named once more than they occur, so that one more breaks
the signature (§5.4.2).

Bytes in, bytes out; line ends are CRLF, as in every `Content`.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from asyncsmtp.errors import InvalidArgument, MessageError, check_type
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:  # the standard library's parser is slow to load
    from email.message import Message as StdlibMessage

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

__all__ = ["BodyHash", "DkimKey", "Signer", "canonicalize_field", "load_private_key", "split_fields"]

MIN_RSA_BITS = 1024  # below it a signer MUST NOT sign, RFC 8301 §3.2
RECOMMENDED_RSA_BITS = 2048  # SHOULD, the same

_FIELD_END = re.compile(rb"\r\n(?![ \t])")
_BLANK = b" \t\r\n"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+{_LABEL}")
_SELECTOR = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_TXT_RECORD = "v=DKIM1; k={}; p={}"
_OVERSIGNED = (
    *("From", "Reply-To", "Subject", "Date", "Message-ID", "To", "Cc"),
    *("MIME-Version", "Content-Type", "Content-Transfer-Encoding"),
    *("List-ID", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Help", "List-Subscribe", "List-Owner"),
    *("List-Post", "List-Archive"),
)
_SIGNED_IF_PRESENT = ("Sender", "In-Reply-To", "References", "Feedback-ID", "Auto-Submitted")
_MAX_FOLDED_LINE = 72  # bytes of a folded line of base64 or names


def split_fields(section: bytes) -> list[tuple[bytes, bytes]]:
    """Return the fields of a header section as (name in lower case, the whole field without its last CRLF)."""
    fields = [field for field in _FIELD_END.split(section) if field]
    return [(field.partition(b":")[0].rstrip(b" \t").lower(), field) for field in fields]


def canonicalize_field(field: bytes) -> bytes:
    """Return a field in relaxed form, without CRLF (RFC 6376 §3.4.2).

    The name is in lower case, the value unfolded, each run of white space one space, and there is none at the ends or
    around the colon.
    """
    name, _, value = field.partition(b":")
    return name.rstrip(b" \t").lower() + b":" + _collapse_blanks(value.replace(b"\r\n", b"")).strip(b" ")


class BodyHash:
    """SHA-256 of a body in relaxed form, fed part by part (RFC 6376 §3.4.4).

    Each run of white space counts as one space; white space before a line end and empty lines at the end count as
    nothing. The parts may be cut anywhere. `copy` keeps a state to go on from.
    """

    # A part may end inside a run of blanks and line ends, and only what follows decides how that run is written: it is
    # one space, a line end, or, at the end of the body, nothing. So blanks at the end of a part are held back in
    # `_blank` and put before the next part; only bytes that end with a non-blank are canonicalized and hashed.
    # Whatever is hashed can no longer change, which makes the hash independent of the cuts.

    __slots__ = ("_begun", "_blank", "_hash")

    def __init__(self) -> None:
        self._hash = sha256()
        self._blank = b""
        self._begun = False

    def copy(self) -> BodyHash:
        """Return an independent copy of the state."""
        twin = BodyHash()
        twin._hash, twin._blank, twin._begun = self._hash.copy(), self._blank, self._begun
        return twin

    def update(self, part: bytes) -> None:
        """Hash the next part."""
        data = self._blank + part if self._blank else part
        kept = data.rstrip(_BLANK)
        self._blank = data[len(kept) :]
        if kept:
            self._hash.update(_collapse_blanks(kept).replace(b" \r\n", b"\r\n"))
            self._begun = True

    def digest(self) -> bytes:
        """Return the hash of all parts; a body of blanks only is hashed as an empty one (§3.4.4)."""
        if not self._begun:
            return sha256().digest()
        whole = self._hash.copy()
        whole.update(b"\r\n")
        return whole.digest()


def _collapse_blanks(data: bytes) -> bytes:
    """Replace each run of spaces and tabs by one space.

    Most content, base64 above all, has no such runs, and searching for them costs next to nothing: a regular
    expression over the same bytes takes 30 to 100 times as long (measured).
    """
    if b"\t" in data:
        data = data.replace(b"\t", b" ")
    while b"  " in data:
        data = data.replace(b"  ", b" ")
    return data


@dataclass(frozen=True, slots=True)
class DkimKey:
    """A private key and the DNS name of its public half, `selector._domainkey.domain`.

    Attributes:
        algorithm: the tag `a=`: `rsa-sha256` or `ed25519-sha256` (RFC 8463).
        sign: signs bytes; the same bytes give the same signature.
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
    def from_pem(cls, domain: str, selector: str, pem: bytes) -> DkimKey:
        """Return the RSA or Ed25519 key in PEM: PKCS#8 or PKCS#1, unencrypted.

        Args:
            domain: the tag `d=`: letters, digits, hyphens and dots. An international domain as `xn--…`.
        Raises:
            MessageError: the domain, selector or key is not valid, or the package `cryptography` is missing.
        """
        check_type("domain", domain, str)
        check_type("selector", selector, str)
        _check_tag("domain", domain, _DOMAIN, "example.com")
        _check_tag("selector", selector, _SELECTOR, "s1")
        return _load_key(domain.lower(), selector, pem)

    @classmethod
    def from_file(cls, domain: str, selector: str, path: str | Path) -> DkimKey:
        """Return the key in a PEM file, as `from_pem` does. This blocks while it reads the file.

        Raises:
            MessageError: as `from_pem`, or the file cannot be read.
        """
        check_type("path", path, str, Path)
        try:
            pem = Path(path).read_bytes()
        except OSError as error:
            reason = error.strerror or error
            raise MessageError(f"the key file {safe_text(str(path), 120)} cannot be read: {reason}", "DKIM") from error
        return cls.from_pem(domain, selector, pem)

    @property
    def name(self) -> str:
        """The DNS name at which to publish the record."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def is_weak(self) -> bool:
        """True for an RSA key of fewer than 2048 bits, which signs but should be replaced (RFC 8301 §3.2)."""
        return self.algorithm == "rsa-sha256" and self.bits < RECOMMENDED_RSA_BITS


def _check_tag(what: str, text: str, form: re.Pattern[str], like: str) -> None:
    """Refuse text that could end its tag and begin another."""
    if len(text) > 253 or not form.fullmatch(text):
        raise MessageError(f"the {what} “{safe_text(text, 80)}” is not valid: it must look like {like}", "DKIM")


def load_private_key(pem: bytes, field: str) -> PrivateKeyTypes:
    """Return an unencrypted private key in PEM; `field` is the one that a MessageError names."""
    try:  # late: an optional package, and slow to load
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError as error:
        raise MessageError("signing needs the package cryptography: pip install 'asyncsmtp[dkim]'", field) from error
    try:
        return load_pem_private_key(pem, None)
    except TypeError:
        raise MessageError("the key is encrypted: store it decrypted, readable by its owner only", field) from None
    except (ValueError, UnsupportedAlgorithm):  # not chained: its text may quote the key
        why = "there is no private key in PEM, which begins with -----BEGIN PRIVATE KEY-----"
        raise MessageError(why, field) from None


def _load_key(domain: str, selector: str, pem: bytes) -> DkimKey:
    key = load_private_key(pem, "DKIM")
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if isinstance(key, rsa.RSAPrivateKey):
        sign_rsa, bits = key.sign, key.key_size
        if bits < MIN_RSA_BITS:
            raise MessageError(f"an RSA key of {bits} bits is too weak: make one of {RECOMMENDED_RSA_BITS}", "DKIM")
        der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        padded, hashed = padding.PKCS1v15(), hashes.SHA256()
        record = _TXT_RECORD.format("rsa", b64encode(der).decode())
        return DkimKey(domain, selector, "rsa-sha256", lambda data: sign_rsa(data, padded, hashed), record, bits)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        sign = key.sign
        raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        record = _TXT_RECORD.format("ed25519", b64encode(raw).decode())
        # Ed25519 signs the SHA-256 of what RSA signs, RFC 8463 §3.
        return DkimKey(domain, selector, "ed25519-sha256", lambda data: sign(sha256(data).digest()), record, 256)
    raise MessageError("the key is neither RSA nor Ed25519, the only kinds that DKIM has", "DKIM")


_BodyPart = tuple[bytes, int]  # a part, and the offset in it at which the body begins


class Signer:
    """A signer with one or more DKIM keys; each adds a field, the last key's first.

        signer = Signer.from_file("example.org", "s1", "dkim.pem")
        signed = signer.sign(message)

    Messages of one template begin with the same parts, the very same `bytes` objects. The signer remembers the hash
    of that common beginning and computes it once. Use one signer for one template.
    """

    def __init__(self, *keys: DkimKey) -> None:
        if not keys:
            raise MessageError("there is no key to sign with: give at least one", "DKIM")
        for key in keys:
            check_type("keys", key, DkimKey)
        self._keys = keys
        self._prefix: list[tuple[bytes, int, BodyHash]] = []

    def __repr__(self) -> str:
        return f"<Signer for {', '.join(f'{key.selector}._domainkey.{key.domain}' for key in self._keys)}>"

    @classmethod
    def from_file(cls, domain: str, selector: str, path: str | Path) -> Signer:
        """Return a signer with the key in a PEM file. This blocks while it reads the file.

        Raises:
            MessageError: as `DkimKey.from_file`.
        """
        return cls(DkimKey.from_file(domain, selector, path))

    def sign(self, message: Message | StdlibMessage, date: datetime | None = None) -> Message:
        """Return the message with signatures before its first field; the same arguments give the same bytes.

        Args:
            message: a `Message`, or an `EmailMessage`, which is converted as `Message.of` does.
            date: the time of the signature, tag `t=`; UTC if it has no offset. None leaves the tag out.
        Raises:
            MessageError: there is not exactly one From, or the content is not canonical (BINARYMIME) or not in memory.
            InvalidArgument: the message is a draft: the Date or Message-ID added later would break the signature.
        """
        check_type("date", date, datetime, None)
        made = Message.of(message)
        if not isinstance(made.content, Content):
            raise MessageError("streamed content cannot be signed: read it into memory first", "DKIM")
        if made.is_draft:
            why = "a message needs its Date and Message-ID before it is signed"
            raise InvalidArgument(f"{why}: give date= and message_id=, or set both fields")
        return Message(made.envelope, self.sign_content(made.content, date))

    def sign_content(self, content: Content, date: datetime | None = None) -> Content:
        """Return the content with signatures, as `sign` does."""
        if content.binary:
            raise MessageError("binary content cannot be signed: encode its parts as base64", "DKIM")
        if content.downgrade is not None:
            with suppress(MessageError):  # of another's signature: that is passed on as it is
                content = content.downgrade()  # a relay that converts to 7 bits would break the signature, §5.3
        section, body = _split_header_and_body(content.parts)
        fields = split_fields(section)
        if (authors := sum(name == b"from" for name, _ in fields)) != 1:
            raise MessageError(f"there are {authors} From fields where a signature needs exactly one", "From")
        names, canonical = _select_fields(fields)
        digest = b64encode(self._hash(body)).decode("ascii")
        if date is not None and date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        stamp = "" if date is None else f" t={int(date.timestamp())};"
        tags = f"{stamp}\r\n h={_fold_names(names)};\r\n bh={digest};\r\n b="
        signatures = b"".join(_format_signature(key, tags, canonical) for key in reversed(self._keys))
        parts = (signatures + content.parts[0], *content.parts[1:])
        return replace(content, parts=parts, size=content.size + len(signatures))

    def _hash(self, body: Sequence[_BodyPart]) -> bytes:
        """Return the hash of a body, continuing from the longest remembered prefix of its parts."""
        known, same = self._prefix, 0  # read once and replaced as a whole: several threads may sign at a time
        for (part, start), (seen, begin, _) in zip(body, known, strict=False):
            if part is not seen or start != begin:
                break
            same += 1
        prefix = known[:same]  # parts that differ between two bodies will differ again
        hash_ = prefix[-1][2].copy() if same else BodyHash()
        for part, start in body[same:]:
            hash_.update(part[start:])
            if not same:
                prefix.append((part, start, hash_.copy()))
        self._prefix = prefix
        return hash_.digest()


def _format_signature(key: DkimKey, tags: str, canonical: bytes) -> bytes:
    """Return one DKIM-Signature; it signs itself too, with an empty `b=` and no CRLF at the end (§3.7)."""
    start = f"DKIM-Signature: v=1; a={key.algorithm}; c=relaxed/relaxed;\r\n d={key.domain}; s={key.selector};"
    unsigned = (start + tags).encode("ascii")
    signature = b64encode(key.sign(canonical + canonicalize_field(unsigned))).decode("ascii")
    lines = [signature[at : at + _MAX_FOLDED_LINE] for at in range(0, len(signature), _MAX_FOLDED_LINE)]
    return unsigned + "\r\n  ".join(lines).encode("ascii") + b"\r\n"


def _split_header_and_body(parts: Sequence[bytes]) -> tuple[bytes, list[_BodyPart]]:
    """Return the header section and the parts of the body, uncopied; the first begins behind the empty line."""
    head = b""
    for index, part in enumerate(parts):
        before = len(head)
        head += part
        if (end := head.find(b"\r\n\r\n", max(before - 3, 0))) >= 0:
            return head[: end + 2], [(part, max(end + 4 - before, 0)), *((rest, 0) for rest in parts[index + 1 :])]
    return head, []


def _select_fields(fields: Sequence[tuple[bytes, bytes]]) -> tuple[list[str], bytes]:
    """Return the names for `h=` and their canonical fields; of one name, the lowest field comes first (§5.4.2)."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        found.setdefault(name, []).append(value)
    names: list[str] = []
    selected: list[bytes] = []
    for wanted in (*_OVERSIGNED, *_SIGNED_IF_PRESENT):
        values = found.get(wanted.lower().encode("ascii"), [])
        names += [wanted] * (len(values) + (wanted in _OVERSIGNED))
        selected += [canonicalize_field(value) + b"\r\n" for value in reversed(values)]
    return names, b"".join(selected)


def _fold_names(names: Sequence[str]) -> str:
    """Return names with colons between them, folded behind a colon."""
    text, line = "", 0
    for name in names:
        if line + len(name) > _MAX_FOLDED_LINE - 4:
            text, line = text + "\r\n  ", 0
        text, line = f"{text}{name}:", line + len(name) + 1
    return text.removesuffix(":")
