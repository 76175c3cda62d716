"""Mixed inputs, made by chance from a seed: only our own errors come of them, and nobody else is mailed.

Three thousand inputs are tried in all; `ASYNCSMTP_INPUTS=1000000` tries a million (seven minutes).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from email import message_from_bytes, message_from_string, policy
from email.header import Header
from email.headerregistry import Address as AddressObject
from email.headerregistry import AddressHeader, Group
from email.message import EmailMessage
from email.message import Message as OldMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from random import Random
from typing import Any, cast

import pytest

from asyncsmtp.bulk.recipients.csv_format import Record
from asyncsmtp.bulk.recipients.recipient import Recipient, RowRules, RowValidator
from asyncsmtp.bulk.running.webhook import check_url
from asyncsmtp.client.config.hostport import parse_host_port
from asyncsmtp.client.config.relay import Proxy, Relay
from asyncsmtp.errors import SMTPError
from asyncsmtp.mail import headers
from asyncsmtp.mail.address import (
    Address,
    flatten_groups,
    organizational_domain,
    parse_address_list,
    unquote_local_part,
)
from asyncsmtp.mail.attachment import Attachment
from asyncsmtp.mail.checks.rules import check_message as find_problems
from asyncsmtp.mail.list_unsubscribe import ReturnPath, Unsubscribe
from asyncsmtp.mail.message import Message, build
from asyncsmtp.mail.templates.template import Template
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import Envelope, Mailbox, to_a_labels

INPUTS = int(os.environ.get("ASYNCSMTP_INPUTS", "3000"))

MILD = [
    *("a", "b", "zoë", "用户", "Bob", "x.example", "bücher.example", "docomo.ne.jp", "xn--bcher-kva.example"),
    *(
        "@",
        "@",
        "@x.example",
        "<",
        ">",
        ",",
        ";",
        ":",
        ".",
        "..",
        "(",
        ")",
        "[",
        "]",
        '"',
        "\\",
        " ",
        "  ",
        "\t",
        "=",
        "?",
    ),
    *("a@x.example", "Bob <b@x.example>", '"B, C" <c@x.example>', '"a b"@x.example', "a..b@x.example", "postmaster"),
    *("undisclosed-recipients:;", "T: a@x.example;", "(c)", "((c) \\) d)", "[127.0.0.1]", "[IPv6:::1]", "{{ a }}"),
    *("=?utf-8?q?a=40b?=", "=?utf-8?b?w7Y=?=", "=?no-such?q?x?=", "=?utf-8?q?a,?=", "%", "/", "#", "'", "&", "e\u0301"),
    *(
        "; filename=",
        'filename="ü.pdf"',
        "text/plain; charset=",
        "multipart/mixed; boundary=x",
        "message/rfc822",
        "base64",
    ),
    *("8bit", "<a@b>", "x" * 70, "smtp://", "localhost", ":25", ":0", "Mon, 03 Nov 2025 09:00:00 +0000", "9" * 20),
]
WILD = [
    *(
        "\r\n",
        "\n",
        "\r",
        "\r\n ",
        "\n\t",
        "\n\n",
        "\0",
        "\x0b",
        "\x1c",
        "\x7f",
        "\x85",
        "\x9b",
        "\u2028",
        "\u00a0",
        "\u00ad",
    ),
    *(
        "\u200b",
        "\u202e",
        "\ufeff",
        "\ufffd",
        "\ufffd",
        "\udcc3",
        "\udcff",
        "\ud800",
        "\udfff",
        "\uff20",
        "\uff0c",
        "\uff41",
    ),
    *("\u212a", "\u0130", "\u00df", "\ufdfa", "\U0001f600", "\U000e0041", "\r\nBcc: z@x.example", "=?", "?="),
    *("=?x?q?=3e=00?=", "=?utf-8?q?=0D=0ABcc=3A_z=40x?="),
]
FIELDS = [
    "To",
    "To",
    "To",
    "Cc",
    "Bcc",
    "From",
    "Sender",
    "Reply-To",
    "Resent-To",
    "Resent-Date",
    "Subject",
    "Date",
    "Message-ID",
]
FIELDS += [
    "Content-Type",
    "Content-Disposition",
    "Content-Transfer-Encoding",
    "References",
    "MIME-Version",
    "X-Other",
    "List-ID",
    "DKIM-Signature",
]
SPOILT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")


def mixed(random: Random, most: int = 5) -> str:
    """A text of a few pieces."""
    wild = random.choice([0, 0, 0.1, 0.5])
    return "".join(random.choice(WILD if random.random() < wild else MILD) for _ in range(random.randint(1, most)))


def address(random: Random) -> str:
    """A valid address, one into which a piece or two was put, one with any local part or domain, or anything."""
    text = random.choice(["a@x.example", "Bob <b@x.example>", '"B, C" <c@x.example>', "Zoë <zoë@bücher.example>"])
    at = random.randrange(len(text) + 1)
    kinds = [
        lambda: text,
        lambda: text[:at] + mixed(random, 2) + text[at + random.randrange(2) :],
        lambda: f"{mixed(random, 2)}@x.example",
        lambda: f"{mixed(random, 2)} <b@x.example>",
        lambda: f"b@{mixed(random, 2)}.example",
        lambda: mixed(random),
    ]
    return random.choice(kinds)()


def octets(random: Random, text: str) -> bytes:
    charset = random.choice(["utf-8", "utf-8", "utf-8", "latin-1", "gbk"])
    return text.encode(charset, "replace" if charset != "utf-8" else "surrogatepass")


def check_mailboxes(mailboxes: Iterable[Mailbox]) -> None:
    for mailbox in mailboxes:
        assert not SPOILT.search(mailbox.address), mailbox
        assert Mailbox.parse(mailbox.address) == mailbox


def read_recipients(field_names: Iterable[str], head: str) -> list[tuple[str, str]]:
    """Local part and domain of each address that the library reads in a header section."""
    parsed = message_from_string(head, policy=policy.default)
    fields = [cast(AddressHeader, value) for name in field_names for value in parsed.get_all(name, [])]
    return [(each.username, to_a_labels(each.domain.lower())) for field in fields for each in field.addresses]


def parts(mailboxes: Iterable[Mailbox]) -> list[tuple[str, str]]:
    return [(unquote_local_part(mailbox.local), mailbox.domain.lower()) for mailbox in mailboxes]


def check_message(message: Message, *, blind: Iterable[Mailbox] | None = None, is_kept: bool = False) -> None:
    """Nothing is lost or added on the way from the envelope to who reads the header.

    A field of ASCII that is passed on as it was (`is_kept`) may be one that makes the library's parser raise.
    """
    envelope = message.envelope
    check_mailboxes([*envelope.forward_paths, *filter(None, [envelope.reverse_path])])
    assert isinstance(message.content, Content)
    head = b"".join(message.content.parts).partition(b"\r\n\r\n")[0].decode("utf-8", "surrogateescape") + "\r\n\r\n"
    names = [line.partition(":")[0].lower() for line in head.split("\r\n") if line[:1] not in (" ", "\t", "")]
    assert "bcc" not in names
    prefix = "Resent-" if "resent-date" in names else ""
    try:
        shown = read_recipients([f"{prefix}To", f"{prefix}Cc"], head)
    except Exception:
        if is_kept:
            return
        raise
    sent = parts(envelope.forward_paths)
    assert set(shown) <= set(sent), (shown, sent)
    if blind is not None:
        assert set(sent) == set(shown) | set(parts(blind)), (shown, sent)


def try_mailbox(random: Random) -> None:
    check_mailboxes([Mailbox.parse(address(random))])


def try_address_list(random: Random) -> None:
    text = ", ".join(address(random) for _ in range(random.randint(1, 3)))
    found = parse_address_list(text)
    mailboxes = [each.mailbox for each in flatten_groups(found)]
    check_mailboxes(mailboxes)
    assert Address.parse_list(text) == flatten_groups(found)
    written = headers.format_addresses("To", found).decode()
    assert read_recipients(["To"], written + "\r\n") == parts(mailboxes), written


def try_build(random: Random) -> None:
    arguments: dict[str, Any] = {"from_": "a@x.example", "to": "b@x.example"}
    for name in random.sample(["from_", "to", "cc", "bcc", "reply_to"], k=random.randint(0, 3)):
        made = [address(random) for _ in range(random.randint(1, 2))]
        arguments[name] = random.choice([made[0], made, (mixed(random), made[0]), [(mixed(random), made[0])]])
    for name in random.sample(["subject", "text", "html", "message_id"], k=random.randint(0, 2)):
        arguments[name] = mixed(random)
    if random.random() < 0.5:
        name = (
            mixed(random, 2)
            if random.random() < 0.3
            else random.choice(["X-A", "List-ID", "List-Unsubscribe", "References"])
        )
        arguments["headers"] = {name: mixed(random)}
    if random.random() < 0.3:
        arguments["attachments"] = [
            Attachment(
                mixed(random), octets(random, mixed(random)), random.choice(["", "", "text/plain", mixed(random, 3)])
            )
        ]
    message = build(**arguments)
    blind = build(**(arguments | {"to": None, "cc": None})).envelope.forward_paths if arguments.get("bcc") else ()
    check_message(message, blind=blind)


def fields(random: Random) -> list[tuple[str, str]]:
    made = [("From", "a@x.example"), ("To", address(random))]
    for _ in range(random.randint(0, 3)):
        name = random.choice(FIELDS)
        made.append((name, address(random) if random.random() < 0.5 else mixed(random)))
    random.shuffle(made)
    return made


def try_bytes(random: Random) -> None:
    section = "".join(f"{name}: {value}\r\n" for name, value in fields(random))
    written = octets(random, section + random.choice(["", "\r\n", "\r\nHello\r\n", "\n\nBcc: c@x.example\n"]))
    kinds: list[Callable[[], Any]] = [
        lambda: written,
        lambda: message_from_bytes(written),
        lambda: message_from_bytes(written, policy=policy.default),
        lambda: message_from_string(
            written.decode("utf-8", "replace"), policy=random.choice([policy.default, policy.compat32])
        ),
    ]
    try:
        message = random.choice(kinds)()
    except Exception:  # of the library, in the caller's code
        return
    check_with_downgrade(Message.of(message), is_kept=True)


def try_old_message(random: Random) -> None:
    message: OldMessage = random.choice([MIMEText("Hello\n"), MIMEText("Grüße\n", "plain", "utf-8"), MIMEMultipart()])
    for name, value in fields(random):
        try:
            message[name] = Header(value, "utf-8") if random.random() < 0.2 else value
        except Exception:  # of the library, in the caller's code
            return
    check_with_downgrade(Message.of(message), is_kept=True)


def try_email_message(random: Random) -> None:
    message = EmailMessage()
    try:
        message.set_content(random.choice(["Hello\n", "Grüße\n"]))
        for name, value in fields(random):
            if name in message and name != "To":
                del message[name]
            message[name] = value
        if random.random() < 0.2:
            person = AddressObject(mixed(random, 3), random.choice(["b", "a.", "a b", mixed(random, 2)]), "x.example")
            message["Cc"] = random.choice(
                [person, Group(mixed(random, 2), (person,)), [person, Group(None, (person,))]]
            )
    except Exception:  # of the library, in the caller's code
        return
    check_with_downgrade(Message.of(message), is_kept=False)


def check_with_downgrade(message: Message, *, is_kept: bool) -> None:
    check_message(message, is_kept=is_kept)
    assert isinstance(message.content, Content)
    if message.content.downgrade is not None:
        check_message(Message(message.envelope, message.content.downgrade()), is_kept=is_kept)


def try_header(random: Random) -> None:
    value = mixed(random)
    name = random.choice(["Subject", "References", "List-Unsubscribe", "List-ID", "X-A"])
    setters: list[Callable[[], bytes]] = [
        lambda: headers.format_field(name, value),
        lambda: headers.format_unstructured(name, value),
        lambda: headers.format_tokens(name, value),
        lambda: headers.format_message_id(value),
        lambda: headers.format_content_id(value),
        lambda: headers.format_addresses("To", [Address(value, Mailbox("b", "x.example"))]),
    ]
    written = random.choice(setters)()
    lines = written.removesuffix(b"\r\n").split(b"\r\n")
    assert not re.search(rb"[\r\n\0]", b"".join(lines))
    assert all(line[:1] in b" \t" for line in lines[1:])
    headers.check_extra_headers([value, name])


def try_list_header(random: Random) -> None:
    way = Unsubscribe(
        f"https://x.example/{mixed(random, 2)}{{{{ token }}}}",
        b"0123456789abcdef",
        random.choice([None, address(random)]),
    )
    way.fields(Mailbox("b", "x.example"))
    check_mailboxes([cast(Mailbox, ReturnPath(address(random)).address_for("a@b"))])


def try_attachment(random: Random) -> None:
    made = Attachment(
        mixed(random), octets(random, mixed(random)), random.choice(["", "", "text/plain", mixed(random, 3)])
    )
    message = build(
        from_="a@x.example",
        to="b@x.example",
        html="x",
        attachments=[made],
        inline={random.choice(["x", mixed(random, 1)]): made},
    )
    check_message(message, blind=())


def try_cell(random: Random) -> None:
    cells = (address(random), mixed(random), mixed(random))
    row = RowValidator(("email", "name", "reply"), "email", RowRules()).validate(Record(1, 1, list(cells)))
    if not isinstance(row, Recipient):
        assert row.reason.isprintable()
        return
    check_mailboxes([row.mailbox])
    template = Template(
        "News <news@x.example>",
        "{{ name }}",
        text="{{ name }}",
        html="<p>{{ name|safe }}</p>",
        to_name="{{ name }}",
        reply_to="{{ name }} <{{ reply }}>" if random.random() < 0.5 else None,
    )
    message = template.compile(("email", "name", "reply")).compose(row.mailbox, row.fields)
    check_message(message, blind=())
    if random.random() < 0.1:  # it takes long
        assert all(finding.sentence.isprintable() for finding in find_problems(message))


def try_host(random: Random) -> None:
    text = random.choice([mixed(random, 4), f"x{mixed(random, 2)}.example"])
    organizational_domain(text)
    makers: list[Callable[[], object]] = [
        lambda: parse_host_port(text),
        lambda: Relay.from_url(f"smtp://{text}"),
        lambda: Relay(text),
        lambda: Proxy.from_url(f"socks5://{text}"),
        lambda: check_url(f"https://{text}/"),
        lambda: Envelope.of(address(random), [address(random)]),
    ]
    made = random.choice(makers)()
    if isinstance(made, Relay | Proxy):
        assert str(made).isprintable()
        assert made.host.isascii()


TARGETS = [value for name, value in sorted(globals().items()) if name.startswith("try_")]


@pytest.mark.timeout(0 if INPUTS > 10_000 else 60)
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__.removeprefix("try_"))
def test_mixed_inputs_leave_only_our_own_errors(target: Callable[[Random], None]) -> None:
    """FT-01, FT-05, FT-42: no IndexError and the like; no recipient with U+FFFD; header and envelope agree.

    The error names the seed of an input, with which `target(Random(seed))` repeats it.
    """
    accepted = 0
    for number in range(-(-INPUTS // len(TARGETS))):
        seed = f"{target.__name__} {number}"
        try:
            target(Random(seed))
            accepted += 1
        except (SMTPError, TypeError) as error:
            if not str(error).isprintable():
                raise AssertionError(seed) from error
        except Exception as error:
            error.add_note(f"seed: {seed!r}")
            raise
    assert accepted > 0
