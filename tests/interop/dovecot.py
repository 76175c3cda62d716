"""A Dovecot of the tests' own: submission, which passes everything on to another server, LMTP, and IMAP.

Of its mechanisms, SCRAM with channel binding is left out: it binds by tls-exporter and tls-unique only, and at
any other type its login process aborts instead of refusing (2.4.1).
"""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Sequence

from tests.interop.postfix import free_ports
from tests.interop.server import MAIL_OWNER, PASSWORD, USER, Jailed, Server

__all__ = ["Dovecot"]

CONFIGURATION = """
dovecot_config_version = 2.4.1
dovecot_storage_version = 2.4.1
log_path = /var/log/dovecot
protocols = submission lmtp imap
listen = 127.0.0.1
hostname = relay.test
ssl_server_cert_file = /etc/server.pem
ssl_server_key_file = /etc/server.pem
auth_allow_cleartext = yes
auth_mechanisms = {mechanisms}
mail_utf8_extensions = yes
mail_driver = maildir
mail_path = /mail/%{{user}}
mail_uid = {owner}
mail_gid = {owner}
first_valid_uid = 1

submission_relay_host = 127.0.0.1
submission_relay_port = {backend}
submission_max_mail_size = {limit}

passdb passwd-file {{
  passwd_file_path = /etc/users
}}
userdb passwd-file {{
  passwd_file_path = /etc/users
}}
oauth2 {{
  introspection_mode = local
  username_attribute = sub
  oauth2_local_validation {{
    dict fs {{
      fs posix {{
        prefix = /etc/keys/
      }}
    }}
  }}
}}
service submission-login {{
  inet_listener submission {{
    port = {submission}
  }}
  inet_listener submissions {{
    port = {smtps}
    ssl = yes
  }}
}}
service imap-login {{
  inet_listener imap {{
    port = 0
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp}
  }}
  unix_listener lmtp {{
    mode = 0666
  }}
}}
"""

KEY = b"the key that both sides know"
LMTP_USERS = ("ada", "bob", "eve")  # at example.com


class Dovecot(Jailed):
    """Starts when it is made; `stop()` ends it. What is submitted arrives in the mailbox of `backend`.

    Attributes:
        lmtp: the port, and lmtp_socket the Unix socket, where mail to ada, bob and eve at example.com is taken, and
            mail to anybody else is refused.
        imaps: the port where those three read it.
    """

    mechanisms = frozenset(
        {"PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2"}
    )
    extensions = frozenset({"PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "SIZE", "AUTH"})
    asks_in_clear = True
    name = "dovecot"
    users = ("dovecot", "dovenull")
    command = ("/usr/sbin/dovecot", "-F")

    def __init__(self, backend: Server) -> None:
        self._backend = backend
        self.lmtp, self.imaps = free_ports(2)
        super().__init__()
        self.lmtp_socket = self.jail.path("/run/dovecot/lmtp")
        self.maildir, self.queues = backend.maildir, backend.queues

    @property
    def log(self) -> str:
        return self.jail.log + self._backend.log

    def put(self, user: str, mails: Sequence[bytes], folder: str = "") -> None:
        """Put mails into a mailbox, as its delivery would."""
        for part in ("new", "cur", "tmp"):
            self.jail.folder(f"/mail/{user}", MAIL_OWNER)
            self.jail.folder(f"/mail/{user}/{folder}", MAIL_OWNER)
            self.jail.folder(f"/mail/{user}/{folder}/{part}", MAIL_OWNER)
        for number, mail in enumerate(mails):
            self.jail.write(f"/mail/{user}/{folder}/new/{time.time():.0f}.{number}.test", mail, MAIL_OWNER)

    def flags(self, user: str, folder: str = "") -> list[str]:
        """The flags of each mail, in the order of their names: "S" is seen."""
        files = sorted(
            file for part in ("new", "cur") for file in self.jail.path(f"/mail/{user}/{folder}/{part}").glob("*")
        )
        return [file.name.partition(":2,")[2] for file in sorted(files, key=lambda file: file.name)]

    def lmtp_mails(self, user: str) -> list[bytes]:
        """Return the mails of one address that LMTP delivered; they are there once it accepted them."""
        return [file.read_bytes() for file in sorted(self.jail.path(f"/mail/{user}/new").glob("*"))]

    def clear(self) -> None:
        super().clear()
        for file in self.jail.path("/mail").rglob("*"):
            if file.is_file():
                file.unlink()

    def token(self) -> str:
        """An access token that it takes: a JSON Web Token of the user (RFC 7519)."""
        head, claims = {"alg": "HS256", "typ": "JWT"}, {"sub": USER, "exp": 4102444800, "iat": 0}
        said = b".".join(_base64url(json.dumps(part).encode()) for part in (head, claims))
        return b".".join((said, _base64url(hmac.digest(KEY, said, "sha256")))).decode()

    def _lay_out(self) -> None:
        jail = self.jail
        self.plain = self.submission  # it lets a login in clear pass
        for folder in ("/var/log", "/run/dovecot", "/var/lib/dovecot"):
            jail.folder(folder)
        text = CONFIGURATION.format(
            mechanisms=" ".join(self.mechanisms).lower(),
            backend=self._backend.plain,
            limit=self.limit,
            owner=MAIL_OWNER,
            submission=self.submission,
            smtps=self.smtps,
            lmtp=self.lmtp,
            imaps=self.imaps,
        )
        jail.write("/etc/dovecot/dovecot.conf", text)
        users = [USER, *(f"{user}@example.com" for user in LMTP_USERS)]
        jail.write("/etc/users", "".join(f"{user}:{{PLAIN}}{PASSWORD}::::::\n" for user in users), "dovecot")
        jail.write("/etc/keys/default/HS256/default", base64.b64encode(KEY), "dovecot")
        self._certify()


def _base64url(octets: bytes) -> bytes:
    return base64.urlsafe_b64encode(octets).rstrip(b"=")
