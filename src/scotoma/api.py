"""Composes the rooms: load -> erase -> screening -> self-check, and evaluate.

`load`, `erase` and `evaluate` are the public functions. `carry_out` and `examine` are what they are made of; they also
return the pictures, which the command line puts into a report.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import scotoma
from scotoma.auditing.hardening import Finding, find
from scotoma.auditing.probes.contract import Budget
from scotoma.auditing.sought import Case, zoo_case
from scotoma.bounds import check_concepts, check_text
from scotoma.detectors.image import zoo_names
from scotoma.erasure import METHODS, Method, safegen
from scotoma.erasure import method as find_method
from scotoma.erasure.chain import read_chain
from scotoma.erasure.edit import Edit
from scotoma.erasure.stacking import stack, state_of
from scotoma.erasure.text_conditions import read_products
from scotoma.errors import UndecidedError, UsageError, unknown_name
from scotoma.evaluation import zoo_task
from scotoma.evaluation.along import at_guidances, in_many_steps, observer
from scotoma.evaluation.compare import Comparison, Judge, compare
from scotoma.evaluation.figures import rate
from scotoma.evaluation.look import Concepts, Look, forbidden_concepts, judged, listed, named
from scotoma.evaluation.phrasings import phrasings, shown_by
from scotoma.evaluation.self_check import NOBODY, Check, Limits, SelfCheck, self_check
from scotoma.evaluation.structure import looks_mosaicked
from scotoma.evaluation.task import Size, Task
from scotoma.models import load as models_load
from scotoma.models.model import Model
from scotoma.models.sample import STEPS
from scotoma.models.sld import SLD
from scotoma.models.student import as_multistep
from scotoma.records import Concept, Evidence, RunHeader, git_state

# First seeds, so far apart that the self-check and a report share no picture.
SELF_CHECK_SEED, EVALUATE_SEED, CURVE_SEED = 0, 1_000_000, 500_000
PHRASINGS_SEED = 100_000  # after the first seed of an evaluation, which draws fewer pictures than that
CURVE_SIZE = Size(50, 60, 140)
# Kept prompts of a method that distils a model of the zoo, and those that a style is taken from.
CAPTIONS, PLAIN = 4000, 500
GUIDANCES = (1.0, 3.0, 5.0, 7.5)  # at which an edit is seen that was trained without guidance
LOOK, LIMITS = Look(), Limits()
# Of the probes between two rounds: the clock does not say what they find. Their pictures and attempts are of seeds that no
# other probe is given.
HARDEN = Budget(queries=16, seconds=3600.0, sampling=10)
HARDEN_SEED, HARDEN_RUN = 440_000_000, 50


@dataclass(frozen=True)
class Examination:
    """One comparison of an unedited and an edited model, as pictures and as Evidence."""

    comparison: Comparison
    evidence: Evidence


@dataclass(frozen=True)
class Erasure:
    """What `carry_out` did: the Edit, the edited model, what the self-check saw, and what it says of it."""

    edit: Edit
    edited: Model
    seen: Examination
    check: SelfCheck


# --------------------------------------------------------------------------------------------------- the public functions


def load(
    source: str | Path,
    *,
    edits: Sequence[str | Path | Edit] = (),
    sld: str | SLD | None = None,
    sld_concepts: Sequence[str] = (),
    **options: Any,
) -> Model:
    """A generator from a local diffusers folder, a hub id, or zoo:NAME, with `edits` (files or Edits) applied.

    `sld` steers its sampling away from `sld_concepts` by Safe Latent Diffusion: "weak", "medium", "strong", "max", or an
    SLD with settings of its own. It is no part of the weights: a folder that the model is saved to does not have it.
    Other options are those of `scotoma.models.load.load`: device, dtype, lora, variant, local_files_only. Raises
    ModelError for a model that cannot be read, EditError for an Edit that does not fit, UsageError for a strength that is
    none.
    """
    if bool(sld_concepts) != isinstance(sld, str):
        raise UsageError(
            'sld_concepts go with a strength, and a strength with them: sld="max", sld_concepts=[...]; an SLD has its own'
        )
    read = [edit if isinstance(edit, Edit) else Edit.load(edit) for edit in edits]
    steering = SLD.of(sld, sld_concepts) if isinstance(sld, str) else sld
    model = models_load.load(source, **options)
    return (stack(model, read, inplace=True).model if read else model).steered(steering)


def erase(
    model: Model | str | Path,
    *,
    concept: Concepts,
    instead: str | Sequence[str] = "",
    method: str = "uce",
    settings: Any = None,
    seed: int = 0,
    on: Sequence[Edit] = (),
    forbid: Sequence[str] = (),
    limits: Limits = LIMITS,
    accept_undecided: bool = False,
    look: Look = LOOK,
) -> Edit:
    """Erase concepts and check what came of it. `model` is not changed; the Edit carries the self-check's figures.

    Args:
        concept: a name, a Concept, or several. For the zoo also a style or a stand-in category.
        instead: the alternative of all, or one for each; "" for nothing in particular.
        method: a name in scotoma.erasure.METHODS.
        settings: the method's config dataclass, a mapping of its fields, or None for the defaults.
        on: Edits of `model` on top of which it is made; what all of them do together is checked.
        forbid: what no alternative may be and no picture may become, beside what is forbidden anyway (FORBIDDEN; for
            the zoo every stand-in that is not being erased).
        limits: what the self-check lets pass.
        accept_undecided: return the Edit although nobody could judge the concept.
        look: how pictures are drawn and who judges them (judge A).

    Raises BoundsError for what bounds.py refuses, UsageError for names and settings that do not fit, SelfCheckError
    where the edit changed nothing, broke the model or leads where it must not, UndecidedError where nobody can tell.
    """
    done = carry_out(
        load(model) if not isinstance(model, Model) else model,
        concept,
        instead,
        method=method,
        settings=settings,
        seed=seed,
        on=on,
        forbid=forbid,
        limits=limits,
        accept_undecided=accept_undecided,
        look=look,
    )
    done.check.require(accept_undecided)
    return done.edit


def evaluate(
    model: Model | str | Path,
    edited: Model | Edit | str | Path | Sequence[Edit | str | Path] | None = None,
    *,
    concept: Concepts = (),
    instead: str | Sequence[str] = (),
    sld: str | SLD | None = None,
    look: Look = LOOK,
) -> Evidence:
    """Draw the same prompts and seeds with the unedited and the edited model, and sum up what a judge sees.

    `edited` is a model, a folder, or one or several Edits or Edit files. `concept` and `instead` default to what the
    Edits, or the folder's scotoma.json, say. `sld`, as in `load`, steers the edited model, or without `edited` the model
    itself, away from the concepts; the unedited model is drawn without it. Judge B, and seeds that the self-check does not
    use. Raises UsageError
    where nobody says what the concept is.
    """
    loaded = load(model) if not isinstance(model, Model) else model
    return examine(loaded, edited, concept, instead, sld=sld, look=look).evidence


# ------------------------------------------------------------------------------------------------ what they are made of


def carry_out(
    model: Model,
    concept: Concepts,
    instead: str | Sequence[str] = "",
    *,
    method: str = "uce",
    settings: Any = None,
    seed: int = 0,
    on: Sequence[Edit] = (),
    forbid: Sequence[str] = (),
    limits: Limits = LIMITS,
    accept_undecided: bool = True,
    look: Look = LOOK,
    harden: int = 0,
    folder: Path | None = None,
    trained: Callable[[], None] | None = None,
    command: str = "scotoma.erase",
    given: Mapping[str, Any] | None = None,
) -> Erasure:
    """`erase` without its last step: whether the self-check passed is for the caller to ask (`check.require`).

    `harden` rounds follow in which what the probe that it fails most found is erased too (auditing/hardening.py); a training
    of its own each, from the start, and none any more once nothing brings the concept back. `folder` is where methods that
    train keep their checkpoints; `trained` is called when there is an Edit, before anything is drawn with it; `command` and
    `given` go into the Evidence. Where nobody can judge and that is not accepted, it stops before any work.
    """
    look = look.filled("a", Size(), SELF_CHECK_SEED)
    concepts, alternatives = named(model, concept, instead)
    forbidden = forbidden_concepts(model, concepts, forbid)
    check_concepts(concepts, alternatives, forbidden=forbidden)
    chosen = _method(method, model)
    config = configured(chosen.config, settings)
    mixed = getattr(config, "debias", ())
    subjects = read_products(config.products)[0] if getattr(config, "products", "") else []
    for phrase in (*mixed, *subjects):  # what a prompt may become, beside the alternatives
        check_concepts("", phrase, forbidden=forbidden)
    for c in concepts:
        check_text(" ".join((c.name, *mixed)), what=f"the concept {c.name!r} with what is mixed into it")
    task, judge, unseen = judged(model, concepts, alternatives, look, [c.name for c in forbidden])
    if judge is None and not accept_undecided:
        raise UndecidedError(f"{NOBODY}, or accept an Edit that nobody judged with --accept-undecided")
    start = stack(model, on).model if on else model
    handed = _handed(chosen, model, concepts, alternatives, look, judge)
    case = _sought(chosen, model, concepts, judge) if harden else None

    def train(place: Path | None) -> Edit:
        return chosen.run(start, concepts, alternatives, config, seed=seed, folder=place, **handed)

    edit = train(folder)
    found: list[Finding] = []
    for number in range(1, harden + 1):
        assert case is not None
        place = None if folder is None else folder / f"harden-{number}"
        search = None if place is None else place / "search"
        found.append(find(edit.apply(start), case.sought, case.eyes, HARDEN, seed=HARDEN_RUN + number, folder=search))
        if search is not None:
            shutil.rmtree(search, ignore_errors=True)
        if found[-1].nothing:
            break
        handed["also"] = [f.told for f in found]
        edit = train(place)
    if found:
        rounds = [{"probe": f.probe, "shares": f.shares} for f in found]
        edit = edit.with_figures({**edit.header["figures"], "hardened": rounds})
    if trained is not None:
        trained()
    edited = edit.apply(start)
    how = {"method": method, "seed": seed, "settings": edit.header["config"], "forbidden": [c.name for c in forbidden]}
    seen = _examine(model, edited, [*on, edit], task, judge, unseen, look, command, given, how)
    pictures = seen.comparison
    check = self_check(
        weight_change(start, edited, edit.header["touched"]),
        pictures.before,
        pictures.after,
        pictures.roles,
        pictures.pairs,
        concepts=task.concepts,
        alternatives=[a for a in task.alternatives if a not in unseen],
        forbidden=[c.name for c in forbidden if judge is None or judge.knows(c.name, task.asks[0].head)],
        reference=None if chosen.leaves == "mosaic" else pictures.reference,  # a mosaic is like nothing real
        unlike=pictures.reference if chosen.leaves == "mosaic" else None,
        limits=limits,
    )
    if unseen and judge is not None:
        what = f"the judge does not know {', '.join(unseen)}, so nobody can tell where the concept leads"
        check = SelfCheck((*check.checks, Check("alternative", None, f"{what}; choose one that it knows")))
    figures = {
        "judge": judge.name if judge else None,
        "self_check": check.as_dict(),
        **{name: dataclasses.asdict(f) for name, f in pictures.figures.items()},
    }
    if edit.header["student"] and judge is not None:
        figures["forgotten_in_many_steps"] = _in_many_steps(model, edited, edit, task, judge)
    if chosen.leaves == "mosaic":
        pitch = edit.header["figures"]["mosaic_area"]["pitch"]
        figures |= _mosaicked(model, edited, pictures, pitch, task, judge, look)
    final = edit.with_figures({**edit.header["figures"], **figures})
    header = seen.evidence.header
    header = dataclasses.replace(header, hashes={**header.hashes, f"edit {len(on) + 1}": final.id})
    evidence = dataclasses.replace(seen.evidence, header=header)
    return Erasure(final, final.apply(start), Examination(pictures, evidence), check)


def examine(
    model: Model,
    edited: Model | Edit | str | Path | Sequence[Edit | str | Path] | None,
    concept: Concepts = (),
    instead: str | Sequence[str] = (),
    *,
    look: Look,
    sld: str | SLD | None = None,
    command: str = "scotoma.evaluate",
    given: Mapping[str, Any] | None = None,
) -> Examination:
    """`evaluate`, with the pictures. `command` and `given` go into the header of the Evidence."""
    if edited is None and sld is None:
        raise UsageError("there is nothing to compare the model with; give an edited model, Edits, or sld")
    look = look.filled("b", Size(200, 200, 400), EVALUATE_SEED)
    edits, folder = _edits(model if edited is None else edited)
    headers = [e.header for e in edits] if edits else read_chain(folder) if folder is not None else []
    concept, instead = _as_recorded(headers, concept, instead)
    concepts, alternatives = named(model, concept, instead)
    task, judge, unseen = judged(model, concepts, alternatives, look)
    after = (
        stack(model, edits).model
        if edits
        else load(folder, device=model.device, dtype=model.dtype)
        if folder is not None
        else model
        if edited is None
        else edited
    )
    assert isinstance(after, Model)
    if sld is not None:
        after = after.steered(SLD.of(sld, [c.name for c in concepts]) if isinstance(sld, str) else sld)
    how = {"method": [h["method"] for h in headers], "settings": [h["config"] for h in headers]} if headers else {}
    seen = _examine(model, after, edits, task, judge, unseen, look, command, given, how)
    said = phrasings(model, concepts)
    if not look.phrasings or judge is None or not said:
        return seen
    more = shown_by(
        model,
        after,
        judge,
        task.concepts,
        said,
        pictures=look.phrasings,
        first_seed=(look.first_seed or 0) + PHRASINGS_SEED,
        guidance=look.guidance,
        steps=look.steps,
    )
    evidence = dataclasses.replace(seen.evidence, figures={**seen.evidence.figures, **more})
    return Examination(seen.comparison, evidence)


def configured(config: type, settings: Any) -> Any:
    """A method's config from a mapping of its fields. Raises UsageError for a field it does not have."""
    if isinstance(settings, config):
        return settings
    known = {f.name for f in dataclasses.fields(config)}
    for name in settings or {}:
        if name not in known:
            raise unknown_name(f"setting of {config.__name__}", name, known)
    return config(**(settings or {}))


