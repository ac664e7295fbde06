"""Erasure methods: one method, one file. METHODS is the list that the contract tests, the API and the CLI read."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from scotoma.errors import UsageError, unknown_name


@dataclass(frozen=True)
class Method:
    """A method by the place of its code, which is imported when it is first used.

    `run(model, concepts, instead, config, *, seed, observe=None, folder=None) -> Edit` is what every method offers. One
    that trains names what else it is `handed`: `observe`, which it calls along the way, `classify`, a classifier of
    pictures, `heat`, which says where in a picture a concept is, `unedited`, the model
    before any Edit, `retain`, names that are to stay, `also`, conditions that mean the concept too, `captions`, many prompts
    without the concepts, with `plain` ones that name no style.
    """

    summary: str  # one sentence: what it changes and how
    module: str  # inside scotoma.erasure, never taken from a user
    config_name: str
    families: tuple[str, ...]
    layers: str  # group of models.layers that it edits, or edits a part of
    handed: tuple[str, ...] = ()
    leaves: Literal["alternative", "mosaic"] = "alternative"  # in a concept's place; "mosaic" takes no alternative

    @property
    def trains(self) -> bool:
        return "observe" in self.handed

    @property
    def run(self) -> Callable[..., Any]:
        run: Callable[..., Any] = self._code().run
        return run

    @property
    def config(self) -> type:
        """The dataclass of its settings, with help texts in the metadata of the fields."""
        config: type = getattr(self._code(), self.config_name)
        return config

    def _code(self) -> Any:
        return importlib.import_module(f"scotoma.erasure.{self.module}")


METHODS: dict[str, Method] = {
    "uce": Method(
        summary="Edits cross-attention keys and values in closed form, in seconds; many concepts at once.",
        module="uce",
        config_name="UCEConfig",
        families=("sd1", "sd2", "sdxl"),
        layers="xattn-kv",
    ),
    "esd": Method(
        summary="Trains the concept's prediction to point away from it; a baseline, minutes on a small model.",
        module="esd",
        config_name="ESDConfig",
        families=("label-unet", "sd1", "sd2", "sdxl"),
        layers="full",
        handed=("observe", "retain", "also"),
    ),
    "concept_ablation": Method(
        summary="Trains the concept's prediction to be that of its alternative; a baseline, minutes on a small model.",
        module="concept_ablation",
        config_name="ConceptAblationConfig",
        families=("label-unet", "sd1", "sd2", "sdxl"),
        layers="full",
        handed=("observe", "retain", "also"),
    ),
    "all_but_one": Method(
        summary="Trains the concept's guidance to be its alternative's and holds the unconditional score still; minutes.",
        module="all_but_one",
        config_name="AllButOneConfig",
        families=("label-unet", "sd1", "sd2", "sdxl"),
        layers="full",
        handed=("observe", "retain", "also"),
    ),
    "safegen": Method(
        summary="Trains self-attention to draw a mosaic where the concept would be, whatever the text; minutes.",
        module="safegen",
        config_name="SafeGenConfig",
        families=("label-unet", "sd1", "sd2", "sdxl"),
        layers="selfattn",
        handed=("observe", "heat", "unedited", "retain"),
        leaves="mosaic",
    ),
    "sfd": Method(
        summary="Trains a one-call student that has forgotten, from conditions alone; minutes on a small model.",
        module="sfd",
        config_name="SFDConfig",
        families=("label-unet", "sd1", "sd2"),
        layers="full",
        handed=("observe", "classify", "captions"),
    ),
}


def methods(names: str) -> list[str]:
    """ "all-but-one,safegen" to the names in METHODS, in that order. Raises UsageError for one that is not there, or twice."""
    found = [name.strip().replace("-", "_") for name in names.split(",")]
    for name in found:
        method(name)
    if len(set(found)) != len(found):
        raise UsageError(f"a method is named twice in {names!r}; name it once")
    return found


def method(name: str) -> Method:
    """Raises UsageError for a name that is not in METHODS, with the nearest that is."""
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    return METHODS[name]


__all__ = ["METHODS", "Method", "method", "methods"]
