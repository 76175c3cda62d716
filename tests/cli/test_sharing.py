"""`shared` in [limits]: a relay's quota holds for campaigns one after another."""

from __future__ import annotations

import json
import pwd
from pathlib import Path

import pytest

from asyncsmtp.bulk.rate_limit.shared_store import find_rates_file
from asyncsmtp.testing import ScriptedRelay
from tests.cli.ended import Command
from tests.cli.serving import serving
from tests.cli.test_bulk import relay_at


def named(campaign: Path, name: str, more: str = "") -> Path:
    """Another campaign to the same three people."""
    path = campaign.with_name(f"{name}.toml")
    path.write_text(campaign.read_text("utf-8").replace('"news"', f'"{name}"') + more, encoding="utf-8")
    return path


def test_a_day_s_quota_holds_for_the_next_campaign_as_well(command: Command, campaign: Path, state_home: Path) -> None:
    """Five a day: three of the first campaign, two of the second, and the third's time is told."""
    with serving(ScriptedRelay()) as relay:
        words = (*relay_at(relay), "--yes", "--rate", "5/day")
        assert command("bulk", campaign, *words).code == 0
        second = command("bulk", named(campaign, "second"), *words)
        assert second.code == 75
        assert "still to send: 1; the first is due at" in second.err
        assert command("bulk", named(campaign, "third"), *words).code == 75
        assert len(relay.received) == 5
        apart = named(campaign, "fourth", "[limits]\nshared = false\n")
        assert command("bulk", apart, *words).code == 0
    assert find_rates_file() == state_home / "asyncsmtp" / "rates.db"
    assert find_rates_file().exists()


def test_several_relays_have_their_quotas_each(command: Command, campaign: Path) -> None:
    """What another campaign sent through one of them is left to the other."""
    with serving(ScriptedRelay()) as one, serving(ScriptedRelay()) as other:
        urls = [f"smtp://127.0.0.1:{relay.port}?security=none" for relay in (one, other)]
        relays = "".join(f'[[relays]]\nurl = "{url}"\nrate = "2/day"\n' for url in urls)
        alone = named(campaign, "alone", f'[[relays]]\nurl = "{urls[0]}"\nrate = "2/day"\n')
        assert command("bulk", alone, "--yes", "--limit", "2").code == 75
        assert command("bulk", named(campaign, "both", relays), "--yes", "--limit", "2").code == 75
    assert (len(one.received), len(other.received)) == (2, 2)


def test_a_relay_s_quota_ends_the_run_as_the_campaign_s_does(command: Command, campaign: Path) -> None:
    """What is held up for more than a minute: exit code 75, and when it goes on."""
    with serving(ScriptedRelay()) as relay:
        url = f"smtp://127.0.0.1:{relay.port}?security=none"
        run = named(campaign, "run", f'[[relays]]\nurl = "{url}"\nrate = "2/h"\n')
        ended = command("bulk", run, "--yes")
        assert ended.code == 75
        assert "still to send: 1; the first is due at" in ended.err
        assert command("bulk", run, "--yes").code == 75
    assert len(relay.received) == 2


def test_a_rehearsal_takes_nothing_of_a_quota(command: Command, campaign: Path, state_home: Path) -> None:
    assert command("bulk", campaign, "--sandbox", "--rate", "3/day").code == 0
    assert list(state_home.iterdir()) == []


@pytest.mark.parametrize("shared", ["", "shared = true\n"])
def test_a_folder_that_cannot_be_written_is_reported(
    command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch, shared: str
) -> None:
    """It ends a run that was to share its rates; another goes by its own count."""
    (campaign.parent / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(campaign.parent / "file"))
    with serving(ScriptedRelay()) as relay:
        run = named(campaign, "run", f"[limits]\n{shared}")
        ended = command("bulk", run, *relay_at(relay), "--yes", "--rate", "5/day")
    assert ended.code == (74 if shared else 0)
    assert ("rates are not shared with other campaigns" in ended.err) is not bool(shared)
    assert len(relay.received) == (0 if shared else 3)


