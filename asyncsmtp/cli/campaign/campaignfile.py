"""Reading campaign.toml: every key known, every value of its kind, every path relative to the file."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from asyncsmtp.cli.campaign.keys import KEYS
from asyncsmtp.cli.output.failures import Failed
from asyncsmtp.protocol.replies import safe_text

__all__ = ["read"]

MAX_OCTETS = 1024 * 1024
_SECRETS = frozenset({"password", "passwd", "passphrase", "secret", "token", "api_key", "apikey"})

_NAMES: dict[str, list[str]] = {}  # section -> its keys
for _key in KEYS:
    _NAMES.setdefault(_key.partition(".")[0], []).extend(filter(None, [_key.partition(".")[2]]))


def read(path: Path) -> dict[str, object]:
    """Read a campaign file; return its values by the names of `keys.KEYS`.

    Raises:
        Failed: it cannot be read, is no TOML, or holds a key that is unknown, misspelt, of another
            kind, or a secret: nothing is ever silently ignored.
    """
    return dict(_checked(path, _parse(path)))


def _parse(path: Path) -> Mapping[str, object]:
    import tomllib

    try:
        with path.open("rb") as file:
            octets = file.read(MAX_OCTETS + 1)
        if len(octets) > MAX_OCTETS:
            raise Failed(f"{path} is too large for a campaign file", "name the campaign.toml, not the recipients")
        return tomllib.loads(octets.decode("utf-8-sig"))
    except IsADirectoryError:
        raise Failed(
            f"{path} is a folder, not a campaign file", f"name the file in it: {path / 'campaign.toml'}"
        ) from None
    except FileNotFoundError:
        advice = "correct the name, or begin with a sample: asyncsmtp init demo"
        raise Failed(f"there is no campaign file {path}", advice) from None
    except UnicodeDecodeError as error:
        raise Failed(f"{path}: octet {error.start} is not UTF-8", "save the file as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise Failed(f"{path} is not TOML: {safe_text(str(error), 200)}", "correct that line of the file") from error


def _checked(path: Path, document: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for section, table in document.items():
        if section in KEYS:
            yield section, _value(path, section, "", table)
            continue
        if section not in _NAMES or not isinstance(table, dict):
            raise _unknown_section(path, section, table)
        for name, value in table.items():
            yield f"{section}.{name}", _value(path, section, name, value)


def _value(path: Path, section: str, name: str, value: object) -> object:
    key = f"{section}.{name}" if name else section
    if name.lower() in _SECRETS:
        raise _secret(path, section, name)
    if key not in KEYS:
        raise _unknown_key(path, section, name)
    try:
        return KEYS[key].kind(value, path.parent)
    except ValueError as error:
        where = f"[{section}] {name}".rstrip()
        raise Failed(f"{path}, {where}: {error}", "correct it in the file, then run the command again") from None


def _unknown_section(path: Path, section: str, table: object) -> Failed:
    advice = f"the sections are {', '.join(f'[{name}]' for name in _NAMES)}"
    shown = safe_text(section, 60)
    if isinstance(table, dict):
        return Failed(f"{path}: unknown section [{shown}]{_meant(section, _NAMES, '[{}]')}", advice)
    for home, names in _NAMES.items():
        if section in names:
            return Failed(f"{path}: “{shown}” stands before any section", f"put it under [{home}]")
    return Failed(f"{path}: unknown key “{shown}”, before any section", advice)


def _unknown_key(path: Path, section: str, name: str) -> Failed:
    meant = _meant(name, _NAMES[section], "“{}”")
    for home, names in _NAMES.items():
        meant = meant or _meant(name, names, f"“{{}}” in [{home}]")
    sentence = f"{path}, [{section}]: unknown key “{safe_text(name, 60)}”{meant}"
    return Failed(sentence, f"[{section}] may have {', '.join(_NAMES[section])}")


def _meant(word: str, words: Iterable[str], form: str) -> str:
    from difflib import get_close_matches

    found = get_close_matches(word, list(words), 1)
    return f"; did you mean {form.format(found[0])}?" if found else ""


def _secret(path: Path, section: str, name: str) -> Failed:
    """A secret in the file is refused whoever can read it, and more loudly when others can."""
    exposed = path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)
    loudly = "; other users of this machine can read it there, so change it" if exposed else ""
    return Failed(
        f"{path}, [{section}] {name}: a campaign file holds no secrets{loudly}",
        "take it out; set ASYNCSMTP_PASSWORD, or password_command in [relay]",
    )
