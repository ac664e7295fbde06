"""Intervals, paired tests, prevalence, agreement; pure numpy and scipy.special, no torch.

Intervals of proportions are exact by default (Clopper-Pearson: never below its level). No interval here has zero width
because nothing was hit: no hit in n says that the rate is small, not that it is zero.

`level` is the two-sided confidence level, in (0, 1). Arguments that make no sense raise ValueError: they are mistakes
of the caller and not of a user.
"""

from scotoma.statistics.agreement import cohen_kappa, krippendorff_alpha
from scotoma.statistics.clustered import cluster_sign_test, clustered_difference, clustered_prevalence, clustered_rate
from scotoma.statistics.differences import holm, independent_difference, mcnemar_exact, paired_difference, tango
from scotoma.statistics.intervals import (
    Interval,
    bootstrap_mean,
    clopper_pearson,
    expected_width,
    prompts_needed,
    proportion,
    sample_size,
    wilson,
)
from scotoma.statistics.prevalence import Compounded, Counted, any_of, beyond, rogan_gladen

__all__ = [
    "Compounded",
    "Counted",
    "Interval",
    "any_of",
    "beyond",
    "bootstrap_mean",
    "clopper_pearson",
    "cluster_sign_test",
    "clustered_difference",
    "clustered_prevalence",
    "clustered_rate",
    "cohen_kappa",
    "expected_width",
    "holm",
    "independent_difference",
    "krippendorff_alpha",
    "mcnemar_exact",
    "paired_difference",
    "prompts_needed",
    "proportion",
    "rogan_gladen",
    "sample_size",
    "tango",
    "wilson",
]
