"""The settings of a campaign: one value from the campaign file, the environment and the command line.

Later wins: a key of the file gives way to `ASYNCSMTP_*`, and that to an option; click reads the
latter two.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncsmtp.bulk.postgres.place import Database
from asyncsmtp.cli.campaign.keys import KEYS
from asyncsmtp.cli.campaign.mapping import EMAIL
from asyncsmtp.cli.campaign.sealing import Sealing
from asyncsmtp.cli.campaign.shares import RelayShare
from asyncsmtp.cli.campaign.signing import Signature
from asyncsmtp.cli.campaign.spooling import STDIN
from asyncsmtp.cli.campaign.unsubscribing import Unsubscribing
from asyncsmtp.cli.campaign.whose import of_campaign
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.failures import Failed
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.pace.pace import Pace
    from asyncsmtp.bulk.pace.providers import Providers
    from asyncsmtp.bulk.pace.rates import Rate
    from asyncsmtp.bulk.running.when import Schedule, Window
    from asyncsmtp.client.retry import Retry

__all__ = ["Settings", "settle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a campaign is made of, checked for form; no file but the campaign's own has been read.

    Attributes:
        folder: where templates, attachments and the ledger are.
        kept_in: the ledger, where it is elsewhere.
        source: the campaign file; None when everything came from options.
        html: Jinja2 in HTML, or in Markdown by its name (.md), which is the text as well then.
        inline_styles, text_from_html: whether these are done.
        attachments: paths relative to `folder`; one with `{{` is a pattern, a path per row.
        inline: the names of `cid:` URLs and their image files.
        return_path: where bounces go, as of a Template. webhook: the URL that outcomes are told to.
        suppressions: the lists of those who get nothing.
        signatures: the keys that sign each message with DKIM, as the file names them.
        columns: what the templates call columns of the recipients, beside those columns' own names.
        where, offset: which rows of the recipients it is for, as of a RowFilter.
        shares: further relays.
        relay: the relay's URL; None where only the embedded relay is used.
        shared: whether, or in which file, campaigns share their rates; None: those of long times, if they can.
        name_server: who is asked about providers; None for the system's.
        adapts: whether complaints of the relay slow the run down.
        zone_column: the column with the recipient's time zone.
        retry_for, retry_delay: seconds, as `Retry.lasting` and `Retry.delay`; None where they are its own.
    """

    folder: Path
    source: Path | None
    name: str
    from_: str
    subject: str
    recipients: Path
    kept_in: Path | Database | None = None
    email: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    delimiter: str | None = None
    encoding: str | None = None
    where: str | None = None
    offset: int = 0
    html: Path | None = None
    text: Path | None = None
    inline_styles: bool = False
    text_from_html: bool = False
    attachments: tuple[str, ...] = ()
    inline: Mapping[str, Path] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    reply_to: str | None = None
    suppressions: tuple[Path, ...] = ()
    return_path: str | None = None
    webhook: str | None = None
    unsubscribe: Unsubscribing | None = None
    relay: str | None = None
    sessions: int = 10
    max_per_connection: int | None = None
    shares: tuple[RelayShare, ...] = ()
    dialogue: str | None = None
    ca_file: Path | None = None
    password_command: str | None = None
    source_address: str | None = None
    proxy: str | None = None
    pins: tuple[str, ...] = ()
    client_cert: Path | None = None
    client_key: Path | None = None
    signatures: tuple[Signature, ...] = ()
    sealing: Sealing | None = None
    concurrency: int = 100
    rates: tuple[Rate, ...] = ()
    domain_rates: Mapping[str, tuple[Rate, ...]] = field(default_factory=dict)
    shared: bool | Path | None = None
    provider_rates: Mapping[str, tuple[Rate, ...]] = field(default_factory=dict)
    name_server: str | None = None
    adapts: bool = True
    windows: tuple[Window, ...] = ()
    zone_column: str | None = None
    start_at: datetime | None = None
    spread_until: datetime | None = None
    in_doubt: str = "hold"
    retry_for: float | None = None
    retry_delay: float | None = None
    attempts: int | None = None

    def retry(self) -> Retry:
        """When what is refused for the moment is tried again."""
        from asyncsmtp.client.retry import Retry

        given = {"delay": self.retry_delay, "give_up_after": self.retry_for}
        return Retry(attempts=self.attempts, **{name: value for name, value in given.items() if value is not None})

    def providers(self) -> AbstractAsyncContextManager[MxProviders | None]:
        """What looks up the providers of domains, where there is a limit of one; to be entered."""
        if not self.provider_rates:
            return nullcontext()
        from asyncsmtp.bulk.rate_limit.mx_providers import MxProviders

        return MxProviders(self.name_server, warn=console.say)

    def pace(self, left: int, providers: MxProviders | None = None) -> RatePolicy:
        """How fast, with `left` messages to go."""
        from asyncsmtp.bulk.rate_limit.rate import Rate
        from asyncsmtp.bulk.rate_limit.rate_policy import RatePolicy

        chosen = list(self.rates)
        if self.spread_until is not None and left:
            now = datetime.now(UTC)
            span = (self.spread_until - max(now, self.start_at or now)).total_seconds()
            if span > 0:
                chosen.append(Rate(left / span, 1))
        return RatePolicy(
            chosen, self.domain_rates, providers=self.provider_rates, lookup=providers, adaptive=self.adapts
        )

    def schedule(self) -> Schedule:
        """When."""
        from asyncsmtp.bulk.running.schedule import Schedule

        return Schedule(self.windows, self.start_at, self.zone_column)

    def ledger(self, *, sandbox: bool = False) -> Path | Database:
        """Where this campaign's ledger is; a rehearsal in the sandbox has its own."""
        if sandbox:
            return self.rehearsal
        return self.folder / f"{self.name}.ledger" if self.kept_in is None else of_campaign(self.kept_in, self.name)

    @property
    def rehearsal(self) -> Path:
        """The ledger of a rehearsal in the sandbox: a file, whatever the campaign has."""
        return self.folder / f"{self.name}.sandbox.ledger"


