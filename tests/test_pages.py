"""The programs and commands in docs/ are run: those of asyncsmtp, and those of aiosmtplib and smtplib beside them."""

from __future__ import annotations

import ast
import asyncio
import inspect
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from ssl import SSLContext
from typing import Any, get_args

import pytest
import trustme

from asyncsmtp import testing
from asyncsmtp.bulk.setup.config import read_campaign_file
from asyncsmtp.cli.output.error_messages import ExitCode
from asyncsmtp.client.connection import transport
from asyncsmtp.client.events import otel, types
from asyncsmtp.mail.templates.template import Template
from asyncsmtp.testing import DEFAULT_REPLY, NO_REPLY, OFFERS, Action, Fin, ScriptedRelay, Stage, StageContext
from asyncsmtp.testing.plugin import RelayInThread
from tests.pages import GUIDES, blocks, kinds

pytest_plugins = ["pytester"]
ALL = Path(__file__).parent.parent / "docs"
DOCS = ALL / "howto"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTS = re.compile(r"# prints (.*)$", re.MULTILINE)
NAME = re.compile(r"\w+=?")
FENCED = re.compile(r"^```pytest\n(.*?)^```$", re.MULTILINE | re.DOTALL)
USERS = {"ada": "open sesame", "eve@example.net": "ya29.token"}


@dataclass(frozen=True)
class Program:
    """A block of a page, with the first block of that page, which all others continue."""

    line: int
    first: str
    text: str


def programs(name: str) -> list[Program]:
    """Return the programs of a page: marked python, or py if they use another library."""
    page = (DOCS / name).read_text(encoding="utf-8")
    found = [match for match in BLOCK.finditer(page) if match[1] in {"py", "python"}]
    return [Program(page[: match.start()].count("\n") + 1, found[0][2], match[2]) for match in found[1:]]


def gone(context: StageContext) -> Action | None:
    return "550 5.1.1 no such user" if b"<gone@" in context.line else None


def breaks(context: StageContext) -> Action:
    return (NO_REPLY, Fin()) if b"breaks after the content" in context.content else DEFAULT_REPLY


@contextmanager
def running(relay: ScriptedRelay) -> Iterator[RelayInThread]:
    thread = RelayInThread(relay)
    thread.start()
    yield thread
    thread.close()


