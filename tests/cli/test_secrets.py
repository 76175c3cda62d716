"""Where a password may come from, and where it may never be seen."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from asyncsmtp.cli import secret_sources
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError
from asyncsmtp.cli.secret_sources import CommandSecrets
from asyncsmtp.protocol.auth.auth import Secret

CANARY = "hunter2-c4n4ry"


@pytest.fixture(autouse=True)
def no_other_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither this machine's keyring nor its environment decides a test."""
    monkeypatch.delenv(secret_sources.VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "keyring", None)


def keyring(monkeypatch: pytest.MonkeyPatch, found: str | None, module: str = "keyring.backends.SecretService") -> None:
    """Put a keyring in place whose backend lives in `module`."""
    backend = type("Keyring", (), {"__module__": module})()
    fake = ModuleType("keyring")
    fake.get_keyring = lambda: backend  # type: ignore[attr-defined]
    fake.get_password = lambda service, user: found if service == "asyncsmtp:relay.example" else None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", fake)


def test_the_most_explicit_source_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """AU-11: an option, the environment, the keyring; a person is asked only when all are silent."""
    keyring(monkeypatch, "from the keyring")
    assert CommandSecrets().password("user", "relay.example").reveal() == "from the keyring"
    monkeypatch.setenv(secret_sources.VARIABLE, "from the environment")
    assert CommandSecrets().password("user", "relay.example").reveal() == "from the environment"
    assert (
        CommandSecrets("printf 'from the command\\nsecond line'").password("user", "relay.example").reveal()
        == "from the command"
    )


def test_a_person_is_asked_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt in a cron job hangs for ever."""
    with pytest.raises(CommandError, match=r"no password for user at relay\.example") as caught:
        CommandSecrets().password("user", "relay.example")
    assert "ASYNCSMTP_PASSWORD" in caught.value.failure.advice
    monkeypatch.setattr(console, "is_interactive", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda prompt: CANARY)
    assert CommandSecrets().password("user", "relay.example").reveal() == CANARY


@pytest.mark.parametrize("module", ["keyring.backends.null", "keyring.backends.fail", "keyrings.alt.file"])
def test_a_keyring_that_keeps_passwords_in_clear_or_not_at_all_is_no_source(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    """AU-14: a plaintext file that calls itself a keyring."""
    keyring(monkeypatch, CANARY, module)
    with pytest.raises(CommandError, match="no password"):
        CommandSecrets().password("user", "relay.example")


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("false", "the password command ended with exit code 1"),
        ("true", "the password command printed nothing"),
        ("/nonexistent/pass show", "the password command cannot be run: no such file or directory"),
        ("pass 'show", "the password command cannot be run: it is no command line"),
        ("", "the password command cannot be run: it is no command line"),
    ],
)
def test_a_password_command_that_fails_is_one_sentence(command: str, sentence: str) -> None:
    """Wrong quoting, a locked vault: told, and never the next source tried instead."""
    with pytest.raises(CommandError, match=f"^{sentence}"):
        CommandSecrets(command).password("user", "relay.example")


def test_a_password_command_is_run_without_a_shell(capfd: pytest.CaptureFixture[str]) -> None:
    """What stands in it is words, not a program."""
    assert CommandSecrets("echo a; echo b").password("user", "relay.example").reveal() == "a; echo b"


def test_the_others_have_sources_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """AU-11: a relay's password is not tried on a proxy, nor on a key; the keyring and a person are asked as ever."""
    key = tmp_path / "ann.key"
    key.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    monkeypatch.setenv(secret_sources.VARIABLE, "of the relay")
    with pytest.raises(CommandError, match="no password for bob at the proxy p") as caught:
        CommandSecrets().proxy_password("bob", "p")
    assert secret_sources.PROXY_VARIABLE in caught.value.failure.advice
    with pytest.raises(CommandError, match="is encrypted") as caught:
        CommandSecrets().passphrase(key)
    assert secret_sources.KEY_VARIABLE in caught.value.failure.advice
    with monkeypatch.context() as inner:
        inner.setattr(console, "is_interactive", lambda: True)
        inner.setattr("getpass.getpass", lambda prompt: CANARY)
        assert CommandSecrets().proxy_password("bob", "p") == CommandSecrets().passphrase(key) == Secret(CANARY)
    keyring(monkeypatch, "from the keyring")
    assert CommandSecrets().proxy_password("user", "relay.example") == Secret("from the keyring")
    monkeypatch.setenv(secret_sources.PROXY_VARIABLE, "of the proxy")
    monkeypatch.setenv(secret_sources.KEY_VARIABLE, "of the key")
    assert CommandSecrets().proxy_password("bob", "p") == Secret("of the proxy")
    assert CommandSecrets().passphrase(key) == Secret("of the key")
    key.write_text("-----BEGIN PRIVATE KEY-----")
    assert CommandSecrets().passphrase(key) is None
