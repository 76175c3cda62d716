"""The provider of a domain, looked up at a name server on loopback, and limits by provider."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.bulk.rate_limit import dns_resolver
from asyncsmtp.bulk.rate_limit.dns_resolver import MAX_PENDING, MxProviders
from asyncsmtp.bulk.rate_limit.rate import Rate
from asyncsmtp.bulk.rate_limit.rate_policy import RatePolicy
from asyncsmtp.bulk.running.runner import Run
from asyncsmtp.errors import InvalidArgument, MissingDependency
from tests.bulk.ledger.ledgers import states
from tests.bulk.running.test_runner import Plain
from tests.bulk.running.test_scheduler import Noting, ledger_of
from tests.name_server import NameServer, name_server

ZONE = {
    "gmail.example": ["5 gmail-smtp-in.l.google.com.", "10 alt1.gmail-smtp-in.l.google.com."],
    "firm.example": ["20 mx.elsewhere.example.", "1 ASPMX.L.Google.com."],
    "shop.example": ["10 mx1.example.co.uk."],
    "two.example": ["10 mx.b.example.", "10 mx.a.example."],
    "own.example": [],
    "never.example": ["0 ."],
}


def asking(server: NameServer) -> MxProviders:
    return MxProviders(f"127.0.0.1:{server.port}")


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 what is waited for has no event
            await asyncio.sleep(0.001)


async def told(found: MxProviders, domain: str) -> str:
    """What is known of a domain in the end."""
    await until(lambda: found.known(domain) is not None)
    return str(found.known(domain))


async def test_the_preferred_mx_names_the_provider_of_a_domain() -> None:
    """RFC 5321 §5.1: the least preference value; without MX the domain itself; RFC 7505: "." takes none."""
    async with name_server(ZONE) as server, asking(server) as found:
        said = {domain: await told(found, domain) for domain in (*ZONE, "unknown.example", "[192.0.2.1]")}
        again = {domain: found.known(domain) for domain in said}
    assert said == again
    assert said == {
        "gmail.example": "google.com",
        "firm.example": "google.com",
        "shop.example": "example.co.uk",
        "two.example": "a.example",
        "own.example": "own.example",
        "never.example": "",
        "unknown.example": "",
        "[192.0.2.1]": "",
    }
    assert set(server.asked.values()) == {1}  # though each was wanted many times
    assert "[192.0.2.1]" not in server.asked


async def test_a_domain_that_is_not_answered_for_holds_up_no_other() -> None:
    """Its lookup goes on beside theirs, and ends with the run."""
    async with name_server(ZONE, silent=frozenset({"dead.example"})) as server, asking(server) as found:
        assert found.known("dead.example") is None
        await until(lambda: "dead.example" in server.asked)
        assert await told(found, "gmail.example") == "google.com"


async def test_a_domain_that_is_not_answered_for_stands_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while; and where all are silent, soon nothing is asked any more."""
    monkeypatch.setattr(dns_resolver, "QUERY_TIMEOUT", 0.2)
    said: list[str] = []
    async with (
        name_server(ZONE, silent=frozenset({"dead.example"})) as server,
        MxProviders(f"127.0.0.1:{server.port}", warn=said.append) as found,
    ):
        assert await told(found, "dead.example") == ""
        assert said == []
        server.silent = None
        names = [f"n{number}.example" for number in range(60)]
        for name in names:
            found.known(name)
        assert [await told(found, name) for name in names] == [""] * 60
        assert found.known("later.example") == ""
    assert "later.example" not in server.asked
    assert len(said) == 1
    assert "limits of providers apply no longer" in said[0]
    assert len(server.asked) < 60


