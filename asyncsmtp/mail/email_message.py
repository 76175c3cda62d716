"""Messages of the standard library and finished messages in bytes: their content (RFC 5322).

The library's folding has let through header fields that nobody wrote (CVE-2024-6923 and others), and it differs between
Python versions. So addresses and text are written by our own code, and whatever the library still folds must come out
as exactly one field, or the message is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from email.errors import (
    CloseBoundaryNotFoundDefect,
    FirstHeaderLineIsContinuationDefect,
    MisplacedEnvelopeHeaderDefect,
    MissingHeaderBodySeparatorDefect,
)
from email.header import Header
from email.headerregistry import AddressHeader, UnstructuredHeader
from email.message import EmailMessage
from email.parser import BytesFeedParser, HeaderParser
from email.policy import Compat32, EmailPolicy, default
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from asyncsmtp.errors import MessageError, RecipientError
from asyncsmtp.mail import headers
from asyncsmtp.mail.address_fields import ADDRESS_FIELDS, has_no_address, parse_address_field
from asyncsmtp.mail.attachment import format_parameter
from asyncsmtp.mail.mime import TransferEncoding, encode_base64, encode_quoted_printable, encode_with_soft_break
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from email.message import Message as StdlibMessage

__all__ = ["content_from_bytes", "content_from_message", "downgrade", "is_signed", "parse_header_section", "weight"]


def parse_header_section(octets: bytes) -> StdlibMessage:
    """Parse the header section of a finished message, in UTF-8 (RFC 6532); what follows it is not read."""
    section = octets[: _find_header_end(octets)]
    return HeaderParser(policy=default).parsestr(section.decode("utf-8", "surrogateescape"))


_BLIND = frozenset({"bcc", "resent-bcc"})
_SIGNATURES = ("DKIM-Signature", "ARC-Message-Signature", "DomainKey-Signature")  # of the header section and the body
_MIME_FIELDS = frozenset({"content-disposition", "content-type"})
_PARAMETER = re.compile(r'(?:^|;)((?:"[^"\\]*(?:\\.[^"\\]*)*"|[^";]|")*)')
_QUOTED = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_ATTRIBUTE = re.compile(r"[!#$%&'*+.^_`{|}~A-Za-z0-9-]+")
_FOLD = re.compile(r"(?:\r\n|\r|\n)(?=[ \t])")
_UNFOLDED = re.compile(rb"[\r\n\0]")
_LINE_END = re.compile(rb"\r\n|\r|\n")
_FIELD_LINE = re.compile(rb"[!-9;-~]+[ \t]*:|[ \t]")
_BCC = re.compile(rb"^(?:resent-)?bcc[ \t]*:[^\r]*\r\n(?:[ \t][^\r]*\r\n)*", re.IGNORECASE | re.MULTILINE)
_RECIPIENT = re.compile(rb"^((?:resent-)?(?:to|cc|bcc))[ \t]*:", re.IGNORECASE | re.MULTILINE)
_UNESCAPED = bytes([*b"\t\n\r", *range(0x20, 0x7F)])  # in quoted-printable, as a rule
_BLOCK = 65_536  # bytes or characters that one step converts, so that a thread that does it lets others run
_LOSSY_DEFECTS = (  # of a parsed message: what it is written as differs from what was parsed
    CloseBoundaryNotFoundDefect,
    FirstHeaderLineIsContinuationDefect,
    MisplacedEnvelopeHeaderDefect,
    MissingHeaderBodySeparatorDefect,
)


def content_from_bytes(octets: bytes) -> Content:
    """Return a finished message without the Bcc of its header section and with CRLF line ends, otherwise unchanged."""
    end = _find_header_end(octets)
    head = _LINE_END.sub(b"\r\n", octets[:end])
    if end == len(octets) and not head.endswith(b"\r\n"):
        head += b"\r\n"
    body = (octets[at : at + _BLOCK] for at in range(end, len(octets), _BLOCK))
    return Content.from_blocks([_BCC.sub(b"", head), *body])


def _find_header_end(octets: bytes) -> int:
    """Return where the last field of the header section ends: before the empty line or a line that is no field."""
    at = 0
    while at < len(octets):
        found = _LINE_END.search(octets, at, at + _BLOCK)
        end = min(at + _BLOCK, len(octets)) if found is None else found.end()
        line = octets[at:end]
        if not _FIELD_LINE.match(line) and not (at == 0 and line.startswith(b"From ")):  # of a mailbox file
            break
        at = end
    _check_hidden_recipients(octets, at)
    return at


def _check_hidden_recipients(octets: bytes, end: int) -> None:
    """Refuse a recipient behind a line that is no field: a reader may take it for a part of the header section."""
    rest = octets[end : end + _BLOCK]
    if not end or _LINE_END.match(rest):
        return
    section = re.split(rb"\r\n\r\n|\n\n|\r\r", rest, maxsplit=1)[0]
    if found := _RECIPIENT.search(_LINE_END.sub(b"\r\n", section)):
        name = found[1].decode("ascii").title()
        raise MessageError("it stands behind a line that is not a header field: remove that line", name)


def content_from_message(message: StdlibMessage) -> Content:
    """Serialize a message without Bcc, as canonical bytes; the message is not changed.

    Parsed fields and parts in 8 bits are kept as they are. `downgrade` of the result encodes them in 7 bits, for a
    server without 8BITMIME or SMTPUTF8, or raises MessageError if that would break a signature.

    Raises:
        MessageError: a header that would become two, a line over 998 bytes, or a signed message that cannot be
            written as it was.
    """
    content = _serialize(message, seven_bit=False)
    return replace(content, downgrade=partial(downgrade, content)) if content.eight_bit else content


def weight(message: StdlibMessage) -> int:
    """Return roughly how many bytes of work it is to convert a message: a field takes about eight times as long."""
    total, parts = 0, [message]
    while parts and total < 8 * _BLOCK:
        part = parts.pop()
        if not hasattr(part, "raw_items"):
            continue  # refused when it is written
        total += 512 + 8 * sum(len(value) for _, value in part.raw_items() if isinstance(value, str))
        payload = _payload(part)
        if isinstance(payload, list):
            parts += payload
        elif isinstance(payload, str):
            total += len(payload)
    return total


def is_signed(message: StdlibMessage) -> bool:
    """Return whether a signature covers the fields and the body, so that nothing of them may change."""
    return any(name in message for name in _SIGNATURES)


def downgrade(content: Content) -> Content:
    """Return content in 7 bits, but for its addresses. Raises MessageError: a signature covers what must change."""
    feed = BytesFeedParser(policy=default)
    for part in content.parts:
        feed.feed(part)
    return _serialize(feed.close(), seven_bit=True)


def _serialize(message: StdlibMessage, *, seven_bit: bool) -> Content:
    try:
        writer = _Writer(message, seven_bit=seven_bit)
        return Content.from_blocks(writer.blocks(message, is_fixed=is_signed(message)))
    except MessageError:
        raise
    except RecursionError as error:
        raise MessageError("its parts are nested too deeply") from error
    except Exception as error:  # the library raises anything for a field that it cannot parse
        raise MessageError(f"the message cannot be serialized: {safe_text(str(error), 200)}") from error


class _Writer:
    """A writer of messages in blocks of bytes, like the library's generator; it neither changes nor copies them.

    Args:
        seven_bit: encode what is beyond ASCII: fields as encoded words, parts as quoted-printable or base64.
    """

    def __init__(self, message: StdlibMessage, *, seven_bit: bool) -> None:
        self._seven_bit = seven_bit
        self._policy = (_StrictCompat32 if isinstance(message.policy, Compat32) else _StrictEmailPolicy)(
            linesep="\r\n", cte_type="7bit"
        )
        self._boundaries = _make_boundaries(message)
        self._message = message
        self._embedded = 0  # messages around the part that is written: what they say of a signature may be broken

    def blocks(self, part: StdlibMessage, *, is_fixed: bool) -> Iterator[bytes]:
        """Yield the header section of a part, then its body.

        Args:
            is_fixed: a signature covers the part, so encoding it anew is an error.
        """
        if is_fixed and not self._embedded and any(isinstance(defect, _LOSSY_DEFECTS) for defect in part.defects):
            names = ", ".join(type(defect).__name__ for defect in part.defects)
            raise MessageError(f"a signature covers a part that was parsed with defects ({names}): pass its bytes")
        if is_fixed and part in self._boundaries:
            raise MessageError("a signature covers a multipart that has no boundary yet: pass the bytes it was made of")
        payload = _payload(part)
        encoding = None if isinstance(payload, list) or payload is None else self._new_encoding(part, payload, is_fixed)
        yield b"".join([*self._fields(part, encoding, is_fixed=is_fixed), b"\r\n"])
        if payload is None:
            return
        if not isinstance(payload, list):
            octets = _encode_slices(payload)
            is_text = part.get_content_maintype() == "text"
            yield from octets if encoding is None else _encode_again(octets, encoding, is_text=is_text)
        elif part.get_content_maintype() == "message":
            yield from self._messages(part, payload, is_fixed=is_fixed)
        else:
            is_fixed = is_fixed or part.get_content_type() == "multipart/signed"
            yield from self._multipart(part, payload, is_fixed=is_fixed)

    def _multipart(self, part: StdlibMessage, payload: list[StdlibMessage], *, is_fixed: bool) -> Iterator[bytes]:
        boundary = f"--{self._boundaries.get(part) or part.get_boundary()}".encode("ascii", "surrogateescape")
        if part.preamble is not None:
            yield from _encode_slices(part.preamble)
            yield b"\r\n"
        start = b""
        for inner in payload or [EmailMessage()]:
            yield start + boundary + b"\r\n"
            if payload:
                yield from self.blocks(inner, is_fixed=is_fixed)
            start = b"\r\n"
        yield b"\r\n" + boundary + b"--\r\n"
        if part.epilogue is not None:
            yield from _encode_slices(part.epilogue)

    def _messages(self, part: StdlibMessage, payload: list[StdlibMessage], *, is_fixed: bool) -> Iterator[bytes]:
        """Yield a message in a message, or the blocks of fields of a delivery status with empty lines between them."""
        if part.get_content_type() != "message/delivery-status":
            self._embedded += 1
            yield from self.blocks(payload[0], is_fixed=is_fixed or is_signed(payload[0]))
            self._embedded -= 1
            return
        for index, inner in enumerate(payload):
            written = b"".join(self.blocks(inner, is_fixed=is_fixed))
            yield (b"\r\n" if index else b"") + written.removesuffix(b"\r\n")

    def _new_encoding(self, part: StdlibMessage, payload: object, is_fixed: bool) -> TransferEncoding | None:
        """Return the transfer encoding that a part must change to; None if it stays as it is."""
        if not isinstance(payload, str):
            raise MessageError(f"the payload of a part must be str, not {type(payload).__name__}")
        transfer = str(part.get("Content-Transfer-Encoding", "7bit")).strip().lower()
        is_text = part.get_content_maintype() == "text"
        beyond_ascii = self._seven_bit and not payload.isascii()
        # Text again whose lines are longer than a relay must accept (RFC 5321 §4.5.3.1.6).
        if not beyond_ascii and not (is_text and transfer in ("7bit", "8bit") and _has_long_line(payload)):
            return None
        if is_fixed:
            why = "the relay does not take bytes above 127" if beyond_ascii else "a line has more than 998 bytes"
            raise MessageError(f"{why}, and encoding the part again would break the message's signature")
        if not is_text:
            return TransferEncoding.BASE64
        escaped = sum(len(block.translate(None, _UNESCAPED)) for block in _encode_slices(payload))
        return TransferEncoding.QUOTED_PRINTABLE if 6 * escaped <= len(payload) else TransferEncoding.BASE64

    def _fields(self, part: StdlibMessage, encoding: TransferEncoding | None, *, is_fixed: bool) -> Iterator[bytes]:
        has_encoding = False
        for name, value in self._raw_fields(part):
            low = name.lower()
            if part is self._message and low in _BLIND:
                continue
            if _is_address_field(low) and has_no_address(value) and not (is_fixed and type(value) is str):
                continue  # RFC 5322 §3.6.3: a list must not be empty
            if low == "content-transfer-encoding":
                has_encoding = True
                if encoding is not None:
                    value = str(encoding)
                elif self._seven_bit and str(value).strip().lower() == "8bit":
                    value = "7bit"
            yield self._field(name, value, is_fixed=is_fixed)
        if encoding is not None and not has_encoding:
            yield f"Content-Transfer-Encoding: {encoding}\r\n".encode("ascii")

    def _raw_fields(self, part: StdlibMessage) -> Iterable[tuple[str, Any]]:
        fields: list[tuple[str, Any]] = list(part.raw_items())
        if (boundary := self._boundaries.get(part)) is None:
            return fields
        described = EmailMessage(policy=part.policy)
        described["Content-Type"] = next(str(value) for name, value in fields if name.lower() == "content-type")
        described.set_boundary(boundary)
        found = described.raw_items()
        return [next(iter(found)) if name.lower() == "content-type" else (name, value) for name, value in fields]

    def _field(self, name: str, value: Any, *, is_fixed: bool) -> bytes:
        octets = _parsed_field(name, value)
        if octets is None:
            return self._policy.fold_binary(name, value)
        if octets.isascii() or not self._seven_bit:
            return _one_field(name, octets)
        if is_fixed:
            raise MessageError("the relay does not take UTF-8 in a header, and a signature covers this one", name)
        try:
            text = octets.decode("utf-8").partition(":")[2].replace("\r\n", "")
        except UnicodeDecodeError:
            return _one_field(name, octets)  # of an unknown charset
        value = text.strip()
        is_ours = _is_address_field(name.lower()) or name.lower() in _MIME_FIELDS
        return self._policy.fold_binary(name, value if is_ours else default.header_factory(name, value))


def _parsed_field(name: str, value: object) -> bytes | None:
    """Return a field that was parsed, as it was before, or a line of ASCII; None: it must be encoded or folded."""
    if type(value) is not str:
        return None
    try:
        octets = value.encode("ascii", "surrogateescape")
    except UnicodeEncodeError:
        return None
    lines = _LINE_END.split(octets)
    if max(map(len, lines)) + len(name) + 2 > headers.MAX_LINE_LENGTH:
        return None
    space = b"" if not lines[0] and len(lines) > 1 else b" "  # the value begins on the next line
    return name.encode("ascii", "replace") + b":" + space + b"\r\n".join(lines) + b"\r\n"


def _payload(part: StdlibMessage) -> Any:
    """Return the payload as the parser left it; `get_payload` would decode what is beyond ASCII, and not exactly."""
    return part._payload  # type: ignore[attr-defined]


def _encode_slices(text: str) -> Iterator[bytes]:
    """Yield the bytes of a payload, which the library's parser keeps as ASCII with surrogates."""
    return (text[at : at + _BLOCK].encode("ascii", "surrogateescape") for at in range(0, len(text), _BLOCK))


