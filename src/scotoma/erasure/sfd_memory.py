"""What SFD can do without, where memory is short: levers on networks, optimisers and the average.

What a run at the size of SD 1.5 holds with and without them is counted by sfd_plan.py (`scotoma doctor --plan sfd MODEL`).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from scotoma.erasure.sfd_config import SFDConfig
from scotoma.erasure.sfd_losses import Nets, network
from scotoma.errors import MissingExtraError, UsageError

BETAS = (0.0, 0.999)


def lightened(nets: Nets, config: SFDConfig, seed: int) -> Nets:
    """`nets` with the levers of `config`, in place where they are of a network.

    Raises MissingExtraError where a score of low rank needs peft.
    """
    if config.score_rank:
        low_rank(network(nets.score), config.score_rank, seed)
    if config.checkpointing:
        for net in nets[:3]:
            network(net).enable_gradient_checkpointing()  # type: ignore[operator]
    if config.frozen == "bfloat16":
        for net in (nets.teacher, nets.score):
            for p in network(net).parameters():
                if not p.requires_grad:
                    p.data = p.data.to(torch.bfloat16)
    if config.offload:
        network(nets.teacher).to("cpu")
    return nets._replace(waits=config.offload)


def low_rank(unet: nn.Module, rank: int, seed: int) -> None:
    """W + B A in place of every weight W of a linear layer or convolution, in place; A (rank, in) is random by `seed`, B
    (out, rank) is 0, and they alone learn. Hu et al., "LoRA", 2022, with a scale of 1."""
    if importlib.util.find_spec("peft") is None:
        raise MissingExtraError("peft", "lora", "a score network of low rank")
    from peft import LoraConfig, inject_adapter_in_model

    unet.requires_grad_(False)
    names = [name for name, module in unet.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % (1 << 63))
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=names), unet)


class Itself:
    """In place of an average (training.EMA) of horizon 0: the module as it is."""

    def __init__(self, module: nn.Module):
        self.module = module

    def update(self, module: nn.Module) -> None:
        pass

    def copy_to(self, module: nn.Module) -> None:
        state = module.state_dict()
        module.load_state_dict({k: v.to(state[k].dtype) for k, v in self.module.state_dict().items()})

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        pass


class LeanAdam(torch.optim.Optimizer):
    """Adam (Kingma and Ba 2015, Algorithm 1) with b_1 = 0, whose first moment is the gradient itself and is not kept:
    v = b_2 v + (1 - b_2) g^2,  p = p - lr g / (sqrt(v / (1 - b_2^i)) + eps)."""

    def __init__(self, params: Sequence[nn.Parameter], lr: float, b2: float = BETAS[1], eps: float = 1e-8):
        super().__init__(params, {"lr": lr, "b2": b2, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            b2 = group["b2"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["step"], state["exp_avg_sq"] = torch.tensor(0.0), torch.zeros_like(p)
                state["step"] += 1
                v = state["exp_avg_sq"].mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
                scale = (v / (1 - b2 ** float(state["step"]))).sqrt_().add_(group["eps"])
                p.addcdiv_(p.grad, scale, value=-group["lr"])


def optimiser(kind: str, params: Sequence[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """`kind` as in the settings. Raises UsageError where bitsandbytes is not installed."""
    if kind == "lean":
        return LeanAdam(params, lr)
    if kind == "adam8bit":
        if importlib.util.find_spec("bitsandbytes") is None:
            raise UsageError(
                "sfd: optimiser adam8bit is of bitsandbytes, which is not installed; install it yourself (pip install "
                "bitsandbytes, it wants a GPU), or take optimiser=lean"
            )
        theirs = importlib.import_module("bitsandbytes").optim
        found: torch.optim.Optimizer = theirs.Adam8bit(params, lr=lr, betas=BETAS, eps=1e-8)
        return found
    return torch.optim.Adam(params, lr=lr, betas=BETAS, eps=1e-8)
