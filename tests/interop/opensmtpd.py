"""An OpenSMTPD of the tests' own: the server that answers 500 to a client that pipelines unasked."""

from __future__ import annotations

from tests.interop.server import MAIL_OWNER, USER, Jailed

__all__ = ["OpenSmtpd"]

CONFIGURATION = """
pki relay.test cert "/etc/server.pem"
pki relay.test key "/etc/server.pem"
table logins {{ {user} = "{crypted}" }}
table boxes {{ "@" = {owner} }}
smtp max-message-size "{limit}"
listen on 127.0.0.1 port {plain} hostname relay.test tls pki relay.test
listen on 127.0.0.1 port {submission} hostname relay.test tls-require pki relay.test auth <logins>
listen on 127.0.0.1 port {smtps} hostname relay.test smtps pki relay.test auth <logins>
action "keep" maildir "/mail" virtual <boxes>
match from any for rcpt-to "nobody@example.com" reject
match from any for domain {{ example.com, example.net, example.org }} action "keep"
"""

CRYPTED = (  # server.PASSWORD, by crypt(3)
    "$6$asyncsmtp$74E.s0niczkK96B7Ohdqu9KhDigsdnZw08gyj6PQoekJaNAoHqwn/zhYkyQQX4v5f8Q7wwLMx.5M.AUdv0rRb0"
)


class OpenSmtpd(Jailed):
    """Starts when it is made; `stop()` ends it."""

    name = "opensmtpd"
    users = ("opensmtpd", "opensmtpq")
    command = ("/usr/sbin/smtpd", "-d")
    mechanisms = frozenset({"PLAIN", "LOGIN"})
    extensions = frozenset({"8BITMIME", "DSN", "ENHANCEDSTATUSCODES", "SIZE", "AUTH"})
    has_busy = False  # its rules know no refusal for now

    def _lay_out(self) -> None:
        jail = self.jail
        for folder in ("/var/spool", "/var/run", "/var/lib/opensmtpd/empty"):
            jail.folder(folder)
        self.queues = (jail.path("/var/spool/smtpd/queue"),)
        ports = {"plain": self.plain, "submission": self.submission, "smtps": self.smtps}
        users = {"user": USER, "crypted": CRYPTED, "owner": MAIL_OWNER}
        jail.write("/etc/smtpd.conf", CONFIGURATION.format(limit=self.limit, **users, **ports))
        self._certify()
        jail.write("/etc/ssl/certs/ca-certificates.crt", self.ca_file.read_bytes())  # it does not start without one
        jail.path("/etc/server.pem").chmod(0o600)  # it refuses a key that others may read
