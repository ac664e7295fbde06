"""Judges A and B, by data set: `load_judge("emoji", "a")`. For other models: `zero_shot.load_zero_shot`."""

from scotoma.evaluation.judges.judge import Judge, Judgement, load_judge, read_judge

__all__ = ["Judge", "Judgement", "load_judge", "read_judge"]
