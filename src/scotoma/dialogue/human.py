"""The human queue: what no machine could decide, and the random audit sample, one item after another at a terminal.

Texts are blurred until they are asked for. What annotators said of an item, and whether it is disputed or of the audit sample,
is not shown, so that the person judges from the guideline alone.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from scotoma.dialogue.guideline import Guideline
from scotoma.dialogue.schema import Answer, Item, Label, Vote
from scotoma.errors import UsageError
from scotoma.records import RecordLog
from scotoma.report.page import visible

Blur = Literal["both", "response", "context", "neither"]
KEYS = "p positive  n negative  s skip  u undo  b unblur  q quit"
SHOWN = 4000  # characters of a turn that are shown
_BLOCK = "█"


@dataclass(frozen=True)
class Reviewed:
    """What a sitting came to: items judged and skipped in it, items still waiting, and whether it was ended with q."""

    judged: int
    skipped: int
    waiting: int
    quit: bool


def queue(items: Sequence[Item], labels: Sequence[Label], audit: Sequence[Item] = (), *, seed: int = 0) -> list[Item]:
    """Items without a label and the audit sample, each once, mixed in an order that depends on seed and ids alone."""
    open_ = {label.item for label in labels if not label.label}
    wanted = {item.id: item for item in items if item.id in open_} | {item.id: item for item in audit}
    order = [wanted[i] for i in sorted(wanted)]
    random.Random(seed).shuffle(order)
    return order


def answers(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Item -> label, from the rows of a review: {"item", "label"} judges, {"item", "label": ""} takes the judgement back."""
    found: dict[str, str] = {}
    for row in rows:
        if row["label"]:
            found[row["item"]] = row["label"]
        else:
            found.pop(row["item"], None)
    return found


def human_votes(rows: Sequence[Mapping[str, Any]], guideline: Guideline) -> list[Vote]:
    """The standing judgements as votes of stage "human"."""
    who = {row["item"]: row["who"] for row in rows}
    return [
        Vote(item, "human", who[item], "person", guideline.identity, Answer("label", label))
        for item, label in answers(rows).items()
    ]


def settle(labels: Sequence[Label], judged: Mapping[str, str], guideline: Guideline) -> list[Label]:
    """Labels with those of a person where there was none. An item of the audit sample keeps its label: what a person says of
    a random sample measures the labels, and would no longer do so if it mended them in that sample alone."""
    return [
        Label(label.item, w, "human", float(w == guideline.positive), "a person")
        if not label.label and (w := judged.get(label.item, ""))
        else label
        for label in labels
    ]


def review(
    items: Sequence[Item],
    guideline: Guideline,
    log: RecordLog,
    *,
    read: Callable[[], str],
    write: Callable[[str], None],
    who: str = "person",
    blur: Blur = "both",
) -> Reviewed:
    """Show each item that `log` holds no judgement of and take keys: p and n judge, s leaves the item for another sitting, u
    goes back to the item before and takes its judgement back, b shows the response, then the context, then blurs again, q
    ends. `read()` gives one key, "" at the end of input, which ends too; `write` takes text to show. A judgement is on the
    disk before the next item is shown, and undone by a further row, so that a kill loses nothing.

    `blur` says what is blurred at first. Raises UsageError for another value.
    """
    if blur not in ("both", "response", "context", "neither"):
        raise UsageError(f"blur must be both, response, context or neither, got {blur!r}")
    done = answers(log.rows)
    waiting = [item for item in items if item.id not in done]
    steps: list[str] = []  # what was done with waiting[i]: a label, or "" for skipped
    view = Shown.of(blur)
    ended = False
    write(f"{len(waiting)} to judge: {guideline.positive} (p) or {guideline.negative} (n)\n{guideline.definition}\n")
    while len(steps) < len(waiting) and not ended:
        item = waiting[len(steps)]
        write(_screen(item, view, len(steps) + 1, len(waiting)))
        key = read().lower()
        if key in ("p", "n"):
            label = guideline.positive if key == "p" else guideline.negative
            log.append([{"item": item.id, "label": label, "who": who}])
            steps.append(label)
            view = Shown.of(blur)
        elif key == "s":
            steps.append("")
            view = Shown.of(blur)
        elif key == "u":
            if not steps:
                write("nothing to undo in this sitting\n")
            elif steps.pop():
                log.append([{"item": waiting[len(steps)].id, "label": "", "who": who}])
            view = Shown.of(blur)
        elif key == "b":
            view = view.next(blur, bool(item.exchange.context))
        elif key in ("q", "", "\x03", "\x04"):  # ctrl-c and ctrl-d, as a raw terminal gives them
            ended = True
        else:
            write(f"{KEYS}\n")
    judged = sum(bool(s) for s in steps)
    return Reviewed(judged, len(steps) - judged, len(waiting) - judged, ended)


@dataclass(frozen=True)
class Shown:
    """Which parts of an item are readable."""

    response: bool
    context: bool

    @classmethod
    def of(cls, blur: Blur) -> Shown:
        return cls(blur in ("context", "neither"), blur in ("response", "neither"))

    def next(self, blur: Blur, has_context: bool) -> Shown:
        """What the key b makes of it."""
        if not self.response:
            return Shown(True, self.context)
        if not self.context and has_context:
            return Shown(True, True)
        first = Shown.of(blur)
        return first if first != self else Shown(False, False)


def blurred(text: str) -> str:
    """Block characters, as many as `text` has; line feeds stay."""
    return "".join("\n" if c == "\n" else _BLOCK for c in text)


def _screen(item: Item, view: Shown, number: int, of: int) -> str:
    """Only characters that show reach the terminal: an escape sequence in a text is written out, not obeyed."""
    lines = [f"\n[{number} of {of}] {visible(item.id)}, judged {_judged(item)}"]
    for turn in item.exchange.context:
        lines.append(f"  {visible(turn.speaker)}: {_text(turn.text, view.context)}")
    response = item.exchange.response
    lines.append(f"> {visible(response.speaker)}: {_text(response.text, view.response)}")
    return "\n".join([*lines, KEYS, ""])


def _judged(item: Item) -> str:
    return "by itself" if item.level == "utterance" else "as the answer to what stands before it"


def _text(text: str, shown: bool) -> str:
    cut, more = text[:SHOWN], len(text) - SHOWN
    body = visible(cut) if shown else blurred(cut)
    return body + (f" ... {more:,} more characters" if more > 0 else "")


def terminal_key() -> str:
    """One key press of the terminal, without a line feed; where there is no terminal, the first character of a line. "" at the
    end of input."""
    try:
        import termios
        import tty
    except ImportError:  # no such terminals on this system
        return _line()
    if not sys.stdin.isatty():
        return _line()
    number = sys.stdin.fileno()
    old = termios.tcgetattr(number)
    try:
        tty.setcbreak(number)
        return sys.stdin.read(1)
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, old)


def _line() -> str:
    line = sys.stdin.readline()
    return line.strip()[:1] or ("?" if line else "")
