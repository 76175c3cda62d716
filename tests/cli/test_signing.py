"""[dkim]: the key is read and proved before the first connection, and never shown."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from asyncsmtp.bulk.setup.config import build_config, read_campaign_file
from asyncsmtp.bulk.setup.prepare import prepare
from asyncsmtp.errors import ConfigError
from asyncsmtp.mail.signing.dkim import DkimKey
from tests.cli.ended import Command
from tests.mail.dkim_verifier import verdicts

NAMES = 'domain = "example.com"\nselector = "s1"\n'


def new_key() -> str:
    key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "people.csv").write_text("email\nbob@x.example\n")
    (tmp_path / "m.txt").write_text("Hello")
    for name in ("dkim.pem", "other.pem"):
        (tmp_path / name).write_text(new_key())
        (tmp_path / name).chmod(0o600)
    return tmp_path


async def parts(folder: Path, section: str) -> dict[str, str]:
    """The fingerprint of a campaign with this section, all that a run reads before it connects."""
    path = folder / "campaign.toml"
    top = '[campaign]\nfrom = "news@example.com"\nsubject = "x"\nrecipients = "people.csv"\ntext = "m.txt"\n'
    path.write_text(top + section)
    return await (await prepare(build_config(read_campaign_file(path), {}, path))).fingerprint()


async def test_the_fingerprint_covers_the_key(folder: Path) -> None:
    """Another key is another campaign; the private half is in nothing that is kept."""
    first = await parts(folder, f'[dkim]\n{NAMES}key = "dkim.pem"')
    other = await parts(folder, f'[dkim]\n{NAMES}key = "other.pem"')
    assert first["dkim s1._domainkey.example.com"] != other["dkim s1._domainkey.example.com"]
    assert not [name for name in await parts(folder, "") if name.startswith("dkim")]


async def test_several_keys_sign_together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two [[dkim]], one of them from the environment."""
    monkeypatch.setenv("SECOND_KEY", new_key())
    second = 'domain = "example.com"\nselector = "s2"\nkey_env = "SECOND_KEY"'
    found = await parts(folder, f'[[dkim]]\n{NAMES}key = "dkim.pem"\n[[dkim]]\n{second}')
    assert {name for name in found if name.startswith("dkim")} == {
        "dkim s1._domainkey.example.com",
        "dkim s2._domainkey.example.com",
    }


@pytest.mark.parametrize(
    ("section", "why"),
    [
        (f'[dkim]\n{NAMES}key = "none.pem"', "does not exist"),
        (f'[dkim]\n{NAMES}key = "m.txt"', "other users of this machine can read"),
        (f'[dkim]\n{NAMES}key_env = "NO_SUCH_KEY"', "NO_SUCH_KEY is not set"),
        (f"[dkim]\n{NAMES}", "needs either key"),
        (f'[dkim]\n{NAMES}key = "dkim.pem"\nkey_env = "X"', "needs either key"),
        (f'[dkim]\n{NAMES}kei = "dkim.pem"', "unknown key “kei”"),
        ('[dkim]\nselector = "s1"\nkey = "dkim.pem"', "domain is missing"),
        ('[dkim]\ndomain = "a; s=b"\nselector = "s1"\nkey = "dkim.pem"', "must look like example.com"),
        ('[dkim]\ndomain = 3\nselector = "s1"', "domain must be text"),
        (f'[[dkim]]\n{NAMES}key = "dkim.pem"\n[[dkim]]\n{NAMES}key = "other.pem"', "the same domain and selector"),
    ],
)
async def test_what_cannot_sign_is_reported_before_anything_is_sent(folder: Path, section: str, why: str) -> None:
    """The first of 100,000 messages is the wrong place to learn of it."""
    (folder / "m.txt").chmod(0o644)
    with pytest.raises(ConfigError, match=why) as caught:
        await parts(folder, section)
    assert caught.value.advice


async def test_a_weak_key_is_remarked_by_check(folder: Path, command: Command) -> None:
    """RFC 8301 §3.2: verifiers take 1024 bits, signers should not."""
    key = rsa.generate_private_key(65537, 1024)
    (folder / "dkim.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    await parts(folder, f'[dkim]\n{NAMES}key = "dkim.pem"')
    ended = await asyncio.to_thread(command, "check", folder / "campaign.toml")
    assert "the DKIM key s1._domainkey.example.com has 1024 bits; make one of 2048" in ended.out


async def test_a_key_in_the_file_itself_is_refused_and_not_repeated(folder: Path) -> None:
    """TF-15: a campaign file holds no secrets."""
    key = new_key()
    with pytest.raises(ConfigError, match="holds a private key") as caught:
        await parts(folder, f"[dkim]\n{NAMES}key = '''{key}'''")
    assert key.splitlines()[1] not in caught.value.why


def test_what_arrives_is_signed(folder: Path, command: Command) -> None:
    """MH-11: through the whole command and a dialogue, a line that begins with a dot included."""
    (folder / "m.txt").write_text("Hello\n.dot\n")
    asyncio.run(parts(folder, f'[dkim]\n{NAMES}key = "dkim.pem"'))
    ended = command("bulk", folder / "campaign.toml", "--sandbox", "--yes", "--maildir", folder / "mail")
    assert ended.code == 0, ended.err
    [mail] = (folder / "mail" / "new").iterdir()
    octets = mail.read_bytes()
    octets = octets if b"\r\n" in octets else octets.replace(b"\n", b"\r\n")
    octets = octets[octets.index(b"DKIM-Signature") :]  # below what the relay writes on top
    key = DkimKey.from_pem("example.com", "s1", (folder / "dkim.pem").read_bytes())
    assert verdicts(octets, {key.name: key.record}) == [True]
    assert verdicts(octets.replace(b".dot", b"..dot"), {key.name: key.record}) == [False]
