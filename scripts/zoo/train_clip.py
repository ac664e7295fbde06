"""Train the zoo CLIP, one small image and text model over captioned emoji renderings, and ship it with the package.

    python scripts/zoo/train_clip.py             trains into build/zoo/clip
    python scripts/zoo/train_clip.py --further   trains the shipped one further, on drawings in black ink as well
    python scripts/zoo/train_clip.py --ship      puts the finished model into src/scotoma/detectors/image/zoo_clip

A `transformers.CLIPModel`: ViT on 32 px in patches of 8, text tower of the emoji pipeline's size and vocabulary, which
starts from that pipeline's weights, since they already tell captions apart. The
loss is InfoNCE over a batch (Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
2021, figure 3), with one departure: with 300 names in batches of hundreds a caption is often true of several pictures,
so the target is uniform over the pairs that are true and not the diagonal alone. Kill it at any time; the same command
resumes. Retrieval is measured on held-out combinations of name, colour and place, which no training draws.

Notation: B batch; pictures float32 B 3 32 32 in [-1, 1]; L tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from emoji_batches import INKS, NO_STYLE, TEMPLATES, Batch, EmojiData, compose
from safetensors.torch import load_file
from text_tower import text_config
from torch import Tensor
from train_classifiers import blur
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from scotoma.detectors.image import zoo_clip
from scotoma.erasure.training import EMA, Clock, Run, log_to_stderr, train, warm_cosine
from scotoma.errors import DataError
from scotoma.models.folders import ZOO
from scotoma.records import write_text
from scotoma.weights.folders import quiet

PACKAGE = Path(__file__).resolve().parents[2] / "src/scotoma/detectors/image/zoo_clip"
PROJECTION = 256
# In 65 seconds of one core, batches of 64 of 60 names: patches of 8 and 192 numbers reached 0.24 image to text, patches
# of 4 and 128 numbers 0.11 (fewer steps), a convolutional tower 0.13, twice the learning rate 0.09.
VISION = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "projection_dim": PROJECTION,
}
# Those of the emoji pipeline, and some that zero-shot prompts commonly have.
PHRASES = (*TEMPLATES, "a photo of a {}", "the {}", "an icon of a {}", "this is a {}")
HEADS = ("style", "colour", "place")
INK = 0.35  # share of pictures when trained further
ANY = -1  # the caption says nothing of it


@dataclass(frozen=True)
class Captions:
    """B texts and what each says: indices into the data's lists, or ANY."""

    texts: list[str]
    name: Tensor  # B
    style: Tensor  # B
    colour: Tensor  # B
    place: Tensor  # B


def noun(row: Mapping[str, Any], names: Sequence[str], rng: np.random.Generator) -> str:
    """The name, now and then a synonym that is no other emoji's name, or with a keyword or its subcategory."""
    u = rng.random()
    synonyms = [s for s in row["synonyms"] if s not in names]
    if u < 0.15 and synonyms:
        return synonyms[rng.integers(len(synonyms))]
    if u < 0.23 and row["keywords"]:
        return f"{row['name']}, {row['keywords'][rng.integers(len(row['keywords']))]}"
    if u < 0.30:
        return f"{row['name']}, {row['subcategory'].replace('-', ' ')}"
    return row["name"]


def describe(data: EmojiData, batch: Batch, rng: np.random.Generator) -> Captions:
    """One caption for each picture: always the name, and style, colour and place each every other time.

    Other than in the captions that train a generator, a place that is not said may be any. Nothing is said of the style of
    an inked drawing.
    """
    said = {k: torch.where(torch.from_numpy(rng.random(len(batch.name)) < 0.5), getattr(batch, k), ANY) for k in HEADS}
    said["style"] = torch.where(batch.style == NO_STYLE, ANY, said["style"])
    lists = {"style": data.styles, "colour": data.colours, "place": data.places}
    texts = []
    for k, name in enumerate(batch.name.tolist()):
        style, colour, place = (None if said[h][k] == ANY else lists[h][int(said[h][k])] for h in HEADS)
        phrase = PHRASES[rng.integers(len(PHRASES))]
        texts.append(compose(noun(data.rows[name], data.names, rng), style, colour, place, phrase))
    return Captions(texts, batch.name, **said)


def truth(batch: Batch, captions: Captions) -> Tensor:
    """B B of 0 and 1: whether caption j is true of picture i."""
    true = batch.name[:, None] == captions.name[None]
    for head in HEADS:
        said = getattr(captions, head)[None]
        true &= (said == ANY) | (getattr(batch, head)[:, None] == said)
    return true.float()