def weight_change(before: Model, after: Model, touched: Mapping[str, Any]) -> float:
    """Frobenius norm of the change over that of the weights before, over the touched parameters that both have.

    Infinite where a parameter was added that is not 0, which no norm of the others can show.
    """
    old, new = state_of(before), state_of(after)
    if any(name not in old and (name not in new or bool(new[name].any())) for name in touched):
        return float("inf")
    both = [name for name in touched if name in old]
    change = sum(float((new[name].double() - old[name].double()).square().sum()) for name in both)
    size = sum(float(old[name].double().square().sum()) for name in both)
    return (change / size) ** 0.5 if size else float("inf") if change else 0.0


def _examine(
    before: Model,
    after: Model,
    edits: Sequence[Edit],
    task: Task,
    judge: Judge | None,
    unseen: tuple[str, ...],
    look: Look,
    command: str,
    given: Mapping[str, Any] | None,
    how: Mapping[str, Any],
) -> Examination:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    commit, dirty = git_state(Path(scotoma.__file__).parent)
    options = {k: getattr(look, k) for k in ("guidance", "steps", "batch_size", "folder", "progress")}
    seen = compare(before, after, task, judge, unseen=unseen, **options)
    resolved = {
        "model": before.source,
        "device": str(before.device),
        "dtype": str(before.dtype).removeprefix("torch."),
        "concepts": list(task.concepts),
        "instead": list(task.becomes.values()),
        **how,
        "guidance": before.guidance if look.guidance is None else look.guidance,
        "steps": STEPS if look.steps is None else look.steps,
        "first_seed": look.first_seed,
        "pictures": {role: seen.roles.count(role) for role in dict.fromkeys(seen.roles)},
        "judge": judge.name if judge else "none",
        **({"sld": after.sld.as_dict()} if after.sld else {}),
        **({"clip": look.clip, "labels": list(task.labels), "prompts": list(look.prompts)} if look.clip else {}),
    }
    asked = json.dumps([dataclasses.astuple(a) for a in task.asks])
    hashes = {
        "model": before.hash(),
        "edited": after.hash(),
        "prompts": hashlib.sha256(asked.encode()).hexdigest(),
        **({"judge": judge.sha256} if judge else {}),
        **({"real pictures": seen.reference.sha256} if seen.reference else {}),
        **{f"edit {i + 1}": edit.id for i, edit in enumerate(edits)},
    }
    header = RunHeader(command, given or resolved, resolved, hashes, scotoma.__version__, commit, dirty, started)
    return Examination(seen, Evidence(header, seen.figures, seen.concepts, seen.records()))


