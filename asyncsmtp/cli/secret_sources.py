"""Secrets of the command: passwords, passphrases and OAuth logins, from all their sources.

The most explicit source wins: --password-command, ASYNCSMTP_PASSWORD, the keyring, a prompt; for a proxy's user and
for the key of a client certificate their own variables, the keyring, a prompt. In the keyring, a login by
`asyncsmtp login` goes before a password: whoever has made one means it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncsmtp import Secret
from asyncsmtp.cli.command_line import format_command
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError
from asyncsmtp.errors import MissingDependency, TokenFailed
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.client.config.login_config import Token
    from asyncsmtp.client.config.oauth import OAuthLogin

__all__ = ["CommandSecrets", "KeptLogin", "Keyring", "run_secret_command"]

VARIABLE = "ASYNCSMTP_PASSWORD"
PROXY_VARIABLE = "ASYNCSMTP_PROXY_PASSWORD"
KEY_VARIABLE = "ASYNCSMTP_KEY_PASSPHRASE"
COMMAND_TIMEOUT = 120  # seconds for a password command, which may itself be asking someone
_UNSAFE_KEYRINGS = ("keyring.backends.null", "keyring.backends.fail", "keyrings.alt")  # forget, fail, or store in clear


@dataclass(frozen=True, slots=True)
class CommandSecrets:
    """Secrets from all sources; each method raises CommandError if no source has the secret.

    Attributes:
        command: prints the password, its first line; split as a shell would, run without one.
        silent: nobody at the terminal is asked for what no other source has.
    """

    command: str | None = None
    silent: bool = False

    def password(self, username: str, host: str) -> Secret:
        """Find the password of `username` at `host`. Raises CommandError: also if the command fails."""
        if self.command is not None:
            return run_secret_command(self.command, "password")
        name, where = safe_text(username, 80), safe_text(host, 80)
        advice = f"set {VARIABLE}, or add --password-command 'pass show mail', or: {_keyring_set(host, username)}"
        return _find(VARIABLE, username, host, f"no password for {name} at {where}", advice, silent=self.silent)

    def token(self, username: str, host: str) -> KeptLogin | None:
        """Find the login that `asyncsmtp login` keeps for `username` at `host`; None if a password was given."""
        if self.command is not None or VARIABLE in os.environ or (keyring := Keyring.find()) is None:
            return None
        return KeptLogin.find(keyring, username, host)

    def proxy_password(self, username: str, host: str) -> Secret:
        """Find the password of `username` at the proxy `host`."""
        missing = f"no password for {safe_text(username, 80)} at the proxy {safe_text(host, 80)}"
        advice = f"set {PROXY_VARIABLE}, or: {_keyring_set(host, username)}"
        return _find(PROXY_VARIABLE, username, host, missing, advice, silent=self.silent)

    def passphrase(self, key: Path) -> Secret | None:
        """Find the passphrase of a client certificate's private key; None where it is not encrypted.

        Raises:
            OSError: the key cannot be read.
        """
        if b"ENCRYPTED" not in key.read_bytes():
            return None
        missing = f"the key {safe_text(str(key), 200)} is encrypted, and there is no passphrase"
        advice = f"set {KEY_VARIABLE}, or: {_keyring_set('client-key', str(key))}"
        return _find(KEY_VARIABLE, str(key), "client-key", missing, advice, silent=self.silent)


def _keyring_set(host: str, username: str) -> str:
    return shlex.join(["keyring", "set", f"asyncsmtp:{host}", username])


def _find(variable: str, username: str, host: str, missing: str, advice: str, *, silent: bool) -> Secret:
    """Find a secret in a variable or the keyring, or ask for it."""
    if variable in os.environ:
        return Secret(os.environ[variable])
    found = _from_keyring(username, host)
    if found is None and not silent and console.is_interactive():
        import getpass

        place = "this machine" if variable == KEY_VARIABLE else safe_text(host, 80)
        found = Secret(getpass.getpass(f"Password of {safe_text(username, 80)} at {place}: "))
    if found is None:
        raise CommandError(missing, advice)
    return found


def run_secret_command(command: str, what: str) -> Secret:
    """Return the first line that a command prints; an error calls it `what`."""
    advice = f"run it by hand: its first line must be the {what}"
    try:
        words = shlex.split(command)
        ended = subprocess.run(words, stdout=subprocess.PIPE, timeout=COMMAND_TIMEOUT, check=False)  # noqa: S603
    except (OSError, ValueError, IndexError) as error:
        why = getattr(error, "strerror", None) or "it is no command line"
        raise CommandError(f"the {what} command cannot be run: {str(why).lower()}", advice) from None
    except subprocess.TimeoutExpired:
        raise CommandError(f"the {what} command took longer than {COMMAND_TIMEOUT} s", advice) from None
    line = ended.stdout.split(b"\n", 1)[0].rstrip(b"\r")
    if ended.returncode != 0:
        raise CommandError(f"the {what} command ended with exit code {ended.returncode}", advice)
    if not line:
        raise CommandError(f"the {what} command printed nothing", advice)
    return Secret(line.decode("utf-8", "surrogateescape"))


# The keyring of the system, with the extra.


class Keyring:
    """The keyring of the system: entries by a service and a user name."""

    def __init__(self, package: Any) -> None:
        self._package = package

    @classmethod
    def find(cls) -> Keyring | None:
        """Return the keyring; None where it is not installed, or is not safe."""
        try:
            package = import_module("keyring")
        except ImportError:
            return None
        backend = type(package.get_keyring()).__module__
        return None if backend.startswith(_UNSAFE_KEYRINGS) else cls(package)

    @classmethod
    def require(cls, purpose: str) -> Keyring:
        """Return the keyring.

        Raises:
            MissingDependency: it is not installed. CommandError: the system has none that keeps a secret.
        """
        if (found := cls.find()) is not None:
            return found
        try:
            import_module("keyring")
        except ImportError:
            raise MissingDependency(purpose, "asyncsmtp[oauth]") from None
        raise CommandError(
            "this system has no keyring that keeps a secret from others",
            "start one, such as GNOME Keyring or KWallet, or set one up: https://pypi.org/project/keyring; without "
            "one, log in with an app password from --password-command",
        )

    def read(self, service: str, username: str) -> str | None:
        """Return an entry; None if there is none, or the keyring cannot be read, which is printed."""
        try:
            found = self._package.get_password(f"asyncsmtp:{service}", username)
        except Exception as error:  # a backend raises what it likes; there are other sources
            console.print_warning(f"the keyring cannot be read: {safe_text(str(error), 200)}")
            return None
        return found if isinstance(found, str) and found else None

    def write(self, service: str, username: str, text: str) -> None:
        """Keep an entry. Raises CommandError: the keyring does not take it."""
        try:
            self._package.set_password(f"asyncsmtp:{service}", username, text)
        except Exception as error:
            why = safe_text(str(error), 200) or type(error).__name__
            raise CommandError(
                f"the keyring did not keep it: {why}", "unlock it, then run the same command again"
            ) from None

    def remove(self, service: str, username: str) -> None:
        """Remove an entry that is there. Raises CommandError: the keyring does not do it."""
        try:
            self._package.delete_password(f"asyncsmtp:{service}", username)
        except Exception as error:
            why = safe_text(str(error), 200) or type(error).__name__
            raise CommandError(
                f"the keyring did not remove it: {why}", "unlock it, then run the same command again"
            ) from None


def _from_keyring(username: str, host: str) -> Secret | None:
    """Return what the keyring holds; None where it is not installed, or is not safe."""
    keyring = Keyring.find()
    found = keyring.read(host, username) if keyring is not None else None
    return Secret(found) if found else None


@dataclass(frozen=True, slots=True)
class KeptLogin:
    """An OAuth login in the keyring, a source of access tokens (see `TokenSource`).

    Attributes:
        username, host: whom it logs in, and where.
        login: what gets access tokens.
        words: of the command line that made it, for the one that makes it again.
    """

    keyring: Keyring
    username: str
    host: str
    login: OAuthLogin
    words: Sequence[str]

    @classmethod
    def find(cls, keyring: Keyring, username: str, host: str) -> KeptLogin | None:
        """Read it from the keyring; None if there is none."""
        if (text := keyring.read(f"oauth:{host}", username)) is None:
            return None
        from asyncsmtp.client.config.oauth import OAuthLogin  # late: few have such a login

        try:
            kept = json.loads(text)
            login = OAuthLogin.from_json(json.dumps(kept["login"]))
            words = [str(word) for word in kept["words"]]
        except (ValueError, KeyError, TypeError):
            return None
        return None if login is None else cls(keyring, username, host, login, words)

    def keep(self) -> None:
        """Write it to the keyring. Raises CommandError: it does not take it."""
        text = json.dumps({"login": json.loads(self.login.to_json()), "words": list(self.words)})
        self.keyring.write(f"oauth:{self.host}", self.username, text)

    def forget(self) -> None:
        """Remove it from the keyring. Raises CommandError: the keyring does not do it."""
        self.keyring.remove(f"oauth:{self.host}", self.username)

    async def __call__(self) -> Token:
        """Fetch an access token, with what the keyring holds by now: another process may have renewed the login.

        Raises:
            TokenFailed: the login has ended; the advice is the command that logs in again.
        """
        kept = await asyncio.to_thread(self.find, self.keyring, self.username, self.host) or self
        try:
            token, renewed = await kept.login.fetch_token()
        except TokenFailed as error:
            if error.advice == "log in again":
                who = f"{safe_text(self.username, 80)}: {error.why}"
                raise TokenFailed(who, format_command("login", *self.words)) from None
            raise
        if renewed is not kept.login:
            await asyncio.to_thread(KeptLogin(self.keyring, self.username, self.host, renewed, kept.words).keep)
        return token
