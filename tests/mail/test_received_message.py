"""Messages that were received, or signed elsewhere, and are passed on: nothing of them changes unsaid."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email import message_from_bytes, message_from_string, policy
from email.message import EmailMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.parser import HeaderParser
from email.policy import Policy
from typing import Any, cast

import pytest

from asyncsmtp.errors import MessageError
from asyncsmtp.mail.message import Message
from asyncsmtp.mail.signing.dkim import Signer
from asyncsmtp.protocol.content import Content
from tests.mail.test_dkim import hold, keys

POLICIES = [policy.compat32, policy.default, policy.SMTP, policy.SMTPUTF8]
RAW = (
    "From: Zoë <a@x.example>\r\nTo: Jörg <b@x.example>,\r\n  c@x.example\r\nSubject: Grüße   und\r\n\tmehr\r\n"
    "X-Long: " + "one two, three; " * 12 + "\r\nMIME-Version: 1.0\r\n"
    'Content-Type: multipart/mixed; boundary="b"\r\n\r\nFür alte Leser\r\n'
    "--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße \t\r\n\r\n"
    '--b\r\nContent-Type: application/pdf; name="März.pdf"\r\nContent-Transfer-Encoding: base64\r\n\r\nJVBERg==\r\n'
    "--b--\r\nEpilog\r\n"
).encode()


def content(message: Message) -> Content:
    assert isinstance(message.content, Content)
    return message.content


def passed_on(octets: bytes, wanted: Policy[Any]) -> bytes:
    return bytes(content(Message.of(message_from_bytes(octets, policy=wanted), **WHO)))


def downgraded(octets: bytes, wanted: Policy[Any] = policy.default) -> EmailMessage:
    made = content(Message.of(message_from_bytes(octets, policy=wanted), **WHO))
    assert made.downgrade is not None
    again = made.downgrade()
    assert (again.eight_bit, again.utf8_headers, again.downgrade) == (False, False, None)
    return cast(EmailMessage, message_from_bytes(bytes(again), policy=policy.default))


WHO: dict[str, Any] = {"sender": "a@x.example", "recipients": "b@x.example"}


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
@pytest.mark.parametrize("wanted", POLICIES)
def test_a_received_message_is_passed_on_as_it_is(wanted: Policy[Any], line_end: bytes) -> None:
    """FT-43: raw UTF-8 in names, parameters and texts, folding, preamble and epilogue; whatever the policy."""
    assert passed_on(RAW.replace(b"\r\n", line_end), wanted) == RAW
    assert bytes(content(Message.of(RAW.replace(b"\r\n", line_end), **WHO))) == RAW


def test_a_name_in_raw_utf8_is_understood() -> None:
    """FT-43: RFC 6532, in bytes that are passed on."""
    made = Message.of("From: Zoë <a@x.example>\nTo: Jörg <jörg@bücher.example>\n\nx\n".encode())
    assert [path.address for path in made.envelope.forward_paths] == ["jörg@xn--bcher-kva.example"]
    assert made.content.utf8_headers


@pytest.mark.parametrize("wanted", POLICIES)
def test_a_signature_of_others_holds(wanted: Policy[Any]) -> None:
    """FT-43: DKIM over 8-bit parts and raw UTF-8 in header fields."""
    raw = RAW.replace(
        b"MIME-Version", b"Date: Mon, 03 Nov 2025 09:00:00 +0000\r\nMessage-ID: <1@x.example>\r\nMIME-Version"
    )
    signed = bytes(Signer(*keys()).sign_content(content(Message.of(raw, **WHO)), datetime(2025, 11, 3, tzinfo=UTC)))
    assert signed.startswith(b"DKIM-Signature:")
    assert hold(signed) == [True, True]
    assert passed_on(signed, wanted) == signed


@pytest.mark.parametrize("name", ["DKIM-Signature", "ARC-Message-Signature"])
def test_a_signed_message_is_not_encoded_anew(name: str) -> None:
    """FT-43: for a relay without 8BITMIME it is an error that says why."""
    made = content(Message.of(message_from_bytes(f"{name}: v=1\r\n".encode() + RAW), **WHO))
    assert made.downgrade is not None
    with pytest.raises(MessageError, match="signature"):
        made.downgrade()


def test_what_an_inner_signature_covers_is_not_encoded_anew() -> None:
    """FT-43: a part of multipart/signed (RFC 1847 §2.1); the parts around it are."""
    signed = (
        b'Content-Type: multipart/signed; boundary="s"\r\n\r\n--s\r\n\r\n%s\r\n'
        b"--s\r\nContent-Type: application/x\r\n\r\nx\r\n--s--\r\n"
    )
    outer = (
        b'From: a@x.example\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'
        b"--b\r\n\r\n%s\r\n--b\r\n%s\r\n--b--\r\n"
    )
    eight, seven = "Grüße".encode(), b"plain"
    with pytest.raises(MessageError, match=r"bytes above 127.*signature"):
        downgraded(outer % (seven, signed % eight))
    made = downgraded(outer % (eight, signed % seven))
    assert bytes(made).replace(b"\n", b"\r\n").count(signed % seven) == 1


@pytest.mark.parametrize(
    ("body", "content_type"), [(b"--b\n\nx\n", b'multipart/mixed; boundary="b"'), (b"x" * 1000 + b"\n", b"text/plain")]
)
def test_a_signed_message_that_cannot_be_written_as_it_was_is_an_error(body: bytes, content_type: bytes) -> None:
    """FT-43: the library ends a multipart that had no end; a line too long is encoded, unless somebody signed it."""
    raw = b"%sFrom: a@x.example\nTo: b@x.example\nContent-Type: " + content_type + b"\n\n" + body
    assert Message.of(message_from_bytes(raw % b""))
    with pytest.raises(MessageError, match="signature"):
        Message.of(message_from_bytes(raw % b"DKIM-Signature: v=1\n"))


def test_a_signed_message_whose_boundary_is_still_to_be_made_is_an_error() -> None:
    """FT-43: the signature was made over other bytes than those that would be written."""
    message = MIMEMultipart()
    message["From"], message["To"], message["DKIM-Signature"] = "a@x.example", "b@x.example", "v=1"
    message.attach(MIMEText("x"))
    with pytest.raises(MessageError, match="no boundary"):
        Message.of(message)


def test_a_relay_without_8bitmime_gets_the_same_in_seven_bits() -> None:
    """FT-43: texts, raw fields and file names are decoded to the same."""
    raw = RAW.replace("Für alte Leser\r\n".encode(), b"")
    made = downgraded(raw)
    text, file = made.iter_parts()
    assert made["Subject"] == "Grüße   und\tmehr"
    assert [each.display_name for each in made["To"].addresses] == ["Jörg", ""]
    assert text.get_content().replace("\r\n", "\n") == "Grüße \t\n"
    assert (file.get_filename(), file.get_content()) == ("März.pdf", b"%PDF")


@pytest.mark.parametrize(
    ("kind", "octets"),
    [
        ("text/plain; charset=no-such-charset", b"\xe4\xf6\xfc  \n\n.\n" * 40_000),
        ("text/plain; charset=utf-8", b"a" * 500_000 + "ü".encode()),
        ("text/plain; charset=utf-8", b"a \rb" * 50_000 + "ü".encode() + b"\r"),
        ("text/html; charset=latin-1", b"few \xfc among many plain ones\n" * 9_000),
        ("application/octet-stream", bytes(range(1, 256)).replace(b"\r", b"").replace(b"\n", b"") * 3),
    ],
)
def test_a_part_in_seven_bits_decodes_to_the_same_bytes(kind: str, octets: bytes) -> None:
    """FT-43: of any charset, known or not, and across the blocks in which it is encoded."""
    message = EmailMessage(policy=policy.default)
    message["From"], message["To"], message["Content-Type"] = "a@x.example", "b@x.example", kind
    message["Content-Transfer-Encoding"] = "8bit"
    message.set_payload(octets.decode("ascii", "surrogateescape"))
    made = Message.of(message).content
    assert isinstance(made, Content)
    again = made if made.downgrade is None else made.downgrade()
    assert not again.eight_bit
    found = message_from_bytes(bytes(again)).get_payload(decode=True)
    assert isinstance(found, bytes)
    normal = octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if kind.startswith("text") else octets
    assert found.replace(b"\r\n", b"\n").rstrip(b"\n") == normal.rstrip(b"\n")


def test_a_field_of_an_unknown_charset_stays_as_it_is() -> None:
    """FT-43: nobody knows what it says, so it is passed on where the relay takes it, and nowhere else."""
    raw = b"From: a@x.example\r\nTo: b@x.example\r\nSubject: \xe4\xf6\r\n\r\nx\r\n"
    assert passed_on(raw, policy.compat32) == raw
    made = content(Message.of(message_from_bytes(raw)))
    assert made.downgrade is not None
    assert made.downgrade().utf8_headers


def test_what_a_program_wrote_is_encoded_as_before() -> None:
    """FT-43: a string that a program sets, and one that was parsed from text, are not bytes that were received."""
    message = message_from_string("From: a@x.example\nTo: Jörg <b@x.example>\nSubject: Grüße\n\nx\n")
    octets = bytes(content(Message.of(message)))
    assert b"Subject: =?utf-8?" in octets
    assert octets.isascii()


@pytest.mark.parametrize("wanted", POLICIES)
def test_a_bounce_is_passed_on_as_it_is(wanted: Policy[Any]) -> None:
    """FT-43: a delivery status is blocks of fields (RFC 3464 §2.1), and the message that bounced may be cut off."""
    raw = (
        b"From: a@x.example\r\nTo: b@x.example\r\nContent-Type: multipart/report; report-type=delivery-status;\r\n"
        b" boundary=b\r\n\r\n--b\r\n\r\nsorry\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n"
        b"Reporting-MTA: dns; x.example\r\n\r\nFinal-Recipient: rfc822; c@x.example\r\nStatus: 5.1.1\r\n\r\n"
        b"Final-Recipient: rfc822; d@x.example\r\nStatus: 5.1.1\r\n\r\n"
        b"--b\r\nContent-Type: message/rfc822\r\n\r\nDKIM-Signature: v=1\r\nFrom: x@x.example\r\n\r\ntext\r\n--b--\r\n"
    )
    assert passed_on(raw, wanted) == raw


def test_a_part_without_a_transfer_encoding_gets_one() -> None:
    """FT-43: where it must be encoded anew; 8 bits are often sent without it."""
    made = downgraded(b"From: a@x.example\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n")
    assert made["Content-Transfer-Encoding"] in ("base64", "quoted-printable")
    assert made.get_content().strip() == "Grüße"


def test_a_payload_that_is_no_text_is_a_message_error() -> None:
    """FT-43: the library raises TypeError for the one, and UnicodeEncodeError for the other."""
    for payload in (5, "Grüße"):
        message = MIMEText("x")
        message["From"], message["To"] = "a@x.example", "b@x.example"
        message.set_payload(payload)  # type: ignore[arg-type]
        with pytest.raises(MessageError):
            Message.of(message)


def random_part(rnd: random.Random, depth: int = 0) -> bytes:
    """A part of any kind with raw bytes in it, as mail programs write them."""
    text = b"\n".join(rnd.choices([b"plain", "Grüße".encode(), b"\xe4\xf6", b"", b".", b"From x", b"end \t"], k=4))
    fields = rnd.choices(["Content-Description: März".encode(), b"X-Long: " + b"word " * 50, b"X-F:\n folded"], k=2)
    kind = rnd.choice(["text/plain", "text/html; charset=x", "multipart/mixed", "multipart/signed", "message/rfc822"])
    fields.append(f"Content-Type: {kind}".encode())
    if kind.startswith("multipart"):
        edge = b"--b%d" % rnd.randrange(10**12)
        fields[-1] += b'; boundary="' + edge[2:] + b'"'
        inner = [random_part(rnd, depth + 1) if depth < 3 else b"\nleaf" for _ in range(rnd.randint(1, 3))]
        text = rnd.choice([b"", b"preamble\n"]) + edge + b"\n" + (b"\n" + edge + b"\n").join(inner) + b"\n" + edge
        text += b"--" + rnd.choice([b"\n", b"\nepilogue", b"\n\n"])
    elif kind.startswith("message"):
        text = b"From: x@x.example\nBcc: kept@x.example\n" + random_part(rnd, depth + 1)
    return b"\n".join(fields) + b"\n\n" + text


@pytest.mark.parametrize("seed", range(40))
def test_whatever_was_received_comes_out_as_it_went_in(seed: int) -> None:
    """FT-43: any tree of parts, signed or not, in 8 bits."""
    raw = b"From: a@x.example\nTo: b@x.example\n" + random_part(random.Random(seed))
    expected = raw.replace(b"\n", b"\r\n") + (b"" if raw.endswith(b"\n") else b"\r\n")
    for start in (b"", b"DKIM-Signature: v=1\r\n"):
        for wanted in POLICIES:
            assert passed_on(start + raw, wanted) == start + expected


@pytest.mark.parametrize(
    ("octets", "sent"),
    [
        (b"\r\nBcc: body\r\nx\r\n", b"\r\nBcc: body\r\nx\r\n"),
        (b"\n\nBcc: body\n", b"\r\n\r\nBcc: body\r\n"),
        (b"no field\r\nBcc: body\r\n", b"no field\r\nBcc: body\r\n"),
        (b"\r\n", b"\r\n"),
        (b"Subject: x\r\nBCC : y@x.example,\r\n\tz@x.example\r\n\r\nBcc: body", b"Subject: x\r\n\r\nBcc: body\r\n"),
        (b"From a@x Mon\nSubject: x\nBcc: y@x.example\n\nx\n", b"From a@x Mon\r\nSubject: x\r\n\r\nx\r\n"),
        (b"Subject: x\r\n\nBcc: body\n\n\n", b"Subject: x\r\n\r\nBcc: body\r\n\r\n\r\n"),
    ],
)
def test_the_bcc_of_the_header_section_is_removed_and_nothing_else(octets: bytes, sent: bytes) -> None:
    """FT-44: the header section ends before the empty line, or before a line that is not a field; it may be empty."""
    assert bytes(content(Message.of(octets, **WHO))) == sent


def test_a_bcc_field_behind_a_line_that_is_no_field_is_an_error() -> None:
    """FT-44: it is in the header section for some readers, and in the body for others."""
    with pytest.raises(MessageError, match="not a header field"):
        Message.of(b"Subject: x\nnot a field\nBcc: secret@x.example\n\nx\n", **WHO)


@pytest.mark.parametrize("make", [EmailMessage, lambda: MIMEText("x")])
@pytest.mark.parametrize("missing", [{"Date"}, {"Message-ID"}, {"Date", "Message-ID"}, set()])
def test_a_message_without_date_or_message_id_is_a_draft(make: Any, missing: set[str]) -> None:
    """FT-47: sending adds what is missing, as it does for messages of `build`."""
    message = make()
    message["From"], message["To"] = "a@x.example", "b@x.example"
    if "Date" not in missing:
        message["date"] = "Mon, 03 Nov 2025 09:00:00 +0000"
    if "Message-ID" not in missing:
        message["message-id"] = "<1@x.example>"
    assert Message.of(message).is_draft is bool(missing)


def test_a_signed_message_is_no_draft() -> None:
    """FT-47: a field that a signature says to be absent must not be added (RFC 6376 §5.4.2); nor to finished bytes."""
    message = MIMEText("x")
    message["From"], message["To"], message["DKIM-Signature"] = "a@x.example", "b@x.example", "v=1"
    assert not Message.of(message).is_draft
    assert not Message.of(bytes(message)).is_draft


def test_the_body_of_finished_bytes_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """FT-48: the header section is cut off before the library's parser sees it."""
    seen: list[str] = []
    parse = HeaderParser.parsestr

    def parsestr(self: Any, text: str, headersonly: bool = True) -> Any:
        seen.append(text)
        return parse(self, text, headersonly)

    monkeypatch.setattr(HeaderParser, "parsestr", parsestr)
    Message.of(b"From: a@x.example\r\nTo: b@x.example\r\n\r\n" + b"body\r\n" * 100_000)
    assert seen == ["From: a@x.example\r\nTo: b@x.example\r\n"]


