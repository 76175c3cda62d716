"""Messages of the standard library: whom they go to, and the octets that go out."""

from __future__ import annotations

from copy import deepcopy
from email import message_from_bytes, policy
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.message import Message as OldMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from typing import Any, cast

import pytest

from asyncsmtp.errors import MessageError, RecipientError
from asyncsmtp.mail.message import Message, build
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import Envelope, MailOptions, Notify, RcptOptions

INJECTION = "=?utf-8?q?foo=0D=0ABcc=3A_z=40x?="


def new(content: str = "hello\n", **fields: Any) -> EmailMessage:
    message = EmailMessage()
    for name, value in ({"From": "a@x.example", "To": "b@x.example"} | fields).items():
        if value is not None:
            message[name.replace("_", "-")] = value
    message.set_content(content)
    return message


def old(content: str = "hello\n", charset: str = "utf-8", **fields: Any) -> OldMessage:
    message = MIMEText(content, "plain", charset)
    for name, value in ({"From": "a@x.example", "To": "b@x.example"} | fields).items():
        message[name.replace("_", "-")] = value
    return message


def read(message: Message) -> EmailMessage:
    parsed = cast(EmailMessage, message_from_bytes(bytes(message.content), policy=policy.default))
    assert [part.defects for part in parsed.walk() if part.defects] == []
    return parsed


def paths(message: Message) -> tuple[str, list[str]]:
    return str(message.envelope.reverse_path), [path.address for path in message.envelope.forward_paths]


@pytest.mark.parametrize("make", [new, old])
def test_to_cc_and_bcc_are_the_recipients_and_bcc_is_not_transmitted(make: Any) -> None:
    """W-77, MH-12, and the caller's message is as it was."""
    message = make(To="Bob <b@x.example>, c@x.example", Cc="d@x.example", Bcc="secret@x.example")
    before = deepcopy(message)
    made = Message.of(message)
    assert paths(made) == ("a@x.example", ["b@x.example", "c@x.example", "d@x.example", "secret@x.example"])
    assert b"secret" not in bytes(made.content)
    assert b"bcc" not in bytes(made.content).lower()
    assert message.items() == before.items()
    assert message["Bcc"] == "secret@x.example"


def test_every_to_and_cc_field_counts() -> None:
    """D-27: The RFC allows one of each; programs write several, and nobody named may be left out."""
    message = old()
    message["To"] = "c@x.example"
    message["Cc"] = "d@x.example"
    message["Cc"] = "b@x.example"
    assert paths(Message.of(message))[1] == ["b@x.example", "c@x.example", "d@x.example"]


@pytest.mark.parametrize("make", [new, old])
@pytest.mark.parametrize(
    ("fields", "reverse_path", "forward_paths"),
    [
        ({"Sender": "s@x.example", "From": "a@x.example, b@x.example"}, "s@x.example", ["b@x.example"]),
        ({"Sender": "s@x.example"}, "s@x.example", ["b@x.example"]),
        (
            {
                "Resent_Date": "Mon, 03 Nov 2025 09:00:00 +0000",
                "Resent_From": "r@x.example",
                "Resent_To": "t@x.example",
            },
            "r@x.example",
            ["t@x.example"],
        ),
        ({"To": "B <b@X.example>, b@x.example"}, "a@x.example", ["b@X.example"]),
    ],
)
def test_the_header_says_from_whom_and_to_whom(
    make: Any, fields: dict[str, str], reverse_path: str, forward_paths: list[str]
) -> None:
    """W-78, W-79: RFC 5322 §3.6.2 and §3.6.6: Sender wins; one Resent block replaces all; nobody is mailed twice."""
    assert paths(Message.of(make(**fields))) == (reverse_path, forward_paths)


def test_what_is_given_wins_over_the_header() -> None:
    """A list manager's recipients are in no header; "" is the null reverse-path."""
    made = Message.of(new(From="nobody", To="nobody"), sender="", recipients=["x@x.example", "y@x.example"])
    assert made.envelope == Envelope.of(None, ["x@x.example", "y@x.example"])
    assert paths(Message.of(new(), sender="bounce@x.example")) == ("bounce@x.example", ["b@x.example"])
    with pytest.raises(RecipientError):
        Message.of(new(), recipients="nobody")


