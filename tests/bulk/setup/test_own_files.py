"""Files that a campaign uses itself are neither opened nor sent, whatever names them."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.bulk.setup import source_files
from asyncsmtp.bulk.setup.config import load_config
from asyncsmtp.bulk.setup.prepare import prepare, prepare_file
from asyncsmtp.bulk.setup.source_files import ConfinedFolder, OwnFiles
from asyncsmtp.bulk.suppression import Suppressed, SuppressionList
from asyncsmtp.errors import ConfigError, TemplateError
from asyncsmtp.testing import ScriptedRelay
from tests.bulk.ledger.ledgers import readers
from tests.bulk.ledger.sqlite.test_ledger import Folder
from tests.bulk.test_campaign import make, url
from tests.cli.serving import serving
from tests.mail.test_dkim import pem, rsa_key

CAMPAIGN = """\
[campaign]
name = "news"
from = "Example News <news@example.org>"
subject = "News"
recipients = "all/people.csv"
ledger = "all/x.ledger"
suppression = ["all/gone.db", "all/gone.txt"]
text = "all/message.txt"
attachments = ["all/{{ file }}"]
[unsubscribe]
url = "https://example.org/u/{{ token }}"
secret_file = "all/unsubscribe.secret"
"""
SECRET = "a secret of some length"
RSA_KEY = pem(rsa_key())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A campaign with everything in the folder that its attachments are in."""
    inside = tmp_path / "all"
    inside.mkdir()
    (tmp_path / "campaign.toml").write_text(CAMPAIGN, encoding="utf-8")
    (inside / "people.csv").write_text("email,file\nann@example.org,1.pdf\n", encoding="utf-8")
    (inside / "message.txt").write_text("Hello", encoding="utf-8")
    (inside / "1.pdf").write_text("%PDF", encoding="utf-8")
    (inside / "gone.txt").write_text("cid@example.org\n", encoding="utf-8")
    (inside / "unsubscribe.secret").write_text(SECRET, encoding="utf-8")
    (inside / "unsubscribe.secret").chmod(0o600)
    SuppressionList(inside / "gone.db").create()
    return tmp_path


async def compose(folder: Path, file: str) -> str:
    """Return why the message with this attachment cannot be composed; "" if it can."""
    prepared = await prepare(load_config(folder / "campaign.toml"))
    try:
        prepared.composer.compose("ann@example.org", {"email": "ann@example.org", "file": file})
    except Exception as error:
        return str(error)
    return ""


def open_files() -> list[os.stat_result]:
    """Return what the descriptors of this process are open on."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.fstat(int(name)))
    return found


def posix_locks(*paths: Path) -> int:
    """Return the number of POSIX locks on files."""
    wanted = {str(path.stat().st_ino) for path in paths}
    lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    return sum("POSIX" in line and line.split()[-3].rpartition(":")[2] in wanted for line in lines)


def database(path: Path) -> sqlite3.Connection:
    """Return a connection that is in a write transaction."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
    connection.execute("BEGIN IMMEDIATE")
    return connection


@pytest.mark.skipif(sys.platform != "linux", reason="O_PATH is of Linux")
def test_a_descriptor_of_a_path_drops_no_lock(tmp_path: Path) -> None:
    """FT-50: what the guard relies on: after O_PATH all locks are there, after a usual descriptor none."""
    path = tmp_path / "x.ledger"
    files = (path, path.with_name("x.ledger-shm"))
    with closing(database(path)):
        locks = posix_locks(*files)
        assert locks >= 2
        for file in files:
            os.close(os.open(file, os.O_PATH | os.O_NOFOLLOW))
        assert posix_locks(*files) == locks
        for file in files:
            os.close(os.open(file, os.O_RDONLY))
        assert posix_locks(*files) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/locks is of Linux")
