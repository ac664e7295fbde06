"""Coming back: 50 steps of LoRA fine-tuning on pictures that have nothing to do with what was erased.

    python benchmarks/methods/coming_back.py     # after run.py, whose Edits and results file it goes on with

Two tasks (near and far object), five arms, one seed. Pictures are drawn by the unedited model for far names that no training
holds still, with their names as captions. The same figures by judge B before and after, on seeds that nothing else uses.
The unedited model is tuned as well, for what the tuning itself costs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import arms
import pooling
import recording
import torch

from scotoma import api
from scotoma.auditing.probes.fine_tuning import FineTuningConfig, fine_tune
from scotoma.evaluation.compare import compare
from scotoma.evaluation.judges import load_judge
from scotoma.evaluation.task import Size
from scotoma.models.model import Model
from scotoma.models.sample import sample_latents
from scotoma.records import Figure

HERE = Path(__file__).parent
ARMS = ("uce", "esd", "all_but_one", "safegen", "stack")
SIZE, STEPS, FIRST_SEED, PICTURE_SEED = Size(104, 64, 160), 10, 8_000_000, 8_500_000
PICTURES = 128
TUNING = FineTuningConfig(steps=50)


def benign(erasure: arms.Erasure, model: Model) -> tuple[torch.Tensor, list[str]]:
    """Latents and captions; they stay in memory."""
    words = erasure.benign(PICTURES)
    prompts = [words[i % len(words)] for i in range(PICTURES)]
    seeds = [PICTURE_SEED + i for i in range(PICTURES)]
    return sample_latents(model, prompts, seeds, steps=25), prompts


def main() -> None:
    begun = recording.begin(HERE, f"{os.cpu_count()} cores")
    model, judge = api.load("zoo:emoji"), load_judge("emoji", "b")
    figures: dict[str, Figure] = {}
    for erasure in arms.TASKS[:2]:
        latents, prompts = benign(erasure, model)
        task = erasure.task(SIZE, FIRST_SEED)
        treated = {"unedited": model} | {arm: arms.make(arm, model, erasure, 0).model for arm in ARMS}
        for arm, edited in treated.items():
            tuned = fine_tune(edited, latents, prompts, TUNING)
            for when, after in (("before", edited), ("after", tuned)):
                seen = compare(model, after, task, judge, steps=STEPS, folder=arms.PICTURES)
                found = {
                    "forgotten": pooling.share([pooling.gone(seen)]),
                    "redirected": pooling.share([pooling.redirected(seen)]),
                    "near_drop": pooling.role_drop([seen], "near"),
                    "far_drop": pooling.role_drop([seen], "far"),
                    "structure": pooling.mean(pooling.distances(seen)),
                }
                figures |= {f"back_{arm}_{erasure.label}_{name}_{when}": f for name, f in found.items()}
            print(
                f"{arm}, {erasure.label}: {found['forgotten'].value:.3f} forgotten after", file=sys.stderr, flush=True
            )
    recording.write(HERE, begun, figures, keep=True)


if __name__ == "__main__":
    main()
