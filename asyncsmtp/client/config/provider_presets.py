"""Mail providers as data: host, port, security, login, limits, and what their best known refusals mean.

Nothing here is loaded before a provider is named or a refusal is explained. Facts come from the pages in `sources`;
they change without notice, and some depend on the plan. `docs/list_providers.py` writes docs/reference/providers.md
from them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from urllib.parse import quote

from asyncsmtp.client.config.provider_refusals import (
    ACCESS_TURNED_OFF,
    DAY,
    GOOGLE,
    HOUR,
    MICROSOFT,
    POSTMARK,
    SES,
    SET_PASSWORD,
    YAHOO,
    ZOHO,
    ProviderRefusal,
    api_key_refusals,
    app_password_refusals,
)
from asyncsmtp.errors import InvalidArgument
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.protocol.replies import safe_text

__all__ = ["PROVIDERS", "OAuthServer", "Provider", "find_preset", "find_provider", "find_provider_by_host"]


@dataclass(frozen=True, slots=True)
class OAuthServer:
    """An authorization server for access tokens (RFC 6749), and how it wants to be asked.

    Attributes:
        token_url, authorization_url, device_url, revocation_url: its endpoints; "" for one that it does not have.
        scope: what is asked for: to send mail, and to do so while nobody is there.
        redirect_host: the name of the loopback address that it accepts in a redirect (RFC 8252 §7.3).
        parameters: further ones of the authorization URL.
        has_secret: its clients on a desktop have a secret, which everybody may know (RFC 8252 §8.5).
        console: the page where a client id is made.
    """

    token_url: str
    scope: str
    authorization_url: str = ""
    device_url: str = ""
    revocation_url: str = ""
    redirect_host: str = "127.0.0.1"
    parameters: tuple[tuple[str, str], ...] = ()
    has_secret: bool = False
    console: str = ""


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider's server for submission, and what is known of it.

    Attributes:
        name: as it is given to `--provider`. title: for people.
        host: for a provider with one host in each region it has `{region}`, whose default is `region`.
        username: the same for every customer; "" if each has one.
        is_address: the user name is the e-mail address.
        login: what the user name and the password are.
        limits: what is allowed, for people. rate: the same for `--rate`, as far as every account has it; "" if unknown.
        sources: pages that say so.
        region: default for `{region}`.
        oauth: where access tokens come from; None if there are passwords only, or tokens for its partners only.
    """

    name: str
    title: str
    host: str
    port: int
    security: Security
    login: str
    limits: str = ""
    rate: str = ""
    username: str = ""
    is_address: bool = True
    refusals: tuple[ProviderRefusal, ...] = ()
    sources: tuple[str, ...] = ()
    region: str = ""
    oauth: OAuthServer | None = None

    def relay_url(self, username: str) -> str:
        """Return the URL of a relay for `Relay.from_url`."""
        scheme = "smtps" if self.security is Security.IMPLICIT_TLS else "smtp"
        host = self.host.replace("{region}", self.region)
        return f"{scheme}://{quote(username, safe='')}@{host}:{self.port}"

    def find_refusal(self, reply: str) -> ProviderRefusal | None:
        """Return what is known of a reply, given as code and text: "535 5.7.8 Username and Password not accepted"."""
        found = (each for each in self.refusals if re.match(each.pattern, reply, re.IGNORECASE))
        return next(found, None)

    def has_host(self, host: str) -> bool:
        """Return whether a relay's name, with or without a port, is this provider's."""
        pattern = re.escape(self.host).replace(r"\{region\}", "[a-z0-9-]+")
        return re.fullmatch(rf"{pattern}(?::\d+)?", host, re.IGNORECASE) is not None