def _encode_again(blocks: Iterable[bytes], encoding: TransferEncoding, *, is_text: bool) -> Iterator[bytes]:
    """Yield a part in another transfer encoding, block by block; text has its line ends converted."""
    if is_text:
        blocks = _text_blocks(blocks)
    held = b""
    for block in blocks:
        if encoding is TransferEncoding.BASE64:
            held += block.replace(b"\n", b"\r\n") if is_text else block
            whole = len(held) - len(held) % 57  # bytes of one line
            yield encode_base64(held[:whole])
            held = held[whole:]
        else:
            yield (encode_quoted_printable if held.endswith(b"\n") else encode_with_soft_break)(held) if held else b""
            held = block
    yield (encode_base64 if encoding is TransferEncoding.BASE64 else encode_quoted_printable)(held)


def _text_blocks(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield text with LF line ends, cut behind a line end where there is one; the last block may be empty."""
    held = b""
    for block in blocks:
        held += block
        cut = held.rfind(b"\n") + 1 or (len(held) - 1 if len(held) >= _BLOCK else 0)  # never between CR and LF
        if cut:
            yield _LINE_END.sub(b"\n", held[:cut])
            held = held[cut:]
    if held:
        yield _LINE_END.sub(b"\n", held)


def _has_long_line(text: str) -> bool:
    """Return whether a line of a payload is longer than a relay must accept; steps from line end to line end."""
    start = 0
    while len(text) - start > headers.MAX_LINE_LENGTH:
        window = start + headers.MAX_LINE_LENGTH + 1
        end = max(text.rfind("\n", start, window), text.rfind("\r", start, window))
        if end < 0:
            return True
        start = end + 1
    return False


def _make_boundaries(message: StdlibMessage) -> dict[StdlibMessage, str]:
    """Return the missing boundaries; they are a hash of the payloads, so they cannot occur in them."""
    wanting = [part for part in message.walk() if _is_multipart(part) and not part.get_boundary()]
    if not wanting:
        return {}
    digest = blake2b(digest_size=12)
    for part in message.walk():
        if isinstance(payload := _payload(part), str):
            for at in range(0, len(payload), _BLOCK):
                digest.update(payload[at : at + _BLOCK].encode("utf-8", "surrogatepass"))
            digest.update(b"\0")
    return {part: f"=_{digest.hexdigest()}_{number}" for number, part in enumerate(wanting)}


def _is_multipart(part: StdlibMessage) -> bool:
    return isinstance(_payload(part), list) and part.get_content_maintype() == "multipart"


def _is_address_field(name: str) -> bool:
    return name.removeprefix("resent-") in ADDRESS_FIELDS


def _field(name: str, value: object) -> bytes | None:
    """Return the field written by our own code, or None to leave it to the library.

    Raises:
        MessageError: an address is not ASCII and not valid, and the library would make something else of it.
    """
    if _is_address_field(name.lower()) and (isinstance(value, AddressHeader | Header) or not str(value).isascii()):
        try:
            return headers.format_addresses(name, parse_address_field(value))
        except RecipientError as error:
            if str(value).isascii() and not isinstance(value, Header):
                return None
            raise MessageError(error.reason, name) from error
    if name.lower() in _MIME_FIELDS and not str(value).isascii():
        return _format_mime_field(name, str(value))
    return headers.format_field(name, str(value)) if isinstance(value, UnstructuredHeader) else None


def _format_mime_field(name: str, text: str) -> bytes:
    """Return a field with parameters such as `filename=März.pdf`: an encoded word would hide all of them (RFC 2231)."""
    text = _FOLD.sub("", text)
    if headers.has_control_character(text):
        raise MessageError("a line break or another control character is not allowed in it", name)
    kind, *given = (each.strip() for each in _PARAMETER.findall(text))
    written = [kind]
    for each in filter(None, given):
        attribute, equals, value = (part.strip() for part in each.partition("="))
        is_quoted = _QUOTED.fullmatch(value) is not None
        if not equals or not _ATTRIBUTE.fullmatch(attribute) or (not is_quoted and '"' in value):
            raise MessageError(f'“{safe_text(each, 80)}” is not a parameter: write it as name="value"', name)
        if value.isascii():
            written.append(f"{attribute}={value}" if is_quoted or "*" in attribute else f'{attribute}="{value}"')
        else:
            written += format_parameter(attribute, re.sub(r"\\(.)", r"\1", value[1:-1]) if is_quoted else value)
    if not kind.isascii():
        raise MessageError(f"“{safe_text(kind, 80)}” must be ASCII", name)
    return f"{name}: ".encode("ascii") + ";\r\n ".join(written).encode("ascii") + b"\r\n"


def _one_field(name: str, octets: bytes) -> bytes:
    """Refuse bytes that would be read as several fields, or as the end of the header section."""
    first, *more = octets.removesuffix(b"\r\n").split(b"\r\n")
    headers.check_header_name(name)
    begins = first.startswith(name.encode("ascii") + b":")
    if (
        not begins
        or any(not line.startswith((b" ", b"\t")) for line in more)
        or _UNFOLDED.search(b"".join([first, *more]))
    ):
        raise MessageError("a line break in it would begin another header", name)
    return octets


class _StrictEmailPolicy(EmailPolicy):
    """A policy that passes parsed fields on unfolded, and writes fields that a program set anew."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(refold_source="none", **settings)

    def fold_binary(self, name: str, value: Any) -> bytes:
        written = _field(name, value)
        if written is None:
            text = value.encode(linesep=self.linesep) if isinstance(value, Header) else value
            written = super().fold_binary(name, text)
        return _one_field(name, written)


class _StrictCompat32(Compat32):
    """The same check for messages with the library's older policy."""

    def fold_binary(self, name: str, value: Any) -> bytes:
        return _one_field(name, _field(name, value) or super().fold_binary(name, value))