def contrastive(logits: Tensor, true: Tensor) -> Tensor:
    """Mean over both directions of the cross-entropy against the uniform distribution over the true pairs.

    logits: B B, scaled cosines, row i a picture, column j a caption; true: B B of 0 and 1, no row or column without 1.
    """
    rows = -(true / true.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    columns = -(true / true.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return (rows + columns) / 2


def augment(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Half of the pictures softened, half with noise, as generated pictures are neither sharp nor clean."""
    soft = torch.tensor(rng.uniform(0, 1, (len(x), 1, 1, 1)) * (rng.random((len(x), 1, 1, 1)) < 0.5), dtype=x.dtype)
    noise = torch.tensor(rng.uniform(0, 0.1, (len(x), 1, 1, 1)) * (rng.random((len(x), 1, 1, 1)) < 0.5), dtype=x.dtype)
    return x + soft * (blur(x) - x) + noise * torch.from_numpy(rng.standard_normal(x.shape, np.float32))


def build(tokenizer: CLIPTokenizer, vision: Mapping[str, Any] = VISION) -> CLIPModel:
    text = text_config(tokenizer).to_dict() | {"projection_dim": PROJECTION}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=dict(vision), projection_dim=PROJECTION))


def fit(
    data: EmojiData,
    tokenizer: CLIPTokenizer,
    out: Path,
    *,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
    vision: Mapping[str, Any] = VISION,
    text: Mapping[str, Tensor] | None = None,
    start: Mapping[str, Tensor] | None = None,
    ink: float = 0.0,
    before: str = "",
    save_seconds: float = 120.0,
    observe_every: int = 0,
) -> list[dict]:
    """Train, export the moving average to out/model, write out/figures.json, return the curve of retrieval.

    `text` are the weights from which the text tower starts, `start` those of all, `before` how they were made; None: random
    ones. A share of `ink` of the pictures is inked. Raises CheckpointError where out/run holds another run, DivergedError on a loss that is not finite.
    """
    torch.manual_seed(seed)
    model = build(tokenizer, vision)
    if text is not None:
        model.text_model.load_state_dict({name: value.float() for name, value in text.items()})
    if start is not None:
        model.load_state_dict({name: value.float() for name, value in start.items()})
    ema = EMA(model, 0.998)
    clock = Clock()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))

    def update(step: int, generator: torch.Generator) -> dict[str, float]:
        rng = np.random.default_rng((seed, step))
        drawn = data.draw(batch, rng, ink=ink)
        captions = describe(data, drawn, rng)
        for group in optimiser.param_groups:
            group["lr"] = lr * warm_cosine(step, steps)
        read = tokenizer(captions.texts, padding="longest", truncation=True, return_tensors="pt")  # B L
        logits = model(pixel_values=augment(drawn.pictures, rng), **read).logits_per_image
        loss = contrastive(logits, truth(drawn, captions))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))  # as CLIP does
        ema.update(model)
        return {"loss": loss.item(), "scale": model.logit_scale.exp().item()}

    def observe(step: int) -> Mapping[str, float]:
        export(ema, tokenizer, vision, out / "model", {})
        return retrieval(zoo_clip.read(out / "model"), data)

    config = {"batch": batch, "lr": lr, "steps": steps, "ink": ink, "before": before, **vision}
    run = Run(
        {"model": model, "optimiser": optimiser, "ema": ema, "clock": clock},
        steps=steps,
        config=config,
        folder=out / "run",
        seed=seed,
        save_seconds=save_seconds,
        observe=observe,
        observe_every=observe_every,
        label="clip",
    )
    curve = train(update, run)
    summary = {
        "curve": curve,
        "minutes": round(clock.seconds / 60, 1),
        "parameters": sum(p.numel() for p in model.parameters()),
        "recipe": (f"{before}, then " if before else "")
        + f"scripts/zoo/train_clip.py, {steps} steps of {batch}, learning rate {lr}, seed {seed}"
        + ("; the text tower starts from that of zoo:emoji" if text is not None else "")
        + (f", {100 * ink:g} % of the pictures in black ink, {len(INKS)} ways" if ink else ""),
    }
    export(ema, tokenizer, vision, out / "model", card(summary))
    write_text(out / "figures.json", json.dumps(summary, indent=1) + "\n")
    return curve


def export(
    ema: EMA, tokenizer: CLIPTokenizer, vision: Mapping[str, Any], folder: Path, about: Mapping[str, Any]
) -> None:
    """The moving average as a CLIPModel folder, fp16, with tokenizer, picture settings and card; whole or not at all."""
    model = build(tokenizer, vision)
    ema.copy_to(model)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with quiet():
        model.half().save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    side = int(vision["image_size"])
    CLIPImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    ).save_pretrained(partial)
    settings = partial / "preprocessor_config.json"
    # The class without torchvision, under the name that every release of transformers reads.
    write_text(settings, settings.read_text().replace("ImageProcessorPil", "ImageProcessor"))
    write_text(partial / "card.json", json.dumps(dict(about), indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def held_out_renderings(data: EmojiData, rng: np.random.Generator) -> Batch:
    """One rendering of every name that has held-out combinations, in one of them, in a random training style."""
    by_name: dict[int, list[tuple[int, int]]] = {}
    for name, colour, place in sorted(data.held_out):
        by_name.setdefault(name, []).append((colour, place))
    names = [n for n in data.allowed.tolist() if n in by_name]
    picked = np.array([by_name[n][rng.integers(len(by_name[n]))] for n in names])
    style, shift = rng.integers(0, 3, len(names)), rng.integers(-1, 2, (len(names), 2))
    return data.render(np.array(names), style, picked[:, 0], picked[:, 1], shift)


def retrieval(clip: zoo_clip.ZooClip, data: EmojiData, draws: int = 5) -> dict[str, float]:
    """Top-1 among the names, one held-out rendering each against "a NAME": each way, mean and worst of `draws`;
    `n` is the pictures of all draws.

    Also the share of held-out renderings whose style is the nearest of "a NAME, STYLE style", name given.
    """
    ways: dict[str, list[float]] = {"text_to_image": [], "image_to_text": [], "style": []}
    for seed in range(draws):
        batch = held_out_renderings(data, np.random.default_rng((71, seed)))
        nouns = [data.names[n] for n in batch.name.tolist()]
        pictures = ((batch.pictures + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        image = clip.image_features(pictures)
        cosine = image @ clip.text_features([f"a {n}" for n in nouns]).T  # names, names
        ways["text_to_image"].append(float((cosine.argmax(0) == np.arange(len(nouns))).mean()))
        ways["image_to_text"].append(float((cosine.argmax(1) == np.arange(len(nouns))).mean()))
        styled = np.stack(
            [clip.text_features([compose(n, s, None, None, "a {}") for n in nouns]) for s in data.styles[:3]], 1
        )  # names, styles, D
        nearest = np.einsum("nd,nsd->ns", image, styled).argmax(1)
        ways["style"].append(float((nearest == batch.style.numpy()).mean()))
    means = {k: float(np.mean(v)) for k, v in ways.items()}
    return means | {f"{k}_worst": min(v) for k, v in ways.items()} | {"n": draws * len(data.names)}


def card(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "what": f"the zoo CLIP: image and text tower at 32 px, {PROJECTION} numbers, {summary['parameters']:,} parameters "
        "(transformers CLIPModel, fp16)",
        "data": "captioned renderings of 300 emoji in three drawing styles, six background colours, five sizes and "
        "places; captions with synonyms and keywords of emojibase-data; no picture ships",
        "licences": "Twemoji CC-BY 4.0, copyright Twitter, Inc and other contributors; Noto Emoji Apache-2.0; Fluent "
        "Emoji flat MIT; emojibase-data MIT; weights Apache-2.0",
        "recipe": summary["recipe"],
        "minutes": summary["minutes"],
        "figures": summary["curve"][-1] if summary["curve"] else {},
        "measured": "top-1 retrieval among the names, one rendering each of a held-out combination of name, colour and "
        'place against "a NAME": mean and worst of five draws; style: nearest of three, name given',
        "limits": "knows these emoji and nothing else; a detector, not a judge: no reported figure rests on it",
    }


def ship(out: Path, package: Path) -> None:
    """Copy out/model to `package`, whole or not at all. Raises DataError before a training has ended and was measured."""
    figures = out / "figures.json"
    if not figures.is_file():
        raise DataError(f"{out} holds no finished training; run this script without --ship first")
    if not json.loads(figures.read_text())["curve"]:
        raise DataError(f"{out} was never measured; train again with --observe-every above 0")
    partial = package.with_name(f".{package.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(out / "model", partial)
    zoo_clip.read(partial)
    shutil.rmtree(package, ignore_errors=True)
    os.replace(partial, package)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("build/zoo"))
    parser.add_argument("--out", type=Path, default=Path("build/zoo/clip"))
    parser.add_argument("--package", type=Path, default=PACKAGE, help="folder that --ship writes")
    parser.add_argument("--ship", action="store_true", help="put the finished model into the package; no training")
    parser.add_argument(
        "--further", action="store_true", help="start from the shipped model, a third of pictures inked"
    )
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--observe-every", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    log_to_stderr()
    if args.ship:
        try:
            ship(args.out, args.package)
        except DataError as e:
            raise SystemExit(f"train_clip: {e}") from e
        return
    data = EmojiData(args.source)
    pipeline = ZOO / "emoji"
    shipped = json.loads((PACKAGE / "card.json").read_text()) if args.further else {}
    fit(
        data,
        CLIPTokenizer.from_pretrained(pipeline / "tokenizer"),
        args.out,
        steps=args.steps,
        batch=args.batch,
        lr=args.lr,
        seed=args.seed,
        text=None if args.further else load_file(pipeline / "text_encoder/model.safetensors"),
        start=zoo_clip.read(PACKAGE).model.state_dict() if args.further else None,
        ink=INK if args.further else 0.0,
        before=shipped.get("recipe", ""),
        observe_every=args.observe_every,
    )


if __name__ == "__main__":
    main()
