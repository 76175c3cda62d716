"""A DKIM verifier from RFC 6376 §6.1 alone, character by character: slow, and shares nothing with the signer."""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

__all__ = ["relaxed_body", "relaxed_field", "verdicts"]


def relaxed_field(field: bytes) -> bytes:
    """§3.4.2, step by step."""
    name, value = field.split(b":", 1)
    value = re.sub(rb"\r\n(?=[ \t])", b"", value).removesuffix(b"\r\n")
    value = re.sub(rb"[ \t]+", b" ", value)
    return name.lower().rstrip(b" \t") + b":" + value.strip(b" \t") + b"\r\n"


def relaxed_body(body: bytes) -> bytes:
    """§3.4.4, line by line."""
    lines = [re.sub(rb"[ \t]+", b" ", line.rstrip(b" \t")) for line in body.split(b"\r\n")]
    while lines and not lines[-1]:
        lines.pop()
    return b"".join(line + b"\r\n" for line in lines)


def verdicts(octets: bytes, records: dict[str, str]) -> list[bool]:
    """Whether each DKIM-Signature holds, from the top down; `records` is the DNS, name to TXT."""
    head, body = octets.split(b"\r\n\r\n", 1)
    fields = re.findall(rb"[^\r\n]+(?:\r\n[ \t][^\r\n]*)*", head)
    return [_holds(field, fields, body, records) for field in fields if field.lower().startswith(b"dkim-signature:")]


def _tags(text: str) -> dict[str, str]:
    pairs = (tag.split("=", 1) for tag in text.split(";") if tag.strip())
    return {name.strip(): re.sub(r"\s", "", value) for name, value in pairs}


def _holds(signature: bytes, fields: list[bytes], body: bytes, records: dict[str, str]) -> bool:
    tags = _tags(signature.split(b":", 1)[1].decode("ascii"))
    assert tags["v"] == "1"
    assert tags["c"] == "relaxed/relaxed"
    assert "l" not in tags
    if b64decode(tags["bh"]) != hashlib.sha256(relaxed_body(body)).digest():
        return False
    left, signed = list(fields), b""
    for name in tags["h"].lower().split(":"):
        for at in range(len(left) - 1, -1, -1):
            if left[at].split(b":", 1)[0].strip().lower() == name.encode("ascii"):
                signed += relaxed_field(left.pop(at))
                break
    emptied = re.sub(rb"(;\s*b=)[^;]*", rb"\1", signature)
    signed += relaxed_field(emptied).removesuffix(b"\r\n")
    public = b64decode(_tags(records[f"{tags['s']}._domainkey.{tags['d']}"])["p"])
    try:
        if tags["a"] == "rsa-sha256":
            key = load_der_public_key(public)
            assert isinstance(key, rsa.RSAPublicKey)
            key.verify(b64decode(tags["b"]), signed, padding.PKCS1v15(), hashes.SHA256())
        else:
            edwards = ed25519.Ed25519PublicKey.from_public_bytes(public)
            edwards.verify(b64decode(tags["b"]), hashlib.sha256(signed).digest())
    except InvalidSignature:
        return False
    return True
