"""The parts of a message that anybody may have written: what is read of them, to the byte."""

from __future__ import annotations

import pytest

from asyncsmtp.bulk.bounces.mime_parser import MAX_DSN_BYTES, MAX_HEADER, Part, walk_parts


def nested(levels: int) -> bytes:
    """A text in so many multiparts."""
    data = b"\ninnermost\n"
    for level in range(levels):
        mark = b"b%d" % level
        data = (
            b"Content-Type: multipart/mixed; boundary="
            + mark
            + b"\n\n--"
            + mark
            + b"\n"
            + data
            + b"--"
            + mark
            + b"--\n"
        )
    return data


@pytest.mark.parametrize(("levels", "found"), [(0, True), (8, True), (9, False)])
def test_eight_levels_are_read(levels: int, found: bool) -> None:
    parts = list(walk_parts(nested(levels)))
    assert (b"innermost" in parts[-1].body and parts[-1].content_type == "text/plain") is found
    assert len(parts) == min(levels, 8) + 1


@pytest.mark.parametrize(("number", "read"), [(1, 2), (98, 99), (99, 100), (100, 100), (150, 100)])
def test_a_hundred_parts_are_read_the_message_included(number: int, read: int) -> None:
    data = b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * number
    assert len(list(walk_parts(data))) == read


def test_parts_come_in_their_order_each_before_its_own() -> None:
    inner = b"Content-Type: multipart/mixed; boundary=i\n\n--i\n\nb\n--i\n\nc\n--i--\n"
    data = (
        b"Content-Type: multipart/mixed; boundary=o\n\npreamble\n--o\n\na\n--o\n"
        + inner
        + b"--o\n\nd\n--o--\nepilogue\n"
    )
    assert [part.body for part in walk_parts(data) if part.content_type == "text/plain"] == [
        b"a\n",
        b"b\n",
        b"c\n",
        b"d\n",
    ]


def test_two_mebibytes_of_a_message_are_read() -> None:
    data = b"Subject: x\n\n" + b"y" * MAX_DSN_BYTES
    (part,) = walk_parts(data)
    assert len(part.body) == MAX_DSN_BYTES - len("Subject: x\n\n")


@pytest.mark.parametrize(("extra", "has_body"), [(0, True), (1, False)])
def test_a_header_may_have_64_kib(extra: int, has_body: bool) -> None:
    """Its end, an empty line, is within."""
    line = b"X-A: " + b"y" * 994 + b"\n"
    head = line * (MAX_HEADER // 1000)
    head += b"X-B: " + b"z" * (MAX_HEADER - len(head) - 7 + extra) + b"\n"
    part = Part(head + b"\nbody\n")
    assert part.body == (b"body\n" if has_body else b"")
    assert part.get("x-b").startswith("zzz")


@pytest.mark.parametrize("fold", ["", "\n ", "\n\t"])
def test_a_field_has_2000_characters(fold: str) -> None:
    part = Part(f"x-a: {'y' * 1000}{fold}{'z' * 1000}tail\nX-B : last\n\n".encode())
    assert len(part.get("X-A".lower())) == 2000
    assert part.get("x-b") == "last"
    assert part.get("x-c") == ""


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("Content-Type: Text/HTML; charset=utf-8", "text/html"),
        ("content-type:message/rfc822", "message/rfc822"),
        ("Content-Type: nonsense", "text/plain"),
        ("X-Type: text/html", "text/plain"),
    ],
)
def test_a_type_is_that_of_its_field_or_text(field: str, kind: str) -> None:
    """RFC 2045 §5.2."""
    assert Part(f"{field}\n\nx".encode()).content_type == kind


@pytest.mark.parametrize(
    ("encoding", "body", "text"),
    [
        ("7bit", b"a=3D", "a=3D"),
        ("Quoted-Printable", b"a=3Db=\nc", "a=bc"),
        ("BASE64", b"YWI=\n", "ab"),
        ("base64", b"YWI", "YWI"),
        ("x-other", b"\xff", "\ufffd"),
    ],
)
def test_a_body_is_decoded_as_it_says(encoding: str, body: bytes, text: str) -> None:
    """What cannot be decoded stays as it is."""
    assert Part(b"Content-Transfer-Encoding: " + encoding.encode() + b"\n\n" + body).text() == text


@pytest.mark.parametrize("mark", ['"a b"', "a_b", '"--"'])
def test_a_boundary_may_be_quoted(mark: str) -> None:
    line = f"--{mark.strip(chr(34))}"
    head = f"Content-Type: multipart/mixed;\n  Boundary = {mark}; x=y\n\n"
    _, *parts = walk_parts(f"{head}{line}  \n\na\n{line}x\n{line}\n\nb\n{line}--".encode())
    assert [part.body for part in parts] == [f"a\n{line}x\n".encode(), b"b\n"]


def test_only_a_multipart_has_parts() -> None:
    data = b"Content-Type: text/plain; boundary=b\n\n--b\n\na\n--b--\n"
    assert len(list(walk_parts(data))) == 1
    assert len(list(walk_parts(b"Content-Type: multipart/mixed\n\n--b\n\na\n"))) == 1
    for kind in (b"message/rfc822", b"message/global"):
        whole, message = walk_parts(b"Content-Type: " + kind + b"\n\nSubject: x\n\ny")
        assert (whole.content_type.encode(), message.get("subject"), message.body) == (kind, "x", b"y")
    assert len(list(walk_parts(b"Content-Type: text/rfc822-headers\n\nSubject: x\n\ny"))) == 1


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_line_ends_are_of_any_kind_but_one(end: bytes) -> None:
    (part,) = walk_parts(b"Subject: x" + end + end + b"a" + end + b"b")
    assert (part.get("subject"), part.body) == ("x", b"a\nb")
