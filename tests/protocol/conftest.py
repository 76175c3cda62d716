"""Hypothesis without a deadline: the machine may be busy, the octets are the same."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("asyncsmtp", deadline=None, max_examples=500)
settings.load_profile("asyncsmtp")
