"""A relay as a value, and what a URL may say."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asyncsmtp.client.config.hostport import parse_host_port, show_url
from asyncsmtp.client.config.login_config import ClientCertificate, Token
from asyncsmtp.client.config.relay import Dialogue, Login, Proxy, ProxyKind, Relay
from asyncsmtp.errors import InvalidArgument
from asyncsmtp.protocol.auth.auth import Secret
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import ScriptedRelay
from tests.client.support import everything_of


async def _token() -> str:
    return "token"


@pytest.mark.parametrize(
    ("url", "address", "security"),
    [
        ("smtp://relay.example", ("relay.example", 587), Security.STARTTLS),
        ("smtp://relay.example:2525", ("relay.example", 2525), Security.STARTTLS),
        ("smtps://relay.example", ("relay.example", 465), Security.IMPLICIT_TLS),
        ("smtp://relay.example?security=none", ("relay.example", 25), Security.PLAINTEXT),
        ("smtp://relay.example?security=opportunistic", ("relay.example", 25), Security.OPPORTUNISTIC),
        ("smtp://relay.example?security=tls", ("relay.example", 465), Security.IMPLICIT_TLS),
        ("smtp://[::1]:2525?security=none", ("::1", 2525), Security.PLAINTEXT),
        ("smtp://127.0.0.1/", ("127.0.0.1", 587), Security.STARTTLS),
        ("lmtp://127.0.0.1", ("127.0.0.1", 24), Security.PLAINTEXT),
        ("lmtp://127.0.0.1:2424", ("127.0.0.1", 2424), Security.PLAINTEXT),
        ("lmtp://127.0.0.1?security=starttls", ("127.0.0.1", 24), Security.STARTTLS),
    ],
)
def test_a_url_says_where_and_how(url: str, address: tuple[str, int], security: Security) -> None:
    """STARTTLS is required unless said otherwise (TL-03)."""
    relay = Relay.from_url(url)
    assert relay.address == address
    assert relay.security is security
    assert relay.lmtp == url.startswith("lmtp")


@pytest.mark.parametrize(
    ("url", "path", "security"),
    [
        ("lmtp+unix:///run/dovecot/lmtp", "/run/dovecot/lmtp", Security.PLAINTEXT),
        ("smtp+unix:///run/smtp", "/run/smtp", Security.PLAINTEXT),
        ("smtp+unix:///run/a%20%C3%A9?security=starttls", "/run/a é", Security.STARTTLS),
    ],
)
def test_a_url_may_name_a_unix_socket(url: str, path: str, security: Security) -> None:
    """What is said there leaves the machine no more than a pipe does: TLS where it is asked for."""
    relay = Relay.from_url(url)
    assert relay.unix_path == Path(path)
    assert relay.security is security
    assert relay.lmtp == url.startswith("lmtp")
    assert str(relay) == path


def test_a_unix_socket_may_want_a_login() -> None:
    relay = Relay.from_url("smtp+unix://ann@/run/smtp?security=starttls&verify-name=r.example", password="p")
    assert relay.login == Login("ann", Secret("p"))
    assert relay.verify_name == "r.example"


def test_a_url_may_carry_settings() -> None:
    relay = Relay.from_url(
        "smtp://u%40x@h?name=me.example&verify-name=r.example&ca-file=/ca.pem&dialogue=lockstep", password="p"
    )
    assert relay.login == Login("u@x", Secret("p"))
    assert relay.name == "me.example"
    assert relay.verify_name == "r.example"
    assert relay.ca_file == Path("/ca.pem")
    assert relay.dialogue is Dialogue.LOCKSTEP


@pytest.mark.parametrize(
    ("url", "about"),
    [
        ("relay.example", "smtp://host"),
        ("http://relay.example", "smtp://host"),
        ("smtp://", "not name a host"),
        ("smtp://relay.example:http", "port"),
        ("smtp://relay.example:0", "port"),
        ("smtp://relay.example:70000", "port"),
        ("smtp://relay.example:-1", "port"),
        ("smtp://relay.example/folder", "folder"),
        ("smtp://relay.example#part", "part"),
        ("smtp://relay.example?tls=1", "tls"),
        ("smtp://relay.example?security=yes", "starttls"),
        ("smtp://relay.example?name=a%20b", "a b"),
        ("smtp://relay.example?name=a%0d%0aMAIL", "not a valid name for EHLO"),
        ("smtp://relay.example?name=", "not a valid name for EHLO"),
        ("lmtp+unix://", "does not name a Unix socket"),
        ("lmtp+unix:///", "does not name a Unix socket"),
        ("lmtp+unix://relay.example/run/lmtp", "does not name a Unix socket"),
        ("lmtp+unix:///run/%00", "not a valid path"),
        ("smtps://relay.example?ca-file=a%00b", "not a valid path for"),
        ("smtps://relay.example?client-cert=a%00b", "not a valid path for"),
        ("lmtp+unix:///run/lmtp#part", "part"),
        ("lmtps://relay.example", "smtp://host"),
        ("smtp+unix://ann:secret@/run/smtp", "password"),
        ("smtp://ann@relay.example", "password"),
        ("smtp://ann:secret@relay.example", "password"),
    ],
)
def test_a_wrong_url_says_which_part(url: str, about: str) -> None:
    """W-14, W-69 and W-71: an error before any octet, and nothing that could break a terminal."""
    with pytest.raises(InvalidArgument, match=about) as caught:
        Relay.from_url(url)
    assert str(caught.value).isprintable()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "smtp://u:hunter2@h",
        "smtp://u:@hunter2@h",
        "smtp//u:hunter2@h",
        "smtp:/u:hunter2@h",
        "u:hunter2@h",
        "http://u:hunter2@h",
        "smtp://u:hunter2@",
        "smtp://u:hunter2@h:http",
        "smtp://u:hunter2@[::1",
        "smtp://u:x/hunter2@h",
        "smtp://u:/hunter2@h",
        "smtp://u:x?hunter2@h",
        "smtp://u:x#hunter2@h",
        "smtp://u:hunter2@h?tls=1",
    ],
)
def test_a_password_in_a_url_is_refused_and_never_repeated(url: str) -> None:
    """AU-08: also where the URL is wrong otherwise, or the password has what parts a URL; nor by what caused it."""
    with pytest.raises(InvalidArgument, match="must not hold a password") as caught:
        Relay.from_url(url)
    assert "hunter2" not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"


@pytest.mark.parametrize(
    "url",
    [
        "smtp://me@gmail.com:hunter2@h",
        "smtps://me@gmail.com:hunter2@h:465",
        "smtp://me@gmail.com:12345@h",
        "smtp://me@gmail.com:@h",
        "smtp://a@b@c:hunter2@h",
        "smtp://me%40gmail.com:hunter2@h",
        "smtp://me@gmail.com:hun/ter2@h",
        "smtp://me@gmail.com:hun@ter2@h",
        "smtp://one.example,me@gmail.com:hunter2@two.example",
        "me@gmail.com:hunter2@h",
        "smtp:me@gmail.com:hunter2@h",
        "smtp/me@gmail.com:hunter2@h",
        "smtp//me@gmail.com:hunter2@h",
        "smtp://me@gmail.com:hunter2@[::1",
        "lmtp+unix://me@gmail.com:hunter2@/run/smtp",
        "smtp://h?proxy=socks5://me@gmail.com:hunter2@p",
        "smtp://h?proxy=me%40gmail.com%3Ahunter2%40p",
    ],
)
def test_a_password_of_a_user_with_an_at_sign_is_refused_and_never_shown(url: str) -> None:
    """FT-53: most people's user name is their address; with `@` in it the password was quoted as a part of it."""
    with pytest.raises(InvalidArgument, match="must not hold a password") as caught:
        Relay.from_url(url)
    shown = everything_of(caught.value, variables=False)
    assert not any(part in shown for part in ("hunter2", "hun/ter2", "ter2@", "12345"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Relay.from_url("smtp://me%40gmail.com%3Ahunter2@h"),
        lambda: Relay.from_url("smtp://me@gmail.com:hunter2"),
        lambda: Relay.from_url("smtp://me:hunter2"),
        lambda: Relay.from_url("ftp:hunter2"),
        lambda: Relay.from_url("smtp://h/hunter2@h"),
        lambda: Relay.from_url("smtp://me@gmail.com:587/hunter2@h"),
        lambda: Relay.from_url("smtp://h?password=hunter2"),
        lambda: Relay.from_url("smtp://h#hunter2@h"),
        lambda: Relay("me:hunter2@h"),
        lambda: Relay("me@gmail.com:hunter2@h"),
        lambda: Relay("one.example", fallback_hosts=("me:hunter2@h",)),
        lambda: Relay("one.example", fallback_hosts=("me:hunter2",)),
        lambda: Proxy.from_url("socks5://me@gmail.com:hunter2"),
        lambda: Proxy(ProxyKind.SOCKS5, "me:hunter2@p"),
    ],
)
def test_what_may_be_a_mistyped_password_is_not_shown(make: Callable[[], object]) -> None:
    """FT-53: in place of a port, percent-encoded, in a path, beside the URL; nor in what caused the error."""
    with pytest.raises(InvalidArgument) as caught:
        make()
    assert "hunter2@" not in (shown := everything_of(caught.value, variables=False))
    assert ":hunter2" not in shown
    assert "“hunter2" not in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("smtp://relay.example:587/x", "smtp://relay.example:587/x"),
        ("smtp://relay.example:http", "smtp://relay.example:…"),
        ("2001:db8::1", "2001:db8::1"),
        ("smtp://[2001:db8::1]:25", "smtp://[2001:db8::1]:25"),
        ("/run/smtp", "/run/smtp"),
        ("/run/a@b", "/…"),
        ("", ""),
    ],
)
def test_a_wrong_url_is_shown_as_far_as_it_can_be(text: str, shown: str) -> None:
    """FT-53: what cannot be a password stays in the error."""
    assert show_url(text) == shown


