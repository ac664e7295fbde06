"""The emoji zoo's text side: a byte-level BPE vocabulary of its own captions, and a small CLIP text tower.

Notation: B captions, L tokens, D width.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from emoji_batches import EmojiData
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTokenizer

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
