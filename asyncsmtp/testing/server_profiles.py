"""Profiles of real servers: how each handles input that is pipelined after the end of data.

Each was found by testing the server itself. EHLO does not tell them apart, so a client must find out by observation,
and must not lose a message or send one twice meanwhile.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from asyncsmtp.testing.policy import OFFERS
from asyncsmtp.testing.relay import ScriptedRelay
from asyncsmtp.testing.script import (
    DEFAULT_REPLY,
    NO_REPLY,
    Action,
    CallRule,
    DiscardInput,
    Fin,
    RefuseInput,
    Rule,
    Script,
    Stage,
    StageContext,
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

QUEUE_DELAY: Final = Wait(0.002)  # the time to queue a message; input that arrives meanwhile counts as pipelined
WITHOUT_CHUNKING: Final = tuple(keyword for keyword in OFFERS if keyword != "CHUNKING")
WITHOUT_CHUNKING_AND_PIPELINING: Final = tuple(keyword for keyword in WITHOUT_CHUNKING if keyword != "PIPELINING")


@dataclass(frozen=True, slots=True)
class ServerProfile:
    """The behavior of a server, to make a scripted relay from.

    Attributes:
        rules: actions by stage, in which `DEFAULT_REPLY` stands for any reply.
        offers, runs_refused_chunk: arguments for a `ScriptedRelay`.
    """

    name: str
    rules: Mapping[Stage, Rule] = field(default_factory=dict)
    offers: tuple[str, ...] = OFFERS
    runs_refused_chunk: bool = False

    def relay(
        self, script: Mapping[Stage, Rule] | None = None, *, tls: ssl.SSLContext | None = None, round_trip: float = 0.0
    ) -> ScriptedRelay:
        """Make a relay that behaves like this server, with the replies of a script."""
        script = script or {}
        all_rules = {**script, **{stage: _merge(rule, script.get(stage)) for stage, rule in self.rules.items()}}
        return ScriptedRelay(
            all_rules, offers=self.offers, tls=tls, runs_refused_chunk=self.runs_refused_chunk, round_trip=round_trip
        )


def _merge(profile_rule: Rule, rule: Rule | None) -> Rule:
    """Return the rule of the profile, with the steps of the script in place of the default reply."""
    if rule is None:
        return profile_rule

    def steps(context: StageContext) -> Sequence[Step]:
        answer = Script({context.stage: rule}).steps(context)
        return [
            step
            for step_of_profile in Script({context.stage: profile_rule}).steps(context)
            for step in (answer if step_of_profile == DEFAULT_REPLY else [step_of_profile])
        ]

    return steps


def _crash_on_mail(context: StageContext) -> Action:
    return (NO_REPLY, Fin()) if context.pipelined_input[:4].upper() == b"MAIL" else ()


def _refuse_pipelining(context: StageContext) -> Action | None:
    return (DiscardInput(), "500 5.5.1 Invalid command: Pipelining not supported") if context.pipelined_input else None


_COMMAND_STAGES: Final = (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.RSET, Stage.NOOP, Stage.OTHER)

POSTFIX: Final = ServerProfile("Postfix")  # and Exim: keep pipelined input
COURIER: Final = ServerProfile(
    "Courier", {Stage.END_OF_DATA: (QUEUE_DELAY, DiscardInput(), DEFAULT_REPLY)}, WITHOUT_CHUNKING
)
CHASQUID: Final = ServerProfile("chasquid", COURIER.rules, WITHOUT_CHUNKING)
HARAKA: Final = ServerProfile(
    "Haraka", {Stage.END_OF_DATA: (QUEUE_DELAY, DEFAULT_REPLY, RefuseInput())}, WITHOUT_CHUNKING
)
DOVECOT_SUBMISSION: Final = ServerProfile(
    "Dovecot submission",
    dict.fromkeys((Stage.END_OF_DATA, Stage.BDAT), (QUEUE_DELAY, CallRule(_crash_on_mail), DEFAULT_REPLY)),
)
GO_SMTP: Final = ServerProfile("go-smtp", runs_refused_chunk=True)
OPENSMTPD: Final = ServerProfile(
    "OpenSMTPD", dict.fromkeys(_COMMAND_STAGES, _refuse_pipelining), WITHOUT_CHUNKING_AND_PIPELINING
)
CLEARS_INPUT_AFTER_REFUSAL: Final = ServerProfile(
    "one that clears its input after each 5xx",
    dict.fromkeys(_COMMAND_STAGES, (DEFAULT_REPLY, DiscardInput(only_if_refused=True))),
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
