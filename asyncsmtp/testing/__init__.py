"""Tools for testing mail code: a scripted relay, a player of transcripts, and a sandbox that stores mail.

Names are loaded when they are first used.
"""

from __future__ import annotations

from asyncsmtp._lazy import lazy_exports

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "policy": "OFFERS MechanismFactory ServerScram",
        "received": "AuthAttempt Maildir MailTransaction MessageNotAccepted Received StoredMail render",
        "relay": "Sandbox ScriptedRelay",
        "script": "DEFAULT_REPLY NO_REPLY Action CallRule DefaultReply DiscardInput Fin HalfClose Hang RefuseInput Rst "
        "Rule SendSlowly Stage StageContext Step StopReading Wait",
        "transcript": "ClientStep ConnectionEnd ServerStep Transcript TranscriptRelay TranscriptStep",
    },
)