def _in_many_steps(model: Model, edited: Model, edit: Edit, task: Task, judge: Judge) -> dict[str, Any]:
    """What a student forgets that somebody samples in many steps after all, and where its own time is given back to it."""
    many = dict(
        in_many_steps(as_multistep(edited, model), task, judge, (1.0, model.guidance if model.guidance > 1 else 2.0))
    )
    if edit.header["config"]["hold_time"]:
        given_back = in_many_steps(as_multistep(edited, model, give_time_back=True), task, judge)
        many |= {f"{name}, the time given back": f for name, f in given_back.items()}
    return {name: dataclasses.asdict(f) for name, f in many.items()}


def _mosaicked(
    model: Model, edited: Model, pictures: Comparison, pitch: int, task: Task, judge: Judge | None, look: Look
) -> dict[str, Any]:
    """How many pictures look mosaicked, and what is forgotten at several guidances beside what the unedited model misses."""
    forget = np.array([role == "forget" for role in pictures.roles])
    blocks = looks_mosaicked(pictures.after[forget], pictures.before, pitch)
    out: dict[str, Any] = {
        "looks_mosaicked": dataclasses.asdict(rate(blocks.tolist(), "no prompt asked for the concept"))
    }
    if judge is not None:
        at = sorted({*GUIDANCES, model.guidance})
        how = {"steps": look.steps, "batch_size": look.batch_size}
        guided = at_guidances(edited, task, judge, at, **how)
        missed = at_guidances(model, task, judge, at, **how)
        guided |= {f"{name}, unedited model": f for name, f in missed.items()}
        out["forgotten_at_guidance"] = {name: dataclasses.asdict(f) for name, f in guided.items()}
    return out


