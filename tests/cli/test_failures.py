"""Each error is a sentence, an advice and an exit code."""

from __future__ import annotations

import errno
import inspect

import click
import pytest

from asyncsmtp import errors
from asyncsmtp.cli.output.error_messages import RULES, CommandError, explain
from asyncsmtp.protocol.commands import GREETING, Command, Verb, mail
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.replies import Reply

ENVELOPE = Envelope.of("a@example.org", "b@example.org")
AUTH = Command(Verb.AUTH, b"PLAIN AGJvYgBodW50ZXIy")


def refused(code: int) -> errors.DeliveryRefused:
    reply = Reply(code, (b"no",))
    return errors.DeliveryRefused(Delivery(ENVELOPE, reply, (), None), mail(ENVELOPE.reverse_path), reply)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConnectFailed("nothing listens at relay.example:25"), 69),
        (errors.ConnectionLost("the connection broke"), 69),
        (errors.ReplyTimeout(None, 3), 69),
        (errors.PoolTimeout(3), 75),
        (errors.SuppressionError("no list"), 2),
        (errors.CampaignHalted(20, 50, "relay.example", "550 5.7.1 blocked"), 69),
        (errors.RemoteProtocolError("not an SMTP reply"), 69),
        (errors.StartTlsInjection("octets in clear"), 69),
        (errors.ExtensionNotSupported("STARTTLS", "the URL asks for it"), 69),
        (errors.Refused(GREETING, Reply(554, (b"no",))), 69),
        (errors.Refused(GREETING, Reply(421, (b"busy",))), 75),
        (errors.AuthenticationRefused(AUTH, Reply(535, (b"no",))), 77),
        (errors.AuthenticationRefused(AUTH, Reply(454, (b"later",))), 77),
        (errors.InsecureConnection("in clear"), 77),
        (errors.TokenFailed("no token"), 77),
        (refused(550), 1),
        (refused(451), 75),
        (errors.DeliveryInDoubt(ENVELOPE), 1),
        (errors.MessageError("no From"), 2),
        (errors.TemplateError("no such field", "message.html", 3), 2),
        (errors.RecipientError("no @", 4), 2),
        (errors.InvalidArgument("a control character"), 2),
        (errors.LedgerBusy("another process has it"), 75),
        (errors.LedgerEmpty("there is no ledger"), 2),
        (errors.LedgerMismatch("the template changed"), 2),
        (errors.LedgerError("the disk is full"), 74),
        (errors.LocalProtocolError("MAIL out of sequence"), 70),
        (OSError(errno.ENOSPC, "No space left on device", "news.ledger"), 74),
        (PermissionError(errno.EACCES, "Permission denied", "people.csv"), 2),
        (click.Abort(), 130),
        (KeyboardInterrupt(), 130),
        (CommandError("no such thing"), 2),
        (ZeroDivisionError("division by zero"), 70),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_the_exit_code_says_what_kind_of_end_it_was(error: BaseException, code: int) -> None:
    """CT-07: a script tells by the code alone whether to run again, to wait, or to call someone."""
    failure = explain(error)
    assert failure.exit == code
    assert failure.sentence
    assert "\n" not in failure.sentence


@pytest.mark.parametrize(
    ("code", "text", "about_password"),
    [
        (535, "no", True),
        (535, "5.7.8 no", True),
        (535, "5.7.139 disabled", False),
        (503, "no", False),
        (538, "no", False),
    ],
)
def test_the_password_is_to_be_set_only_where_it_is_wrong(code: int, text: str, about_password: bool) -> None:
    """FT-16: another refusal of AUTH says itself what it wants."""
    failure = explain(errors.AuthenticationRefused(AUTH, Reply(code, (text.encode(),))))
    assert failure.exit == 77
    assert ("ASYNCSMTP_PASSWORD" in failure.advice) is about_password
    assert failure.advice.endswith("run the same command again")


def test_every_error_of_the_package_has_an_advice() -> None:
    """Each error ends with the next thing to do; a new class must not slip through."""
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.SMTPError)]
    leaves = [c for c in classes if not any(other is not c and issubclass(other, c) for other in classes)]
    covered = (errors.DeliveryRefused, *(class_ for class_, _, _ in RULES))
    assert [c.__name__ for c in leaves if not issubclass(c, covered)] == []
    assert all(advice for _, _, advice in RULES)


def test_the_members_of_a_group_speak_for_it() -> None:
    """A TaskGroup wraps what ended a run; the cause is what a person needs, not the wrapper."""
    inner = ExceptionGroup("senders", [ValueError("x"), errors.LedgerError("the disk is full")])
    failure = explain(ExceptionGroup("run", [inner]))
    assert (failure.exit, failure.sentence) == (74, "the disk is full")


def test_a_bug_shows_its_traceback_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence for a bug names this variable; it must do what it says."""
    monkeypatch.setenv("ASYNCSMTP_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        explain(ZeroDivisionError("division by zero"))


def test_foreign_text_in_a_bug_is_harmless() -> None:
    """CT-01: an exception of some library may carry what the relay said."""
    assert "\x1b" not in explain(RuntimeError("\x1b[31m")).sentence


def test_parameters_are_printed_as_options() -> None:
    """The library names its parameters; whoever types a command has options for them."""
    failure = explain(
        errors.RecipientError("people.csv: no column is called e-mail: name it with email_column=; it has “where=”")
    )
    assert failure.sentence == "people.csv: no column is called e-mail: name it with --email-column; it has “where=”"
    failure = explain(errors.ConfigError("where= fails on row 3", "correct ca_file= or other=, not smtp://x?proxy=y"))
    assert (failure.sentence, failure.advice) == (
        "--where fails on row 3",
        "correct --ca-file or other=, not smtp://x?proxy=y",
    )
