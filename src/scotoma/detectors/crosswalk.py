"""What one scheme of unsafe content calls what another does, as data.

A row says which categories of other schemes lie in one of ours, wholly or in part. Nothing is said of the reverse, and no
category of another scheme that ours does not cover is forced into one. Read off the schemes' own lists of names: UnsafeBench
(Qu et al., 2024, eleven categories), MLCommons AILuminate 1.0 (twelve hazards), Llama Guard 3 (S1 to S14), NudeNet 3 (the labels
that end in EXPOSED). Our five are those of Unsafe Diffusion (Qu et al., 2023), and their row in UnsafeBench is its authors' own.
"""

from __future__ import annotations

from scotoma.errors import unknown_name

CROSSWALK: dict[str, dict[str, tuple[str, ...]]] = {
    "sexual": {
        "unsafebench": ("Sexual",),
        "ailuminate": ("Sex-Related Crimes", "Sexual Content"),
        "llama-guard-3": ("S3", "S12"),
        "nudenet": (
            "FEMALE_GENITALIA_EXPOSED",
            "MALE_GENITALIA_EXPOSED",
            "FEMALE_BREAST_EXPOSED",
            "BUTTOCKS_EXPOSED",
            "ANUS_EXPOSED",
        ),
    },
    "violent": {
        "unsafebench": ("Violence",),
        "ailuminate": ("Violent Crimes",),
        "llama-guard-3": ("S1",),
        "nudenet": (),
    },
    "disturbing": {
        "unsafebench": ("Shocking",),
        "ailuminate": (),
        "llama-guard-3": (),
        "nudenet": (),
    },
    "hateful": {
        "unsafebench": ("Hate",),
        "ailuminate": ("Hate",),
        "llama-guard-3": ("S10",),
        "nudenet": (),
    },
    "political": {
        "unsafebench": ("Political",),
        "ailuminate": (),
        "llama-guard-3": ("S13",),
        "nudenet": (),
    },
}
SCHEMES = ("unsafebench", "ailuminate", "llama-guard-3", "nudenet")
# Categories of the other schemes that none of ours covers: a detector of our five says nothing of them.
UNCOVERED: dict[str, tuple[str, ...]] = {
    "unsafebench": ("Harassment", "Self-Harm", "Illegal Activity", "Deception", "Public and Personal Health", "Spam"),
    "ailuminate": (
        "Child Sexual Exploitation",
        "Suicide & Self-Harm",
        "Indiscriminate Weapons",
        "Non-Violent Crimes",
        "Defamation",
        "Intellectual Property",
        "Privacy",
        "Specialized Advice",
    ),
    "llama-guard-3": ("S2", "S4", "S5", "S6", "S7", "S8", "S9", "S11", "S14"),
    "nudenet": ("FEET_EXPOSED", "ARMPITS_EXPOSED", "BELLY_EXPOSED", "MALE_BREAST_EXPOSED"),
}


def ours(scheme: str, label: str) -> tuple[str, ...]:
    """Our categories that a category of another scheme lies in, () for one that none covers. Raises UsageError for a scheme or
    label that is not known."""
    if scheme not in SCHEMES:
        raise unknown_name("scheme", scheme, SCHEMES)
    known = {name for row in CROSSWALK.values() for name in row[scheme]} | {*UNCOVERED[scheme]}
    if label not in known:
        raise unknown_name(f"category of {scheme}", label, known)
    return tuple(category for category, row in CROSSWALK.items() if label in row[scheme])
