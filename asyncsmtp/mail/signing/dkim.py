"""DKIM: a signature by the domain over a message's header and body (RFC 6376, RFC 8301, RFC 8463).

What is signed are the octets of the content, before dots are doubled. All of the body is signed: a length
(`l=`) would let anyone write on below it. Fields that must not be added later are named once more than
they occur, so that one more breaks the signature (§5.4.2).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime

from asyncsmtp.errors import MessageError
from asyncsmtp.mail.message import Message
from asyncsmtp.mail.signing.canonical import BodyHash, fields_of, relaxed_field
from asyncsmtp.mail.signing.dkimkey import DkimKey
from asyncsmtp.protocol.content import Content

__all__ = ["Signer"]

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
        return Content(parts, size, content.eight_bit, content.utf8_headers, dotted=content.dotted)

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
    for name, field in fields:
        found.setdefault(name, []).append(field)
    names: list[str] = []
    chosen: list[bytes] = []
    for wanted in (*_OVERSIGNED, *_SIGNED):
        mine = found.get(wanted.lower().encode("ascii"), [])
        names += [wanted] * (len(mine) + (wanted in _OVERSIGNED))
        chosen += [relaxed_field(field) + b"\r\n" for field in reversed(mine)]
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
