"""--policy of an audit: the last model behind the policy, as one more target, and the policy's detectors as mitigations.

The policy decides about the last model as scotoma serve would, which has to be one that it lets be served. Its detectors look beside
those of --detector, which measure; where none is given they measure themselves, and then say less than another detector would.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from scotoma.cli import source

if TYPE_CHECKING:
    from scotoma.auditing.mitigations import Mitigation
    from scotoma.auditing.targets import Drawn, Target
    from scotoma.detectors.contract import Detector
    from scotoma.guard.decide import Guard
    from scotoma.records import Prompt


class Behind(NamedTuple):
    """What comes to the targets, detectors and mitigations of an audit."""

    targets: tuple[Target, ...] = ()
    detectors: tuple[Detector, ...] = ()
    mitigations: tuple[Mitigation, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--policy",
        metavar="FILE",
        help="a policy, or one that ships by its name: audit the last model behind it as well, and compare its layers",
    )


def behind(args: argparse.Namespace, names: Sequence[str], measuring: Sequence[str]) -> Behind:
    """`names` are those of the targets so far, `measuring` those of the detectors that were given."""
    if args.policy is None:
        return Behind()
    import dataclasses

    from scotoma.auditing.mitigations import Mitigation
    from scotoma.auditing.targets import of_model, split_name
    from scotoma.errors import UsageError
    from scotoma.guard.decide import load_guard
    from scotoma.guard.elsewhere import screening
    from scotoma.guard.policy import load_policy
    from scotoma.guard.verify import admit

    spec = split_name(args.what[-1])[1]
    if spec.startswith(("pictures:", "http://", "https://")):
        raise UsageError(f"--policy puts the last model behind it, and {spec} is none; name a model last")
    base, paths, strengths = source.parts(spec)
    if strengths:
        raise UsageError("the policy says how the model behind it is steered; leave +sld out of the last one")
    guard = load_guard(load_policy(args.policy), log=False)
    model, edits = source.edited(base, paths, args)
    held = admit(guard.policy, model, edits)
    name = f"{names[-1]}-guarded"
    bare = of_model(name, held.model, guidance=args.guidance, steps=args.steps, batch_size=args.batch_size)
    target = guarded(bare, guard)
    found = [
        dataclasses.replace(d, card=dataclasses.replace(d.card, name=f"policy {d.card.name}"))
        for d in screening(guard).detectors
    ]
    kinds = {"text": "prompt rule", "image": "output filter"}
    first = measuring[0] if measuring else next((d.card.name for d in found if d.card.kind == "image"), "")
    layers = [Mitigation(d.card.name, kinds[d.card.kind], d.card.name) for d in found if d.card.name != first]  # type: ignore[arg-type]
    return Behind((target,), tuple(found), (*layers, Mitigation("the whole policy", "model", name)))


def guarded(bare: Target, guard: Guard) -> Target:
    """A target whose pictures are those that the guard lets pass; what it refuses was filtered."""
    import dataclasses

    from scotoma.auditing.targets import Noted, Nothing
    from scotoma.guard.policy import identity

    def draw(prompts: Sequence[Prompt], seeds: Sequence[int]) -> Sequence[Drawn]:
        def drawn(texts: Sequence[str], own: Sequence[int]) -> Sequence[object]:
            asked = [dataclasses.replace(prompts[0], text=t) for t in texts]
            return [d.picture if isinstance(d, Noted) else d for d in bare.draw(asked, own)]

        outcomes = guard.guarded(drawn, [p.text for p in prompts], seeds)  # type: ignore[arg-type]
        out: list[Drawn] = []
        for o in outcomes:
            d = o.decision
            if o.picture is not None:
                out.append(o.picture)
            else:
                why = f"{d.stage}: {d.category or d.reason or d.state}"
                out.append(Nothing("failed" if d.stage == "model" else "filtered", why))
        return out

    made_of = f"{bare.identity} {guard.identity}"
    facts = {**bare.facts, "policy": guard.policy.name, "policy identity": identity(guard.policy)}
    return dataclasses.replace(bare, identity=hashlib.sha256(made_of.encode()).hexdigest(), draw=draw, facts=facts)
