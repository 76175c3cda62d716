"""For tests of mail code: a relay with a script of faults, transcripts that play, and a sandbox that keeps the mail."""

from asyncsmtp.testing.playing import TranscriptRelay
from asyncsmtp.testing.policy import OFFERS
from asyncsmtp.testing.received import AuthAttempt, Received
from asyncsmtp.testing.relay import ScriptedRelay
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
    "Move",
    "Received",
    "RefuseInput",
    "Rst",
    "Rule",
    "ScriptedRelay",
    "Stage",
    "Step",
    "Transcript",
    "TranscriptRelay",
    "Wait",
]