@pytest.mark.parametrize(
    "url",
    [
        "smtp://me@gmail.com@relay.example:2525",
        "smtp://ann@relay.example:2525",
        "smtp://relay.example:25?ca-file=/a@b",
        "smtp://[::1]:25?ca-file=/a@b",
        "smtp://a.example:25,b.example:26,[::1]:27,c.example?proxy=socks5://u@p:1080",
        "smtp://ann@a.example:25,b.example:26?ca-file=/a@b",
    ],
)
def test_a_port_and_an_at_sign_are_no_password(url: str) -> None:
    """What merely looks like one is taken."""
    Relay.from_url(url, password="p" if "@" in url.partition("?")[0] else None)


@pytest.mark.parametrize("url", ["smtp://[::1", "smtp://[zz]:1", "smtp://\u2102\u2100.example"])
def test_an_invalid_host_is_named(url: str) -> None:
    """The standard library's ValueError is not ours to show."""
    with pytest.raises(InvalidArgument, match="is not a valid URL"):
        Relay.from_url(url)


CHANGED = [
    "loc\u00adalhost",
    "ｌｏｃａｌｈｏｓｔ",
    "\u212aey.example",
    "%E2%84%AAey.example",
    "①.example",
    "a\u200b.example",
]


@pytest.mark.parametrize("host", CHANGED)
def test_a_host_that_becomes_another_is_refused(host: str) -> None:
    """FT-06: the resolver maps a soft hyphen, full width and the Kelvin sign, and would ask for `localhost`."""
    makers: list[Callable[[], object]] = [
        lambda: Relay.from_url(f"smtp://{host}:25"),
        lambda: Relay.from_url(f"smtp://user@{host}", password="p"),
        lambda: Relay("relay.example", fallback_hosts=(host,)),
        lambda: parse_host_port(f"{host}:25"),
        lambda: Proxy.from_url(f"socks5://{host}:1080"),
    ]
    if "%" not in host:
        makers += [
            lambda: Relay(host),
            lambda: Relay("relay.example", verify_name=host),
            lambda: Proxy(ProxyKind.HTTP, host),
        ]
    for make in makers:
        with pytest.raises(InvalidArgument) as refused:
            make()
        assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("host", "ascii_host"),
    [
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("my_relay", "my_relay"),
    ],
)
def test_a_host_is_shown_as_what_is_asked_for(host: str, ascii_host: str) -> None:
    """FT-06: by IDNA 2008; the resolver's rules of 2003 make `strasse` of the ß, which may belong to somebody else."""
    relay = Relay(host, fallback_hosts=() if ":" in host else (f"{host}:26",))
    assert {each.host for each in relay.single_host_relays} == {ascii_host}
    assert ascii_host in str(relay)
    assert Proxy(ProxyKind.HTTP, host).host == ascii_host
    if ":" not in host:
        assert Relay.from_url(f"smtp://{host}:25").address == (ascii_host, 25)
        assert Proxy.from_url(f"http://{host}:25").address == (ascii_host, 25)