def _sought(method: Method, model: Model, concepts: Sequence[Concept], judge: Judge | None) -> Case:
    """What hardening looks for, by judge A alone. Raises UsageError where it cannot."""
    if "also" not in method.handed:
        able = [n for n, m in METHODS.items() if "also" in m.handed]
        raise UsageError(f"only methods that match predictions can be hardened; choose --method {' or '.join(able)}")
    if len(concepts) != 1 or judge is None or not model.defaults.get("data"):
        raise UsageError("hardening needs one concept, of a model of the zoo, that a judge knows; leave --harden out")
    name, steps = concepts[0].name, HARDEN.sampling
    return zoo_case(model, name, which="a", counting="a", steps=steps, first_seed=HARDEN_SEED)


def _handed(
    method: Method,
    model: Model,
    concepts: Sequence[Concept],
    alternatives: Sequence[str],
    look: Look,
    judge: Judge | None,
) -> dict[str, Any]:
    """What a method asks to be handed, where there is such a thing: judge A's view of a small fixed sample for its curve;
    the zoo's classifier of names; where a name is in a picture; the unedited model; names, and captions of all kinds, that a
    model of the zoo draws and is to keep."""
    data = model.defaults.get("data")
    out: dict[str, Any] = {}
    if "observe" in method.handed and judge is not None:
        small = dataclasses.replace(look, size=CURVE_SIZE, first_seed=CURVE_SEED)
        task, *_ = judged(model, concepts, alternatives, small)
        out["observe"] = observer(task, judge)
    if "classify" in method.handed and data and model.labels:
        out["classify"] = name_classifier(model, zoo_names.load(data))
    if "heat" in method.handed and (heat := _heat(model, [c.name for c in concepts])):
        out["heat"] = heat
    if "unedited" in method.handed:
        out["unedited"] = model
    if "retain" in method.handed and data:
        out["retain"] = zoo_task.some_kept(data, [c.name for c in concepts])
    if "captions" in method.handed and data and not model.labels:
        gone = [c.name for c in concepts]
        out["captions"] = zoo_task.captions(data, gone, CAPTIONS)
        out["plain"] = zoo_task.captions(data, gone, PLAIN, seed=1, styled=False)
    return out


