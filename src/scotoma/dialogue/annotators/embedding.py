"""Annotators that compare sentence embeddings: with a guideline's descriptions, or with its examples.

Notation: N items, K examples, D features. Both see what a text is about and hardly whether it affirms or denies it; they vote
beside others, and their agreement with gold is measured. Of the context they read what the customer said last.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scotoma.detectors.text.segments import answered
from scotoma.detectors.text.similarity import Encode
from scotoma.dialogue.annotators.contract import Annotator
from scotoma.dialogue.annotators.scored import need_both, once, scored, sigmoid
from scotoma.dialogue.guideline import Guideline
from scotoma.dialogue.schema import Item
from scotoma.records import Exchange

BEST = 2  # descriptions of a label that count
SOFTNESS = 0.05  # of a difference of mean cosines; sets how sure the answers are, not which they are
REACH = 0.1  # an example that is nearer by this much in cosine weighs e times as much
BATCH = 64


def similarity_to_descriptions(encode: Encode, sha256: str, name: str = "descriptions") -> Annotator:
    """Zero-shot by sentences: the cosine of the item with each description, the mean of the two best of each label, a softmax
    of the two means. What the customer said last is put before the response, which stays however long that is, since of a
    long text head and tail are read. `sha256` is that of the encoder's weights."""
    of_guideline = once(lambda g: [encode(list(g.descriptions[label])) for label in g.labels])

    def score(items: Sequence[Item], guideline: Guideline) -> np.ndarray:
        x = encode([f"{answered(i.exchange)} {i.exchange.response.text}".strip() for i in items])
        positive, negative = (np.sort(x @ rows.T, axis=1)[:, -BEST:].mean(1) for rows in of_guideline(guideline))
        return sigmoid((positive - negative) / SOFTNESS)

    return scored(name, f"descriptions@{sha256[:12]}", "embedding", score, BATCH)


def nearest_examples(encode: Encode, sha256: str, name: str = "nearest examples") -> Annotator:
    """The labels of a guideline's examples, each weighted by exp(cosine / reach), so that the nearest count most. Responses are
    compared with responses, and what the customer said last with that; the two cosines are averaged. Where item or example
    has no context, responses alone are compared.

    Annotating raises DataError for a guideline without examples of both labels."""

    def embedded(guideline: Guideline) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        need_both(guideline, "nearest examples")
        exchanges = [e.exchange for e in guideline.examples]
        positive = np.array([e.label == guideline.positive for e in guideline.examples], dtype=np.float64)
        return *both(exchanges), positive

    def both(exchanges: Sequence[Exchange]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of responses and of contexts, N D each, and which have a context."""
        asked = [answered(e) for e in exchanges]
        return (
            encode([e.response.text for e in exchanges]),
            encode([text or "." for text in asked]),
            np.array([bool(text) for text in asked]),
        )

    of_guideline = once(embedded)

    def score(items: Sequence[Item], guideline: Guideline) -> np.ndarray:
        responses, contexts, with_context, positive = of_guideline(guideline)
        x, c, has = both([item.exchange for item in items])
        alone = x @ responses.T  # N K
        cosine = np.where(has[:, None] & with_context[None], (alone + c @ contexts.T) / 2, alone)
        weight = np.exp((cosine - cosine.max(1, keepdims=True)) / REACH)
        return (weight @ positive) / weight.sum(1)

    return scored(name, f"nearest examples@{sha256[:12]}", "embedding", score, BATCH)
