"""The command as it was typed, from which every hint is made: a command that is printed works as it stands.

A hint repeats the options that were typed, so that it is about the same campaign, the same ledger and the same relay.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import environ
from pathlib import Path

import click

__all__ = ["CommandLine", "format_command", "typed"]

_WHERE = ("--name", "--ledger", "--sandbox", "--env-file")
_RELAY = ("--relay", "--provider", "--user", "--ca-file", "--password-command", "--dialogue", "--env-file")


def format_command(*words: object) -> str:
    """Return `asyncsmtp` with these words, quoted for a shell."""
    return shlex.join(["asyncsmtp", *map(str, words)])


def typed() -> CommandLine:
    """Return the command line of the command that runs."""
    context = click.get_current_context(silent=True)
    found = context.find_object(CommandLine) if context is not None else None
    return found or CommandLine(())


@dataclass(frozen=True, slots=True)
class CommandLine:
    """One command line.

    Attributes:
        words: what follows `asyncsmtp`.
        group: all the commands, to tell options from their values.
    """

    words: tuple[str, ...]
    group: click.Group | None = None

    def repeat(self, *further: str, without: Sequence[str] = ()) -> str:
        """Return the same command as text, with `further` words, and without these options and their values."""
        kept = [word for option, words in self._split() if option not in without for word in words]
        further = tuple(word for word in further if word not in kept)
        end = kept.index("--") if "--" in kept else len(kept)
        return format_command(*kept[:end], *further, *kept[end:])

    def with_setting(self, option: str, value: str) -> str:
        """Return this command, or a rehearsal of its campaign, with a setting of the recipients; "" for neither."""
        words = [word for name, found in self._split() if name != option for word in found]
        if self._command is not None and any(option in each.opts for each in self._command.params):
            end = words.index("--") if "--" in words else len(words)
            return format_command(*words[:end], option, value, *words[end:])
        if self.campaign is None:
            return ""
        where = [word for name, found in self._split() if name in _WHERE for word in found]
        return format_command("bulk", self.campaign, *where, "--dry-run", option, value)

    def check_relay(self) -> str:
        """Return the command that looks at the relay of this one, with its dialogue; "" where this is that command."""
        name = self._name
        if name == "check":
            return "" if self._has("-v", "--verbose") else self.repeat("-v")
        options = (*_RELAY, "--from") if name == "send" and self._has("--provider") else _RELAY  # the user of the login
        words = [word for option, found in self._split() if option in options for word in found]
        campaign = self.campaign if name in ("bulk", "preview") else None
        typed_relay = self._has("--relay", "--provider", "--env-file") or environ.keys() & {
            "ASYNCSMTP_RELAY",
            "ASYNCSMTP_PROVIDER",
        }
        if campaign is None and not typed_relay:
            return ""
        where = [] if campaign is None else [str(campaign), "--quit-after", "login"]
        return format_command("check", *where, *words, "-v")

    def repair(self) -> str:
        """Return this command with --repair; a check becomes a rehearsal, which has that option."""
        if self._name == "check" and self.campaign is not None:
            return format_command("bulk", self.campaign, "--dry-run", "--repair", *self.env_file)
        return self.repeat("--repair")

    def begin(self) -> str:
        """Return the command that begins the campaign which this one is about; "" where its file was not typed."""
        if self.campaign is None:
            return ""
        where = [word for option, words in self._split() if option in _WHERE for word in words]
        verb = ("campaign", "load") if self._name == "work" else ("bulk",)
        return format_command(*verb, self.campaign, *where)

    def find_option(self, sentence: str) -> str:
        """Return the option that a sentence is about: it has its name, or its value in quotation marks; or ""."""
        for option, words in self._split():
            value = (words[1] if len(words) > 1 else words[0].partition("=")[2]) if option else ""
            if value and (option in sentence or f"“{value}”" in sentence or f"“{value.partition('=')[2]}”" in sentence):
                return option
        return ""

    def find_value(self, option: str) -> str:
        """Return the value that was typed for an option; "" for none."""
        for name, words in self._split():
            if name == option:
                return words[1] if len(words) > 1 else words[0].partition("=")[2]
        return ""

    @property
    def env_file(self) -> list[str]:
        """The words of --env-file, without which a command may mean another ledger or relay."""
        return [word for option, words in self._split() if option == "--env-file" for word in words]

    @property
    def help(self) -> str:
        """The command that prints the help of this one."""
        return format_command(*filter(None, [self._name]), "--help")

    @property
    def campaign(self) -> Path | None:
        """CAMPAIGN.toml, if the command has such an argument and it was typed."""
        if (command := self._command) is None or not any(each.name == "campaign" for each in command.params):
            return None
        found = next((words[0] for option, words in self._split() if not option and words[0] != self._name), None)
        return None if found is None or found == "--" else Path(found)

    @property
    def _name(self) -> str:
        return next((word for word in self.words if not word.startswith("-")), "")

    @property
    def _command(self) -> click.Command | None:
        return None if self.group is None else self.group.get_command(click.Context(self.group), self._name)

    def _has(self, *options: str) -> bool:
        return any(option in options for option, _ in self._split())

    def _split(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each option with its words as they were typed, and each other word with an empty option."""
        command = self._command
        params = command.params if command is not None else []
        options = {name: each for each in params for name in (*each.opts, *getattr(each, "former", ()))}
        words = iter(self.words)
        for word in words:
            name, has_value, _ = word.partition("=")
            if word == "--" or not word.startswith("-") or word == "-":
                yield "", [word]
                if word == "--":
                    yield from (("", [rest]) for rest in words)
                continue
            found = options.get(name)
            is_alone = found is None or has_value or _has_no_value(found)
            yield name, [word] if is_alone else [word, next(words, "")]


def _has_no_value(option: click.Parameter) -> bool:
    """Return whether an option has no value, or may stand without one."""
    is_flag = isinstance(option, click.Option) and (option.is_flag or option.count)
    return is_flag or (option.metavar or "").startswith("[")