def two_resent() -> OldMessage:
    message = old(Resent_Date="Mon, 03 Nov 2025 09:00:00 +0000", Resent_From="r@x.example", Resent_To="t@x.example")
    message["Resent-Date"] = "Tue, 04 Nov 2025 09:00:00 +0000"
    return message


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (new(From=None), "From"),
        (new(To=None), "To"),
        (new(To="undisclosed-recipients:;"), "To"),
        (new(From="a@x.example, b@x.example"), "From"),
        (new(From="nobody"), "From"),
        (new(Bcc="nobody"), "Bcc"),
        (old(To=" ,, "), "To"),
        (two_resent(), "Resent-Date"),
        (new(Resent_Date="Mon, 03 Nov 2025 09:00:00 +0000", Resent_To="t@x.example"), "Resent-From"),
    ],
)
def test_an_ambiguous_envelope_is_an_error(message: OldMessage, field: str) -> None:
    """W-78, W-80, D-27: No author, no recipient, two meanings: the field is named and nothing is guessed."""
    with pytest.raises(MessageError) as caught:
        Message.of(message)
    assert caught.value.field == field


PLAIN = {
    "b@x.example": ["b@x.example"],
    "Bob <b@x.example>": ["b@x.example"],
    "<b@x.example>": ["b@x.example"],
    '"B, C" <b@x.example>, c@x.example': ["b@x.example", "c@x.example"],
    '"b c"@x.example': ['"b c"@x.example'],
    "Bob Q. Public <b@x.example>": ["b@x.example"],
    "=?utf-8?q?Zo=C3=AB=2C_x=40y=2Eexample?= <b@x.example>": ["b@x.example"],
    "Zoë <b@bücher.example>": ["b@xn--bcher-kva.example"],
    "zoë@x.example": ["zoë@x.example"],
    "b@[127.0.0.1]": ["b@[127.0.0.1]"],
    "b@x": ["b@x"],
    "O'Brien <b@x.example>": ["b@x.example"],
    "<b@x.example>,<c@x.example>": ["b@x.example", "c@x.example"],
    "  b@x.example  ": ["b@x.example"],
}
LENIENT = {
    "b@x.example (Bob)": ["b@x.example"],
    "(c)b@x.example": ["b@x.example"],
    "b @ x.example": ["b@x.example"],
    "Team: b@x.example, c@x.example;": ["b@x.example", "c@x.example"],
    "undisclosed-recipients:;, b@x.example": ["b@x.example"],
    "b@x.example, ": ["b@x.example"],
    ",b@x.example,,c@x.example (c, d)": ["b@x.example", "c@x.example"],
}
UNCLEAR = [
    *("alice@example.org)bob@example.com", "alice@example.org bob@example.org", "<alice@example.org>bob", "bob"),
    *("Alice <alice@example.org", "a@e@g", "@r.example:b@x.example", "Bob <>", '"open <b@x.example>', "a@x.example\tb"),
    *("a@x.example;b@x.example", "=?utf-8?q?foo=40x.example?=", "Bob\\ <b@x.example>", ".a@x.example", "..a@x.example"),
    *("Bob [x] <b@x.example>", "b@x.example <c@x.example>", "<b@x.example> <c@x.example>"),
    *("a@-x.example", "a@x_y.example", "a@x.example,b", "b@x..example", "b@[x]", "b@x.example>", "<<b@x.example>>"),
    *(
        "b@\u202ex.example",
        "b\u200b@x.example",
        "b@x\uff20y.example",
        "a" * 65 + "@x.example",
        "a@" + "b" * 64 + ".example",
    ),
]


@pytest.mark.parametrize("make", [new, old])
@pytest.mark.parametrize(("text", "addresses"), (PLAIN | LENIENT).items())
def test_addresses_of_a_message(make: Any, text: str, addresses: list[str]) -> None:
    """P-05, MH-06, FT-41: read by our own grammar, the same for every kind of message and on every interpreter."""
    assert paths(Message.of(make(To=text)))[1] == addresses
    assert paths(Message.of(f"From: a@x.example\r\nTo: {text}\r\n".encode()))[1] == addresses
    assert paths(build(from_="a@x.example", to=text))[1] == addresses


