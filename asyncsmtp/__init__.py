"""asyncsmtp: an asyncio SMTP client and bulk mailer.

    delivery = await asyncsmtp.send(message, relay="smtps://user@mail.example.org")

The names below are the public ones, grouped by floor. They are loaded when they are first used, so that
importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module

_HOME = {
    name: module
    for module, names in {
        "errors": "AuthenticationRefused BadArgument CampaignHalted CertificateRefused ConnectFailed ConnectionLost "
        "DeadlineExceeded DeliveryInDoubt DeliveryRefused EveryHostFailed InsecureConnection LedgerBusy LedgerEmpty "
        "LedgerError LedgerMismatch LocalProtocolError MessageError NotInstalled NotOffered OutOfStep "
        "PoolFull ProtocolError RecipientError Refused RelayUnproved RemoteProtocolError ReplyTimeout "
        "SMTPError StartTlsInjection SuppressionError TemplateError TokenFailed",
        "protocol.content": "Content",
        "protocol.delivery": "Delivery Outcome TlsFacts",
        "protocol.envelope": "Envelope Mailbox",
        "protocol.extensions": "Extensions FutureRelease Limits",
        "protocol.opening": "Security",
        "protocol.replies": "EnhancedStatus Reply Severity safe_text",
        "protocol.sasl": "Secret",
        "protocol.wishes": "ByMode DeliverBy Notify RecipientWishes Ret ValidSince Wishes",
        "protocol.xclient": "XClient",
        "mail.unsubscribe": "Unsubscribe unsubscribe_token",
        "mail.attachment": "Attachment",
        "mail.build": "build",
        "mail.signing.dkim": "Signer",
        "mail.signing.dkimkey": "DkimKey",
        "mail.message": "Message",
        "mail.templates.template": "Composer Template",
        "client.settings.certificates": "ClientCertificate",
        "client.settings.dialogue": "Dialogue",
        "client.pool.counts": "PoolCounts",
        "client.observing.events": "Event MessageEnded MessageRetried MessageWaited MessageWaits OnEvent PoolResized "
        "SessionClosed SessionFailed SessionOpened",
        "client.settings.login": "Login Token",
        "client.pool.pool": "Pool",
        "client.settings.proxy": "Proxy ProxyKind",
        "client.settings.relay": "Relay",
        "client.sending": "send",
        "client.session.session": "Session",
        "client.session.sources": "FileContent StreamContent",
        "client.settings.timeouts": "Timeouts",
        "client.observing.trace": "Side Trace",
        "bulk.running.runner": "Run outcomes",
        "bulk.ledger": "Entry InDoubt Ledger",
        "bulk.rate_limit.rate_policy": "RatePolicy",
        "bulk.rate_limit.rate": "Rate",
        "bulk.recipients.preflight": "PreflightReport run_preflight",
        "bulk.recipients.file": "RecipientFile",
        "bulk.running.balancer": "RelayBalancer WeightedRelay",
        "bulk.running.retry": "Retry",
        "bulk.recipients.recipient": "Problem Recipient",
        "bulk.sqlite.ledger": "SqliteLedger",
        "bulk.states": "State",
        "bulk.suppression": "Suppressed SuppressionList",
        "bulk.running.schedule": "Schedule Window",
    }.items()
    for name in names.split()
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