_ADDRESS = "the whole address; "
_APP_PASSWORD = f"{_ADDRESS}an app password"
_PASSWORD = f"{_ADDRESS}its password"
_TLS, _STARTTLS = Security.IMPLICIT_TLS, Security.STARTTLS
_ISPDB = "https://autoconfig.thunderbird.net/v1.1/"
_GOOGLE_LIMITS = "https://support.google.com/a/answer/166852"
_GOOGLE_CODES = "https://support.google.com/a/answer/3726730"
_MICROSOFT_LIMITS = "https://learn.microsoft.com/defender-office-365/outbound-spam-sending-limits-troubleshoot"
_MICROSOFT_CODES = (
    "https://learn.microsoft.com/troubleshoot/exchange/email-delivery/ndr/non-delivery-reports-in-exchange-online"
)
_MAILTRAP = "https://docs.mailtrap.io/email-api-smtp/setup/smtp-integration"
_POSTMARK = "https://postmarkapp.com/support/article/811-what-are-the-smtp-details-credentials-i-should-be-using"
_RESEND = (
    "https://resend.com/docs/send-with-smtp",
    "https://resend.com/docs/knowledge-base/account-quotas-and-limits.md",
)
_ZOHO_SOURCES = ("https://www.zoho.com/mail/help/zoho-smtp.html", "https://www.zoho.com/mail/help/usage-policy.html")
_ZOHO_LIMITS = "not published; it depends on plan and reputation, and mass mail is not allowed"

_GOOGLE_OAUTH = OAuthServer(
    "https://oauth2.googleapis.com/token",
    "https://mail.google.com/",
    "https://accounts.google.com/o/oauth2/v2/auth",
    revocation_url="https://oauth2.googleapis.com/revoke",
    parameters=(("access_type", "offline"), ("prompt", "consent")),  # or a second login gets no refresh token
    has_secret=True,
    console="https://console.cloud.google.com/auth/clients",
)  # its device flow does not know the scope for mail
_MICROSOFT_OAUTH = OAuthServer(
    "https://login.microsoftonline.com/common/oauth2/v2.0/token",
    "https://outlook.office.com/SMTP.Send offline_access",
    "https://login.microsoftonline.com/common/oauth2/v2.0/authorize",
    "https://login.microsoftonline.com/common/oauth2/v2.0/devicecode",
    redirect_host="localhost",
    console="https://entra.microsoft.com",
)
_GOOGLE_OAUTH_PAGE = "https://developers.google.com/identity/protocols/oauth2/native-app"
_MICROSOFT_OAUTH_PAGE = (
    "https://learn.microsoft.com/exchange/client-developer/legacy-protocols/"
    "how-to-authenticate-an-imap-pop-smtp-application-by-using-oauth"
)

