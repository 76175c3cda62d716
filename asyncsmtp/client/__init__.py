"""The client: `send`, sessions, pools, relay settings, events, and messages from parts."""

from __future__ import annotations

from asyncsmtp._lazy import lazy_exports

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "api": "send",
        "compose": "build new_message_id prepare_message with_date_and_id",
        "config.login_config": "ClientCertificate CredentialsProvider Login Token TokenSource",
        "config.provider_presets": "PROVIDERS OAuthServer Provider find_provider find_provider_by_host",
        "config.provider_refusals": "ProviderRefusal",
        "config.relay": "Dialogue OpenedStreams Opener Proxy ProxyKind Relay Timeouts",
        "connection.smtp_connection": "Hosts",
        "connection.transport": "OpenConnection",
        "events.otel": "Telemetry",
        "events.types": "Direction Event EventEmitter MessageDequeued MessageEnded MessageQueued MessageRetried "
        "OnEvent PoolResized SessionClosed SessionFailed SessionOpened Trace",
        "pool.pool": "Pool PoolCounts",
        "pool.session_slots": "SuspendDetector",
        "retry": "Retry",
        "session.content_sources": "FileContent StreamContent",
        "session.pending_message": "BeforeEnd",
        "session.send_pipeline": "ServerQuirks",
        "session.session": "Session",
    },
)
