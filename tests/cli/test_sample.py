"""The sample campaign, and the picture in it."""

from __future__ import annotations

import csv
import io
import re
import struct
import tomllib
import zlib

from asyncsmtp.cli.commands.setup.init import count_rows, make_people, sample_files
from asyncsmtp.protocol.envelope import Mailbox


def test_the_people_are_as_many_as_asked_for_and_all_different() -> None:
    """A thousand rows are a thousand mailboxes; none of them anybody's (RFC 2606 §3)."""
    rows = list(csv.DictReader(io.StringIO(make_people(1000).decode())))
    assert len({Mailbox.parse(row["email"]).key for row in rows}) == 1000
    assert {Mailbox.parse(row["email"]).domain for row in rows} == {"example.org"}
    assert any(not row["name"].isascii() for row in rows)
    assert any("," in row["company"] for row in rows)
    assert any(not row["company"] for row in rows)


def test_rows_are_counted_as_csv_counts_them() -> None:
    """A line break within quotes ends no record."""
    assert count_rows(b'email,name\na@example.org,"two\nlines"\nb@example.org,x\n') == 2
    assert count_rows(b"") == 0


def test_the_templates_use_columns_that_exist() -> None:
    """An unknown name is an error of the pre-flight; the sample must not begin with one."""
    files = sample_files(3)
    columns = set(files["people.csv"].decode().splitlines()[0].split(","))
    subject = tomllib.loads(files["campaign.toml"].decode())["campaign"]["subject"]
    used = re.findall(
        r"\{[{%]\s*(?:if )?(\w+)", files["message.html"].decode() + files["message.txt"].decode() + subject
    )
    assert set(used) - {"endif"} <= columns | {"unsubscribe_url"}
    assert b'src="cid:logo"' in files["message.html"]


def test_the_logo_is_a_png_that_decodes() -> None:
    """Every chunk's checksum, and as many pixels as the header says (ISO/IEC 15948 §5)."""
    octets, chunks, at = sample_files(1)["logo.png"], {}, 8
    assert octets.startswith(b"\x89PNG\r\n\x1a\n")
    while at < len(octets):
        (length,) = struct.unpack_from(">I", octets, at)
        kind, data = octets[at + 4 : at + 8], octets[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", octets, at + 8 + length) == (zlib.crc32(kind + data),)
        chunks[kind] = data
        at += 12 + length
    assert struct.unpack(">II", chunks[b"IHDR"][:8]) == (160, 100)
    assert len(zlib.decompress(chunks[b"IDAT"])) == 100 * (160 + 1)
    assert list(chunks)[-1] == b"IEND"
    assert len(octets) < 2048
