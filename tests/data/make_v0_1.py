"""How `tests/data/v0.1` was made: real campaigns of asyncsmtp 0.1.0, stopped half-way.

    python -m tests.data.make_v0_1 CHECKOUT [FOLDER]

CHECKOUT is a checkout of asyncsmtp 0.1.0, whose package runs; FOLDER, which is made anew, is `tests/data/v0.1` unless
it is given. Made again, the Message-IDs, times and keys are others, and so are the rows that a killed run leaves in
doubt; the tests read from the data what they expect.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from tests.interop.postgres import running
from tests.kill.processes import OracleProcess, kill, oracle

__all__ = ["Maker", "main"]

FOLDER = Path(__file__).with_name("v0.1")
PORT = 2525  # the relay's, in a shared file of rates: the real one was a free port
OWNER = "mailer.example, process 4711"

CAMPAIGN = """\
[campaign]
name = "news"
from = "Example News <news@example.org>"
subject = "News for {{ name }}"
recipients = "people.csv"
text = "message.txt"
"""
MESSAGE = "Dear {{ name }},\nthis is\nfor {{ email }}\n"  # the test relay looks for the last line
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c6360000000020001e221bc330000000049454e44ae426082"
)


def people(number: int, *, start: int = 1, rejected: Iterable[int] = ()) -> str:
    """A CSV of `number` people; those of the rows `rejected` are rejected by the test relay."""
    lines = ["email,name,city"]
    for row in range(start, start + number):
        domain = "example.net" if row % 3 == 0 else "example.com"
        local = "nobody" if row in set(rejected) else "somebody"
        lines.append(f"{local}{row}@{domain},Name {row},{'Wien' if row % 2 else 'Graz'}")
    return "\n".join(lines) + "\n"


class Maker:
    """Runs the command of a checkout in a folder for each state."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        self.folder = folder
        self._state = tempfile.TemporaryDirectory()
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": self._state.name,
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(checkout),
            "XDG_STATE_HOME": self._state.name,
        }
        where = self._python("-c", "import asyncsmtp; print(asyncsmtp.__file__)")
        assert where.startswith(str(checkout)), where

    def all(self) -> None:
        """Make every state."""
        for make in (
            self.loaded,
            self.killed,
            self.outcomes,
            self.added,
            self.remembered_rates,
            self.rehearsal,
            self.suppression,
            self.shared_rates,
            self.everything,
            self.smime,
            self.standard_input,
            self.postgres,
        ):
            make()
        for ledger in self.folder.rglob("news*.ledger"):
            self._print_results(ledger.parent, *(["--sandbox"] if "sandbox" in ledger.name else []))
        for path in self.folder.rglob("*"):
            if path.name.endswith((".lock", ".ballast", "-shm")):
                path.unlink()

    def loaded(self) -> None:
        """The recipients are in the ledger, and no relay was reached."""
        folder = self._campaign("loaded", people(5))
        self._run(folder, 69, "--relay", "smtp://127.0.0.1:1?security=none")

    def killed(self) -> None:
        """Killed while messages were under way: the ledger has its write-ahead log."""
        folder = self._campaign("killed", people(16, rejected=(4, 9)))
        with oracle(folder, "--pause", "0.1") as relay:
            self._run_and_kill(folder, relay)
        self._rename_log(folder)

    def outcomes(self) -> None:
        """Every state of a row: accepted, deferred, rejected, in doubt, to be sent, not to be mailed."""
        rows = people(14, rejected=(3, 7)) + "not an address,Odd,Wien\nsomebody1@EXAMPLE.com,Twice,Graz\n"
        folder = self._campaign("outcomes", rows)
        with oracle(folder, "--defer", "4", "--lose", "5") as relay:
            self._run(folder, 75, *_at(relay), "--sessions", "1", "--concurrency", "1", "--limit", "11")
        self._rename_log(folder)

    def added(self) -> None:
        """A second file, with another column, was added; some rows of it are sent."""
        folder = self._campaign("added", people(4))
        (folder / "more.csv").write_text(
            people(4, start=5)
            .replace("name,city", "name,city,plan")
            .replace("Wien", "Wien,free")
            .replace("Graz", "Graz,")
            + "somebody1@example.com,Again,Linz,free\n",
            encoding="utf-8",
        )
        with oracle(folder) as relay:
            self._run(folder, 0, *_at(relay), "--limit", "3")
            self._run(folder, 0, *_at(relay), "--add", "more.csv", "--limit", "3")
        self._rename_log(folder)

    def remembered_rates(self) -> None:
        """Quotas of a day that the ledger itself remembers: of all messages, and of one domain."""
        limits = '[limits]\nrate = "4/day"\nshared = false\n\n[limits.domain."example.net"]\nrate = "1/day"\n'
        folder = self._campaign("remembered_rates", people(9), limits)
        with oracle(folder) as relay:
            self._run(folder, 75, *_at(relay))
        self._rename_log(folder)

    def rehearsal(self) -> None:
        """A rehearsal that was not finished, beside a campaign that was not begun."""
        folder = self._campaign("rehearsal", people(5))
        self._run(folder, 0, "--sandbox", "--limit", "2")
        shutil.rmtree(folder / "news.sandbox.maildir")

    def suppression(self) -> None:
        """Lists of all kinds, and a campaign with rows that are on them."""
        lists = 'suppression = ["suppressed.db", "gone.txt", "gone.csv"]\n'
        folder = self._campaign("suppression", people(9) + "ann@example.edu,Ann,Wien\n", lists)
        words = ("suppressed.db", "Somebody1@EXAMPLE.com", "@example.edu", "--reason", "unsubscribed")
        self._command(folder, 0, "suppress", *words)
        (folder / "import.csv").write_text("address,reason\nsomebody2@example.com,complained\n", encoding="utf-8")
        self._command(folder, 0, "suppress", "suppressed.db", "--import", "import.csv")
        (folder / "import.csv").unlink()
        (folder / "gone.txt").write_text("# by letter\nsomebody4@example.com\n", encoding="utf-8")
        (folder / "gone.csv").write_text('address,reason\n"somebody5@example.com","moved, 2026"\n', encoding="utf-8")
        with oracle(folder) as relay:
            self._run(folder, 0, *_at(relay), "--limit", "2", "--sessions", "1", "--concurrency", "1")
        self._rename_log(folder)

    def shared_rates(self) -> None:
        """What campaigns through one relay have sent today: three of five; a second campaign was not begun."""
        limits = '[limits]\nrate = "1000/s, 5/day"\nshared = "rates.db"\n'
        folder = self._campaign("shared_rates", people(3), limits)
        (folder / "second.toml").write_text(
            (CAMPAIGN + limits).replace('"news"', '"second"').replace("people.csv", "others.csv"), encoding="utf-8"
        )
        (folder / "others.csv").write_text(people(4, start=4), encoding="utf-8")
        with oracle(folder) as relay:
            self._run(folder, 0, *_at(relay))
        self._rename_log(folder)
        with closing(sqlite3.connect(folder / "rates.db", isolation_level=None)) as connection:
            for table in ("counted", "spaced"):
                assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() != (0,)
                connection.execute(f"UPDATE {table} SET relay = replace(relay, ':{relay.port}', ':{PORT}')")
            connection.execute("VACUUM")

    def everything(self) -> None:
        """A campaign whose fingerprint has every part but S/MIME."""
        folder = self._campaign("everything", people(7), "")
        (folder / "campaign.toml").write_text(
            CAMPAIGN.replace("{{ name }}", "{{ first_name }}")
            + 'html = "message.html"\n'
            + 'where = "city == \\"Wien\\""\noffset = 1\n'
            + 'reply_to = "Desk <desk@example.org>"\nreturn_path = "bounces+{{ token }}@example.org"\n'
            + 'attachments = ["terms.txt", "letters/{{ city }}.txt"]\n'
            + 'inline = { logo = "logo.png" }\ninline_styles = true\ntext_from_html = false\n'
            + 'headers = { X-City = "{{ city }}" }\n\n'
            + '[columns]\nfirst_name = "name"\n\n'
            + '[unsubscribe]\nurl = "https://example.org/u/{{ token }}"\nmailto = "leave@example.org"\n'
            + 'secret_file = "unsubscribe.secret"\n\n'
            + '[[dkim]]\ndomain = "example.org"\nselector = "one"\nkey = "dkim.pem"\n',
            encoding="utf-8",
        )
        (folder / "message.txt").write_text("{% include 'head.txt' %}\nfor {{ email }}\n", encoding="utf-8")
        (folder / "head.txt").write_text("Dear {{ first_name }},\nthis is", encoding="utf-8")
        (folder / "message.html").write_text(
            "<html><head><style>p { color: red }</style></head><body><p>Dear {{ first_name }}</p>"
            '<img src="cid:logo" alt=""><img src="local.png" alt=""></body></html>\n',
            encoding="utf-8",
        )
        (folder / "logo.png").write_bytes(PNG)
        (folder / "local.png").write_bytes(PNG)
        (folder / "terms.txt").write_text("Terms.\n", encoding="utf-8")
        (folder / "letters").mkdir()
        for city in ("Wien", "Graz"):
            (folder / "letters" / f"{city}.txt").write_text(f"To {city}.\n", encoding="utf-8")
        _private(folder / "unsubscribe.secret", b"only-for-these-tests\n")
        _private(folder / "dkim.pem", _pem(ed25519.Ed25519PrivateKey.generate()))
        with oracle(folder) as relay:
            self._run(folder, 0, *_at(relay), "--limit", "1")
        shown = self._command(folder, 0, "preview", "campaign.toml", "--row", "5")
        links = [line for line in shown.splitlines() if line.startswith("List-Unsubscribe: ")]
        (folder / "unsubscribe.txt").write_text("\n".join(links) + "\n", encoding="utf-8")
        self._rename_log(folder)

    def smime(self) -> None:
        """A campaign whose bodies are signed."""
        folder = self._campaign("smime", people(3), '[smime]\ncertificate = "sender.pem"\nkey = "sender.key"\n')
        key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Example News")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
            .not_valid_after(datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=200 * 365))
            .add_extension(x509.SubjectAlternativeName([x509.RFC822Name("news@example.org")]), critical=False)
            .sign(key, hashes.SHA256())
        )
        (folder / "sender.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        _private(folder / "sender.key", _pem(key))
        with oracle(folder) as relay:
            self._run(folder, 0, *_at(relay), "--limit", "1")
        self._rename_log(folder)

    def standard_input(self) -> None:
        """Recipients that came by a pipe, and are kept beside the ledger."""
        folder = self._campaign("standard_input", people(4))
        (folder / "people.csv").rename(folder / "piped.csv")
        with oracle(folder) as relay:
            words = ("--recipients", "-", *_at(relay), "--limit", "2")
            self._run(folder, 0, *words, given=(folder / "piped.csv").read_bytes())
        (folder / "piped.csv").unlink()
        self._rename_log(folder)

    def postgres(self) -> None:
        """A ledger in a database, of a run that was killed, as an SQL dump."""
        folder = self._campaign("postgres", people(16, rejected=(4, 9)))
        with running() as server, oracle(folder, "--pause", "0.1", "--defer", "5") as relay:
            self._run_and_kill(folder, relay, "--ledger", server.url)
            self._print_results(folder, "--ledger", server.url)
            server.execute("UPDATE asyncsmtp.lease SET owner = %s", OWNER)
            dump = ["pg_dump", "--inserts", "--no-owner", "--no-privileges", "--schema=asyncsmtp", server.url]
            text = subprocess.run(dump, check=True, capture_output=True, text=True).stdout
        kept = [line for line in text.splitlines() if line and not line.startswith(("--", "\\"))]
        (folder / "dump.sql").write_text("\n".join(kept) + "\n", encoding="utf-8")
        self._rename_log(folder)

    def _campaign(self, name: str, rows: str, more: str = "") -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True)
        (folder / "campaign.toml").write_text(CAMPAIGN + more, encoding="utf-8")
        (folder / "people.csv").write_text(rows, encoding="utf-8")
        (folder / "message.txt").write_text(MESSAGE, encoding="utf-8")
        return folder

    def _run_and_kill(self, folder: Path, relay: OracleProcess, *words: str) -> None:
        """Send until the relay has decided about a third of the rows, then SIGKILL."""
        arguments = ["bulk", "campaign.toml", "--yes", *_at(relay), "--sessions", "2", "--concurrency", "4", *words]
        process = subprocess.Popen(
            [sys.executable, "-m", "asyncsmtp", *arguments],
            cwd=folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        relay.wait_for_more(400, process)
        assert kill(process), "the campaign was over too soon"

    def _run(self, folder: Path, code: int, *words: str, given: bytes = b"") -> None:
        self._command(folder, code, "bulk", "campaign.toml", "--yes", *words, given=given)

    def _command(self, folder: Path, code: int, *words: str, given: bytes = b"") -> str:
        done = subprocess.run(
            [sys.executable, "-m", "asyncsmtp", *words],
            cwd=folder,
            env=self._environment,
            input=given,
            capture_output=True,
            check=False,
        )
        assert done.returncode == code, f"{folder.name}: {done.returncode}\n{done.stderr.decode()}"
        return done.stdout.decode()

    def _print_results(self, folder: Path, *words: str) -> None:
        """Keep what `results` says; of a copy, since looking at a ledger may empty its write-ahead log."""
        with tempfile.TemporaryDirectory() as copy:
            shutil.copytree(folder, copy, dirs_exist_ok=True)
            printed = self._command(Path(copy), 0, "results", "campaign.toml", "--json", *words)
        (folder / "results.ndjson").write_text(printed, encoding="utf-8")

    def _python(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], env=self._environment, cwd=self._state.name, capture_output=True, check=True
        )
        return done.stdout.decode().strip()

    def _rename_log(self, folder: Path) -> None:
        """Keep what the relay decided; git ignores no such name."""
        (folder / "oracle.log").rename(folder / "relay.txt")


def _at(relay: OracleProcess) -> tuple[str, str]:
    return "--relay", f"smtp://127.0.0.1:{relay.port}?security=none"


def _pem(key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _private(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)


def main(arguments: list[str]) -> int:
    """Make the data."""
    checkout = Path(arguments[0]).resolve()
    folder = Path(arguments[1]).resolve() if arguments[1:] else FOLDER
    readme = folder / "README.md"
    kept = readme.read_bytes() if readme.exists() else None
    shutil.rmtree(folder, ignore_errors=True)
    Maker(checkout, folder).all()
    if kept is not None:
        readme.write_bytes(kept)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
