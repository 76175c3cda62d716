"""The transcripts of tests/transcripts, over loopback: a session, and a relay that plays the S: side."""

from __future__ import annotations

import ssl

import pytest

from asyncsmtp.client.config.relay import Login
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import DeliveryInDoubt, SMTPError
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.auth.auth import Secret
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing.transcript import TranscriptRelay
from tests.client.support import relay_of
from tests.transcripts.notation import Scene, scenes
from tests.transcripts.scene_options import build_envelope, build_xclient

# Behind the dot a session speaks only once it has proved its server; test_manners.py plays that.
SCENES = [scene for scene in scenes() if not scene.is_set("after-end-of-data")]


def login(scene: Scene) -> Login | None:
    """Who logs in, with a password or with a token."""
    if "login" in scene.settings:
        user, password = scene.settings["login"].split()
        return Login(user, Secret(password))
    if "token" in scene.settings:
        user, given = scene.settings["token"].split()

        async def token() -> str:
            return given

        return Login(user, token=token)
    return None


async def send(session: Session, scene: Scene, results: list[tuple[str, ...]]) -> None:
    """Send the scene's messages, noting the fate of each until one ends the session."""
    await session.connect()
    for number, paths in enumerate(scene.messages):
        try:
            delivery = await session.send(Message(build_envelope(scene.settings, paths), Content.of(scene.content)))
        except DeliveryInDoubt:
            results[number] = ("in doubt",)
            raise
        results[number] = tuple(map(str, delivery.outcomes))


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.title)
async def test_a_session_says_what_the_transcript_says(
    scene: Scene, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """What is true sans I/O is true over sockets: the same lines, the same results, the same reason."""
    security = Security(scene.settings.get("security", "none"))
    implicit = security is Security.IMPLICIT_TLS
    results: list[tuple[str, ...]] = [("not sent",)] * len(scene.messages)
    failed: SMTPError | None = None
    async with TranscriptRelay(scene.transcript, tls=server_tls, implicit_tls=implicit) as server:
        relay = relay_of(
            server,
            security=security,
            context=client_tls,
            login=login(scene),
            cleartext_login=scene.is_set("cleartext-login"),
            ignored_extensions=frozenset(scene.settings.get("masked", "").split()),
            name="client.example",
            xclient=build_xclient(scene.settings),
        )
        session = Session(relay)
        try:
            await send(session, scene, results)
        except SMTPError as error:
            failed = error
        finally:
            await session.aclose()
    assert tuple(results) == scene.results
    kind, _, text = scene.settings.get("error", ": ").partition(": ")
    if kind:
        assert type(failed).__name__ in (kind, "ConnectFailed", "DeliveryInDoubt")
        assert failed is not None
        assert text in str(failed) or text in str(failed.__cause__)