def settle(file: Mapping[str, object], options: Mapping[str, object], source: Path | None = None) -> Settings:
    """Make one value of what the file says and what the options and the environment say.

    Args:
        file: what `campaignfile.read` returned, or nothing.
        options: by the same names; None where an option was not given.
        source: the campaign file.
    Raises:
        Failed: a value is not of its kind, or one that every campaign needs is missing.
    """
    given: dict[str, Any] = {KEYS[key].field: value for key, value in file.items()}
    chosen: dict[str, Any] = {
        KEYS[key].field: _option(key, value) for key, value in options.items() if value not in (None, ())
    }
    if "columns" in chosen:  # each name by itself gives way
        chosen["columns"] = {**given.get("columns", {}), **chosen["columns"]}
    given |= chosen
    _name_the_addresses(given, source)
    if "recipients" not in given:
        raise _missing("recipients", "--recipients people.csv", source)
    if "html" not in given and "text" not in given:
        raise _missing("html or text", "--template message.html", source)
    if "from_" not in given:
        raise _missing("from", "--from 'News <news@example.org>'", source)
    if "subject" not in given:
        raise _missing("subject", "--subject 'News'", source)
    recipients: Path = given["recipients"]
    if recipients.name == STDIN and "name" not in given:
        raise Failed("recipients on standard input have no name", "add --name, which the ledger gets")
    given.setdefault("name", recipients.stem)
    return Settings(folder=source.parent if source else recipients.parent, source=source, **given)


def _name_the_addresses(given: dict[str, Any], source: Path | None) -> None:
    """The column with the addresses, where it is named among the others."""
    mapped = given.get("columns", {}).get(EMAIL)
    if mapped is not None and given.setdefault("email", mapped) != mapped:
        where = f"{source}: " if source else ""
        raise Failed(
            f"{where}the addresses are in “{safe_text(given['email'], 60)}” and in “{safe_text(mapped, 60)}”",
            "name that column once: email in [campaign] (--email-column), or in [columns] (--column)",
        )


def _option(key: str, value: object) -> object:
    try:
        return KEYS[key].kind(value, Path())
    except ValueError as error:
        raise Failed(f"{KEYS[key].option} {error}", "correct the option, then run the same command again") from None


def _missing(what: str, option: str, source: Path | None) -> Failed:
    if source is None:
        return Failed(
            f"there is no campaign file and no {option.split()[0]}",
            f"add {option}; or begin with a sample: asyncsmtp init demo && asyncsmtp bulk demo/campaign.toml --sandbox",
        )
    return Failed(f"{source}, [campaign]: {what} is missing", f"add it to the file, or on the command line: {option}")
