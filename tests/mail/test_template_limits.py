"""Templates without end: each is stopped after so many steps or so much text, with its file and line, and no clock."""

from __future__ import annotations

import pytest
from jinja2.exceptions import SecurityError

from asyncsmtp.errors import RecipientError, SMTPError, TemplateError
from asyncsmtp.mail.conversion.convert import Conversion
from asyncsmtp.mail.conversion.placeholders import MarkupLanguage
from asyncsmtp.mail.templates import environment
from asyncsmtp.mail.templates.amounts import format_money
from asyncsmtp.mail.templates.environment import TemplateEnvironment
from asyncsmtp.mail.templates.template import Template

CELLS = {"a": "x", "big": "y " * 500_000, "n": "1234567"}
LOOP = "{% for i in [1] * 1000 %}"
MANY = "{% for j in [1] * 200000 %}"


def compose(
    text: str, files: dict[str, str] | None = None, *, html: bool = False, cells: dict[str, str] = CELLS
) -> str:
    source = {"html": text, "html_name": "file.j2"} if html else {"text": text, "text_name": "file.j2"}
    template = Template(from_="a@x.example", subject="x", loader=(files or {}).__getitem__, **source)  # type: ignore[arg-type]
    return bytes(template.compile(list(cells)).compose("b@x.example", cells, row=7).content).decode()  # type: ignore[arg-type]


def chain(kind: str, length: int = 40) -> str:
    """Macros, or blocks, that each call the next twice."""
    if kind == "macro":
        macros = [
            f"{{% macro m{n}() %}}{{{{ m{n + 1}() }}}}{{{{ m{n + 1}() }}}}{{% endmacro %}}" for n in range(length)
        ]
        return "".join(macros) + f"{{% macro m{length}() %}}x{{% endmacro %}}{{{{ m0() }}}}"
    called = "".join(
        f"{{% block b{n} %}}{{{{ self.b{n + 1}() }}}}{{{{ self.b{n + 1}() }}}}{{% endblock %}}" for n in range(length)
    )
    return called + f"{{% block b{length} %}}x{{% endblock %}}"


