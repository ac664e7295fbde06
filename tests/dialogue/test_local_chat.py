"""A language model on this machine as a Chat: a random model of two layers and a tokenizer of words, made here."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from scotoma.dialogue.annotators import local as module
from scotoma.dialogue.annotators.local import local_chat
from scotoma.errors import MissingExtraError, ModelError, UnsafeFileError, UsageError

WORDS = ["<end>", "<unk>", "system", "user", "assistant", ":", "judge", "this", "text", "by", "the", "rule"] + [
    "yes",
    "no",
    "perhaps",
    "not",
    "so",
    "good",
    "bad",
    "one",
    "two",
    "three",
]
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)
STRICT = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE
CHOICES = ("yes", "perhaps not so")  # one token, three tokens
RULE = {"role": "system", "content": "judge this text by the rule"}
CONVERSATIONS = [
    [RULE, {"role": "user", "content": "good"}],
    [RULE, {"role": "user", "content": "bad bad two three one so"}],
    [RULE, {"role": "user", "content": "not good"}],
    [{"role": "user", "content": "one two three"}],
    [
        RULE,
        {"role": "user", "content": "good"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "so"},
    ],
]


def build(folder: Path, template: str | None = TEMPLATE) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", unk_token="<unk>")
    if template:
        tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=1.0,
        bos_token_id=None,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def plain(folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer as transformers load them."""
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def expected(plain: tuple[Any, Any], conversation: list[dict[str, str]], choice: str) -> tuple[float, int]:
    """The sum of log probabilities from one forward pass over prompt and choice, without cache, padding or batch."""
    model, tokenizer = plain
    text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    prompt, answer = tokenizer.encode(text), tokenizer.encode(choice)
    with torch.no_grad():
        logs = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return sum(float(logs[len(prompt) - 1 + k, t]) for k, t in enumerate(answer)), len(answer)


@pytest.mark.parametrize("settings", [{}, {"batch_size": 1}, {"batch_size": 2}, {"reuse_prefix": False}])
def test_log_probabilities_are_those_of_a_plain_pass(
    folder: Path, plain: tuple[Any, Any], settings: dict[str, Any]
) -> None:
    """In batches of any size, with and without reuse, and again with what is kept from the first time. "yes" is divided by 1,
    "perhaps not so" by 3."""
    chat = local_chat(folder, **settings)
    for _ in range(2):
        for conversation, reply in zip(CONVERSATIONS, chat.complete(CONVERSATIONS, CHOICES), strict=True):
            for choice, count in zip(CHOICES, (1, 3), strict=True):
                total, tokens = expected(plain, conversation, choice)
                assert tokens == count
                assert reply.choices[choice] == pytest.approx(total / count, abs=1e-4)
            assert reply.text == max(CHOICES, key=lambda c: reply.choices[c])
            assert reply.tokens_out == {"yes": 1, "perhaps not so": 3}[reply.text]


def test_logits_are_computed_where_they_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a prompt behind its last token; of "perhaps not so" also behind its first two. A model that gives all says the same."""
    loaded: list[Any] = []
    load = module._load
    monkeypatch.setattr(module, "_load", lambda *given: loaded.append(load(*given)) or loaded[-1])
    chat, widths = local_chat(folder), list[int]()
    loaded[0].model.lm_head.register_forward_pre_hook(lambda _, given: widths.append(given[0].shape[1]))
    replies = chat.complete(CONVERSATIONS, CHOICES)
    assert set(widths) == {1, 2}
    monkeypatch.setattr(module, "_load", lambda *given: dataclasses.replace(load(*given), keeps=False))
    for reply, other in zip(replies, local_chat(folder).complete(CONVERSATIONS, CHOICES), strict=True):
        assert reply.choices == pytest.approx(other.choices, abs=1e-5)


def test_sums_where_they_are_asked_for(folder: Path, plain: tuple[Any, Any]) -> None:
    reply = local_chat(folder, normalise=False).complete(CONVERSATIONS[:1], CHOICES)[0]
    assert reply.choices["perhaps not so"] == pytest.approx(
        expected(plain, CONVERSATIONS[0], "perhaps not so")[0], abs=1e-4
    )


@pytest.mark.parametrize("choices", [(), CHOICES])
def test_generated_text_is_the_greedy_one(folder: Path, plain: tuple[Any, Any], choices: tuple[str, ...]) -> None:
    model, tokenizer = plain
    chat = local_chat(folder, generate=True, max_new_tokens=6, batch_size=3)
    for conversation, reply in zip(CONVERSATIONS, chat.complete(CONVERSATIONS, choices), strict=True):
        text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        ids = torch.tensor([tokenizer.encode(text)])
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, pad_token_id=0
        )
        written = out[0, ids.shape[1] :].tolist()
        written = written[: written.index(0)] if 0 in written else written
        assert reply.text == tokenizer.decode(written, skip_special_tokens=True)
        assert (reply.tokens_in, reply.tokens_out) == (ids.shape[1], len(written))
        assert set(reply.choices) == set(choices)


def test_what_is_too_long_is_a_reply_without_text(folder: Path) -> None:
    """The second conversation: system : 6 words <end> user : 6 words <end> assistant : are 20 tokens; with 3 for the longest
    choice 23. The others have 15, 16, 8 and 23 in their order: the last is too long as well."""
    replies = local_chat(folder, longest=22).complete(CONVERSATIONS, CHOICES)
    assert [r.text is None for r in replies] == [False, True, False, False, True]
    assert replies[1].reason.startswith("20 tokens, and 3 for the answer, are more than the 22")
    assert not replies[1].choices
    assert local_chat(folder).complete([], CHOICES) == []


def test_a_template_without_system_messages(tmp_path: Path, plain: tuple[Any, Any]) -> None:
    chat = local_chat(build(tmp_path / "strict", STRICT))
    merged = [{"role": "user", "content": "judge this text by the rule good"}]
    reply = chat.complete(CONVERSATIONS[:1], CHOICES)[0]
    assert reply.choices["yes"] == pytest.approx(expected(plain, merged, "yes")[0], abs=1e-4)


def test_the_name_changes_with_the_weights(folder: Path, tmp_path: Path) -> None:
    other = build(tmp_path / "tiny")
    model = LlamaForCausalLM.from_pretrained(other)
    assert local_chat(folder).model == local_chat(other).model
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1.0
    model.save_pretrained(other)
    assert local_chat(other).model.startswith("tiny@")
    assert local_chat(folder).model != local_chat(other).model
    assert local_chat(folder, name="mine").model == "mine" and not local_chat(folder).remote


def test_what_cannot_be_loaded_is_named(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="has no chat template"):
        local_chat(build(tmp_path / "base", None))
    with pytest.raises(ModelError, match="neither a folder nor a .gguf file"):
        local_chat(tmp_path / "nothing")
    with pytest.raises(ModelError, match="x.gguf is not there"):
        local_chat(tmp_path / "x.gguf")
    (tmp_path / "x.gguf").write_bytes(b"no model")
    with pytest.raises(ModelError, match="x.gguf cannot be loaded as a causal language model"):
        local_chat(tmp_path / "x.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match="a model in a GGUF file needs gguf"):
        local_chat(tmp_path / "x.gguf")
    (tmp_path / "base" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UnsafeFileError, match="pytorch_model.bin is a pickle"):
        local_chat(tmp_path / "base")
    with pytest.raises(UsageError, match="batch_size and max_new_tokens must be 1 or more, got 0 and 64"):
        local_chat(folder, batch_size=0)
