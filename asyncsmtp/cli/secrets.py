"""Where a password comes from: never from an option's value, never from a file of ours.

The most explicit source wins: --password-command, ASYNCSMTP_PASSWORD, the keyring, a prompt; for a proxy's user and
for the key of a client certificate their own variables, the keyring, a prompt.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from importlib import import_module
from pathlib import Path

from asyncsmtp import Secret
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.failures import Failed
from asyncsmtp.protocol.replies import safe_text

__all__ = ["passphrase", "password", "proxy_password"]

VARIABLE = "ASYNCSMTP_PASSWORD"
PROXY_VARIABLE = "ASYNCSMTP_PROXY_PASSWORD"
KEY_VARIABLE = "ASYNCSMTP_KEY_PASSPHRASE"
PATIENCE = 120  # seconds for a password command, which may itself be asking someone
_NO_VAULT = ("keyring.backends.null", "keyring.backends.fail", "keyrings.alt")  # forget, fail, or store in clear


def password(username: str, host: str, command: str | None) -> Secret:
    """Find the password of `username` at `host`.

    Args:
        command: what prints it, its first line; split as a shell would, run without one.
    Raises:
        Failed: no source has it, or the command fails.
    """
    if command is not None:
        return _from_command(command)
    if VARIABLE in os.environ:
        return Secret(os.environ[VARIABLE])
    found = _from_keyring(username, host)
    if found is not None:
        return found
    if console.interactive():
        return _from_prompt(username, host)
    raise Failed(
        f"no password for {safe_text(username, 80)} at {safe_text(host, 80)}",
        f"set {VARIABLE}, or add --password-command 'pass show mail', or: keyring set asyncsmtp:{host} {username}",
    )


def proxy_password(username: str, host: str) -> Secret:
    """Find the password of `username` at the proxy `host`.

    Raises:
        Failed: no source has it.
    """
    found = _from_variable(PROXY_VARIABLE) or _from_keyring(username, host)
    if found is None and console.interactive():
        found = _from_prompt(username, host)
    if found is not None:
        return found
    raise Failed(
        f"no password for {safe_text(username, 80)} at the proxy {safe_text(host, 80)}",
        f"set {PROXY_VARIABLE}, or: keyring set asyncsmtp:{host} {username}",
    )


def passphrase(key: Path) -> Secret | None:
    """Find the passphrase of a client certificate's private key; None where it is not encrypted.

    Raises:
        Failed: no source has it. OSError: the key cannot be read.
    """
    if b"ENCRYPTED" not in key.read_bytes():
        return None
    found = _from_variable(KEY_VARIABLE) or _from_keyring(str(key), "client-key")
    if found is None and console.interactive():
        found = _from_prompt(str(key), "this machine")
    if found is not None:
        return found
    raise Failed(
        f"the key {safe_text(str(key), 200)} is encrypted, and there is no passphrase",
        f"set {KEY_VARIABLE}, or: keyring set asyncsmtp:client-key {key}",
    )


def _from_variable(name: str) -> Secret | None:
    return Secret(os.environ[name]) if name in os.environ else None


def _from_command(command: str) -> Secret:
    advice = "run it by hand: its first line must be the password"
    try:
        words = shlex.split(command)
        ended = subprocess.run(words, stdout=subprocess.PIPE, timeout=PATIENCE, check=False)  # noqa: S603
    except (OSError, ValueError, IndexError) as error:
        why = getattr(error, "strerror", None) or "it is no command line"
        raise Failed(f"the password command cannot be run: {str(why).lower()}", advice) from None
    except subprocess.TimeoutExpired:
        raise Failed(f"the password command took longer than {PATIENCE} s", advice) from None
    line = ended.stdout.split(b"\n", 1)[0].rstrip(b"\r")
    if ended.returncode != 0:
        raise Failed(f"the password command ended with exit code {ended.returncode}", advice)
    if not line:
        raise Failed("the password command printed nothing", advice)
    return Secret(line.decode("utf-8", "surrogateescape"))


def _from_keyring(username: str, host: str) -> Secret | None:
    """What the keyring holds; None where it is not installed, or is no safe place."""
    try:
        keyring = import_module("keyring")
    except ImportError:
        return None
    backend = keyring.get_keyring()
    if type(backend).__module__.startswith(_NO_VAULT):
        return None
    try:
        found = keyring.get_password(f"asyncsmtp:{host}", username)
    except Exception as error:  # a backend raises what it likes; there are other sources
        console.say(f"the keyring cannot be read: {safe_text(str(error), 200)}")
        return None
    return Secret(found) if found else None


def _from_prompt(username: str, host: str) -> Secret:
    import getpass

    return Secret(getpass.getpass(f"Password of {safe_text(username, 80)} at {safe_text(host, 80)}: "))
