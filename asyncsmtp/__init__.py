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
        "errors": "AllHostsFailed AuthenticationRefused CampaignHalted CertificateRefused ConfigError "
        "ConnectFailed ConnectionLost DeadlineExceeded DeliveryInDoubt DeliveryRefused "
        "ExtensionNotSupported InsecureConnection InvalidArgument LedgerBusy LedgerEmpty LedgerError "
        "LedgerMismatch LocalProtocolError MessageError MessagesFailed MissingDependency PoolTimeout "
        "ProtocolError RecipientError Refused RemoteProtocolError ReplyTimeout SMTPError "
        "ServerNotAuthenticated StartTlsInjection SuppressionError TemplateError TokenFailed "
        "UnexpectedReply",
        "protocol.content": "Content",
        "protocol.delivery": "Delivery Outcome RecipientResult TlsInfo",
        "protocol.envelope": "ByMode DeliverBy Envelope MailOptions Mailbox Notify RcptOptions Ret ValidSince",
        "protocol.opening_handshake": "Security XClient",
        "protocol.replies": "EnhancedStatus Extensions FutureRelease Limits Reply Severity safe_text",
        "protocol.auth.credentials": "Secret",
        "mail.list_unsubscribe": "Unsubscribe unsubscribe_token",
        "mail.attachment": "Attachment",
        "mail.message": "Message",
        "mail.signing.dkim": "DkimKey Signer",
        "mail.templates.template": "Composer Template",
        "client.compose": "build",
        "client.config.login_config": "ClientCertificate Login Token",
        "client.config.relay": "Dialogue Proxy ProxyKind Relay Timeouts",
        "client.events.types": "Direction Event MessageDequeued MessageEnded MessageQueued MessageRetried OnEvent "
        "PoolResized SessionClosed SessionFailed SessionOpened Trace",
        "client.pool.pool": "Pool PoolCounts",
        "client.api": "send",
        "client.retry": "Retry",
        "client.session.session": "Session",
        "client.session.content_sources": "FileContent StreamContent",
        "bulk.running.results": "CampaignResult ExitReason RowOutcome",
        "bulk.running.runner": "Run outcomes",
        "bulk.campaign": "Campaign CampaignRun",
        "bulk.setup.config": "CampaignConfig",
        "bulk.setup.config_types": "DkimConfig RelayConfig SmimeConfig UnsubscribeConfig",
        "bulk.open_campaign": "CheckResult OpenCampaign",
        "mail.checks.rules": "Finding",
        "bulk.ledger.interfaces": "Decision Entry InDoubt Ledger RowState",
        "bulk.rate_limit.rate_policy": "RatePolicy",
        "bulk.rate_limit.rate": "Rate",
        "bulk.recipients.preflight": "PreflightReport run_preflight",
        "bulk.recipients.file": "RecipientFile",
        "bulk.running.balancer": "RelayBalancer WeightedRelay",
        "bulk.recipients.recipient": "Problem Recipient",
        "bulk.ledger.sqlite.store": "SqliteLedger",
        "bulk.ledger.suppression_list": "Suppressed SuppressionList",
        "bulk.running.schedule": "Schedule Window",
    },
)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version  # late: it reads files, and few programs ask

        return version(__name__)
    return _load(name)
