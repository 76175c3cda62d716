"""The promises of `import asyncsmtp` and of its packages: public names, lazily loaded."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType

import pytest

import asyncsmtp
from asyncsmtp import bulk, client, errors, mail, protocol

LAZY = [asyncsmtp, client, mail, protocol, bulk]


@pytest.mark.parametrize("package", LAZY, ids=lambda package: package.__name__)
def test_every_public_name_loads(package: ModuleType) -> None:
    """They are loaded when first used: a wrong module would show only then."""
    assert [name for name in package.__all__ if getattr(package, name, None) is None] == []
    assert set(package.__all__) <= set(dir(package))


@pytest.mark.parametrize("package", LAZY, ids=lambda package: package.__name__)
def test_type_checkers_see_the_same_names(package: ModuleType) -> None:
    """The stub stands beside the table that loads."""
    stub = Path(package.__file__ or "").with_suffix(".pyi")
    imports = [node for node in ast.parse(stub.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
    stubbed = {alias.name: node.module for node in imports for alias in node.names}
    assert sorted(stubbed) == sorted(package.__all__)
    for name, home in stubbed.items():
        assert getattr(package, name) is getattr(importlib.import_module(str(home)), name), name


@pytest.mark.parametrize("package", LAZY, ids=lambda package: package.__name__)
def test_an_unknown_name_is_an_attribute_error(package: ModuleType) -> None:
    """It names the package, as Python's own does."""
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'sendmail'"):
        package.sendmail  # noqa: B018


