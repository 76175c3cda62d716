"""Merge tags of other programs are found, with the line and the spelling that works here; few texts look like one."""

from __future__ import annotations

import pytest

from asyncsmtp.mail.checks.merge_tags import find_merge_tags
from asyncsmtp.mail.checks.rules import Finding, FindingLevel
from asyncsmtp.mail.templates.environment import Delimiters
from asyncsmtp.mail.templates.variables import Columns, build_columns

COLUMNS = ("E-Mail", "First name", "last_name", "Order", "id")


def find(source: str, file: str = "message.html", columns: Columns | None = None) -> list[Finding]:
    return find_merge_tags({file: source}, columns or Columns(COLUMNS))


@pytest.mark.parametrize(
    ("tag", "advice"),
    [
        ("*|FNAME|*", "write {{ First_name }}"),
        ("*|MERGE7|*", ""),
        ("*|IF:PAID=yes|*", ""),
        ("[First_Name]", "write {{ First_name }}"),
        ("[first name]", "write {{ First_name }}"),
        ("[First Name,fallback=friend]", None),
        ("<<Last Name>>", "write {{ last_name }}"),
        ("&lt;&lt;Last_Name&gt;&gt;", "write {{ last_name }}"),
        ("«First name»", "write {{ First_name }}"),
        ("&laquo;Vorname&raquo;", "write {{ First_name }}"),
        ("%7B%7Bid%7D%7D", "write {{ id }}"),
        ("%7b%7b%20last_name%20%7d%7d", "write {{ last_name }}"),
        ("%%order%%", "write {{ Order }}"),
        ("{first_name}", "write {{ First_name }}"),
        ("{!id}", "write {{ id }}"),
        ("{$id}", "write {{ id }}"),
        ("${id}", "write {{ id }}"),
        ("[[Order]]", "write {{ Order }}"),
        ("%recipient.first%", "write {{ First_name }}"),
        ("%recipient_email%", "write {{ E_Mail }}"),
        ("%FIRSTNAME%", "write {{ First_name }}"),
        ("%5BEMAIL%5D", "write {{ E_Mail }}"),
        ("*%7CEMAIL%7C*", "write {{ E_Mail }}"),
        ("*|UNSUB|*", "add [unsubscribe] with a url, and write {{ unsubscribe_url }}"),
    ],
)
def test_a_tag_that_names_a_column_is_an_objection(tag: str, advice: str | None) -> None:
    for source in (
        f"<p>\nHello {tag},\n",
        f'<p>\n<a href="https://example.org/?a={tag}&amp;b=1">x</a>',
        f"<b>\n{tag}</b>",
    ):
        found = find(source)
        if advice is None:
            assert not found
            return
        assert [each.weight for each in found] == [FindingLevel.OBJECTION]
        assert found[0].sentence.startswith(f"message.html, line 2: “{tag}” looks like a merge tag of another program")
        assert found[0].advice.startswith(advice)


@pytest.mark.parametrize("tag", ["<<Member since>>", "%%points%%", "${points}", "[[points]]", "[Member_Since]"])
def test_another_name_is_a_remark(tag: str) -> None:
    found = find(f"Hello {tag}")
    assert [each.weight for each in found] == [FindingLevel.NOTE]
    assert "{{" in found[0].advice


@pytest.mark.parametrize(
    "source",
    [
        "as we wrote [1], and [sic] in [Example] [...] [UPDATE]",
        "<style>{id} .a{color:red}@media x{.order{width:10%}}</style><p>x",
        "<!--[if mso]>{id}<![endif]--><p>x",
        '<script type="application/ld+json">{"id": "{id}"}</script>x',
        "https://example.org/a%20id%20b%2Cid%2C 100%% sure, 50 % id 50%",
        "[Order](https://example.org) ![id](x.png) [Order][1] [x][Order]",
        "[Order] is here\n\n[Order]: https://example.org",
        '<a href="https://example.org">[Order]</a> [Phone] [Web]',
        "{{ id }} {% if id %}{ id: 1 }{% endif %}{# {id} #}{% raw %}{id}{% endraw %}",
        "« Bonjour » a << b >> c, 1 << 2",
        '{"id": 3} {{ {"a": id}["a"] }} f(x)[id] a[Order] = {1, 2}',
        "$5 ${} {} [] <<>> [ ] - [x] done - [ ] open",
    ],
)
def test_text_is_no_tag(source: str) -> None:
    assert find(source) == []


def test_each_tag_is_told_once_and_where() -> None:
    found = find("{id}\n[Order] {id}\n{id}", "message.txt")
    assert [each.sentence.partition(":")[0] for each in found] == ["message.txt, line 1", "message.txt, line 2"]
    assert find("Hello {id}", "subject")[0].sentence.startswith("subject: “{id}” looks like")


def test_the_unsubscribe_url_is_known_where_there_is_one() -> None:
    columns = build_columns(COLUMNS, {}, unsubscribes=True)
    assert find("%7B%7Bunsubscribe%7D%7D", columns=columns)[0].advice == "write {{ unsubscribe_url }}"


def test_with_other_delimiters_those_of_jinja_are_foreign() -> None:
    columns = Columns(COLUMNS, None, Delimiters.parse(["<<", ">>"]))
    assert find("<< id >> <% if id %>{{ points }}", columns=columns)[0].weight is FindingLevel.NOTE
    found = find("<< id >> {{ id }} {{{Order}}}", columns=columns)
    assert [each.advice for each in found] == ["write << id >>", "write << Order >>"]
    assert {each.weight for each in found} == {FindingLevel.OBJECTION}
