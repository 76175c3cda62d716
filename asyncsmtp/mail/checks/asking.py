"""Questions to the name system, asked by whoever can: a rule yields one and is sent what was answered."""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple, TypeVar

__all__ = ["Answer", "Asking", "Question", "Unanswered"]


class Question(NamedTuple):
    """What is asked for: `kind` is TXT, MX, A, AAAA or PTR; `name` is a domain, for PTR an address."""

    name: str
    kind: str


class Unanswered(Exception):
    """Nobody answered in time, or with a failure: nothing is known. Thrown into the rule that asked."""

    def __init__(self, question: Question, why: str) -> None:
        super().__init__(f"nobody answered for the {question.kind} of {question.name} ({why})")
        self.question = question


# Of MX "10 mx.example", of TXT the strings joined, names without a dot at the end; empty where there is nothing.
Answer = tuple[str, ...]
_T = TypeVar("_T")
Asking = Generator[Question, Answer, _T]
