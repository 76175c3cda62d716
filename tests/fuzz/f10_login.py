"""F10: whatever a relay answers to AUTH, the login ends, and where it must be proved it was proved."""

from __future__ import annotations

from base64 import b64encode

from asyncsmtp.errors import SMTPError
from asyncsmtp.protocol.auth.auth import MAX_ROUNDS, NAMES, Bearer, Channel, External, Password, Secret, log_in
from asyncsmtp.protocol.client import ClientProtocol, ProtocolState
from asyncsmtp.protocol.commands import ehlo
from tests.fuzz.script import turns

__all__ = ["target"]

SECRET = "correct horse battery staple"
CREDENTIALS = (Password("ann", Secret(SECRET)), Bearer("ann", Secret(SECRET)), External("ann"))
CHANNEL = Channel("relay.example", 587, None, "nonce")
PIECES = {  # octets that stand for what a server of SCRAM says, in base64 once they are put together
    0xF0: b"r=nonce",
    0xF1: b"server,s=QSXCR+Q6sek8bf92,i=4096",
    0xF2: b",i=9999999999",
    0xF3: b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    0xF4: b"e=other-error",
    0xF5: b'{"status":"401","schemes":"bearer"}',
}


def target(data: bytes) -> None:
    """One octet picks the mechanism and one the credentials; each turn of the rest is a reply, or a challenge."""
    if len(data) < 2:
        return
    name, credentials = NAMES[data[0] % len(NAMES)], CREDENTIALS[data[1] % 3]
    protocol = ClientProtocol(tls=True)
    list(protocol.receive(b"220 relay\r\n"))
    protocol.send(ehlo("client.example"))
    list(protocol.receive(b"250-relay\r\n250 AUTH " + name.encode() + b"\r\n"))
    rounds, said = 0, ""
    try:
        steps = log_in(protocol, credentials, CHANNEL, (name,))
        protocol.send(next(steps))
        for turn in turns(data[2:]):
            if turn is None:
                return
            for exchange in protocol.receive(reply(turn)):
                rounds += exchange.reply.code == 334
                assert rounds <= MAX_ROUNDS + 1
                assert SECRET not in str(exchange.reply)
                protocol.send(steps.send(exchange.reply))
    except StopIteration:
        assert protocol.state is ProtocolState.READY
        assert not name.startswith("SCRAM"), "nobody knew the password, and yet it counts as proved"
    except SMTPError as error:
        said = str(error)
    assert SECRET not in said


def reply(turn: bytes) -> bytes:
    """Octets that begin with `=` are a challenge; others are what they are."""
    if not turn.startswith(b"="):
        return turn
    said = b"".join(PIECES.get(octet, bytes((octet,))) for octet in turn[1:])
    return b"334 " + b64encode(said) + b"\r\n"