TOO_MUCH = {
    "a number as bytes": "{{ (a|length).to_bytes(1500000000) }}",
    "a number of bytes": "{{ (a|length).from_bytes('x') }}",
    "a number as bytes, through a name": "{% set f = (1).to_bytes %}{{ f(1500000000, 'big') }}",
    "doubling by ~": "{% set ns = [a] %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}",
    "doubling in a set block": "{% set b = a %}" + "{% set b %}{{ b }}{{ b }}{% endset %}" * 40 + "{{ b }}",
    "doubling in a macro": "{% macro d(x) %}{{ x }}{{ x }}{% endmacro %}{% set b = a %}"
    + "{% set b = d(b) %}" * 40
    + "{{ b }}",
    "doubling in a list": "{% set b = [a] %}" + "{% set b = [b, b] %}" * 60 + "{{ b }}",
    "a tuple that is hashed": "{% set b = (a,) %}" + "{% set b = (b, b) %}" * 60 + "{{ {b: 1}|length }}",
    "a tuple that is looked up": "{% set b = (a,) %}" + "{% set b = (b, b) %}" * 60 + "{{ row[b] }}",
    "lists that are compared": "{% set b = [a] %}{% set c = [a] %}"
    + "{% set b = [b, b] %}{% set c = [c, c] %}" * 60
    + "{{ b == c }}",
    "a list as text": "{% set b = [a] %}" + "{% set b = [b, b] %}" * 60 + "{{ b|string|length }}",
    "lists that are summed": "{{ ([[a] * 1000] * 1000)|sum(start=[])|length }}",
    "texts that are joined": "{{ ([big] * 1000000)|join|length }}",
    "texts that are joined, made on the way": "{{ ([big] * 1000000)|map('upper')|join|length }}",
    "wrapped lines": "{{ big|wordwrap(1, true, big) }}",
    "wrapped lines of nothing": "{{ (a * 1000000)|wordwrap(1) }}",
    "links": "{{ ('http://x.example ' * 50000)|urlize(rel=big) }}",
    "tags": "{{ ('<b>' * 300000)|striptags }}",
    "tags, by a method": "{{ (('<b>' * 300000)|escape).striptags() }}",
    "escapes of escapes": "{% set a = a|forceescape|urlencode ~ '&' * 100000 %}" * 300 + "{{ a }}",
    "digits": "{{ (n|int)|round(1000000000, 'ceil') }}",
    "digits below": "{{ (n|int)|round(-1000000000, 'floor') }}",
    "a power": "{{ (n|int) ** 1000000000 }}",
    "a power of powers": "{{ (n|int) ** (n|int) ** (n|int) }}",
    "a product": "{{ a * 1500000000 }}",
    "a product of a list": "{{ [a] * 1500000000 }}",
    "a product from the left": "{{ 1500000000 * a }}",
    "a format": "{{ '%1500000000d' % 1 }}",
    "a format of str.format": "{{ '{:1500000000}'.format(a) }}",
    "a width": "{{ a.ljust(1500000000) }}",
    "a width, by a filter": "{{ a|center(1500000000) }}",
    "an indent": "{{ a|indent(1500000000, true) }}",
    "a replacement": "{{ big|replace(' ', big) }}",
    "batches": "{{ [a]|batch(1500000000, a)|list }}",
    "slices": "{{ [a]|slice(1500000000)|list }}",
    "a range": "{% for i in range(1500000000) %}x{% endfor %}",
    "thousands": "{{ n|money(2, '.', big) ~ n|money(2, '.', big) }}",
    "a search": "{{ big.rfind('y y' * 100000) }}",
    "a search of each": LOOP * 2 + "{{ 'z' in big }}" + "{% endfor %}" * 2,
    "characters to strip": "{{ big.strip('z' * 1000000) }}",
    "characters to trim": "{{ big|trim('z' * 1000000) }}",
    "an encoding": "{{ big.encode('punycode') }}",
    "loops": LOOP * 4 + "{% endfor %}" * 4,
    "loops of a long list": MANY + "{% endfor %}",
    "a loop that lets nobody in": "{% for i in [0] * 1000000 if i %}{% endfor %}",
    "a loop over a loop that lets nobody in": LOOP + "{% for k in [0] * 1000 if k %}{% endfor %}{% endfor %}",
    "a recursive loop":
    "{% for i in [1, 2] recursive %}{% if loop.depth < 40 %}{{ loop([1, 2]) }}{% endif %}{% endfor %}",
    "a macro that calls itself": "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(a) }}",
    "a macro that calls itself twice":
    "{% macro m(d) %}{% if d %}{{ m(d - 1) }}{{ m(d - 1) }}{% endif %}{% endmacro %}{{ m(40) }}",
    "two macros that call each other": "{% macro m(d) %}{% if d %}{{ k(d - 1) }}{{ k(d - 1) }}{% endif %}{% endmacro %}"
    "{% macro k(d) %}{% if d %}{{ m(d - 1) }}{{ m(d - 1) }}{% endif %}{% endmacro %}{{ m(40) }}",
    "callers":
    "{% macro m(d) %}{% if d %}{% call m(d - 1) %}{{ caller() }}{% endcall %}{% call m(d - 1) %}{% endcall %}"
    "{% endif %}{% endmacro %}{% call m(40) %}x{% endcall %}",
    "macros that call the next twice": chain("macro"),
    "blocks that call the next twice": chain("block"),
    "a filter over a loop": "{% filter upper %}" + LOOP * 2 + "{{ 'x' * 1000 }}{% endfor %}{% endfor %}{% endfilter %}",
    "a set block over a loop":
    "{% set b %}" + LOOP * 2 + "x" * 1000 + "{% endfor %}{% endfor %}{% endset %}{{ b|length }}",
    "output": LOOP * 2 + "{{ 'x' * 1000 }}" + "{% endfor %}" * 2,
    "filters in a loop": LOOP + "{{ big|upper|lower|title|length }}{% endfor %}",
    "methods in a loop": LOOP + "{% set x = big.split(' ') %}{% endfor %}",
    "tests in a loop": "{{ big|list|select('in', big)|list|length }}",
    "sorting": LOOP + "{{ big|list|sort|length }}{% endfor %}",
}  # fmt: skip


