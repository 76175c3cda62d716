"""Failures in words: what is one, whose fault it is, and what only looks like one."""

from __future__ import annotations

import builtins
import time
from collections.abc import Iterator, Mapping, Sequence

import flufl.bounce
import pytest

from asyncsmtp.bulk.bounces.dsn import Bounce
from asyncsmtp.bulk.bounces.matching import read_report

TOKEN = "mfrggzdfmztwq2lknnwg23tpob"

QMAIL = """\
Hi. This is the qmail-send program at mx.example.net.
I'm afraid I wasn't able to deliver your message to the following addresses.
This is a permanent error; I've given up. Sorry it didn't work out.

<ann@example.net>:
Sorry, no mailbox here by that name. (#5.1.1)

--- Below this line is a copy of the message.

Return-Path: <bounces+mfrggzdfmztwq2lknnwg23tpob@example.org>
To: eve@example.net
"""
EXIM = """\
This message was created automatically by mail delivery software.

A message that you sent could not be delivered to one or more of its
recipients. This is a permanent error. The following address(es) failed:

  ann@example.net
    SMTP error from remote mail server after RCPT TO:<ann@example.net>:
    host mx.example.net [192.0.2.1]: 550 user unknown

------ This is a copy of the message, including all the headers. ------

To: eve@example.net
"""
QUOTA = """\
Your message was not delivered to ann@example.net because the mailbox is full.

552 5.2.2 user over quota
"""
SPAM = """\
Delivery to the following recipient failed permanently:

   ann@example.net

550 5.7.1 this message looks like spam, user unknown to our reputation service
"""
WARNING = """\
A message that you sent has not yet been delivered to ann@example.net after 24 hours.
No action is required on your part. Delivery attempts will continue for some time.
450 4.2.0 greylisted
"""
NOTHING = "Your mail could not be delivered.\n"


def mail(text: str, **fields: str) -> bytes:
    """A message to our return path; by default MAILER-DAEMON's."""
    given = {
        "From": "Mail Delivery System <MAILER-DAEMON@mx.example.net>",
        "To": f"bounces+{TOKEN}@example.org",
        "Subject": "failure notice",
        **{name.replace("_", "-"): value for name, value in fields.items()},
    }
    return ("".join(f"{name}: {value}\n" for name, value in given.items() if value) + "\n" + text).encode()