_ALL = (
    Provider(
        "gmail", "Gmail", "smtp.gmail.com", 587, _STARTTLS, _APP_PASSWORD,
        "500 messages a day, 100 recipients a message", "500/day", refusals=GOOGLE,
        sources=(
            _ISPDB + "gmail.com", "https://cli.nylas.com/guides/gmail-smtp-settings", _GOOGLE_CODES, _GOOGLE_OAUTH_PAGE,
        ),
        oauth=_GOOGLE_OAUTH,
    ),
    Provider(
        "google-workspace", "Google Workspace", "smtp.gmail.com", 587, _STARTTLS, _APP_PASSWORD,
        "2,000 messages a day (500 in a trial), 100 recipients a message", "2000/day", refusals=GOOGLE,
        sources=(_GOOGLE_LIMITS, _GOOGLE_CODES), oauth=_GOOGLE_OAUTH,
    ),
    Provider(
        "google-relay", "Google Workspace SMTP relay", "smtp-relay.gmail.com", 587, _STARTTLS, _APP_PASSWORD,
        "10,000 recipients a day for each user, 100 a message", "10000/day", refusals=GOOGLE,
        sources=("https://support.google.com/a/answer/6140680", _GOOGLE_CODES), oauth=_GOOGLE_OAUTH,
    ),
    Provider(
        "microsoft365", "Microsoft 365", "smtp.office365.com", 587, _STARTTLS,
        f"{_ADDRESS}an OAuth token, or the password where SMTP AUTH is turned on",
        "30 messages a minute, 10,000 recipients a day, 3 connections", "30/min, 10000/day", refusals=MICROSOFT,
        sources=(
            _ISPDB + "office365.com", _MICROSOFT_LIMITS, _MICROSOFT_CODES,
            "https://learn.microsoft.com/exchange/troubleshoot/send-emails/smtp-submission-improvements",
            _MICROSOFT_OAUTH_PAGE,
        ),
        oauth=_MICROSOFT_OAUTH,
    ),
    Provider(
        "outlook", "Outlook.com", "smtp-mail.outlook.com", 587, _STARTTLS, f"{_ADDRESS}an OAuth token",
        "depends on the age of the account", refusals=MICROSOFT,
        sources=(
            _ISPDB + "outlook.com", "https://developer.nylas.com/docs/cookbook/email/outlook-smtp-settings/",
            _MICROSOFT_OAUTH_PAGE,
        ),
        oauth=_MICROSOFT_OAUTH,
    ),
    Provider(
        "icloud", "iCloud Mail", "smtp.mail.me.com", 587, _STARTTLS, f"{_ADDRESS}an app-specific password",
        "1,000 messages and 1,000 recipients a day, 500 recipients a message", "1000/day",
        refusals=(
            *app_password_refusals("at https://appleid.apple.com under Sign-In and Security"),
            ProviderRefusal(r"550 5\.7\.1 .*limit", "the day's limit is reached", "wait; then: --rate 1000/day", DAY),
        ),
        sources=(_ISPDB + "icloud.com", "https://support.apple.com/en-ca/102198"),
    ),
    Provider(
        "yahoo", "Yahoo Mail", "smtp.mail.yahoo.com", 465, _TLS, _APP_PASSWORD,
        "500 messages a day, 100 recipients a message", "500/day", refusals=YAHOO,
        sources=(_ISPDB + "yahoo.com", "https://turbifyuat.powerappsportals.com/s/article/SLN17655"),
    ),
    Provider(
        "aol", "AOL Mail", "smtp.aol.com", 465, _TLS, _APP_PASSWORD, "not published", refusals=YAHOO,
        sources=(_ISPDB + "aol.com",),
    ),
    Provider(
        "fastmail", "Fastmail", "smtp.fastmail.com", 465, _TLS, _APP_PASSWORD, "depends on the plan",
        refusals=app_password_refusals("under Settings, Privacy & Security"),
        sources=(
            "https://www.fastmail.com/help/technical/servernamesandports.html",
            "https://www.fastmail.com/help/account/limits.html",
        ),
    ),
    Provider(
        "zoho", "Zoho Mail", "smtp.zoho.com", 465, _TLS, _PASSWORD, _ZOHO_LIMITS,
        refusals=ZOHO, sources=_ZOHO_SOURCES,
    ),
    Provider(
        "zoho-eu", "Zoho Mail (Europe)", "smtp.zoho.eu", 465, _TLS, _PASSWORD, _ZOHO_LIMITS,
        refusals=ZOHO, sources=(_ISPDB + "zoho.eu", *_ZOHO_SOURCES),
    ),
    Provider(
        "zoho-in", "Zoho Mail (India)", "smtp.zoho.in", 465, _TLS, _PASSWORD, _ZOHO_LIMITS,
        refusals=ZOHO, sources=(_ISPDB + "zoho.in", *_ZOHO_SOURCES),
    ),
    Provider(
        "gmx", "GMX", "mail.gmx.net", 465, _TLS, _PASSWORD, "not published", refusals=ACCESS_TURNED_OFF,
        sources=(_ISPDB + "gmx.net", "https://www.gmx.net/mail/tipps/posts/pop3-imap/36/"),
    ),
    Provider(
        "gmx-com", "GMX (gmx.com)", "mail.gmx.com", 465, _TLS, _PASSWORD, "not published", refusals=ACCESS_TURNED_OFF,
        sources=(_ISPDB + "gmx.com",),
    ),
    Provider(
        "web.de", "WEB.DE", "smtp.web.de", 587, _STARTTLS, "the part of the address before the @; its password",
        "not published", is_address=False, refusals=ACCESS_TURNED_OFF, sources=(_ISPDB + "web.de",),
    ),
    Provider(
        "mailbox.org", "mailbox.org", "smtp.mailbox.org", 465, _TLS, _PASSWORD, "not published",
        refusals=app_password_refusals("under All settings, Security, if two-factor login is on"),
        sources=("https://kb.mailbox.org/en/private/e-mail/e-mail-configuration",),
    ),
    Provider(
        "posteo", "Posteo", "posteo.de", 465, _TLS, _PASSWORD, "not published", sources=(_ISPDB + "posteo.de",)
    ),
    Provider(
        "t-online", "T-Online", "securesmtp.t-online.de", 465, _TLS, f"{_ADDRESS}the password for mail programs",
        "not published", sources=(_ISPDB + "t-online.de",),
    ),
    Provider(
        "proton-bridge", "Proton Mail Bridge", "127.0.0.1", 1025, _STARTTLS,
        f"{_ADDRESS}the password that Bridge shows; its certificate: --ca-file", "those of the account",
        refusals=(
            ProviderRefusal(
                "535", "Bridge has a password of its own", f"copy it from Bridge, and {SET_PASSWORD}"
            ),
        ),
        sources=("https://xenocept.com/docs/email-setup/proton.html",),
    ),
    Provider(
        "ionos", "IONOS", "smtp.ionos.com", 587, _STARTTLS, _PASSWORD,
        "50 messages an hour in the first week of a contract, 500 after a month", "",
        refusals=(
            ProviderRefusal(
                r"450 .*(send limit|mailbox unavailable)", "the hour's limit of the mailbox is reached",
                "wait until then; to stay below it: --rate 50/h for a new contract, else 500/h", HOUR,
            ),
        ),
        sources=(
            "https://ionos.com/help/email/general-topics/what-are-the-mass-mailing-limits",
            "https://sendsmartly.site/ionos-smtp-settings",
        ),
    ),
    Provider(
        "ovh", "OVHcloud MX Plan", "ssl0.ovh.net", 465, _TLS, _PASSWORD, "not published",
        sources=(_ISPDB + "ovh.net", "https://www.quai-des-entrepreneurs.com/ovh-mail"),
    ),
    Provider(
        "infomaniak", "Infomaniak", "mail.infomaniak.com", 465, _TLS, _PASSWORD,
        "1,440 messages a day (100 or 500 with small plans), 100 recipients a message", "",
        sources=(
            "https://www.infomaniak.com/en/support/faq/admin2/email-service",
            "https://github.com/nodemailer/nodemailer/blob/master/lib/well-known/services.json",
        ),
    ),
    Provider(
        "strato", "STRATO", "smtp.strato.de", 465, _TLS, _PASSWORD, "not published", sources=(_ISPDB + "strato.de",)
    ),
    Provider(
        "gandi", "Gandi", "mail.gandi.net", 465, _TLS, _PASSWORD, "not published", sources=(_ISPDB + "gandi.net",)
    ),
    Provider(
        "yandex", "Yandex Mail", "smtp.yandex.com", 465, _TLS, _APP_PASSWORD,
        "500 recipients a day, 35 a message", "500/day", refusals=app_password_refusals("in the Yandex ID"),
        sources=(
            _ISPDB + "yandex.com",
            "https://yandex.com/support/mail/web/letter/create/send-many-letters.html",
        ),
    ),
    Provider(
        "ses", "Amazon SES", "email-smtp.{region}.amazonaws.com", 587, _STARTTLS,
        "the SMTP user name and password that SES creates for a region: ses is us-east-1, others are ses-eu-west-1",
        "in the sandbox 200 messages a day and 1 a second; then those of the account", "",
        is_address=False, refusals=SES, region="us-east-1",
        sources=(
            "https://docs.aws.amazon.com/ses/latest/dg/troubleshoot-smtp.html",
            "https://docs.aws.amazon.com/ses/latest/dg/manage-sending-quotas-errors.html",
            "https://docs.aws.amazon.com/ses/latest/dg/troubleshoot-error-messages.html",
        ),
    ),
    Provider(
        "sendgrid", "SendGrid", "smtp.sendgrid.net", 587, _STARTTLS, "apikey; an API key",
        "those of the plan; 5,000 messages a connection", "", "apikey",
        refusals=(
            ProviderRefusal(
                r"451 .*credits", "the credits of the plan are used up", "wait a day, or change the plan", DAY
            ),
            *api_key_refusals(
                "the user name is the word apikey, the password an API key with Mail Send", "(550|403) .*from"
            ),
        ),
        sources=(
            "https://www.twilio.com/docs/sendgrid/for-developers/sending-email/integrating-with-the-smtp-api",
            "https://twilio.com/docs/sendgrid/for-developers/sending-email/smtp-errors-and-troubleshooting",
        ),
    ),
    *(
        Provider(
            name, title, host, 587, _STARTTLS, "an SMTP user of the domain, postmaster@…; its own password",
            "those of the plan", is_address=False,
            refusals=(
                ProviderRefusal(
                    r"421 .*not allowed to send|5\d\d .*(sandbox|authorized recipient)",
                    "the domain is not verified, or is the sandbox, which sends to authorized recipients alone",
                    "verify a domain of your own, or add the recipients to the authorized ones",
                ),
                *api_key_refusals("the password is that of the domain's SMTP user, not an API key"),
            ),
            sources=(
                "https://smtptester.org/guides/mailgun-smtp-test/",
                "https://help.mailgun.com/hc/en-us/articles/203380100",
                "https://help.mailgun.com/hc/en-us/articles/217531258-Authorized-Recipients",
            ),
        )
        for name, title, host in (
            ("mailgun", "Mailgun", "smtp.mailgun.org"), ("mailgun-eu", "Mailgun (Europe)", "smtp.eu.mailgun.org")
        )
    ),
    *(
        Provider(
            name, title, host, 587, _STARTTLS, "the server API token; the same token", limits, is_address=False,
            refusals=POSTMARK,
            sources=(_POSTMARK, "https://postmarkapp.com/support/article/common-smtp-connection-errors"),
        )
        for name, title, host, limits in (
            ("postmark", "Postmark", "smtp.postmarkapp.com", "those of the plan; no bulk mail"),
            ("postmark-broadcasts", "Postmark (broadcasts)", "smtp-broadcasts.postmarkapp.com", "those of the plan"),
        )
    ),
    Provider(
        "brevo", "Brevo", "smtp-relay.brevo.com", 587, _STARTTLS, "the SMTP login; an SMTP key",
        "300 messages a day with the free plan", "", is_address=False,
        refusals=(
            ProviderRefusal(
                r"525|5\d\d .*unauthorized IP", "Brevo does not know the address of this machine",
                "authorize it under Security, Authorized IPs",
            ),
            *api_key_refusals("the password is an SMTP key, neither an API key nor that of the account"),
        ),
        sources=(
            "https://developers.brevo.com/docs/smtp-integration",
            "https://help.brevo.com/hc/en-us/articles/8292912279954-Add-or-remove-emails-from-your-plan",
            "https://help.brevo.com/hc/en-us/articles/5740111683858",
        ),
    ),
    Provider(
        "mailjet", "Mailjet", "in-v3.mailjet.com", 587, _STARTTLS, "the API key; the secret key",
        "200 messages a day with the free plan", "", is_address=False,
        refusals=api_key_refusals("the user name is the API key, the password the secret key"),
        sources=(
            "https://smtptester.org/guides/mailjet-smtp-test/",
            "https://www.captaindns.com/en/blog/mailjet-transactional-email-technical-guide",
        ),
    ),
    *(
        Provider(
            name, title, host, 587, _STARTTLS, "SMTP_Injection; an API key with “Send via SMTP”",
            "those of the plan; 100 messages a connection", "", "SMTP_Injection",
            refusals=api_key_refusals("the API key needs “Send via SMTP”", r"550 5\.7\.1 .*sending domain"),
            sources=(
                "https://developers.sparkpost.com/api/smtp/",
                "https://support.sparkpost.com/docs/user-guide/unconfigured-sending-domain",
            ),
        )
        for name, title, host in (
            ("sparkpost", "SparkPost", "smtp.sparkpostmail.com"),
            ("sparkpost-eu", "SparkPost (Europe)", "smtp.eu.sparkpostmail.com"),
        )
    ),
    Provider(
        "resend", "Resend", "smtp.resend.com", 465, _TLS, "resend; an API key",
        "100 messages a day with the free plan; the rate of the API, 2 to 5 a second", "2/s", "resend",
        refusals=api_key_refusals("the user name is the word resend, the password an API key"), sources=_RESEND,
    ),
    *(
        Provider(
            name, title, host, port, _STARTTLS, login, limits, "", username, is_address=False,
            refusals=api_key_refusals("they are under Integrations, SMTP"),
            sources=(_MAILTRAP, "https://mailtrap.io/smtp-service.md"),
        )
        for name, title, host, port, username, login, limits in (
            ("mailtrap", "Mailtrap", "live.smtp.mailtrap.io", 587, "api", "api; an API token", "those of the plan"),
            ("mailtrap-bulk", "Mailtrap (bulk)", "bulk.smtp.mailtrap.io", 587, "api", "api; an API token",
             "those of the plan"),
            ("mailtrap-sandbox", "Mailtrap (sandbox)", "sandbox.smtp.mailtrap.io", 2525, "",
             "user name and password of the sandbox", "keeps the messages, delivers none"),
        )
    ),
    Provider(
        "smtp2go", "SMTP2GO", "mail.smtp2go.com", 587, _STARTTLS, "an SMTP user; its password", "those of the plan",
        is_address=False, refusals=api_key_refusals("they are those of an SMTP user, not of the account"),
        sources=("https://developers.smtp2go.com/docs/smtp-relay",),
    ),
    Provider(
        "mailersend", "MailerSend", "smtp.mailersend.net", 587, _STARTTLS, "an SMTP user of the domain; its password",
        "those of the plan", is_address=False,
        refusals=api_key_refusals("generate an SMTP user on the page of the domain"),
        sources=("https://www.mailersend.com/help/smtp-relay", "https://developers.mailersend.com/smtp-relay.html"),
    ),
    Provider(
        "elasticemail", "Elastic Email", "smtp.elasticemail.com", 587, _STARTTLS,
        "the address of the SMTP credentials; their password",
        "100 messages a day, to your own address, before the first payment", "", is_address=False,
        refusals=api_key_refusals("the password is that of the SMTP credentials"),
        sources=(
            "https://help.elasticemail.com/en/articles/4803409-smtp-settings",
            "https://help.elasticemail.com/en/articles/2446055-what-are-sending-limits-for-new-accounts",
        ),
    ),
    Provider(
        "mandrill", "Mailchimp Transactional", "smtp.mandrillapp.com", 587, _STARTTLS,
        "any name, such as the account's address; an API key", "an hourly quota by reputation", is_address=False,
        refusals=api_key_refusals("the password is an API key of Mailchimp Transactional"),
        sources=(
            "https://mailchimp.com/developer/transactional/docs/smtp-integration/",
            "https://mandrill.zendesk.com/hc/en-us/articles/205583397",
        ),
    ),
)  # fmt: skip

