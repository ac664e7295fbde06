"""What a text reads as once it is decoded: character references, percent signs, escapes, base64, hexadecimal.

A text encoder may undo some of these, and a chat model all of them, so whoever looks at a text is shown every reading. Not looked
for: ciphers, other languages, words spelt backwards, and more than three codings one around the other.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
import unicodedata
import urllib.parse

ROUNDS = 3
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")
_PERCENT = re.compile(r"%[0-9a-fA-F]{2}")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}|x([0-9a-fA-F]{2}))")
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/_=-])[A-Za-z0-9+/_-]{4,}={0,2}(?![A-Za-z0-9+/_=-])")
_HEX = re.compile(r"(?<![0-9a-zA-Z])(?:0x)?((?:[0-9a-fA-F]{2}[ :]?){3,})(?![0-9a-zA-Z])")


def readings(text: str) -> tuple[str, ...]:
    """The text itself, then each decoding that changes it, then what all of them leave of it."""
    steps = (_controls, _references, _percent, _escapes, _from_base64, _from_hex)
    found = [text, *(undo(text) for undo in steps)]
    if all(undone == text for undone in found):
        return (text,)
    whole = text
    for _ in range(ROUNDS):
        for undo in steps:
            whole = undo(whole)
        found.append(whole)
    return tuple(dict.fromkeys(found))


def _controls(text: str) -> str:
    """Without characters that show nothing and are no space."""
    return _CONTROLS.sub("", text)


def _references(text: str) -> str:
    """Twice, as CLIP's own tokenizer did: &amp;#98; is &#98; is b."""
    return html.unescape(html.unescape(text)) if "&" in text else text


def _percent(text: str) -> str:
    return urllib.parse.unquote(text, errors="replace") if _PERCENT.search(text) else text


def _escapes(text: str) -> str:
    def char(m: re.Match[str]) -> str:
        code = int(m[1] or m[2] or m[3], 16)
        return chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 else m[0]

    return _ESCAPE.sub(char, text)


def _from_base64(text: str) -> str:
    """A word that decodes to printable text becomes it; words of a language hardly ever do."""

    def decoded(m: re.Match[str]) -> str:
        word = m[0].rstrip("=").replace("-", "+").replace("_", "/")
        try:
            return _printable(base64.b64decode(word + "=" * (-len(word) % 4), validate=True)) or m[0]
        except (binascii.Error, ValueError):
            return m[0]

    return _BASE64.sub(decoded, text)


def _from_hex(text: str) -> str:
    def decoded(m: re.Match[str]) -> str:
        return _printable(bytes.fromhex(re.sub(r"[ :]", "", m[1]))) or m[0]

    return _HEX.sub(decoded, text)


def _printable(data: bytes) -> str:
    """The text that bytes are, "" where they are none that somebody could read."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    odd = ("Cc", "Cs", "Co", "Cn")
    return text if len(text) > 2 and all(c.isspace() or unicodedata.category(c) not in odd for c in text) else ""
