"""Whose fault a bounce is: the recipient's, who is gone for good, or that of the sender, the message or the moment.

Only the recipient's fault suppresses an address, so what is doubtful is not the recipient's. Two things decide: the
enhanced status code (RFC 3463, and codes that providers made up), and the words of the mail system, since some write
the code of an unknown user for everything, and others write 5.0.0 for an unknown user.
"""

from __future__ import annotations

import re

__all__ = ["effective_status", "is_gone", "is_recipient_fault"]

_MAX_WORDS = 2000  # characters that are looked at
_STATUS = re.compile(r"(?<!\d)([245])\.(\d{1,3})\.(\d{1,3})")
_CODE_IN_WORDS = re.compile(r"(?<![\d.])([245])\.([0-7])\.(\d{1,3})(?!\.?\d)")  # no part of an IP address
_REPLY_CODE = re.compile(r"(?<![\d.])([2-5][0-5]\d)(?=[ \-#:]|$)")
_ADDRESS = re.compile(r"<[^<>]{0,320}>|[^\s<>,;:()'\"]{1,64}@[^\s<>,;()'\"]{1,255}")

# Subject and detail of codes of class 5. A code that is in neither set is never the recipient's.
_RECIPIENT = frozenset({"1.1", "1.2", "1.3", "1.6", "1.10", "2.1", "4.4"})
_UNCLEAR = frozenset({"", "0.0", "1.0", "1.4", "1.351", "2.0", "5.0"})  # say too little: the words decide

_VAGUE = re.compile(r"[245]\.[012]\.0")  # 5.3.0 and the like say at least that it is not the address

# Reply codes that are about the dialogue (500-504) or the storage (552), whatever enhanced code is beside them.
_NEVER = frozenset({"500", "501", "502", "503", "504", "552"})


def _phrases(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


# About the sender, the message, the server or the moment: where one of these stands, no code counts.
_NOT_RECIPIENT = _phrases(
    r"\b(?:spam\w*|unsolicited|virus\w*|malware|phish\w*|dnsbl|rbl|spamcop|sorbs|ube|uce|reputation|banned|suspicious)\b",
    r"\b(?:black|block|deny|white|allow|gr[ae]y) ?list\w*",
    r"(?<!account is )(?<!account has been )(?<!mailbox is )(?<!user is )\bblocked\b",
    r"\b(?:spf|dkim|dmarc|ptr|rdns|tls)\b|reverse dns|authenti|authori[sz]|certificate",
    r"\bpolic(?:y|ies)\b|violat|\bcontent\b|complain|permission|restrict|moderat|(?:subscribers?|members?) only",
    r"\brelay(?:ing)?(?: access)?(?: is)? (?:denied|not|prohibited|forbidden)|(?:not|unable to|cannot) relay",
    r"(?:configured|permitted|allowed) to (?:relay|send)|access denied|client (?:host|ip)|host network",
    r"\bsender\b|\bmail ?from\b|\bfrom[ :](?:address|header|domain|field)|return[ -]path|responsible address",
    r"\binvalid ip\b|\bfor sending mail",
    r"\bquota\b|\bfull\b|storage|exceed|insufficient|too (?:large|big|long|many|much|often|fast|busy)|\bsize\b",
    r"\brate\b|throttl|\blimit|frequen|volume|try again|temporar|\blater\b|\bdelay",
    r"\btime[d-]?[ -]?out|\bexpired|unreachable|not reachable|connection|\bloop|\bhops?\b",
    r"protocol|syntax|sequence|malformed|not accepting (?:mail|messages) from|service (?:\w+ )?(?:unavailable|refused)",
)

# Nobody will ever get mail there: decides where the code says too little.
_WHO = r"(?:user|recipient|mail-?box|account|address|alias|person|customer|local[ -]?part|domain|host)"
_IS_GONE = (
    r"(?:unknown|invalid|not (?:exist|known|found|listed|valid)|(?:does|do|did|could)(?: not|n't) (?:be found|exist)"
    r"|doesn't have an? |no longer |(?:is|was|has been) (?:disabled|inactive|closed|suspended|frozen|deleted|blocked))"
)
_NO_DOMAIN = _phrases(
    r"nxdomain|\bnull ?mx\b|no relevant answers",
    r"(?:domain|host)(?: or domain)? name not found|\b(?:domain|host) not found",
    r"(?:unknown|invalid|no such) (?:domain|host)\b|\b(?:domain|host) unknown",
    r"\b(?:domain|host)\b[^;]{0,80}?(?:doesn't|does not) (?:receive|accept) e?mail",
)
_GONE = _phrases(
    rf"\b(?:unknown|no such|invalid|non-?existent|inactive|disabled) +(?:or \w+ +)?(?:e-?mail |mail |local )?{_WHO}",
    rf"\b{_WHO}\b[^.;]{{0,60}}?\b{_IS_GONE}",
    r"\brecipient no longer|\bno (?:mailbox|user|one|person) (?:here|by|with)",
    r"\bmailbox (?:is )?(?:unavailable|not available)",
    _NO_DOMAIN.pattern,
)
_ACCESS_DENIED = _phrases(r"recipient address rejected: access denied")  # Microsoft: there is no such recipient
# What some relays put before the words of the next one.
_PREFIX = _phrases(r"5\.\d\.0 - (?:unknown address error|other mail system problem)")


def effective_status(status: str, words: str) -> str:
    """Return the code of the Status field, or the more exact one in the words; "" if there is none.

    `550 5.7.1 blacklisted` wins over Status 5.1.1, and `550 5.1.1 user unknown` over Status 5.0.0. Of several codes in
    the words, one that is not the recipient's wins.
    """
    given = _STATUS.search(status)
    written = given[0] if given is not None else ""
    found = [match[0] for match in _CODE_IN_WORDS.finditer(_PREFIX.sub(" ", words[:_MAX_WORDS]))]
    exact = [code for code in found if not _VAGUE.fullmatch(code)]
    candidates = [code for code in exact if code.partition(".")[2] not in _RECIPIENT] + exact
    if written and not _VAGUE.fullmatch(written):
        candidates.append(written)
    vague = [code for code in (*found, written) if code]
    candidates += [code for code in vague if not code.endswith(".0.0")] + vague
    return candidates[0] if candidates else ""


def is_recipient_fault(status: str, words: str) -> bool:
    """Return whether a permanent failure means that no later message will arrive at this address either.

    Args:
        status: as from `effective_status`.
        words: of the mail system.
    """
    words = words[:_MAX_WORDS]
    code = _REPLY_CODE.search(words)
    if code is not None and (code[1] < "500" or code[1] in _NEVER):
        return False
    words = _PREFIX.sub(" ", _ADDRESS.sub(" ", words))
    if status == "5.4.1":
        return _ACCESS_DENIED.search(words) is not None
    if _NOT_RECIPIENT.search(words):
        return False
    level, _, detail = status.partition(".")
    if level == "4":
        return status == "4.0.0" and _NO_DOMAIN.search(words) is not None  # Gmail, when it has given up
    return detail in _RECIPIENT or (detail in _UNCLEAR and _GONE.search(words) is not None)


def is_gone(words: str) -> bool:
    """Return whether words say that there is no such recipient, or no such domain."""
    return _GONE.search(words) is not None