def test_the_version_is_that_of_the_distribution() -> None:
    """It is written once, in pyproject.toml."""
    pyproject = (Path(asyncsmtp.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{asyncsmtp.__version__}"\n' in pyproject


PUBLIC = [importlib.import_module(f"asyncsmtp{name}") for name in ("", ".protocol", ".mail", ".client", ".bulk")]


@pytest.mark.parametrize("package", [protocol, bulk], ids=lambda package: package.__name__)
def test_types_in_signatures_are_public(package: ModuleType) -> None:
    """Whoever annotates a variable must be able to import its type: from the package, or from one below it."""
    wanted = [protocol] if package is protocol else PUBLIC
    missing = set()
    for name in package.__all__:
        made = inspect.unwrap(getattr(package, name))
        members = vars(made).values() if isinstance(made, type) else [made]
        for member in members:
            function = getattr(member, "fget", getattr(member, "__func__", member))
            if not inspect.isfunction(function) or (
                function.__name__.startswith("_")
                and (function.__name__ != "__init__" or function.__doc__ == "Use `open`.")
            ):
                continue
            words = {
                word for text in function.__annotations__.values() for word in re.findall(r"\b[A-Za-z]\w*", str(text))
            }
            own = vars(sys.modules[function.__module__])
            missing |= {
                word
                for word in words
                if getattr(own.get(word), "__module__", "").startswith(
                    "asyncsmtp.protocol" if package is protocol else "asyncsmtp."
                )
                and not any(word in one.__all__ for one in wanted)
            }
    assert missing == set()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with one file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "people.csv").write_text("email\nann@example.com\n", encoding="utf-8")
    return tmp_path


CALLS: Mapping[str, Callable[[], object]] = {
    "path: of a ledger": lambda: bulk.SqliteLedger.open(1, name="news", from_domain="example.org"),  # type: ignore[arg-type]
    "from_domain": lambda: bulk.SqliteLedger.open("x.ledger", name="news", from_domain=b"a"),  # type: ignore[arg-type]
    "suppressions": lambda: bulk.SqliteLedger.open("x.ledger", name="n", from_domain="a", suppressions="x.db"),
    "path: of a reader": lambda: bulk.SqliteReader.open(None),  # type: ignore[arg-type]
    "path: of recipients": lambda: bulk.RecipientFile(3),  # type: ignore[arg-type]
    "delimiter": lambda: bulk.RecipientFile("people.csv", delimiter=3),  # type: ignore[arg-type]
    "path: of a list": lambda: bulk.SuppressionList(["x.db"]),  # type: ignore[arg-type]
    "entries": lambda: bulk.SuppressionList("x.db").add(["ann@example.com"]),  # type: ignore[list-item]
    "addresses": lambda: bulk.SuppressionList("x.db").remove("ann@example.com"),
    "path: of rates": lambda: bulk.SharedRateStore(4, "a", ()),  # type: ignore[arg-type]
    "rates": lambda: bulk.RatePolicy("30/s"),  # type: ignore[arg-type]
    "text": lambda: bulk.Rate.parse(30),  # type: ignore[arg-type]
    "url": lambda: bulk.PostgresLedger.open(5, name="news", from_domain="example.org"),  # type: ignore[arg-type]
    "secret": lambda: bulk.Webhook(None, 5),  # type: ignore[arg-type]
}


async def await_if_needed(call: Callable[[], object]) -> None:
    made = call()
    if inspect.isawaitable(made):
        await made


@pytest.mark.parametrize("case", CALLS)
async def test_a_wrong_type_is_a_type_error_at_the_call(case: str, folder: Path) -> None:
    """It names the parameter, and nothing was made."""
    with pytest.raises(TypeError, match=f"^{case.partition(':')[0]} must be "):
        await await_if_needed(CALLS[case])
    assert os.listdir(folder) == ["people.csv"]


async def test_a_file_of_a_campaign_may_be_named_by_a_string(folder: Path) -> None:
    """As well as by a `Path`."""
    bulk.SuppressionList("x.db").add([bulk.Suppressed("bob@example.com")])
    ledger = await bulk.SqliteLedger.open("x.ledger", name="news", from_domain="example.org", suppressions=["x.db"])
    async with ledger:
        await ledger.load(bulk.RecipientFile("people.csv").batches())
    async with await bulk.SqliteReader.open("x.ledger") as reader:
        assert (await reader.counts()).total == 1
    bulk.SharedRateStore("rates.db", "a", [bulk.Rate.parse("1/day")]).reserve(1)
    assert list(bulk.read_mail_files("people.csv")) == [b"email\nann@example.com\n"]


@pytest.mark.parametrize("package", [client, protocol], ids=lambda package: package.__name__)
def test_types_in_annotations_are_public(package: ModuleType) -> None:
    """Whoever annotates a variable must be able to import its type from the package of its layer."""
    public = {name for layer in (asyncsmtp, client, mail, protocol) for name in layer.__all__} | set(errors.__all__)
    missing = set()
    for name in package.__all__:
        made = getattr(package, name)
        own = vars(sys.modules.get(getattr(made, "__module__", ""), package))
        for text in _annotations(made):
            for word in re.findall(r"[A-Za-z]\w+", text):
                found = own.get(word)
                is_alias = word in own and not isinstance(found, type) and not inspect.ismodule(found)
                if is_alias or str(getattr(found, "__module__", "")).startswith("asyncsmtp"):
                    missing |= {f"{word} of {name}"} if word not in public | vars(typing).keys() else set()
    assert missing == set()


def _annotations(made: object) -> Iterator[str]:
    """Yield the annotations of a function, or of a class's public fields, properties and methods."""
    functions = list(vars(made).values()) if isinstance(made, type) else [made]
    if isinstance(made, type):
        yield from (str(text) for name, text in inspect.get_annotations(made).items() if name[0] != "_")
    for function in functions:
        function = function.fget if isinstance(function, property) else getattr(function, "__func__", function)
        if inspect.isfunction(function) and (function.__name__[0] != "_" or function.__name__ == "__init__"):
            yield from map(str, function.__annotations__.values())


CHANGING = {"OpenCampaign", "RowValues", "ServerQuirks"}  # a resource, rows in a compact form, a memory
CHANGING |= {"LimitTotals", "RelayTotals", "RunTotals"}  # counters


@pytest.mark.parametrize("package", PUBLIC, ids=lambda package: package.__name__)
def test_values_cannot_be_changed(package: ModuleType) -> None:
    """They are shared by sessions and tasks, and serve as keys of a mapping."""
    made = {name: getattr(package, name) for name in package.__all__}
    values = {name: value for name, value in made.items() if isinstance(value, type) and is_dataclass(value)}
    changing = {name for name, value in values.items() if not value.__dataclass_params__.frozen}  # type: ignore[attr-defined]
    assert changing <= CHANGING


def test_all_errors_are_listed() -> None:
    """One that is not in `__all__` cannot be found in the documentation."""
    made = [name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)]
    assert sorted(set(errors.__all__) - {"check_number", "check_type"}) == sorted(made)


def test_importing_the_package_loads_nothing_heavy() -> None:
    """`asyncsmtp --help` must not wait for ssl, sqlite3 and Jinja2."""
    heavy = "import sys, asyncsmtp; print(sorted({'asyncio', 'ssl', 'sqlite3', 'jinja2', 'email'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


