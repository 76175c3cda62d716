"""How a failure is told: one sentence, what to do next, an exit code. Never a traceback.

`RULES` is read from the top; the first class that fits decides.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

import click

from asyncsmtp import errors
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.exits import Exit
from asyncsmtp.protocol.commands import Verb
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Failed", "Failure", "explain", "report"]


@dataclass(frozen=True, slots=True)
class Failure:
    """What is shown and returned: a lower-case sentence, the next thing to do, the exit code."""

    exit: Exit
    sentence: str
    advice: str = ""


class Failed(Exception):
    """A command cannot go on; `failure` says why and what to do. Raised by the commands themselves."""

    def __init__(self, sentence: str, advice: str = "", exit_: Exit = Exit.USAGE) -> None:
        super().__init__(sentence)
        self.failure = Failure(exit_, sentence, advice)


_CHECK = "look at the relay step by step: asyncsmtp check --relay URL -v"

RULES: tuple[tuple[type[BaseException], Exit, str], ...] = (
    (
        errors.AuthenticationRefused,
        Exit.AUTHENTICATION,
        "set the right ASYNCSMTP_PASSWORD and user, then: asyncsmtp check --relay URL",
    ),
    (
        errors.InsecureConnection,
        Exit.AUTHENTICATION,
        "use a relay with TLS: smtps://user@host or smtp://user@host:587",
    ),
    (errors.TokenFailed, Exit.AUTHENTICATION, "see why no access token was to be had, then run the same command again"),
    (errors.DeliveryInDoubt, Exit.SOME_FAILED, "find out whether it arrived before you send it again"),
    (errors.StartTlsInjection, Exit.UNREACHABLE, "use smtps:// (TLS from the first octet), or another network"),
    (errors.RemoteProtocolError, Exit.UNREACHABLE, _CHECK),
    (errors.LocalProtocolError, Exit.BUG, "please report it, with the output of the same command and -v"),
    (errors.ConnectFailed, Exit.UNREACHABLE, _CHECK),
    (errors.ConnectionLost, Exit.UNREACHABLE, "nothing was delivered: run the same command again"),
    (errors.MissingDependency, Exit.USAGE, "install it, then run the same command again"),
    (errors.PoolTimeout, Exit.RUN_AGAIN, "nothing was delivered: run the same command again"),
    (errors.DeadlineExceeded, Exit.RUN_AGAIN, "nothing was delivered: run the same command again"),
    (errors.ReplyTimeout, Exit.UNREACHABLE, "nothing was delivered: run the same command again"),
    (errors.ExtensionNotSupported, Exit.UNREACHABLE, "see what the relay offers: asyncsmtp check --relay URL"),
    (errors.MessageError, Exit.USAGE, "correct the message, then run the same command again"),
    (errors.TemplateError, Exit.USAGE, "correct the template, then run the same command again"),
    (errors.RecipientError, Exit.USAGE, "correct the recipients, then run the same command again"),
    (errors.InvalidArgument, Exit.USAGE, "correct the value, then run the same command again"),
    (
        errors.CampaignHalted,
        Exit.UNREACHABLE,
        "ask the relay's operator what is wrong with the sender, then run the same command again",
    ),
    (errors.SuppressionError, Exit.USAGE, "put the suppression list right, then run the same command again"),
    (errors.LedgerBusy, Exit.RUN_AGAIN, "wait until the other process has ended, then run the same command again"),
    (errors.LedgerEmpty, Exit.USAGE, "begin the campaign: asyncsmtp bulk CAMPAIGN.toml"),
    (
        errors.LedgerMismatch,
        Exit.USAGE,
        "put the files back as they were, or begin a new campaign under another name",
    ),
    (errors.LedgerError, Exit.LEDGER, "put that right, then run the same command again: nothing recorded is lost"),
)

_DISK = frozenset({"ENOSPC", "EDQUOT", "EIO", "EROFS", "EFBIG"})


def explain(error: BaseException) -> Failure:
    """The sentence, the advice and the exit code for what a command raised."""
    if isinstance(error, Failed):
        return error.failure
    if isinstance(error, errors.Refused) and not isinstance(error, errors.AuthenticationRefused):
        return _refused(error)
    for class_, exit_, advice in RULES:
        if isinstance(error, class_):
            return Failure(exit_, str(error), advice)
    if isinstance(error, errors.SMTPError):
        return Failure(Exit.SOME_FAILED, str(error), "run the same command with -v to see the dialogue")
    if isinstance(error, BaseExceptionGroup):
        return explain(_gravest(error))
    return _foreign(error)


def report(error: BaseException) -> Exit:
    """Print what `error` means on stderr; return the exit code."""
    failure = explain(error)
    console.say(f"asyncsmtp: {failure.sentence}")
    if failure.advice:
        console.say(f"  next: {failure.advice}")
    return failure.exit


def _refused(error: errors.Refused) -> Failure:
    """A refusal: of a recipient (1, 75) or of the session itself (69, 75)."""
    if error.reply.code < 500:
        return Failure(Exit.RUN_AGAIN, str(error), "the relay asks to try later: run the same command again then")
    if error.command.verb in (Verb.MAIL, Verb.RCPT, Verb.DATA, Verb.CONTENT):
        return Failure(Exit.SOME_FAILED, str(error), "the relay's own words say why; -v shows the dialogue")
    return Failure(Exit.UNREACHABLE, str(error), _CHECK)


def _gravest(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The member that says most: what a table row is about, before the cancellations it caused."""
    leaves = list(_leaves(group))
    return next((leaf for leaf in leaves if isinstance(leaf, errors.SMTPError | Failed)), leaves[0])


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for member in group.exceptions:
        found.extend(_leaves(member) if isinstance(member, BaseExceptionGroup) else (member,))
    return found


def _foreign(error: BaseException) -> Failure:
    """What did not come from asyncsmtp: click, the operating system, a bug."""
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "asyncsmtp"
        return Failure(Exit.USAGE, _sentence(error.format_message()), f"{command} --help")
    if isinstance(error, click.ClickException):
        return Failure(Exit.USAGE, _sentence(error.format_message()), "asyncsmtp --help")
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return Failure(Exit.INTERRUPTED, "interrupted")
    if isinstance(error, OSError):
        return _system(error)
    if os.environ.get("ASYNCSMTP_TRACEBACK"):
        raise error
    what = safe_text(f"{type(error).__name__}: {error}", 300)
    return Failure(
        Exit.BUG,
        f"a bug of asyncsmtp: {what}",
        "report it with what ASYNCSMTP_TRACEBACK=1 shows before the same command",
    )


def _system(error: OSError) -> Failure:
    what = (error.strerror or str(error)).lower()
    where = safe_text(f"{error.filename}: ") if error.filename else ""
    if errno.errorcode.get(error.errno or 0) in _DISK:
        return Failure(Exit.LEDGER, where + what, "make room or mend the disk, then run the same command again")
    return Failure(Exit.USAGE, where + what, "correct the path or its permissions, then run the same command again")


def _sentence(text: str) -> str:
    """click's message in our form: lower case at the start, no full stop at the end."""
    text = safe_text(" ".join(text.split())).rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