@pytest.mark.parametrize(
    "settings",
    [
        {"host": ""},
        {"port": 0},
        {"port": 65536},
        {"name": "a b"},
        {"name": "x\r\nMAIL"},
        {"name": "a" * 300},
        {"unix_path": "/run/smtp"},
        {"host": "", "port": 25, "unix_path": "/run/smtp"},
        {"host": "", "unix_path": ""},
        {"host": "", "unix_path": "/run/" + "x" * 103},
        {"host": "", "unix_path": b"/run/\0"},
        {"host": "smtp://relay.example"},
        {"host": "relay.example:25"},
        {"security": "TLS"},
        {"security": 5},
        {"dialogue": "fast"},
        {"window": 0},
        {"proxy": "relay.example"},
    ],
)
def test_a_relay_cannot_be_made_wrong(settings: dict[str, object]) -> None:
    """WO-03."""
    with pytest.raises(InvalidArgument):
        Relay(**{"host": "relay.example", **settings})  # type: ignore[arg-type]


def test_a_login_has_one_secret_and_a_name() -> None:
    """D-10: an empty name is no login that could be tried."""
    for wrong in (
        lambda: Login("", Secret("p")),
        lambda: Login("ann"),
        lambda: Login("ann", Secret("p"), token=_token),
    ):
        with pytest.raises(InvalidArgument):
            wrong()


