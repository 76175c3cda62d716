"""The relay of a provider: whose port and user count, and what DNS says of a domain."""

from __future__ import annotations

import pytest

from asyncsmtp.bulk.rate_limit import dns_resolver
from asyncsmtp.bulk.setup.provider_relay import complete_relay_url, find_preset, find_submission_url, require_user
from asyncsmtp.errors import ConfigError, InvalidArgument
from tests.name_server import name_server

ANN = "Ann <ann@firm.example>"


@pytest.mark.parametrize(
    ("url", "provider", "user", "completed"),
    [
        (None, "gmail", None, "smtp://ann%40firm.example@smtp.gmail.com:587"),
        (None, "gmail", "bob@firm.example", "smtp://bob%40firm.example@smtp.gmail.com:587"),
        ("smtp://mx.example:2525", "gmail", None, "smtp://ann%40firm.example@mx.example:2525"),
        ("smtp://eve@mx.example", "gmail", None, "smtp://eve@mx.example"),
        ("smtp://eve@mx.example", "gmail", "bob", "smtp://bob@mx.example"),
        ("smtp://mx.example", None, "bob", "smtp://bob@mx.example"),
        ("smtp://mx.example", None, None, "smtp://mx.example"),
        (None, "sendgrid", None, "smtp://apikey@smtp.sendgrid.net:587"),
        (None, "firm.example", None, "srv://ann%40firm.example@firm.example"),
        ("smtp://eve:secret@mx.example", "gmail", "bob", "smtp://eve:secret@mx.example"),
    ],
)
def test_a_url_and_a_user_go_before_the_provider(
    url: str | None, provider: str | None, user: str | None, completed: str
) -> None:
    """One with a password stays as it is: it is refused with advice where the relay is made."""
    assert complete_relay_url(url, provider, user, ANN) == completed


@pytest.mark.parametrize("sender", ["nobody", None])
def test_a_sender_that_is_wrong_is_no_user(sender: str | None) -> None:
    """It is reported where messages are made; the login is missing until then."""
    url = complete_relay_url(None, "gmail", None, sender)
    assert url == "smtp://smtp.gmail.com:587"
    with pytest.raises(ConfigError, match=r"Gmail.* needs a login"):
        require_user(url, "gmail")
    require_user("smtp://ann@smtp.gmail.com", "gmail")
    require_user(url, None)
    with pytest.raises(ConfigError, match=r"firm\.example needs a login"):
        require_user("smtp://mx.firm.example", "firm.example")


@pytest.mark.parametrize("name", ["gmial", "gmail.", ".com", "firm example.com", "firm_.example"])
def test_what_is_neither_a_provider_nor_a_domain_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument):
        find_preset(name)
    assert find_preset("my-firm.example") is None
    assert find_preset(None) is None


async def test_dns_that_does_not_answer_is_reported_with_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server by itself needs no DNS of the provider."""
    monkeypatch.setattr(dns_resolver, "QUERY_TIMEOUT", 0.2)
    async with name_server({}, silent=None) as server:
        with pytest.raises(ConfigError, match=r"DNS does not say which server sends for firm\.example: ") as caught:
            await find_submission_url("firm.example", f"127.0.0.1:{server.port}")
    assert caught.value.advice == "give the server: --relay smtp://host:587, or url in [relay]"


async def test_the_preferred_server_is_the_first_by_priority_then_by_weight() -> None:
    """RFC 2782; implicit TLS goes before STARTTLS (RFC 8314 §3)."""
    records = ["20 0 1 c.firm.example.", "10 1 2 a.firm.example.", "10 5 3 B.firm.example."]
    for service, scheme in (("_submission", "smtp"), ("_submissions", "smtps")):
        zone = {(f"{service}._tcp.firm.example", "SRV"): records, ("_submission._tcp.firm.example", "SRV"): records}
        async with name_server(zone) as server:
            url = await find_submission_url("firm.example", f"127.0.0.1:{server.port}")
        assert url == f"{scheme}://b.firm.example:3"
