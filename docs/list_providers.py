"""List the mail providers in docs/providers.md from the package's data: `python docs/list_providers.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from asyncsmtp.client.config.provider_presets import PROVIDERS, Provider
from asyncsmtp.client.config.provider_refusals import DAY, ProviderRefusal

PAGE = Path(__file__).with_name("providers.md")
HEAD = """\
# Providers

Listed from `asyncsmtp/client/config/provider_presets.py` by `docs/list_providers.py`; a test compares. A program takes
a provider with `Relay.for_provider("gmail", "ann@gmail.com", password=…)`.

The command takes `--provider gmail` (`send`, `bulk`, `check`), and a campaign file

```toml
[relay]
provider = "gmail"
user = "ann@gmail.com"    # if it is not the address of the sender
```

A `url` beside `provider` wins for host and port. A provider that is not in the table may be a domain with SRV records
for submission (RFC 6186): `provider = "example.org"`, with the extra `asyncsmtp[dns]`. A record that names a server of
another domain is an error, unless that is a known provider's: DNS can be forged, and the password would go there.

Limits are those that the provider's pages gave when they were read. They change without notice, and many depend on the
plan or on the age of the account. A campaign keeps its own limits: `--rate`, or `rate` in `[limits]`.
"""
REFUSALS = """\
## What refusals mean

Code and text of the reply begin with the pattern, a regular expression; the first that fits is taken.
"""


def page() -> str:
    """Return the whole of docs/providers.md."""
    return "\n".join([HEAD, *_table(), "", REFUSALS, *_refusals(), "## Sources", "", *_sources()]).rstrip() + "\n"


def _table() -> Iterator[str]:
    yield "| name | provider | host, port | security | user name; password | limits | `--rate` |"
    yield "|---|---|---|---|---|---|---|"
    for each in PROVIDERS.values():
        rate = f"`{each.rate}`" if each.rate else ""
        yield (
            f"| `{each.name}` | {each.title} | {each.host}, {each.port} | {each.security} | {each.login} "
            f"| {each.limits} | {rate} |"
        )


def _refusals() -> Iterator[str]:
    known: dict[tuple[ProviderRefusal, ...], list[Provider]] = {}
    for each in PROVIDERS.values():
        if each.refusals:
            known.setdefault(each.refusals, []).append(each)
    for refusals, providers in known.items():
        yield f"### {', '.join(each.title for each in providers)}"
        yield ""
        yield "| reply | means | what to do | accepted again |"
        yield "|---|---|---|---|"
        for refusal in refusals:
            pattern = refusal.pattern.replace("|", "\\|")
            yield f"| `{pattern}` | {refusal.meaning} | {refusal.advice} | {_after(refusal.lifted_after)} |"
        yield ""


def _after(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return "within a day" if seconds == DAY else "within an hour"


def _sources() -> Iterator[str]:
    for each in PROVIDERS.values():
        yield f"- {each.title}: {', '.join(f'<{source}>' for source in each.sources)}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