def _heat(model: Model, concepts: Sequence[str]) -> Callable[[torch.Tensor, str], torch.Tensor] | None:
    """`heat_maps` of the zoo's classifier of names, where it knows all of these."""
    data = model.defaults.get("data")
    names = zoo_names.load(data) if data else None
    return heat_maps(names, model) if names and all(c in names.labels for c in concepts) else None


def mosaics(model: Model, edit: Edit) -> list[safegen.Example]:
    """Some of the pictures that a SafeGen Edit learnt from, beside their mosaics; none for an Edit of another method."""
    if edit.header["method"] != "safegen":
        return []
    return safegen.examples(model, edit, _heat(model, [c["name"] for c in edit.header["concepts"]]))


def heat_maps(names: zoo_names.NameClassifier, model: Model) -> Callable[[torch.Tensor, str], torch.Tensor]:
    """Where a name is: its class activation map, 0 everywhere in pictures that are not more likely it than not."""
    names.network.to(model.device)

    def heat(pictures: torch.Tensor, label: str) -> torch.Tensor:
        likely = names.logits(pictures).softmax(1)[:, names.labels.index(label)] >= 0.5
        return names.heat_map(pictures, label) * likely.view(-1, 1, 1)

    return heat


def name_classifier(model: Model, names: zoo_names.NameClassifier) -> Callable[[torch.Tensor], torch.Tensor]:
    """Pictures N C H W in [-1, 1] to logits (N, classes) in the order of the model's labels."""
    order = torch.tensor([names.labels.index(label) for label in model.labels])
    names.network.to(model.device)
    return lambda pictures: names.logits(pictures.expand(-1, 3, -1, -1))[:, order]


