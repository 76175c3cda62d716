"""For tests of mail code: a relay with a script of faults, transcripts that play, and a sandbox that keeps the mail."""

from asyncsmtp.testing.maildir import Mail, Maildir
from asyncsmtp.testing.playing import TranscriptRelay
from asyncsmtp.testing.policy import OFFERS
from asyncsmtp.testing.received import AuthAttempt, NotTaken, Received
from asyncsmtp.testing.relay import ScriptedRelay
from asyncsmtp.testing.render import render
from asyncsmtp.testing.sandbox import Sandbox
from asyncsmtp.testing.scram import Scram
from asyncsmtp.testing.script import (
    UNSAID,
    USUAL,
    Ask,
    Cue,
    Deaf,
    Drip,
    Fin,
    Forget,
    HalfClose,
    Hang,
    Move,
    RefuseInput,
    Rst,
    Rule,
    Stage,
    Step,
    Wait,
)
from asyncsmtp.testing.transcript import Transcript

__all__ = [
    "OFFERS",
    "UNSAID",
    "USUAL",
    "Ask",
    "AuthAttempt",
    "Cue",
    "Deaf",
    "Drip",
    "Fin",
    "Forget",
    "HalfClose",
    "Hang",
    "Mail",
    "Maildir",
    "Move",
    "NotTaken",
    "Received",
    "RefuseInput",
    "Rst",
    "Rule",
    "Sandbox",
    "Scram",
    "ScriptedRelay",
    "Stage",
    "Step",
    "Transcript",
    "TranscriptRelay",
    "Wait",
    "render",
]
