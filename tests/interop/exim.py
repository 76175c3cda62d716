"""An Exim of the tests' own, with every mechanism of SASL that Debian's build has a driver for."""

from __future__ import annotations

from tests.interop.server import MAIL_OWNER, PASSWORD, USER, Jailed

__all__ = ["Exim"]

CONFIGURATION = """
primary_hostname = relay.test
local_interfaces = <; [127.0.0.1]:{plain} ; [127.0.0.1]:{submission} ; [127.0.0.1]:{smtps}
tls_on_connect_ports = {smtps}
tls_advertise_hosts = *
tls_certificate = /etc/server.pem
tls_privatekey = /etc/server.pem
tls_verify_certificates = /etc/ca.pem
tls_try_verify_hosts = *
auth_advertise_hosts = ${{if and{{ {{def:tls_in_cipher}} {{!eq{{$received_port}}{{{plain}}}}} }}{{*}}}}
smtputf8_advertise_hosts = *
dsn_advertise_hosts = *
prdr_enable = true
message_size_limit = {limit}
smtp_accept_queue_per_connection = 0
host_lookup =
rfc1413_hosts =
keep_environment =
acl_smtp_rcpt = recipient
acl_smtp_data = accept

begin acl

recipient:
  deny    condition = ${{if eq{{$received_port}}{{{plain}}}{{no}}{{yes}}}}
          !authenticated = *
          message = 550 5.7.1 Log in first
  deny    local_parts = nobody
          message = 550 5.1.1 No such user here
  defer   local_parts = busy
          message = 450 4.2.1 Mailbox busy, come back later
  accept  domains = example.com : example.net : example.org
  deny    message = 550 5.7.1 Relaying denied

begin routers

all:
  driver = accept
  transport = mailbox

begin transports

mailbox:
  driver = appendfile
  maildir_format
  directory = /mail
  create_directory = false
  user = {owner}

begin retry

* * F,1h,1s

begin authenticators

plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{ {{eq{{$auth2}}{{{user}}}}} {{eq{{$auth3}}{{{password}}}}} }}}}

login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${{if and{{ {{eq{{$auth1}}{{{user}}}}} {{eq{{$auth2}}{{{password}}}}} }}}}

cram:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${{if eq{{$auth1}}{{{user}}}{{{password}}}fail}}

external:
  driver = external
  public_name = EXTERNAL
  server_advertise_condition = $tls_in_certificate_verified
  server_param2 = ${{certextract{{subject,CN}}{{$tls_in_peercert}}}}
  server_condition = ${{if and{{ {{eq{{$auth2}}{{{user}}}}} {{inlist{{$auth1}}{{:{user}}}}} }}}}
"""

CYRUS = """
{driver}:
  driver = cyrus_sasl
  public_name = {name}
  server_realm = relay.test
"""
BY_CYRUS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "DIGEST-MD5")


class Exim(Jailed):
    """Starts when it is made; `stop()` ends it."""

    knows_certificates = True
    name = "exim"
    users = ("Debian-exim",)
    command = ("/usr/sbin/exim4", "-bdf")
    mechanisms = frozenset({"PLAIN", "LOGIN", "CRAM-MD5", *BY_CYRUS})
    extensions = frozenset({"PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "DSN", "PRDR", "SIZE", "AUTH"})

    def _lay_out(self) -> None:
        jail = self.jail
        for folder in ("/var/spool/exim4", "/var/log/exim4", "/run/exim4"):
            jail.folder(folder, "Debian-exim")
        self.queues = (jail.path("/var/spool/exim4/input"),)
        values = {"plain": self.plain, "submission": self.submission, "smtps": self.smtps, "limit": self.limit}
        text = CONFIGURATION.format(user=USER, password=PASSWORD, owner=MAIL_OWNER, **values)
        text += "".join(CYRUS.format(driver=name.replace("-", "_").lower(), name=name) for name in BY_CYRUS)
        jail.write("/etc/exim4/exim4.conf", text)
        self._certify("Debian-exim")
        jail.write("/etc/sasl2/exim.conf", "pwcheck_method: auxprop\nauxprop_plugin: sasldb\n")
        jail.run("saslpasswd2", "-p", "-c", "-u", "relay.test", USER, typed=PASSWORD.encode())
        jail.write("/etc/sasldb2", jail.path("/etc/sasldb2").read_bytes(), "Debian-exim")
