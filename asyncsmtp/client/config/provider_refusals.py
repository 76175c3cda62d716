"""Refusals that mail providers are known for: what each means, and what to do.

The pages they come from are among the `sources` of the provider, in `provider_presets`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ACCESS_TURNED_OFF",
    "DAY",
    "GOOGLE",
    "HOUR",
    "MICROSOFT",
    "POSTMARK",
    "SES",
    "SET_PASSWORD",
    "YAHOO",
    "ZOHO",
    "ProviderRefusal",
    "api_key_refusals",
    "app_password_refusals",
]

DAY = 86400.0  # seconds
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class ProviderRefusal:
    """A refusal that a provider is known for.

    Attributes:
        pattern: a regular expression for the beginning of code and text, such as "550 5.4.5 …"; case is ignored.
        meaning: what it means, half a sentence.
        advice: what to do.
        lifted_after: seconds after which the provider accepts again by itself; None if somebody has to do something.
    """

    pattern: str
    meaning: str
    advice: str
    lifted_after: float | None = None


# Refusals. The first that fits is taken, so the more exact one goes first.

SET_PASSWORD = "give it as the password (ASYNCSMTP_PASSWORD)"  # noqa: S105


def app_password_refusals(where: str) -> tuple[ProviderRefusal, ...]:
    """Return the refusal of providers that accept no account password for SMTP."""
    meaning = "the user name or password is wrong; the password of the account itself is not accepted here"
    return (ProviderRefusal("535", meaning, f"make an app password {where}, and {SET_PASSWORD}"),)


_GOOGLE_ADVICE = (
    "turn on 2-Step Verification, make an app password at https://myaccount.google.com/apppasswords, "
    f"and {SET_PASSWORD}; or log in by OAuth with the command login"
)
GOOGLE = (
    ProviderRefusal(
        r"535 5\.7\.8",
        "Google does not accept this user name and password; the password of the account itself never works here",
        _GOOGLE_ADVICE,
    ),
    ProviderRefusal(r"534 5\.7\.9", "Google wants an app password, not that of the account", _GOOGLE_ADVICE),
    ProviderRefusal(r"534", "Google wants you to log in with a browser first, or an app password", _GOOGLE_ADVICE),
    ProviderRefusal(r"530 5\.7\.0", "Google accepts mail only after a login", "give the user with --user"),
    ProviderRefusal(
        r"454 4\.7\.0",
        "Google refuses logins for a while, usually after too many of them",
        "wait, and take fewer --sessions",
        HOUR,
    ),
    ProviderRefusal(
        r"550 5\.4\.5|550 5\.7\.1 Daily SMTP relay limit",
        "the messages or recipients of the last 24 hours have reached Google's limit for this account",
        "wait until then; to stay below it the next time: --rate 500/day (Gmail), --rate 2000/day (Workspace)",
        DAY,
    ),
    ProviderRefusal(
        r"450 4\.2\.1 Peak SMTP relay limit|421 4\.7\.28|421 4\.7\.0|421 4\.4\.5",
        "Google finds that too much arrives in a short time",
        "wait, and take a lower --rate",
        HOUR,
    ),
    ProviderRefusal(
        r"452 4\.5\.3", "Google takes at most 100 recipients in one message", "send to fewer recipients at once"
    ),
    ProviderRefusal(
        r"550 5\.7\.1 .*relay",
        "the relay service of Workspace knows neither this address nor this login",
        "ask the Workspace administrator to allow it: Apps, Gmail, Routing, SMTP relay service",
    ),
)
MICROSOFT = (
    ProviderRefusal(
        r"535 5\.7\.139.*(SmtpClientAuthentication|disabled)",
        "SMTP AUTH is turned off for the mailbox or the whole organization",
        "ask the Exchange administrator to turn on Authenticated SMTP for this mailbox (Microsoft 365 admin center, "
        "Active users, Mail, Manage email apps), or log in by OAuth with the command login",
    ),
    ProviderRefusal(
        r"535 5\.7\.139|535 5\.7\.3",
        "Microsoft does not accept this login: SMTP AUTH is turned off, or it is wrong",
        "log in by OAuth with the command login; or ask the administrator whether Authenticated SMTP is on",
    ),
    ProviderRefusal(r"530 5\.7\.57", "Microsoft accepts mail only after a login", "give the user with --user"),
    ProviderRefusal(
        r"55[04] 5\.7\.60|55[04] 5\.2\.252|554 5\.2\.0.*SendAsDenied",
        "the login may not send as the address in From",
        "use the address of the login in From, or ask the administrator for the “Send as” permission",
    ),
    ProviderRefusal(
        r"432 4\.3\.2", "Microsoft allows three connections of a mailbox at once", "take --sessions 3, or fewer"
    ),
    ProviderRefusal(
        r"550 5\.1\.90|550 5\.7\.233|554 5\.2\.0.*SubmissionQuotaExceeded",
        "the recipients of the last 24 hours have reached the limit of the mailbox or the organization",
        "wait until then; to stay below it the next time: --rate '30/min, 10000/day'",
        DAY,
    ),
    ProviderRefusal(
        r"550 5\.1\.8",
        "Microsoft has blocked the mailbox: it has sent too much, or looks like one that was broken into",
        "ask the administrator to secure the mailbox and to take it off the restricted entities",
    ),
    ProviderRefusal(
        r"550 5\.7\.70[58]",
        "Microsoft has blocked sending for the whole organization",
        "ask the administrator to contact Microsoft's support",
    ),
)
_UNVERIFIED = "verify the address or domain of From in the account"
SES = (
    ProviderRefusal(
        r"554 .*not verified",
        "an address is not verified; while the account is in the sandbox this includes those of the recipients",
        "verify the identity of From in this region, and request production access to leave the sandbox",
    ),
    ProviderRefusal(
        r"454 .*Daily message quota",
        "the messages of the last 24 hours have reached the account's quota",
        "wait until then, or request a higher quota; in the sandbox it is --rate '1/s, 200/day'",
        DAY,
    ),
    ProviderRefusal(
        r"454 .*Maximum sending rate",
        "the account may send fewer messages a second",
        "take the account's rate: --rate 1/s in the sandbox; SES shows it under Account dashboard",
    ),
    ProviderRefusal(
        r"535",
        "SES does not accept these as SMTP credentials in this region; an AWS access key does not work here",
        f"create SMTP credentials in the console of SES, in the region of the host, and {SET_PASSWORD}",
    ),
    ProviderRefusal(r"421 .*concurrent", "the account has too many connections", "take fewer --sessions"),
)


def api_key_refusals(
    what: str, sender: str = "5[0-9][0-9] .*(verif|not allowed|sender)"
) -> tuple[ProviderRefusal, ...]:
    """Return the refusals of services with a key for a password: the wrong one, and a From that is not verified."""
    return (
        ProviderRefusal("535", f"the credentials are wrong: {what}", f"copy them once more, and {SET_PASSWORD}"),
        ProviderRefusal(sender, "the address in From is not verified", _UNVERIFIED),
    )


ACCESS_TURNED_OFF = (
    ProviderRefusal(
        "535",
        "the login is wrong, or access for mail programs is turned off, as it is at first",
        "allow access by POP3 and IMAP in the settings of the mailbox; with two-factor login, make an app password",
    ),
)
POSTMARK = (
    ProviderRefusal(
        "535", "the token is wrong", "take the server API token, not that of the account, for user and password"
    ),
    ProviderRefusal(r"5\d\d .*(pending approval|412)", "the account is not approved yet", "request approval"),
    ProviderRefusal(r"5\d\d .*sender signature", "the address in From has no sender signature", _UNVERIFIED),
)
YAHOO = (
    ProviderRefusal(
        "535|554 .*login", "the password of the account itself is not accepted here",
        f"make an app password under Account security, and {SET_PASSWORD}",
    ),
    ProviderRefusal(
        r"451|554 .*limit", "the account has sent too much for now", "wait; to stay below it: --rate 500/day", DAY
    ),
)  # fmt: skip
ZOHO = (
    ProviderRefusal(
        "535",
        "the login is wrong, or is one of another region of Zoho",
        "take the host of your region (zoho, zoho-eu, zoho-in); with two-factor login, make an application password",
    ),
    ProviderRefusal(r"55[0-4] .*Relaying disallowed", "the login may not send as the address in From",
                    "use the address of the login, or one of its aliases, in From"),
    ProviderRefusal(r"550 5\.4\.6|554 5\.1\.8", "Zoho has stopped sending by this account: it sent too much",
                    "ask the administrator, or Zoho's support, to unblock it; Zoho Mail is not for mass mail"),
)  # fmt: skip
