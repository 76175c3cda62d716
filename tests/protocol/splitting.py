"""Ways in which a network cuts octets into reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

__all__ = ["Cut", "at", "one_by_one", "whole"]

Cut = Callable[[bytes], Iterable[bytes]]


def whole(octets: bytes) -> Iterable[bytes]:
    """One read brings all of a segment."""
    return (octets,)


def one_by_one(octets: bytes) -> Iterable[bytes]:
    """Each read brings one octet."""
    return (octets[i : i + 1] for i in range(len(octets)))


def at(octets: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut at the given places, whatever numbers they are."""
    edges = [0, *sorted(place % (len(octets) + 1) for place in places), len(octets)]
    return [octets[start:end] for start, end in pairwise(edges)]
