"""Real servers, as far as they differ on pipelined input: what each does with what stands behind the dot.

Each was found by trying the server itself. EHLO does not tell them apart, so a client must find out, and
whatever it finds, no message may be lost or sent twice.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from asyncsmtp.testing.policy import OFFERS
from asyncsmtp.testing.relay import ScriptedRelay
from asyncsmtp.testing.script import (
    UNSAID,
    USUAL,
    Ask,
    Cue,
    Fin,
    Forget,
    Move,
    RefuseInput,
    Rule,
    Script,
    Stage,
    Step,
    Wait,
)

__all__ = [
    "CHASQUID",
    "CLEARS_INPUT_AFTER_REFUSAL",
    "COURIER",
    "DOVECOT_SUBMISSION",
    "GO_SMTP",
    "HARAKA",
    "OPENSMTPD",
    "POSTFIX",
    "REAL_SERVERS",
    "ServerProfile",
]

QUEUEING: Final = Wait(0.002)  # the time a server takes to put a message into its queue; what comes meanwhile is behind
WITHOUT_CHUNKING: Final = tuple(keyword for keyword in OFFERS if keyword != "CHUNKING")
WITHOUT_EITHER: Final = tuple(keyword for keyword in WITHOUT_CHUNKING if keyword != "PIPELINING")


@dataclass(frozen=True, slots=True)
class ServerProfile:
    """A server's habits, to make a scripted relay from.

    Attributes:
        habits: moves by stage, in which `USUAL` stands for whatever it answers.
        offers, runs_refused_chunk: arguments for a `ScriptedRelay`.
    """

    name: str
    habits: Mapping[Stage, Rule] = field(default_factory=dict)
    offers: tuple[str, ...] = OFFERS
    runs_refused_chunk: bool = False

    def relay(
        self,
        script: Mapping[Stage, Rule] | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        round_trip: float = 0.0,
    ) -> ScriptedRelay:
        """A relay that has these habits, whatever else the script makes it answer."""
        script = script or {}
        rules = {**script, **{stage: _within(rule, script.get(stage)) for stage, rule in self.habits.items()}}
        return ScriptedRelay(
            rules,
            offers=self.offers,
            tls=tls,
            runs_refused_chunk=self.runs_refused_chunk,
            round_trip=round_trip,
        )


def _within(habit: Rule, rule: Rule | None) -> Rule:
    """The habit, with the rule's steps where it says the usual."""
    if rule is None:
        return habit

    def steps(cue: Cue) -> Sequence[Step]:
        answer = Script({cue.stage: rule}).steps(cue)
        return [
            step
            for around in Script({cue.stage: habit}).steps(cue)
            for step in (answer if around == USUAL else [around])
        ]

    return steps


def _crash_on_mail(cue: Cue) -> Move:
    return (UNSAID, Fin()) if cue.behind[:4].upper() == b"MAIL" else ()


def _refuse_pipelining(cue: Cue) -> Move | None:
    return (Forget(), "500 5.5.1 Invalid command: Pipelining not supported") if cue.behind else None


_COMMANDS: Final = (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.RSET, Stage.NOOP, Stage.OTHER)

POSTFIX: Final = ServerProfile("Postfix")  # and Exim: read on behind the dot
COURIER: Final = ServerProfile("Courier", {Stage.DOT: (QUEUEING, Forget(), USUAL)}, WITHOUT_CHUNKING)
CHASQUID: Final = ServerProfile("chasquid", COURIER.habits, WITHOUT_CHUNKING)
HARAKA: Final = ServerProfile("Haraka", {Stage.DOT: (QUEUEING, USUAL, RefuseInput())}, WITHOUT_CHUNKING)
DOVECOT_SUBMISSION: Final = ServerProfile(
    "Dovecot submission", dict.fromkeys((Stage.DOT, Stage.BDAT), (QUEUEING, Ask(_crash_on_mail), USUAL))
)
GO_SMTP: Final = ServerProfile("go-smtp", runs_refused_chunk=True)
OPENSMTPD: Final = ServerProfile("OpenSMTPD", dict.fromkeys(_COMMANDS, _refuse_pipelining), WITHOUT_EITHER)
CLEARS_INPUT_AFTER_REFUSAL: Final = ServerProfile(
    "one that clears its input after each 5yz", dict.fromkeys(_COMMANDS, (USUAL, Forget(refused=True)))
)

REAL_SERVERS: Final = (
    POSTFIX,
    COURIER,
    CHASQUID,
    HARAKA,
    DOVECOT_SUBMISSION,
    GO_SMTP,
    OPENSMTPD,
    CLEARS_INPUT_AFTER_REFUSAL,
)
