"""SCRAM, by the vectors of its RFCs, and against servers that are up to no good."""

from __future__ import annotations

import traceback
from base64 import b64decode, b64encode

import pytest

from asyncsmtp.errors import InvalidArgument, LocalProtocolError
from asyncsmtp.protocol.auth import scram as module
from asyncsmtp.protocol.auth.credentials import Channel, Password, Secret
from asyncsmtp.protocol.auth.mechanisms import MechanismFailed, SaslDialogue
from asyncsmtp.protocol.auth.scram import can_prepare, scram
from asyncsmtp.testing import ServerScram

USER = Password("user", Secret("pencil"))
NONCE_1 = "fyko+d2lbbFgONRv9qkxdawL"
NONCE = "rOprNGfwEbeRWgbNEkqO"
FIRST_1 = b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096"
FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
FINAL_512 = b"ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw=="
PROOF_512 = b"gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ=="


def begun(
    algorithm: str = "sha256",
    nonce: str = NONCE,
    *,
    credentials: Password = USER,
    plus: bool = False,
    offered: bool = False,
    binding: bytes | None = None,
    monkeypatch: pytest.MonkeyPatch | None = None,
) -> tuple[SaslDialogue, bytes | None]:
    """A dialogue, and the client's first message."""
    if monkeypatch is not None:
        monkeypatch.setattr(module, "server_end_point", lambda certificate: binding)
    dialogue = scram(algorithm, plus=plus)(credentials, Channel(nonce=nonce, plus=offered))
    return dialogue, next(dialogue)