def test_a_relay_is_shown_by_host_and_port() -> None:
    assert str(Relay("relay.example")) == "relay.example:587"
    assert str(Relay("::1", 25)) == "[::1]:25"
    assert "\x1b" not in str(Relay(unix_path="\x1b[31m"))
    assert "\x1b" not in str(Relay("\x1b[31m", 25))


def test_a_relay_without_a_name_cannot_be_sent_what_it_did_not_ask_for() -> None:
    """The default is what is safe: STARTTLS required, certificates verified, no login in clear."""
    relay = Relay("relay.example")
    assert relay.security is Security.STARTTLS
    assert relay.context is None
    assert not relay.cleartext_login


@pytest.mark.parametrize("tls", [{}, {"tls": True}, {"tls": True, "implicit_tls": True}])
@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("unix_path", [None, "/run/a relay?#%41"])
async def test_the_url_of_a_scripted_relay_is_understood(
    tls: dict[str, bool], lmtp: bool, unix_path: str | None, server_tls: ssl.SSLContext
) -> None:
    """Its security included: a test that was given STARTTLS must not go on in clear."""
    context = server_tls if tls else None
    server = ScriptedRelay(port=2525, tls=context, implicit_tls="implicit_tls" in tls, lmtp=lmtp, unix_path=unix_path)
    relay = Relay.from_url(server.url)
    wanted = (Security.PLAINTEXT, Security.STARTTLS, Security.IMPLICIT_TLS)[len(tls)]
    assert (relay.security, relay.lmtp) == (wanted, lmtp)
    assert relay.unix_path == (unix_path and Path(unix_path))
    assert unix_path or relay.address == (server.host, 2525)


@pytest.mark.parametrize("password", ["p", Secret("p")])
def test_a_password_stands_beside_the_url(password: str | Secret) -> None:
    """A plain string is accepted, and no repr shows it."""
    relay = Relay.from_url("smtps://ada@relay.example", password=password)
    assert relay.login == Login("ada", "p") == Login("ada", Secret("p"))
    assert relay.login is not None
    assert relay.login.password == Secret("p")
    assert "'p'" not in repr(relay)


@pytest.mark.parametrize("token", ["t-1", Secret("t-1")])
async def test_a_token_may_be_a_string(token: str | Secret) -> None:
    """It is good until a relay refuses it; equal logins stay equal."""
    login = Login("ada", token=token)
    assert login.token is not None
    fetched = await login.token()
    assert isinstance(fetched, Token)
    assert fetched.secret == Secret("t-1")
    assert login == Login("ada", token="t-1") == Relay.from_url("smtps://ada@h", token="t-1").login
    assert "t-1" not in repr(login)


def test_a_token_may_be_an_async_function() -> None:
    relay = Relay.from_url("smtps://ada@h", token=_token)
    assert relay.login is not None
    assert relay.login.token is _token


def test_a_missing_password_names_the_parameters() -> None:
    """The message names what to pass, and for the command what to set."""
    with pytest.raises(InvalidArgument, match=r"give password= or token= .*ASYNCSMTP_PASSWORD"):
        Relay.from_url("smtps://ada@relay.example")


