"""Reports that real mail systems wrote: the test data of flufl.bounce, from its source distribution.

The data is not part of this repository. It is downloaded once, by pip, into the folder of the tests' servers
(`install.py`), or read from the folder that `ASYNCSMTP_BOUNCE_CORPUS` names: `tests/data` of flufl.bounce 6.0.0.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from email import message_from_bytes
from email.utils import getaddresses
from pathlib import Path

import pytest
from flufl.bounce import all_failures

from asyncsmtp.bulk.bounces.dsn import Bounce, parse_dsn, read_mail_files
from asyncsmtp.bulk.bounces.matching import read_report
from tests.interop.install import system
from tests.interop.requiring import required

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

VERSION = "6.0.0"
DIGEST = "a1df16b9d1877ae4536f7d76c00d8421fcefbe694f80f5285d05c45a2547b1bc"  # SHA-256 of the archive
FILES = 117

# Those with a `message/delivery-status` part that reports a recipient, by what they say.
GONE = {
    "dsn_10": "550 User unknown or not available, by Postfix, Status 5.0.0",
    "dsn_11": "5.1.1 for eleven recipients",
    "dsn_12": "Action: failed (Bad destination mailbox address)",
    "dsn_13": "5.1.1",
    "dsn_14": "no Status; 550 5.1.1 User unknown",
    "dsn_15": "5.1.1",
    "dsn_16": "550 unknown user, by Postfix, Status 5.0.0",
    "dsn_18": "Action: error, Status 5.0.0; the text says that the domain does not exist",
}
NOT_GONE = {
    "dsn_01": "quota, in the comment of Status",
    "dsn_02": "timed out",
    "dsn_03": "message too large; Status: 553 Exceeded maximum inbound message size",
    "dsn_04": "quota, in the text",
    "dsn_05": "delayed",
    "dsn_06": "delayed",
    "dsn_07": "delayed",
    "dsn_08": "delayed",
    "dsn_09": "5.7.1 Unable to relay, in the text",
    "dsn_17": "delayed: quota",
    "simple_42": "Status 5.0.0; 550-5.7.1 likely unsolicited mail",
}


def download(folder: Path) -> str | None:
    """Download the source distribution and keep its data in `folder`; return why not, or None."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="new-", dir=folder.parent) as place:
        words = ["download", "--no-deps", "--no-binary", "flufl.bounce", "-d", place, f"flufl.bounce=={VERSION}"]
        done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
        found = list(Path(place).glob("*.tar.gz"))
        if done.returncode or len(found) != 1:
            lines = done.stderr.strip().splitlines() or ["pip found no source distribution"]
            return f"flufl.bounce {VERSION} cannot be downloaded: {lines[-1]}"
        if hashlib.sha256(found[0].read_bytes()).hexdigest() != DIGEST:
            return f"flufl.bounce {VERSION} is not the archive that it was"
        unpacked = Path(place, "data")
        unpacked.mkdir()
        with tarfile.open(found[0]) as archive:
            for member in archive:
                path = Path(member.name)
                if (
                    path.parts[1:3] == ("tests", "data")
                    and path.suffix == ".txt"
                    and (file := archive.extractfile(member))
                ):
                    (unpacked / path.name).write_bytes(file.read())
        unpacked.rename(folder)
    return None


@pytest.fixture(scope="module")
def paths() -> list[Path]:
    given = os.environ.get("ASYNCSMTP_BOUNCE_CORPUS")
    folder = Path(given) if given else system(f"flufl.bounce-{VERSION}")
    if not folder.is_dir():
        required(download(folder))
    paths = sorted(folder.glob("*.txt"))
    assert len(paths) == FILES
    return paths


@pytest.fixture(scope="module")
def bounces(paths: list[Path]) -> dict[str, list[Bounce]]:
    """The bounces of each report, by the name of its file; where there are none, the file is left out."""
    found = {path.stem: [one for data in read_mail_files(path) for one in parse_dsn(data)] for path in paths}
    return {name: bounces for name, bounces in found.items() if bounces}


def test_who_is_gone_is_suppressed_and_nobody_else(bounces: dict[str, list[Bounce]]) -> None:
    """FT-03: of the reports with a delivery status all that are the recipient's fault, and none that is another's."""
    assert bounces.keys() == GONE.keys() | NOT_GONE.keys()
    for name, found in bounces.items():
        assert {bounce.permanent for bounce in found} == {name in GONE}, name


