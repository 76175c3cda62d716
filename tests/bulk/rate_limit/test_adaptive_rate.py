"""A run finds the rate that its relay takes, and grows again when that is over."""

from __future__ import annotations

import random
from collections import deque

import pytest

from asyncsmtp.bulk.rate_limit.rate import AdaptiveRate, Rate
from asyncsmtp.bulk.rate_limit.rate_policy import RatePolicy
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.replies import Reply

YES = Reply(250, (b"ok",))


class Line:
    """A relay that takes `most` messages in any second and says 421 to others; time is what the test says it is."""

    def __init__(self, most: float, able: float = 400) -> None:
        self.now = 50.0
        self.most = most
        self.able = able  # messages a second that we could send
        self.adaptive = AdaptiveRate()
        self.accepted: deque[float] = deque()

    def run(self, seconds: float) -> float:
        """Messages accepted per second."""
        end, taken = self.now + seconds, 0
        while self.now < end:
            limiter = self.adaptive.limiter
            self.now += max(1 / self.able, limiter.delay(self.now) if limiter else 0)
            if limiter:
                limiter.take(self.now)
            while self.accepted and self.accepted[0] <= self.now - 1:
                self.accepted.popleft()
            if len(self.accepted) < self.most:
                self.accepted.append(self.now)
                taken += 1
                self.adaptive.record_success(self.now)
            else:
                self.adaptive.record_complaint(self.now, explicit=True)
        return taken / seconds


@pytest.mark.parametrize("most", [5, 20, 100])
def test_it_settles_within_a_tenth_of_what_the_relay_takes(most: int) -> None:
    line = Line(most)
    line.run(10)
    assert most * 0.9 <= line.run(60) <= most
    assert line.adaptive.rate is not None
    assert most * 0.85 <= line.adaptive.rate <= most * 1.1


def test_it_grows_back_when_the_relay_takes_more() -> None:
    line = Line(20)
    line.run(20)
    line.most = 1e9
    line.run(120)
    assert line.adaptive.rate is None or line.adaptive.rate > 300


def test_a_complaint_now_and_then_slows_nothing() -> None:
    """5 % of 451, whatever the speed, is no word about the speed."""
    throttle, dice = AdaptiveRate(), random.Random(7)
    for step in range(20_000):
        now = step / 200
        if dice.random() < 0.05:
            throttle.record_complaint(now, explicit=False)
        else:
            throttle.record_success(now)
    assert throttle.rate is None


def test_a_relay_that_says_later_to_everything_is_asked_once_a_second() -> None:
    """BL-20: a 4xx storm is not answered with a storm."""
    throttle = AdaptiveRate()
    for step in range(2000):
        throttle.record_complaint(step / 500, explicit=False)
    assert throttle.rate == 1


def delivery(reply: Reply, stage: str) -> Delivery:
    envelope = Envelope.of("a@example.org", ["b@example.net"])
    if stage == "mail":
        return Delivery(envelope, reply, (), ())
    if stage == "rcpt":
        return Delivery(envelope, YES, (reply,), ())
    return Delivery(envelope, YES, (YES,), (reply,))


@pytest.mark.parametrize(
    ("code", "text", "stage", "slowed"),
    [
        (421, "4.7.0 too fast", "mail", "all"),
        (421, "4.7.0 too fast", "rcpt", "all"),
        (451, "4.7.1 slow down", "rcpt", "domain"),
        (451, "4.7.1 Greylisted, try again in 5 minutes", "rcpt", None),
        (450, "4.2.0 Recipient address rejected: Gray-listed", "rcpt", None),
        (450, "try later", "rcpt", "domain"),
        (452, "4.3.1 no space", "mail", "all"),
        (454, "Throttling failure: maximum sending rate exceeded", "final", "all"),
        (432, "4.3.2 sender thread limit exceeded", "final", "all"),
        (451, "4.3.0 later", "final", "all"),
        (452, "4.2.2 mailbox full", "rcpt", None),
        (450, "4.1.1 cannot be verified", "rcpt", None),
        (550, "5.7.1 blocked", "final", None),
        (250, "ok", "final", None),
    ],
)
def test_who_is_slowed_is_who_complained(code: int, text: str, stage: str, slowed: str | None) -> None:
    """A reply to RCPT is about the domain; a 421, or a reply to MAIL or the content, is about the relay."""
    now = 100.0
    policy = RatePolicy(clock=lambda: now, wall=lambda: now)
    for _ in range(20):
        policy.record_delivery("Example.NET", delivery(Reply(code, (text.encode(),)), stage))
    for _ in range(2):
        policy.take("example.net")
    assert (policy.delay() > 0, policy.delay_for("example.net") > 0) == (slowed == "all", slowed == "domain")
    assert not policy.delay_for("elsewhere.example")