@pytest.mark.parametrize("text", UNCLEAR)
@pytest.mark.parametrize("make", [new, old])
def test_an_unclear_address_is_an_error(make: Any, text: str) -> None:
    """MH-06, MH-07 (CVE-2023-27043): on 3.11 the library makes alice of `alice@example.org)bob@example.com`."""
    with pytest.raises(MessageError, match="To"):
        Message.of(make(To=text))


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda: new(Subject=INJECTION),
        lambda: old(Subject="x\r\nBcc: z@x.example"),
        lambda: old(Subject="x\nBcc: z@x.example"),
        lambda: old(Subject="x\r\n\r\nbody"),
        lambda: old(**{"X\r\nBcc: z@x.example": "1"}),
        lambda: old(**{"X:Y": "1"}),
        lambda: old(Subject=Header("x\nBcc: z@x.example", "utf-8")),
        lambda: _raw(new(), "Subject", "x\nBcc: z@x.example"),
        lambda: _raw(new(), "Subject", "x\r\n\r\nbody"),
        lambda: _raw(new(), "X\nBcc: z@x.example", "1"),
        lambda: _raw(old(), "Subject", "x\r\nBcc: z@x.example"),
        lambda: message_from_bytes(
            b"From: a@x.example\nTo: b@x.example\nX: a\rBcc: z@x.example\n\n", policy=policy.default
        ),
        lambda: _attached_with_header("X-A", "x\nBcc: z@x.example"),
    ],
)
def test_no_header_comes_of_a_value_or_a_name(spoilt: Any) -> None:
    """P-06, MH-01, MH-02, MH-03, MH-04: an error on every interpreter, or only the headers that were set."""
    message = spoilt()
    try:
        made = Message.of(message)
    except MessageError:
        return
    names = [line.partition(b":")[0].lower() for line in bytes(made.content).partition(b"\r\n\r\n")[0].split(b"\r\n")]
    assert b"bcc" not in names
    assert read(made).keys() == [name for name in message.keys() if name != "Bcc"]  # noqa: SIM118


def _raw(message: OldMessage, name: str, value: str) -> OldMessage:
    """What a policy or a pickle from elsewhere may bring: a field that no setter has seen."""
    message._headers.append((name, value))  # type: ignore[attr-defined]
    return message


def _attached_with_header(name: str, value: str) -> EmailMessage:
    message = new()
    message.add_attachment(b"x", maintype="image", subtype="png", filename="x.png")
    _raw(next(iter(message.iter_attachments())), name, value)
    return message


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda: new(Subject=INJECTION),
        lambda: _raw(new(), "Subject", "x\nBcc: z@x.example"),
        lambda: _raw(old(), "Subject", "x\r\nBcc: z@x.example"),
        lambda: _attached_with_header("X-A", "x\nBcc: z@x.example"),
    ],
)
def test_an_injected_header_is_an_error_that_names_it(spoilt: Any) -> None:
    """MH-03, MH-04: the library of 3.11 and 3.12 wrote the Bcc (CVE-2024-6923)."""
    with pytest.raises(MessageError):
        Message.of(spoilt())


def test_a_display_name_that_looks_encoded_is_text() -> None:
    """MH-03: with refold_source="all" the library wrote a Bcc header of it."""
    message = EmailMessage(policy=policy.SMTP.clone(refold_source="all"))
    message["From"] = "a@x.example"
    message["To"] = Address(INJECTION, "b", "x.example")
    message.set_content("x")
    made = Message.of(message)
    assert read(made)["To"].addresses[0].display_name == INJECTION
    assert read(made).keys() == message.keys()


@pytest.mark.parametrize("length", [1, 30, 60, 90, 150, 200])
def test_display_names_survive_folding(length: int) -> None:
    """MH-05: gh-80222, gh-121284."""
    name = (',<>@" x' * 40)[:length].strip()
    made = Message.of(new(To=[Address(name, "b", "x.example"), Address("", "c", "x.example")]))
    assert [each.addr_spec for each in read(made)["To"].addresses] == ["b@x.example", "c@x.example"]


def test_long_references_are_not_encoded() -> None:
    """MH-18: the library of all three makes encoded words of them."""
    ids = " ".join(f"<{letter * 70}@x.example>" for letter in "abc")
    octets = bytes(Message.of(new(References=ids)).content)
    assert b"=?" not in octets
    assert b" ".join(octets.partition(b"References:")[2].split()[:3]).decode() == ids


@pytest.mark.parametrize("make", [new, old])
def test_the_message_comes_back(make: Any) -> None:
    """W-75: subject, names and text beyond ASCII; CRLF everywhere; seven bits."""
    subject = "Grüße aus Köln" if make is new else Header("Grüße aus Köln", "utf-8")
    made = Message.of(make("Grüße\n.\nFrom here\n", To="Zoë <b@x.example>", Subject=subject))
    assert read(made)["Subject"] == "Grüße aus Köln"
    assert read(made)["To"].addresses[0].display_name == "Zoë"
    assert read(made).get_content().replace("\r\n", "\n") == "Grüße\n.\nFrom here\n"
    assert made.content.eight_bit is (make is new)  # what its policy chose
    assert Content.of(bytes(made.content)) == made.content


