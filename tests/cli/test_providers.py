"""[limits.provider] of a campaign file, with a name server on loopback."""

from __future__ import annotations

from pathlib import Path

from asyncsmtp.testing import ScriptedRelay
from tests.bulk.rate_limit.test_mx_providers import ZONE
from tests.cli.ended import Command
from tests.cli.serving import serving
from tests.cli.test_bulk import relay_at
from tests.name_server import naming

PEOPLE = "email,name\nann@gmail.example,Ann\nbob@firm.example,Bob\ncid@own.example,Cid\n"


def test_a_provider_s_quota_is_one_for_all_its_domains(command: Command, campaign: Path) -> None:
    """One a day for Google: of two rows at two domains one waits till tomorrow; the third is not Google's."""
    (campaign.parent / "people.csv").write_text(PEOPLE, encoding="utf-8")
    limits = '[limits]\nname_server = "127.0.0.1:{}"\n[limits.provider."google.com"]\nrate = "1/day"\n'
    with naming(ZONE) as server, serving(ScriptedRelay()) as relay:
        campaign.write_text(campaign.read_text("utf-8") + limits.format(server.port), encoding="utf-8")
        ended = command("bulk", campaign, *relay_at(relay), "--yes")
        assert ended.code == 75, ended.err
        assert "still to send: 1; the first is due at" in ended.err
        assert len(relay.received) == 2
        assert ("cid@own.example",) in [mail.forward_paths for mail in relay.received]
        assert server.asked.total() == 3
        assert command("bulk", campaign, "--sandbox").code == 0  # a rehearsal asks nobody
        assert server.asked.total() == 3
