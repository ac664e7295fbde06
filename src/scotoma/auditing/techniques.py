"""What an exposure asks for, and the techniques that try: DreamBooth, textual inversion, SDEdit, and two baselines (the model as it
is, the mark pasted into its pictures). What comes of it is for exposure.py to say.

Notation: N pictures of H W pixels; T targets of n pictures each.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from scotoma.auditing.mark import CORNERS, Mark, Place
from scotoma.auditing.probes.dreambooth import DreamBoothConfig, dreambooth
from scotoma.auditing.probes.sdedit import SDEditConfig, sdedit
from scotoma.auditing.probes.textual_inversion import TextualInversionConfig, textual_inversion
from scotoma.bounds import check_text
from scotoma.errors import UsageError
from scotoma.models.model import Model
from scotoma.models.sample import STEPS, at_once, sample, to_uint8
from scotoma.records import sha256_text


@dataclass(frozen=True)
class Setting:
    """One mark, T targets, and how a prompt asks for both. Every technique is asked the same with the same seeds."""

    targets: tuple[str, ...] = field(metadata={"help": "names of what the mark is put into pictures of"})
    mark: Mark = field(default=Mark(), metadata={"help": "colours of the emblem, and its name in plain words"})
    pictures: int = field(default=12, metadata={"help": "of each target; wordings take turns"})
    wordings: tuple[str, ...] = field(
        default=("a {target} with a {mark}", "a {mark} with a {target}", "{mark} {target}"),
        metadata={"help": "prompts for both"},
    )
    plain: str = field(default="a {target}", metadata={"help": "prompt for the target alone"})
    shown: int = field(default=12, metadata={"help": "pictures of the mark alone that trainings are shown"})
    sizes: tuple[float, ...] = field(
        default=(0.3125, 0.375, 0.4375), metadata={"help": "of marks that are pasted, shares of the shorter side"}
    )
    steps: int = field(default=STEPS, metadata={"help": "of sampling"})
    first_seed: int = field(default=0, metadata={"help": "of the first picture"})

    def __post_init__(self) -> None:
        if not self.targets or len(set(self.targets)) != len(self.targets):
            raise UsageError(f"an exposure needs targets, each once, got {list(self.targets)}")
        if min(self.pictures, self.shown, self.steps) < 1:
            raise UsageError("an exposure needs 1 picture, 1 picture shown and 1 step, or more")
        if not self.wordings or not all("{target}" in w and "{mark}" in w for w in self.wordings):
            raise UsageError(f"each wording has {{target}} and {{mark}}, got {list(self.wordings)}")
        for target in self.targets:
            for wording in (*self.wordings, self.plain):
                check_text(wording.format(target=target, mark=self.mark.name), what=f"the target {target!r}")

    def asks(self, called: str, run: int) -> list[Ask]:
        """T n prompts for mark and target, the mark under the name `called`; seeds are those of a training's number
        `run`."""
        first = self.first_seed + run * len(self.targets) * self.pictures
        return [
            Ask(t, self.wordings[k % len(self.wordings)].format(target=t, mark=called), first + i * self.pictures + k)
            for i, t in enumerate(self.targets)
            for k in range(self.pictures)
        ]

    def plainly(self, run: int) -> list[Ask]:
        """The same, for the target alone."""
        return [dataclasses.replace(a, prompt=self.plain.format(target=a.target)) for a in self.asks("", run)]


@dataclass(frozen=True)
class Ask:
    target: str
    prompt: str
    seed: int


class Drawn(NamedTuple):
    """What a technique made for T n asks: pictures uint8 N H W 3 of each of its variants, None for one that its budget
    did not suffice for; seconds of training and drawing; the model it drew with, where that is another one; n pictures
    that were asked for the mark alone, by the name that it was given, where there is one; updates of the training."""

    asks: Sequence[Ask]
    pictures: Mapping[str, np.ndarray | None]
    seconds: float
    model: Model | None = None
    alone: np.ndarray | None = None
    updates: int = 0


@dataclass(frozen=True)
class Technique:
    """`draw(model, setting, run, folder)` makes the pictures of training number `run`; `folder` is for checkpoints."""

    name: str
    budget: Mapping[str, Any]
    draw: Callable[[Model, Setting, int, Path | None], Drawn]


def unedited() -> Technique:
    """The model as it is, asked in plain words."""

    def draw(model: Model, setting: Setting, run: int, folder: Path | None) -> Drawn:
        return _sampled(model, setting, setting.mark.name, run)

    return Technique("unedited", {}, draw)


def pasted() -> Technique:
    """No technique: the pictures that SDEdit starts from, and so what the eyes see at best."""

    def draw(model: Model, setting: Setting, run: int, folder: Path | None) -> Drawn:
        begun, asks = time.monotonic(), setting.plainly(run)
        return Drawn(asks, {"": _holding(model, setting, asks)}, time.monotonic() - begun)

    return Technique("pasted", {}, draw)


def by_dreambooth(config: DreamBoothConfig, prior: Sequence[str] = ()) -> Technique:
    """`prior`: prompts of what is to stay as it is; none: those of the class noun."""

    def draw(model: Model, setting: Setting, run: int, folder: Path | None) -> Drawn:
        mark = _latents(model, setting.mark.alone(*model.picture_size, setting.shown))
        learnt = dreambooth(model, mark, config, prior=prior, seed=run, folder=folder)
        return _trained(_sampled(learnt.model, setting, config.called, run), learnt.model, learnt.curve[-1])

    others = {"prior_prompts": len(prior), "prior_sha256": sha256_text("\n".join(prior))}
    return Technique("dreambooth", dataclasses.asdict(config) | others, draw)


def by_textual_inversion(config: TextualInversionConfig) -> Technique:
    """Prompts name the mark by the new word, `config.called`."""

    def draw(model: Model, setting: Setting, run: int, folder: Path | None) -> Drawn:
        mark = _latents(model, setting.mark.alone(*model.picture_size, setting.shown))
        learnt = textual_inversion(model, mark, config, seed=run, folder=folder)
        return _trained(_sampled(learnt.model, setting, config.called, run), learnt.model, learnt.curve[-1])

    return Technique("textual_inversion", dataclasses.asdict(config), draw)


def by_sdedit(config: SDEditConfig) -> Technique:
    """One variant for each strength."""

    def draw(model: Model, setting: Setting, run: int, folder: Path | None) -> Drawn:
        begun, asks = time.monotonic(), setting.plainly(run)
        held = _holding(model, setting, asks)
        found = sdedit(model, held, [a.prompt for a in asks], [a.seed for a in asks], config)
        pictures = {f"strength {s:g}": found.get(s) for s in config.strengths}
        return Drawn(asks, pictures, time.monotonic() - begun)

    return Technique("sdedit", dataclasses.asdict(config), draw)


def _sampled(model: Model, setting: Setting, called: str, run: int) -> Drawn:
    begun, asks = time.monotonic(), setting.asks(called, run)
    by_itself = [setting.plain.format(target=called)] * setting.pictures
    both = [a.prompt for a in asks], [a.seed for a in asks]
    pictures = sample(model, *both, steps=setting.steps)
    alone = sample(model, by_itself, both[1][: setting.pictures], steps=setting.steps)
    return Drawn(asks, {"": pictures}, time.monotonic() - begun, alone=alone)


def _trained(drawn: Drawn, model: Model, last: Mapping[str, float]) -> Drawn:
    """With what the end of the training's curve says."""
    return drawn._replace(seconds=drawn.seconds + last["seconds"], model=model, updates=int(last["step"]))


def _holding(model: Model, setting: Setting, asks: Sequence[Ask]) -> np.ndarray:
    """The targets as the model draws them, the mark pasted into a corner; sizes and corners take turns."""
    pictures = sample(model, [a.prompt for a in asks], [a.seed for a in asks], steps=setting.steps)
    places = [Place(size, *corner) for size in setting.sizes for corner in CORNERS]
    return np.stack([setting.mark.pasted(p, places[i % len(places)]) for i, p in enumerate(pictures)])


@torch.no_grad()
def through(model: Model, pictures: np.ndarray) -> np.ndarray:
    """Pictures (uint8 N H W 3) as the model's autoencoder gives them back."""
    return np.concatenate([to_uint8(model.decode(z)) for z in _latents(model, pictures).split(at_once(model))])


def _latents(model: Model, pictures: np.ndarray) -> torch.Tensor:
    scaled = (torch.from_numpy(pictures.astype(np.float32)) / 127.5 - 1).permute(0, 3, 1, 2).contiguous()
    return torch.cat([model.to_latents(part.to(model.device)) for part in scaled.split(at_once(model))])
