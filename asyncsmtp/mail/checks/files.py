"""What providers object to in the files that go with a message."""

from __future__ import annotations

from asyncsmtp.mail.checks.seen import Said, Seen
from asyncsmtp.protocol.replies import safe_text

__all__ = ["active", "disguised"]

_GMAIL = """
    ade adp apk appx appxbundle bat cab chm cmd com cpl diagcab diagcfg diagpkg dll dmg ex ex_ exe hta img ins iso isp
    jar jnlp js jse lib lnk mde mjs msc msi msix msixbundle msp mst nsh pif ps1 scr sct shb sys vb vbe vbs vhd vxd
    wsc wsf wsh xll
"""  # what it says that it blocks: support.google.com/mail/answer/6590
_OUTLOOK = """
    application appref-ms gadget hlp inf msh mshxml msu ps1xml ps2 psc1 psd1 psdm1 reg scf settingcontent-ms shs url
    vbp vhdx ws xbap
"""  # what it blocks besides, as far as nobody would send it in good faith
_ACTIVE = tuple(f".{ending}" for ending in f"{_GMAIL} {_OUTLOOK}".split())


def active(seen: Seen) -> Said:
    """Files that a double click would run."""
    found = next(filter(_is_active, seen.files), None)
    if found is not None:
        yield f"{safe_text(found, 80)} is a kind of file that providers refuse", "link to it, or send another kind"


def disguised(seen: Seen) -> Said:
    """Files that are of another kind than they say."""
    found = next((each for each in seen.disguised if not _is_active(each[0])), None)
    if found is not None:
        name, said, octets = found
        yield (
            f"{safe_text(name, 80)} is said to be {said}, and is {octets} by its octets",
            "give it the name that fits, or the file that was meant",
        )


def _is_active(name: str) -> bool:
    return name.lower().rstrip(". ").endswith(_ACTIVE)  # Windows drops dots and spaces at the end