def execute(program: str) -> None:
    """Run it as the body of a coroutine."""
    code = compile(program, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    coroutine = eval(code, {"__name__": "page"})
    if inspect.iscoroutine(coroutine):
        asyncio.run(coroutine)


def unsaid(program: Program, said: str) -> list[str]:
    """An output that the page promises was not printed."""
    return [told for told in PRINTS.findall(program.text) if told not in said]


@pytest.mark.parametrize("program", programs("migration.md"), ids=lambda program: f"line {program.line}")
def test_each_program_of_the_migration_page_runs(
    program: Program,
    ca: trustme.CA,
    server_tls: SSLContext,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Copied from the page, it prints what the page shows; its host names and ports are those of relays on loopback."""
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setattr(transport, "_create_context", transport._create_context.__wrapped__)  # made anew
    with (
        running(ScriptedRelay({Stage.RCPT: gone, Stage.END_OF_DATA: breaks}, offers=(*OFFERS, "DSN"))) as clear,
        running(ScriptedRelay(tls=server_tls, users=USERS)) as upgraded,
        running(ScriptedRelay(tls=server_tls, implicit_tls=True)) as implicit,
    ):
        here = {"2525": clear.port, "587": upgraded.port, "465": implicit.port}
        text = re.sub(r"\b(2525|587|465)\b", lambda found: str(here[found[0]]), program.first + program.text)
        execute(text.replace("mail.example.org", "localhost"))
    assert unsaid(program, capsys.readouterr().out) == []


def renamed(heading: str) -> list[list[str]]:
    """Return the cells of the rows below a heading of the migration page."""
    page = (DOCS / "migration.md").read_text(encoding="utf-8")
    rows = page.partition(f"### {heading}\n")[2].partition("\n##")[0].splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if row.startswith("| `")]


def find(dotted: str) -> Any:
    """Return what is imported from `asyncsmtp` by a name such as `testing.Stage`."""
    package, _, name = f"asyncsmtp.{dotted}".rpartition(".")
    return getattr(import_module(package), name)


def test_each_old_name_has_a_new_one_that_exists() -> None:
    """0.x has no aliases: whoever upgrades looks here."""
    rows = renamed("Public names")
    assert len(rows) == 30
    for old, new in rows:
        assert find(new.strip("`"))
        with pytest.raises(AttributeError):
            find(old.strip("`"))


def words(made: type) -> set[str]:
    """Return the members of a class and the parameters of its public methods, both with and without `=`."""
    calls = [made, *(getattr(made, name) for name in ("of", "run", "compile") if hasattr(made, name))]
    parameters = {name for call in calls for name in inspect.signature(call).parameters}
    assigned = re.findall(r"self\.([a-z]\w*)(?:: .+)? = ", inspect.getsource(made))
    members = {name for each in made.__mro__ for name in vars(each)}
    return {*members, *assigned, *parameters, *(f"{name}=" for name in parameters)}


def test_each_old_parameter_method_and_attribute_has_a_new_one_that_exists() -> None:
    """A name that is renamed again, or brought back, makes the table wrong."""
    rows = renamed("Parameters, methods and attributes")
    assert len(rows) > 70
    known = {owner: words(find(owner.strip("`"))) for owner, _, _ in rows}
    wrong = [
        (owner, old, new)
        for owner, old, new in rows
        if (now := {*NAME.findall(new)}) - known[owner] or ({*NAME.findall(old)} - now) & known[owner]
    ]
    assert wrong == []


def test_each_old_module_has_a_new_one_that_exists() -> None:
    rows = renamed("Modules")
    assert len(rows) > 25
    for olds, new in rows:
        assert all(import_module(f"asyncsmtp.{name}") for name in re.findall(r"`(?!asyncsmtp)([\w.]+)`", new))
        for old in re.findall("`(.+?)`", olds):
            with pytest.raises(ModuleNotFoundError):
                import_module(f"asyncsmtp.{old}")


@pytest.mark.parametrize("program", programs("testing.md"), ids=lambda program: f"line {program.line}")
def test_each_program_of_the_testing_page_runs(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They bring their own relays."""
    monkeypatch.chdir(tmp_path)
    execute(program.first + program.text)
    assert unsaid(program, capsys.readouterr().out) == []


@pytest.mark.parametrize("program", programs("observing.md"), ids=lambda program: f"line {program.line}")
def test_each_program_of_the_observing_page_runs(
    program: Program, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figures of the page are those of its relay."""
    monkeypatch.setattr(logging.getLogger("asyncsmtp"), "level", logging.NOTSET)
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.NullHandler()])
    with running(ScriptedRelay({Stage.RCPT: gone})) as clear:
        text = (program.first + program.text).replace("mail.example.org:2525", f"127.0.0.1:{clear.port}")
        execute(text)
    logging.getLogger("asyncsmtp").setLevel(logging.NOTSET)
    assert unsaid(program, capsys.readouterr().out) == []


def test_the_observing_page_names_every_event_and_instrument() -> None:
    """A reader would not find one that is missing."""
    page = (DOCS / "observing.md").read_text(encoding="utf-8")
    names = [kind.__name__ for kind in get_args(types.Event)]
    names += re.findall(r'"(smtp\.client\.[a-z.]+)"', Path(otel.__file__).read_text(encoding="utf-8"))
    assert len(names) == 18
    assert [name for name in names if f"`{name}`" not in page] == []


@pytest.mark.parametrize("path", sorted(ALL.rglob("*.md")), ids=lambda path: path.stem)
def test_every_block_is_of_a_kind_that_is_run(path: Path) -> None:
    """A block that is not run is wrong sooner or later; a page that is not listed here is not tested."""
    ran = {
        "migration": {"py", "python"},
        "testing": {"python", "pytest"},
        "operating": {"sh", "toml", "sql", "python"},  # the last by tests/bulk/postgres
        "observing": {"python"},
        "workers": {"sh", "python", "text"},  # by test_workers_page.py, and the examples by test_job_queues.py
        "providers": {"toml", "text"},  # logins, which need a provider
        "templates": {"jinja", "toml", "markdown"},
        "how-it-works": {"text"},  # drawings
        "commands": {"text"},  # the examples of --help, run by tests/cli/test_help.py
        "index": {"{toctree}"},
        "changelog": {"{include}"},
    }
    found = kinds(path)
    if path.relative_to(ALL).as_posix() not in GUIDES:  # those run whatever they have
        assert found == ran.get(path.stem, set())


@pytest.mark.parametrize("name", ["howto/operating.md", "howto/templates.md", "reference/providers.md"])
def test_what_a_page_writes_into_a_campaign_file_can_be_there(name: str, tmp_path: Path) -> None:
    """Each block of TOML, read as a campaign file."""
    found = [block.text for block in blocks(ALL / name) if block.language == "toml"]
    assert found
    for text in found:
        file = tmp_path / "campaign.toml"
        file.write_text(text, encoding="utf-8")
        assert read_campaign_file(file)


def test_the_program_of_the_operating_page_is_an_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with the files that it names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "campaigns").mkdir()
    (tmp_path / "unsubscribe.secret").write_text("0123456789abcdef", encoding="utf-8")
    [program] = [block.text for block in blocks(DOCS / "operating.md") if block.language == "python"]
    names: dict[str, Any] = {}
    exec(program, names)
    assert inspect.iscoroutinefunction(type(names["app"]).__call__)


def test_the_templates_of_the_templates_page_can_be_composed() -> None:
    """Each block, with cells that the page shows."""
    found = [block for block in blocks(ALL / "howto/templates.md") if block.language in ("jinja", "markdown")]
    assert len(found) == 3
    for block in found:
        lines = block.text.splitlines() if block.language == "jinja" else [block.text]
        for line in lines:
            composer = Template(from_="n@example.org", subject="x", text=line).compile(("since", "price", "name"))
            price = "1.234,50" if "input=" in line else "60.00"
            composer.compose("ann@example.org", {"since": "3/13/2026", "price": price, "name": "Ann"})


def test_the_tests_of_the_testing_page_pass(pytester: pytest.Pytester) -> None:
    """As they stand, in a folder of their own."""
    (theirs,) = FENCED.findall((DOCS / "testing.md").read_text(encoding="utf-8"))
    pytester.makepyfile(theirs)
    options = ("--override-ini=asyncio_default_fixture_loop_scope=function", "-p", "asyncsmtp.testing.plugin")
    pytester.runpytest_inprocess(*options).assert_outcomes(passed=2)


def test_the_testing_page_names_every_stage_step_and_name() -> None:
    """A reader would not find one that is missing."""
    page = (DOCS / "testing.md").read_text(encoding="utf-8")
    assert [name for name in testing.__all__ if not re.search(rf"\b{name}\b", page)] == []
    arguments = list(inspect.signature(ScriptedRelay).parameters)
    assert [name for name in arguments if not re.search(rf"\b{name}\b", page)] == []
    assert [stage.name for stage in Stage if f"`{stage.name}`" not in page] == []


@pytest.mark.slow
async def test_each_command_of_the_operating_page_runs(tmp_path: Path) -> None:
    """In the order of the page, in one folder, and each ends well."""
    commands = re.findall(r"^```sh\n(.*?)^```$", (DOCS / "operating.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euc", "".join(commands)),
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert "everyone was accepted" in said.decode()
    assert len((tmp_path / "results.ndjson").read_text().splitlines()) == 20


def test_the_operating_page_names_every_exit_code() -> None:
    """Scripts are written from it; 70 is a bug, and promised to nobody."""
    page = (DOCS / "operating.md").read_text(encoding="utf-8").partition("## From cron")[2].partition("## What")[0]
    assert {int(code) for code in re.findall(r"\b\d{1,3}\b", page)} >= {each.value for each in ExitCode} - {
        ExitCode.BUG
    }
