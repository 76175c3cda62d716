"""F2: whatever lines a reply to EHLO has, they are keywords, or are passed over; nothing raises."""

from __future__ import annotations

from asyncsmtp.protocol.replies import Extensions, Reply

__all__ = ["target"]


def target(data: bytes) -> None:
    """Lines as a relay may write them."""
    offered = Extensions.parse(Reply(250, tuple(data.replace(b"\r", b"").replace(b"\0", b"").split(b"\n"))))
    for keyword, words in offered.items():
        assert keyword.isascii()
        assert keyword == keyword.upper()
        assert keyword in offered.without({"none"})
        assert keyword not in offered.without({keyword.lower()})
        assert all(word and not any(map(str.isspace, word)) for word in words)
    numbers = [offered.size, offered.min_by_time]
    if offered.limits is not None:
        numbers += [offered.limits.mail_max, offered.limits.rcpt_max, offered.limits.rcpt_domain_max]
    if offered.future_release is not None:
        numbers.append(offered.future_release.seconds)
    assert all(number is None or 0 <= number < 10**20 for number in numbers)
    assert all(name == name.upper() for name in offered.mechanisms)
    assert isinstance(offered.pipelining and offered.chunking and offered.starttls, bool)
