"""asyncsmtp: an asyncio SMTP client and bulk mailer.

    delivery = await asyncsmtp.send(message, relay="smtps://user@mail.example.org")

The names below are the public ones that most programs need, by module. They are loaded when they are first used, so
that importing the package takes almost no time. The packages `asyncsmtp.protocol` and `asyncsmtp.testing` have more.
"""

from __future__ import annotations

from asyncsmtp._lazy import lazy_exports

__all__, _load, __dir__ = lazy_exports(
    __name__,
    {
        "errors": "AllHostsFailed AuthenticationRefused CampaignHalted CertificateRefused ConnectFailed "
        "ConnectionLost DeadlineExceeded DeliveryInDoubt DeliveryRefused ExtensionNotSupported "
        "InsecureConnection InvalidArgument LedgerBusy LedgerEmpty LedgerError LedgerMismatch "
        "LocalProtocolError MessageError MessagesFailed MissingDependency PoolTimeout ProtocolError "
        "RecipientError Refused RemoteProtocolError ReplyTimeout SMTPError ServerNotAuthenticated "
        "StartTlsInjection SuppressionError TemplateError TokenFailed UnexpectedReply",
        "protocol.content": "Content",
        "protocol.delivery": "Delivery Outcome RecipientResult TlsInfo",
        "protocol.envelope": "Envelope Mailbox",
        "protocol.extensions": "Extensions FutureRelease Limits",
        "protocol.opening_handshake": "Security XClient",
        "protocol.replies": "EnhancedStatus Reply Severity safe_text",
        "protocol.auth.credentials": "Secret",
        "protocol.esmtp_options": "ByMode DeliverBy MailOptions Notify RcptOptions Ret ValidSince",
        "mail.list_unsubscribe": "Unsubscribe unsubscribe_token",
        "mail.attachment": "Attachment",
        "mail.message": "Message",
        "mail.signing.dkim": "DkimKey Signer",
        "mail.templates.template": "Composer Template",
        "client.compose": "build",
        "client.config.login_config": "ClientCertificate Login Token",
        "client.config.relay": "Dialogue Relay Timeouts",
        "client.events.types": "Event MessageDequeued MessageEnded MessageQueued MessageRetried OnEvent PoolResized "
        "SessionClosed SessionFailed SessionOpened",
        "client.pool.pool": "Pool PoolCounts",
        "client.config.proxy": "Proxy ProxyKind",
        "client.api": "send",
        "client.retry": "Retry",
        "client.session.session": "Session",
        "client.session.content_sources": "FileContent StreamContent",
        "client.events.trace": "Direction Trace",
        "bulk.running.runner": "Run outcomes",
        "bulk.ledger": "Entry InDoubt Ledger",
        "bulk.rate_limit.rate_policy": "RatePolicy",
        "bulk.rate_limit.rate": "Rate",
        "bulk.recipients.preflight": "PreflightReport run_preflight",
        "bulk.recipients.file": "RecipientFile",
        "bulk.running.balancer": "RelayBalancer WeightedRelay",
        "bulk.recipients.recipient": "Problem Recipient",
        "bulk.sqlite.ledger": "SqliteLedger",
        "bulk.states": "State",
        "bulk.suppression": "Suppressed SuppressionList",
        "bulk.running.schedule": "Schedule Window",
    },
)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version  # late: it reads files, and few programs ask

        return version(__name__)
    return _load(name)
