"""The guard: prompt rules, then the drawing, then detectors on the pictures; a Decision at each, an Outcome at the end.

    guard = load_guard(load_policy("policy.yaml"))
    guard.check_prompt(text)   guard.check_image(picture)   guard.check_dialogue(exchange)
    guard.generate(guard.admit(model), prompts, seeds)

bounds.py is asked first about every text, whatever the policy says. What an item's Decision is does not hang on the others in its
batch. Where the audit log cannot be written, everything is refused.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from scotoma import bounds
from scotoma.detectors.contract import Unreadable
from scotoma.detectors.text.readings import readings
from scotoma.errors import BoundsError, LogError, PolicyError, UsageError
from scotoma.guard.combine import Group, conclude
from scotoma.guard.decision import (
    BOUNDS,
    NOT_LOGGED,
    Action,
    Decision,
    Finding,
    Outcome,
    Stage,
    sentence,
    strictness,
    too_long,
)
from scotoma.guard.drawing import Asked, Draw, draw_each, no_picture, outcome, sha256_of, undrawn
from scotoma.guard.eyes import Eye, load_eye, strictest
from scotoma.guard.log import AuditLog, open_log
from scotoma.guard.policy import identity
from scotoma.guard.rewriting import rewritten
from scotoma.guard.verify import Admitted, admit
from scotoma.records import Exchange, sha256_text

if TYPE_CHECKING:
    from scotoma.erasure.edit import Edit
    from scotoma.guard.schema import Policy
    from scotoma.models.model import Model


Request = str | Sequence[str]


@dataclass(frozen=True)
class Guard:
    """A policy and its detectors, loaded. `prompt_eyes` are in the order of the policy's rules."""

    policy: Policy
    prompt_eyes: tuple[Eye, ...] = ()
    picture_eyes: tuple[Eye, ...] = ()
    dialogue_eyes: tuple[Eye, ...] = ()
    log: AuditLog | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Raises PolicyError where nobody looks for a category, and where an alternative would itself be found."""
        eyes = (*self.prompt_eyes, *self.picture_eyes, *self.dialogue_eyes)
        seen = {c for eye in eyes for c in eye.categories}
        if unseen := [c for c in self.policy.categories if c not in seen]:
            raise PolicyError(
                f"nobody looks for {', '.join(unseen)}; give the policy a detector that does, or take the category out"
            )
        for name, stage, held in (
            ("pictures", self.policy.pictures, self.picture_eyes),
            ("dialogue", self.policy.dialogue, self.dialogue_eyes),
        ):
            for c in dict.fromkeys(c for eye in held for c in eye.categories):
                n = sum(c in eye.categories for eye in held)
                if stage.at_least is not None and n < stage.at_least:
                    raise PolicyError(
                        f"{name}: {stage.at_least} detectors have to find {c!r}, and {n} look for it; nothing could be found"
                    )
        for rule, eye in zip(self.policy.prompts.rules, self.prompt_eyes, strict=True):
            for c in eye.categories:
                if self.policy.on_prompt(rule, c) == "rewrite" and c not in rule.instead:
                    raise PolicyError(
                        f"a rule of {rule.detector} rewrites {c!r} and has no alternative for it; give instead"
                    )
            for alternative in rule.instead.values():
                found = self._look_at_prompts([alternative], None)[0]
                if found.action != "allow":
                    raise PolicyError(
                        f"the alternative {alternative!r} is itself found ({found.category}, by {found.detector}); choose another"
                    )

    @cached_property
    def identity(self) -> str:
        """sha256 of the policy and of every detector's card: what decisions are a function of."""
        eyes = (*self.prompt_eyes, *self.picture_eyes, *self.dialogue_eyes)
        return sha256_text(" ".join([identity(self.policy), *(e.detector.card.identity for e in eyes)]))

    # ------------------------------------------------------------------------------------------------------- one item

    def check_prompt(self, text: str, **told: Any) -> Decision:
        return self.check_prompts([text], **told)[0]

    def check_image(self, picture: np.ndarray | Unreadable, **told: Any) -> Decision:
        return self.check_images([picture], **told)[0]

    def check_dialogue(self, exchange: Exchange, **told: Any) -> Decision:
        return self.check_dialogues([exchange], **told)[0]

    # ------------------------------------------------------------------------------------------------------- batches

    def check_prompts(
        self, texts: Sequence[str], *, until: float | None = None, request: Request = ""
    ) -> list[Decision]:
        """`until` (of time.monotonic): detectors are not asked after it, and what they were not asked about is refused as the
        policy says of failures; what the bounds have not read by then is refused whatever it says. `request` goes into the log:
        one for all, or one for each."""
        found = self.decide_prompts(texts, until)
        return self._logged(
            found, [{"text": t, "request": r} for t, r in zip(texts, each(request, texts), strict=True)]
        )

    def check_images(
        self, pictures: Sequence[np.ndarray | Unreadable], *, until: float | None = None, request: Request = ""
    ) -> list[Decision]:
        """Pictures, uint8 H W 3; Unreadable ones (detectors.image.reading.read gives both) are undecided."""
        found, asked = self._decide_pictures(pictures, until), each(request, pictures)
        return self._logged(
            found, [{"sha256": sha256_of(p), "request": r} for p, r in zip(pictures, asked, strict=True)]
        )

    def check_dialogues(
        self, exchanges: Sequence[Exchange], *, until: float | None = None, request: Request = ""
    ) -> list[Decision]:
        found, asked = self._decide_dialogues(exchanges, until), each(request, exchanges)
        return self._logged(
            found, [{"text": e.response.text, "request": r} for e, r in zip(exchanges, asked, strict=True)]
        )

    def check_texts(
        self, exchanges: Sequence[Exchange], *, until: float | None = None, request: Request = ""
    ) -> list[tuple[Decision, ...]]:
        """Texts of which nobody says what they are for: each as a prompt where the policy has rules for prompts, and as a
        response where it has detectors for dialogue; as a prompt where it has neither. The strictest comes first."""
        texts = [e.response.text for e in exchanges]
        stages = []
        if self.prompt_eyes or not self.dialogue_eyes:
            stages.append(self.decide_prompts(texts, until))
        if self.dialogue_eyes:
            stages.append(self._decide_dialogues(exchanges, until))
        found = [tuple(sorted(of, key=strictness, reverse=True)) for of in zip(*stages, strict=True)]
        facts = [
            {"text": t, "request": r} for t, r, of in zip(texts, each(request, texts), found, strict=True) for _ in of
        ]
        logged = self._logged([d for of in found for d in of], facts)
        return [tuple(logged[i : i + len(stages)]) for i in range(0, len(logged), len(stages))]

    # ------------------------------------------------------------------------------------------------------- drawing

    def admit(self, model: Model, edits: Sequence[Edit] = ()) -> Admitted:
        """The model as this policy has it served. Raises ForbiddenModelError where the policy forbids it (verify.py)."""
        return admit(self.policy, model, edits)

    def generate(
        self,
        model: Model | Admitted,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        guidance: float | None = None,
        steps: int | None = None,
        scheduler: str | None = None,
        batch_size: int | None = None,
        until: float | None = None,
        request: str = "",
    ) -> list[Outcome]:
        """Draw what the prompts ask for, as far as the policy allows. A Model is verified first, on every call; give `admit(model)`.

        Prompts that are refused are not drawn. Raises UsageError for lists of two lengths, ForbiddenModelError for a model that
        the policy forbids.
        """
        from scotoma.models.sample import sample

        held = model if isinstance(model, Admitted) else self.admit(model)
        if held.policy != identity(self.policy):
            raise UsageError("the model was admitted by another policy; admit it again")

        def draw(texts: Sequence[str], own: Sequence[int]) -> Sequence[np.ndarray]:
            options = {"guidance": guidance, "steps": steps, "scheduler": scheduler, "batch_size": batch_size}
            return list(sample(held.model, list(texts), list(own), **options))  # type: ignore[arg-type]

        return self.guarded(draw, prompts, seeds, until=until, request=request, model=held.hash)

    def guarded(
        self,
        draw: Draw,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        until: float | None = None,
        request: str = "",
        model: str = "",
    ) -> list[Outcome]:
        """`generate` around anything that draws. It is not verified: that is for whoever hands it in."""
        if isinstance(prompts, str) or len(prompts) != len(seeds):
            raise UsageError(f"prompts and seeds must be lists of one length, got {len(prompts)} and {len(seeds)}")
        first = dict(zip(asked := list(dict.fromkeys(prompts)), self.decide_prompts(asked, until), strict=True))
        rows = [Asked(p, int(s), first[p], request, model) for p, s in zip(prompts, seeds, strict=True)]
        passing = [i for i, row in enumerate(rows) if row.decision.passes]
        late = until is not None and time.monotonic() > until
        got = (
            [undrawn("the deadline had passed") for _ in passing]
            if late
            else draw_each(draw, [rows[i].text for i in passing], [rows[i].seed for i in passing])
        )
        drawn = dict(zip(passing, got, strict=True))
        return self.settle(rows, [drawn.get(i) for i in range(len(rows))], until=until)

    # ------------------------------------------------------------------------------------------------------- its stages

    def decide_prompts(self, texts: Sequence[str], until: float | None = None) -> list[Decision]:
        """What `guarded` does first. Nothing is logged before `settle`."""
        found = self._look_at_prompts(texts, until)
        rows = [i for i, d in enumerate(found) if d.action == "rewrite"]
        if not rows:
            return found
        new = [rewritten(texts[i], found[i], self.prompt_eyes, self.policy) for i in rows]
        again = self._look_at_prompts([text for text in new if text is not None], until)
        for i, text in zip(rows, new, strict=True):
            second = None if text is None else again.pop(0)
            if second is not None and second.action in ("allow", "review"):
                found[i] = dataclasses.replace(found[i], rewritten=text)
                continue
            why = "it is there in an encoded form" if second is None else "what it would be rewritten to is found again"
            told = f"The request was refused: a check found that it asks for {self.policy.what(found[i].category)}."
            found[i] = dataclasses.replace(found[i], action="refuse", sentence=told, reason=why)
        return found

    def settle(
        self, asked: Sequence[Asked], drawn: Sequence[np.ndarray | Decision | None], *, until: float | None = None
    ) -> list[Outcome]:
        """What `guarded` does last: look at what was drawn (None where the prompt was refused), write down, hand out."""
        rows = [i for i, made in enumerate(drawn) if isinstance(made, np.ndarray)]
        seen = dict(zip(rows, self._decide_pictures([drawn[i] for i in rows], until), strict=True))  # type: ignore[misc]
        outcomes, facts = [], []
        for i, (row, made) in enumerate(zip(asked, drawn, strict=True)):
            after = made if isinstance(made, Decision) else seen.get(i)
            decisions = [row.decision] if after is None else [row.decision, after]
            outcomes.append(outcome(row.seed, decisions, made if isinstance(made, np.ndarray) else None))
            told = {"text": row.prompt, "seed": row.seed, "model": row.model, "request": row.request}
            facts.append(told | {"sha256": outcomes[-1].sha256 or sha256_of(made)})
        return self._logged_outcomes(outcomes, facts)

    # ------------------------------------------------------------------------------------------------------- deciding

    def _look_at_prompts(self, texts: Sequence[str], until: float | None) -> list[Decision]:
        """Without rewriting. Every reading of a text is looked at, and the strictest finding counts."""
        held = self.policy.prompts
        early = [self._early("prompt", t, [t], self.policy.limits.prompt_characters, until) for t in texts]
        rows = [i for i, e in enumerate(early) if e is None]
        found = self._read_all(self.prompt_eyes, [list(readings(texts[i])) for i in rows], until)
        for i, by_eye in zip(rows, found, strict=True):
            groups = [
                Group((f,), 1, self.policy.on_prompt(rule, f.category), rule.instead.get(f.category, ""))
                for rule, findings in zip(held.rules, by_eye, strict=True)
                for f in findings
            ]
            early[i] = conclude("prompt", groups, held.on_undecided, held.on_failure, self.policy.what)
        return early  # type: ignore[return-value]

    def _decide_pictures(self, pictures: Sequence[np.ndarray | Unreadable], until: float | None) -> list[Decision]:
        out: list[Decision | None] = [self._early_picture(p) for p in pictures]
        rows = [i for i, d in enumerate(out) if d is None]
        seen = [eye([pictures[i] for i in rows], until) for eye in self.picture_eyes]
        for k, i in enumerate(rows):
            out[i] = self._combined("picture", self.policy.pictures, [s[k] for s in seen])
        return out  # type: ignore[return-value]

    def _decide_dialogues(self, exchanges: Sequence[Exchange], until: float | None) -> list[Decision]:
        out: list[Decision | None] = []
        for e in exchanges:
            turns = [t.text for t in (*e.context, e.response)]
            pair = " ".join(turns[-2:])
            most = self.policy.limits.dialogue_characters
            out.append(self._early("dialogue", " ".join(turns), [*turns, pair], most, until))
        rows = [i for i, d in enumerate(out) if d is None]
        asked = [_exchanges(exchanges[i]) for i in rows]
        for i, by_eye in zip(rows, self._read_all(self.dialogue_eyes, asked, until), strict=True):
            out[i] = self._combined("dialogue", self.policy.dialogue, by_eye)
        return out  # type: ignore[return-value]

    def _read_all(
        self, eyes: Sequence[Eye], items: Sequence[list[Any]], until: float | None
    ) -> list[list[list[Finding]]]:
        """For each item, given as its readings, and each eye: a Finding for each category, the strictest of the readings."""
        flat = [reading for readings_of in items for reading in readings_of]
        seen = [eye(flat, until) for eye in eyes]
        out, start = [], 0
        for readings_of in items:
            rows = range(start, start + len(readings_of))
            out.append([[strictest(column) for column in zip(*(s[r] for r in rows), strict=True)] for s in seen])
            start += len(readings_of)
        return out

    def _combined(self, stage: Stage, held: Any, by_eye: Sequence[Sequence[Finding]]) -> Decision:
        groups = []
        for c in self.policy.categories:
            own = tuple(f for findings in by_eye for f in findings if f.category == c)
            need = {"any": 1, "all": len(own), "at_least": held.at_least}[held.combine]
            if own:
                groups.append(Group(own, need, held.by_category.get(c, held.on_hit)))
        return conclude(stage, groups, held.on_undecided, held.on_failure, self.policy.what)

    def _early(self, stage: Stage, whole: str, parts: Sequence[str], most: int, until: float | None) -> Decision | None:
        """Refusals that need no detector: what no policy allows, in any reading; before it only what is too long to be read, and
        what there is no time left for."""
        if len(whole) > most:
            return Decision(
                "limits", "refuse", "hit", too_long(most), reason=f"{len(whole):,} characters, at most {most:,}"
            )
        for part in dict.fromkeys(reading for text in dict.fromkeys(parts) for reading in readings(text)):
            if until is not None and time.monotonic() > until:
                told = sentence(stage, "refuse", "failure", "")
                return Decision(stage, "refuse", "failure", told, reason="the deadline had passed before it was read")
            try:
                bounds.check_text(part, what="the prompt" if stage == "prompt" else "the response")
            except BoundsError as e:
                made_of = sha256_text(repr(bounds.RULES))
                return Decision("bounds", "refuse", "hit", BOUNDS, "bounds", None, None, "bounds", made_of, str(e))
        return None

    def _early_picture(self, picture: np.ndarray | Unreadable) -> Decision | None:
        """Refusals that need no detector: what cannot be read, which nobody can decide about, and what is too large."""
        held, most = self.policy.pictures, self.policy.limits.picture_pixels
        if isinstance(picture, Unreadable):
            action: Action = "review" if held.on_undecided == "review" else "refuse"  # there is nothing to blur
            told = sentence("picture", action, "undecided", "")
            return Decision("picture", action, "undecided", told, reason=picture.reason)
        if why := no_picture(picture, blank=True):
            raise UsageError(f"{why}; give uint8 H W 3, as detectors.image.reading.read makes it")
        if (pixels := picture.shape[0] * picture.shape[1]) <= most:
            return None
        told = f"This picture is too large: this service looks at {most:,} pixels."
        return Decision("limits", "refuse", "hit", told, reason=f"{pixels:,} pixels, at most {most:,}")

    # ------------------------------------------------------------------------------------------------------- the log

    def _logged(self, found: list[Decision], facts: Sequence[dict[str, Any]]) -> list[Decision]:
        if self.log is None:
            return found
        try:
            self.log.append([self.log.row(d, self.identity, **f) for d, f in zip(found, facts, strict=True)])
        except LogError as e:
            return [_not_logged(e) for _ in found]
        return found

    def _logged_outcomes(self, made: list[Outcome], facts: Sequence[dict[str, Any]]) -> list[Outcome]:
        if self.log is None:
            return made
        rows = [
            self.log.row(d, self.identity, outcome=o.action if d is o.decisions[-1] else "", **f)
            for o, f in zip(made, facts, strict=True)
            for d in o.decisions
        ]
        try:
            self.log.append(rows)
        except LogError as e:
            no = _not_logged(e)
            return [Outcome("refused", o.seed, no, (*o.decisions, no)) for o in made]
        return made


