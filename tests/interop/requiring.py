"""A missing server: a skip, or a failure where the servers are required."""

from __future__ import annotations

import os

import pytest

__all__ = ["required"]


def required(reason: str | None) -> None:
    """Skip what needs a server that cannot run here, saying why; or fail, where the servers are required."""
    if reason and os.environ.get("ASYNCSMTP_REQUIRE_INTEROP"):
        pytest.fail(f"ASYNCSMTP_REQUIRE_INTEROP is set, but {reason}", pytrace=False)
    if reason:
        pytest.skip(reason)
