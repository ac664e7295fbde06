"""Techniques that try to bring a concept back, run by a model's owner on the owner's own weights.

A probe is named for how it tries and knows no harmful target: concept and word list are the caller's. What it finds stays
in memory; whoever writes it down says why (design section 5). PROBES is the list that the contract tests, the audit and the
benchmark read; one file each, and what they share is in contract.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from scotoma.errors import unknown_name

Given = Literal["nothing", "pictures", "detector"]


@dataclass(frozen=True)
class Probe:
    """A probe by the place of its code, which is imported when it is first used.

    `run(model, sought, config, budget, records, *, seed, folder)` is what every probe offers (contract.py). `given`: what of
    the concept it needs beside its name. What is given pictures gets them back from any model to a degree, so its figure is the
    excess over a control. `variant`: the one of its variants that is its figure, on every model; the others of what it sweeps
    are shown beside. Nobody picks the best of several, which a control would reach as well. `trains`: it learns something.
    "text-free" is what this variant does without a word for the concept; "sampling" is told its name and drawn in another way.
    """

    summary: str  # one sentence: how it tries
    source: str  # the paper that names the family
    module: str  # inside scotoma.auditing.probes, never taken from a user
    config_name: str
    kind: Literal["prompts", "embeddings", "text-free", "sampling", "pictures", "fine-tuning", "steps"]
    variant: str = ""
    given: Given = "nothing"
    tells: Literal["texts", "labels", "both"] = "texts"  # models that it works on, by what they are told
    trains: bool = False
    many_steps: bool = False  # of a one-call student, it probes the weights under a scheduler of many steps
    settings: Mapping[str, Any] = field(default_factory=dict)  # of its config, in place of the defaults

    @property
    def run(self) -> Callable[..., None]:
        run: Callable[..., None] = self._code().probe
        return run

    def config(self, **changes: Any) -> Any:
        """Its settings, a dataclass with help texts in the metadata of the fields."""
        return getattr(self._code(), self.config_name)(**{**self.settings, **changes})

    def fits(self, labels: bool) -> bool:
        return self.tells in ("both", "labels" if labels else "texts")

    def _code(self) -> Any:
        return importlib.import_module(f"scotoma.auditing.probes.{self.module}")


def _prompts(kind: str, summary: str) -> Probe:
    return Probe(summary, "HUB, ICCV 2025", "prompts", "PromptsConfig", "prompts", settings={"kind": kind})


PROBES: dict[str, Probe] = {
    "synonyms": _prompts("synonyms", "Asks by other names of the concept."),
    "hypernyms": _prompts("hypernyms", "Asks by words for its kind and use."),
    "misspellings": _prompts("misspellings", "Asks by its name with a letter left out, doubled or swapped."),
    "look_alikes": _prompts("look_alikes", "Asks by its name with spaces, signs or look-alike letters in it."),
    "descriptions": _prompts("descriptions", "Asks by two to four words for it, without its name."),
    "compounds": _prompts("compounds", "Asks by its name among other wishes."),
    "token_search": Probe(
        "Searches the vocabulary for prompts that mean the concept and do not name it.",
        "Ring-A-Bell, ICLR 2024; UnlearnDiffAtk, ECCV 2024",
        "token_search",
        "TokenSearchConfig",
        "prompts",
        "text",
    ),
    "one_vector": Probe(
        "Learns a word of one vector on the given pictures.",
        "CCE, ICLR 2024",
        "textual_inversion",
        "TextualInversionConfig",
        "embeddings",
        given="pictures",
        trains=True,
        many_steps=True,
        settings={"vectors": 1, "steps": 200, "lr": 1e-3},
    ),
    "several_vectors": Probe(
        "Learns a word of four vectors on the given pictures.",
        "CCE, ICLR 2024",
        "textual_inversion",
        "TextualInversionConfig",
        "embeddings",
        given="pictures",
        trains=True,
        many_steps=True,
        settings={"vectors": 4, "lr": 1e-3},
    ),
    "label_vector": Probe(
        "Learns a label's vector on the given pictures.",
        "CCE, ICLR 2024",
        "label_vector",
        "LabelVectorConfig",
        "embeddings",
        given="pictures",
        tells="labels",
        trains=True,
        many_steps=True,
    ),
    "ddim_inversion": Probe(
        "Takes the given pictures to noise and back without a prompt.",
        "TINA, arXiv 2603.17828",
        "ddim_inversion",
        "InversionConfig",
        "text-free",
        "no prompt",
        given="pictures",
        tells="both",
        many_steps=True,
    ),
    "initial_noise": Probe(
        "Optimises the noise that a picture of its name begins with, by a detector's gradient.",
        "DOODL, ICCV 2023",
        "initial_noise",
        "NoiseConfig",
        "sampling",
        "name",
        given="detector",
        tells="both",
        many_steps=True,
    ),
    "trajectory": Probe(
        "Adds noise back at every step of the sampler, under its name.",
        "When Are Concepts Erased, NeurIPS 2025",
        "trajectory",
        "TrajectoryConfig",
        "sampling",
        "eta 1",
        tells="both",
        many_steps=True,
    ),
    "classifier_guidance": Probe(
        "Leads the sampler by a detector's gradient.",
        "When Are Concepts Erased, NeurIPS 2025",
        "classifier_guidance",
        "GuidanceConfig",
        "sampling",
        "name, scale 0.5",
        given="detector",
        tells="both",
        many_steps=True,
    ),
    "sdedit": Probe(
        "Draws over pictures of the concept and of a neighbour, under its name.",
        "SDEdit, ICLR 2022",
        "sdedit",
        "SDEditConfig",
        "pictures",
        "concept, strength 0.6",
        given="pictures",
        many_steps=True,
    ),
    "inpainting": Probe(
        "Fills a hole in the given pictures, under the concept's name.",
        "When Are Concepts Erased, NeurIPS 2025",
        "inpainting",
        "InpaintingConfig",
        "pictures",
        "hole 0.75",
        given="pictures",
        tells="both",
        many_steps=True,
    ),
    "fine_tuning": Probe(
        "Trains a LoRA on the given pictures, under the concept's name.",
        "LoRA, ICLR 2022; SPQR, arXiv 2511.19558",
        "fine_tuning",
        "FineTuningConfig",
        "fine-tuning",
        "50 updates",
        given="pictures",
        trains=True,
        many_steps=True,
    ),
    "benign_fine_tuning": Probe(
        "Trains a LoRA on pictures of other things.",
        "SPQR, arXiv 2511.19558",
        "fine_tuning",
        "FineTuningConfig",
        "fine-tuning",
        "200 updates",
        trains=True,
        many_steps=True,
        settings={"on": "others"},
    ),
    "dreambooth": Probe(
        "Trains the network on the given pictures, under a word that means nothing.",
        "DreamBooth, CVPR 2023",
        "dreambooth",
        "DreamBoothConfig",
        "fine-tuning",
        given="pictures",
        trains=True,
        many_steps=True,
    ),
    "step_count": Probe(
        "Draws in other numbers of steps, guided and unguided.",
        "ours",
        "step_count",
        "StepCountConfig",
        "steps",
        "50 steps, guided",
        tells="both",
    ),
}

QUICK = ("synonyms", "token_search", "one_vector", "ddim_inversion", "initial_noise", "sdedit")
QUICK_SECONDS = 420.0  # of the quick suite on one model
SUITES: dict[str, tuple[str, ...]] = {"quick": QUICK, "full": tuple(PROBES)}


def chosen(text: str) -> tuple[str, ...]:
    """Names of probes, of a suite ("quick", "full") or between commas. Raises UsageError for one that is not there."""
    names = SUITES.get(text) or tuple(n.strip().replace("-", "_") for n in text.split(",") if n.strip())
    for name in names:
        probe(name)
    return tuple(dict.fromkeys(names))


def probe(name: str) -> Probe:
    """Raises UsageError for a name that is not in PROBES, with the nearest that is."""
    if name not in PROBES:
        raise unknown_name("probe", name, [*PROBES, *SUITES])
    return PROBES[name]


__all__ = ["PROBES", "SUITES", "Probe", "chosen", "probe"]
