"""List the mail providers in docs/reference/providers.md from the package's data: `python docs/list_providers.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from asyncsmtp.client.config.provider_presets import PROVIDERS, Provider
from asyncsmtp.client.config.provider_refusals import DAY, ProviderRefusal

PAGE = Path(__file__).parent / "reference" / "providers.md"
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
LOGIN = """\
## Logging in by OAuth

Google and Microsoft are ending passwords for programs. `asyncsmtp login` asks once, on a page of the provider, whether
the command may send mail for you; the keyring of your system keeps the login. From then on `send`, `bulk` and `check`
need no password: they fetch access tokens, also during a long run. It needs `pip install 'asyncsmtp[oauth]'`, and a
client id of your own, which is free:

- **Google**: at <https://console.cloud.google.com> make a project, enable the Gmail API, fill in the consent screen (an
  external app in testing needs your address among the test users, and its logins end after seven days; publish it, or
  make it internal in a Workspace), and make a client of the type *Desktop app*. It has a secret as well.
- **Microsoft**: at <https://entra.microsoft.com> register an application, add the platform *Mobile and desktop
  applications* with the redirect `http://localhost`, allow public client flows, and add the delegated permission
  `SMTP.Send` of Office 365 Exchange Online. SMTP AUTH must be on for the mailbox.

```text
asyncsmtp login --provider gmail --user ann@gmail.com --client-id 1234-abc.apps.googleusercontent.com
asyncsmtp login --provider outlook --user ann@outlook.com --client-id 01234567-89ab-cdef-0123-456789abcdef --device
```

A browser opens, or shows the page if you copy its URL, and comes back to a port of 127.0.0.1, which no other machine
can reach (RFC 8252, with PKCE, RFC 7636). On a server without a browser use `--device` with Microsoft (RFC 8628): a
code is typed on any other device. Google allows no code for mail: take `--port 8765` and
`ssh -L 8765:127.0.0.1:8765 server`, and open the page at home. The secret of the client is asked for, or comes from
`ASYNCSMTP_CLIENT_SECRET` or `--client-secret-command`; it is never an option.

A login of another organization's authorization server takes `--relay`, `--authorization-url` or `--device-url`,
`--token-url` and `--scope`; a Microsoft application of a single tenant needs `--authorization-url` and `--token-url`
with the tenant in the place of `common`. All of them begin with `https://`.

When the provider ends the login, the command ends with 77 and prints the command that logs in again; rows that were not
sent stay pending. `asyncsmtp login --provider gmail --user ann@gmail.com --forget` removes it from the keyring and, at
Google, withdraws it. `ASYNCSMTP_PASSWORD` and `--password-command` go before a login. A system without a keyring, as
most servers are, keeps no login: use an app password there, or set up a
[keyring](https://pypi.org/project/keyring/) with a backend of your choice. A program passes `token=` an async function
of its own.
"""
REFUSALS = """\
## What refusals mean

Code and text of the reply begin with the pattern, a regular expression; the first that fits is taken.
"""


def page() -> str:
    """Return the whole of docs/reference/providers.md."""
    return (
        "\n".join([HEAD, *_table(), "", LOGIN, REFUSALS, *_refusals(), "## Sources", "", *_sources()]).rstrip() + "\n"
    )


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