async def test_so_many_are_asked_for_at_once_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty lookups, whatever is wanted; who feeds them is told that it is enough."""
    monkeypatch.setattr(dns_resolver, "QUERY_TIMEOUT", 30.0)
    async with name_server({}, silent=None) as server, asking(server) as found:
        for number in range(MAX_PENDING):
            assert not found.has_backlog
            found.known(f"n{number}.example")
        assert found.has_backlog
        await until(lambda: len(server.asked) >= dns_resolver.MAX_CONCURRENT)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(server.asked) == dns_resolver.MAX_CONCURRENT


async def test_a_provider_s_limit_counts_all_its_domains_and_holds_up_no_other(tmp_path: Path) -> None:
    """Two domains at one provider share its rate; a domain with a limit of its own is not even looked up."""
    domains = [f"{name}.example" for name in ("gmail", "firm", "own", "limited") for _ in range(15)]
    pool, loop = Noting(), asyncio.get_running_loop()
    async with name_server(ZONE) as server, asking(server) as groups, ledger_of(tmp_path, domains) as ledger:
        policy = RatePolicy(
            domains={"limited.example": Rate.parse_all("1000/s")},
            providers={"Google.com": Rate.parse_all("60/s")},
            lookup=groups,
        )
        began = loop.time()
        await Run(Plain(), ledger, pool, rate_policy=policy).run()
        took = loop.time() - began
        assert set((await states(ledger)).values()) == {RowState.ACCEPTED}
    assert took >= 29 / 60 - 0.1  # thirty messages, a tenth of a second to make up for
    last_free = max(place for place, domain in enumerate(pool.domains) if domain in ("own.example", "limited.example"))
    assert len([domain for domain in pool.domains[:last_free] if domain in ("gmail.example", "firm.example")]) < 30
    assert set(server.asked) == {"gmail.example", "firm.example", "own.example"}


async def test_a_day_s_quota_of_a_provider_is_remembered(tmp_path: Path) -> None:
    """By its name, as a domain's is; the next run goes on counting."""
    async with name_server(ZONE) as server, asking(server) as groups:
        said = None
        for left in (2, 1, 0):
            policy = RatePolicy(providers={"google.com": Rate.parse_all("2/day")}, lookup=groups)
            policy.restore_counts(said)
            await told(groups, "firm.example")
            await told(groups, "gmail.example")
            assert (policy.delay_for("firm.example") == 0) is (left > 0)
            policy.take("gmail.example")
            said = policy.save_counts()


async def test_more_unknown_domains_than_may_wait_hold_up_the_ledger_not_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row arrives, and never were there more lookups open than `crowded` allows."""
    monkeypatch.setattr(dns_resolver, "MAX_PENDING", 5)
    most = 0

    class Watched(MxProviders):
        def known(self, domain: str) -> str | None:
            nonlocal most
            found = super().known(domain)
            most = max(most, len(self._pending))
            return found

    zone = {f"n{number}.example": ["1 mx.google.com."] for number in range(60)}
    pool = Noting()
    async with (
        name_server(zone) as server,
        Watched(f"127.0.0.1:{server.port}") as groups,
        ledger_of(tmp_path, [*zone]) as ledger,
    ):
        policy = RatePolicy(providers={"google.com": Rate.parse_all("1000/s")}, lookup=groups)
        await Run(Plain(), ledger, pool, rate_policy=policy).run()
        assert set((await states(ledger)).values()) == {RowState.ACCEPTED}
    assert sorted(pool.domains) == sorted(zone)
    assert most <= 5


async def test_nothing_is_looked_up_without_a_provider_s_limit(tmp_path: Path) -> None:
    pool = Noting()
    async with name_server(ZONE) as server, asking(server) as groups, ledger_of(tmp_path, ["gmail.example"]) as ledger:
        await Run(Plain(), ledger, pool, rate_policy=RatePolicy(Rate.parse_all("1000/s"), lookup=groups)).run()
    assert pool.domains == ["gmail.example"]
    assert not server.asked


def test_a_missing_package_and_an_invalid_address_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidArgument, match=r"the name server ns\.example is not an address"):
        MxProviders("ns.example")
    monkeypatch.setitem(sys.modules, "dns.asyncresolver", None)
    with pytest.raises(MissingDependency, match=r"asyncsmtp\[dns\]"):
        MxProviders()