@pytest.mark.parametrize("html", [False, True])
@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_template_without_end_is_stopped(name: str, html: bool) -> None:
    """FT-60: an error of the template, or of the row, that names the file."""
    with pytest.raises((RecipientError, TemplateError), match=r"file\.j2"):
        compose(TOO_MUCH[name], html=html)


@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_converted_template_without_end_is_stopped(name: str) -> None:
    """FT-60: Markdown and inlined styles are rendered with placeholders, by the same rules."""
    template = Template(
        from_="a@x.example",
        subject="x",
        html=TOO_MUCH[name],
        html_name="file.j2",
        html_conversion=Conversion(MarkupLanguage.MARKDOWN),
    )
    with pytest.raises((RecipientError, TemplateError), match=r"file\.j2"):
        template.compile(list(CELLS)).compose("b@x.example", CELLS)


def test_the_error_names_the_row_and_the_line() -> None:
    """FT-60: and says what to do."""
    with pytest.raises(
        RecipientError, match=r"^row 7: file\.j2: line 2: more than 100,000 steps for one row: use fewer"
    ):
        compose("{% if a %}\n" + MANY + "\nx{% endfor %}{% endif %}", cells={"a": "x"})


@pytest.mark.parametrize(
    "files",
    [
        {f"f{n}": f"{{% include 'f{n + 1}' %}}{{% include 'f{n + 1}' %}}" for n in range(40)},
        {f"f{n}": f"{{% import 'f{n + 1}' as m with context %}}" * 2 for n in range(40)},
        {f"f{n}": f"{{% from 'f{n + 1}' import x with context %}}" * 2 + "{% set x = a %}" for n in range(40)},
    ],
)
def test_files_that_include_the_next_twice(files: dict[str, str]) -> None:
    """FT-60: each is read and checked once, and including is a step."""
    with pytest.raises((RecipientError, TemplateError)):
        compose("{{ a }}{% include 'f0' %}", files | {"f40": "{% set x = 1 %}"})


def test_a_file_that_includes_itself_by_another_is_still_found() -> None:
    """FT-60: also behind a file that was read before."""
    files = {"a": "{% include 'b' %}", "b": "x", "c": "{% include 'b' %}{% include 'd' %}", "d": "{% include 'c' %}"}
    with pytest.raises(TemplateError, match="includes itself"):
        compose("{% include 'a' %}{% include 'c' %}", files)
    assert "xx" in compose("{% include 'a' %}{% include 'b' %}", files)


def test_rows_do_not_share_their_steps() -> None:
    """FT-60: each has all of them, whatever the rows before took, and the parts of a row are counted together."""
    loop = "{% for i in [1] * 30000 %}{% if i == 2 %}{{ a }}{% endif %}{% endfor %}"
    template = Template(from_="a@x.example", subject="x", text=f"{{{{ a }}}}{loop}{loop}", text_name="file.j2")
    composer = template.compile(["a"])
    for _ in range(5):
        composer.compose("b@x.example", {"a": "x"})
    with pytest.raises(RecipientError, match="steps"):
        compose(f"{{{{ a }}}}{loop}{loop}{loop}{loop}", cells={"a": "x"})