def _method(name: str, model: Model) -> Method:
    """Raises UsageError for a method that is not known, or does not edit the model's family."""
    found = find_method(name)
    if model.family.name not in found.families:
        fit = sorted(n for n, m in METHODS.items() if model.family.name in m.families)
        raise UsageError(
            f"{name} edits {', '.join(found.families)}, and {model.name} is {model.family.name}; "
            + (f"choose --method {' or '.join(fit)}" if fit else "no method here edits that family yet")
        )
    return found


def _edits(edited: Any) -> tuple[list[Edit], Path | None]:
    """The Edits that `edited` stands for, or the folder of an edited model; neither for a model in memory."""
    if isinstance(edited, Model):
        return [], None
    if isinstance(edited, str | Path) and Path(edited).suffix != ".safetensors":
        return [], Path(edited)
    listed = [edited] if isinstance(edited, Edit | str | Path) else list(edited)
    if not listed:
        raise UsageError("no Edit and no edited model is given; give one with --edit or --edited")
    return [e if isinstance(e, Edit) else Edit.load(e) for e in listed], None


def _as_recorded(
    headers: Sequence[Mapping[str, Any]], concept: Concepts, instead: str | Sequence[str]
) -> tuple[list[str | Concept], list[str]]:
    """Concepts and alternatives, each as given, or else as the headers of the Edits have them."""
    recorded: dict[str, tuple[Concept, str]] = {}
    for header in headers:
        for c, becomes in zip(header["concepts"], header["instead"], strict=True):
            earlier = recorded.get(c["name"], (None, ""))[1]  # a method that takes no alternative leaves an earlier one
            recorded[c["name"]] = Concept.of(c), becomes or earlier
    given = listed(concept)
    if not given and not recorded:
        raise UsageError("what was erased is not known without an Edit; name it with --concept")
    concepts = given or [c for c, _ in recorded.values()]
    alternatives = [instead] if isinstance(instead, str) else list(instead)
    if not alternatives:
        names = [c if isinstance(c, str) else c.name for c in concepts]
        alternatives = [recorded[n][1] if n in recorded else "" for n in names]
    return concepts, alternatives
