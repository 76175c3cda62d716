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

PRIMES = (  # of 256 bits: no library makes such a key any more
    115759967367743519782074525705722106285477355975964856414326930969381458643153,
    87642922045019231252703128976160501025205723576960017685725404371103843851913,
)
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
        (f'[dkim]\n{NAMES}key = "open.pem"', "other users of this machine can read"),
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
    (folder / "open.pem").write_text(new_key())
    (folder / "open.pem").chmod(0o644)
    with pytest.raises(ConfigError, match=why) as caught:
        await parts(folder, section)
    assert caught.value.advice


@pytest.mark.parametrize("value", ['"text"', "true", "3", '["dkim.pem"]', "[]"])
async def test_dkim_that_is_no_section(folder: Path, value: str) -> None:
    """FT-85: `dkim = "dkim.pem"` would have signed nothing; it is an error that says what a section has."""
    path = folder / "campaign.toml"
    top = '[campaign]\nfrom = "news@example.com"\nsubject = "x"\nrecipients = "people.csv"\ntext = "m.txt"\n'
    path.write_text(f"dkim = {value}\n{top}")
    if value == "[]":
        assert read_campaign_file(path)["dkim"] == ()
        return
    with pytest.raises(ConfigError, match="must be a section with domain, selector and key"):
        read_campaign_file(path)


@pytest.mark.parametrize("bits", [1024, 1536, 2048])
def test_a_short_key_signs(folder: Path, command: Command, bits: int) -> None:
    """FT-85, RFC 8301 §3.2: a key of 1024 bits is in DNS already for many; it signs, with a remark."""
    key = rsa.generate_private_key(65537, bits)
    (folder / "dkim.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert "dkim s1._domainkey.example.com" in asyncio.run(parts(folder, f'[dkim]\n{NAMES}key = "dkim.pem"'))
    ended = command("bulk", folder / "campaign.toml", "--sandbox", "--maildir", folder / "mail")
    assert ended.code == 0, ended.err
    assert (f"has {bits} bits; make one of 2048" in ended.err) == (bits < 2048)
    [mail] = (folder / "mail" / "new").iterdir()
    assert b"\nDKIM-Signature: v=1; a=rsa-sha256; " in mail.read_bytes().replace(b"\r", b"")


async def test_a_key_below_1024_bits_is_refused(folder: Path) -> None:
    """FT-85, RFC 8301 §3.2: a signer must not use it, and no verifier believes it."""
    p, q = PRIMES
    d = pow(65537, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(65537, p * q)
    )
    pem = numbers.private_key().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (folder / "dkim.pem").write_bytes(pem)
    with pytest.raises(ConfigError, match="an RSA key of 512 bits is too weak: make one of 2048"):
        await parts(folder, f'[dkim]\n{NAMES}key = "dkim.pem"')


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
