"""Whose a domain is: the organisation in its name, and whether two names are one organisation's."""

from __future__ import annotations

__all__ = ["aligned", "organizational_domain"]

# Under a country's two letters, what stands for a kind of organisation and not for one: example.co.uk
_KINDS = frozenset({"ac", "co", "com", "edu", "go", "gob", "gov", "gv", "mil", "ne", "net", "or", "org", "sch"})


def organizational_domain(name: str) -> str:
    """The last two labels of a name, three where the last but one is a kind of organisation; in lower case.

    `aspmx.l.google.com` is `google.com`, `mx1.example.co.uk` is `example.co.uk`. It is what RFC 7489 §3.2 calls by this
    name, as far as that goes without the list of public suffixes.
    """
    labels = name.rstrip(".").lower().split(".")
    return ".".join(labels[-3 if len(labels[-1]) == 2 and labels[-2:-1] and labels[-2] in _KINDS else -2 :])


def aligned(domain: str, author: str) -> bool:
    """Whether `domain` speaks for the author's in DMARC's relaxed mode (RFC 7489 §3.1.1); both in lower case."""
    same = organizational_domain(domain) == organizational_domain(author)
    # Of an organisation whose own name is a kind, such as go.it, one is above the other.
    return same or author.endswith(f".{domain}") or domain.endswith(f".{author}")
