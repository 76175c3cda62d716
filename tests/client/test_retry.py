"""BL-20: the times of retries, and the errors after which there are any."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime, timedelta
from math import inf, nan
from random import Random
from ssl import SSLError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp import errors
from asyncsmtp.client.pool.pool_limits import means_no_room
from asyncsmtp.client.retry import Retry
from asyncsmtp.errors import (
    AllHostsFailed,
    AuthenticationRefused,
    CertificateRefused,
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    DeliveryInDoubt,
    DeliveryRefused,
    ExtensionNotSupported,
    InvalidArgument,
    LocalProtocolError,
    MessageError,
    PoolTimeout,
    Refused,
    RemoteProtocolError,
    ReplyTimeout,
    SMTPError,
    StartTlsInjection,
    UnexpectedReply,
)
from asyncsmtp.protocol.commands import NOOP
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.replies import Reply

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STILL = Retry(jitter=0)


def delays(retry: Retry, attempts: int) -> list[float]:
    """Seconds until the next attempt after each of the first `attempts`."""
    dues = [retry.due(attempt, NOW, Random(1)) for attempt in range(1, attempts + 1)]
    return [(due - NOW).total_seconds() for due in dues if due is not None]


def test_the_delay_doubles_up_to_the_longest() -> None:
    """BL-20: five minutes are what a greylisting relay waits for."""
    assert delays(STILL, 7) == [300, 600, 1200, 2400, 4800, 7200, 7200]


@given(
    st.builds(Retry, delay=st.floats(0.001, 1e5), max_delay=st.floats(0, 1e6), jitter=st.floats(0, 1)), st.integers(1)
)
def test_a_delay_is_never_shorter_than_asked_for_nor_longer_than_the_jitter_allows(retry: Retry, attempt: int) -> None:
    """BL-20: with any number of attempts, also one that no float can take to its power."""
    due = retry.due(attempt, NOW, Random(2))
    assert due is not None
    least = min(retry.delay * 2.0 ** min(attempt - 1, 40), retry.max_delay)
    assert least - 1e-5 <= (due - NOW).total_seconds() <= least * (1 + retry.jitter) + 1e-5


def test_what_was_refused_together_does_not_come_back_together() -> None:
    """BL-20: a thousand rows refused in one second are spread over a fifth of their delay."""
    random = Random(3)
    dues = {Retry().due(1, NOW, random) for _ in range(1000)}
    assert len(dues) > 990


def test_no_delay_is_the_next_run() -> None:
    assert Retry(delay=0).due(1, NOW) is None


@pytest.mark.parametrize(
    ("retry", "attempt", "age", "over"),
    [
        (Retry(attempts=3), 2, 0, False),
        (Retry(attempts=3), 3, 0, True),
        (Retry(attempts=1), 1, 0, True),
        (Retry(give_up_after=3600), 50, 3599, False),
        (Retry(give_up_after=3600), 2, 3600, True),
        (Retry(), 2, 4 * 86400 - 1, False),
    ],
)
def test_an_attempt_is_the_last_by_its_number_or_by_its_age(retry: Retry, attempt: int, age: float, over: bool) -> None:
    """BL-20, T10: never before an attempt that was made when the time was over: a row that slept gets its last one."""
    assert retry.is_over(attempt, NOW - timedelta(seconds=age), NOW) is over


def test_a_row_that_was_never_tried_is_not_too_old() -> None:
    assert not Retry(give_up_after=0).is_over(1, None, NOW)


@pytest.mark.parametrize(
    "wrong", [{"delay": -1}, {"give_up_after": -1}, {"max_delay": -1}, {"jitter": -0.1}, {"attempts": 0}]
)
def test_times_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidArgument, match="give "):
        Retry(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"delay": "1"}, {"give_up_after": None}, {"jitter": True}, {"attempts": True}, {"attempts": 1.5}]
)
def test_a_retry_names_the_parameter_of_a_wrong_type(wrong: dict[str, object]) -> None:
    with pytest.raises(TypeError, match=f"^{next(iter(wrong))} must be "):
        Retry(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("parameter", ["delay", "max_delay", "give_up_after", "jitter"])
def test_a_time_of_a_retry_is_finite(parameter: str) -> None:
    for wrong in (inf, nan):
        with pytest.raises(InvalidArgument, match=f"^{parameter}={wrong}"):
            Retry(**{parameter: wrong})  # type: ignore[arg-type]


def test_the_arguments_of_a_retry_are_named() -> None:
    """`Retry(3)` could be a delay as well as a number of attempts."""
    with pytest.raises(TypeError):
        Retry(3)  # type: ignore[misc]


def test_send_and_pool_begin_with_one_second_where_a_campaign_waits_five_minutes() -> None:
    """Somebody waits for `send`; nobody for a campaign, and greylisting takes its time."""
    assert [STILL.delay_after(attempt, 0.0) for attempt in (1, 2, 3)] == [1.0, 2.0, 4.0]
    assert Retry(delay=7, jitter=0).delay_after(1, 0.0) == 7.0
    assert Retry(delay=0).delay_after(1, 0.0) == 0.0
    assert delays(STILL, 1) == [300]


def test_send_gives_up_by_the_number_of_attempts_or_by_their_age() -> None:
    assert Retry(attempts=3).delay_after(2, 0.0) is not None
    assert Retry(attempts=3).delay_after(3, 0.0) is None
    assert Retry(give_up_after=60).delay_after(1, 59.0) is not None
    assert Retry(give_up_after=60).delay_after(1, 60.0) is None


# --- errors ---

ENVELOPE = Envelope.of("from@example.org", ["a@example.net", "b@example.net"])


def refused(*codes: int) -> DeliveryRefused:
    """The error for a message whose recipients have these replies."""
    return DeliveryRefused(
        Delivery(ENVELOPE, Reply(250), tuple(map(Reply, codes)), (Reply(250),)), NOOP, Reply(max(codes))
    )


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (ConnectFailed("no route"), True),
        (AllHostsFailed([("a", ConnectFailed("no route"))]), True),
        (CertificateRefused("another"), False),
        (ConnectionLost("hung up"), True),
        (ReplyTimeout(NOOP, 1.0), True),
        (RemoteProtocolError("garbage"), True),
        (UnexpectedReply("a reply to nothing"), True),
        (StartTlsInjection("bytes in clear"), False),
        (LocalProtocolError("a bug"), False),
        (Refused(NOOP, Reply(421)), True),
        (Refused(NOOP, Reply(550)), False),
        (AuthenticationRefused(NOOP, Reply(454)), False),
        (refused(450, 450), True),
        (refused(450, 550), True),
        (refused(450, 250), False),
        (refused(550, 550), False),
        (DeliveryInDoubt(ENVELOPE), False),
        (DeadlineExceeded(1.0), False),
        (PoolTimeout(1.0), False),
        (ExtensionNotSupported("SIZE", "too big"), False),
        (MessageError("no author"), False),
    ],
)
def test_an_error_is_retryable_where_that_is_safe_and_may_succeed(error: SMTPError, retryable: bool) -> None:
    """Safe: nobody can have the message. It may succeed: nothing has to be changed first."""
    assert error.retryable is retryable


def caused(error: SMTPError, cause: BaseException) -> SMTPError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "no_room"),
    [
        (Refused(NOOP, Reply(421)), True),
        (Refused(NOOP, Reply(400)), True),
        (Refused(NOOP, Reply(499)), True),
        (Refused(NOOP, Reply(399)), False),
        (Refused(NOOP, Reply(550)), False),
        (AuthenticationRefused(NOOP, Reply(454)), False),
        (caused(ConnectFailed("too many open files"), OSError(24, "EMFILE")), True),
        (caused(ConnectFailed("the handshake failed"), SSLError("no shared cipher")), False),
        (CertificateRefused("not the one that is pinned"), False),
        (ConnectionLost("hung up"), False),
    ],
)
def test_a_pool_takes_for_want_of_room_only_what_is_not_the_same_for_each_session(
    error: SMTPError, no_room: bool
) -> None:
    """Of the retryable errors 400 to 499 and no connection; never TLS, whose failure has a cause of its own."""
    assert means_no_room(error) is no_room


ARGUMENTS: dict[str, tuple[object, ...]] = {  # of the classes that take more than a message
    "AllHostsFailed": ([("a", ConnectFailed("no route"))],),
    "CampaignHalted": (3, 5, "h", "550 5.7.1 no"),
    "CertificateRefused": ("another", "00"),
    "ConfigError": ("wrong", "correct it"),
    "DeadlineExceeded": (1.0,),
    "DeliveryInDoubt": (ENVELOPE,),
    "DeliveryRefused": (Delivery(ENVELOPE, Reply(250), (Reply(550), Reply(450)), ()), NOOP, Reply(550)),
    "ExtensionNotSupported": ("SIZE", "too big"),
    "MessageError": ("no author", "From"),
    "MessagesFailed": ([(ENVELOPE, ConnectionLost("hung up"))],),
    "MissingDependency": ("S/MIME", "asyncsmtp[smime]"),
    "PoolTimeout": (1.0,),
    "RecipientError": ("no address", 3),
    "ReplyTimeout": (NOOP, 1.0),
    "TemplateError": ("wrong", "a.txt", 3, "name"),
    **dict.fromkeys(("Refused", "AuthenticationRefused", "ServerNotAuthenticated"), (NOOP, Reply(550))),
}


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name[0].isupper()])
def test_an_error_survives_being_copied_and_pickled(name: str) -> None:
    """It may come from a process of a pool: its class, message and attributes are kept."""
    error: SMTPError = getattr(errors, name)(*ARGUMENTS.get(name, ("why",)))
    error.add_note("a note")
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(twin), str(twin), twin.args) == (type(error), str(error), error.args)
        assert repr(vars(twin)) == repr(vars(error))
        assert (twin.retryable, twin.in_doubt) == (error.retryable, error.in_doubt)
