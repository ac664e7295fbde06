"""A causal language model on this machine as a Chat: a folder of safetensors, or one GGUF file.

Notation: B conversations in a batch, P tokens of the prefix that they share, S tokens after it, V tokens of the vocabulary.

Answers are greedy. With choices, the log probability of each is that of its tokens as the continuation of the prompt, summed and
divided by their number, so that a label of three tokens is not less likely than one of one token for being longer. The states of
the shared prefix, a guideline for all items, are computed once and reused: with 600 tokens of guideline and 100 of item that
saves six sevenths of the work.
"""

from __future__ import annotations

import copy
import inspect
import io
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from scotoma.dialogue.annotators.contract import Chat, Message, Reply
from scotoma.errors import MissingExtraError, ModelError, UsageError
from scotoma.weights.folders import quiet, refuse_pickles
from scotoma.weights.hashing import hash_tensors

SAME_PREFIX = 0.8  # of what a batch shares: where the kept states are of less, they are computed again


@dataclass
class Prefix:
    """Tokens and their states, of the last batch that needed new ones."""

    ids: list[int] = field(default_factory=list)
    cache: Any = None


@dataclass(frozen=True)
class Local:
    """A model with its tokenizer. `longest` is in tokens of prompt and answer, `ends` the tokens that end an answer; `keeps`:
    it can give logits of the last places alone."""

    model: Any
    tokenizer: Any
    longest: int
    ends: frozenset[int]
    keeps: bool
    name: str
    prefix: Prefix | None = field(default_factory=Prefix)  # None: no states are reused


def local_chat(
    source: str | Path,
    *,
    generate: bool = False,
    max_new_tokens: int = 64,
    batch_size: int = 8,
    longest: int | None = None,
    normalise: bool = True,
    reuse_prefix: bool = True,
    name: str = "",
) -> Chat:
    """The model in `source`, on the CPU, on as many threads as torch is told to use.

    Where choices are asked for, the text of the reply is the likeliest of them and nothing is generated, unless `generate`;
    where none are, it is generated, `max_new_tokens` at most. Conversations of more than `longest` tokens (what the model
    reads, if not given) are replies without text. `normalise` off leaves the sums of log probabilities as they are.
    `reuse_prefix` is for models whose states can be cut at any token; turn it off for others (sliding windows, recurrence).

    Raises ModelError for what cannot be read or has no chat template, UnsafeFileError for pickles, MissingExtraError for a
    GGUF file without the gguf package, UsageError for settings that do not fit.
    """
    if batch_size < 1 or max_new_tokens < 1:
        raise UsageError(f"batch_size and max_new_tokens must be 1 or more, got {batch_size} and {max_new_tokens}")
    local = _load(Path(source).expanduser(), longest, reuse_prefix, name)

    def complete(conversations: Sequence[Sequence[Message]], choices: Sequence[str]) -> list[Reply]:
        replies: dict[int, Reply] = {}
        prompts: dict[int, list[int]] = {}
        words = {c: local.tokenizer.encode(c, add_special_tokens=False) for c in choices}
        room = max([len(t) for t in words.values()] + [max_new_tokens if generate or not words else 1])
        for i, conversation in enumerate(conversations):
            ids = _prompt(local, conversation)
            if len(ids) + room > local.longest:
                told = (
                    f"{len(ids)} tokens, and {room} for the answer, are more than the {local.longest} the model reads"
                )
                replies[i] = Reply(None, told, tokens_in=len(ids))
            else:
                prompts[i] = ids
        order = sorted(prompts, key=lambda i: len(prompts[i]))
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            done = _batch(local, [prompts[i] for i in part], words, max_new_tokens, generate, normalise)
            replies |= dict(zip(part, done, strict=True))
        return [replies[i] for i in range(len(conversations))]

    return Chat(local.name, complete)


def _load(path: Path, longest: int | None, reuse_prefix: bool, name: str) -> Local:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise ModelError(f"{path} is not there; check the path of the GGUF file")
        try:
            import gguf  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
        except ImportError as e:
            raise MissingExtraError("gguf", "dialogue", "a model in a GGUF file") from e
        folder, options["gguf_file"] = path.parent, path.name
    elif path.is_dir():
        refuse_pickles(path)
        folder = path
    else:
        raise ModelError(f"{path} is neither a folder nor a .gguf file; give the model as one of the two")
    weights: dict[str, Any] = {} if "gguf_file" in options else {"use_safetensors": True}
    try:
        with quiet(), redirect_stderr(io.StringIO()):  # the bar of the GGUF reader has no switch
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **weights, **options).eval()
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, IndexError, SafetensorError) as e:
        raise ModelError(
            f"{path} cannot be loaded as a causal language model ({' '.join(str(e).split())}); fetch it again"
        ) from e
    if not tokenizer.chat_template:
        raise ModelError(f"{path} has no chat template, so it is no model to talk to; give an instruction-tuned one")
    reads = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    told = [model.generation_config.eos_token_id, model.config.eos_token_id, tokenizer.eos_token_id]
    ends = frozenset(t for e in told if e is not None for t in (e if isinstance(e, list) else [e]))
    sha256 = hash_tensors(model.state_dict())
    return Local(
        model,
        tokenizer,
        min(reads, longest or reads),
        ends,
        "logits_to_keep" in inspect.signature(model.forward).parameters,
        name or f"{path.stem if path.is_file() else path.name}@{sha256[:12]}",
        Prefix() if reuse_prefix else None,
    )


