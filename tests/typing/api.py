"""Every public name, used as a program would: mypy --strict judges it, nothing here is run."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import assert_never, assert_type

from procrastinate import App

import asyncsmtp
from asyncsmtp import (
    Attachment,
    ByMode,
    Campaign,
    CampaignConfig,
    CampaignResult,
    CampaignRun,
    CheckResult,
    ClientCertificate,
    Composer,
    Content,
    Decision,
    DeliverBy,
    Delivery,
    Dialogue,
    Direction,
    DkimConfig,
    DkimKey,
    EnhancedStatus,
    Entry,
    Envelope,
    Event,
    ExitReason,
    Extensions,
    FileContent,
    Finding,
    FutureRelease,
    InDoubt,
    Ledger,
    Limits,
    Login,
    Mailbox,
    MailOptions,
    Message,
    MessageDequeued,
    MessageEnded,
    MessageQueued,
    MessageRetried,
    Notify,
    OnEvent,
    OpenCampaign,
    Outcome,
    Pool,
    PoolCounts,
    PoolResized,
    PreflightReport,
    Problem,
    Proxy,
    ProxyKind,
    Rate,
    RatePolicy,
    RcptOptions,
    Recipient,
    RecipientFile,
    RecipientResult,
    Relay,
    RelayBalancer,
    RelayConfig,
    Reply,
    Ret,
    Retry,
    RowOutcome,
    RowState,
    Run,
    Schedule,
    Secret,
    Security,
    Session,
    SessionClosed,
    SessionFailed,
    SessionOpened,
    Severity,
    Signer,
    SmimeConfig,
    SqliteLedger,
    StreamContent,
    Suppressed,
    SuppressionList,
    Template,
    Timeouts,
    TlsInfo,
    Token,
    Trace,
    Unsubscribe,
    UnsubscribeConfig,
    ValidSince,
    WeightedRelay,
    Window,
    XClient,
    build,
    outcomes,
    run_preflight,
    safe_text,
    send,
    unsubscribe_token,
)
from asyncsmtp.bulk import (
    AddressSource,
    CopyRecipient,
    Enqueue,
    Forgotten,
    ProcrastinateJobs,
    UnsubscribeApp,
    WarmupConfig,
    find_file_row,
    forget,
)
from asyncsmtp.client import (
    PROVIDERS,
    OAuthServer,
    OpenedStreams,
    Opener,
    Provider,
    ProviderRefusal,
    Telemetry,
    TokenSource,
    find_provider,
    find_provider_by_host,
    new_message_id,
    prepare_message,
    with_date_and_id,
)
from asyncsmtp.mail import (
    Address,
    Addresses,
    AttachmentFinder,
    AttachmentPattern,
    AttachmentReader,
    DnsAnswer,
    DnsQueries,
    DnsQueryFailed,
    DnsQuestion,
    FindingLevel,
    ReturnPath,
    SenderDomain,
    SmimeSigner,
    TemplateLoader,
    check_dns,
    check_message,
)

FAILURES: tuple[type[asyncsmtp.SMTPError], ...] = (
    asyncsmtp.AuthenticationRefused,
    asyncsmtp.InvalidArgument,
    asyncsmtp.CampaignHalted,
    asyncsmtp.ConfigError,
    asyncsmtp.CertificateRefused,
    asyncsmtp.ConnectFailed,
    asyncsmtp.ConnectionLost,
    asyncsmtp.DeadlineExceeded,
    asyncsmtp.DeliveryInDoubt,
    asyncsmtp.DeliveryRefused,
    asyncsmtp.AllHostsFailed,
    asyncsmtp.InsecureConnection,
    asyncsmtp.LedgerBusy,
    asyncsmtp.LedgerEmpty,
    asyncsmtp.LedgerError,
    asyncsmtp.LedgerMismatch,
    asyncsmtp.LocalProtocolError,
    asyncsmtp.MessageError,
    asyncsmtp.MessagesFailed,
    asyncsmtp.MissingDependency,
    asyncsmtp.ExtensionNotSupported,
    asyncsmtp.UnexpectedReply,
    asyncsmtp.PoolTimeout,
    asyncsmtp.ProtocolError,
    asyncsmtp.RecipientError,
    asyncsmtp.Refused,
    asyncsmtp.ServerNotAuthenticated,
    asyncsmtp.RemoteProtocolError,
    asyncsmtp.ReplyTimeout,
    asyncsmtp.StartTlsInjection,
    asyncsmtp.SuppressionError,
    asyncsmtp.TemplateError,
    asyncsmtp.TokenFailed,
)


def show(side: Direction, text: str, *, tls: bool, refused: bool) -> None:
    """A hook for the dialogue."""
    print(side.value, safe_text(text), tls, refused)


TRACE: Trace = show


def observe(event: Event) -> None:
    """A hook for what happens."""
    match event:
        case SessionOpened():
            print(event.host, event.seconds, event.tls, event.verified)
        case SessionFailed():
            print(event.host, event.seconds, event.error, assert_type(event.code, int | None))
        case SessionClosed():
            print(event.host, event.seconds, event.messages, event.error)
        case MessageQueued():
            print(event.host)
        case MessageDequeued():
            print(event.host, event.seconds)
        case MessageRetried():
            print(event.host, event.why)
        case MessageEnded():
            assert_type(event.outcomes, tuple[Outcome, ...])
            print(event.host, event.delivery, event.error, event.octets, event.waited, event.result, event.code)
        case PoolResized():
            print(event.host, event.sessions, event.why)
        case _:
            assert_never(event)


ON_EVENT: OnEvent = observe
ON_EVENT_TOO: OnEvent = Telemetry()


async def bare_token() -> str:
    """Where it does not say how long it is good."""
    return "ya29"


async def token() -> Token:
    """An access token, good for an hour."""
    return Token(Secret("ya29"), 3600)


def explain_refusal(reply: str) -> str:
    """What Gmail means."""
    provider: Provider = find_provider("gmail")
    refusal: ProviderRefusal | None = provider.find_refusal(reply)
    oauth: OAuthServer | None = provider.oauth
    assert oauth is not None
    by_host: Provider | None = find_provider_by_host("smtp.gmail.com:587")
    assert by_host in PROVIDERS.values()
    return refusal.advice if refusal else ""


def relays() -> list[Relay]:
    """A relay by its URL, and by its parts."""
    login = Login("ada", Secret("open sesame"))
    return [
        Relay.from_url("smtps://ada@mail.example.org", password="open sesame"),
        Relay.from_url("smtps://ada@mail.example.org", token=bare_token),
        Relay.for_provider("gmail", "ada@gmail.com", password="open sesame"),
        Relay.for_provider("sendgrid", token=Secret("SG.key")),
        Relay("mail.example.org", login=Login("ada", token=token, mechanisms=("OAUTHBEARER",))),
        Relay("mail.example.org", login=Login.by_certificate("ada"), context=ssl.create_default_context()),
        Relay(
            "mail.example.org",
            587,
            Security.STARTTLS,
            login,
            context=ssl.create_default_context(),
            dialogue=Dialogue.LOCKSTEP,
            timeouts=Timeouts(greeting=30.0),
        ),
        Relay("mail.example.org", ca_file=Path("ca.pem"), timeouts=Timeouts.interactive()),
        Relay(
            "mail.example.org", ignored_extensions=frozenset({"DSN"}), xclient=XClient(addr="192.0.2.7", proto="ESMTP")
        ),
    ]


async def through_a_tunnel(host: str, port: int) -> socket.socket | tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """An opener."""
    return await asyncio.open_connection(host, port)


def ways() -> list[Relay]:
    """By which way, and what must be proved."""
    proxy = Proxy(ProxyKind.SOCKS5, "proxy.example", 1080, "ada", Secret("open sesame"), remote_names=False)
    http = Proxy.from_url("http://ada@proxy.example:8080", password="open sesame")
    assert_type(http.with_password(Secret("other")), Proxy)
    certificate = ClientCertificate(Path("ada.pem"), Path("ada.key"), Secret("open sesame"))
    return [
        Relay("one.example", fallback_hosts=("two.example:2525",), proxy=proxy),
        Relay("mail.example.org", opener=through_a_tunnel),
        Relay("mail.example.org", source_address="192.0.2.1", client_certificate=certificate),
        Relay("mail.example.org", pins=("ab" * 32,), verify=False),
        Relay.from_url("smtp://one.example,two.example?proxy=socks5://a@b", proxy_password=Secret("open sesame")),
        Relay.from_url("smtp://one.example?client-cert=a.pem", passphrase="open sesame"),
    ]


async def by_url(made: list[Message | EmailMessage], stream: AsyncIterator[Message]) -> None:
    """A URL wherever a relay is meant, retries, and many messages."""
    retry = Retry(attempts=3)
    await send(made[0], relay="smtps://ada@mail.example.org", password="open sesame", retry=retry)
    await send(made[0], relay="smtps://ada@mail.example.org", token=token, deadline=60)
    await send(made[0], relay="smtps://ada@mail.example.org", token="t-1", signer=Signer.from_file("x", "s", "k.pem"))
    async with Session("smtp://localhost?security=none", signer=Signer.from_file("x", "s", "k.pem")) as session:
        assert_type(await session.send(made[0]), Delivery)
    async with Pool("smtps://ada@mail.example.org", password=Secret("open sesame"), sessions=4, retry=retry) as pool:
        await Pool("smtps://ada@mail.example.org", token="t-1", signer=Signer.from_file("x", "s", "k.pem")).aclose()
        try:
            async for delivery in pool.send_all(made):
                print(assert_type(delivery, Delivery).accepted, delivery.message)
            async for _ in pool.send_all(stream):
                break
        except asyncsmtp.MessagesFailed as error:
            for failed, reason in error.failures:
                print(failed, isinstance(reason, asyncsmtp.SMTPError) and reason.retryable, error.in_doubt)


async def on_a_socket(relay: Relay, sock: socket.socket) -> TlsInfo | None:
    """On a connection of one's own."""
    async with Session(relay, sock=sock) as session:
        assert_type((await session.send(messages()[0])).tls, TlsInfo | None)
        return session.tls_info


