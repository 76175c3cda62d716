"""The SMTP protocol without I/O: commands, replies, state machines, and the values that go into them.

Names are loaded when they are first used. The functions that make commands are in `asyncsmtp.protocol.commands`.
"""

from __future__ import annotations

from asyncsmtp._lazy import lazy_exports

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "auth.auth": "CommandGenerator Mechanism log_in",
        "auth.credentials": "Bearer Channel Credentials External MechanismFailed Password SaslDialogue Secret",
        "auth.scram": "SaslprepError",
        "client": "ClientProtocol Exchange ProtocolState",
        "commands": "Command Verb",
        "content": "AnyContent ChunkSplitter Content ContentNormalizer ContentSource DotStuffer dot_stuff split_chunks",
        "delivery": "Delivery Outcome RecipientResult TlsInfo",
        "envelope": "ByMode DeliverBy Envelope EsmtpParameter MailOptions Mailbox Notify RcptOptions Ret ValidSince",
        "masking": "SecretMask",
        "opening_handshake": "OpeningOptions Security XClient open_session",
        "replies": "EnhancedStatus Extensions FutureRelease Limits Reply ReplyReader Severity safe_text",
        "transaction": "Parameters Phase Transaction mail_parameters rcpt_parameters",
    },
)