def _prompt(local: Local, conversation: Sequence[Message]) -> list[int]:
    """Tokens up to where the assistant speaks. A template that knows no system message gets it before the user's."""
    from jinja2 import TemplateError

    messages = [dict(m) for m in conversation]

    def rendered(messages: list[dict[str, str]]) -> str:
        return local.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    try:
        text = rendered(messages)
    except TemplateError:
        if len(messages) < 2 or messages[0]["role"] != "system":
            raise
        first = {**messages[1], "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
        text = rendered([first, *messages[2:]])
    return local.tokenizer.encode(text, add_special_tokens=False)


def _batch(
    local: Local,
    prompts: Sequence[list[int]],
    words: Mapping[str, list[int]],
    max_new_tokens: int,
    generate: bool,
    normalise: bool,
) -> list[Reply]:
    start = time.perf_counter()
    with torch.inference_mode():
        cache, mask, logits = _read(local, prompts)
        logs = {w: _log_probability(local, cache, mask, logits, ids, normalise) for w, ids in words.items()}
        written = _write(local, cache, mask, logits, max_new_tokens) if generate or not words else None
    seconds = (time.perf_counter() - start) / len(prompts)
    out = []
    for i, prompt in enumerate(prompts):
        choices = {w: float(log[i]) for w, log in logs.items()}
        if written is None:
            text = max(choices, key=lambda w: choices[w])
            ids = words[text]
        else:
            ids = written[i]
            text = local.tokenizer.decode(ids, skip_special_tokens=True).strip()
        out.append(Reply(text, choices=choices, tokens_in=len(prompt), tokens_out=len(ids), seconds=seconds))
    return out


def _read(local: Local, prompts: Sequence[list[int]]) -> tuple[Any, Tensor, Tensor]:
    """States of whole prompts, their mask (B, P + S) and the logits behind them (B, V). What follows the shared prefix is
    padded on the left, so that all prompts end in one place."""
    cache, known = _shared(local, prompts)
    if len(prompts) > 1:
        cache.batch_repeat_interleave(len(prompts))
    rest = [ids[known:] for ids in prompts]
    width = max(len(ids) for ids in rest)
    ids = torch.tensor([[0] * (width - len(r)) + r for r in rest])
    mask = torch.tensor([[1] * known + [0] * (width - len(r)) + [1] * len(r) for r in rest])
    return cache, mask, _step(local, cache, mask, ids)[:, -1]


def _shared(local: Local, prompts: Sequence[list[int]]) -> tuple[Any, int]:
    """States of what all prompts begin with, a copy that may be changed, and how many tokens they are of."""
    from transformers import DynamicCache

    if local.prefix is None:
        return DynamicCache(), 0
    shared = prompts[0][:-1]  # the last token is always read: its logits are wanted
    for ids in prompts[1:]:
        shared = shared[: _common(shared, ids[:-1])]
    known = _common(local.prefix.ids, shared)
    if known < SAME_PREFIX * len(shared):
        cache = DynamicCache()
        _step(local, cache, torch.ones(1, len(shared), dtype=torch.long), torch.tensor([shared]))
        local.prefix.ids, local.prefix.cache, known = shared, cache, len(shared)
    if known == 0:
        return DynamicCache(), 0
    cache = copy.deepcopy(local.prefix.cache)
    _cut(cache, len(local.prefix.ids) - known)
    return cache, known


def _step(local: Local, cache: Any, mask: Tensor, ids: Tensor, last: int = 1) -> Tensor:
    """Read `ids` (B, S) on top of the cache; `mask` (B, P + S) covers both. Gives the logits of the `last` places (B, last, V),
    and changes the cache. Those of all places would be a fifth of SmolLM2's work (28 of 135 million weights are the head's)."""
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    out = local.model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        **({"logits_to_keep": last} if local.keeps else {}),
    )
    return out.logits[:, -last:]


def _log_probability(
    local: Local, cache: Any, mask: Tensor, logits: Tensor, ids: Sequence[int], normalise: bool
) -> Tensor:
    """Of `ids` as the continuation (B), the cache left as it was: sum over the tokens, divided by their number."""
    rows = logits.shape[0]
    total = logits.log_softmax(-1)[:, ids[0]]
    if len(ids) > 1:
        longer = torch.cat([mask, mask.new_ones(rows, len(ids) - 1)], 1)
        after = _step(local, cache, longer, torch.tensor(ids[:-1]).repeat(rows, 1), len(ids) - 1).log_softmax(-1)
        _cut(cache, len(ids) - 1)
        total = total + after.gather(2, torch.tensor(ids[1:]).repeat(rows, 1)[..., None]).sum((1, 2))
    return total / len(ids) if normalise else total


def _write(local: Local, cache: Any, mask: Tensor, logits: Tensor, most: int) -> list[list[int]]:
    """Greedy tokens of each row, without the one that ends it."""
    out: list[list[int]] = [[] for _ in range(logits.shape[0])]
    going = [True] * len(out)
    for _ in range(most):
        best = logits.argmax(-1)
        for i, token in enumerate(best.tolist()):
            going[i] = going[i] and token not in local.ends
            if going[i]:
                out[i].append(token)
        if not any(going):
            break
        mask = torch.cat([mask, mask.new_ones(len(out), 1)], 1)
        logits = _step(local, cache, mask, best[:, None])[:, -1]
    return out


def _cut(cache: Any, tokens: int) -> None:
    """Forget the last `tokens`. (A positive argument of crop means another thing in other versions of transformers.)"""
    if tokens:
        cache.crop(-tokens)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
