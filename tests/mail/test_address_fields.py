"""Address fields of messages of the standard library, read from their source."""

from __future__ import annotations

from email import message_from_bytes, message_from_string, policy
from email.header import Header
from email.headerregistry import Address, Group
from email.message import EmailMessage
from email.message import Message as OldMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.utils import formataddr
from typing import Any

import pytest

from asyncsmtp.errors import MessageError, RecipientError
from asyncsmtp.mail.address import AddressGroup
from asyncsmtp.mail.address_fields import parse_address_field
from asyncsmtp.mail.email_message import weight
from asyncsmtp.mail.message import Message

POLICIES = [policy.default, policy.compat32, policy.SMTP, policy.SMTPUTF8, policy.HTTP]


def new(**fields: Any) -> EmailMessage:
    message = EmailMessage()
    for name, value in ({"From": "a@x.example"} | fields).items():
        message[name.replace("_", "-")] = value
    message.set_content("Hello\n")
    return message


def old(**fields: Any) -> OldMessage:
    message = MIMEText("Hello\n")
    for name, value in ({"From": "a@x.example"} | fields).items():
        message[name.replace("_", "-")] = value
    return message


def of_bytes(to: bytes, policy_: policy.Policy) -> OldMessage:
    return message_from_bytes(b"From: a@x.example\nTo: " + to + b"\n\nHello\n", policy=policy_)


def of(message: OldMessage | bytes) -> list[str]:
    return [path.address for path in Message.of(message).envelope.forward_paths]


def to_field(message: Message) -> str:
    """The To field that is written, unfolded."""
    head = bytes(message.content).partition(b"\r\n\r\n")[0].replace(b"\r\n ", b" ").decode()
    return next((line for line in head.split("\r\n") if line.startswith("To:")), "")


@pytest.mark.parametrize("policy_", POLICIES)
@pytest.mark.parametrize(
    ("to", "addresses"),
    [
        ("用户@x.example, 张三@x.example", ["用户@x.example", "张三@x.example"]),
        ("Jörg <b@x.example>", ["b@x.example"]),
        ('"Zoë, x" <zoë@bücher.example>,\n  b@x.example', ["zoë@xn--bcher-kva.example", "b@x.example"]),
        ("Büro: ä@x.example, ö@x.example;", ["ä@x.example", "ö@x.example"]),
    ],
)
def test_bytes_are_read_as_utf_8_with_every_policy(policy_: policy.Policy, to: str, addresses: list[str]) -> None:
    """FT-01: the library reads them as U+FFFD, which made one recipient of two (RFC 6532 §3)."""
    message = of_bytes(to.encode(), policy_)
    assert of(message) == addresses
    assert of(f"From: a@x.example\nTo: {to}\n\nHello\n".encode()) == addresses
    assert of(message_from_string(f"From: a@x.example\nTo: {to}\n\nHello\n", policy=policy_)) == addresses
    assert "\ufffd" not in bytes(Message.of(message).content).decode()


@pytest.mark.parametrize("policy_", POLICIES)
@pytest.mark.parametrize(
    "to",
    [
        *("Jörg <b@x.example>".encode("latin-1"), "用户@x.example".encode("gbk"), b"\xff@x.example, \xfe@x.example"),
        *(b"b@x.example, \xc3(", b"\xed\xa0\x80@x.example", "\ufffd@x.example".encode()),
    ],
)
def test_bytes_that_are_not_utf_8_are_an_error(policy_: policy.Policy, to: bytes) -> None:
    """FT-01: nobody knows whom they name; the field is named."""
    for message in (of_bytes(to, policy_), b"From: a@x.example\nTo: " + to + b"\n\n"):
        with pytest.raises(MessageError) as caught:
            Message.of(message)
        assert caught.value.field == "To"