def test_what_people_write_is_far_from_the_limits() -> None:
    """FT-60: an invoice of 300 lines, with sums, filters and a macro, takes a small part of the steps."""
    text = (
        "{% macro line(name, price) %}{{ name|title }} {{ price|money }}{% endmacro %}"
        "{% set ns = row.lines.split(';') %}"
        "{% for each in ns if each %}{% set name, price = each.split('=') %}{{ loop.index }}. {{ line(name, price) }}\n"
        "{% endfor %}{{ ns|length }} {{ [1, 2.5, 3]|sum }} {{ 2.345|round(2) }} {{ row.lines|wordcount }} "
        "{{ 'see http://x.example'|urlize }} {{ '<b>x</b>'|striptags }} {{ 'a b c'|wordwrap(2)|upper }} "
        "{{ [1, 2]|join('-') }}"
    )
    lines = ";".join(f"article number {number}={number}.50" for number in range(300))
    made = compose(text, cells={"lines": lines, "row": ""})
    assert "300. Article Number 299 299.50" in made
    assert made.rstrip().endswith("1-2")


def test_sums_are_of_numbers() -> None:
    """FT-60: with an attribute too; a text is refused with advice."""
    text = "{{ [1, 2]|sum }} {{ [{'n': 1}, {'n': 2.5}]|sum(attribute='n') }} {{ []|sum(start=4) }}"
    assert "3 3.5 4" in compose(text)
    with pytest.raises(SMTPError, match="adds numbers only"):
        compose("{{ [a]|sum }}")


def test_a_dictionary_and_a_comparison_work_as_before() -> None:
    """FT-60: what is counted gives the same result."""
    text = (
        "{{ {a: 1, 'k': 2}[a] }} {{ a == 'x' }} {{ 1 < 2 <= 2 }} {{ 'x' in a }} {{ a ~ 1 ~ [2] }} {{ 'q' not in row }}"
    )
    assert "1 True True True x1[2] True" in compose(text)
    assert "&lt;1" in compose("{{ '<' ~ 1 }}", html=True)
    assert "<1&lt;" in compose("{{ a|safe ~ 1 ~ '<' }}", html=True, cells={"a": "<"})


def test_no_limit_is_a_time() -> None:
    """FT-60: the same template and row are stopped, or not, on every machine."""
    source = environment.__file__
    with open(source, encoding="utf-8") as file:
        text = file.read()
    assert "import time" not in text
    assert "perf_counter" not in text


X256, X64 = "x" * 256, "x" * 64

