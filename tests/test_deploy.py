"""The files in examples/deploy are right, as far as this can be told without Docker and without being init."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.interop.postgres import Postgres

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "examples" / "deploy"
COMMAND = Path(sys.executable).with_name("asyncsmtp")
INSTRUCTION = re.compile(r"^([A-Z]+) ((?:.*\\\n)*.*)$", re.MULTILINE)


def instructions() -> Iterator[tuple[str, str]]:
    """Yield the instructions of the Dockerfile, each with its arguments in one line."""
    for name, words in INSTRUCTION.findall((DEPLOY / "Dockerfile").read_text(encoding="utf-8")):
        yield name, " ".join(words.replace("\\\n", " ").split())


def mailer() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]["mailer"]
    return found


def unit(name: str) -> ConfigParser:
    """Read a unit of systemd; of a key that is there twice the last value."""
    found = ConfigParser(strict=False, interpolation=None, delimiters="=", comment_prefixes="#")
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read(DEPLOY / name, encoding="utf-8")
    return found


def run(*words: object, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run with nothing in the environment but what is given."""
    path = f"{COMMAND.parent}:/usr/bin:/bin"
    return subprocess.run(
        [*map(str, words)], cwd=cwd, env={"PATH": path} | env, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_image_is_built_in_two_stages_and_runs_without_root() -> None:
    """A compiler, pip or root in the image is of use to an attacker only."""
    found = list(instructions())
    assert [words for name, words in found if name == "FROM"] == ["python:3.13-slim AS build", "python:3.13-slim"]
    assert [words for name, words in found if name == "USER"] == ["10001:10001"]
    last = [name for name, _ in found]
    assert last.index("USER") > max(at for at, name in enumerate(last) if name in {"FROM", "COPY", "RUN"})
    assert ("STOPSIGNAL", "SIGTERM") in found
    assert dict(found)["ENTRYPOINT"] == '["asyncsmtp"]'
    assert "ADD" not in last
    assert any("uninstall --yes pip" in words for name, words in found if name == "RUN")


def test_the_files_that_are_copied_make_the_whole_package(tmp_path: Path) -> None:
    """A wheel is built of what COPY names, in a folder with nothing else; a file left out would be missing in it."""
    source = tmp_path / "source"
    copied = []
    for name, words in instructions():
        if name == "COPY" and not words.startswith("--from"):
            *names, target = words.split()
            for each in names:
                to = source / target / each if target == "./" else source / target
                to.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / each).is_dir():
                    shutil.copytree(ROOT / each, to, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / each, to)
                copied.append(each)
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert sorted(line[1:] for line in ignored if line.startswith("!")) == sorted(copied)
    build = "import sys, hatchling.build; print(hatchling.build.build_wheel(sys.argv[1]))"
    done = run(sys.executable, "-c", build, tmp_path, cwd=source)
    assert done.returncode == 0, done.stderr
    wheel = zipfile.ZipFile(tmp_path / done.stdout.split()[-1])
    packed = {name for name in wheel.namelist() if name.startswith("asyncsmtp/")}
    here = (path for path in (ROOT / "asyncsmtp").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert packed == {path.relative_to(ROOT).as_posix() for path in here}


def test_the_extras_of_the_image_exist() -> None:
    """pip only warns of one that does not."""
    [extras] = [re.findall(r"\[(.*?)\]", words)[0] for name, words in instructions() if "pip install" in words]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert [extra for extra in extras.split(",") if f"\n{extra} = [" not in project] == []


def test_the_services_agree_about_the_database() -> None:
    """The user, the name and the password of the database are said twice."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    made, used = services["database"]["environment"], services["mailer"]["environment"]
    assert used["ASYNCSMTP_LEDGER"] == f"postgresql://{made['POSTGRES_USER']}@database/{made['POSTGRES_DB']}"
    assert used["PGPASSWORD"] == made["POSTGRES_PASSWORD"]
    build = services["mailer"]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    assert set(services["database"]["networks"]) == {"inside"}


@pytest.mark.slow
def test_the_command_of_the_mailer_runs_with_a_database(tmp_path: Path, postgres: Postgres) -> None:
    """As in the container, with its environment; a rehearsal, but with the ledger that is named."""
    run(COMMAND, "init", ".", "--rows", "30", cwd=tmp_path)
    environment = {name: str(value) for name, value in mailer()["environment"].items()}
    environment |= {"ASYNCSMTP_LEDGER": postgres.url, "PGPASSWORD": "unused", "HOME": str(tmp_path)}
    sandbox = [COMMAND, "sandbox", "--port", "0", "--maildir", tmp_path / "got"]
    with subprocess.Popen(sandbox, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as relay:
        try:
            assert relay.stdout is not None
            environment["ASYNCSMTP_RELAY"] = relay.stdout.readline().strip()
            ended = run(COMMAND, *mailer()["command"], cwd=tmp_path, **environment)
            assert ended.returncode == 0, ended.stderr
            counted = run(COMMAND, "status", "campaign.toml", "--json", cwd=tmp_path, **environment)
            assert json.loads(counted.stdout)["accepted"] == 30
        finally:
            relay.kill()


def test_the_command_of_the_service_runs(tmp_path: Path) -> None:
    """With the variables of the unit; the credential is a file that it names."""
    service = unit("asyncsmtp@.service")["Service"]
    text = (DEPLOY / "asyncsmtp@.service").read_text(encoding="utf-8")
    (tmp_path / "password").write_text("secret\n", encoding="utf-8")
    assert "LoadCredential=password:" in text
    variables = [shlex.split(line)[0] for line in re.findall(r"^Environment=(.*)$", text, re.MULTILINE)]
    environment = dict(each.replace("%d", str(tmp_path)).split("=", 1) for each in variables)
    environment["XDG_STATE_HOME"] = str(tmp_path / "state")
    run(COMMAND, "init", ".", "--rows", "10", cwd=tmp_path)
    program, *words = shlex.split(service["ExecStart"])
    assert program == "/opt/asyncsmtp/bin/asyncsmtp"
    ended = run(COMMAND, *words, "--sandbox", cwd=tmp_path, **environment)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["rows"]["accepted"] == 10
    printed = run(*shlex.split(environment["ASYNCSMTP_PASSWORD_COMMAND"]), cwd=tmp_path)
    assert printed.stdout == "secret\n"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """No unknown key, a calendar that can be read, and little that the service could do to the machine."""
    for name in ("asyncsmtp@.service", "asyncsmtp@.timer"):
        text = (DEPLOY / name).read_text(encoding="utf-8").replace("/opt/asyncsmtp/bin/asyncsmtp", str(COMMAND))
        (tmp_path / name.replace("@", "@news")).write_text(text, encoding="utf-8")
    units = [str(tmp_path / f"asyncsmtp@news.{kind}") for kind in ("service", "timer")]
    verified = run("systemd-analyze", "verify", "--man=no", *units, cwd=tmp_path)
    assert (verified.returncode, verified.stderr) == (0, "")
    calendar = unit("asyncsmtp@.timer")["Timer"]["OnCalendar"]
    assert run("systemd-analyze", "calendar", calendar, cwd=tmp_path).returncode == 0
    judged = run("systemd-analyze", "security", "--offline=true", "--threshold=25", units[0], cwd=tmp_path)
    assert judged.returncode == 0, judged.stdout[-300:]