@pytest.mark.parametrize("source", [policy.default, policy.compat32])
def test_a_field_may_be_copied_from_a_received_message(source: policy.Policy) -> None:
    """FT-01: the library hands out a `Header` of an unknown charset, or a text with surrogates in its addresses."""
    received = of_bytes("Zoë <用户@x.example>, 张三@x.example".encode(), source)
    addresses = ["用户@x.example", "张三@x.example"]
    assert of(old(To=received["To"])) == addresses
    assert to_field(Message.of(old(To=received["To"]))) == "To: =?utf-8?q?Zo=C3=AB?= <用户@x.example>, 张三@x.example"
    if source is policy.default:
        assert of(new(To=received["To"])) == addresses
    lost = of_bytes("Jörg <b@x.example>".encode("latin-1"), source)["To"]
    with pytest.raises(MessageError):
        Message.of(old(To=lost))


def test_a_header_object_is_its_text() -> None:
    """FT-01: of any charset that is known."""
    assert of(old(To=Header("Zoë <zoë@x.example>", "iso-8859-1"))) == ["zoë@x.example"]
    assert of(old(To=Header("用户@x.example", "utf-8"))) == ["用户@x.example"]


@pytest.mark.parametrize("make", [new, old])
@pytest.mark.parametrize(
    "to",
    [
        "=?x?q?victim=40corp.example=3e=00?=foo@x.example",
        "=?utf-8?q?victim=40corp.example=2C?=foo@x.example",
        "=?utf-8?q?victim=40corp.example?=@x.example",
        '"=?utf-8?q?victim?="@x.example',
        "<=?utf-8?q?victim?=@x.example>",
        "(c) =?utf-8?q?victim?= (d)@x.example",
        "=?utf-8?q?victim?=.b@x.example",
        "b@x.example, T: a.=?utf-8?b?Yg==?=@x.example;",
    ],
)
def test_no_address_is_an_encoded_word(make: Any, to: str) -> None:
    """FT-05: the library decodes it, and its readers would see another recipient than the envelope."""
    for message in (make(To=to), of_bytes(to.encode(), policy.default), of_bytes(to.encode(), policy.compat32)):
        with pytest.raises(MessageError) as caught:
            Message.of(message)
        assert caught.value.field == "To"


def test_no_address_object_is_an_encoded_word() -> None:
    """FT-05: the name may look like one, since it is encoded; the address may not."""
    with pytest.raises(MessageError, match="To"):
        Message.of(new(To=Address("", "=?utf-8?q?victim?=", "x.example")))
    with pytest.raises(RecipientError):
        Message.of(new(To="b@x.example"), recipients="=?utf-8?q?victim?=@x.example")
    made = Message.of(new(To=Address("=?utf-8?q?x?=", "b", "x.example")))
    assert parse_address_field(message_from_bytes(bytes(made.content), policy=policy.default)["To"]) == (
        parse_address_field(new(To=Address("=?utf-8?q?x?=", "b", "x.example"))["To"])
    )


@pytest.mark.parametrize("make", [new, old])
@pytest.mark.parametrize(
    ("fields", "left_out"),
    [
        ({"To": "b@x.example", "Cc": ""}, "Cc"),
        ({"To": "", "Bcc": "b@x.example"}, "To"),
        ({"To": "b@x.example", "Reply-To": ""}, "Reply-To"),
        ({"To": "b@x.example", "Sender": ""}, "Sender"),
        ({"To": "b@x.example", "Resent-To": "", "Resent-Cc": " ", "Resent-From": ""}, "Resent-"),
        ({"To": "b@x.example", "Cc": " , ,"}, "Cc"),
        ({"To": "b@x.example", "Bcc": ""}, "Bcc"),
        ({"To": "b@x.example", "Cc": "(nobody)"}, "Cc"),
    ],
)
def test_an_empty_address_field_is_left_out(make: Any, fields: dict[str, str], left_out: str) -> None:
    """FT-40: a form without an entry; RFC 5322 §3.6.3 allows no empty list. The message itself is not changed."""
    message = make(**fields)
    made = Message.of(message)
    assert [path.address for path in made.envelope.forward_paths] == ["b@x.example"]
    head = bytes(made.content).partition(b"\r\n\r\n")[0].decode()
    assert not [line for line in head.split("\r\n") if line.lower().startswith(left_out.lower())]
    assert all(name in message for name in fields)


