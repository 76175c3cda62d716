"""Error messages and exit codes: one sentence for each failure, and what to do next. Never a traceback.

`RULES` is read from the top; the first class that fits decides.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING

import click

from asyncsmtp import errors
from asyncsmtp.protocol.commands import Verb
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.cli.command_line import CommandLine

__all__ = ["CommandError", "ExitCode", "Failure", "explain"]


class ExitCode(IntEnum):
    """Exit codes of the commands (those of sysexits.h where they fit), as in the table of the documentation."""

    ACCEPTED = 0  # every recipient was accepted, or the command had nothing else to do
    SOME_FAILED = 1  # some were rejected or are in doubt
    USAGE = 2  # an option, a file or the pre-flight, or the answer was no: nothing was sent
    UNREACHABLE = 69  # the relay: no connection, no greeting, no TLS
    BUG = 70  # ours
    LEDGER = 74  # the ledger or the disk
    RUN_AGAIN = 75  # some are deferred or still to send, another process has the ledger, or memory is used up
    AUTHENTICATION = 77  # the relay refused the credentials, or they would have travelled in clear
    INTERRUPTED = 130  # Ctrl-C; the same command goes on
    TERMINATED = 143  # SIGTERM or SIGHUP; the same command goes on


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure as it is printed: a lower-case sentence, the next thing to do, the exit code."""

    exit: ExitCode
    sentence: str
    advice: str = ""