STEPS: dict[str, list[tuple[str, dict[str, object], int]]] = {
    "each round of a loop": [
        ("{% for i in a %}{% endfor %}", {"a": [1] * 7}, 7),
        ("{% for i in a %}{% endfor %}", {"a": iter([1] * 7)}, 7),
        ("{% for i in a if i == 0 %}{% endfor %}", {"a": [1] * 7}, 7),
        ("{% for i in a recursive %}{% endfor %}", {"a": [1] * 7}, 7),
    ],
    "each call of a macro, and what it collects by 256 characters": [
        ("{% macro m() %}x{% endmacro %}{{ m() }}{{ m() }}", {}, 4),
        ("{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}x{% endcall %}", {}, 4),
        ("{% set b %}{{ a }}{% endset %}", {"a": "x" * 255}, 0),
        ("{% set b %}{{ a }}{% endset %}", {"a": X256}, 1),
        ("{% set b %}{{ a }}{{ a }}{% endset %}", {"a": X256}, 2),
    ],
    "a block, ten times": [("{% block b %}x{% endblock %}", {}, 10)],
    "each file": [("{% include 'f' %}", {}, 1), ("{% import 'f' as m %}", {}, 1), ("{% from 'f' import x %}", {}, 1)],
    "what is printed or compared, if it is long": [
        ("{{ a }}", {"a": "x" * 255}, 0),
        ("{{ a }}", {"a": "x" * 512}, 2),
        ("{% set b %}{{ a }}{{ a }}{% endset %}", {"a": [1]}, 2),
        ("{{ a }}{{ b }}{{ c }}", {"a": 1, "b": True, "c": None}, 0),
        ("{{ a == b }}", {"a": "x", "b": "y"}, 0),
        ("{{ a == 1 }}", {"a": "x" * 300}, 0),
        ("{{ a == b }}", {"a": "x" * 300, "b": "y" * 300}, 4),
        ("{{ 'x' in a }}", {"a": "x" * 300}, 2),
    ],
    "each filter and test, with its values and its result": [
        ("{{ a|upper }}", {"a": "x"}, 1),
        ("{{ a|upper }}", {"a": X64}, 1),
        ("{{ a|upper }}", {"a": "x" * 255}, 1),
        ("{{ a|upper|length }}", {"a": X256}, 5),
        ("{{ a|default('b')|length }}", {"a": X256}, 5),
        ("{{ a|trim(b) }}", {"a": "x", "b": "y"}, 1),
        ("{{ a|title|length }}", {"a": X256}, 12),
        ("{{ a is string }}", {"a": "x"}, 1),
        ("{{ a is string }}", {"a": X256}, 2),
    ],
    "quadratic filters, by the square of the length": [
        ("{{ a|striptags|length }}", {"a": "x" * 1023}, 39),
        ("{{ a|striptags|length }}", {"a": "x" * 2048}, 86),
    ],
    "each method": [
        ("{{ a.upper()|length }}", {"a": "x"}, 2),
        ("{{ a.split(',')|length }}", {"a": ",".join("x" * 14)}, 2),
        ("{{ a.split(',')|length }}", {"a": ",".join("x" * 16)}, 4),
    ],
    "each operator": [
        ("{{ a ~ b }}", {"a": "x", "b": "y"}, 1),
        ("{{ a + b }}", {"a": "x", "b": "y"}, 1),
        ("{{ a * 2 }}", {"a": 2}, 1),
        ("{{ (a * 2)|length }}", {"a": "x" * 128}, 4),
        ("{{ (a ~ b)|length }}", {"a": "x" * 128, "b": "y" * 128}, 5),
    ],
    "what is put together, unless it is written out": [
        ("{{ [a, 1]|length }}", {"a": "x"}, 2),
        ("{{ (a, 1)|length }}", {"a": "x"}, 2),
        ("{{ {a: 1}|length }}", {"a": "x"}, 2),
        ("{{ [1, 1]|length }}{{ (1, 1)|length }}", {}, 0),
    ],
    "a key of several values": [("{{ a[(b, 1)] is defined }}", {"a": {}, "b": "x"}, 3)],
}


@pytest.mark.parametrize(("source", "values", "steps"), [case for cases in STEPS.values() for case in cases])
def test_what_a_template_does_is_counted(source: str, values: dict[str, object], steps: int) -> None:
    """FT-60: with a short value, and with values of so many characters that they count more."""
    sandbox = TemplateEnvironment(autoescape=False, load={"f": "x"}.__getitem__)
    template = sandbox.from_string(source)
    sandbox.counter.begin(1)
    template.render(**values)
    assert sandbox.counter.steps == steps


MEGA = 1 << 20

