"""`shared` in [limits]: a relay's quota holds for campaigns one after another."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from asyncsmtp.bulk.open_campaign import find_rates_file
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
