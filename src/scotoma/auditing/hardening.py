"""What still brings a concept back through the condition of an edited model: what its erasure is trained against next.

In the spirit of STEREO (Srivatsan, Shamshad, Naseer, Patel, Nandakumar, CVPR 2025, arXiv 2408.16807: search for what brings it back,
then erase all of it at once) and AdvUnlearn (Zhang et al., NeurIPS 2024, arXiv 2405.15234); our own code. Three probes end in a
condition: found prompts, a learnt word of one vector and one of several. The one that the model fails most is taken. What is found
stays in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scotoma.auditing.probes import PROBES
from scotoma.auditing.probes.contract import Budget, Sought, drawn, in_turn, latents_of
from scotoma.auditing.probes.textual_inversion import TEMPLATES, TextualInversionConfig, textual_inversion
from scotoma.auditing.probes.token_search import TokenSearchConfig, meaning_it, taken_for_it
from scotoma.auditing.recovery import Eyes
from scotoma.errors import UsageError
from scotoma.models.denoiser import Cond
from scotoma.models.model import Model

WORDS = {  # as the probes learn them, but for the clock: it does not say what is found
    name: TextualInversionConfig(seconds=3600.0, **PROBES[name].settings) for name in ("one_vector", "several_vectors")
}


@dataclass(frozen=True)
class Finding:
    """Conditions (rows) under which the model drew the concept most, the probe that they are of, and the shares of pictures
    in which the concept was seen, by probe. Where nothing brings it back, the probe is the first and its share 0."""

    told: Cond
    probe: str
    shares: dict[str, float]

    @property
    def nothing(self) -> bool:
        return self.shares[self.probe] == 0


def find(
    model: Model, sought: Sought, eyes: Eyes, budget: Budget, *, seed: int = 0, folder: Path | None = None
) -> Finding:
    """What `model` fails most. `eyes.sees` is a judge that reports nothing (judge A). The same arguments give the same.

    `folder` keeps the checkpoints of the learnt words; whoever gives it deletes it. Raises UsageError for a model that is told
    labels or draws in one call, and where nobody can tell what was drawn.
    """
    found = {
        "token_search": _prompts(model, sought, budget, seed),
        **{name: _word(model, sought, budget, seed, folder, name) for name in WORDS},
    }
    shares, told = {}, {}
    for name, (speaks, texts) in found.items():
        seen = [
            s
            for s in eyes.sees(drawn(speaks, in_turn(texts, budget.queries), budget.seeds(seed), budget))
            if s is not None
        ]
        if not seen:
            raise UsageError(
                "nobody can tell whether the concept came back, so nothing can be hardened; give a judge: --clip"
            )
        shares[name], told[name] = sum(map(bool, seen)) / len(seen), speaks.encode(texts)
    worst = max(shares, key=lambda name: shares[name])
    return Finding(told[worst], worst, shares)


def _prompts(model: Model, sought: Sought, budget: Budget, seed: int) -> tuple[Model, list[str]]:
    """Of the prompts that mean the concept to the unedited model, those that `model` takes for its name."""
    config = TokenSearchConfig()
    return model, taken_for_it(model, sought, meaning_it(sought, config, seed), config, budget, seed)


def _word(
    model: Model, sought: Sought, budget: Budget, seed: int, folder: Path | None, name: str
) -> tuple[Model, list[str]]:
    """A word in the sentences that it was learnt in, and the model that has it."""
    config = budget.within(WORDS[name])
    place = None if folder is None else folder / name
    learnt = textual_inversion(model, latents_of(model, sought.pictures), config, seed=seed, folder=place)
    return learnt.model, [t.format(config.called) for t in TEMPLATES]
