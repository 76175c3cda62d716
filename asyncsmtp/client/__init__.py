"""The client: relay settings, sessions, pools, events, and messages from parts."""

from __future__ import annotations

from asyncsmtp._lazy import lazy_exports

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "compose": "build new_message_id prepare_message with_date_and_id",
        "config.login_config": "ClientCertificate Login Token TokenSource",
        "config.proxy": "Proxy ProxyKind",
        "config.relay": "Dialogue OpenedStreams Opener Relay Timeouts",
        "events.otel": "Telemetry",
        "events.types": "Direction Event MessageDequeued MessageEnded MessageQueued MessageRetried OnEvent "
        "PoolResized SessionClosed SessionFailed SessionOpened Trace",
    },
)
