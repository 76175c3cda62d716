"""Dates and amounts in templates: the same on every machine, and a cell that is none costs its row alone."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.errors import RecipientError
from asyncsmtp.mail.templates.amounts import format_money
from asyncsmtp.mail.templates.dates import format_date
from asyncsmtp.mail.templates.template import Template
from asyncsmtp.protocol.envelope import Mailbox


@pytest.mark.parametrize(
    ("value", "form", "shown"),
    [
        ("2026-03-01", "%d %B %Y", "01 March 2026"),
        ("2026-03-01 09:05", "%a %d.%m.%y %H:%M", "Sun 01.03.26 09:05"),
        ("2026-03-01T09:05:00+01:00", "%A, %b", "Sunday, Mar"),
        (" 1.3.2026 ", "%Y-%m-%d", "2026-03-01"),
        ("31/12/2026", "%d %% %m", "31 % 12"),
        ("2026/12/31", "on %d.", "on 31."),
        (" ", "%d", ""),
    ],
)
def test_a_date_is_shown_as_it_is_asked_for(value: str, form: str, shown: str) -> None:
    assert format_date(value, form) == shown


@given(st.dates())
def test_a_date_comes_back(day: object) -> None:
    assert format_date(str(day), "%Y-%m-%d") == str(day)


@pytest.mark.parametrize(
    ("value", "arguments", "shown"),
    [
        ("1234.5", (), "1,234.50"),
        ("1234567", (2, ",", "."), "1.234.567,00"),
        ("-0.005", (2,), "-0.00"),
        ("1234.5", (0, ".", " "), "1 234"),
        ("12", (1, ",", ""), "12,0"),
        ("1,5", (), "1.50"),
        ("", (), ""),
    ],
)
def test_an_amount_is_shown_as_it_is_asked_for(value: str, arguments: tuple[object, ...], shown: str) -> None:
    assert format_money(value, *arguments) == shown  # type: ignore[arg-type]


@given(st.decimals(min_value=-(10**12), max_value=10**12, places=2))
def test_no_cent_is_lost(amount: Decimal) -> None:
    """Not by a float, and not by rounding."""
    assert Decimal(format_money(str(amount)).replace(",", "")) == amount


@pytest.mark.parametrize("value", ["x", "1,2,3", "nan", "inf", "1e999999999", "9" * 40, "\x1b[31m"])
def test_an_invalid_amount_is_reported(value: str) -> None:
    with pytest.raises(ValueError, match="is not an amount: write it as") as caught:
        format_money(value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "form"), [("2026-02-30", "%Y"), ("2026-13-01", "%Y"), ("2026-03-01", "%s"), ("2026-03-01", "%")]
)
def test_an_invalid_date_or_form_is_reported(value: str, form: str) -> None:
    with pytest.raises(ValueError, match=r"is not a date: write it as|the form of a date does not support"):
        format_date(value, form)


def test_in_a_template_they_cost_the_row_that_has_none() -> None:
    template = Template(
        from_="n@example.org", subject="{{ day|date('%d.%m.') }}", text="{{ price|money }} {{ q|urlencode }}"
    )
    composer = template.compile(("day", "price", "q"))

    def compose(day: str, price: str) -> bytes:
        fields = {"day": day, "price": price, "q": "a b&c"}
        made = composer.compose(
            Mailbox.parse("a@b.example"), fields, message_id="a@b.example", date=datetime(2026, 3, 1, tzinfo=UTC), row=7
        )
        return bytes(made.content)  # type: ignore[arg-type]

    assert b"Subject: 01.03.\r\n" in compose("2026-03-01", "5")
    assert b"5.00 a%20b%26c" in compose("2026-03-01", "5")
    for day, price in (("someday", "5"), ("2026-03-01", "cheap")):
        with pytest.raises(RecipientError, match="row 7") as caught:
            compose(day, price)
        assert "write it as" in str(caught.value)