@pytest.mark.parametrize(
    ("algorithm", "nonce", "first", "proof", "final"),
    [
        ("sha1", NONCE_1, FIRST_1, b"v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", b"rmF9pqV8S7suAoZWja4dJRkFsKQ="),
        (
            "sha256",
            NONCE,
            FIRST,
            b"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ),
        ("sha512", NONCE, FIRST, PROOF_512, FINAL_512),
    ],
    ids=["RFC 5802 §5", "RFC 7677 §3", "SHA-512"],
)
def test_the_vectors(algorithm: str, nonce: str, first: bytes, proof: bytes, final: bytes) -> None:
    """SV-03, SV-04, SV-05: SCRAM-SHA-1, -256 and -512, byte for byte; the end is an empty answer."""
    dialogue, said = begun(algorithm, nonce)
    assert said == b"n,,n=user,r=" + nonce.encode()
    server_nonce = first[2:].split(b",")[0]
    assert dialogue.send(first) == b"c=biws,r=" + server_nonce + b",p=" + proof
    assert dialogue.send(b"v=" + final) == b""
    with pytest.raises(StopIteration):
        dialogue.send(b"more")


def test_a_proof_covers_the_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """SV-06, AU-04, wire.md SASL vectors: SCRAM-SHA-256-PLUS with tls-server-end-point."""
    binding = b"imap://elwood.innosoft.com/"
    dialogue, said = begun(plus=True, offered=True, binding=binding, monkeypatch=monkeypatch)
    assert said == b"p=tls-server-end-point,,n=user,r=" + NONCE.encode()
    final = dialogue.send(FIRST)
    assert final is not None
    assert final.startswith(b"c=cD10bHMtc2VydmVyLWVuZC1wb2ludCwsaW1hcDovL2Vsd29vZC5pbm5vc29mdC5jb20v,r=")
    assert final.endswith(b",p=5mTXE52q6omlPLhl1OBywbbmUZoqUb8TZ0rQcSODGrg=")
    assert dialogue.send(b"v=iTfhTdj45V52spZKUcXtZGOkyhurIJ8/UAxKKJZcmRQ=") == b""


def test_a_client_that_could_bind_says_so_where_the_relay_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    """SV-08, AU-04, wire.md SASL vectors: gs2 `y,,`, so that a relay notices that its -PLUS was taken away."""
    dialogue, said = begun(binding=b"binding", monkeypatch=monkeypatch)
    assert said is not None
    assert said.startswith(b"y,,n=user")
    final = dialogue.send(FIRST)
    assert final is not None
    assert final.startswith(b"c=eSws,")
    assert final.endswith(b",p=FoqiHTtQEDE8lz1CdaEe3tK4mS+iMDTl77SPyDS53DY=")
    assert dialogue.send(b"v=dI4KpiQJwBr1+V+K6U1dA6l6I4I9DUNXWND4pcpRU3U=") == b""


@pytest.mark.parametrize(("offered", "binding"), [(True, None), (False, None), (True, b"binding")])
def test_a_client_that_does_not_bind_says_n(
    *, offered: bool, binding: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SV-14, AU-04, wire.md negative cases: `y` beside an offered -PLUS would be taken for an attack (RFC 5802 §6)."""
    _, said = begun(offered=offered, binding=binding, monkeypatch=monkeypatch)
    assert said is not None
    assert said.startswith(b"n,,")


def test_there_is_no_plus_without_a_certificate() -> None:
    """AU-04: never a binding of nothing."""
    with pytest.raises(LocalProtocolError):
        begun(plus=True)


@pytest.mark.parametrize("nonce", ["", "short", "with,a,comma,and,enough", "with a space and enough"])
def test_a_nonce_is_asked_for(nonce: str) -> None:
    """AU-03: a login that anybody may replay is a bug of ours."""
    with pytest.raises(LocalProtocolError, match="nonce"):
        begun(nonce=nonce)


def test_names_are_prepared_and_quoted() -> None:
    """RFC 5802 §5.1: `,` and `=` part the message; the password is in the proof only."""
    _, said = begun(credentials=Password("a=b,\u2168", Secret("x"), "other,one"))
    assert said == b"n,a=other=2Cone,n=a=3Db=2CIX,r=" + NONCE.encode()


def test_passwords_are_prepared() -> None:
    """RFC 5802 §2.2: the soft hyphen and the compatibility form are the same password."""
    answers = []
    for password in ("pencil", "pen\u00adcil", "ｐencil"):
        dialogue, _ = begun(credentials=Password("user", Secret(password)))
        answers.append(dialogue.send(FIRST))
    assert len(set(answers)) == 1


def test_a_password_that_cannot_be_prepared_is_refused_and_not_shown() -> None:
    """AU-08, RFC 4013: by PLAIN it may go."""
    credentials = Password("user", Secret("hunter2\u0007"))
    assert not can_prepare(credentials)
    with pytest.raises(InvalidArgument, match="SCRAM does not allow") as refused:
        begun(credentials=credentials)
    frames = traceback.TracebackException.from_exception(refused.value, capture_locals=True).stack
    assert "hunter2" not in str([frame.locals for frame in frames if "asyncsmtp/protocol" in frame.filename])
    assert refused.value.__context__ is None


def changed(old: bytes, new: bytes) -> bytes:
    assert old in FIRST
    return FIRST.replace(old, new)


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (changed(b"i=4096", b"i=0"), "not valid SCRAM"),
        (changed(b"i=4096", b"i=1"), "1 iterations: 4096 to 1000000"),
        (changed(b"i=4096", b"i=4095"), "4095 iterations"),
        (changed(b"i=4096", b"i=1000001"), "1000001 iterations"),
        (changed(b"i=4096", b"i=1000000000"), "1000000000 iterations"),
        (changed(b"i=4096", b"i=" + b"9" * 5000), "not valid SCRAM"),
        (changed(b"i=4096", b"i=-4096"), "not valid SCRAM"),
        (changed(b"r=rOp", b"r=XOp"), "does not extend the client's"),
        (b"r=" + NONCE.encode() + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "does not extend the client's"),
        (b"r=,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "not valid SCRAM"),
        (b"m=future," + FIRST, "an unknown extension of SCRAM"),
        (changed(b"s=W22", b"s=!!!"), "not valid SCRAM"),
        (changed(b"gQ==", b"gQ="), "invalid base64"),
        (changed(b",s=W22ZaJ0SNY7soEsUEjb6gQ==", b""), "not valid SCRAM"),
        (b"e=other-error", "the relay reports other-error"),
        (b"e=unknown-user,x=y", "the relay reports unknown-user"),
        (b"e=hunter2", "the relay reports an unknown error"),
        (b"", "not valid SCRAM"),
        (b"\xff\xfe", "not valid SCRAM"),
    ],
)
def test_a_first_message_that_is_not_acceptable(first: bytes, why: str) -> None:
    """SV-13, AU-03, wire.md negative SASL cases: before anything of the password was computed."""
    dialogue, _ = begun()
    with pytest.raises(MechanismFailed, match=why):
        dialogue.send(first)


def test_optional_extensions_behind_the_iterations_are_passed_over() -> None:
    """RFC 5802 §5.1: "unknown optional extensions MUST be ignored"."""
    dialogue, _ = begun()
    final = dialogue.send(FIRST + b",x=whatever,y=else")
    assert final is not None
    assert final.startswith(b"c=biws,r=")


@pytest.mark.parametrize(
    ("final", "why"),
    [
        (b"v=" + b64encode(b"\0" * 32), "did not prove"),
        (b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G==", "did not prove"),
        (b"v=" + b64encode(b64decode(b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")[:16]), "did not prove"),
        (b"v=AAA", "invalid base64"),
        (b"", "did not prove"),
        (b"e=invalid-proof", "the relay reports invalid-proof"),
        (b"e=channel-bindings-dont-match", "the relay reports channel-bindings-dont-match"),
        (FIRST, "did not prove"),
    ],
)
def test_a_final_message_that_proves_nothing(final: bytes, why: str) -> None:
    """SV-13, AU-03, wire.md negative SASL cases: a wrong `v=`, and `e=` shown."""
    dialogue, _ = begun()
    dialogue.send(FIRST)
    with pytest.raises(MechanismFailed, match=why):
        dialogue.send(final)


def test_the_most_iterations_are_computed() -> None:
    """AU-03: the bound is a bound, not a refusal; SHA-1 is the quickest."""
    dialogue, _ = begun("sha1")
    assert dialogue.send(changed(b"i=4096", b"i=1000000")) is not None


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("password", ["pencil", "pen=c,il", "\U0001f511"])
def test_both_sides_come_to_the_same(algorithm: str, password: str) -> None:
    """The scripted relay computes on its own."""
    server = ServerScram(algorithm, iterations=5000)({"a,b": password})
    dialogue, said = begun(algorithm, credentials=Password("a,b", Secret(password)))
    next(server)
    for _ in range(2):
        assert said is not None
        said = dialogue.send(server.send(said))
    assert said is not None
    with pytest.raises(StopIteration) as ended:
        server.send(said)
    assert ended.value.value == ("a,b", True)