ON_BY_DEFAULT = frozenset(
    {
        *("bulk.campaign.Campaign.check(every)", "bulk.rate_limit.rate_policy.RatePolicy(adaptive)"),
        *("bulk.rate_limit.shared_store.SharedLimiter(required)", "bulk.setup.config.CampaignConfig(adaptive)"),
        *("bulk.setup.config_types.UnsubscribeConfig(one_click)", "mail.list_unsubscribe.Unsubscribe(one_click)"),
        "bulk.ledger.erasure.ErasedRows(is_clean)",
        *("bulk.ledger.sqlite.ledger_file.connect(write)", "bulk.ledger.sqlite.ledger_file.open_file(write)"),
        *("cli.output.console.print_result(harmless)", "cli.output.run_stats.next_steps(may_wait)"),
        *("client.config.login_config.CredentialsProvider.log_in(again)", "client.config.relay.Relay(verify)"),
        *("client.config.provider_presets.Provider(is_address)", "client.config.relay.Proxy(remote_names)"),
        *("client.session.content_sources.StreamContent(eight_bit)", "mail.conversion.images.ImagePaths.replace(add)"),
        *("mail.address.organizational_domain(private_suffixes)", "protocol.auth.auth.Mechanism(is_default)"),
        *("protocol.content.Content(needs_dot_stuffing)", "protocol.opening_handshake.OpeningOptions(verified)"),
        *("protocol.transaction.Transaction(pipelined)", "testing.script.DefaultReply(send)"),
        *("bulk.setup.config.CampaignConfig(trim)", "bulk.recipients.file.RecipientFile(trim)"),
        *("testing.script.Fin(close_notify)", "testing.state.ReceivedLine(within_limit)"),
    }
)


def functions_of(module: ModuleType) -> Iterator[tuple[str, Callable[..., object]]]:
    """The functions and methods for others that a module defines; a class stands for its `__init__`."""
    for name, thing in vars(module).items():
        if getattr(thing, "__module__", None) == module.__name__ and not name.startswith("_"):
            if inspect.isfunction(thing):
                yield name, thing
            elif inspect.isclass(thing):
                for method, value in vars(thing).items():
                    function = getattr(value, "__func__", value)
                    if inspect.isfunction(function) and (method == "__init__" or not method.startswith("_")):
                        yield name if method == "__init__" else f"{name}.{method}", function


def test_a_switch_is_off_unless_it_is_turned_on() -> None:
    """A parameter that is True or False is False by default: what is done beyond the usual is asked for."""
    found = set()
    for info in pkgutil.walk_packages(asyncsmtp.__path__, "asyncsmtp."):
        if not info.name.endswith("__main__"):
            module = importlib.import_module(info.name)
            for name, function in functions_of(module):
                given = inspect.signature(function).parameters.values()
                place = f"{info.name.removeprefix('asyncsmtp.')}.{name}"
                found |= {f"{place}({each.name})" for each in given if each.default is True}
    assert found == ON_BY_DEFAULT


DEFAULTS: dict[str, dict[str, float]] = {
    "client.config.relay.Timeouts": {
        "connect": 30,
        "tls": 30,
        "greeting": 300,
        "ehlo": 300,
        "starttls": 60,
        "auth": 60,
        "mail": 300,
        "rcpt": 300,
        "data": 120,
        "block": 180,
        "end": 600,
        "rset": 20,
        "quit": 1,
        "close": 0.5,
    },
    "client.config.relay.Relay": {"window": 4},
    "client.pool.pool.Pool": {"sessions": 10, "depth": 4, "idle": 60, "age": 300},
    "client.retry.Retry": {"max_delay": 7200, "give_up_after": 4 * 86_400, "jitter": 0.2},
    "bulk.running.runner.Run": {"concurrency": 100, "sessions": 10},
    "bulk.running.balancer.WeightedRelay": {"weight": 1},
    "bulk.setup.config_types.RelayConfig": {"weight": 1, "sessions": 10},
    "bulk.setup.config.CampaignConfig": {"offset": 0, "sessions": 10, "concurrency": 100},
    "bulk.recipients.file.RecipientFile.batches": {"size": 500},
    "bulk.recipients.preflight.run_preflight": {"compose": 1, "show": 20},
    "bulk.recipients.recipient.RowFilter": {"offset": 0},
    "bulk.setup.source_files.ConfinedFolder": {"limit": 64 << 20},
    "mail.headers.encode_words": {"limit": 75},
    "mail.templates.amounts.format_money": {"places": 2},
    "testing.relay.ScriptedRelay": {"max_size": 50 << 20, "port": 0, "round_trip": 0},
    "testing.relay.Sandbox": {"max_size": 50 << 20, "port": 0, "round_trip": 0},
    "testing.relay.ScriptedRelay.wait_for": {"messages": 1},
    "testing.relay.ScriptedRelay.wait_for_stage": {"times": 1},
    "testing.plugin.RelayInThread.wait_for": {"messages": 1, "seconds": 5},
}


@pytest.mark.parametrize("place", DEFAULTS)
def test_the_defaults_are_those_of_the_documentation(place: str) -> None:
    """RFC 5321 §4.5.3.2 has the minimum of most timeouts; a changed default changes every program that has none."""
    module, _, name = place.rpartition(".")
    holder = ""
    if module.rpartition(".")[2][:1].isupper():
        module, _, holder = module.rpartition(".")
    home = importlib.import_module(f"asyncsmtp.{module}")
    function = getattr(getattr(home, holder), name) if holder else getattr(home, name)
    given = inspect.signature(function).parameters.values()
    numbers = {each.name: each.default for each in given if type(each.default) in (int, float)}
    assert numbers == DEFAULTS[place]
