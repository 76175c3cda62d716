"""The transcripts of tests/transcripts, played sans I/O: whole segments, and one octet at a time."""

from __future__ import annotations

import pytest

from tests.protocol.splitting import Cut, one_by_one, whole
from tests.protocol.transcript_client import Client, play
from tests.transcripts.notation import Scene, scenes

SCENES = scenes()
CUTTABLE = [one for one in SCENES if not one.is_set("one-segment")]


def title(scene: Scene) -> str:
    return scene.title


def check(scene: Scene, client: Client) -> None:
    """The scene's results, and its error or none."""
    kind, _, text = scene.settings.get("error", "NoneType: None").partition(": ")
    assert type(client.error).__name__ == kind
    assert text in str(client.error)
    assert client.results() == scene.results


@pytest.mark.parametrize("scene", SCENES, ids=title)
def test_the_client_says_what_the_transcript_says(scene: Scene) -> None:
    """Each line of the client is compared, and what became of each recipient."""
    check(scene, play(scene, whole))


@pytest.mark.parametrize("scene", CUTTABLE, ids=title)
def test_the_same_when_each_read_brings_one_octet(scene: Scene) -> None:
    """W-31: a reply split at any octet is the same reply."""
    check(scene, play(scene, one_by_one))


@pytest.mark.parametrize("half", [1, 2, 3, 7])
@pytest.mark.parametrize("scene", CUTTABLE, ids=title)
def test_the_same_when_reads_bring_odd_pieces(scene: Scene, half: int) -> None:
    """Neither line ends nor replies need to agree with what a read returns."""

    def pieces(octets: bytes) -> list[bytes]:
        return [octets[start : start + half] for start in range(0, len(octets), half)]

    cut: Cut = pieces
    check(scene, play(scene, cut))


def test_each_title_is_there_once() -> None:
    """A title is the test's name."""
    titles = [one.title for one in SCENES]
    assert len(titles) == len(set(titles))


def test_no_scene_without_tls_has_credentials_in_it_but_one() -> None:
    """AU-01: only their owner's word sends them in clear."""
    telling = {
        one.title
        for one in SCENES
        if one.settings.get("security") != "tls"
        and any(command.startswith("AUTH") for command in one.transcript.commands)
    }
    assert telling == {"Credentials go in clear where their owner says so"}
