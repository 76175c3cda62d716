"""The public names for type checkers; `__init__.py` loads the same ones when they are first used."""

from asyncsmtp.bulk.ledger import Entry as Entry
from asyncsmtp.bulk.ledger import InDoubt as InDoubt
from asyncsmtp.bulk.ledger import Ledger as Ledger
from asyncsmtp.bulk.rate_limit.rate import Rate as Rate
from asyncsmtp.bulk.rate_limit.rate_policy import RatePolicy as RatePolicy
from asyncsmtp.bulk.recipients.file import RecipientFile as RecipientFile
from asyncsmtp.bulk.recipients.preflight import (
    PreflightReport as PreflightReport,
)
from asyncsmtp.bulk.recipients.preflight import (
    run_preflight as run_preflight,
)
from asyncsmtp.bulk.recipients.recipient import (
    Problem as Problem,
)
from asyncsmtp.bulk.recipients.recipient import (
    Recipient as Recipient,
)
from asyncsmtp.bulk.running.balancer import (
    RelayBalancer as RelayBalancer,
)
from asyncsmtp.bulk.running.balancer import (
    WeightedRelay as WeightedRelay,
)
from asyncsmtp.bulk.running.retry import Retry as Retry
from asyncsmtp.bulk.running.runner import Run as Run
from asyncsmtp.bulk.running.runner import outcomes as outcomes
from asyncsmtp.bulk.running.schedule import (
    Schedule as Schedule,
)
from asyncsmtp.bulk.running.schedule import (
    Window as Window,
)
from asyncsmtp.bulk.sqlite.ledger import SqliteLedger as SqliteLedger
from asyncsmtp.bulk.states import State as State
from asyncsmtp.bulk.suppression import (
    Suppressed as Suppressed,
)
from asyncsmtp.bulk.suppression import (
    SuppressionList as SuppressionList,
)
from asyncsmtp.client.config.login_config import ClientCertificate as ClientCertificate
from asyncsmtp.client.config.login_config import Login as Login
from asyncsmtp.client.config.login_config import Token as Token
from asyncsmtp.client.config.proxy import Proxy as Proxy
from asyncsmtp.client.config.proxy import ProxyKind as ProxyKind
from asyncsmtp.client.config.relay import Dialogue as Dialogue
from asyncsmtp.client.config.relay import Relay as Relay
from asyncsmtp.client.config.relay import Timeouts as Timeouts
from asyncsmtp.client.events.trace import Direction as Direction
from asyncsmtp.client.events.trace import Trace as Trace
from asyncsmtp.client.events.types import Event as Event
from asyncsmtp.client.events.types import MessageDequeued as MessageDequeued
from asyncsmtp.client.events.types import MessageEnded as MessageEnded
from asyncsmtp.client.events.types import MessageQueued as MessageQueued
from asyncsmtp.client.events.types import MessageRetried as MessageRetried
from asyncsmtp.client.events.types import OnEvent as OnEvent
from asyncsmtp.client.events.types import PoolResized as PoolResized
from asyncsmtp.client.events.types import SessionClosed as SessionClosed
from asyncsmtp.client.events.types import SessionFailed as SessionFailed
from asyncsmtp.client.events.types import SessionOpened as SessionOpened
from asyncsmtp.client.pool.counts import PoolCounts as PoolCounts
from asyncsmtp.client.pool.pool import Pool as Pool
from asyncsmtp.client.sending import send as send
from asyncsmtp.client.session.session import Session as Session
from asyncsmtp.client.session.sources import (
    FileContent as FileContent,
)
from asyncsmtp.client.session.sources import (
    StreamContent as StreamContent,
)
from asyncsmtp.errors import AllHostsFailed as AllHostsFailed
from asyncsmtp.errors import (
    AuthenticationRefused as AuthenticationRefused,
)
from asyncsmtp.errors import (
    CampaignHalted as CampaignHalted,
)
from asyncsmtp.errors import CertificateRefused as CertificateRefused
from asyncsmtp.errors import (
    ConnectFailed as ConnectFailed,
)
from asyncsmtp.errors import (
    ConnectionLost as ConnectionLost,
)
from asyncsmtp.errors import (
    DeadlineExceeded as DeadlineExceeded,
)
from asyncsmtp.errors import (
    DeliveryInDoubt as DeliveryInDoubt,
)
from asyncsmtp.errors import (
    DeliveryRefused as DeliveryRefused,
)
from asyncsmtp.errors import ExtensionNotSupported as ExtensionNotSupported
from asyncsmtp.errors import (
    InsecureConnection as InsecureConnection,
)
from asyncsmtp.errors import InvalidArgument as InvalidArgument
from asyncsmtp.errors import (
    LedgerBusy as LedgerBusy,
)
from asyncsmtp.errors import (
    LedgerEmpty as LedgerEmpty,
)
from asyncsmtp.errors import (
    LedgerError as LedgerError,
)
from asyncsmtp.errors import (
    LedgerMismatch as LedgerMismatch,
)
from asyncsmtp.errors import (
    LocalProtocolError as LocalProtocolError,
)
from asyncsmtp.errors import (
    MessageError as MessageError,
)
from asyncsmtp.errors import MissingDependency as MissingDependency
from asyncsmtp.errors import PoolTimeout as PoolTimeout
from asyncsmtp.errors import (
    ProtocolError as ProtocolError,
)
from asyncsmtp.errors import (
    RecipientError as RecipientError,
)
from asyncsmtp.errors import (
    Refused as Refused,
)
from asyncsmtp.errors import (
    RemoteProtocolError as RemoteProtocolError,
)
from asyncsmtp.errors import (
    ReplyTimeout as ReplyTimeout,
)
from asyncsmtp.errors import ServerNotAuthenticated as ServerNotAuthenticated
from asyncsmtp.errors import (
    SMTPError as SMTPError,
)
from asyncsmtp.errors import (
    StartTlsInjection as StartTlsInjection,
)
from asyncsmtp.errors import (
    SuppressionError as SuppressionError,
)
from asyncsmtp.errors import (
    TemplateError as TemplateError,
)
from asyncsmtp.errors import (
    TokenFailed as TokenFailed,
)
from asyncsmtp.errors import UnexpectedReply as UnexpectedReply
from asyncsmtp.mail.attachment import Attachment as Attachment
from asyncsmtp.mail.list_unsubscribe import Unsubscribe as Unsubscribe
from asyncsmtp.mail.list_unsubscribe import unsubscribe_token as unsubscribe_token
from asyncsmtp.mail.message import Message as Message
from asyncsmtp.mail.message import build as build
from asyncsmtp.mail.signing.dkim import DkimKey as DkimKey
from asyncsmtp.mail.signing.dkim import Signer as Signer
from asyncsmtp.mail.templates.template import (
    Composer as Composer,
)
from asyncsmtp.mail.templates.template import (
    Template as Template,
)
from asyncsmtp.protocol.auth.sasl import Secret as Secret
from asyncsmtp.protocol.content import Content as Content
from asyncsmtp.protocol.delivery import (
    Delivery as Delivery,
)
from asyncsmtp.protocol.delivery import (
    Outcome as Outcome,
)
from asyncsmtp.protocol.delivery import TlsInfo as TlsInfo
from asyncsmtp.protocol.envelope import (
    Envelope as Envelope,
)
from asyncsmtp.protocol.envelope import (
    Mailbox as Mailbox,
)
from asyncsmtp.protocol.esmtp_options import ByMode as ByMode
from asyncsmtp.protocol.esmtp_options import DeliverBy as DeliverBy
from asyncsmtp.protocol.esmtp_options import MailOptions as MailOptions
from asyncsmtp.protocol.esmtp_options import Notify as Notify
from asyncsmtp.protocol.esmtp_options import RcptOptions as RcptOptions
from asyncsmtp.protocol.esmtp_options import Ret as Ret
from asyncsmtp.protocol.esmtp_options import ValidSince as ValidSince
from asyncsmtp.protocol.extensions import (
    Extensions as Extensions,
)
from asyncsmtp.protocol.extensions import (
    FutureRelease as FutureRelease,
)
from asyncsmtp.protocol.extensions import (
    Limits as Limits,
)
from asyncsmtp.protocol.opening_handshake import Security as Security
from asyncsmtp.protocol.opening_handshake import XClient as XClient
from asyncsmtp.protocol.replies import (
    EnhancedStatus as EnhancedStatus,
)
from asyncsmtp.protocol.replies import (
    Reply as Reply,
)
from asyncsmtp.protocol.replies import (
    Severity as Severity,
)
from asyncsmtp.protocol.replies import (
    safe_text as safe_text,
)
