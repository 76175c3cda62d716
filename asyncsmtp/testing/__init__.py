"""For tests of mail code: a relay with a script of faults, transcripts that play, and a sandbox that keeps the mail."""

from asyncsmtp.testing.policy import OFFERS, ServerScram
from asyncsmtp.testing.received import AuthAttempt, Maildir, MessageNotAccepted, Received, StoredMail, render
from asyncsmtp.testing.relay import ScriptedRelay
from asyncsmtp.testing.sandbox import Sandbox
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
from asyncsmtp.testing.transcript import Transcript, TranscriptRelay

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
    "Maildir",
    "MessageNotAccepted",
    "Move",
    "Received",
    "RefuseInput",
    "Rst",
    "Rule",
    "Sandbox",
    "ScriptedRelay",
    "ServerScram",
    "Stage",
    "Step",
    "StoredMail",
    "Transcript",
    "TranscriptRelay",
    "Wait",
    "render",
]