def messages() -> list[Message | EmailMessage]:
    """The ways to a message."""
    envelope = assert_type(Envelope.of("ada@example.org", ["bob@example.com"]), Envelope)
    logo = Attachment("logo.png", b"\x89PNG", "image/png")
    built = build(
        from_="Ada <ada@example.org>",
        to="bob@example.com",
        subject="hello",
        html="<img src='cid:logo'>",
        inline={"logo": logo},
        message_id="1@example.org",
        date=datetime.now(UTC),
    )
    return [Message(envelope, Content.of("Subject: hello\n\nhello\n")), built, EmailMessage()]


def asking() -> Message:
    """What may be asked of a relay beyond delivery."""
    mail_options = MailOptions(
        ret=Ret.HDRS,
        envid="run 7",
        require_tls=True,
        deliver_by=DeliverBy(600, ByMode.NOTIFY, trace=True),
        hold_until=datetime.now(UTC),
        priority=-3,
        auth=Mailbox.parse("ada@example.org"),
    )
    bob = RcptOptions(Notify.SUCCESS | Notify.FAILURE, "rfc822;bob@example.com", ValidSince(datetime.now(UTC)))
    envelope = Envelope.of("ada@example.org", ["bob@example.com", "eve@example.com"], rcpt_options=[bob, None])
    assert_type(envelope.subset([0]), Envelope)
    assert_type(envelope.with_options(MailOptions(auth="<>"), RcptOptions(Notify.NEVER)), Envelope)
    return Message.of(Message(envelope, Content.of("Subject: hello\n\nhello\n")), mail_options=mail_options)


