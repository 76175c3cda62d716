"""The SMTP protocol without I/O: commands, replies, state machines, and the values that go into them.

Names are loaded when they are first used. The functions that make commands are in `asyncsmtp.protocol.commands`.
"""

from __future__ import annotations

from asyncsmtp._lazy import lazy_names, map_names, public_names

_HOMES = map_names(
    {
        "auth.auth": "CommandGenerator log_in",
        "auth.credentials": "Bearer Channel Credentials External Password Secret",
        "auth.mechanisms": "MechanismFailed SaslDialogue",
        "auth.sasl": "Mechanism",
        "auth.scram": "SaslprepError",
        "client": "ClientProtocol Exchange ProtocolState",
        "commands": "Command Verb",
        "content": "AnyContent ChunkSplitter Content ContentNormalizer ContentSource DotStuffer dot_stuff split_chunks",
        "delivery": "Delivery Outcome RecipientResult TlsInfo",
        "envelope": "Envelope",
        "esmtp_options": "ByMode DeliverBy EsmtpParameter MailOptions Notify RcptOptions Ret ValidSince",
        "extensions": "Extensions FutureRelease Limits",
        "mailbox": "Mailbox",
        "opening_handshake": "OpeningOptions Security XClient open_session",
        "replies": "EnhancedStatus Reply ReplyReader Severity safe_text",
        "transaction": "Parameters Phase Transaction mail_parameters rcpt_parameters",
    }
)
__all__ = public_names(_HOMES)
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