def load_guard(policy: Policy, *, log: bool = True) -> Guard:
    """A Guard with the detectors that the policy names and, unless `log` is off, its audit log opened.

    Raises PolicyError for detectors that do not fit the policy, LogError for a log that cannot be opened, else what a detector
    raises that cannot be loaded: a guard that does not have them all does not start.
    """

    def loaded(looks: Sequence[Any], kind: str, where: str) -> tuple[Eye, ...]:
        return tuple(load_eye(look, policy, kind, f"{where}[{i}]") for i, look in enumerate(looks))

    guard = Guard(
        policy,
        loaded(policy.prompts.rules, "text", "prompts.rules"),
        loaded(policy.pictures.detectors, "image", "pictures.detectors"),
        loaded(policy.dialogue.detectors, "text", "dialogue.detectors"),
    )
    if not log or policy.log is None:
        return guard
    return dataclasses.replace(guard, log=open_log(policy.log, guard.identity, os.environ))


def each(request: Request, items: Sequence[Any]) -> Sequence[str]:
    return [request] * len(items) if isinstance(request, str) else request


def _exchanges(exchange: Exchange) -> list[Exchange]:
    """An exchange with each reading of its response."""
    response = exchange.response
    return [Exchange(dataclasses.replace(response, text=t), exchange.context) for t in readings(response.text)]


def _not_logged(error: LogError) -> Decision:
    return Decision("log", "refuse", "failure", NOT_LOGGED, reason=str(error))