def from_parts(signer: Signer, path: Path) -> list[Message]:
    """A message from parts, rows in memory and files."""
    message = assert_type(
        build(from_=("Ada", "ada@example.org"), to="bob@example.com", text="Hello", attachments=["a.pdf", path]),
        Message,
    )
    build(from_="ada@example.org", to=("Ann", "ann@x.example"), cc=[("Cy", "cy@x.example"), "di@x.example"], text="x")
    build(from_="ada@example.org", to=[Mailbox.parse("bob@x.example")], text="x", attachments=path)
    assert_type(Attachment.from_path("a.pdf"), Attachment)
    assert_type(Attachment.from_path(path, "application/pdf"), Attachment)
    rows: list[dict[str, str]] = [{"email": "ann@example.com", "name": "Ann"}]
    composer = Template("News <news@example.org>", "For {{ name }}", text="Dear {{ name }}").compile(rows[0].keys())
    draft = assert_type(composer.compose("ann@example.com", {"name": "Ann"}), Message)
    assert_type(draft.is_draft, bool)
    assert_type(with_date_and_id(draft, clock=lambda: datetime.now(UTC), new_id=new_message_id), Message)
    assert_type(Signer.from_file("example.org", "s1", "dkim.pem"), Signer)
    assert_type(DkimKey.from_file("example.org", "s1", path), DkimKey)
    assert_type(signer.sign(EmailMessage()), Message)
    return [message, assert_type(signer.sign(message), Message), prepare_message(EmailMessage())]