PROVIDERS: Mapping[str, Provider] = {each.name: each for each in _ALL}
"""The providers by name."""

_ALIASES = {
    "google": "gmail", "googlemail": "gmail", "gsuite": "google-workspace", "workspace": "google-workspace",
    "hotmail": "outlook", "live": "outlook", "outlook.com": "outlook", "office365": "microsoft365",
    "o365": "microsoft365", "exchange-online": "microsoft365", "apple": "icloud", "me": "icloud",
    "webde": "web.de", "mailbox": "mailbox.org", "proton": "proton-bridge", "protonmail": "proton-bridge",
    "amazon-ses": "ses", "aws": "ses", "sendinblue": "brevo", "1und1": "ionos", "gmx.net": "gmx", "gmx.de": "gmx",
    "gmx.com": "gmx-com", "mailchimp": "mandrill", "gmail.com": "gmail", "icloud.com": "icloud", "yahoo.com": "yahoo",
    "aol.com": "aol", "hotmail.com": "outlook",
}  # fmt: skip
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-[0-9]")


def find_provider(name: str) -> Provider:
    """Return the provider of a name, such as `gmail`; of Amazon SES in a region, `ses-eu-west-1`.

    Raises:
        InvalidArgument: there is none; the message has the nearest name.
    """
    wanted = name.strip().lower()
    wanted = _ALIASES.get(wanted, wanted)
    if wanted in PROVIDERS:
        return PROVIDERS[wanted]
    base, _, region = wanted.partition("-")
    found = PROVIDERS.get(base)
    if found is not None and found.region and _REGION.fullmatch(region):
        return replace(found, name=wanted, title=f"{found.title} ({region})", region=region)
    near = get_close_matches(wanted, [*PROVIDERS, *_ALIASES], 1)
    meant = f"did you mean “{near[0]}”?" if near else f"the providers are {', '.join(PROVIDERS)}"
    raise InvalidArgument(f"“{safe_text(name, 60)}” is not a known provider; {meant}")


def find_preset(provider: str | None) -> Provider | None:
    """Return the preset of a provider; None for none, and for a domain that is to be looked up.

    Raises:
        InvalidArgument: it is neither; the message has the nearest name.
    """
    if provider is None:
        return None
    try:
        return find_provider(provider)
    except InvalidArgument:
        if "." not in provider.strip(".") or not provider.replace(".", "").replace("-", "").isalnum():
            raise
        return None


def find_provider_by_host(host: str) -> Provider | None:
    """Return the provider whose server a relay is, by the relay's name; the first of several that share a host."""
    return next(_with_host(host), None)


def _with_host(host: str) -> Iterator[Provider]:
    return (each for each in PROVIDERS.values() if each.has_host(host) and not each.host.startswith("127."))
