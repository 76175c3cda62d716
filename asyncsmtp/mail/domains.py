"""Organizational domains, and their comparison as DMARC does it (RFC 7489)."""

from __future__ import annotations

__all__ = ["aligned", "organizational_domain"]

# Under a country's two letters, what stands for a kind of organisation and not for one: example.co.uk
_KINDS = frozenset({"ac", "co", "com", "edu", "go", "gob", "gov", "gv", "mil", "ne", "net", "or", "org", "sch"})


def organizational_domain(name: str) -> str:
    """Return the organizational domain of a name (RFC 7489 §3.2), in lower case.

    These are the last two labels, or three if the last but one stands for a kind of organisation:
    `aspmx.l.google.com` is `google.com`, `mx1.example.co.uk` is `example.co.uk`. The list of public suffixes is
    not used.
    """
    labels = name.rstrip(".").lower().split(".")
    return ".".join(labels[-3 if len(labels[-1]) == 2 and labels[-2:-1] and labels[-2] in _KINDS else -2 :])


def aligned(domain: str, author: str) -> bool:
    """Return whether two domains are aligned in DMARC's relaxed mode (RFC 7489 §3.1.1); both in lower case."""
    same = organizational_domain(domain) == organizational_domain(author)
    # Of an organisation whose own name is a kind, such as go.it, one is above the other.
    return same or author.endswith(f".{domain}") or domain.endswith(f".{author}")
