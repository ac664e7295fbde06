"""Training, validation and test, so that no text of the test was seen in training.

The published split of CensorChat is per item: the utterance of a turn may lie in training and the same turn, as the response of
a context item, in the test (brief, sections 1 and 8). Here what hangs together stays together. Two items do if they are of one
dialogue, or if any turn of one (response or context) has the normal form of any turn of the other and more than `FEW` words;
and so on through third ones. Shorter turns ("yes", "thank you") tie nothing: they are said in
nearly every dialogue, would make one group of all, and hold nothing that a student could learn by heart but the words
themselves. So remove duplicates first: then no utterance, however short, is on two sides.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scotoma.dialogue.schema import SPLITS, Item, Level
from scotoma.dialogue.texts import NearIndex, Parts, count_words, exchange_parts
from scotoma.errors import DataError, UsageError

FEW = 3  # words: a turn of as many or fewer ties nothing
Stratum = tuple[str, Level]  # label and level


def groups(items: Sequence[Item], *, few: int = FEW, near: float | None = None) -> list[tuple[str, ...]]:
    """Ids of the items that hang together, each group sorted, the groups by their first id. With `near`, turns of that
    similarity tie as equal ones do."""
    _check_ids(items)
    parent = list(range(len(items)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first = dict[tuple[str, str], int]()
    index, sketched = (None if near is None else NearIndex(near)), list[int]()
    for i, item in enumerate(items):
        parent[root(i)] = root(first.setdefault(("dialogue", item.dialogue), i))
        for text in _long(exchange_parts(item.exchange), few):
            new = ("text", text) not in first
            parent[root(i)] = root(first.setdefault(("text", text), i))
            if index and new:
                sketch = index.sketch((("", text),))
                for j in index.find(sketch):
                    parent[root(i)] = root(sketched[j])
                index.add(sketch)
                sketched.append(i)
    members = dict[int, list[str]]()
    for i, item in enumerate(items):
        members.setdefault(root(i), []).append(item.id)
    return sorted(tuple(sorted(ids)) for ids in members.values())


def split(
    items: Sequence[Item],
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    *,
    labels: Mapping[str, str] | None = None,
    few: int = FEW,
    near: float | None = None,
) -> dict[str, str]:
    """Item id -> train, validation or test, in the order of `items`. Depends on the items and not on their order.

    Stratified as far as whole groups allow: groups go, the largest first and those of one size in an order drawn with `seed`,
    where they bring the counts of (label, level) nearest to `shares`: the least growth of sum (count - wanted)^2 / wanted.
    `labels` (item id -> label) stand in for the labels that came with the data.

    Where one answer is given in many dialogues these are one group, which goes to training as a whole, and the other splits get
    less than their share: look at their counts.

    Raises UsageError for shares that are none, DataError where there are fewer groups than splits that want items, or an id
    comes twice.
    """
    if len(shares) != len(SPLITS) or min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6) or not shares[0]:
        raise UsageError(f"shares are three numbers that add up to 1, that of training above 0; got {shares}")
    found = groups(items, few=few, near=near)
    wanting = [s for s, share in enumerate(shares) if share]
    if len(found) < len(wanting):
        raise DataError(
            f"the {len(items)} items hang together in {len(found)} group(s), by dialogue or by turns with the same words, and "
            f"{len(wanting)} splits need one each; give more dialogues, or tie by longer turns only (few)"
        )
    stratum = {item.id: ((labels or {}).get(item.id, item.given), item.level) for item in items}
    total = Counter(stratum.values())
    have = [Counter[Stratum]() for _ in SPLITS]
    homes = dict[tuple[str, ...], int]()

    def growth(s: int, more: Counter[Stratum]) -> float:
        return sum(n * (2 * (have[s][k] - shares[s] * total[k]) + n) / (shares[s] * total[k]) for k, n in more.items())

    for group in sorted(found, key=lambda ids: (-len(ids), _drawn(seed, ids[0]))):
        more = Counter(stratum[i] for i in group)
        home = min(wanting, key=lambda s: (round(growth(s, more), 9), s))
        homes[group] = home
        have[home].update(more)
    for s in wanting:  # a split that wants less than one group gets the smallest of the split with most groups
        if s not in homes.values():
            count = Counter(homes.values())
            richest = max(wanting, key=lambda w: (count[w], -w))
            homes[min((g for g in homes if homes[g] == richest), key=lambda g: (len(g), _drawn(seed, g[0])))] = s
    where = {name: SPLITS[s] for group, s in homes.items() for name in group}
    return {item.id: where[item.id] for item in items}


@dataclass(frozen=True)
class Leakage:
    """How many of `n` items of one split share something with another split. Equal: the dialogue; the whole exchange; the
    words of the response, wherever they stand there; any turn. Of turns only those with more than a few words count, but for
    the whole exchange; `short` are the items that share nothing but shorter ones. near_...: those that share no equal one of
    the kind but a near one; None where this was not asked. `ids` are the items that share something equal, short apart."""

    n: int
    dialogue: int
    exchange: int
    response: int
    turn: int
    short: int
    near_exchange: int | None
    near_response: int | None
    near_turn: int | None
    ids: tuple[str, ...]


def leakage(
    items: Sequence[Item],
    splits: Mapping[str, str],
    *,
    near: float | None = 0.9,
    few: int = FEW,
    of: str = "test",
    against: str = "train",
    tell: Callable[[int, int], None] | None = None,
) -> Leakage:
    """What items of the split `of` share with those of `against`. Items that `splits` does not name are left out.

    Raises UsageError for a similarity that is none, MissingExtraError for `near` without datasketch.
    """
    known = [(item, exchange_parts(item.exchange)) for item in items if splits.get(item.id) == against]
    asked = [(item, exchange_parts(item.exchange)) for item in items if splits.get(item.id) == of]
    dialogues, exchanges = {item.dialogue for item, _ in known}, {parts for _, parts in known}
    turns = {text for _, parts in known for _, text in parts if text}
    near_turns, near_exchanges = (None, None) if near is None else (NearIndex(near), NearIndex(near))
    if near_turns and near_exchanges:
        for text in sorted(t for t in turns if count_words(t) > few):
            near_turns.add(near_turns.sketch((("", text),)))
        for parts in sorted(exchanges):
            near_exchanges.add(near_exchanges.sketch(parts))
    seen = dict[str, bool]()

    def is_near(text: str) -> bool:
        if near_turns and text not in seen:
            seen[text] = next(near_turns.find(near_turns.sketch((("", text),))), None) is not None
        return seen.get(text, False)

    count, leaking = Counter[str](), list[str]()
    for done, (item, parts) in enumerate(asked):
        if tell and done % 1000 == 0:
            tell(done, len(asked))
        long, response = _long(parts, few), parts[-1][1]
        shared = {
            "dialogue": item.dialogue in dialogues,
            "exchange": parts in exchanges,
            "response": response in long and response in turns,
            "turn": any(text in turns for text in long),
        }
        if any(shared.values()):
            leaking.append(item.id)
        shared["short"] = not any(shared.values()) and any(text in turns for _, text in parts)
        if near_exchanges:
            found = not shared["exchange"] and next(near_exchanges.find(near_exchanges.sketch(parts)), None) is not None
            shared["near_exchange"] = found
            shared["near_response"] = not shared["response"] and response in long and is_near(response)
            shared["near_turn"] = not shared["turn"] and any(is_near(text) for text in long)
        count.update(what for what, is_so in shared.items() if is_so)
    if tell:
        tell(len(asked), len(asked))
    return Leakage(
        n=len(asked),
        dialogue=count["dialogue"],
        exchange=count["exchange"],
        response=count["response"],
        turn=count["turn"],
        short=count["short"],
        near_exchange=None if near is None else count["near_exchange"],
        near_response=None if near is None else count["near_response"],
        near_turn=None if near is None else count["near_turn"],
        ids=tuple(leaking),
    )


def audit_sample(items: Sequence[Item], n: int, seed: int = 0) -> list[str]:
    """Ids of `n` items, each equally likely whatever the annotators said of it, so that those they agree on are checked too
    (brief, sections 8 and 9). Depends on the items and not on their order; a larger sample contains the smaller ones.

    Raises UsageError for a number that is below 1 or above that of the items, DataError for an id that comes twice.
    """
    if not 1 <= n <= len(items):
        raise UsageError(f"a sample of {n} cannot be drawn from {len(items)} items; ask for 1 to {len(items)}")
    _check_ids(items)
    return sorted((item.id for item in items), key=lambda name: _drawn(seed, name))[:n]


def _drawn(seed: int, name: str) -> bytes:
    """A random place in a row that depends on nothing else."""
    return hashlib.sha256(f"{seed}/{name}".encode()).digest() + name.encode()


def _long(parts: Parts, few: int) -> set[str]:
    return {text for _, text in parts if count_words(text) > few}


def _check_ids(items: Sequence[Item]) -> None:
    count = Counter(item.id for item in items)
    if doubled := next((name for name, n in count.items() if n > 1), ""):
        raise DataError(f"two items have the id {doubled!r}; give dialogues of several files ids of their own")