def test_an_empty_header_object_is_left_out() -> None:
    """FT-40: the library makes an encoded word of it, which a reader takes for an address."""
    made = Message.of(old(To="b@x.example", Cc=Header("", "utf-8"), Reply_To=Header("(nobody)", "utf-8")))
    assert b"Cc" not in bytes(made.content)
    assert b"Reply-To" not in bytes(made.content)


def test_an_address_in_a_header_object_is_not_encoded() -> None:
    """FT-05: the library encodes the whole field, and its readers see no recipient."""
    assert to_field(Message.of(old(To=Header('"B, C" <c@x.example>', "utf-8")))) == 'To: "B, C" <c@x.example>'
    with pytest.raises(MessageError, match="Reply-To"):
        Message.of(old(To="b@x.example", Reply_To=Header("nobody", "utf-8")))


@pytest.mark.parametrize("line", ["To: c@x.example", "cc: c@x.example", "Resent-Bcc: c@x.example"])
def test_a_recipient_behind_a_line_that_is_no_field_is_an_error(line: str) -> None:
    """D-27: some readers go on behind such a line; nobody named may be left out, and no Bcc transmitted."""
    with pytest.raises(MessageError, match=line.partition(":")[0].title()):
        Message.of(f"From: a@x.example\r\nTo: b@x.example\r\n:no field\r\n{line}\r\n\r\nHello\r\n".encode())


@pytest.mark.parametrize("make", [new, old])
def test_empty_fields_name_nobody(make: Any) -> None:
    """FT-40: they do not count as an author or a recipient either."""
    with pytest.raises(MessageError) as caught:
        Message.of(make(To="", Cc="", Bcc=""))
    assert caught.value.field == "To"
    with pytest.raises(MessageError) as caught:
        Message.of(make(From="", Sender="", To="b@x.example"))
    assert caught.value.field == "From"


HALVES = [
    "user@",
    "<",
    "a@[",
    ">",
    '"',
    "(",
    "a@(",
    "<a@",
    "@",
    ":",
    ";",
    "T:",
    "a@b@",
    "=?",
    "=?utf-8?q?",
    "a@[x",
    '"\\',
    "[",
    "\\",
]


@pytest.mark.parametrize("policy_", POLICIES[:2])
@pytest.mark.parametrize("text", HALVES)
@pytest.mark.parametrize("name", ["To", "From", "Bcc"])
def test_half_an_address_is_a_message_error(policy_: policy.Policy, text: str, name: str) -> None:
    """FT-42: the library raises IndexError, AttributeError or ValueError when such a field is read."""
    fields = {"From": "a@x.example", "To": "b@x.example"} | {name: text}
    section = "".join(f"{each}: {value}\n" for each, value in fields.items()).encode()
    for message in (section, message_from_bytes(section, policy=policy_)):
        with pytest.raises(MessageError) as caught:
            Message.of(message)
        assert caught.value.field == name


@pytest.mark.parametrize("policy_", POLICIES[:2])
@pytest.mark.parametrize("name", ["Date", "Message-ID", "Reply-To", "Resent-To", "Content-Disposition", "X-Other"])
@pytest.mark.parametrize("text", HALVES)
def test_half_a_field_that_does_not_count_is_passed_on(policy_: policy.Policy, name: str, text: str) -> None:
    """FT-42: it is not read, so it cannot fail."""
    section = f"From: a@x.example\nTo: b@x.example\n{name}: {text}\n\nHello\n".encode()
    for message in (section, message_from_bytes(section, policy=policy_)):
        made = Message.of(message)
        assert f"{name}: {text}\r\n".encode() in bytes(made.content)


@pytest.mark.parametrize("make", [new, old])
@pytest.mark.parametrize(
    ("to", "written"),
    [
        ('"abc."@docomo.ne.jp', '"abc."@docomo.ne.jp'),
        ("abc.@docomo.ne.jp", "abc.@docomo.ne.jp"),
        ('A <"a..b"@docomo.ne.jp>, a..b@docomo.ne.jp', 'A <"a..b"@docomo.ne.jp>, a..b@docomo.ne.jp'),
        ('"a b"@x.example', '"a b"@x.example'),
        ('"ab"@x.example', '"ab"@x.example'),
    ],
)
def test_quotation_marks_and_dots_of_an_address_are_kept(make: Any, to: str, written: str) -> None:
    """FT-46: `EmailMessage` forgets the quotation marks; carriers compare the address as it is."""
    made = Message.of(make(To=to))
    assert ", ".join(path.address for path in made.envelope.forward_paths) == written.replace("A <", "").replace(
        ">", ""
    )
    assert to_field(made) == f"To: {written}"


