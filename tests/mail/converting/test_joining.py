"""What a template includes and extends, put into it: filled in, it gives the same."""

from __future__ import annotations

import pytest

from asyncsmtp.errors import TemplateError
from asyncsmtp.mail.converting.joining import joined, loaded
from asyncsmtp.mail.templates.environment import TemplateEnvironment

FILES = {
    "foot": "Bye {{ a }}\n",
    "sets": "{% set a = 'other' %}<{{ a }}>",
    "deep": "[{% include 'foot' %}]",
    "base": "<{% block head %}H{% endblock %}|{% block body %}B{% block in %}I{% endblock %}{% endblock body %}>\n",
    "child": "{% extends 'base' %}{% block in scoped %} child {{ super() }}{% endblock %}",
    "strict": "{% block x required %}{% endblock %}",
}


def as_it_is(source: str, path: str) -> str:
    return source


@pytest.mark.parametrize(
    "source",
    [
        "x {% include 'foot' %} y",
        'x {%- include "./foot" -%} y',
        "{% include 'deep' %}{% include 'deep' ignore missing with context %}",
        "{% include 'sets' %}{{ a }}",
        "{% raw %}{% include 'foot' %}{% endraw %}{# {% include 'foot' %} #}{{ '{% include' }}",
        "{% if a %}{% include 'foot' %}{% endif %}",
        "{% extends 'base' %} {# c #} nobody reads this {% block head %}{{ a }}{% endblock %}",
        "{% extends 'base' %}{% block body -%} {{ super() }} {% include 'foot' %} {%- endblock %}",
        "{% extends 'child' %}{% block in %}({{ super() }}){% endblock %}{% block none %}n{% endblock %}",
        "{% extends 'base' %}{% block body %}{% block in %}J{% endblock %}{% endblock %}",
        "{% extends 'base' %}{% set b = a ~ 'x' %}\n{% block head %}{{ b }}{% endblock %}",
        "{% extends 'strict' %}{% block x %}x{% endblock %}",
    ],
)
def test_joined_it_gives_the_same(source: str) -> None:
    sandbox = TemplateEnvironment(autoescape=True, load=FILES.__getitem__)
    whole = joined(source, "m", FILES.__getitem__, as_it_is)
    assert TemplateEnvironment(autoescape=True).from_string(whole).render(a="A") == sandbox.from_string(source).render(
        a="A"
    )


def test_a_file_is_made_what_it_must_be_before_it_is_put_in_place() -> None:
    whole = joined("{% include 'deep' %}", "m", FILES.__getitem__, lambda source, path: f"{path}:{source}")
    assert whole == "deep:[foot:Bye {{ a }}\n]"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("\n{% import 'foot' as f %}", "m, line 2: “foot” is imported"),
        ("{% extends 'base' %}{% macro b() %}c{% endmacro %}", "{% macro b() %} stands in a template that extends"),
        ("{% if a %}{% extends 'base' %}{% endif %}", "{% if a %} stands in"),
        ("{% extends 'base' %}{% block in %}{{ self.head() }}{% endblock %}", "{{ self.head() }} stands in"),
    ],
)
def test_what_cannot_be_joined_is_refused(source: str, why: str) -> None:
    with pytest.raises(TemplateError) as raised:
        joined(source, "m", FILES.__getitem__, as_it_is)
    assert why in str(raised.value)


def test_all_that_is_loaded_is_known() -> None:
    source = "{% extends 'child' %}{% from 'foot' import x %}{# {% include 'sets' %} #}"
    assert sorted(loaded(source, FILES.__getitem__)) == ["base", "child", "foot"]
