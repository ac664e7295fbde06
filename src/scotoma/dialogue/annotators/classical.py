"""Classical annotators: weighted word patterns, and a linear model on a guideline's examples.

The patterns are data, one YAML file for a guideline in patterns/:

    guideline: commitments
    bias: -1.5                     # log odds of the positive label where no rule matches
    negations: [not, cannot, ...]  # words that turn a match round, at most `window` words before it in its sentence
    window: 4
    rules:
      - {why: ..., response: "regular expression", weight: 2.0, negated: -1.0}
      - {why: ..., response: "^yes\\b", context: "will you", weight: 2.0}

A rule counts once, where its `response` is found in the response and its `context`, if it has one, in what the customer said
last. With `negated`, a match behind a negation has that weight instead. Texts are normalised and folded first (detectors.text).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from scotoma.detectors.text.folding import fold
from scotoma.detectors.text.normalise import READING, cut, plain
from scotoma.detectors.text.segments import answered
from scotoma.dialogue.annotators.contract import Annotator
from scotoma.dialogue.annotators.scored import need_both, once, scored, sigmoid
from scotoma.dialogue.guideline import Guideline
from scotoma.dialogue.schema import Item
from scotoma.errors import DataError, MissingExtraError
from scotoma.records import Exchange, Turn, sha256_text

FOLDER = Path(__file__).parent / "patterns"
BATCH = 256
_SPACE = re.compile(r"[^\S\n]+")
_SENTENCE_END = re.compile(r"[.!?;:\n]")


@dataclass(frozen=True)
class Rule:
    response: re.Pattern[str] | None
    context: re.Pattern[str] | None
    weight: float
    negated: float | None
    why: str


@dataclass(frozen=True)
class Patterns:
    """`bias` and weights are log odds of the positive label. `sha256` is that of the file."""

    guideline: str
    bias: float
    negations: frozenset[str]
    window: int
    rules: tuple[Rule, ...]
    sha256: str

    def log_odds(self, exchange: Exchange) -> float:
        response, context = _folded(exchange.response.text), _asked(exchange)
        return self.bias + sum(self._weight(rule, response, context) for rule in self.rules)

    def _weight(self, rule: Rule, response: str, context: str) -> float:
        if rule.context and not rule.context.search(context):
            return 0.0
        if not rule.response:
            return rule.weight
        found = list(rule.response.finditer(response))
        if not found:
            return 0.0
        if rule.negated is None or any(not self._denied(response[: m.start()]) for m in found):
            return rule.weight
        return rule.negated

    def _denied(self, before: str) -> bool:
        words = re.findall(r"[\w']+", _SENTENCE_END.split(before)[-1])[-self.window :]
        return any(word in self.negations or word.endswith("n't") for word in words)


def word_patterns(patterns: str | Path, name: str = "patterns") -> Annotator:
    """Patterns that ship, by the name of their guideline, or a file by its path (it ends in .yaml or .yml).

    Raises DataError for a file that is not as described above; annotating does for another guideline than theirs.
    """
    path = Path(patterns) if str(patterns).endswith((".yaml", ".yml")) else FOLDER / f"{patterns}.yaml"
    known = read_patterns(path)

    def score(items: Sequence[Item], guideline: Guideline) -> np.ndarray:
        if guideline.name != known.guideline:
            raise DataError(f"{path} has patterns for {known.guideline!r}, not for the guideline {guideline.name!r}")
        return sigmoid(np.array([known.log_odds(item.exchange) for item in items]))

    return scored(name, f"patterns@{known.sha256[:12]}, reading {READING}", "classical", score, BATCH)


def read_patterns(path: Path) -> Patterns:
    """Raises DataError, naming file and fault."""
    try:
        text = path.read_text(encoding="utf-8")
        told = yaml.safe_load(text)
        rules = tuple(_rule(row) for row in told["rules"])
        negations = frozenset(told["negations"])
        if odd := [word for word in negations if not isinstance(word, str)]:
            raise ValueError(
                f"the negation {odd[0]} is no text; YAML takes no, off and yes for others unless they are quoted"
            )
        return Patterns(
            told["guideline"], float(told["bias"]), negations, int(told["window"]), rules, sha256_text(text)
        )
    except KeyError as e:
        raise DataError(f"{path} cannot be read as patterns (no field {e}); see those that ship") from e
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, ValueError, AttributeError, re.error) as e:
        raise DataError(f"{path} cannot be read as patterns ({' '.join(str(e).split())}); see those that ship") from e


def linear_on_examples(name: str = "linear on examples", *, descriptions: bool = False) -> Annotator:
    """Logistic regression on words and character n-grams (2 to 4) of a guideline's examples and of nothing else; response and
    context are counted apart. With `descriptions` the guideline's sentences are examples, too. A few examples teach
    little: this is the weakest voter, and there to be measured.

    Raises MissingExtraError without scikit-learn; annotating raises DataError for a guideline without examples of both
    labels.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError as e:
        raise MissingExtraError("scikit-learn", "dialogue", "the linear annotator") from e
    of_guideline = once(lambda guideline: _fitted(guideline, descriptions))

    def score(items: Sequence[Item], guideline: Guideline) -> np.ndarray:
        return of_guideline(guideline).predict_proba([item.exchange for item in items])[:, 1]

    lessons = "examples and descriptions" if descriptions else "examples"
    return scored(name, f"linear, {lessons}, reading {READING}", "classical", score, BATCH)


def _fitted(guideline: Guideline, descriptions: bool) -> Any:
    """A pipeline from Exchanges to the probabilities of negative and positive."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    need_both(guideline, "the linear annotator's lessons")

    parts = [
        TfidfVectorizer(preprocessor=part, analyzer=kind, ngram_range=lengths, token_pattern=words, sublinear_tf=True)
        for part in (_said, _asked)
        for kind, lengths, words in (("word", (1, 2), r"\b\w+\b"), ("char_wb", (2, 4), None))
    ]
    x = [e.exchange for e in guideline.examples]
    y = [int(e.label == guideline.positive) for e in guideline.examples]
    if descriptions:
        for label, sentences in guideline.descriptions.items():
            x += [Exchange(Turn("assistant", sentence)) for sentence in sentences]
            y += [int(label == guideline.positive)] * len(sentences)
    model = make_pipeline(make_union(*parts), LogisticRegression(C=10.0, class_weight="balanced", max_iter=1000))
    return model.fit(x, y)


def _rule(row: Any) -> Rule:
    response, context = (re.compile(row[part]) if part in row else None for part in ("response", "context"))
    if response is None and context is None or not row.get("why"):
        raise ValueError("a rule needs a response or a context, and a why")
    negated = float(row["negated"]) if "negated" in row else None
    return Rule(response, context, float(row["weight"]), negated, row["why"])


def _folded(text: str) -> str:
    """Each run of spaces one space; line breaks too, where most words have one, and no sentence ends there."""
    text = plain(cut(text))
    if 2 * text.count("\n") > len(text.split()):
        text = text.replace("\n", " ")
    return fold(_SPACE.sub(" ", text).replace("\u2019", "'")).text


def _said(exchange: Exchange) -> str:
    return _folded(exchange.response.text)


def _asked(exchange: Exchange) -> str:
    return _folded(answered(exchange))