@pytest.mark.parametrize("shared", ["", "shared = true\n"])
def test_a_user_without_a_home_is_reported(
    command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch, shared: str
) -> None:
    """As in a container that runs under any number: nothing that a user has to report."""
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    with serving(ScriptedRelay()) as relay:
        run = named(campaign, "run", f"[limits]\n{shared}")
        ended = command("bulk", run, *relay_at(relay), "--yes", "--rate", "5/day")
    assert ended.code == (2 if shared else 0), ended.err
    assert "there is no home" in ended.err
    assert len(relay.received) == (0 if shared else 3)


WARMUP = '[warmup]\nstart = "2/day"\ngrow = 2\nuntil = "100/day"\n'


def test_a_warm_up_holds_for_the_next_campaign_as_well(command: Command, campaign: Path) -> None:
    """Two on the first day; who is left, and when it goes on, is printed by `bulk` and by `status`."""
    with serving(ScriptedRelay()) as relay:
        run = named(campaign, "run", f'[relay]\nurl = "smtp://127.0.0.1:{relay.port}?security=none"\n{WARMUP}')
        ended = command("bulk", run, "--yes", "--summary", "run.json")
        assert ended.code == 75, ended.err
        assert "warm-up: day 1, 2 of 2 sent today, goes on at " in ended.err
        assert "still to send: 1; the first is due at" in ended.err
        other = named(run, "other")
        other.write_text(other.read_text("utf-8").replace('"run"', '"other"'), encoding="utf-8")
        assert command("bulk", other, "--yes").code == 75
        assert len(relay.received) == 2
    assert "warm-up: day 1, 2 of 2 sent today, goes on at " in command("status", run).err
    (day,) = json.loads(Path("run.json").read_text("utf-8"))["warmup"]
    assert (day["day"], day["limit"], day["sent"]) == (1, 2, 2)
    assert command("bulk", run, "--sandbox").code == 0, "a rehearsal has none"


def test_each_relay_warms_up_by_itself(command: Command, campaign: Path) -> None:
    """One that several campaigns share has one warm-up, beside its other rates: the lower holds."""
    with serving(ScriptedRelay()) as one, serving(ScriptedRelay()) as other:
        urls = [f"smtp://127.0.0.1:{relay.port}?security=none" for relay in (one, other)]
        relays = "".join(f'[[relays]]\nurl = "{url}"\n' for url in urls)
        alone = named(campaign, "alone", f'[relay]\nurl = "{urls[0]}"\n{WARMUP}')
        assert command("bulk", alone, "--yes", "--limit", "1").code == 75
        ended = command("bulk", named(campaign, "both", relays + WARMUP.replace('"2/', '"1/')), "--yes")
        assert ended.code == 75, ended.err
        assert (len(one.received), len(other.received)) == (1, 1)
        lower = named(campaign, "lower", f'[relay]\nurl = "{urls[0]}"\n[limits]\nrate = "1/day"\n{WARMUP}')
        assert command("bulk", lower, "--yes").code == 75
        assert len(one.received) == 2


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ('start = "200/h"\nuntil = "900/day"', "[warmup]: start must be a number of messages in a day"),
        ('start = "200/day, 9/s"\nuntil = "900/day"', "[warmup]: start must be"),
        ('start = "0.5/day"\nuntil = "900/day"', "[warmup]: start must be"),
        ('start = "200/day"\nuntil = "9/day"', "[warmup]: until: 9/day is less than start, 200/day"),
        ('start = "200/day"', "[warmup]: until is missing"),
        ('start = "200/day"\nuntil = "900/day"\ngrow = 1', "[warmup]: grow must be a number above 1"),
        ('start = "200/day"\nuntil = "900/day"\ngrow = "2"', "[warmup]: grow must be a number above 1"),
        ('start = "200/day"\nuntil = "900/day"\ngrows = 2', "did you mean “grow”?"),
    ],
)
def test_a_warm_up_that_is_none_is_refused(command: Command, campaign: Path, section: str, said: str) -> None:
    ended = command("status", named(campaign, "run", f"[warmup]\n{section}\n"))
    assert (ended.code, said in ended.err) == (2, True), ended.err
