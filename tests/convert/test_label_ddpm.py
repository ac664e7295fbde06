"""Checkpoints of the label-conditional DDPMs: against a second implementation of their network, written as formulas."""

from __future__ import annotations

import importlib.util
import math
import pickle
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from scotoma.errors import ModelError
from scotoma.models.load import load
from scotoma.models.student import one_step

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/convert/label_ddpm.py"
WIDTH, MULTIPLES, BLOCKS, SIZE, CLASSES = 32, (1, 2), 1, 8, 3
ATTENDS = (False, True)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("label_ddpm", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names_and_shapes():
    """Every tensor of the network, by the names of its authors' code."""
    emb = 4 * WIDTH

    def conv(name, n_in, n_out, k):
        return {f"{name}.weight": (n_out, n_in, k, k), f"{name}.bias": (n_out,)}

    def linear(name, n_in, n_out):
        return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}

    def norm(name, n):
        return {f"{name}.weight": (n,), f"{name}.bias": (n,)}

    def block(name, n_in, n_out):
        out = norm(f"{name}.norm1", n_in) | conv(f"{name}.conv1", n_in, n_out, 3) | norm(f"{name}.norm2", n_out)
        out |= conv(f"{name}.conv2", n_out, n_out, 3) | linear(f"{name}.temb_cemb_proj", 2 * emb, n_out)
        return out | (conv(f"{name}.nin_shortcut", n_in, n_out, 1) if n_in != n_out else {})

    def attention(name, n):
        out = norm(f"{name}.norm", n)
        for part in ("q", "k", "v", "proj_out"):
            out |= conv(f"{name}.{part}", n, n, 1)
        return out

    shapes = linear("temb.dense.0", WIDTH, emb) | linear("temb.dense.1", emb, emb)
    shapes |= linear("cemb.dense.0", WIDTH, emb) | linear("cemb.dense.1", emb, emb)
    shapes |= {"classes_emb.weight": (CLASSES, WIDTH), "null_classes_emb": (WIDTH,)}
    shapes |= conv("conv_in", 3, WIDTH, 3)
    widths = [WIDTH * m for m in MULTIPLES]
    last = WIDTH
    for i, w in enumerate(widths):
        for j in range(BLOCKS):
            shapes |= block(f"down.{i}.block.{j}", last, w)
            last = w
            if ATTENDS[i]:
                shapes |= attention(f"down.{i}.attn.{j}", w)
        if i < len(widths) - 1:
            shapes |= conv(f"down.{i}.downsample.conv", w, w, 3)
    for j in (1, 2):
        shapes |= block(f"mid.block_{j}", last, last)
    shapes |= attention("mid.attn_1", last)
    skips = [WIDTH, *widths]
    for i in reversed(range(len(widths))):
        for j in range(BLOCKS + 1):
            skip = skips[i] if j == BLOCKS else widths[i]
            shapes |= block(f"up.{i}.block.{j}", last + skip, widths[i])
            last = widths[i]
            if ATTENDS[i]:
                shapes |= attention(f"up.{i}.attn.{j}", last)
        if i:
            shapes |= conv(f"up.{i}.upsample.conv", last, last, 3)
    return shapes | norm("norm_out", last) | conv("conv_out", last, 3, 3)


def forward(s, x, t, labels):
    """The authors' forward pass as formulas; label CLASSES is the null embedding."""

    def linear(name, h):
        return F.linear(h, s[f"{name}.weight"], s[f"{name}.bias"])

    def conv(name, h, **options):
        return F.conv2d(h, s[f"{name}.weight"], s[f"{name}.bias"], **options)

    def norm(name, h):
        return F.group_norm(h, 32, s[f"{name}.weight"], s[f"{name}.bias"], 1e-6)

    half = WIDTH // 2
    freqs = torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))
    angles = t.float()[:, None] * freqs
    temb = linear("temb.dense.1", F.silu(linear("temb.dense.0", torch.cat([angles.sin(), angles.cos()], 1))))
    rows = torch.cat([s["classes_emb.weight"], s["null_classes_emb"][None]])[labels]
    cemb = linear("cemb.dense.1", F.silu(linear("cemb.dense.0", rows)))

    def block(name, h):
        y = conv(f"{name}.conv1", F.silu(norm(f"{name}.norm1", h)), padding=1)
        y = y + linear(f"{name}.temb_cemb_proj", F.silu(torch.cat([temb, cemb], 1)))[:, :, None, None]
        y = conv(f"{name}.conv2", F.silu(norm(f"{name}.norm2", y)), padding=1)
        return y + (conv(f"{name}.nin_shortcut", h) if f"{name}.nin_shortcut.weight" in s else h)

    def attention(name, h):
        q, k, v = (conv(f"{name}.{p}", norm(f"{name}.norm", h)).flatten(2) for p in "qkv")
        a = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / q.shape[1] ** 0.5, dim=2)
        return h + conv(f"{name}.proj_out", torch.einsum("bij,bcj->bci", a, v).view_as(h))

    h = conv("conv_in", x, padding=1)
    kept = [h]
    for i in range(len(MULTIPLES)):
        for j in range(BLOCKS):
            h = block(f"down.{i}.block.{j}", h)
            h = attention(f"down.{i}.attn.{j}", h) if ATTENDS[i] else h
            kept.append(h)
        if i < len(MULTIPLES) - 1:
            h = conv(f"down.{i}.downsample.conv", F.pad(h, (0, 1, 0, 1)), stride=2)
            kept.append(h)
    h = block("mid.block_2", attention("mid.attn_1", block("mid.block_1", h)))
    for i in reversed(range(len(MULTIPLES))):
        for j in range(BLOCKS + 1):
            h = block(f"up.{i}.block.{j}", torch.cat([h, kept.pop()], 1))
            h = attention(f"up.{i}.attn.{j}", h) if ATTENDS[i] else h
        if i:
            h = conv(f"up.{i}.upsample.conv", F.interpolate(h, scale_factor=2.0, mode="nearest"), padding=1)
    return conv("conv_out", F.silu(norm("norm_out", h)), padding=1)


