"""The fixture for other people's tests, used in a test run of theirs."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]
OPTIONS = (
    "--strict-markers",
    "--asyncio-mode=auto",
    "--override-ini=asyncio_default_fixture_loop_scope=function",
    "-p",
    "asyncsmtp.testing.plugin",
)

THEIRS = """
    import smtplib
    import aiosmtplib
    import pytest
    from asyncsmtp.testing import MessageNotAccepted, Stage

    LETTER = ("ann@example.org", ["bob@example.net"], b"Subject: News\\r\\n\\r\\nHello\\r\\n")

    def test_code_that_blocks(smtp_relay):
        with smtplib.SMTP(smtp_relay.host, smtp_relay.port, "client.example") as client:
            client.sendmail(*LETTER)
        [message] = smtp_relay.wait_for(1)
        assert message.email["Subject"] == "News"
        assert smtp_relay.received == [message]
        assert "C: DATA" in [line.upper() for line in smtp_relay.dialogue]

    async def test_code_that_awaits(smtp_relay):
        assert smtp_relay.url.startswith("smtp://127.0.0.1:")
        where = {"hostname": smtp_relay.host, "port": smtp_relay.port, "local_hostname": "client.example"}
        await aiosmtplib.send(LETTER[2], sender=LETTER[0], recipients=LETTER[1], **where)
        assert len(smtp_relay.received) == 1

    @pytest.mark.smtp_relay({Stage.RCPT: "550 5.1.1 no such user"}, offers=())
    def test_a_refusal(smtp_relay):
        with smtplib.SMTP(smtp_relay.host, smtp_relay.port, "client.example") as client:
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                client.sendmail(*LETTER)

    def test_nothing_comes(smtp_relay):
        with pytest.raises(TimeoutError):
            smtp_relay.wait_for(1, seconds=0.01)
"""


def test_the_fixture_serves_tests_that_block_and_tests_that_await(pytester: pytest.Pytester) -> None:
    """With and without the marker."""
    pytester.makepyfile(THEIRS)
    result = pytester.runpytest_inprocess(*OPTIONS)
    result.assert_outcomes(passed=4)


def test_a_fault_in_the_script_is_an_error_of_the_test(pytester: pytest.Pytester) -> None:
    """And not a relay that hangs up for no reason."""
    pytester.makepyfile(
        """
        import smtplib
        import pytest
        from asyncsmtp.testing import Stage

        @pytest.mark.smtp_relay({Stage.EHLO: lambda context: 1 / 0})
        def test_it(smtp_relay):
            with pytest.raises(smtplib.SMTPException):
                smtplib.SMTP(smtp_relay.host, smtp_relay.port, "client.example").ehlo()
        """
    )
    result = pytester.runpytest_inprocess(*OPTIONS)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*ZeroDivisionError*"])
