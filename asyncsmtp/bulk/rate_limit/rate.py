"""Rates as people type them: `30/s`, `10/min`, `2000/day`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from asyncsmtp.errors import InvalidArgument
from asyncsmtp.protocol.replies import safe_text

__all__ = ["MAX_EVEN_PERIOD", "Rate"]

MAX_EVEN_PERIOD = 60.0  # seconds: messages are spaced evenly within it; over a longer period they are counted

_UNITS = {"s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60}
_UNITS |= {"h": 3600, "hour": 3600, "d": 86400, "day": 86400, "week": 604800}
_FORM = re.compile(r"([0-9][0-9_]{0,11}(?:\.[0-9]{1,3})?) ?(?:/|per) ?([0-9]{1,4})? ?([a-z]+)")


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` messages in any `seconds`."""

    count: float
    seconds: float

    def __post_init__(self) -> None:
        """Raises InvalidArgument: nothing could ever be sent."""
        if not (self.count > 0 and self.seconds > 0):
            raise InvalidArgument(f"a rate of {self.count:g} in {self.seconds:g} s sends nothing: give both above 0")

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Parse one rate. Raises InvalidArgument: not a valid rate; the message shows examples."""
        found = _FORM.fullmatch(text.strip().lower())
        unit = found and (_UNITS.get(found[3]) or _UNITS.get(found[3].removesuffix("s")))
        if found is None or not unit:
            raise InvalidArgument(
                f"“{safe_text(text, 40)}” is not a valid rate: give one such as 30/s, 10/min, 500/h or 2000/day"
            )
        return cls(float(found[1].replace("_", "")), float(unit) * int(found[2] or 1))

    @classmethod
    def parse_all(cls, text: str) -> tuple[Rate, ...]:
        """Parse several rates, separated by commas; each of them applies."""
        return tuple(cls.parse(part) for part in text.split(","))

    @property
    def interval(self) -> float:
        """Seconds from one message to the next, if they are spaced evenly."""
        return self.seconds / self.count

    def __str__(self) -> str:
        unit = {1.0: "s", 60.0: "min", 3600.0: "h", 86400.0: "day"}.get(self.seconds, f"{self.seconds:g} s")
        return f"{self.count:g}/{unit}"
