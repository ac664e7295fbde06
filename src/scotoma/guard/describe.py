"""What a policy does, in plain lines, and what in it lets through what others would hold back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scotoma.guard.policy import identity

if TYPE_CHECKING:
    from scotoma.guard.decide import Guard
    from scotoma.guard.schema import Look, Policy

_DONE = {
    "refuse": "refused",
    "review": "let through, and marked for review in the log",
    "rewrite": "rewritten to the alternative",
    "blur": "shown blurred",
}


def describe(policy: Policy) -> list[str]:
    """One sentence a line, in the order in which a request meets them."""
    out = [f"policy {policy.name}, {identity(policy)[:12]}"]
    out += [f"category {c}: {policy.what(c)}" for c in policy.categories]
    out += _of_model(policy)
    limits = policy.limits
    out.append(
        f"limits: {limits.prompt_characters:,} characters of a prompt, {limits.pictures} pictures of a request, "
        f"{limits.picture_pixels:,} pixels, {limits.deadline_seconds:g} seconds, "
        f"{limits.detector_seconds:g} for one look of a detector"
    )
    out.append("bounds: what scotoma.bounds refuses is refused first, in any policy")
    for rule in policy.prompts.rules:
        own = f", {_DONE[rule.on_hit]}" if rule.on_hit else ""
        swapped = "".join(f"; {c} becomes {text!r}" for c, text in rule.instead.items())
        out.append(f"prompts: {_told(rule)} looks at every prompt and at what it decodes to{own}{swapped}")
    out += _actions("prompts", policy.prompts, bool(policy.prompts.rules))
    for name, stage in (("pictures", policy.pictures), ("dialogue", policy.dialogue)):
        out += [f"{name}: {_told(look)}" for look in stage.detectors]
        if len(stage.detectors) > 1:
            many = {"any": "one detector", "all": "every detector that looks for it"}
            who = many.get(stage.combine, f"{stage.at_least} detectors")
            out.append(
                f"{name}: a category is found where {who} finds it" + ("" if stage.combine in many else " together")
            )
        out += _actions(name, stage, bool(stage.detectors))
    log = policy.log
    if log is None:
        out.append("log: none")
    else:
        how = {"hmac": f"as HMAC-SHA256 under {log.key}", "plain": "as they are", "none": "left out"}[log.prompts]
        out.append(f"log: {log.kind} at {log.path}, prompts {how}; where it cannot be written, everything is refused")
    return out


def warnings(policy: Policy) -> list[str]:
    """What a reader should know before it is served: nothing here is an error."""
    out = []
    for name, stage, looks in (
        ("prompts", policy.prompts, policy.prompts.rules),
        ("pictures", policy.pictures, policy.pictures.detectors),
    ):
        if not looks:
            out.append(f"nothing looks at {name}")
        out += [
            f"{name}: {what} is let through ({field}: review)"
            for field, what in (
                ("on_undecided", "what no detector can decide"),
                ("on_failure", "what a detector fails on"),
            )
            if looks and getattr(stage, field) == "review"
        ]
    if policy.dialogue.detectors and "review" in (policy.dialogue.on_undecided, policy.dialogue.on_failure):
        out.append("dialogue: what cannot be decided, or a detector fails on, is let through")
    if not policy.model.edits:
        out.append("any model may be served: no Edit is asked for")
    if any(one.concept for one in policy.model.edits):
        out.append("an Edit named by its concept is any Edit that says so; name it by id or file")
    if policy.log is None:
        out.append("nothing is written down: there is no log")
    elif policy.log.prompts == "plain":
        out.append("the log has prompts as they are")
    if any(look.detector == "constant" for look in _looks(policy)):
        out.append("constant looks at nothing; it is for tests")
    return out


def described(guard: Guard) -> list[str]:
    """The detectors that were loaded, with what is looked for and from which score on."""
    out = []
    for where, eyes in (
        ("prompts", guard.prompt_eyes),
        ("pictures", guard.picture_eyes),
        ("dialogue", guard.dialogue_eyes),
    ):
        for eye in eyes:
            card = eye.detector.card
            read = ", ".join(f"{c} from {eye.thresholds[own]:.4g}" for own, c in eye.reads.items())
            out.append(f"{where}: {card.name} {card.identity[:12]} finds {read}")
    for where, eyes in (("prompts", guard.prompt_eyes), ("pictures", guard.picture_eyes)):
        if eyes and (lost := [c for c in guard.policy.categories if all(c not in e.categories for e in eyes)]):
            out.append(f"{where}: nobody looks for {', '.join(lost)} here")
    return out


def _of_model(policy: Policy) -> list[str]:
    held, out = policy.model, []
    for one in held.edits:
        name = f"an Edit that erases {one.concept!r}" if one.concept else f"the Edit {one.file or str(one.id)[:12]}"
        out.append(f"model: must carry {name}, or it is not served")
    if held.base:
        out.append(f"model: is made again from {held.base} and its Edits, and compared")
    if held.sld:
        out.append(f"model: steered away from {', '.join(held.sld.concepts)} ({held.sld.strength})")
    return out


def _actions(name: str, stage: Any, used: bool) -> list[str]:
    if not used:
        return []
    one = f"{name}: what is found is {_DONE[stage.on_hit]}"
    return [
        one + "".join(f"; {c}: {_DONE[a]}" for c, a in stage.by_category.items()),
        f"{name}: what cannot be decided is {_DONE[stage.on_undecided]}, what a detector fails on {_DONE[stage.on_failure]}",
    ]


def _told(look: Look) -> str:
    spoken = look.words or look.descriptions
    parts = [f"{k}={v}" for k, v in look.options.items()]
    parts += [f"{sum(map(len, spoken.values()))} entries for {', '.join(spoken)}"] if spoken else []
    return f"{look.detector}" + (f" ({'; '.join(parts)})" if parts else "")


def _looks(policy: Policy) -> list[Look]:
    return [*policy.prompts.rules, *policy.pictures.detectors, *policy.dialogue.detectors]