def test_eight_bits_become_seven_where_they_must() -> None:
    """FT-43: they stay where 8BITMIME is offered (RFC 6152); a relay without it takes the message too."""
    message = new()
    message.set_content("Grüße\n" * 3, cte="8bit")
    made = Message.of(message)
    assert isinstance(made.content, Content)
    assert made.content.downgrade is not None
    for content in (made.content, made.content.downgrade()):
        assert read(Message(made.envelope, content)).get_content().replace("\r\n", "\n") == "Grüße\n" * 3
    assert not content.eight_bit
    assert message["Content-Transfer-Encoding"] == "8bit"


@pytest.mark.parametrize("make", [new, old])
def test_lines_no_relay_would_take_are_encoded_again(make: Any) -> None:
    """WO-10: the library sends 3,000 octets on a line when it is told 7bit."""
    text = "<p>" + "x" * 3000 + "</p>\n"
    message = make()
    if make is new:
        message.set_content(text, cte="7bit")
    else:
        message = old(text, "us-ascii")
    made = Message.of(message)
    assert max(map(len, bytes(made.content).split(b"\r\n"))) <= 78
    assert read(made).get_content().replace("\r\n", "\n") == text


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\nx"])
@pytest.mark.parametrize("start", ["", "\n", "x\n", "\r\n"])
def test_the_longest_line_that_a_relay_must_take_stays_as_it_is(start: str, end: str) -> None:
    """RFC 5321 §4.5.3.1.6: 998 bytes and the line end, wherever the line is."""
    longest, longer = (old(start + "x" * octets + end, "us-ascii") for octets in (998, 999))
    assert b"\r\n\r\n" + (start.replace("\r", "") + "x" * 998).replace("\n", "\r\n").encode() in bytes(
        Message.of(longest).content
    )
    assert max(map(len, bytes(Message.of(longer).content).split(b"\r\n"))) <= 78


def test_a_signed_message_is_not_touched() -> None:
    """A signature covers the lines as they are: the error says which line is too long."""
    message = MIMEMultipart("signed")
    message["From"], message["To"] = "a@x.example", "b@x.example"
    message.attach(MIMEText("x" * 3000, "plain", "us-ascii"))
    with pytest.raises(MessageError, match="998"):
        Message.of(message)


def test_an_address_beyond_ascii_needs_smtputf8_and_stays_readable() -> None:
    """RFC 6532; the domain goes as A-labels, in the header as in the envelope."""
    made = Message.of(new(From="Zoë <zoë@bücher.example>"))
    assert made.content.utf8_headers
    assert "From: =?utf-8?q?Zo=C3=AB?= <zoë@xn--bcher-kva.example>\r\n".encode() in bytes(made.content)


def test_a_multipart_has_the_same_boundary_each_time() -> None:
    """The same message, the same octets; and the caller's has no boundary after it."""
    message = new()
    message.add_alternative("<p>x</p>", subtype="html")
    message.add_attachment(b"x", maintype="image", subtype="png", filename="Übersicht.png")
    first, second = Message.of(message), Message.of(message)
    assert first == second
    assert message.get_boundary() is None
    assert [part.get_filename() for part in read(first).iter_attachments()] == ["Übersicht.png"]


def test_bytes_are_sent_unchanged_except_for_bcc_and_line_ends() -> None:
    """A finished message may be signed: nothing of it is written anew."""
    octets = (
        b"From: A <a@x.example>\nTo: b@x.example\nbcc: c@x.example,\n d@x.example\nSubject:   odd\n  folding\n"
        b"X-Bcc: kept\n\nBcc: body\n.\n"
    )
    made = Message.of(octets)
    assert paths(made) == ("a@x.example", ["b@x.example", "c@x.example", "d@x.example"])
    assert bytes(made.content) == (
        b"From: A <a@x.example>\r\nTo: b@x.example\r\nSubject:   odd\r\n  folding\r\nX-Bcc: kept\r\n"
        b"\r\nBcc: body\r\n.\r\n"
    )


def test_bytes_without_a_body_are_a_message() -> None:
    """A header section alone is allowed (RFC 5322 §3.5)."""
    made = Message.of(b"From: a@x.example\r\nTo: b@x.example\r\nBcc: c@x.example")
    assert bytes(made.content) == b"From: a@x.example\r\nTo: b@x.example\r\n"


