"""The emoji zoo's text side: a byte-level BPE vocabulary of its own captions, and a small CLIP text tower.

Notation: B captions, L tokens, D width.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from emoji_batches import EmojiData
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from scotoma.erasure.training import warm_cosine

MAX_LENGTH = 32
VOCABULARY = 1536
WIDTH = 128
START, END = "<|startoftext|>", "<|endoftext|>"
# CLIP's own split into words, numbers and punctuation (Radford et al. 2021, released tokenizer)
SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def corpus(data: EmojiData, lines: int, seed: int) -> list[str]:
    """Captions of random renderings, and every name, synonym and keyword many times, so that most are few tokens."""
    rng = np.random.default_rng(seed)
    rows = [[r["name"], *r["synonyms"], *r["keywords"], r["subcategory"].replace("-", " ")] for r in data.rows]
    out = [word for row in rows for word in row for _ in range(20)]
    batch = data.draw(lines, rng)
    out += [
        data.caption(int(n), int(s), int(c), int(p), rng)
        for n, s, c, p in zip(batch.name, batch.style, batch.colour, batch.place, strict=True)
    ]
    return out


def train_tokenizer(data: EmojiData, folder: Path, seed: int = 0) -> CLIPTokenizer:
    """Train the vocabulary and write it in CLIP's layout (vocab.json, merges.txt, tokenizer_config.json)."""
    tokenizer = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(data, 20_000, seed), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    # As in CLIP, every byte is a token, inside a word and at its end; so no text is ever unknown.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learned = sorted(model["vocab"], key=model["vocab"].get)
    vocab = {t: i for i, t in enumerate(dict.fromkeys([*alphabet, *(a + "</w>" for a in alphabet), *learned]))}
    for token in (START, END):
        vocab[token] = len(vocab)
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    clip = CLIPTokenizer(vocab=vocab, merges=merges, pad_token=END, model_max_length=MAX_LENGTH)
    clip.save_pretrained(folder)
    return clip


def text_config(vocabulary: CLIPTokenizer, layers: int = 3) -> CLIPTextConfig:
    """A tower of 128 wide, 3 layers, 4 heads; pooling reads the end token, as CLIP's does."""
    return CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=MAX_LENGTH,
        bos_token_id=vocabulary.bos_token_id,
        eos_token_id=vocabulary.eos_token_id,
        pad_token_id=vocabulary.pad_token_id,
    )


def pretrain(
    text: CLIPTextModel, tokenizer: CLIPTokenizer, data: EmojiData, *, steps: int = 600, batch: int = 64, seed: int = 0
) -> float:
    """Teach the tower to say what a caption asks for, before any picture is seen: a linear reading of its end token
    gives name, style, colour and place (or that none is said). Returns the share of right names in the last 100 steps.

    From random weights the network learns to listen to the text only slowly, since the states of all captions are
    nearly equal at the start.
    """
    kinds = {"name": data.names, "style": data.styles[:3], "colour": data.colours, "place": data.places}
    heads = nn.ModuleDict({kind: nn.Linear(WIDTH, len(labels) + 1) for kind, labels in kinds.items()})
    parameters = [*text.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)
    right = []
    for step in range(steps):
        rng = np.random.default_rng((seed, step, 77))
        drawn = data.draw_labels(batch, rng)
        captions = [data.caption(*map(int, row), rng) for row in drawn]
        words = tokenizer(captions, padding=True, max_length=MAX_LENGTH, truncation=True, return_tensors="pt")
        state = text(words.input_ids).pooler_output
        loss = torch.zeros(())
        for column, (kind, labels) in enumerate(kinds.items()):
            said = [kind == "name" or labels[v] in c for c, v in zip(captions, drawn[:, column], strict=True)]
            target = torch.from_numpy(np.where(said, drawn[:, column], len(labels)))
            logits = heads[kind](state)
            loss = loss + F.cross_entropy(logits, target)
            if kind == "name":
                right.append(float((logits.argmax(1) == target).float().mean()))
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * warm_cosine(step, steps, warmup=100)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
    return float(np.mean(right[-100:]))