def credentials(fetch: TokenSource, url: str) -> list[Relay]:
    """Passwords and tokens as plain strings, beside a URL."""
    return [
        Relay.from_url(url, password="secret"),
        Relay.from_url(url, token="t-1"),
        Relay.from_url(url, token=fetch),
        Relay("h", login=Login("ada", "secret"), ca_file="ca.pem"),
        Relay("h", login=Login("ada", token="t-1"), client_certificate=ClientCertificate("a.pem", passphrase="x")),
    ]


def public_types(
    addresses: Addresses,
    reader: AttachmentReader,
    finder: AttachmentFinder,
    pattern: AttachmentPattern,
    loader: TemplateLoader,
    smime: SmimeSigner,
    path: ReturnPath,
    opener: Opener,
    streams: OpenedStreams,
) -> list[Finding]:
    """Every type in a public signature of mail and client can be imported from there."""
    print(addresses, reader, finder, pattern, loader, smime, path, opener, streams)
    assert_type(Address.parse("Ann <ann@x.example>").mailbox, Mailbox)
    queries: DnsQueries[list[Finding]] = check_dns(SenderDomain("example.org", "example.org"))
    question: DnsQuestion = next(queries)
    answer: DnsAnswer = ()
    print(question, answer, DnsQueryFailed)
    found = check_message(prepare_message(EmailMessage()))
    print([finding for finding in found if finding.weight is FindingLevel.OBJECTION])
    return found


async def not_in_memory() -> list[Message]:
    """Content from a file, and from whoever gives it in blocks."""
    envelope = Envelope.of("ada@example.org", "bob@example.com")
    file = await FileContent.scan("mail.eml", fix_eols=True)
    assert_type(file.size, int)
    stream = StreamContent([b"Subject: hello\r\n", b"\r\n"], size=18, eight_bit=False)
    assert_type(stream.is_consumed, bool)
    return [Message(envelope, file), Message(envelope, stream)]


async def one() -> Delivery:
    """One message in one call."""
    delivery = assert_type(await send(messages()[0], relay="smtps://mail.example.org", trace=TRACE), Delivery)
    assert_type(delivery.outcomes, tuple[Outcome, ...])
    assert_type(delivery.outcome("bob@example.com"), Outcome)
    assert_type(delivery.deferred, Envelope | None)
    assert_type(delivery.refused, tuple[Mailbox, ...])
    for result in delivery:
        assert_type(result, RecipientResult)
        print(assert_type(result.address, str), assert_type(result.outcome, Outcome), assert_type(result.reply, Reply))
    print(len(delivery), bool(delivery), assert_type(delivery.message, object | None), asyncsmtp.__version__)
    delivery.raise_for_refusal()
    return delivery


async def several(relay: Relay) -> None:
    """A session and a pool."""
    async with Session(relay, trace=TRACE) as session:
        assert_type(session.extensions, Extensions)
        assert_type(session.extensions.limits, Limits | None)
        assert_type(session.extensions.future_release, FutureRelease | None)
        assert_type(await session.noop(), Reply)
        await session.send(messages()[0])
    async with Pool(relay, sessions=4, on_event=ON_EVENT) as pool:
        reply = (await pool.send(messages()[1])).reply(Mailbox.parse("bob@example.com"))
        assert_type(reply.severity, Severity)
        assert_type(reply.status, EnhancedStatus | None)
        counts: PoolCounts = pool.counts
        print(counts.open, counts.busy, counts.allowed, counts.in_hand, counts.waiting)
        assert_type(await pool.drain(30.0), bool)


