"""What is taken out of a text before it leaves the machine: addresses and numbers that name a person or open a door.

Six kinds, each with its placeholder: [e-mail], [phone], [url] (with credentials in it), [iban], [card], [ip]. Prices, dates,
times, order numbers and links without credentials stay, as labels may depend on them. Names and postal addresses are not
found: give a Scrub of your own where they matter. Linear in the length of the text.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

Scrub = Callable[[str], str]

# No quantifier is without a bound next to another, and each pattern can begin only where its kind of word does: a long
# text of one letter costs no more than any other.
_URL = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s<>\"']+", re.IGNORECASE)
_LOGIN = re.compile(r"^[^/]*://[^/?#@]*:[^/?#@]*@")
_SECRET = re.compile(
    r"[?&#;](?:[a-z_-]{0,20}(?:token|secret|password|passwd|signature)|pwd|sig|auth|(?:api|access)?[_-]?key)=[^&\s]",
    re.IGNORECASE,
)
_EMAIL = re.compile(
    r"(?<![\w.%+-])(?:mailto:)?[\w.%+-]{1,64}@(?:[a-z0-9](?:[a-z0-9-]{0,62})\.){1,8}[a-z]{2,24}\b", re.IGNORECASE
)
_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]{4}){2,7}(?:[ -]?[A-Za-z0-9]{1,3})?(?![A-Za-z0-9])"
)
_CARD = re.compile(r"(?<![\w.,-])[2-6]\d{3}(?:[ -]?\d{2,6}){2,4}(?![\w-]|[.,]\d)")
_IPV4 = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?![\w:])", re.IGNORECASE)
_VERSION = re.compile(r"(?:\bv|\bversion|\brelease|\bfirmware|\bsection|\bchapter)[ .:]{0,2}$", re.IGNORECASE)

_GAP = r"[ ./()\u00a0-]{0,3}"
_INTERNATIONAL = re.compile(rf"(?<![\w+.,-])(?:\+|00)\d(?:{_GAP}\d){{7,14}}(?!\w|[.,]\d)")
# 555-010-9999, (555) 010 9999; 06 12 34 56 78; 020 7946 0018, 030/1234567
_NATIONAL = re.compile(
    r"(?<![\w.,/+-])(?:(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}|0\d(?:[ .-]\d{2}){4}"
    r"|\(?0\d{2,5}\)?[ /-]{1,2}\d{2,8}(?:[ -]\d{2,8}){0,3})(?!\w|[.,/-]\d)"
)
_AFTER_A_WORD = re.compile(
    r"(?<![\w.-])(?:\d(?:[ .-]?\d){6,14})(?!\w|[.,/]\d)"
)  # any digits, after one of the words of _CALLS
_CALLS = re.compile(
    r"\b(?:call|phone|telephone|tel|ring|mobile|cell|whatsapp|sms|fax|text|reach)\b[^\d\n]{0,25}$", re.IGNORECASE
)
_NUMBER_OF = re.compile(
    r"\b(?:order|invoice|ticket|ref|reference|booking|tracking|parcel|article|item|case|serial|part|contract|customer"
    r"|account|product|model)(?: (?:no|nr|number|id|code))?\.?[ :#]{0,3}$",
    re.IGNORECASE,
)
_BEFORE = 60  # characters before a number that are looked at


def scrub(text: str) -> str:
    """`text` with placeholders; what is left is as it was, to the character."""
    text = _URL.sub(lambda m: "[url]" if _LOGIN.search(m[0]) or _SECRET.search(m[0]) else m[0], text)
    text = _EMAIL.sub("[e-mail]", text)
    text = _IBAN.sub(_iban, text)
    text = _CARD.sub(lambda m: "[card]" if _luhn(m[0]) else m[0], text)
    text = _IPV4.sub(lambda m: "[ip]" if _is_ip(m[0]) and not _VERSION.search(_left(m)) else m[0], text)
    text = _IPV6.sub(lambda m: "[ip]" if re.search(r"\d", m[0]) and _is_ip(m[0]) else m[0], text)
    for pattern in (_INTERNATIONAL, _NATIONAL):
        text = pattern.sub(_phone, text)
    return _AFTER_A_WORD.sub(lambda m: "[phone]" if _CALLS.search(_left(m)) and _undated(m[0]) else m[0], text)


def _left(m: re.Match[str]) -> str:
    return m.string[max(0, m.start() - _BEFORE) : m.start()]


def _phone(m: re.Match[str]) -> str:
    digits = sum(c.isdigit() for c in m[0])
    return "[phone]" if 9 <= digits <= 15 and not _NUMBER_OF.search(_left(m)) else m[0]


def _undated(number: str) -> bool:
    """No date like 2026-10-17 or 17.10.2026."""
    return not re.fullmatch(r"(?:19|20)\d\d[ .-]\d\d?[ .-]\d\d?|\d\d?[ .-]\d\d?[ .-](?:19|20)\d\d", number)


def _iban(m: re.Match[str]) -> str:
    """ISO 13616: with its first four characters last and letters as 10 to 35, the number is 1 modulo 97. What the pattern
    took too much at its end, a short word, stays."""
    for end in range(len(m[0]), 14, -1):
        bare = re.sub(r"[ -]", "", m[0][:end]).upper()
        whole = m[0][end - 1].isalnum() and not m[0][end : end + 1].isalnum() and 15 <= len(bare) <= 34
        if whole and int("".join(str(int(c, 36)) for c in bare[4:] + bare[:4])) % 97 == 1:
            return "[iban]" + m[0][end:]
    return m[0]


def _luhn(number: str) -> bool:
    """13 to 19 digits whose last one fits the others (ISO/IEC 7812-1), not all the same."""
    digits = [int(c) for c in number if c.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = [d if i % 2 == 0 else 2 * d - 9 * (d > 4) for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