AT_MOST = {
    "steps of a loop": ("{% for i in a %}{% endfor %}", {"a": [1] * 100_000}, {"a": [1] * 100_001}),
    "steps of a recursive loop":
    ("{% for i in a recursive %}{% endfor %}", {"a": [1] * 100_000}, {"a": [1] * 100_001}),
    "steps of filters": ("{% for i in a %}{% set c = b|upper %}{% endfor %}", {"a": [1] * 50_000}, {"a": [1] * 50_001}),
    "steps of filters with an argument":
    ("{% for i in a %}{% set c = b|trim(b) %}{% endfor %}", {"a": [1] * 50_000}, {"a": [1] * 50_001}),
    "a product": ("{{ (b * n)|length }}", {"n": MEGA}, {"n": MEGA + 1}),
    "a product from the left": ("{{ (n * b)|length }}", {"n": MEGA}, {"n": MEGA + 1}),
    "a sum": ("{{ (a + b)|length }}", {"a": "x" * (MEGA - 1)}, {"a": "x" * MEGA}),
    "a text of two": ("{{ (a ~ b)|length }}", {"a": "x" * (MEGA - 1)}, {"a": "x" * MEGA}),
    "a replacement": ("{{ a|replace('y', c)|length }}", {"a": "y", "c": "x" * MEGA}, {"a": "yy", "c": "x" * MEGA}),
    "a text that is joined":
    ("{{ [a, b]|join('-')|length }}", {"a": "x" * (MEGA - 3)}, {"a": "x" * (MEGA - 2)}),
    "a product of numbers": ("{{ n * m }}", {"n": 1 << 127, "m": 1 << 127}, {"n": 1 << 127, "m": 1 << 128}),
    "a power": ("{{ n ** m }}", {"n": 2, "m": 128}, {"n": 2, "m": 129}),
    "a negative power": ("{{ n ** m }}", {"n": 2, "m": -128}, {"n": 2, "m": -129}),
    "digits": ("{{ 2.5|round(n) }}", {"n": 30}, {"n": 31}),
    "digits before the point": ("{{ 2.5|round(n) }}", {"n": -30}, {"n": -31}),
    "output of a block that sets a name":
    ("{% set d %}{% for i in a %}{{ c }}{% endfor %}{{ e }}{% endset %}",
     {"a": [1] * 10, "c": "x" * MEGA, "e": ""}, {"a": [1] * 10, "c": "x" * MEGA, "e": "x"}),
}  # fmt: skip


@pytest.mark.parametrize("name", AT_MOST)
def test_a_limit_itself_is_allowed_and_one_more_is_not(name: str) -> None:
    """FT-60: 100,000 steps, a million characters by one operator, ten million by one macro, 256 bits."""
    source, most, more = AT_MOST[name]
    sandbox = TemplateEnvironment(autoescape=False)
    template = sandbox.from_string(source)
    sandbox.counter.begin(1)
    template.render({"b": "x", **most})
    sandbox.counter.begin(2)
    with pytest.raises(SecurityError, match=r"too long for a mail|more than"):
        template.render({"b": "x", **more})


@pytest.mark.parametrize("name", ["attr", "batch", "center", "format", "indent", "pprint", "random", "tojson"])
def test_a_filter_that_is_removed_is_unknown(name: str) -> None:
    """FT-60: it makes a long text of a short one, or another one each time."""
    with pytest.raises(TemplateError, match=f"No filter named '{name}'"):
        compose(f"{{{{ a|{name} }}}}")


@pytest.mark.parametrize("name", ["center", "encode", "expandtabs", "format", "join", "ljust", "replace", "zfill"])
def test_a_method_that_makes_long_texts_is_not_available(name: str) -> None:
    """FT-60: the advice names a filter only where there is one."""
    with pytest.raises(SMTPError, match=rf"“\.{name}” is not available in a template") as caught:
        compose(f"{{{{ a.{name}(9) }}}}")
    assert (f": write |{name}" in str(caught.value)) == (name in {"join", "replace"})


@pytest.mark.parametrize(("places", "shown"), [(-1, "1"), (0, "1"), (1, "1.0"), (10, "1.0000000000")])
def test_an_amount_has_up_to_ten_places(places: int, shown: str) -> None:
    assert format_money("1", places) == shown
    assert format_money("1", 11) == format_money("1", 10)


def test_an_amount_has_up_to_thirty_digits() -> None:
    assert format_money("9" * 30, 0).count("9") == 30
    assert format_money("1e30", 0) == "1" + ",000" * 10
    assert format_money("1e-30", 10) == "0.0000000000"
    for text in ("9" * 31, "1e31", "1e-31"):
        with pytest.raises(ValueError, match="is not an amount"):
            format_money(text)