def test_a_message_is_given_back_as_it_is() -> None:
    """Composed messages pass wherever a message is accepted, at no cost; unless others are to get it."""
    made = Message.of(new())
    assert Message.of(made) is made
    other = Message.of(made, recipients="z@x.example")
    assert paths(other) == ("a@x.example", ["z@x.example"])
    assert other.content is made.content


NEVER, BY_MONDAY = RcptOptions(Notify.NEVER), MailOptions(envid="monday")


def test_a_message_of_any_kind_is_given_wishes() -> None:
    """W-81 and W-83: the message that was given, and its envelope, stay as they are."""
    message = new(To="b@x.example, c@x.example")
    made = Message.of(message, mail_options=BY_MONDAY, rcpt_options=[None, NEVER])
    assert (made.envelope.mail_options, made.envelope.rcpt_options) == (BY_MONDAY, (None, NEVER))
    again = Message.of(made, rcpt_options=NEVER)
    assert (again.envelope.mail_options, again.envelope.rcpt_options) == (BY_MONDAY, (NEVER, NEVER))
    assert made.envelope.rcpt_options == (None, NEVER)
    assert message.items() == new(To="b@x.example, c@x.example").items()


def test_other_recipients_do_not_inherit_wishes() -> None:
    """Another sender changes nothing for them; what is asked for the message goes with it."""
    made = Message.of(new(), mail_options=BY_MONDAY, rcpt_options=NEVER)
    assert Message.of(made, sender="z@x.example").envelope.rcpt_options == (NEVER,)
    others = Message.of(made, recipients=["d@x.example", "e@x.example"]).envelope
    assert (others.mail_options, others.rcpt_options) == (BY_MONDAY, ())


@pytest.mark.parametrize("changed", [{"sender": "z@x.example"}, {"recipients": ["d@x.example", "e@x.example"]}])
def test_all_or_nothing_holds_for_other_addresses_too(changed: dict[str, Any]) -> None:
    """Who asked for it would not find out that half of the message went."""
    made = Message(Envelope.of("a@x.example", "b@x.example", all_or_nothing=True), Content.of(b"\r\n"))
    assert Message.of(made, **changed).envelope.all_or_nothing


@pytest.mark.parametrize("charset", ["no-such-charset", "utf-8"])
def test_an_unknown_charset_is_passed_on(charset: str) -> None:
    """FT-43: nothing is decoded, so nothing can fail."""
    message = message_from_bytes(
        f"From: a@x.example\nTo: b@x.example\nContent-Type: text/plain; charset={charset}\n\nGr".encode()
        + b"\xc3\xbc\n"
    )
    assert bytes(Message.of(message).content).endswith(b"\r\n\r\nGr\xc3\xbc\r\n")
    assert Message.of(message).content.eight_bit


@pytest.mark.parametrize("make", [new, old])
@pytest.mark.parametrize(
    ("name", "value", "parameters"),
    [
        ("Content-Disposition", "attachment; filename=März.pdf", {"filename": "März.pdf"}),
        (
            "Content-Disposition",
            'attachment; size=3; filename="a \\"ü\\"; b.pdf"',
            {"filename": 'a "ü"; b.pdf', "size": "3"},
        ),
        ("Content-Disposition", f'inline; filename="{"ü" * 100}.pdf"', {"filename": f"{'ü' * 100}.pdf"}),
        (
            "Content-Disposition",
            "attachment; filename=März.pdf; size=3; note*=utf-8''%C3%BC;",
            {"filename": "März.pdf", "size": "3", "note": "ü"},
        ),
        ("Content-Type", 'text/plain; charset="utf-8"; name="März.txt"', {"charset": "utf-8", "name": "März.txt"}),
    ],
)
def test_parameters_set_by_hand_stay_parameters(make: Any, name: str, value: str, parameters: dict[str, str]) -> None:
    """FT-49: the library makes one encoded word of the whole field, which hides the file name (RFC 2231)."""
    message = make()
    del message[name]
    message[name] = value
    made = Message.of(message)
    assert read(made)[name].params == parameters
    assert b"=?" not in bytes(made.content)
    assert max(map(len, bytes(made.content).split(b"\r\n"))) <= 78


@pytest.mark.parametrize(
    "value",
    [
        'attachment; filename="März.pdf',
        "attachment; März.pdf",
        "ü; filename=x",
        'x; a="ü"b',
        "x; a b=ü",
        "x; =ü",
        'x; a="ü',
    ],
)
def test_parameters_that_are_not_clear_are_an_error(value: str) -> None:
    """FT-49: the field is named, nothing is completed."""
    with pytest.raises(MessageError, match=r"^Content-Disposition: "):
        Message.of(old(Content_Disposition=value))
