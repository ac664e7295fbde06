"""Personal data that leaves no machine, and what looks like it and stays."""

from __future__ import annotations

import time

import pytest

from scotoma.dialogue.scrub import scrub

# Numbers of documentation and of test suites: example domains, 555-01xx, 020 7946 0xxx, test cards and the IBANs of ISO 13616.
FOUND = {
    "Write to eva.lamp+shop@mail.example.org.": "Write to [e-mail].",
    "mailto:eva@example.com, please": "[e-mail], please",
    "<eva@example.co.uk>": "<[e-mail]>",
    "See https://eva:hunter2@shop.example/x now": "See [url] now",
    "ftp://eva:x@host.example": "[url]",
    "https://api.example/v1?api_key=abc123&x=1": "[url]",
    "https://files.example/a?x=1&access_token=abc": "[url]",
    "My IBAN is GB82 WEST 1234 5698 7654 32 and that is all": "My IBAN is [iban] and that is all",
    "DE89370400440532013000": "[iban]",
    "to DE89 3704 0044 0532 0130 00, thanks": "to [iban], thanks",
    "FR14 2004 1010 0505 0001 3M02 606": "[iban]",
    "card 4111 1111 1111 1111, expires 12/27": "card [card], expires 12/27",
    "5555555555554444": "[card]",
    "3782-822463-10005": "[card]",
    "from 192.0.2.17:8080.": "from [ip]:8080.",
    "host 2001:db8::8a2e:370:7334": "host [ip]",
    "+44 20 7946 0018": "[phone]",
    "Call +1 (555) 010-9999 today": "Call [phone] today",
    "0049 30 1234567": "[phone]",
    "555-010-9999": "[phone]",
    "(555) 010-9999": "[phone]",
    "020 7946 0018.": "[phone].",
    "030/1234567": "[phone]",
    "06 12 34 56 78": "[phone]",
    "my phone is 5550109999": "my phone is [phone]",
    "call me: 555 0199": "call me: [phone]",
    "eva@example.com or +44 20 7946 0018": "[e-mail] or [phone]",
}
STAYS = [
    "It costs 1,299.00 euros, or 1.299,00.",
    "$15 off, 20 %, 3 for 2",
    "12 000 000 euros",
    "On 2026-10-17 at 12:30:45",
    "17.10.2026 or 10/17/2026 or 05-10-2024",
    "Call me on 17.10.2026.",
    "from 9:00 to 17:30",
    "order 4512-3389-0071-2265",
    "order no. 0123-456789",
    "Invoice #02 4455 6677",
    "tracking number 00340434161094021501",
    "ticket 555-010-9999",
    "1234 5678 9012 3456",  # no Luhn number
    "0000000000000000",
    "GB82 WEST 1234 5698 7654 33",  # wrong check digits
    "version 1.2.3.4, v10.0.0.1",
    "300.300.300.300",
    "std::vector and a::b",
    "00:1a:2b:3c:4d:5e",
    "https://shop.example/help?page=2",
    "https://shop.example/monkey?keyboard=1",
    "@eva says hi, me@home",
    "1 2 3 4 5 6 7 8 9",
    "Room 101, 5th floor, 10115 Berlin",
    "3.14159265358979",
    "ISBN 978-3-16-148410-0",
    "",
    "Parcels take three to five days.\n\tSee you!",
]


@pytest.mark.parametrize("text", FOUND)
def test_what_is_found(text: str) -> None:
    assert scrub(text) == FOUND[text]


@pytest.mark.parametrize("text", STAYS)
def test_false_alarms(text: str) -> None:
    assert scrub(text) == text


@pytest.mark.parametrize("text", FOUND)
def test_twice_is_once(text: str) -> None:
    assert scrub(scrub(text)) == scrub(text)


@pytest.mark.parametrize(
    "part",
    [
        "a",
        "1",
        "1 ",
        "a.",
        "a@",
        "0123 ",
        "::",
        "1.",
        "DE89 ",
        "+1",
        "http://",
        "?key=",
        "call ",
        "4111-",
        "(0",
        "a@a.",
    ],
)
def test_a_long_text_takes_no_longer_than_its_length(part: str) -> None:
    """Four times the length takes less than ten times as long; a quadratic pattern would take sixteen times, of much."""

    def seconds(length: int) -> float:
        text, best = part * (length // len(part)), 9.0
        for _ in range(2):
            begun = time.process_time()
            scrub(text)
            best = min(best, time.process_time() - begun)
        return best

    assert seconds(40_000) < 10 * max(seconds(10_000), 0.01)