async def campaign(relay: Relay) -> list[Entry]:
    """A campaign by hand: the file, the template, the ledger, the run."""
    people = RecipientFile("people.csv", email="email")
    template = Template("News <news@example.org>", "For {{ name }}", text="Dear {{ name }}")
    key = DkimKey.from_pem("example.org", "s1", b"-----BEGIN PRIVATE KEY-----")
    signer = Signer(key)
    assert_type((key.name, key.record, key.algorithm, key.bits, key.is_weak), tuple[str, str, str, int, bool])
    composer: Composer = template.compile(["email", "name"], signer=signer)
    report: PreflightReport = await run_preflight(people, composer)
    report.raise_for_problems()
    batches: AsyncIterator[Sequence[Recipient | Problem]] = people.batches()
    kept = SuppressionList("suppressed.db")
    assert_type(kept.add([Suppressed("ann@example.com", "unsubscribed")]), int)
    source: AddressSource = lambda: ["ann@example.com"]  # noqa: E731
    assert_type(UnsubscribeApp(kept, "news.ledger", source, secret=Secret("a secret of 16 octets")), UnsubscribeApp)
    removed = await forget("ann@example.com", ledgers=["news.ledger"], suppression=[kept.path])
    assert_type(removed, list[Forgotten])
    assert_type(UnsubscribeApp.from_file("campaign.toml", done="Erledigt"), UnsubscribeApp)
    ledger = await SqliteLedger.open(
        "news.ledger", name="news", from_domain="example.org", in_doubt=InDoubt.HOLD, suppressions=[kept.path]
    )
    same: Ledger = ledger
    try:
        if not ledger.loaded:
            assert_type((await same.load(batches))[RowState.PENDING], int)
        async with Pool(relay) as pool:
            way = Unsubscribe("https://example.org/{{ token }}", b"a secret of 16 octets", one_click=True)
            assert_type(unsubscribe_token(way.secret, Mailbox.parse("ann@example.com")), str)
            pace = RatePolicy(Rate.parse_all("30/s, 2000/day"), {"example.com": [Rate(5, 1)]})
            schedule = Schedule((Window.parse("Mon-Fri 09:00-17:00 UTC"),), start_at=same.created_at)
            through = RelayBalancer([WeightedRelay(pool, 2, Rate.parse_all("5/s")), WeightedRelay(pool)])
            run = Run(composer, same, through, retry=Retry(attempts=3), wait=True, rate_policy=pace, schedule=schedule)
            async for claim, settlement in outcomes(run):
                assert_type((claim.recipient.row, settlement.state), tuple[int, RowState])
                if isinstance(claim.recipient, CopyRecipient):
                    assert_type((claim.recipient.kind, find_file_row(settlement.row)), tuple[str, int])
            assert_type(run.resumes_at, datetime | None)
        return [entry async for entry in same.entries([RowState.IN_DOUBT, RowState.REJECTED])]
    finally:
        await ledger.aclose()


async def campaign_by_jobs(app: App, enqueue: Enqueue) -> None:
    """A campaign that jobs of a queue send."""
    jobs = ProcrastinateJobs(app, "campaigns", queue="mail", rows=1000, lease=10.0, ledger="postgresql://db/mail")
    assert_type(await jobs.load("news.toml"), Mapping[str, int])
    assert_type(await jobs.enqueue("news.toml"), int)
    assert_type(await Campaign.from_file("news.toml").load(enqueue=enqueue), Mapping[str, int])


async def campaign_in_one_call(path: Path) -> CampaignResult:
    """A campaign from a file or from parameters: checked, run as a whole or row by row, and read."""
    config: CampaignConfig = Campaign.from_file(path, concurrency=50).config
    print(Campaign.from_config(config).name)
    campaign = Campaign(
        recipients=[{"email": "ann@example.com", "name": "Ann"}],
        from_="News <news@example.org>",
        subject="For {{ name }}",
        text="Dear {{ name }}",
        relay=[RelayConfig(relay="smtp://localhost", weight=2.0), Relay("mail.example.org")],
        ledger="news.ledger",
        dkim=DkimConfig(domain="example.org", selector="s1", key=path),
        smime=SmimeConfig(certificate=path, key=path),
        unsubscribe=UnsubscribeConfig(url="https://example.org/{{ token }}"),
        warmup=WarmupConfig(start=Rate.parse("200/day"), until=Rate.parse("20000/day")),
        retention=90 * 86400.0,
    )
    checked: CheckResult = await campaign.check()
    findings: tuple[Finding, ...] = checked.findings
    print(bool(checked), findings)
    async with campaign.run(limit=10, wait=True) as running:
        assert_type(running, CampaignRun)
        async for outcome in running:
            assert_type(outcome, RowOutcome)
            print(outcome.address, outcome.state is RowState.ACCEPTED, outcome.reply)
    async with campaign.open(relay="smtp://localhost") as opened:
        assert_type(opened, OpenCampaign)
        await opened.begin(strict=True)
    await campaign.resolve(Decision.RESEND, rows=[1])
    assert_type(await campaign.load(strict=True), Mapping[str, int])
    assert_type(await campaign.work(until_idle=True, lease=10, limit=1000), CampaignResult)
    async for entry in campaign.results(["rejected", RowState.IN_DOUBT]):
        assert_type(entry, Entry)
    assert_type(await campaign.load(strict=True), Mapping[str, int])
    assert_type(await campaign.work(until_idle=True, lease=10, relay="smtp://localhost"), CampaignResult)
    result = assert_type(await campaign.run(relay="smtp://localhost", ledger=path, processes=2), CampaignResult)
    assert_type(result.counts["accepted"], int)
    assert_type(result.resumes_at, datetime | None)
    assert result.exit_reason is ExitReason.COMPLETE
    return result
