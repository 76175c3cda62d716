"""Messages: building, templates, attachments, DKIM and S/MIME signatures, and checks. No input or output but files."""

from __future__ import annotations

from asyncsmtp._lazy import lazy_exports

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "address": "Address",
        "attachment": "Attachment AttachmentFinder AttachmentPattern AttachmentReader",
        "checks.dns_rules": "DnsAnswer DnsQueries DnsQueryFailed DnsQuestion SenderDomain check_dns",
        "checks.rules": "Finding FindingLevel check_message",
        "conversion.convert": "Conversion",
        "conversion.images": "ImagePaths",
        "conversion.placeholders": "MarkupLanguage",
        "list_unsubscribe": "ReturnPath Unsubscribe unsubscribe_token",
        "message": "Addresses Message build",
        "mime": "Entity Piece RowValues",
        "signing.dkim": "DkimKey Signer",
        "signing.smime": "SmimeSigner",
        "templates.environment": "TemplateLoader",
        "templates.template": "Composer Template",
        "templates.variables": "Columns",
    },
)
