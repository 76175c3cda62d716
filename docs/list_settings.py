"""List the keys of a campaign in docs/reference/settings.md from their declarations: `python docs/list_settings.py`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING
from pathlib import Path

from asyncsmtp.bulk.setup.config import KEYS, SECTIONS
from asyncsmtp.bulk.setup.config_types import (
    Choice,
    Count,
    DkimConfig,
    Key,
    RelayConfig,
    SmimeConfig,
    UnsubscribeConfig,
    WarmupConfig,
    declared_keys,
)

PAGE = Path(__file__).parent / "reference" / "settings.md"
HEAD = """\
# Settings of a campaign

Listed from `asyncsmtp/bulk/setup/config.py` by `docs/list_settings.py`; a test compares. A setting is a key of the
campaign file, an option of `asyncsmtp bulk`, a variable of the environment, and a parameter of `Campaign`. The option
goes before the variable, and that before the file. Paths in the file are relative to the file. A key that is unknown or
misspelt is an error that names the nearest one.
"""
TABLES = {
    "relays": RelayConfig,
    "dkim": DkimConfig,
    "smime": SmimeConfig,
    "unsubscribe": UnsubscribeConfig,
    "warmup": WarmupConfig,
}
NOTES = {
    "relays": "`[[relays]]` may be there several times. `[relay]`, if it is there, takes its share as well.",
    "columns": "Each key is a name for the templates, its value the column of the recipients.",
    "dkim": "Several keys are `[[dkim]]` each. `key` or `key_env` is needed.",
}


def page() -> str:
    """Return the whole of docs/reference/settings.md."""
    parts = [HEAD]
    for section in SECTIONS:
        parts += [f"## [{section}]", ""]
        whole = KEYS.get(section)
        if whole is not None:
            parts += [f"{whole.help} Parameter: `{whole.field}`{_option(whole)}.", ""]
        if section in NOTES:
            parts += [NOTES[section], ""]
        if section in TABLES:
            parts += [*_rows(declared_keys(TABLES[section]).values(), options=False), ""]
        elif whole is None:
            parts += [*_rows((key for key in KEYS.values() if key.name.startswith(f"{section}.")), options=True), ""]
    return "\n".join(parts).rstrip() + "\n"


def _rows(keys: Iterable[Key], *, options: bool) -> Iterable[str]:
    yield "| key | option, variable | parameter | default | |" if options else "| key | default | |"
    yield "|---|---|---|---|---|" if options else "|---|---|---|"
    for key in keys:
        name = key.name.rpartition(".")[2]
        text = f"{key.help}{_values(key)}".replace("|", "\\|").replace("<", "&lt;")
        if options:
            named = ", ".join(f"`{each}`" for each in (*key.options, key.variable) if each)
            yield f"| `{name}` | {named} | `{key.field}` | {_default(key)} | {text} |"
        else:
            yield f"| `{name}` | {_default(key)} | {text} |"


def _option(key: Key) -> str:
    return f", option: `{key.options[0]}`, variable: `{key.variable}`" if key.options else ""


def _values(key: Key) -> str:
    if isinstance(key.check, Choice):
        return f" One of {', '.join(f'`{word}`' for word in key.check.words)}."
    if isinstance(key.check, Count):
        return f" From {key.check.minimum}" + (f" to {key.check.maximum}." if key.check.maximum else ".")
    return ""


def _default(key: Key) -> str:
    if key.default is MISSING:
        return "" if key.name == "campaign.name" else "needed"
    if key.default in (None, (), {}):
        return ""
    return f"`{str(key.default).lower()}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