def test_an_address_object_is_sent_as_its_parts() -> None:
    """FT-46: a user name that needs quotation marks gets them, one with a dot at its end does not."""
    made = Message.of(new(To=[Address("", "abc.", "docomo.ne.jp"), Address("", "a b", "x.example")]))
    assert to_field(made) == 'To: abc.@docomo.ne.jp, "a b"@x.example'


@pytest.mark.parametrize("make", [new, old])
def test_groups_are_written_as_groups(make: Any) -> None:
    """FT-41: nobody's reader shows `undisclosed-recipients` as an address; its members are recipients."""
    made = Message.of(make(To="undisclosed-recipients:;", Bcc="b@x.example"))
    assert to_field(made) == "To: undisclosed-recipients:;"
    made = Message.of(make(To="Zoë: Zoë <b@x.example>, c@x.example;, d@x.example"))
    assert len(made.envelope.forward_paths) == 3
    assert to_field(made) == "To: =?utf-8?q?Zo=C3=AB?=: =?utf-8?q?Zo=C3=AB?= <b@x.example>, c@x.example;, d@x.example"


def test_group_objects_are_written_as_groups() -> None:
    """FT-41: `email.headerregistry.Group` with and without a name and members."""
    people = (Address("B", "b", "x.example"), Address("", "c", "x.example"))
    made = Message.of(new(To=[Group("The, Team", people), Group("nobody"), Group(None, people[:1])]))
    assert to_field(made) == 'To: "The, Team": B <b@x.example>, c@x.example;, nobody:;, B <b@x.example>'
    assert [path.address for path in made.envelope.forward_paths] == ["b@x.example", "c@x.example"]


def test_the_name_of_a_group_that_was_set_as_an_object_is_literal() -> None:
    """Also where its text looks as if it were encoded already, as for the name of an address."""
    name = "Jörg =?utf-8?q?a?="
    message = EmailMessage()
    message["To"] = Group(name, (Address(name, "b", "x.example"), Address("", "c", "x.example")))
    (group,) = parse_address_field(message["To"])
    assert isinstance(group, AddressGroup)
    assert [group.name, *(member.name for member in group.members)] == [name, name, ""]


@pytest.mark.parametrize("make", [new, old])
def test_formataddr_is_not_encoded_twice(make: Any) -> None:
    """FT-49: also beside a name that is not encoded yet."""
    made = Message.of(make(To=f"{formataddr(('Zoë', 'b@x.example'))}, Noël <c@x.example>"))
    assert to_field(made) == "To: =?utf-8?q?Zo=C3=AB?= <b@x.example>, =?utf-8?b?Tm/Dq2w=?= <c@x.example>"


def _holding(payload: object, **fields: Any) -> OldMessage:
    message = OldMessage()
    for name, value in ({"From": "a@x.example", "To": "b@x.example"} | fields).items():
        message[name.replace("_", "-")] = value
    message.set_payload(payload)  # type: ignore[arg-type]
    return message


def _in_itself() -> OldMessage:
    message = MIMEMultipart()
    message["From"], message["To"] = "a@x.example", "b@x.example"
    message.attach(message)
    return message


@pytest.mark.parametrize(
    "message",
    [
        _holding(5),
        _holding([1, 2]),
        _holding(["text"], Content_Type="multipart/mixed"),
        _holding([], Content_Type="message/rfc822"),
        _holding([MIMEText("x")], Content_Type='multipart/mixed; boundary="ü"'),
        _holding("\ud800"),
        _holding("x", Subject=5),
        _holding("x", To=None),
        _in_itself(),
    ],
    ids=range(9),
)
def test_an_object_that_is_no_message_is_a_message_error(message: OldMessage) -> None:
    """FT-42: the library lets a program set anything, and raises AttributeError and the like when it is written."""
    weight(message)
    with pytest.raises(MessageError):
        Message.of(message)