@pytest.fixture(params=["flufl.bounce", "without it"])
def detector(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The extra `asyncsmtp[bounces]`, installed or not."""
    name: str = request.param
    if name == "without it":
        import_ = builtins.__import__

        def fail(
            name: str,
            globals: Mapping[str, object] | None = None,  # noqa: A002
            locals: Mapping[str, object] | None = None,  # noqa: A002
            fromlist: Sequence[str] | None = (),
            level: int = 0,
        ) -> object:
            if name.startswith("flufl"):
                raise ImportError(name)
            return import_(name, globals, locals, fromlist, level)

        monkeypatch.setattr(builtins, "__import__", fail)
    return name


def read(text: str, **fields: str) -> tuple[Bounce, ...]:
    return read_report(mail(text, **fields)).bounces


@pytest.mark.parametrize(
    ("text", "failed", "status", "permanent"),
    [
        (QMAIL, True, "5.1.1", True),
        (EXIM, True, "", True),
        (QUOTA, True, "5.2.2", False),
        (SPAM, True, "5.7.1", False),
        (WARNING, False, "4.2.0", False),
    ],
    ids=["qmail", "exim", "quota", "spam", "warning"],
)
@pytest.mark.usefixtures("detector")
def test_the_recipient_and_the_reason_are_in_the_text(text: str, failed: bool, status: str, permanent: bool) -> None:
    """RFC 3463 codes and the words of SMTP; with flufl.bounce or without it."""
    (bounce,) = read(text)
    assert (bounce.recipient, bounce.failed, bounce.status) == ("ann@example.net", failed, status)
    assert bounce.permanent == permanent
    assert bounce.report


@pytest.mark.usefixtures("detector")
def test_a_failure_without_an_address_is_matched_by_its_token() -> None:
    report = read_report(mail(NOTHING))
    (bounce,) = report.bounces
    assert (bounce.recipient, bounce.failed, bounce.permanent) == ("", True, False)
    assert list(report.failures) == [TOKEN]


@pytest.mark.usefixtures("detector")
def test_each_recipient_has_its_own_reason() -> None:
    """One is over quota, one does not exist."""
    text = "I could not deliver your message.\n\n<ann@example.net>:\nno such user\n\n<bob@example.net>:\nover quota\n"
    found = {bounce.recipient: bounce.permanent for bounce in read(text)}
    assert found == {"ann@example.net": True, "bob@example.net": False}


@pytest.mark.usefixtures("detector")
def test_exim_names_them_in_a_field() -> None:
    """X-Failed-Recipients."""
    fields = {"X_Failed_Recipients": "ann@example.net, bob@example.net"}
    assert [bounce.recipient for bounce in read(NOTHING, **fields)] == ["ann@example.net", "bob@example.net"]


@pytest.mark.parametrize(
    "fields",
    [
        {"From": "Mail Delivery System <>"},
        {"From": "post_master@example.net", "Subject": "Re: News"},
        {"From": "=?utf-8?B?TWFpbCBEZWxpdmVyeSBTeXN0ZW0=?= <robot@example.net>"},
        {"From": "gateway@example.net", "Return_Path": "<>", "Subject": "News"},
        {"From": "gateway@example.net", "Subject": "=?utf-8?B?RGVsaXZlcnkgZmFpbHVyZQ==?="},
        {"Content_Type": "text/html"},
        {"Auto_Submitted": "auto-replied"},  # Exim
    ],
)
@pytest.mark.usefixtures("detector")
def test_a_mail_system_is_known_by_its_name_its_null_path_or_the_subject(fields: dict[str, str]) -> None:
    """RFC 5321 §4.5.5: whatever it calls itself."""
    (bounce,) = read(QMAIL, **fields)
    assert bounce.failed


@pytest.mark.parametrize(
    "fields",
    [
        {"From": "Ann <ann@example.net>", "Subject": "Re: News", "In_Reply_To": f"<{TOKEN}@example.org>"},
        {"From": "Ann <ann@example.net>", "Subject": "Hello"},
        {"From": "ann@example.net", "Return_Path": "<>", "Auto_Submitted": "auto-replied", "Subject": "away"},
        {"From": "ann@example.net", "Return_Path": "<>", "Subject": "Automatic reply: News"},
        {"From": "ann@example.net", "Return_Path": "<>", "Subject": "Away", "X_Autoreply": "yes"},
        {"From": "ann@example.net", "Return_Path": "<>", "Subject": "Away", "Precedence": "auto_reply"},
        {"From": "ann@example.net", "Subject": "Out of office", "Return_Path": "<>"},
    ],
)
@pytest.mark.usefixtures("detector")
def test_what_a_person_or_an_absent_one_writes_is_no_failure(fields: dict[str, str]) -> None:
    """Also where it quotes a failure word for word. RFC 3834."""
    assert read("> 550 5.1.1 no such user\n\nMy old address could not be delivered to.\n", **fields) == ()


@pytest.mark.usefixtures("detector")
def test_a_receipt_is_no_failure() -> None:
    """RFC 8098: the message was displayed."""
    kind = 'multipart/report; report-type=disposition-notification; boundary="b"'
    text = "--b\n\nYour message was displayed.\n--b\nContent-Type: message/disposition-notification\n\nX: y\n--b--\n"
    assert read(text, From="ann@example.net", Subject="Read: News", Content_Type=kind) == ()
    assert read("The newsletter of the postmasters.\n", Subject="News") == ()


@pytest.mark.usefixtures("detector")
def test_the_message_that_came_back_gives_no_reason() -> None:
    """It may be about mailboxes itself."""
    own = "Subject: 550 5.1.1 no such user\nReceived: by mx\n\nbob@example.net: 550 5.1.1 user unknown\n"
    for mark in ("--- Original message ---\n", "------ This is a copy of your message. ------\n", "Received: by mx\n"):
        (bounce,) = read(NOTHING + "\n" + mark + own)
        assert (bounce.permanent, bounce.status) == (False, "")
    kind = 'multipart/mixed; boundary="b"'
    (bounce,) = read(f"--b\n\n{NOTHING}\n--b\nContent-Type: message/rfc822\n\n{own}\n--b--\n", Content_Type=kind)
    assert not bounce.permanent


@pytest.fixture
def broken() -> Iterator[None]:
    """A detector that fails."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flufl.bounce, "all_failures", lambda message: 1 / 0)
        yield


@pytest.mark.usefixtures("broken")
def test_whatever_a_detector_raises_the_text_is_read(caplog: pytest.LogCaptureFixture) -> None:
    """The detectors know the messages that they were written for, and others have a bare traceback."""
    (bounce,) = read(QMAIL)
    assert bounce.permanent
    assert caplog.text == ""


HEAD = b"From: MAILER-DAEMON@example.net\n"


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"\n" + b"a@" * 1_000_000,
        HEAD + b"\nx@" + b"a." * 32_000,
        HEAD + b"\n" + b"\n" * 2_000_000,
        HEAD + b"Content-Type: text/html\n\n" + b"<a " * 600_000,
        HEAD + b"\n" + b"\n\n".join(b"<u%d@example.org>:\nx" % number for number in range(100_000)),
        HEAD + b"\n" + b"could not deliver to user host domain " * 50_000,
        HEAD
        + b"Content-Type: multipart/mixed; boundary=a\n\n"
        + b"".join(b"--a\nContent-Type: multipart/mixed; boundary=a%d\n\n" % number for number in range(1000))
        + b"\n" * 60_000,
        b"From: mailer-daemon@yahoo.com\n\nMessage from yahoo.com.\nUnable to deliver message to the following "
        b"address(es).\n\n" + b"<a@b.example>:\nx\n\n" * 50_000,
        b"Subject: " + b"=?utf-8?q?a?= " * 100_000 + b"\n\nfailed\n",
    ],
)
@pytest.mark.slow
def test_whatever_is_written_takes_no_time(data: bytes) -> None:
    """Two megabytes of what anybody may send, with flufl.bounce."""
    began = time.process_time()
    assert len(read_report(data).bounces) <= 50
    assert time.process_time() - began < 5
