"""A plugin of pytest by which coverage knows the test that runs a line, and which runs the tests of a list in order."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import coverage
import pytest

__all__ = [
    "pytest_collection_modifyitems",
    "pytest_runtest_logreport",
    "pytest_runtest_protocol",
    "pytest_sessionfinish",
]

_seconds: dict[str, float] = {}
_failed: set[str] = set()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Name the test as the context of what runs next; its processes read the name from their environment."""
    if (running := coverage.Coverage.current()) is not None:
        running.switch_context(item.nodeid)
    return (yield)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests that the file in ASYNCSMTP_ONLY_TESTS names, in its order.

    A change may alter the parameters in a test's name: of a test that is not found, all cases are kept.
    """
    if path := os.environ.get("ASYNCSMTP_ONLY_TESTS"):
        order = {name: place for place, name in enumerate(Path(path).read_text(encoding="utf-8").splitlines())}
        missing = {*order} - {item.nodeid for item in items}
        order |= {name.partition("[")[0]: order[name] for name in missing}
        placed = ((order.get(item.nodeid, order.get(item.nodeid.partition("[")[0])), item) for item in items)
        items[:] = [
            item for place, item in sorted((pair for pair in placed if pair[0] is not None), key=lambda pair: pair[0])
        ]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up the seconds of the test; one that fails or is skipped here notices nothing elsewhere."""
    _seconds[report.nodeid] = _seconds.get(report.nodeid, 0.0) + report.duration
    if not report.passed:
        _failed.add(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the seconds of the tests that passed."""
    path = os.environ.get("ASYNCSMTP_TEST_SECONDS")
    if path and not hasattr(session.config, "workerinput"):  # the processes of xdist leave it to the first one
        seconds = {name: took for name, took in _seconds.items() if name not in _failed}
        Path(path).write_text(json.dumps(seconds), encoding="utf-8")
