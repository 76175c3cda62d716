"""The sample campaign that `asyncsmtp init` writes: files by name, with their octets."""

from __future__ import annotations

import csv
import io
import secrets
from collections.abc import Iterator, Mapping

from asyncsmtp.cli.campaign.picture import logo

__all__ = ["OF_THE_OWNER", "PEOPLE", "files", "people", "rows_in"]

PEOPLE = "people.csv"
OF_THE_OWNER = "unsubscribe.secret"  # nobody else may read it

_FIRST = (
    "Anna", "Björn", "Chloé", "Dmitri", "Eszter", "Fatima", "Günther", "Hana", "Íñigo", "Jürgen", "Kateřina", "Łukasz",
    "Maëlle", "Nikos", "Øystein", "Paul", "Quỳnh", "Rosalía", "Søren", "Tomáš", "Umut", "Veronika", "Wei", "Xènia",
    "Yūki", "Zoë",
)  # fmt: skip
_LAST = (
    "Ångström", "Brontë", "Čapek", "Dvořák", "Eriksson", "Fernández", "Grünwald", "Hämäläinen", "Ionescu", "Jansen",
    "Kowalczyk", "L'Hôpital", "Müller", "Núñez", "O'Brien", "Papadopoulou", "Rossi", "Šarić", "Tanaka", "van der Berg",
    "Weiß", "Yılmaz", "Zając",
)  # fmt: skip
_COMPANY = (
    "Nordlicht AG", "Müller, Söhne & Co.", "Café \"Zentral\"", "Atelier Çınar", "Blue Harbour Ltd", "Österberg & Fils",
    "Vino e Pane", "Zenit Optika", "Smörgås <Catering>",
)  # fmt: skip
_CITY = (
    "Wien", "Zürich", "København", "Kraków", "São Paulo", "Reykjavík", "München", "Athens", "Malmö", "Ljubljana",
    "Lyon",
)  # fmt: skip

_CAMPAIGN = """\
# A campaign of asyncsmtp. Rehearse it (nothing leaves this machine):
#   asyncsmtp bulk campaign.toml --sandbox
# Every key can also be an option: asyncsmtp bulk --help

[campaign]
name = "welcome"
from = "Example News <news@example.org>"
subject = "{{ name }}, welcome to the news"
recipients = "people.csv"
email = "email"                        # the column with the addresses
html = "message.html"                  # Jinja2; {{ name }} is the column “name” of people.csv
text = "message.txt"
inline = { logo = "logo.png" }         # <img src="cid:logo">

[unsubscribe]                          # a button in mail programs; {{ unsubscribe_url }} in the templates
url = "https://example.org/unsubscribe/{{ token }}"
secret_file = "unsubscribe.secret"     # made for you; whoever knows it can unsubscribe anybody

[relay]
# smtp://user@mail.example.org:587 (STARTTLS) or smtps://user@mail.example.org (TLS from the start);
# the password is never written here: set ASYNCSMTP_PASSWORD, or password_command = "pass show mail".
# This one is what `asyncsmtp sandbox --port 2525` runs in another terminal:
url = "smtp://127.0.0.1:2525?security=none"
sessions = 10                          # connections at once

[limits]
concurrency = 100                      # messages in hand at once

[retry]
in_doubt = "hold"                      # hold | resend: a message whose last reply was lost
"""

_HTML = """\
<!doctype html>
<html lang="en">
<body style="margin:0; background:#f2f4f7; font-family:Helvetica,Arial,sans-serif; color:#222">
<table role="presentation" width="100%" cellpadding="0" cellspacing="0"><tr><td align="center" style="padding:24px">
<table role="presentation" width="560" cellpadding="0" cellspacing="0" style="background:#fff; border-radius:8px">
<tr><td align="center" style="padding:32px 32px 8px">
<img src="cid:logo" width="160" height="100" alt="Example News"></td></tr>
<tr><td style="padding:8px 32px 32px; font-size:16px; line-height:1.5">
<h1 style="font-size:22px; color:#255496">Welcome, {{ name }}!</h1>
<p>From now on the news of {{ city }} reaches you{% if company %} and everyone at <b>{{ company }}</b>{% endif %}.</p>
<p>This mail was written for {{ email }} alone: its greeting, its text and this line come from your row of the list.</p>
<p style="color:#667; font-size:13px">Example News · you are on our list as {{ email }} ·
<a href="{{ unsubscribe_url }}" style="color:#667">unsubscribe</a></p>
</td></tr></table>
</td></tr></table>
</body>
</html>
"""

_TEXT = """\
Welcome, {{ name }}!

From now on the news of {{ city }} reaches you{% if company %} and everyone at {{ company }}{% endif %}.

This mail was written for {{ email }} alone: its greeting, its text and
this line come from your row of the list.

--
Example News · you are on our list as {{ email }}
To leave it: {{ unsubscribe_url }}
"""


def files(rows: int) -> Mapping[str, bytes]:
    """Every file of the sample, in the order in which they are told of; `rows` people are in people.csv."""
    return {
        "campaign.toml": _CAMPAIGN.encode(),
        PEOPLE: people(rows),
        "message.html": _HTML.encode(),
        "message.txt": _TEXT.encode(),
        "logo.png": logo(),
        OF_THE_OWNER: secrets.token_hex(16).encode(),
    }


def people(rows: int) -> bytes:
    """A CSV of invented people at example.org; the same ones every time."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("email", "name", "company", "city"))
    writer.writerows(_people(rows))
    return text.getvalue().encode()


def rows_in(octets: bytes) -> int:
    """How many records a people.csv has, header excluded."""
    return max(0, sum(1 for _ in csv.reader(io.StringIO(octets.decode("utf-8", "replace"), newline=""))) - 1)


def _people(rows: int) -> Iterator[tuple[str, str, str, str]]:
    for number in range(rows):
        first, last = _FIRST[number % len(_FIRST)], _LAST[number % len(_LAST)]
        company = _COMPANY[number % len(_COMPANY)] if number % 4 else ""
        yield f"person{number + 1}@example.org", f"{first} {last}", company, _CITY[number % len(_CITY)]