def random_state(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {n: 0.1 * torch.randn(shape, generator=generator) for n, shape in names_and_shapes().items()}


def test_the_converted_network_is_the_same_function(script):
    state = random_state()
    unet = script.convert(state, SIZE).eval()
    generator = torch.Generator().manual_seed(1)
    x, t = torch.randn(4, 3, SIZE, SIZE, generator=generator), torch.tensor([0, 17, 440, 999])
    labels = torch.tensor([0, 1, 2, CLASSES])
    with torch.no_grad():
        ours, theirs = unet(x, t, class_labels=labels).sample, forward(state, x, t, labels)
    assert theirs.std() > 0.01
    assert torch.allclose(ours, theirs, atol=1e-5)


def convert(script, monkeypatch, path, *options):
    out = path.with_suffix("")
    words = [str(path), "--classes", "a,b,c", "--size", str(SIZE), "--out", str(out), *options]
    monkeypatch.setattr("sys.argv", ["label_ddpm.py", *words])
    script.main()
    return load(out)


def test_a_trained_network_is_its_moving_average(script, tmp_path, monkeypatch):
    """[network of a DataParallel, optimiser, step, moving average]: the average is what those projects sample from."""
    average = random_state(1)
    torch.save([{f"module.{k}": v for k, v in random_state(0).items()}, {}, 7, average], tmp_path / "ckpt.pth")
    model = convert(script, monkeypatch, tmp_path / "ckpt.pth")
    assert model.labels == ["a", "b", "c"] and not one_step(model.scheduler)
    assert model.unet.conv_in.weight.equal(average["conv_in.weight"])


def test_a_student_and_its_score(script, tmp_path, monkeypatch):
    states = [random_state(i) for i in range(3)]
    torch.save([states[0], {}, states[1], {}, 7, states[2]], tmp_path / "student.pth")
    student = convert(script, monkeypatch, tmp_path / "student.pth")
    assert one_step(student.scheduler) and student.scheduler.config.num_train_timesteps == 441
    assert student.unet.conv_in.weight.equal(states[2]["conv_in.weight"])
    score = convert(script, monkeypatch, tmp_path / "student.pth", "--which", "score")
    assert not one_step(score.scheduler) and score.unet.conv_in.weight.equal(states[0]["conv_in.weight"])


class Code:
    """What a checkpoint must not hold: something that is built by calling it."""

    def __reduce__(self):
        return (print, ("this must not run",))


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(script, tmp_path, monkeypatch, capsys):
    (tmp_path / "bad.pth").write_bytes(pickle.dumps([random_state(), Code()]))
    torch.save([random_state(), Code()], tmp_path / "worse.pth")
    for name in ("bad", "worse"):
        with pytest.raises(SystemExit, match="no checkpoint of plain tensors"):
            convert(script, monkeypatch, tmp_path / f"{name}.pth")
    assert "this must not run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: {"a": torch.zeros(1)}, "has no tensor 'conv_in.weight'"),
        (lambda: [1, 2, 3, 4], "does not hold a network"),
        (lambda: [{k: v for k, v in random_state().items() if k != "mid.attn_1.q.bias"}], "mid.attn_1.q.bias"),
        (lambda: [random_state() | {"mid.attn_1.q.bias": torch.zeros(3)}], "does not fit the network .*to_q.bias"),
    ],
)
def test_another_checkpoint_is_named(script, tmp_path, monkeypatch, content, message):
    torch.save(content(), tmp_path / "other.pth")
    with pytest.raises(SystemExit, match=message):
        convert(script, monkeypatch, tmp_path / "other.pth")


def test_names_must_fit_the_classes(script):
    unet = script.convert(random_state(), SIZE)
    with pytest.raises(ModelError, match="knows 3 classes, --classes names 2"):
        script.wrap(unet, ["a", "b"], SIZE)


def test_a_single_network_has_no_score(script, tmp_path):
    torch.save([random_state(), {}, 1, random_state()], tmp_path / "one.pth")
    with pytest.raises(ModelError, match="no score network"):
        script.read(tmp_path / "one.pth", "score")