def test_what_is_delayed_did_not_fail(bounces: dict[str, list[Bounce]]) -> None:
    """FT-03: a warning is no failure."""
    warnings = {name for name, what in NOT_GONE.items() if what.startswith("delayed")}
    assert {name for name, found in bounces.items() if not found[0].failed} == warnings


def test_every_recipient_of_a_report_is_read(bounces: dict[str, list[Bounce]]) -> None:
    """FT-03: eleven in one."""
    assert len(bounces["dsn_11"]) == 11
    assert bounces["dsn_14"][0].recipient == "userx@example.com.dk"


# Of the others those that say that there is no such recipient or domain; the rest are full, refused, or say nothing.
GONE_IN_WORDS = {
    "bounce_02", "exim_01", "groupwise_01", "groupwise_02", "microsoft_01", "microsoft_02", "microsoft_04",
    "postfix_01", "qmail_03", "qmail_04", "qmail_05", "simple_04", "simple_05", "simple_06", "simple_08", "simple_11",
    "simple_15", "simple_19", "simple_23", "simple_25", "simple_26", "simple_27", "simple_29", "simple_34",
    "simple_36", "simple_39", "simple_41", "yahoo_03", "yahoo_05", "yahoo_06", "yahoo_07", "yahoo_08", "yahoo_09",
    "yahoo_10", "yahoo_11", "yahoo_13",
}  # fmt: skip
# Failures without an address, for which flufl.bounce therefore has nothing: quota, too many attempts, no such user.
NO_ADDRESS = {"bounce_01", "dumbass_01", "simple_43"}
TOKEN = "mfrggzdfmztwq2lknnwg23tpob"


@pytest.fixture(scope="module")
def failures(paths: list[Path]) -> dict[str, set[str]]:
    """The failed recipients of each report, by flufl.bounce; where there are none, the file is left out."""
    found = {path.stem: all_failures(message_from_bytes(path.read_bytes()))[1] for path in paths}
    return {name: {each.decode().lower() for each in failed} for name, failed in found.items() if failed}


def test_a_token_in_the_return_path_is_found_in_every_failure(paths: list[Path], failures: dict[str, set[str]]) -> None:
    """Done when 4: at least 95 % are matched."""
    matched = []
    for path in paths:
        if path.stem in failures:
            data = path.read_bytes()
            ((_, to), *_) = getaddresses([message_from_bytes(data)["to"]])
            data = data.replace(to.encode(), f"bounces+{TOKEN}@example.org".encode())
            matched.append([*read_report(data).failures] == [TOKEN])
    assert len(matched) > 100
    assert sum(matched) / len(matched) >= 0.95


def test_a_message_id_is_found_in_every_failure_that_has_one(paths: list[Path], failures: dict[str, set[str]]) -> None:
    """Done when 4: of the message, in whatever is left of it, and not of the report; at least 95 % are matched."""
    matched = []
    for path in paths:
        header, blank, body = path.read_bytes().replace(b"\r\n", b"\n").partition(b"\n\n")
        replaced, number = re.subn(rb"(?im)^(>?\s*message-id:\s*<)[^<>@]+@", rb"\1" + TOKEN.encode() + b"@", body)
        if path.stem in failures and number:
            matched.append([*read_report(header + blank + replaced).failures] == [TOKEN])
    assert len(matched) == 16  # of the others nothing is left
    assert sum(matched) / len(matched) >= 0.95


def test_the_recipients_are_those_that_flufl_bounce_finds(paths: list[Path], failures: dict[str, set[str]]) -> None:
    """Done when 4: and nothing that is no failure is one."""
    for path in paths:
        found = {bounce.recipient.lower() for bounce in read_report(path.read_bytes()).bounces if bounce.failed}
        assert found == ({""} if path.stem in NO_ADDRESS else failures.get(path.stem, set())), path.stem


def test_nobody_is_suppressed_for_the_fault_of_the_sender(paths: list[Path]) -> None:
    """Done when 4: each of these was read by a person."""
    gone = {path.stem for path in paths if any(one.permanent for one in read_report(path.read_bytes()).bounces)}
    assert gone == GONE.keys() | GONE_IN_WORDS
