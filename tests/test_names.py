"""Names and prose use the words of the field: no metaphors, no word for two things, no sentence to be translated."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

from asyncsmtp.cli.main import COMMANDS, main
from tests.names import (
    CHECKS,
    DOCUMENTS,
    MAX_CLAUSE_OPENINGS,
    PACKAGES,
    PROTOCOL_WORDS,
    ROOT,
    Source,
    clause_openings,
    docstrings,
    document_words,
    duplicate_classes,
    duplicate_modules,
    sources,
)


def found_in(package: str, check: str) -> list[str]:
    """Run one check over a package of asyncsmtp."""
    return [line for source in sources() if source.package == package for line in CHECKS[check](source)]


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_and_folders_have_plain_names(package: str) -> None:
    """A name that nobody can guess, nobody can search for."""
    assert found_in(package, "modules") == []


@pytest.mark.parametrize("package", PACKAGES)
def test_classes_have_plain_names(package: str) -> None:
    """Private and nested ones too: they are read as often."""
    assert found_in(package, "classes") == []


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_parameters_and_attributes_have_plain_names(package: str) -> None:
    """A function is a verb, and a constant says what it bounds."""
    assert found_in(package, "functions") == []


def test_no_two_public_classes_share_a_name() -> None:
    """An error message or a search that says `Session` means one class."""
    assert list(duplicate_classes()) == []


def test_modules_share_a_name_as_parallel_implementations_only() -> None:
    """A traceback that says `rows.py` would leave four files to choose from."""
    assert list(duplicate_modules()) == []


def test_few_docstrings_open_with_a_clause() -> None:
    """A class is a noun phrase and a function an imperative: at most one docstring in fifty is neither."""
    found = [line for source in sources() for line in clause_openings(source)]
    number = sum(1 for source in sources() for _ in docstrings(source))
    assert len(found) <= MAX_CLAUSE_OPENINGS * number, found


@pytest.mark.parametrize("package", PACKAGES)
def test_texts_for_users_say_2xx_and_bytes(package: str) -> None:
    """Errors, help and log lines; docstrings and comments may use the words of the RFC."""
    assert found_in(package, "2yz or octets in texts for users") == []


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_comments_and_messages_use_plain_words(package: str) -> None:
    assert found_in(package, "words in docstrings, comments and messages") == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_use_plain_words(path: Path) -> None:
    assert list(document_words(path)) == []


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_says_2xx_and_bytes(name: str) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main([*filter(None, [name]), "--help"]) == 0
    assert "Usage: asyncsmtp" in printed.getvalue()
    assert PROTOCOL_WORDS.findall(printed.getvalue()) == []


@pytest.mark.parametrize(
    ("check", "place", "source"),
    [
        ("modules", "client/session/wallet.py", ""),
        ("modules", "bulk/ledger.py", ""),
        ("modules", "bulk/ledger/sqlite/ledger.py", ""),
        ("modules", "client/events/events.py", ""),
        ("modules", "bulk/pace/__init__.py", ""),
        ("modules", "bulk/running/campaign.py", ""),
        ("modules", "mail/templates/sandbox.py", ""),
        ("classes", "client/pool.py", "def f():\n    class _Room:\n        pass"),
        ("classes", "bulk/ledger/postgres/store.py", "class Session: ..."),
        ("functions", "bulk/campaign.py", "async def go(self): ..."),
        ("functions", "bulk/campaign.py", "def run(*, standby=()): ..."),
        ("functions", "bulk/campaign.py", "class A:\n    adapts: bool = True"),
        ("functions", "bulk/campaign.py", "def f(self):\n    self._told = 1"),
        ("functions", "bulk/campaign.py", "def domain_of(address): ..."),
        ("functions", "bulk/campaign.py", "MOST_BYTES = 3"),
        ("functions", "bulk/campaign.py", "CONNECT_PATIENCE = 3"),
        ("docstrings that open with a clause word", "errors.py", 'class A:\n    """What a relay has shown."""'),
        ("2yz or octets in texts for users", "errors.py", 'raise E(f"a line of {n} octets, at most 998")'),
        ("words in docstrings, comments and messages", "errors.py", "x = 1  # the rows in hand"),
        ("words in docstrings, comments and messages", "errors.py", '"""One\n\nRows of the courier."""'),
        ("words in docstrings, comments and messages", "errors.py", 'raise E(f"{n} was not heard of")'),
    ],
)
def test_each_check_finds_what_it_is_for(check: str, place: str, source: str) -> None:
    """A check that cannot fail checks nothing."""
    assert len(list(CHECKS[check](Source.parse(place, source)))) == 1


@pytest.mark.parametrize(
    ("check", "place", "source"),
    [
        ("modules", "bulk/ledger/__init__.py", ""),
        ("modules", "bulk/campaign.py", ""),
        ("modules", "client/events/__init__.py", ""),
        ("modules", "cli/commands/sandbox.py", ""),
        ("classes", "client/session/session.py", "class Session: ..."),
        ("functions", "bulk/campaign.py", "def of(cls): ...\n\ndef f():\n    told = by = 1\n    return told, by"),
        ("functions", "bulk/campaign.py", "MAX_BYTES = 3"),
        ("docstrings that open with a clause word", "errors.py", 'class A:\n    """A relay."""'),
        (
            "2yz or octets in texts for users",
            "errors.py",
            '"""A line of n octets."""\nKIND = "application/octet-stream"',
        ),
        ("words in docstrings, comments and messages", "errors.py", "x = 1  # done by hand\ny = 'hands'"),
    ],
)
def test_what_is_right_is_not_found(check: str, place: str, source: str) -> None:
    assert list(CHECKS[check](Source.parse(place, source))) == []
