"""The public names of `asyncsmtp.mail`, for type checkers; `__init__.py` loads them when they are used."""

from asyncsmtp.mail.address import Address as Address
from asyncsmtp.mail.attachment import Attachment as Attachment
from asyncsmtp.mail.attachment import AttachmentPattern as AttachmentPattern
from asyncsmtp.mail.attachment import AttachmentReader as AttachmentReader
from asyncsmtp.mail.checks.dns_rules import DnsAnswer as DnsAnswer
from asyncsmtp.mail.checks.dns_rules import DnsQueries as DnsQueries
from asyncsmtp.mail.checks.dns_rules import DnsQueryFailed as DnsQueryFailed
from asyncsmtp.mail.checks.dns_rules import DnsQuestion as DnsQuestion
from asyncsmtp.mail.checks.dns_rules import SenderDomain as SenderDomain
from asyncsmtp.mail.checks.dns_rules import check_dns as check_dns
from asyncsmtp.mail.checks.rules import Finding as Finding
from asyncsmtp.mail.checks.rules import FindingLevel as FindingLevel
from asyncsmtp.mail.checks.rules import check_message as check_message
from asyncsmtp.mail.list_unsubscribe import ReturnPath as ReturnPath
from asyncsmtp.mail.list_unsubscribe import Unsubscribe as Unsubscribe
from asyncsmtp.mail.list_unsubscribe import unsubscribe_token as unsubscribe_token
from asyncsmtp.mail.message import Addresses as Addresses
from asyncsmtp.mail.message import Message as Message
from asyncsmtp.mail.message import build as build
from asyncsmtp.mail.signing.dkim import DkimKey as DkimKey
from asyncsmtp.mail.signing.dkim import Signer as Signer
from asyncsmtp.mail.signing.smime import SmimeSigner as SmimeSigner
from asyncsmtp.mail.templates.environment import TemplateLoader as TemplateLoader
from asyncsmtp.mail.templates.template import Composer as Composer
from asyncsmtp.mail.templates.template import Template as Template
