"""Organizational domains, by the Public Suffix List: the owner of a name, and names of one owner."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

__all__ = ["is_aligned", "organizational_domain"]


def organizational_domain(name: str, *, private_suffixes: bool = True) -> str:
    """Return the public suffix of a name and the label before it, in lower case; a suffix is returned as it is.

    `aspmx.l.google.com` is `google.com`, `mx1.acme.ltd.uk` is `acme.ltd.uk`. RFC 7489 §3.2.

    Args:
        name: a domain, of U-labels or A-labels.
        private_suffixes: whether companies' suffixes count beside those of registries: `ann.github.io` belongs to a
            customer of the owner of `github.io`.
    """
    name = name.rstrip(".").lower()
    labels = name.split(".")
    found = _suffixes(private_suffixes).privatesuffix(_to_ascii(name))
    return ".".join(labels[-found.count(".") - 1 :]) if found else name


def is_aligned(domain: str, author: str) -> bool:
    """Return whether `domain` is aligned with the author's in DMARC's relaxed mode (RFC 7489 §3.1.1)."""
    return organizational_domain(domain) == organizational_domain(author)


def _to_ascii(name: str) -> str:
    if name.isascii():
        return name
    import idna  # late: few names are not ASCII, and its tables take 10 ms

    try:
        return idna.encode(name, uts46=True).decode("ascii")
    except idna.IDNAError:
        return name


@cache
def _suffixes(private: bool) -> PublicSuffixList:
    # Imported late, and loaded once: the list takes 40 ms, and most commands never need it.
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList(only_icann=not private)