@pytest.mark.parametrize(
    ("url", "secret", "advice"),
    [
        ("smtps://h", {"password": "p"}, "password= and token= need a user .*: write smtp://user@host:587"),
        ("smtps://h?auth=EXTERNAL", {"token": "t-1"}, "password= and token= need a user"),
        ("lmtp+unix:///run/lmtp", {"password": Secret("p")}, "password= and token= need a user"),
        ("smtps://h", {"proxy_password": "p"}, "proxy_password= needs a proxy: add proxy="),
        ("smtps://h?proxy=socks5://p", {"proxy_password": "p"}, "a proxy's password needs username= too"),
        ("smtps://h", {"passphrase": "p"}, "passphrase= needs a client certificate: add client-cert"),
    ],
)
def test_a_secret_that_would_not_be_used_is_refused(url: str, secret: dict[str, Any], advice: str) -> None:
    """Without it, mail would go out without the login that the caller meant."""
    with pytest.raises(InvalidArgument, match=advice):
        Relay.from_url(url, **secret)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Relay.from_url(3), "url must be str, not int"),  # type: ignore[arg-type]
        (lambda: Relay.from_url("smtps://a@h", password=3), "password must be str, Secret or None, not int"),  # type: ignore[arg-type]
        (lambda: Relay.from_url("smtps://a@h", token=3), "token must be str, Secret or an async function, not int"),  # type: ignore[arg-type]
        (lambda: Relay(b"h"), "host must be str, not bytes"),  # type: ignore[arg-type]
        (lambda: Relay("h", "25"), "port must be int or None, not str"),  # type: ignore[arg-type]
        (lambda: Relay("h", login="ada"), "login must be Login or None, not str"),  # type: ignore[arg-type]
        (lambda: Relay("h", ca_file=3), "ca_file must be str, Path or None, not int"),  # type: ignore[arg-type]
        (lambda: Login(3), "username must be str, not int"),  # type: ignore[arg-type]
        (lambda: ClientCertificate(3), "file must be str or Path, not int"),  # type: ignore[arg-type]
        (lambda: Proxy.from_url(3), "url must be str, not int"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_type_is_a_type_error_at_the_call(call: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("timeouts", 5),
        ("context", 5),
        ("client_certificate", "a.pem"),
        ("verify_name", b"h"),
        ("verify", "no"),
        ("cleartext_login", 1),
        ("lmtp", "yes"),
        ("window", True),
        ("window", "4"),
        ("xclient", {}),
        ("source_address", 5),
        ("fallback_hosts", "localhost"),
        ("pins", "00"),
        ("ignored_extensions", "DSN"),
        ("proxy", 5),
        ("port", True),
    ],
)
def test_a_relay_names_the_parameter_of_a_wrong_type(parameter: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"^{parameter} must be "):
        Relay("h", **{parameter: value})  # type: ignore[arg-type]


def test_strings_are_converted_and_never_turn_tls_off() -> None:
    """TL-03."""
    relay = Relay("h", security="tls", dialogue="lockstep", proxy="socks5://p", fallback_hosts=["i"])  # type: ignore[arg-type]
    assert relay.security is Security.IMPLICIT_TLS
    assert relay.dialogue is Dialogue.LOCKSTEP
    assert relay.proxy == Proxy.from_url("socks5://p")
    assert relay.fallback_hosts == ("i",)
    assert hash(relay)
    with pytest.raises(InvalidArgument, match="tls, starttls, opportunistic, none"):
        Relay("h", security="ssl")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=r"port=, or Relay.from_url\(\)"):
        Relay("smtp://h")


def test_a_repr_shows_what_differs_from_the_defaults() -> None:
    assert repr(Relay("h")) == "Relay(host='h')"
    assert repr(Login("ann", "secret")) == "Login(username='ann', password=Secret(***))"
    assert repr(Login("ann", token="secret")) == "Login(username='ann', token=Secret(***))"
    assert repr(Login.by_certificate()) == "Login(mechanisms=('EXTERNAL',))"
    assert repr(Relay("h", 25, verify=False)) == "Relay(host='h', port=25, verify=False)"


def test_a_file_may_be_named_by_a_string() -> None:
    """`str` where a `Path` is meant."""
    assert ClientCertificate("a.pem", "a.key", "pass") == ClientCertificate(
        Path("a.pem"), Path("a.key"), Secret("pass")
    )
    assert Relay("h", ca_file="ca.pem").ca_file == "ca.pem"
