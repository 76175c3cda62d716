"""A Postfix of the test's own: loopback only, free ports, everything it writes in one folder.

Three ports: `plain` (STARTTLS offered, no login asked), `submission` (STARTTLS and AUTH required) and
`smtps` (TLS from the first octet, AUTH required). Mail for anybody at example.com, .net or .org lands in
one Maildir; but `nobody@example.com` is refused for good and `busy@example.com` for now.
"""

from __future__ import annotations

import email
import email.policy
import os
import pwd
import random
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from email.message import EmailMessage
from pathlib import Path

import trustme

__all__ = ["Postfix", "missing"]

MAIN = """
compatibility_level = 3.6
queue_directory = {root}/queue
data_directory = {root}/data
maillog_file = {root}/log
maillog_file_prefixes = {root}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
disable_dns_lookups = yes
smtpd_peername_lookup = no
myhostname = relay.test
mydestination =
mynetworks =
biff = no
alias_maps =
alias_database =
virtual_mailbox_domains = example.com, example.net, example.org
virtual_mailbox_base = {root}/mail
virtual_mailbox_maps = static:all/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = check_recipient_access inline:{{
    {{ nobody@example.com = 550 5.1.1 No such user here }},
    {{ busy@example.com = 450 4.2.1 Mailbox busy, come back later }} }}
smtpd_tls_security_level = may
smtpd_tls_auth_only = yes
smtpd_tls_chain_files = {root}/server.pem
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = cyrus
smtpd_sasl_path = smtpd
smtpd_sasl_local_domain = relay.test
cyrus_sasl_config_path = {root}/etc/sasl
"""

MASTER = """
127.0.0.1:{plain} inet n - n - - smtpd
127.0.0.1:{submission} inet n - n - - smtpd
  -o smtpd_tls_security_level=encrypt
  -o smtpd_client_restrictions=permit_sasl_authenticated,reject
127.0.0.1:{smtps} inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
  -o smtpd_client_restrictions=permit_sasl_authenticated,reject
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""

SASL = """
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: {root}/sasldb2
mech_list: PLAIN LOGIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256 SCRAM-SHA-512
"""


def missing() -> str | None:
    """Return why no Postfix can be run here, or None if one can."""
    for program, package in (("postfix", "postfix"), ("saslpasswd2", "sasl2-bin")):
        if shutil.which(program, path=PATH) is None:
            return f"{program} is not installed (package {package})"
    return None if os.geteuid() == 0 else "Postfix starts as root only"


PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


class Postfix:
    """One running server; `stop()` ends it and removes its folder."""

    host = "127.0.0.1"
    user = "news"
    password = "correct horse"  # with a space: a login that splits words fails here

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="asyncsmtp-postfix-"))
        self.plain, self.submission, self.smtps = free_ports(3)
        self.ca_file = self.root / "ca.pem"
        self._lay_out()
        self._postfix("start")

    def stop(self) -> None:
        """End the server and everything it started; forget its mail."""
        self._postfix("stop")
        shutil.rmtree(self.root)

    @property
    def log(self) -> str:
        """Return what the server logged so far."""
        return (self.root / "log").read_text(encoding="utf-8", errors="replace")

    def mails(self) -> list[EmailMessage]:
        """Everything delivered so far, parsed by the standard library."""
        files = sorted((self.root / "mail/all/new").glob("*"))
        return [email.message_from_bytes(file.read_bytes(), policy=email.policy.default) for file in files]

    def wait_for(self, count: int, seconds: float = 20.0) -> list[EmailMessage]:
        """The mails once there are `count`: delivery comes a moment after the 250."""
        folder = self.root / "mail/all/new"
        deadline = time.monotonic() + seconds
        while not folder.exists() or len(os.listdir(folder)) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self.mails())} of {count} mails after {seconds:g} s:\n{self.log[-4000:]}")
            time.sleep(0.02)  # a folder tells nobody when it grows
        return self.mails()

    def clear(self) -> None:
        """Forget every mail delivered so far."""
        shutil.rmtree(self.root / "mail/all", ignore_errors=True)

    def _lay_out(self) -> None:
        for folder in ("etc", "queue", "data", "mail", "etc/sasl"):
            (self.root / folder).mkdir()
        self.root.chmod(0o755)  # the unprivileged halves of Postfix pass through it
        nobody, owner = pwd.getpwnam("nobody"), pwd.getpwnam("postfix")
        os.chown(self.root / "mail", nobody.pw_uid, nobody.pw_gid)
        os.chown(self.root / "data", owner.pw_uid, owner.pw_gid)
        values = {"root": self.root, "uid": nobody.pw_uid, "gid": nobody.pw_gid}
        ports = {"plain": self.plain, "submission": self.submission, "smtps": self.smtps}
        (self.root / "etc/main.cf").write_text(MAIN.format(**values))
        (self.root / "etc/master.cf").write_text(MASTER.format(**ports))
        (self.root / "etc/sasl/smtpd.conf").write_text(SASL.format(**values))
        self._certify()
        self._enrol(owner.pw_uid)

    def _certify(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca_file))
        server = authority.issue_cert("localhost", self.host)
        server.private_key_and_cert_chain_pem.write_to_path(str(self.root / "server.pem"))

    def _enrol(self, owner: int) -> None:
        database = self.root / "sasldb2"
        command = ["saslpasswd2", "-p", "-c", "-f", str(database), "-u", "relay.test", self.user]
        run(command, typed=self.password.encode())
        os.chown(database, owner, -1)

    def _postfix(self, verb: str) -> None:
        run(["postfix", "-c", str(self.root / "etc"), verb])


def run(command: list[str], typed: bytes = b"") -> None:
    """Run a program of the system's to its end; what it complained of is in the error."""
    done = subprocess.run(
        command, input=typed, capture_output=True, check=False, timeout=60, env={**os.environ, "PATH": PATH}
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed with {done.returncode}: {(done.stdout + done.stderr).decode()}")


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on, below the ones that connections are given meanwhile."""
    found: list[int] = []
    with ExitStack() as stack:
        while len(found) < count:
            port = random.SystemRandom().randrange(20_000, 32_000)
            try:
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue  # in use
            found.append(port)
    return found
