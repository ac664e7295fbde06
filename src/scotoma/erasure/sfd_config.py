"""What SFD may be told: its settings, their defaults and what of them fits together."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from scotoma.erasure.prompts import check_templates
from scotoma.errors import UsageError
from scotoma.models.model import Model

TEXT_ONLY = ("templates", "retain", "retain_file", "products")  # settings that a label-conditional model has no use for
# Settings that change nothing in the training that a checkpoint goes on with.
UNTRAINED = ("keep", "observe_every", "patience", "checkpointing", "offload")


@dataclass(frozen=True)
class SFDConfig:
    """What `run` may be told. Every field has its help in its metadata."""

    iterations: int = field(default=500, metadata={"help": "updates of each network; with two stages, of the second"})
    minutes: float = field(
        default=0.0, metadata={"help": "above 0: as many iterations as fit into this time, instead of `iterations`"}
    )
    kept: int = field(default=32, metadata={"help": "samples of kept conditions in each iteration, over all processes"})
    forgotten: int = field(default=8, metadata={"help": "samples of forgotten conditions in each iteration"})
    at_once: int = field(default=0, metadata={"help": "samples in one pass, gradients are accumulated; 0: all of them"})
    alpha: float = field(default=1.0, metadata={"help": "weight of the score difference in the student's loss"})
    forget_weight: float = field(default=0.1, metadata={"help": "of forgotten samples in the student's loss"})
    forget_weight_score: float = field(default=0.1, metadata={"help": "of forgotten samples in the score's loss"})
    alternative: Literal["given", "mixture", "classifier"] = field(
        default="given",
        metadata={
            "help": "given: what --instead names; mixture: the kept conditions, evenly, as also where a class has no "
            "--instead; classifier: what a classifier sees in the score's picture, the forgotten classes left out"
        },
    )
    gradient: Literal["sid", "diff_instruct"] = field(
        default="sid", metadata={"help": "sid: through both networks; diff_instruct: both held still, alpha unused"}
    )
    share: Literal["passes", "samples", "score_first", "nothing"] = field(
        default="passes",
        metadata={
            "help": "what one sample serves. passes: both losses, on the same noisy states; samples: first the student's, "
            "then the score's, noised anew; score_first: the reverse, which is biased; nothing: as published"
        },
    )
    tie: float = field(
        default=0.2,
        metadata={
            "help": "weight with which a forgotten sample is drawn to what the student draws for its one alternative"
        },
    )
    hold_time: bool = field(
        default=True,
        metadata={"help": "the student hears its own time whatever it is told, for samplers of many steps"},
    )
    other_times: float = field(
        default=-1.0,
        metadata={
            "help": "weight of forgetting at other times than the student's own as well; -1: 1 where there is no one "
            "alternative to tie to, else 0"
        },
    )
    lr: float = field(default=1e-4, metadata={"help": "learning rate of the student"})
    lr_score: float = field(default=3e-4, metadata={"help": "learning rate of the score"})
    lr_falls: bool = field(default=True, metadata={"help": "both fall to 2 % along a half cosine"})
    warmup: int = field(default=10, metadata={"help": "iterations in which both rise to their value"})
    clip: float = field(default=1.0, metadata={"help": "largest value of a gradient's entries, both networks"})
    ema: float = field(
        default=0.1, metadata={"help": "horizon of the student's moving average, as a share of the run; 0: none"}
    )
    sigma_init: float = field(default=2.5, metadata={"help": "noise level at which the student draws"})
    sigma_min: float = field(default=0.14, metadata={"help": "lowest noise level of the losses"})
    sigma_max: float = field(default=13.0, metadata={"help": "highest noise level of the losses"})
    stages: Literal[0, 1, 2] = field(
        default=0,
        metadata={"help": "1: distil and forget together; 2: distil everything first; 0: 2 for text, 1 for labels"},
    )
    start: str = field(
        default="",
        metadata={
            "help": "a one-call generator, a folder or zoo:NAME, in place of the first of two stages; empty: the zoo's own, "
            "where a model of the zoo has one; none: no"
        },
    )
    distil_iterations: int = field(default=500, metadata={"help": "of the first of two stages, without a start"})
    templates: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "text: prompts with {} for the concept and, the same, for its alternative; {kept} stands for kept "
            "prompts; empty: some that fit an object, or a style"
        },
    )
    products: str = field(
        default="",
        metadata={
            "help": "text: a YAML file of subjects and keywords: a subject with a keyword becomes the bare subject, all "
            "keywords its negative prompt; templates, if given beside it, have that too; stand-ins: an example that ships"
        },
    )
    retain: tuple[str, ...] = field(
        default=(), metadata={"help": "text: kept prompts; empty: captions, where the zoo's model has some"}
    )
    retain_file: str = field(default="", metadata={"help": "text: a file of kept prompts, one a line, as well"})
    guidance_training: float = field(
        default=0.0,
        metadata={
            "help": "of the score in its own loss; 0: the start's, or else the model's own, for text, 1 (none) for labels"
        },
    )
    guidance_score: float = field(
        default=0.0, metadata={"help": "of the score in the student's loss; 0: as guidance_training"}
    )
    guidance_teacher: float = field(
        default=0.0,
        metadata={"help": "of the teacher; 0: the start's, or else the model's own, for text, 1 (none) for labels"},
    )
    guidance_negative: float = field(
        default=0.0,
        metadata={
            "help": "text: of the teacher where it is guided away from a negative prompt; 0: as guidance_teacher, or where that "
            "is none the model's own"
        },
    )
    untold: float = field(
        default=0.1, metadata={"help": "share of samples whose score is trained on no prompt, where it is guided"}
    )
    negatives: Literal["teacher", "all"] = field(
        default="teacher", metadata={"help": "who is guided away from a negative prompt; all: the score as well"}
    )
    keep: Literal["student", "score"] = field(
        default="student",
        metadata={"help": "what the Edit makes of the model: one call, or many with the score network"},
    )
    precision: Literal["float32", "bfloat16"] = field(
        default="float32", metadata={"help": "of the networks' products; weights, losses and noise stay in float32"}
    )
    checkpointing: bool = field(
        default=False, metadata={"help": "compute networks twice to hold less: a third more time"}
    )
    offload: bool = field(
        default=False,
        metadata={"help": "the teacher waits on the CPU while the score learns, and the model all the time"},
    )
    frozen: Literal["float32", "bfloat16"] = field(
        default="float32", metadata={"help": "numbers in which weights that do not learn are held"}
    )
    optimiser: Literal["adam", "lean", "adam8bit"] = field(
        default="adam",
        metadata={"help": "lean: the same without its first moment; adam8bit: of your own install of bitsandbytes"},
    )
    score_rank: int = field(
        default=0, metadata={"help": "above 0: of the score network, factors of this rank learn alone (LoRA)"}
    )
    observe_every: int = field(default=100, metadata={"help": "iterations between two points of the curve; 0: none"})
    patience: int = field(
        default=0, metadata={"help": "points of the curve without progress after which to stop early; 0: never"}
    )

    def __post_init__(self) -> None:
        def require(condition: bool, name: str, need: str) -> None:
            if not condition:
                raise UsageError(f"sfd: {name} must be {need}, got {getattr(self, name)!r}")

        for name in ("iterations", "kept", "forgotten", "warmup", "distil_iterations"):
            require(getattr(self, name) >= 1, name, "1 or more")
        for name in (
            "minutes",
            "at_once",
            "forget_weight",
            "forget_weight_score",
            "tie",
            "observe_every",
        ):
            require(0 <= getattr(self, name) < float("inf"), name, "0 or more")
        for name in (
            "guidance_training",
            "guidance_score",
            "guidance_teacher",
            "guidance_negative",
            "patience",
            "score_rank",
        ):
            require(0 <= getattr(self, name) < float("inf"), name, "0 or more")
        require(self.other_times == -1 or 0 <= self.other_times < float("inf"), "other_times", "0 or more, or -1")
        for name in ("lr", "lr_score", "clip"):
            require(0 < getattr(self, name) < float("inf"), name, "above 0")
        require(0 <= self.ema < 1, "ema", "0 or more and below 1")
        require(0 <= self.untold <= 1, "untold", "between 0 and 1")
        require(0 < self.sigma_min < self.sigma_init < self.sigma_max, "sigma_init", "between sigma_min and sigma_max")
        for name, kind in SFDConfig.__annotations__.items():
            if kind.startswith("Literal["):
                known = kind.removeprefix("Literal[").removesuffix("]")
                require(repr(getattr(self, name)) in known.replace('"', "'").split(", "), name, f"one of {known}")
        check_templates(self.templates, "sfd")
        if self.start not in ("", "none") and self.stages == 1:
            raise UsageError(
                "sfd: one stage distils from the beginning and has no start; leave start out, or take stages=2"
            )
        if self.keep == "score" and self.score_rank:
            raise UsageError("sfd: a score of low rank is for the training alone; take keep=student, or score_rank=0")

    def resolved(self, model: Model, start: Model | None = None) -> SFDConfig:
        """Stages and guidance as they will be. Raises UsageError for a model or a setting that does not fit."""
        if model.family.name not in ("label-unet", "sd1", "sd2"):
            raise UsageError(
                f"sfd distils SD 1.x, SD 2.x and label-conditional models, and {model.name} is {model.family.name}"
            )
        given = [name for name in TEXT_ONLY if getattr(self, name)]
        if model.labels and given:
            raise UsageError(f"sfd: {model.name} is told labels, and {given[0]} is for texts; leave it out")
        if not model.labels and self.alternative == "classifier":
            raise UsageError(
                "sfd: nobody classifies the pictures of a model of texts; choose alternative given or mixture"
            )
        own = 1.0 if model.labels else (start or model).guidance
        training = self.guidance_training or own
        score, teacher = self.guidance_score or training, self.guidance_teacher or own
        if self.negatives == "all" and training == score == 1:
            raise UsageError(
                "sfd: negatives=all guides the score away from a negative prompt, and it is not guided; set "
                "guidance_training above 1, or negatives to teacher"
            )
        return dataclasses.replace(
            self,
            stages=self.stages or (1 if model.labels else 2),
            guidance_training=training,
            guidance_score=score,
            guidance_teacher=teacher,
            guidance_negative=self.guidance_negative or (teacher if teacher != 1 or model.labels else model.guidance),
        )
