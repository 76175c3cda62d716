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
        "errors": "AllHostsFailed AuthenticationRefused CampaignHalted CertificateRefused ConnectFailed "
        "ConnectionLost DeadlineExceeded DeliveryInDoubt DeliveryRefused ExtensionNotSupported "
        "InsecureConnection InvalidArgument LedgerBusy LedgerEmpty LedgerError LedgerMismatch "
        "LocalProtocolError MessageError MissingDependency PoolTimeout ProtocolError RecipientError "
        "Refused RemoteProtocolError ReplyTimeout SMTPError ServerNotAuthenticated "
        "StartTlsInjection SuppressionError TemplateError TokenFailed UnexpectedReply",
        "protocol.content": "Content",
        "protocol.delivery": "Delivery Outcome TlsInfo",
        "protocol.envelope": "Envelope Mailbox",
        "protocol.extensions": "Extensions FutureRelease Limits",
        "protocol.opening_handshake": "Security XClient",
        "protocol.replies": "EnhancedStatus Reply Severity safe_text",
        "protocol.auth.sasl": "Secret",
        "protocol.esmtp_options": "ByMode DeliverBy MailOptions Notify RcptOptions Ret ValidSince",
        "mail.list_unsubscribe": "Unsubscribe unsubscribe_token",
        "mail.attachment": "Attachment",
        "mail.message": "Message build",
        "mail.signing.dkim": "DkimKey Signer",
        "mail.templates.template": "Composer Template",
        "client.config.login_config": "ClientCertificate Login Token",
        "client.config.relay": "Dialogue Relay Timeouts",
        "client.pool.counts": "PoolCounts",
        "client.events.types": "Event MessageDequeued MessageEnded MessageQueued MessageRetried OnEvent PoolResized "
        "SessionClosed SessionFailed SessionOpened",
        "client.pool.pool": "Pool",
        "client.config.proxy": "Proxy ProxyKind",
        "client.sending": "send",
        "client.session.session": "Session",
        "client.session.sources": "FileContent StreamContent",
        "client.events.trace": "Direction Trace",
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
