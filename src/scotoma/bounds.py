"""What Scotoma never does, whatever it is asked: pure Python, called by everything that generates or erases.

No option, argument, environment variable or configuration disables this module. It reads text only. Its word lists are
a floor and not a filter: they catch plain wording, spellings with digits, look-alike letters, accents, spaces or
dashes between letters, and stretched letters, mostly in English. What a text detector or a picture shows is for the
detectors to find.

Words that mean a minor and words that mean sexual content are harmless apart; a rule forbids them together. False
alarms are accepted on purpose: a refused prompt can be worded otherwise.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from scotoma.errors import BoundsError


class Named(Protocol):
    """What `records.Concept` is, seen from here: a name and its synonyms."""

    @property
    def name(self) -> str: ...

    @property
    def synonyms(self) -> tuple[str, ...]: ...


class Rule(NamedTuple):
    """Texts with a match of `left` and a match of `right` are refused; a pattern on both sides suffices alone.

    A pattern is a word, words separated by spaces, a stem with * ("explode*"), or MINOR_AGE: an age in years below 18.
    """

    what: str  # completes "may ask for ..."
    left: tuple[str, ...]
    right: tuple[str, ...]


MINOR_AGE = "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}age"

_EITHER = ("lolicon*", "shotacon*", "loli", "lolis", "shota", "csam", "pedophil*", "paedophil*", "pedo", "jailbait")

RULES: tuple[Rule, ...] = (
    Rule(
        "sexual content with minors",
        left=(
            *_EITHER,
            *("nude*", "nudity", "naked*", "undress*", "unclothed", "topless", "disrobe*", "striptease", "stripper*"),
            *("sex", "sexy", "sexual*", "sexualis*", "sexualiz*", "porn*", "nsfw", "xxx", "hentai", "erotic*", "lewd*"),
            *("obscene*", "seductive*", "aroused", "arousing", "orgasm*", "masturbat*", "intercourse", "fetish*"),
            *(
                "genital*",
                "penis*",
                "vagina*",
                "vulva*",
                "nipple*",
                "breasts",
                "boobs",
                "tits",
                "pussy",
                "bdsm",
                "bondage",
            ),
            *(
                "lingerie",
                "panties",
                "thong",
                "g string",
                "underwear",
                "rape",
                "raped",
                "raping",
                "molest*",
                "blowjob*",
            ),
            *("cum", "cumshot*", "desnud*", "nackt*"),
        ),
        right=(
            *_EITHER,
            MINOR_AGE,
            *("child", "childs", "children*", "childlike", "kid", "kids", "kiddie*", "kiddy", "minor", "minors"),
            *("underage*", "under age*", "preteen*", "pre teen*", "tween*", "teen", "teens", "teenage*", "adolescent*"),
            *("prepubescent", "pre pubescent", "pubescent", "juvenile*", "infant*", "toddler*", "baby", "babies"),
            *(
                "newborn*",
                "boy",
                "boys",
                "girl",
                "girls",
                "schoolgirl*",
                "schoolboy*",
                "schoolchild*",
                "pupil",
                "pupils",
            ),
            *("kindergarten*", "preschool*", "elementary school*", "middle school*", "grade school*"),
            *("nino", "nina", "ninos", "ninas", "enfant", "enfants", "kinder", "madchen", "bambin*"),
        ),
    ),
)

# Letters of other scripts that pass for Latin ones (Cyrillic, Greek, phonetic), after casefold and NFKD.
LOOK_ALIKES = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0501\u051b\u051d\u04bb\u043a\u043c\u0442\u0432\u043d\u04cf"
    "\u03b1\u03b5\u03bf\u03c1\u03c5\u03c7\u03b9\u03ba\u03bd\u03c4\u0131\u0251\u0261\u029f\u0274\u0280\xf8\u0142\u0111",
    "aeopcyxijsdqwhkmtbhl" + "aeopuxikvtiaglnrold",
)
_LEET = str.maketrans("034578@$+9\u20ac", "oeastbastge")
_BARS = ("1", "!", "|")  # i or l: both are tried
_AGE = (
    r"(?:0?[0-9]|1[0-7]|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen"
    r"|seventeen)"
)
_MINOR_AGE = re.compile(
    rf"(?<!\w){_AGE}\W*(?:y\W*o|yrs?(?:\W*old)?|years?(?:\W*old)?|months?\W*old|weeks?\W*old)\b"
    rf"|\bage[ds]?\W+(?:of\W+)?{_AGE}\b"
)
_WORD = re.compile(rf"{MINOR_AGE}|[^\W_]+")
_STRETCHED = re.compile(r"(.)\1{2,}")  # letters: three or more stand for one or two


def check_text(text: str, *, what: str) -> None:
    """Raises BoundsError if `text` asks for something Scotoma never draws. `what` names it in the message: "prompt 3"."""
    _check_text(text, what, RULES)


def check_concepts(
    concept: str | Named | Sequence[str | Named],
    instead: str | Named | Sequence[str | Named],
    *,
    forbidden: Iterable[str | Named] = (),
) -> None:
    """Checks what is to be erased and what it is to become, before any work. Raises BoundsError.

    Refused: a concept or alternative, or a concept and its alternative read together, that a rule refuses; an
    alternative that is, contains or is a synonym of a forbidden concept or of a concept that is being erased. One
    alternative serves all concepts, else there is one for each (ValueError otherwise). "" (erase to nothing) passes.
    """
    _check_concepts(_listed(concept), _listed(instead), list(forbidden), RULES)


def _check_text(text: str, what: str, rules: tuple[Rule, ...]) -> None:
    rule = _broken(text, rules)
    if rule is not None:
        raise BoundsError(
            f"{what} has words that together may ask for {rule.what}, which Scotoma never draws, erases into or probes "
            f"for; if it means something else, word it otherwise: no option lifts this rule"
        )


def _check_concepts(
    concepts: Sequence[str | Named],
    alternatives: Sequence[str | Named],
    forbidden: Sequence[str | Named],
    rules: tuple[Rule, ...],
) -> None:
    if len(alternatives) not in (1, len(concepts)):
        raise ValueError(f"{len(concepts)} concepts need 1 or {len(concepts)} alternatives, got {len(alternatives)}")
    for word, group in (("concept", concepts), ("alternative", alternatives)):
        for name in (name for one in group for name in _names(one)):
            _check_text(name, f"the {word} {name!r}", rules)
    paired = list(alternatives) if len(alternatives) == len(concepts) else list(alternatives) * len(concepts)
    for one, other in zip(concepts, paired, strict=True):
        for name, becomes in itertools.product(_names(one), _names(other)):
            _check_text(f"{name} {becomes}", f"the concept {name!r} with the alternative {becomes!r}", rules)
    for reason, group in (("is being erased", concepts), ("is forbidden", forbidden)):
        for one, other in itertools.product(group, alternatives):
            met = _meets(other, one)
            if met is not None:
                raise BoundsError(
                    f"the alternative {_names(other)[0]!r} means or contains {met!r}, which {reason}; choose an "
                    f"alternative that draws something else"
                )


def _meets(alternative: str | Named, concept: str | Named) -> str | None:
    """The name of `concept` that the alternative, under any of its own names, is or contains; None if there is none."""
    for name, own in itertools.product(_names(concept), _names(alternative)):
        needle, hay = _WORD.findall(_folded(name)), _WORD.findall(_folded(own))
        for i in range(len(hay) - len(needle) + 1):
            if needle and all(_singulars(a) & _singulars(b) for a, b in zip(needle, hay[i:], strict=False)):
                return name
        if needle and _singulars("".join(needle)) & _singulars("".join(hay)):  # "base ball" and "baseball"
            return name
    return None


def _singulars(word: str) -> set[str]:
    """A word and what it may be the plural of: "knives" is also "knife", "axes" is also "axe"."""
    forms = {word}
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        forms.add(word[:-1])
        if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
            forms.add(word[:-2])
        if word.endswith("ves"):
            forms |= {word[:-3] + "f", word[:-3] + "fe"}
        if word.endswith("ies"):
            forms.add(word[:-3] + "y")
    return forms


def _listed(given: str | Named | Sequence[str | Named]) -> list[str | Named]:
    return list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]


def _names(one: str | Named) -> tuple[str, ...]:
    return (one,) if isinstance(one, str) else (one.name, *one.synonyms)


@functools.lru_cache(maxsize=4096)
def _broken(text: str, rules: tuple[Rule, ...]) -> Rule | None:
    """The first rule that `text` breaks. The two sides may be found in different readings of it."""
    readings = _readings(text)
    words = {word for r in readings for word in r.split() if len(word) >= 6}
    for rule in rules:
        left, right = _compiled(rule.left), _compiled(rule.right)
        if any(left.search(r) for r in readings) and any(right.search(r) for r in readings):
            return rule
        if any(_joined(word, rule) for word in words):
            return rule
    return None


@functools.lru_cache(maxsize=64)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """One expression for a side of a rule, over words separated by single spaces."""
    parts = [re.escape(p).replace(r"\*", r"[^ ]*").replace(r"\ ", " ") for p in patterns]
    return re.compile(r"(?<![^ ])(?:" + "|".join(parts) + r")(?![^ ])")


class _Parts(NamedTuple):
    """The patterns of a side that can stand inside a word: whole words, stems, both, and an expression that matches where a stem
    begins."""

    whole: tuple[str, ...]
    stems: tuple[str, ...]
    both: tuple[str, ...]
    begins: re.Pattern[str]


@functools.lru_cache(maxsize=64)
def _parts(patterns: tuple[str, ...]) -> _Parts:
    alone = [p for p in patterns if " " not in p]
    stems = tuple(p[:-1] for p in alone if p.endswith("*"))
    begins = "|".join(map(re.escape, stems)) or "(?!)"
    whole = tuple(p for p in alone if not p.endswith("*"))
    return _Parts(whole, stems, whole + stems, re.compile(f"(?={begins})"))


_LEAST = 3  # letters of either part of a joined word


def _joined(word: str, rule: Rule) -> bool:
    """True if `word` is a match of one side directly followed by a match of the other. Linear in its length."""
    sides = _parts(rule.left), _parts(rule.right)
    return _follows(word, *sides) or _follows(word, *sides[::-1])


def _follows(word: str, first: _Parts, then: _Parts) -> bool:
    """Whether there is a cut before which `first` matches and behind which `then` does."""
    if not word.startswith(first.both):  # as most words do not
        return False
    ends = {len(w) for w in first.whole if word.startswith(w)}
    from_here = min((len(s) for s in first.stems if word.startswith(s)), default=len(word))  # a stem matches at any end
    cuts = {len(word) - len(w) for w in then.whole if word.endswith(w)}
    if ends or from_here < len(word):
        cuts.update(m.start() for m in then.begins.finditer(word))
    return any(_LEAST <= i <= len(word) - _LEAST and (i >= from_here or i in ends) for i in cuts)


def _readings(text: str) -> list[str]:
    """The ways a text may be meant to be read, each as words separated by single spaces."""
    folded = _folded(text)
    bases = [folded]
    leet = folded.translate(_LEET)
    if leet != folded or any(bar in folded for bar in _BARS):
        bases += [functools.reduce(lambda t, bar: t.replace(bar, letter), _BARS, leet) for letter in "il"]
    readings = [" ".join(_WORD.findall(_MINOR_AGE.sub(f" {MINOR_AGE} ", folded)))]
    for base in dict.fromkeys(bases):
        for plain in dict.fromkeys(_STRETCHED.sub(run, base) for run in (r"\1", r"\1\1")):
            words = _WORD.findall(plain)
            readings += [" ".join(words), " ".join(_glued(words))]
    return list(dict.fromkeys(readings))


_PIECE = 4  # letters, at most, in a piece of a word that was cut up


def _glued(words: Sequence[str]) -> list[str]:
    """Neighbouring short words joined, every run of them: "n u d e" and "chi ld" are words that were cut up."""
    out = []
    for start, word in enumerate(words):
        if len(word) > _PIECE:
            continue
        for following in words[start + 1 : start + 24]:
            if len(following) > _PIECE or len(word) > 24:
                break
            word += following
            out.append(word)
    return out


def _folded(text: str) -> str:
    """Lower case, no accents, no invisible characters, look-alikes as Latin letters."""
    if text.isascii():
        return text.lower()  # the same: it has none of these
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    seen = "".join(c for c in decomposed if not unicodedata.combining(c) and unicodedata.category(c) != "Cf")
    return seen.translate(LOOK_ALIKES)