class CommandError(Exception):
    """A reason why a command cannot go on, with what to do; raised by the commands themselves."""

    def __init__(self, sentence: str, advice: str = "", exit_: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(sentence)
        self.failure = Failure(exit_, sentence, advice)


_PARAMETER = re.compile(r"\b[a-z_]+=(?=[\s,;:)]|$)")  # in an error of the library
_AGAIN = "then run the same command again"
_LOGIN = "set the right ASYNCSMTP_PASSWORD and user, then run the same command again"
_OTHER_LOGIN = "do what the relay's words ask for, then run the same command again"
_USE_TLS = "use a relay with TLS: smtps://user@host or smtp://user@host:587"
_MISMATCH = "put the files back as they were, or begin a new campaign under another name"
_HUNG_UP = "nothing was delivered: run the same command again; if it hangs up each time, add --dialogue lockstep"
_CHECK = "look at the relay step by step: {check}"
_UNTRUSTED = "trust its CA with --ca-file FILE, or add verify=no&pin=FINGERPRINT to the relay's URL"

RULES: tuple[tuple[type[BaseException], ExitCode, str], ...] = (
    (errors.AuthenticationRefused, ExitCode.AUTHENTICATION, _LOGIN),
    (errors.InsecureConnection, ExitCode.AUTHENTICATION, _USE_TLS),
    (errors.TokenFailed, ExitCode.AUTHENTICATION, f"find out why the token source failed, {_AGAIN}"),
    (errors.DeliveryInDoubt, ExitCode.SOME_FAILED, "find out whether it arrived before you send it again"),
    (errors.MessagesFailed, ExitCode.SOME_FAILED, "send those that failed again, but for those in doubt"),
    (errors.StartTlsInjection, ExitCode.UNREACHABLE, "use smtps:// (TLS from the first byte), or another network"),
    (errors.RemoteProtocolError, ExitCode.UNREACHABLE, _CHECK),
    (errors.LocalProtocolError, ExitCode.BUG, "please report it, with the output of the same command and -v"),
    (errors.CertificateRefused, ExitCode.UNREACHABLE, _UNTRUSTED),
    (errors.ConnectFailed, ExitCode.UNREACHABLE, _CHECK),
    (errors.ConnectionLost, ExitCode.UNREACHABLE, _HUNG_UP),
    (errors.MissingDependency, ExitCode.USAGE, f"install it, {_AGAIN}"),
    (errors.PoolTimeout, ExitCode.RUN_AGAIN, "nothing was delivered: run the same command again"),
    (errors.DeadlineExceeded, ExitCode.RUN_AGAIN, "nothing was delivered: run the same command again"),
    (errors.ReplyTimeout, ExitCode.UNREACHABLE, "nothing was delivered: run the same command again"),
    (errors.ExtensionNotSupported, ExitCode.UNREACHABLE, "see what the relay offers: {check}"),
    (errors.MessageError, ExitCode.USAGE, f"correct the message, {_AGAIN}"),
    (errors.TemplateError, ExitCode.USAGE, f"correct the template, {_AGAIN}"),
    (errors.RecipientError, ExitCode.USAGE, f"correct the recipients, {_AGAIN}"),
    (errors.ConfigError, ExitCode.USAGE, f"correct the configuration, {_AGAIN}"),
    (errors.InvalidArgument, ExitCode.USAGE, f"correct the value, {_AGAIN}"),
    (errors.CampaignHalted, ExitCode.UNREACHABLE, f"find out what is wrong with the sender or the relay, {_AGAIN}"),
    (errors.SuppressionError, ExitCode.USAGE, f"put the suppression list right, {_AGAIN}"),
    (errors.LedgerBusy, ExitCode.RUN_AGAIN, f"wait until the other process has ended, {_AGAIN}"),
    (errors.LedgerEmpty, ExitCode.USAGE, "{begin}"),
    (errors.LedgerMismatch, ExitCode.USAGE, _MISMATCH),
    (errors.LedgerError, ExitCode.LEDGER, "put that right, then run the same command again: nothing recorded is lost"),
)

_ABOUT_VALUES = (errors.RecipientError, errors.TemplateError, errors.MessageError, errors.InvalidArgument)
_LESS = "end other programs, or take smaller --sessions and --concurrency"
_EXHAUSTED = frozenset({"EMFILE", "ENFILE", "ENOMEM", "EAGAIN", "ENOBUFS"})
_DISK = frozenset({"ENOSPC", "EDQUOT", "EIO", "EROFS", "EFBIG"})


def explain(error: BaseException, line: CommandLine | None = None) -> Failure:
    """Return the sentence, the advice and the exit code for what a command raised; parameters by their options.

    Args:
        line: the command as it was typed, for the commands in the advice.
    """
    if isinstance(error, BaseExceptionGroup):
        error = _most_telling(error)
    failure = _explain(error)
    if isinstance(error, click.UsageError) and line is not None:
        failure = replace(failure, advice=line.help)
    if not isinstance(error, errors.SMTPError):
        return failure
    if isinstance(error, errors.Refused | errors.CampaignHalted):
        from asyncsmtp.cli.output.provider_advice import explain_error  # late: only a refusal needs it

        if (known := explain_error(error, line)) is not None:
            return replace(failure, advice=f"{known}, {_AGAIN}")
    failure = replace(failure, advice=_with_commands(failure.advice, line))
    from asyncsmtp.bulk.setup.config import KEYS  # late: only an error needs it

    options = {f"{key.field}=": key.options[0] for key in KEYS.values() if key.options} | {"add=": "--add"}
    sentence, advice = (
        _PARAMETER.sub(lambda found: options.get(found[0], found[0]), text)
        for text in (failure.sentence, failure.advice)
    )
    setting, values = getattr(error, "setting", ""), getattr(error, "values", ())  # of recipients that are unclear
    if line is not None and values and (command := line.with_setting(options[f"{setting}="], values[0])):
        return Failure(failure.exit, sentence, command)
    if isinstance(error, _ABOUT_VALUES) and line is not None and (option := line.find_option(sentence)):
        advice = f"correct {option}, {_AGAIN}"  # rather than a file, in which nothing is wrong
    return Failure(failure.exit, sentence, advice)


def _with_commands(advice: str, line: CommandLine | None) -> str:
    """Put commands in the place of `{check}` and `{begin}`; where there is none, say what to do without."""
    if advice.endswith("{check}"):
        check = line.check_relay() if line is not None else ""
        otherwise = f"correct the relay's host, port or security, or the network, {_AGAIN}"
        return advice.replace("{check}", check) if check else otherwise
    if advice == "{begin}":
        begin = line.begin() if line is not None else ""
        return f"begin the campaign: {begin}" if begin else "name the ledger of a campaign that has begun"
    return advice


def _explain(error: BaseException) -> Failure:
    if isinstance(error, CommandError):
        return error.failure
    if isinstance(error, errors.ConfigError) and error.advice:
        return Failure(ExitCode.USAGE, error.why, error.advice)
    if isinstance(error, errors.TokenFailed) and error.advice:
        return Failure(ExitCode.AUTHENTICATION, error.why, error.advice)
    if isinstance(error, errors.Refused) and not isinstance(error, errors.AuthenticationRefused):
        return _refused(error)
    if isinstance(error, errors.AuthenticationRefused) and not error.is_about_credentials:
        return Failure(ExitCode.AUTHENTICATION, str(error), _OTHER_LOGIN)
    for class_, exit_, advice in RULES:
        if isinstance(error, class_):
            return Failure(exit_, str(error), advice)
    if isinstance(error, errors.SMTPError):
        return Failure(ExitCode.SOME_FAILED, str(error), "run the same command with -v to see the dialogue")
    return _foreign(error)


def _refused(error: errors.Refused) -> Failure:
    """Explain a refusal: of a recipient (1, 75) or of the session itself (69, 75)."""
    if error.reply.code < 500:
        return Failure(ExitCode.RUN_AGAIN, str(error), "the relay asks to try later: run the same command again then")
    if error.command.verb in (Verb.MAIL, Verb.RCPT, Verb.DATA, Verb.CONTENT):
        return Failure(ExitCode.SOME_FAILED, str(error), "the relay's own words say why; -v shows the dialogue")
    return Failure(ExitCode.UNREACHABLE, str(error), _CHECK)


def _most_telling(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the member that says most: one of our errors, before the cancellations it caused."""
    error: BaseException = group.subgroup((errors.SMTPError, CommandError)) or group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _foreign(error: BaseException) -> Failure:
    """Explain an error of click, of the operating system, or a bug."""
    if isinstance(error, click.UsageError):
        return Failure(ExitCode.USAGE, _sentence(error.format_message()), "asyncsmtp --help")
    if isinstance(error, click.ClickException):
        return Failure(ExitCode.USAGE, _sentence(error.format_message()), "asyncsmtp --help")
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return Failure(ExitCode.INTERRUPTED, "interrupted")
    if isinstance(error, OSError):
        return _system(error)
    if isinstance(error, MemoryError):
        return Failure(ExitCode.RUN_AGAIN, "there is not enough memory", f"{_LESS}, {_AGAIN}")
    if os.environ.get("ASYNCSMTP_TRACEBACK"):
        raise error
    what = safe_text(f"{type(error).__name__}: {error}", 300)
    advice = "report it with what ASYNCSMTP_TRACEBACK=1 shows before the same command"
    return Failure(ExitCode.BUG, f"a bug of asyncsmtp: {what}", advice)


def _system(error: OSError) -> Failure:
    what = (error.strerror or str(error)).lower()
    where = safe_text(f"{error.filename}: ") if error.filename else ""
    if errno.errorcode.get(error.errno or 0) in _EXHAUSTED:
        return Failure(ExitCode.RUN_AGAIN, where + what, f"{_LESS}, or raise the limits (ulimit -a), {_AGAIN}")
    if errno.errorcode.get(error.errno or 0) in _DISK:
        return Failure(ExitCode.LEDGER, where + what, f"make space or repair the disk, {_AGAIN}")
    return Failure(ExitCode.USAGE, where + what, f"correct the path or its permissions, {_AGAIN}")


def _sentence(text: str) -> str:
    """Return click's message in our form: lower case at the start, no full stop at the end."""
    text = safe_text(" ".join(text.split())).rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