def test_a_message_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """FT-48: a copy of a message with 1,000 addresses or large parts takes longer than all else."""

    class Uncopied(EmailMessage):
        def __deepcopy__(self, memo: object) -> None:
            raise AssertionError("the message is copied")

    message = Uncopied()
    message["From"], message["To"] = "a@x.example", "b@x.example"
    message["Bcc"] = "c@x.example"
    message.set_content("Grüße " * 300 + "\n", cte="8bit")
    message.make_mixed()
    made = Message.of(message)
    assert b"Bcc" not in bytes(content(made))
    assert message.get_boundary() is None
    assert message["Bcc"] == "c@x.example"


def test_large_content_is_checked_in_blocks() -> None:
    """FT-48: no step of the work is as long as the message, so a thread that does it lets the event loop run."""
    line = b"x" * 70 + b"\n"
    for made in (
        Message.of(b"From: a@x.example\n\n" + line * 10_000, **WHO),
        Message.of(message_from_bytes(b"From: a@x.example\n\n" + line * 10_000), **WHO),
    ):
        assert max(map(len, content(made).parts)) <= 160_000
        assert len(content(made).parts) > 5


def test_parts_nested_without_end_are_a_message_error() -> None:
    """FT-48: not the library's RecursionError."""
    message = message_from_bytes(b"From: a@x.example\nTo: b@x.example\n\nx\n")
    for _ in range(5000):
        outer = MIMEMultipart()
        outer.attach(message)
        message = outer
    with pytest.raises(MessageError, match="nested too deeply"):
        Message.of(message, **WHO)


def test_an_empty_field_of_a_signed_message_is_kept() -> None:
    """A signature may cover it; without one it is left out (RFC 5322 §3.6.3)."""
    unsigned = b"From: a@x.example\r\nTo: b@x.example\r\nCc:\r\nSubject: x\r\n\r\nx\r\n"
    signed = b"DKIM-Signature: v=1; d=x.example; s=s; h=from:cc; bh=x; b=x\r\n" + unsigned
    for raw, kept in ((unsigned, False), (signed, True)):
        made = Message.of(message_from_bytes(raw))
        assert (b"\r\nCc:" in bytes(made.content)) is kept
