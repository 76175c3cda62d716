"""The public names for type checkers; `__init__.py` loads the same ones when they are first used."""

from asyncsmtp.bulk.campaign import Run as Run
from asyncsmtp.bulk.ledger import (
    Entry as Entry,
    InDoubt as InDoubt,
    Ledger as Ledger,
    State as State,
)
from asyncsmtp.bulk.preflight import (
    Report as Report,
    preflight as preflight,
)
from asyncsmtp.bulk.recipients import RecipientFile as RecipientFile
from asyncsmtp.bulk.rows import (
    Problem as Problem,
    Recipient as Recipient,
)
from asyncsmtp.bulk.sqlite_ledger import SqliteLedger as SqliteLedger
from asyncsmtp.client.pool import Pool as Pool
from asyncsmtp.client.relay import (
    Dialogue as Dialogue,
    Login as Login,
    Relay as Relay,
)
from asyncsmtp.client.sending import send as send
from asyncsmtp.client.session import Session as Session
from asyncsmtp.client.timeouts import Timeouts as Timeouts
from asyncsmtp.client.trace import (
    Side as Side,
    Trace as Trace,
)
from asyncsmtp.errors import (
    AuthenticationRefused as AuthenticationRefused,
    BadArgument as BadArgument,
    ConnectFailed as ConnectFailed,
    ConnectionLost as ConnectionLost,
    DeliveryInDoubt as DeliveryInDoubt,
    DeliveryRefused as DeliveryRefused,
    InsecureConnection as InsecureConnection,
    LedgerBusy as LedgerBusy,
    LedgerError as LedgerError,
    LedgerMismatch as LedgerMismatch,
    LocalProtocolError as LocalProtocolError,
    MessageError as MessageError,
    NotOffered as NotOffered,
    OutOfStep as OutOfStep,
    ProtocolError as ProtocolError,
    RecipientError as RecipientError,
    Refused as Refused,
    RemoteProtocolError as RemoteProtocolError,
    ReplyTimeout as ReplyTimeout,
    SMTPError as SMTPError,
    StartTlsInjection as StartTlsInjection,
    TemplateError as TemplateError,
)
from asyncsmtp.mail.attachment import Attachment as Attachment
from asyncsmtp.mail.build import build as build
from asyncsmtp.mail.message import Message as Message
from asyncsmtp.mail.template import (
    Composer as Composer,
    Template as Template,
)
from asyncsmtp.protocol.content import Content as Content
from asyncsmtp.protocol.delivery import (
    Delivery as Delivery,
    Outcome as Outcome,
)
from asyncsmtp.protocol.envelope import (
    Envelope as Envelope,
    Mailbox as Mailbox,
)
from asyncsmtp.protocol.extensions import Extensions as Extensions
from asyncsmtp.protocol.opening import Security as Security
from asyncsmtp.protocol.replies import (
    EnhancedStatus as EnhancedStatus,
    Reply as Reply,
    Severity as Severity,
    safe_text as safe_text,
)
from asyncsmtp.protocol.sasl import Secret as Secret