@pytest.mark.parametrize("name", ["x.ledger", "x.ledger-shm", "x.ledger-wal", "link.pdf", "another.ledger"])
@pytest.mark.parametrize("portable", [False, True])
async def test_a_cell_that_names_the_ledger_drops_no_lock(
    folder: Path, name: str, portable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FT-50: by its name, by a hard link, its side files, and the ledger of another campaign of this process."""
    if portable:
        monkeypatch.setattr(source_files, "_PATH_FLAG", 0)
    inside = folder / "all"
    home = Folder(inside)
    home.path = inside / ("another.ledger" if name == "another.ledger" else "x.ledger")
    async with home.open() as ledger:
        await ledger.load(readers(3))
        os.link(home.path, inside / "link.pdf")
        files = (home.path, home.path.with_name(f"{home.path.name}-shm"))
        before = posix_locks(*files)
        assert before
        for _ in range(3):
            assert "nobody may get" in await compose(folder, name)
        assert posix_locks(*files) == before
        assert (await ledger.counts())[RowState.PENDING] == 3


@pytest.mark.parametrize(
    "name",
    [
        "x.ledger.lock", "x.ledger.ballast", "x.ledger-journal", "X.Ledger.lock", "gone.db", "gone.db-journal",
        "gone.txt", "unsubscribe.secret", "people.csv", "message.txt", "../campaign.toml",
    ],
)  # fmt: skip
async def test_a_cell_that_names_a_file_of_the_campaign_is_refused(folder: Path, name: str) -> None:
    """FT-51: keys, secrets, lists, recipients, templates, and what lies beside a database."""
    path = folder / "all" / name
    if not path.exists():
        path.write_text("x", encoding="utf-8")
    assert await compose(folder, "1.pdf") == ""
    why = await compose(folder, name)
    assert "nobody may get" in why or "not a path below the folder" in why
    assert SECRET not in why


@pytest.mark.parametrize("link", [os.link, os.symlink, shutil.copy])
async def test_a_link_to_a_secret_is_refused(folder: Path, link: object) -> None:
    """FT-51: a hard link is the same file, a symbolic one is never followed; a copy is another file."""
    assert callable(link)
    link(folder / "all/unsubscribe.secret", folder / "all/2.pdf")
    why = await compose(folder, "2.pdf")
    assert (why == "") == (link is shutil.copy)


async def test_a_file_that_an_editor_replaced_is_refused(folder: Path) -> None:
    """FT-51: the secret is a new file since the campaign was prepared."""
    prepared = await prepare(load_config(folder / "campaign.toml"))
    secret = folder / "all/unsubscribe.secret"
    shutil.copy(secret, folder / "all/new")
    (folder / "all/new").replace(secret)
    with pytest.raises(Exception, match="nobody may get"):
        prepared.composer.compose("ann@example.org", {"email": "ann@example.org", "file": "unsubscribe.secret"})


KEYS = {
    "PEM": b"text before\n" + RSA_KEY,
    "OpenSSH": b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END OPENSSH PRIVATE KEY-----\n",
    "encrypted PEM": b"-----BEGIN ENCRYPTED PRIVATE KEY-----\r\nMIIFHDBOBgkqhkiG9w0BBQ0wQTApBgkqhkiG\r\n",
    "PGP": b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQOYBF\n",
    "PuTTY": b"PuTTY-User-Key-File-3: ssh-ed25519\n",
    "PKCS #8": bytes.fromhex("302e020100300506032b657004220420") + bytes(32),
    "PKCS #1": bytes.fromhex("308204a40201000282010100") + bytes(64),
    "SEC 1": bytes.fromhex("30770201010420") + bytes(32),
    "PKCS #12": bytes.fromhex("30820a3f0201033082 0a05".replace(" ", "")) + bytes(64),
}


@pytest.mark.parametrize("kind", KEYS)
async def test_a_private_key_is_never_attached(folder: Path, kind: str) -> None:
    """FT-51: whatever its name, for one row or for all."""
    (folder / "all/scan.pdf").write_bytes(KEYS[kind])
    assert "it holds a private key" in await compose(folder, "scan.pdf")
    file = folder / "campaign.toml"
    file.write_text(CAMPAIGN.replace('"all/{{ file }}"', '"all/scan.pdf"'), encoding="utf-8")
    with pytest.raises(ConfigError, match="it holds a private key"):
        await prepare(load_config(file))


@pytest.mark.parametrize(
    "content", [b"How to make one: -----BEGIN PRIVATE KEY----- is the first line.", b"0\x82\x01\x0a%PDF", b"0"]
)
async def test_what_only_looks_like_a_key_is_attached(folder: Path, content: bytes) -> None:
    """FT-51: the rule is about keys."""
    (folder / "all/scan.pdf").write_bytes(content)
    assert await compose(folder, "scan.pdf") == ""


@pytest.mark.parametrize(
    "pattern", ["{{ file }}", "./{{ file }}", "{{ file }}/1.pdf", "in{{ file }}/1.pdf", "/{{ file }}"]
)
@pytest.mark.parametrize("key", ["attachments = ['{}']", "html = 'x.html'\ninline = {{ logo = '{}' }}"])
async def test_a_pattern_begins_with_a_folder(folder: Path, pattern: str, key: str) -> None:
    """FT-51: else a cell could name every file beside the campaign file."""
    text = CAMPAIGN.replace('attachments = ["all/{{ file }}"]', key.format(pattern))
    (folder / "x.html").write_text('<img src="cid:logo">', encoding="utf-8")
    (folder / "campaign.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="does not begin with the name of a folder"):
        await prepare(load_config(folder / "campaign.toml"))


@pytest.mark.parametrize("name", ["unsubscribe.secret", "people.csv", "x.ledger", "gone.db", "key.pem"])
async def test_a_template_includes_no_file_of_another_purpose(folder: Path, name: str) -> None:
    """FT-51: `{% include 'unsubscribe.secret' %}`."""
    async with Folder(folder / "all").open():
        (folder / "all/x.ledger").touch()
        (folder / "all/key.pem").write_bytes(RSA_KEY)
        (folder / "all/message.txt").write_text(f"Hello {{% include 'all/{name}' %}}", encoding="utf-8")
        with pytest.raises(TemplateError, match="nobody may get"):
            await prepare(load_config(folder / "campaign.toml"))


async def test_templates_may_include_each_other(folder: Path) -> None:
    """FT-51: that is what they are for; a cell still cannot name them."""
    (folder / "all/foot.txt").write_text("Bye", encoding="utf-8")
    (folder / "all/message.txt").write_text("Hello {% include 'all/foot.txt' %}", encoding="utf-8")
    assert await compose(folder, "1.pdf") == ""
    assert "nobody may get" in await compose(folder, "foot.txt")


@pytest.mark.parametrize("name", ["x.ledger", "gone.db", "unsubscribe.secret", "campaign.toml"])
async def test_a_fixed_attachment_is_no_file_of_another_purpose(folder: Path, name: str) -> None:
    """FT-51: a slip of whoever wrote the campaign file; through a symbolic link as well."""
    path = folder / name if name == "campaign.toml" else folder / "all" / name
    path.touch()
    (folder / "link.pdf").symlink_to(path)
    text = CAMPAIGN.replace("all/{{ file }}", "link.pdf")
    (folder / "campaign.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="nobody may get"):
        await prepare(load_config(folder / "campaign.toml"))


async def test_recipients_are_no_ledger(folder: Path) -> None:
    """FT-50: neither the first file nor one that is added while the ledger is open."""
    config = load_config(folder / "campaign.toml")
    prepared = await prepare(config)
    SuppressionList(folder / "all/gone.db").add([Suppressed("bob@example.org")])
    (folder / "all/x.ledger").touch()
    for name in ("x.ledger", "gone.db", "gone.txt"):
        with pytest.raises(ConfigError, match="name the file with the recipients"):
            await prepare_file(folder / "all" / name, prepared, config)
    (folder / "campaign.toml").write_text(CAMPAIGN.replace("all/people.csv", "all/x.ledger"), encoding="utf-8")
    with pytest.raises(ConfigError, match="name the file with the recipients"):
        await prepare(load_config(folder / "campaign.toml"))


async def test_a_run_knows_the_ledger_that_it_was_given(tmp_path: Path) -> None:
    """FT-50: `run(ledger=…)` names another one than the campaign."""
    (tmp_path / "all").mkdir()
    rows = [{"email": "ann@example.org", "name": "other.ledger-shm"}, {"email": "bob@example.org", "name": "1.pdf"}]
    (tmp_path / "all/1.pdf").write_text("%PDF", encoding="utf-8")
    campaign = make(tmp_path, rows, attachments=["all/{{ name }}"])
    with serving(ScriptedRelay()) as relay:
        result = await campaign.run(relay=url(relay), ledger=tmp_path / "all/other.ledger")
    assert (result.counts["accepted"], result.counts["rejected"]) == (1, 1)


def test_without_proc_the_name_is_compared_after_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FT-50: a file that is put in the place of the checked one is not read."""
    monkeypatch.setattr(source_files, "_PATH_FLAG", 0)
    (tmp_path / "secret").write_text(SECRET, encoding="utf-8")
    (tmp_path / "1.pdf").write_text("%PDF", encoding="utf-8")
    own = OwnFiles()
    own.add(tmp_path / "secret", "a secret")
    folder = ConfinedFolder(tmp_path, own=own)
    assert folder.read("1.pdf") == b"%PDF"
    opened = os.open

    def replaced(path: str, flags: int, *, dir_fd: int | None = None) -> int:
        if path == "1.pdf":
            (tmp_path / "1.pdf").unlink(missing_ok=True)
            os.link(tmp_path / "secret", tmp_path / "1.pdf")
        return opened(path, flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", replaced)
    with pytest.raises(OSError, match="replaced while it was opened"):
        folder.read("1.pdf")
    monkeypatch.setattr(os, "open", opened)
    assert sum(os.path.samestat(os.stat(tmp_path / "secret"), each) for each in open_files()) == 1  # on purpose
    (tmp_path / "1.pdf").unlink()
    (tmp_path / "secret").rename(tmp_path / "1.pdf")
    with pytest.raises(OSError, match="it is a ledger or a suppression list, which nobody may get"):
        folder.read("1.pdf")


def test_another_file_that_is_put_in_place_is_closed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FT-50: only a descriptor of a file of the campaign is kept open."""
    monkeypatch.setattr(source_files, "_PATH_FLAG", 0)
    for name in ("1.pdf", "2.pdf"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    opened, folder = os.open, ConfinedFolder(tmp_path)

    def replaced(path: str, flags: int, *, dir_fd: int | None = None) -> int:
        if path == "1.pdf":
            (tmp_path / "2.pdf").replace(tmp_path / "1.pdf")
        return opened(path, flags, dir_fd=dir_fd)

    before = len(open_files())
    monkeypatch.setattr(os, "open", replaced)
    with pytest.raises(OSError, match="replaced while it was opened"):
        folder.read("1.pdf")
    assert len(open_files()) == before
