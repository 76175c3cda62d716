"""File names, judged by the standard library's parser."""

from __future__ import annotations

from email import message_from_bytes, policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.mail.attachment import base_name, disposition

NAMES = [
    ("report.pdf", "report.pdf"),
    ("../../etc/passwd", "passwd"),
    ("C:\\Users\\bob\\report.pdf", "report.pdf"),
    ("/etc/shadow", "shadow"),
    ("a/b/", "attachment"),
    ("", "attachment"),
    (".", "attachment"),
    ("..", "attachment"),
    ("x\r\nBcc: z@x.example", "x__Bcc: z@x.example"),
    ("a\0b.txt", "a_b.txt"),
    ("exe\u202egpj.txt", "exe_gpj.txt"),
    ("zero\u200bwidth.txt", "zero_width.txt"),
    ('qu"ote.txt', 'qu"ote.txt'),
    ("semi;colon=x.txt", "semi;colon=x.txt"),
    ("per%cent'.txt", "per%cent'.txt"),
    ("Grüße aus Köln.pdf", "Grüße aus Köln.pdf"),
    ("日本語.txt", "日本語.txt"),
    ("=?utf-8?q?x?=.txt", "=?utf-8?q?x?=.txt"),
    (" spaces .txt ", "spaces .txt"),
    (".bashrc", "bashrc"),
    ("a" * 55 + ".txt", "a" * 55 + ".txt"),
    ("ü" * 60 + ".txt", "ü" * 60 + ".txt"),
    ("a" * 300 + ".txt", "a" * 179 + ".txt"),
    ("ü" * 300 + ".pdf", "ü" * 89 + ".pdf"),
    ("a" * 300, "a" * 179),
]


def read_back(name: str) -> str | None:
    message = message_from_bytes(disposition("attachment", name) + b"\r\n", policy=policy.default)
    assert [key for key, _ in message.items()] == ["Content-Disposition"]
    return message.get_filename()


@pytest.mark.parametrize(("given_name", "name"), NAMES)
def test_a_name_is_made_safe_and_comes_back(given_name: str, name: str) -> None:
    """MH-14: folders, line breaks and characters that reorder are taken out; the rest is kept."""
    assert base_name(given_name) == name
    assert read_back(base_name(given_name)) == name


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_any_name_comes_back_from_short_lines(text: str) -> None:
    """MH-14: RFC 2231 continuations, cut between characters."""
    name = base_name(text)
    assert read_back(name) == name
    assert len(name.encode()) <= 200
    assert max(map(len, disposition("attachment", name).split(b"\r\n"))) <= 90
