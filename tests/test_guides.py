"""The tutorials and guides are true: each is followed from top to bottom, in a folder of its own."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from asyncsmtp.testing import ScriptedRelay
from tests.cli.serving import serving
from tests.pages import DOCS, GUIDES, run_page

pytestmark = pytest.mark.slow


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", GUIDES)
def test_a_reader_can_follow_the_page(name: str, tmp_path: Path, ca: trustme.CA, server_tls: ssl.SSLContext) -> None:
    """What is typed works, and prints what the page shows."""
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    relay = ScriptedRelay(tls=server_tls, users={"ann@gmail.com": "open sesame"}, needs_auth=True, needs_tls=True)
    with serving(relay):
        environment = {
            "ASYNCSMTP_RELAY": f"smtp://localhost:{relay.port}",  # its host and port win over the provider's
            "ASYNCSMTP_PASSWORD": "open sesame",
            "SSL_CERT_FILE": str(tmp_path / "ca.pem"),
        }
        run_page(DOCS / name, tmp_path, environment)
    if "```sh relay\n" in (DOCS / name).read_text(encoding="utf-8"):
        assert len(relay.received) > 3
