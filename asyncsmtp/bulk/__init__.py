"""Campaigns: recipients, ledgers that have the outcome of each row, rate limits, schedules and bounces."""

from __future__ import annotations

from asyncsmtp._lazy import lazy_exports

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "bounces.dsn": "Bounce parse_dsn read_mail_files",
        "bounces.imap": "ImapFolder ImapUrl LoginRefused",
        "campaign": "Campaign CampaignRun",
        "rate_limit.dns_resolver": "DnsResolver MxProviders",
        "interfaces": "ComposerProtocol ConvertingComposer LimitTotals MessageSender RateLimitedSender RelayTotals RunTotals Sleep ThreadRunner",  # noqa: E501
        "ledger.erasure": "ErasedRows",
        "ledger.interfaces": "BouncedRow Claim Counts Decision Entry InDoubt Ledger LedgerReader Recovery Refusal RowState Settlement Statistics find_file_row",  # noqa: E501
        "ledger.postgres": "Database",
        "ledger.postgres.store": "Enqueue PostgresLedger PostgresReader",
        "ledger.sqlite.store": "SqliteLedger SqliteReader",
        "ledger.sqlite.writer": "DaemonThread SerialExecutor",
        "ledger.suppression_list": "Suppressed SuppressionList",
        "open_campaign": "CheckResult OpenCampaign",
        "rate_limit.rate": "LimiterGroup Rate",
        "rate_limit.rate_policy": "RatePolicy",
        "rate_limit.shared_store": "Reservation SharedLimiter SharedRateStore",
        "rate_limit.warmup": "Warmup WarmupDay",
        "recipients.column_header": "ColumnHeader",
        "recipients.file": "RecipientFile",
        "recipients.preflight": "PreflightReport Repair run_preflight",
        "recipients.recipient": "CopyRecipient GroupedRow NamedMailbox Problem Recipient RowFields RowFilter RowRules",
        "running.balancer": "RelayBalancer WeightedRelay",
        "running.results": "CampaignResult ExitReason RowOutcome",
        "running.row_sender": "ReconnectPolicy",
        "running.runner": "AsyncOutcomeCallback OutcomeCallback Run outcomes",
        "running.schedule": "Schedule Window",
        "setup.config": "CampaignConfig Rows",
        "setup.config_types": "DkimConfig RelayConfig SmimeConfig UnsubscribeConfig WarmupConfig",
        "setup.prepare": "PreparedCampaign",
        "suppression.forgetting": "Forgotten erase_expired forget",
        "suppression.unsubscribe_app": "AddressSource UnsubscribeApp",
        "running.webhook": "HttpPost Webhook open_webhook",
        "procrastinate_jobs": "ProcrastinateJobs",
    },
)