@pytest.mark.parametrize(
    ("code", "text", "stage", "what"),
    [
        (421, "4.7.0 too fast", "mail", "all"),
        (454, "Throttling failure: maximum sending rate exceeded", "final", "all"),
        (450, "4.7.0 too fast", "rcpt", "example.net"),
    ],
)
def test_what_is_slowed_is_logged(
    code: int, text: str, stage: str, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One domain, or all messages."""
    caplog.set_level("INFO")
    policy = RatePolicy(clock=lambda: 100.0, wall=lambda: 100.0)
    for _ in range(20):
        policy.record_delivery("example.net", delivery(Reply(code, (text.encode(),)), stage))
    assert f"too many messages: {what} limited to " in caplog.text


def test_a_policy_that_is_not_adaptive_ignores_replies() -> None:
    policy = RatePolicy(adaptive=False)
    for _ in range(20):
        policy.record_delivery("example.net", delivery(Reply(421, (b"too fast",)), "mail"))
    policy.record_session_refusal()
    assert policy.is_unlimited


@pytest.mark.parametrize("said", ["", "no JSON", "[]", '{"": 7}', '{"": {"9/day": {"x": "y"}}}'])
def test_a_memory_that_cannot_be_read_counts_as_nothing(said: str) -> None:
    policy = RatePolicy()
    policy.restore_counts(said)
    assert policy.save_counts() is None


def complain(*outcomes: bool, explicit: bool = False) -> AdaptiveRate:
    """A rate after outcomes at one moment: True for a message that was accepted."""
    found = AdaptiveRate()
    for accepted in outcomes:
        if accepted:
            found.record_success(100.0)
        else:
            found.record_complaint(100.0, explicit=explicit)
    return found


def test_too_fast_is_three_of_ten_and_at_least_five_outcomes() -> None:
    """A single 451 says nothing; a 421 is about the rate by itself."""
    assert complain(*[False] * 4).rate is None
    assert complain(*[False] * 5).rate == 1
    assert complain(*[True] * 8, False, False).rate is None
    assert complain(*[True] * 7, False, False, False).rate == 28  # seven in a quarter of a second
    assert complain(False, explicit=True).rate == 1
    assert complain(*[True] * 3, False, explicit=True).rate == 12


def test_outcomes_count_for_two_seconds() -> None:
    found = AdaptiveRate()
    for _ in range(3):
        found.record_complaint(100.0, explicit=False)
    found.record_complaint(102.0, explicit=False)
    assert found.rate is None
    found.record_complaint(102.0, explicit=False)
    assert found.rate == 1  # those of two seconds before still count
    found = AdaptiveRate()
    for _ in range(3):
        found.record_complaint(100.0, explicit=False)
    for _ in range(4):
        found.record_complaint(102.01, explicit=False)
    assert found.rate is None


def test_a_rate_changes_once_a_second() -> None:
    """Down by 3 % while the relay complains, up by 2 % when it does not, by 10 % when it has not for ten seconds."""
    found = complain(*[True] * 25, False, explicit=True)
    assert found.rate == 100
    found.record_complaint(100.9, explicit=True)
    assert found.rate == 100
    for _ in range(200):
        found.record_success(101.0)
    found.record_complaint(101.0, explicit=True)
    assert found.rate == pytest.approx(97)
    found.record_success(101.9)
    assert found.rate == pytest.approx(97)
    found.record_success(102.0)
    assert found.rate == pytest.approx(97 * 1.02)
    found.record_success(102.9)
    assert found.rate == pytest.approx(97 * 1.02)
    for _ in range(50):
        found.record_success(111.0)
    assert found.rate == pytest.approx(97 * 1.02**2)
    found.record_success(112.0)
    assert found.rate == pytest.approx(97 * 1.02**2 * 1.1)


def test_a_domain_may_be_written_in_any_case() -> None:
    """Its limits hold for `Example.NET`, and what is counted goes on in the next run."""
    rate = Rate.parse("2/day")
    policy = RatePolicy([Rate.parse("5/day")], {"Example.net": [rate]}, clock=lambda: 1.0, wall=lambda: 1e9)
    for domain in ("EXAMPLE.net", "example.NET", "elsewhere.example"):
        assert policy.delay_for(domain) == 0
        policy.take(domain)
    assert policy.delay_for("Example.Net") > 86_000
    assert policy.delay_for("elsewhere.example") == 0
    assert not policy.is_unlimited
    again = RatePolicy([Rate.parse("5/day")], {"example.net": [rate]}, clock=lambda: 1.0, wall=lambda: 1e9)
    again.restore_counts(policy.save_counts())
    assert again.delay_for("example.net") == policy.delay_for("example.net")
    for _ in range(2):
        assert again.delay() == 0
        again.take("elsewhere.example")
    assert again.delay() > 86_000


@pytest.mark.parametrize("is_session", [False, True])
def test_one_421_is_enough(is_session: bool, caplog: pytest.LogCaptureFixture) -> None:
    """RFC 5321 §3.8: it closes the connection; the next one begins slowly."""
    caplog.set_level("INFO")
    policy = RatePolicy(clock=lambda: 100.0, wall=lambda: 100.0)
    if is_session:
        policy.record_session_refusal()
    else:
        policy.record_delivery("example.net", delivery(Reply(421, (b"4.7.0 too fast",)), "final"))
    assert "too many messages: all limited to 1 messages a second" in caplog.text
    policy.take("example.net")
    policy.take("example.net")
    assert policy.delay() == pytest.approx(1.9)
