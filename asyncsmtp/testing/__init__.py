"""Tools for testing mail code: a scripted relay, a player of transcripts, and a sandbox that stores mail."""

from asyncsmtp.testing.policy import OFFERS, ServerScram
from asyncsmtp.testing.received import AuthAttempt, Maildir, MessageNotAccepted, Received, StoredMail, render
from asyncsmtp.testing.relay import ScriptedRelay
from asyncsmtp.testing.sandbox import Sandbox
from asyncsmtp.testing.script import (
    DEFAULT_REPLY,
    NO_REPLY,
    Action,
    CallRule,
    DiscardInput,
    Fin,
    HalfClose,
    Hang,
    RefuseInput,
    Rst,
    Rule,
    SendSlowly,
    Stage,
    StageContext,
    Step,
    StopReading,
    Wait,
)
from asyncsmtp.testing.transcript import Transcript, TranscriptRelay

__all__ = [
    "DEFAULT_REPLY",
    "NO_REPLY",
    "OFFERS",
    "Action",
    "AuthAttempt",
    "CallRule",
    "DiscardInput",
    "Fin",
    "HalfClose",
    "Hang",
    "Maildir",
    "MessageNotAccepted",
    "Received",
    "RefuseInput",
    "Rst",
    "Rule",
    "Sandbox",
    "ScriptedRelay",
    "SendSlowly",
    "ServerScram",
    "Stage",
    "StageContext",
    "Step",
    "StopReading",
    "StoredMail",
    "Transcript",
    "TranscriptRelay",
    "Wait",
    "render",
]
