"""Seeds for each target: inputs with good coverage, and those that once found a fault."""

from __future__ import annotations

from collections.abc import Mapping

from tests.fuzz.script import END, GO_ON, HALF_CLOSES

__all__ = ["SEEDS"]

_OPENED = (0x80, GO_ON, 0x81, GO_ON)
_LOGGED_IN = (0x80, GO_ON, 0x90, GO_ON, 0x8E, GO_ON)
_ENVELOPE = (0x84, 0x84, 0x85, GO_ON)
_ALL = (0x84, 0x84, 0x84, 0x84, 0x85, GO_ON)

SEEDS: Mapping[str, list[bytes]] = {
    "F1": [
        b"\x03220 relay.example ESMTP\r\n250-one\r\n250-two\r\n250 three\r\n",
        b"\x00550-5.1.1 no\r\n550 5.1.1 such user\r\n354\r\n",
        b"\x06250-a\r\n550 b\r\n",
        b"\x02250 o\0k\r\n2500 ok\r\n25 0\r\n",
        b"\x0f421 4.3.2 closing\r\n250 ok\n",
        bytes([7, *range(0x80, 0x90)]),
        b"\x0e250-" + b"y" * 2043 + b"\r\n250 " + b"z" * 2042 + b"\r\n",
    ],
    "F2": [
        b"relay.example\nPIPELINING\nSIZE 10240000\nAUTH PLAIN LOGIN\nAUTH=CRAM-MD5\nLIMITS MAILMAX=10 RCPTMAX=x",
        b"x\nSIZE -1\nSIZE " + b"9" * 5_000 + b"\nDELIVERBY 240,x\nFUTURERELEASE 864000 2030-01-01T00:00:00Z",
        "x\nSIZE ٣\nSMTPUTF8\n8BITMIME\nXTHING \xa0 y".encode(),
        b"x\n\n \n-\nA_B\nAUTH=\nauth\tplain",
    ],
    "F3": [
        *(
            bytes([settings, moves, *(_LOGGED_IN if moves & 1 else _OPENED), *turn, *_ALL, *rest])
            for settings in (0, 1, 2, 5, 9, 10, 0xF1, 0xFA)
            for moves in (0, 1, 0x12, 0x22, 0x42, 0x66, 0xA3)
            for turn, rest in (
                (_ENVELOPE, (0x84, GO_ON, 0x8B)),
                ((0x84, 0x86, 0x89, GO_ON), (0x84, END)),
                ((0x84, 0x84, 0x85, 0x85, GO_ON), (0x87, GO_ON, 0x88)),
                ((0x84, 0x8C, 0x84, 0x85, GO_ON), (0x84, 0x84, 0x84)),
                ((0x84, 0x84, 0x85, GO_ON), (0x84, HALF_CLOSES)),
            )
        ),
        *(
            bytes([settings, moves, *(_LOGGED_IN if moves & 1 else _OPENED), *_ENVELOPE, 0x84, end, 0x8B])
            for settings in (0, 1, 8)
            for moves in (*range(4), *range(0x12, 0x100, 0x10))
            for end in (GO_ON, HALF_CLOSES)
        ),
    ],
    "F5": [
        "\x00Grüße aus Köln =?utf-8?q?x?= und 日本 ".encode() + b"word " * 40,
        b"\x00" + b"x" * 1200 + b"\tb",
        b"\x00=?utf-8?q?foo=0D=0ABcc=3A_z=40x?=",
        '\x01Zoë, <b@x.example> "Quoted\\" (c)'.encode(),
        b"\x01a, b" + b" c" * 60,
        b"\x02" + b"<1@x.example> " * 40,
        b"\x02a\x00b\x7f\r\nBcc: z@x.example",
    ],
    "F6": [b"\x01A: b\r\n.\r\n", b"\x02A: b\r\n.", b"\x00A: \n.\r\nMAIL FROM:<>", b"\x05\r.\r\n..\n\r\r\n", b"\x00"],
    "F7": [
        b"\x03Subject:  a \t b\n  folded \nFROM : x\n\nbody  line \t\n\n\n end\n\n\n",
        b"\x00A:\n\n \t \n\t\n",
        b"\x07A: b\n\n" + b"x \t" * 30 + b"\n" + b" " * 20,
    ],
    "F10": [
        bytes([mechanism, credentials]) + script
        for mechanism in range(12)
        for credentials in range(3)
        for script in (
            b"=\xf0\xf1\xfe=\xf3\xfe\x8e",
            b"=\xf5\xfe\x8f",
            b"=\xfe=\xfe=\xfe=\xfe=\xfe=\xfe\x8f",
            b"\x8e",
            b"334 no base64!\r\n\xfe\x8f",
        )
    ],
}
