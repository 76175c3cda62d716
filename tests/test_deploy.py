"""The files in examples/deploy are right, as far as this can be told without Docker and without being init."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from asyncsmtp.testing import ScriptedRelay, Stage
from tests.cli.serving import serving
from tests.interop.postgres import Postgres

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "examples" / "deploy"
COMMAND = Path(sys.executable).with_name("asyncsmtp")
INSTRUCTION = re.compile(r"^([A-Z]+) ((?:.*\\\n)*.*)$", re.MULTILINE)


def instructions() -> Iterator[tuple[str, str]]:
    """Yield the instructions of the Dockerfile, each with its arguments in one line."""
    for name, words in INSTRUCTION.findall((DEPLOY / "Dockerfile").read_text(encoding="utf-8")):
        yield name, " ".join(words.replace("\\\n", " ").split())


def read_yaml(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    return found


def mailer() -> dict[str, Any]:
    found: dict[str, Any] = read_yaml("compose.yaml")["services"]["mailer"]
    return found


def pod() -> dict[str, Any]:
    """Return what the Job of Kubernetes says of its pods."""
    found: dict[str, Any] = read_yaml("kubernetes.yaml")["spec"]["template"]["spec"]
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


@pytest.mark.parametrize("name", ["compose.yaml", "compose-workers.yaml"])
def test_the_services_agree_about_the_database(name: str) -> None:
    """The user, the name and the password of the database are said twice."""
    services = read_yaml(name)["services"]
    made = services.pop("database")
    assert set(made["networks"]) == {"inside"}
    for service in services.values():
        used = service["environment"]
        user, database = made["environment"]["POSTGRES_USER"], made["environment"]["POSTGRES_DB"]
        assert used["ASYNCSMTP_LEDGER"] == f"postgresql://{user}@database/{database}"
        assert used["PGPASSWORD"] == made["environment"]["POSTGRES_PASSWORD"]
        build = service["build"]
        assert (DEPLOY / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]).is_file()


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


@contextmanager
def workers(folder: Path, postgres: Postgres) -> Iterator[tuple[ScriptedRelay, dict[str, str]]]:
    """A campaign of 30 rows that is loaded, a relay that rejects one of them, and the environment of a worker."""
    environment = {"ASYNCSMTP_LEDGER": postgres.url, "PGPASSWORD": "unused", "HOME": str(folder)}
    run(COMMAND, "init", ".", "--rows", "30", cwd=folder)
    with serving(ScriptedRelay({Stage.RCPT: {1: "550 5.1.1 no such user"}})) as relay:
        environment["ASYNCSMTP_RELAY"] = f"smtp://127.0.0.1:{relay.port}?security=none"
        loaded = run(
            COMMAND, *read_yaml("compose-workers.yaml")["services"]["load"]["command"], cwd=folder, **environment
        )
        assert loaded.returncode == 0, loaded.stderr
        yield relay, environment


def anywhere(text: str) -> str:
    """Return a command that listens at a free port of this machine instead of 9464."""
    assert text.count(":9464") == 1
    return re.sub(r"[\d.]+:9464", "127.0.0.1:0", text)


@pytest.mark.slow
def test_the_commands_of_the_workers_in_compose_run(tmp_path: Path, postgres: Postgres) -> None:
    """The recipients are loaded by one service, and sent by the others, which do not read them."""
    with workers(tmp_path, postgres) as (relay, environment):
        words = [anywhere(word) if ":9464" in word else word for word in worker_of_compose()["command"]]
        ended = run(COMMAND, *words, cwd=tmp_path, **environment)
        assert ended.returncode == 1, ended.stderr
    assert len(relay.received) == 29


def worker_of_compose() -> dict[str, Any]:
    found: dict[str, Any] = read_yaml("compose-workers.yaml")["services"]["worker"]
    assert [f"0.0.0.0:{port}" for port in found["expose"]] == [found["command"][-1]]
    return found


@pytest.mark.slow
def test_the_command_of_the_job_runs(tmp_path: Path, postgres: Postgres) -> None:
    """All is sent, so that the Job is complete, although one was rejected; a wrong setting fails it."""
    [container] = pod()["containers"]
    [script] = container["args"]
    assert container["command"] == ["sh", "-c"]
    with workers(tmp_path, postgres) as (relay, environment):
        (tmp_path / "state").mkdir()
        path = f"{COMMAND.parent}:/usr/bin:/bin"
        ended = run("sh", "-c", anywhere(script), cwd=tmp_path, PATH=path, **environment)
        assert ended.returncode == 0, ended.stderr
        (tmp_path / "campaign.toml").write_text("[campaign]\n", encoding="utf-8")
        wrong = run("sh", "-c", anywhere(script), cwd=tmp_path, PATH=path, **environment)
        rules = read_yaml("kubernetes.yaml")["spec"]["podFailurePolicy"]["rules"]
        assert rules[0]["action"] == "FailJob"
        assert rules[0]["onExitCodes"]["values"] == [wrong.returncode]
    assert len(relay.received) == 29
    named = {each["name"]: each for each in container["env"]}
    assert named.keys() <= {"ASYNCSMTP_LEDGER", "PGPASSWORD", "ASYNCSMTP_PASSWORD"}


@pytest.mark.slow
def test_a_pod_that_is_ended_finishes_what_is_under_way(tmp_path: Path, postgres: Postgres) -> None:
    """SIGTERM reaches the command in the shell, which waits for it; the code is one that another pod makes up for."""
    [script] = pod()["containers"][0]["args"]
    with workers(tmp_path, postgres) as (_, environment):
        paused = run(COMMAND, "campaign", "pause", "campaign.toml", cwd=tmp_path, **environment)
        assert paused.returncode == 0, paused.stderr
        environment["PATH"] = f"{COMMAND.parent}:/usr/bin:/bin"
        command = ["sh", "-c", anywhere(script)]
        with subprocess.Popen(
            command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as shell:
            try:
                assert shell.stderr is not None
                for line in shell.stderr:
                    if "is paused: this worker waits" in line:
                        break
                shell.send_signal(signal.SIGTERM)
                code = shell.wait(60)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(shell.pid, signal.SIGKILL)
        rules = read_yaml("kubernetes.yaml")["spec"]["podFailurePolicy"]["rules"]
        assert (rules[1]["action"], code in rules[1]["onExitCodes"]["values"]) == ("Ignore", True)
        [(state,)] = postgres.execute("SELECT gone FROM asyncsmtp.worker")
        assert state == 1  # it has left by itself


def test_the_job_is_one_that_kubernetes_accepts() -> None:
    """By the schemas of Kubernetes, without an unknown key; and what is mounted is there."""
    validate = pytest.importorskip("kubernetes_validate")
    validate.validate(read_yaml("kubernetes.yaml"), "1.33", strict=True)
    spec = pod()
    mounted = {each["name"] for container in spec["containers"] for each in container["volumeMounts"]}
    assert mounted == {each["name"] for each in spec["volumes"]}
    job = read_yaml("kubernetes.yaml")["spec"]
    assert (spec["restartPolicy"], "completions" in job) == ("Never", False)  # as podFailurePolicy and a queue need it
    rules = job["podFailurePolicy"]["rules"]
    assert {rule["onExitCodes"]["containerName"] for rule in rules if "onExitCodes" in rule} == {
        container["name"] for container in spec["containers"]
    }


@pytest.mark.slow
def test_the_command_of_the_workers_in_systemd_runs(tmp_path: Path, postgres: Postgres) -> None:
    """With the variables of the unit; of the exit codes those are a success after which it must not start again."""
    service = unit("asyncsmtp-workers@.service")["Service"]
    text = (DEPLOY / "asyncsmtp-workers@.service").read_text(encoding="utf-8")
    variables = [shlex.split(line)[0] for line in re.findall(r"^Environment=(.*)$", text, re.MULTILINE)]
    units = dict(each.replace("%d", str(tmp_path)).split("=", 1) for each in variables)
    assert units.pop("METRICS") == "127.0.0.1:9464"
    (tmp_path / "password").write_text("secret\n", encoding="utf-8")
    (tmp_path / "pgpass").touch(0o600)
    units["XDG_STATE_HOME"] = str(tmp_path / "state")
    program, *words = shlex.split(service["ExecStart"].replace("${METRICS}", "127.0.0.1:0"))
    assert program == "/opt/asyncsmtp/bin/asyncsmtp"
    with workers(tmp_path, postgres) as (relay, environment):
        del environment["PGPASSWORD"]
        ended = run(COMMAND, *words, cwd=tmp_path, **{**environment, **units})
        assert str(ended.returncode) in service["SuccessExitStatus"].split(), ended.stderr
    assert len(relay.received) == 29


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """No unknown key, a calendar that can be read, and little that the service could do to the machine."""
    for name in ("asyncsmtp@.service", "asyncsmtp@.timer", "asyncsmtp-workers@.service"):
        text = (DEPLOY / name).read_text(encoding="utf-8").replace("/opt/asyncsmtp/bin/asyncsmtp", str(COMMAND))
        (tmp_path / name.replace("@", "@news")).write_text(text, encoding="utf-8")
    names = ("asyncsmtp@news.service", "asyncsmtp@news.timer", "asyncsmtp-workers@news.service")
    units = [str(tmp_path / name) for name in names]
    verified = run("systemd-analyze", "verify", "--man=no", *units, cwd=tmp_path)
    assert (verified.returncode, verified.stderr) == (0, "")
    calendar = unit("asyncsmtp@.timer")["Timer"]["OnCalendar"]
    assert run("systemd-analyze", "calendar", calendar, cwd=tmp_path).returncode == 0
    for service in (units[0], units[2]):
        judged = run("systemd-analyze", "security", "--offline=true", "--threshold=25", service, cwd=tmp_path)
        assert judged.returncode == 0, judged.stdout[-300:]
