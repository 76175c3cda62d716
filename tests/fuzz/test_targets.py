"""Each target on its seeds and on some thousand mutations of them; and each can fail."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asyncsmtp.mail import headers
from asyncsmtp.mail.signing import dkim
from asyncsmtp.protocol import content, replies
from asyncsmtp.protocol.auth.auth import _Attempt
from asyncsmtp.protocol.client import ClientProtocol
from tests.fuzz import f01_replies, f06_framing
from tests.fuzz.script import END, GO_ON, TOKENS
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS

MUTATIONS = {"F1": 3_000, "F2": 3_000, "F3": 700, "F5": 2_000, "F6": 3_000, "F7": 2_000, "F10": 1_500}


def inputs(name: str) -> Iterator[bytes]:
    """The seeds, then mutations of them; the same in each run."""
    yield from SEEDS[name]
    chance = random.Random(name)
    telling = [*TOKENS, GO_ON, END, 0x0A, 0x0D, 0x2E, 0x20, 0x2D]
    for _ in range(MUTATIONS[name]):
        data = bytearray(chance.choice(SEEDS[name]))
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(data) + 1)
            octet = chance.choice([*telling, chance.randrange(256)])
            data[at : at + chance.randrange(3)] = bytes([octet] * chance.randrange(3))
        yield bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_it(name: str) -> None:
    """F1-F3, F5-F7, F10, without a fuzzer: quick enough for every run."""
    for data in inputs(name):
        TARGETS[name](data)


def broken(name: str) -> bool:
    """Tell if some input breaks the target now."""
    try:
        for data in inputs(name):
            TARGETS[name](data)
    except Exception:
        return True
    return False


def test_f1_sees_a_reader_that_minds_where_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    real = replies.ReplyReader.receive

    def forgetful(self: replies.ReplyReader, data: bytes) -> Iterator[replies.Reply]:
        self._tail = b"" if len(self._tail) > 20 else self._tail
        return real(self, data)

    monkeypatch.setattr(replies.ReplyReader, "receive", forgetful)
    assert f01_replies.ReplyReader is replies.ReplyReader
    assert broken("F1")


def test_f2_sees_a_number_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's int refuses so many digits: it raises."""
    monkeypatch.setattr("asyncsmtp.protocol.replies._number", lambda text, digits: int(text) if text else None)
    assert broken("F2")


def test_f3_sees_a_reply_that_is_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """M5's kin: an exception of the wrong kind, or a sender that waits for ever."""
    real = ClientProtocol._answer
    monkeypatch.setattr(ClientProtocol, "_answer", lambda self, reply: {}["no"] if self.pending else real(self, reply))
    assert broken("F3")


def test_f6_sees_a_dot_that_is_not_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    def lazy(parts: list[bytes]) -> Iterator[bytes]:
        for part in parts:
            yield part.replace(b"\n.", b"\n..")  # and a part that begins a line with one is forgotten

    assert f06_framing.dot_stuff is content.dot_stuff
    monkeypatch.setattr(f06_framing, "dot_stuff", lazy)
    assert broken("F6")


def test_f10_sees_a_proof_that_nobody_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """AU-07."""
    ignore: Callable[..., None] = lambda self, mechanism: None  # noqa: E731
    monkeypatch.setattr(_Attempt, "raise_for_failure", ignore)
    assert broken("F10")


def test_without_the_fuzzer_the_runner_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "atheris.py").write_text("raise ImportError")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "F1"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{tmp_path}:."},
        check=False,
    )
    assert done.returncode == 1
    assert "pip install -e '.[fuzz]'" in done.stderr


def test_f5_sees_a_field_that_decodes_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoded word of the caller's that is passed on: what CVE-2024-6923 was made of."""
    real = headers.format_unstructured

    def trusting(name: str, value: str) -> bytes:
        return f"{name}: {value}\r\n".encode() if "=?" in value and value.isascii() else real(name, value)

    monkeypatch.setattr(headers, "format_unstructured", trusting)
    assert broken("F5")


def test_f7_sees_a_body_that_is_hashed_by_its_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    real = dkim.BodyHash.update
    monkeypatch.setattr(dkim.BodyHash, "update", lambda self, part: real(self, part.rstrip(b" ")))
    assert broken("F7")
