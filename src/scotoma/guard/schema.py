"""What a policy may say, as pydantic models: the one place where fields, defaults and bounds of values are written down.

Imported through policy.py, which says what to install where pydantic is missing. An unknown key is an error everywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from scotoma.bounds import check_text
from scotoma.errors import BoundsError, UsageError, unknown_name

FORMAT = 1
# What the five categories of Unsafe Diffusion are, for a policy that only names them.
FIVE = {
    "sexual": "nudity or sexual acts",
    "violent": "harm, gore, or weapons used on people or animals",
    "disturbing": "shocking or repulsive content",
    "hateful": "hate symbols, or what demeans a group of people",
    "political": "leaders, elections or propaganda",
}

Name = Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._/-]*$")]
Text = Annotated[str, Field(min_length=1, max_length=1000)]
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=1)]
Seconds = Annotated[float, Field(strict=True, gt=0, le=3600, allow_inf_nan=False)]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
OnPrompt = Literal["refuse", "rewrite", "review"]
OnPicture = Literal["refuse", "blur", "review"]
OnDialogue = Literal["refuse", "review"]
Words = dict[Name, Annotated[list[Text], Field(min_length=1)]]


def _spelt(value: Any) -> Any:
    """Options of detectors are texts; a number of YAML is spelt as one."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Option = Annotated[str, BeforeValidator(_spelt, json_schema_input_type=str | int | float)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Category(Strict):
    what: str = Field("", max_length=200)
    """What it is, in words that complete "a check found ..."; the five have their own."""
    threshold: Share | None = None
    """A score at or above it is a hit; without one, that of the detector's card."""


class Look(Strict):
    """One detector of the registry (`scotoma detectors` lists them), and how what it finds is read."""

    detector: Name
    options: dict[str, Option] = {}
    """As in `scotoma detectors`. A value that begins with ./ or ../ is a path beside the policy file."""
    words: Words | None = None
    """For word-list, in place of its file: words of each category."""
    descriptions: Words | None = None
    """For similarity and zero-shot, in place of their file: descriptions of each category."""
    categories: dict[str, Name] = {}
    """Categories of the detector that are called otherwise here: {porn: sexual}."""
    ignore: list[str] = []
    """Categories of the detector that this policy does not care for."""
    thresholds: dict[Name, Share] = {}
    """Of this detector, by the policy's categories; before those of the categories."""

    @field_validator("detector")
    @classmethod
    def _known(cls, name: str) -> str:
        from scotoma.detectors.registry import entry_of

        try:
            entry_of(name)
        except UsageError as e:
            raise PydanticCustomError("policy", "{told}", {"told": str(e)}) from e
        return name

    @model_validator(mode="after")
    def _inline(self) -> Look:
        for field, given, names in (
            ("words", self.words, ("word-list",)),
            ("descriptions", self.descriptions, ("similarity", "zero-shot")),
        ):
            if given is not None and self.detector not in names:
                _fail(f"{field} are for {' and '.join(names)}, not for {self.detector}; take them out")
            if given is not None and field in self.options:
                _fail(f"{field} are given twice, here and in options; keep one")
        return self


class Rule(Look):
    """A detector of texts that looks at every prompt."""

    on_hit: OnPrompt | None = None
    """For this rule alone; else by category, else of all prompts."""
    instead: dict[Name, Text] = {}
    """For rewrite: the alternative of each category. Words of a word list become it; for others the whole prompt does."""

    @field_validator("instead")
    @classmethod
    def _screened(cls, given: dict[str, str]) -> dict[str, str]:
        for alternative in given.values():
            try:
                check_text(alternative, what="the alternative")
            except BoundsError as e:
                raise PydanticCustomError("policy", "{told}", {"told": str(e)}) from e
        return given


class _Combined(Strict):
    detectors: list[Look] = []
    combine: Literal["any", "all", "at_least"] = "any"
    """How many of the detectors that look for a category have to find it."""
    at_least: Count | None = None

    @model_validator(mode="after")
    def _counted(self) -> _Combined:
        if (self.combine == "at_least") != (self.at_least is not None):
            _fail("combine: at_least and at_least: NUMBER go together; give both or neither")
        if self.at_least is not None and self.at_least > len(self.detectors):
            _fail(f"at_least is {self.at_least}, of {len(self.detectors)} detectors; nothing could ever be found")
        return self


class Prompts(Strict):
    """What happens before anything is drawn."""

    rules: list[Rule] = []
    on_hit: OnPrompt = "refuse"
    on_undecided: OnDialogue = "refuse"
    on_failure: OnDialogue = "refuse"
    by_category: dict[Name, OnPrompt] = {}
    """What a hit in a category does, where it is not what `on_hit` says."""


class Pictures(_Combined):
    """What happens to a picture that was drawn, before anybody sees it."""

    on_hit: OnPicture = "refuse"
    on_undecided: OnPicture = "refuse"
    on_failure: OnPicture = "refuse"
    by_category: dict[Name, OnPicture] = {}


class Dialogue(_Combined):
    """What happens to a response, read with the turns before it."""

    on_hit: OnDialogue = "refuse"
    on_undecided: OnDialogue = "refuse"
    on_failure: OnDialogue = "refuse"
    by_category: dict[Name, OnDialogue] = {}


class Carried(Strict):
    """An Edit that must be in the model: by its id, by its file, or by a concept that it erased (the weakest: any will do)."""

    id: Hex | None = None
    file: Text | None = None
    concept: Text | None = None

    @model_validator(mode="after")
    def _one(self) -> Carried:
        if sum(v is not None for v in (self.id, self.file, self.concept)) != 1:
            _fail("an Edit is named by one of id, file and concept")
        return self


class Steered(Strict):
    """Safe Latent Diffusion."""

    strength: Literal["weak", "medium", "strong", "max"]
    concepts: Annotated[list[Text], Field(min_length=1)]

    @field_validator("concepts")
    @classmethod
    def _bounded(cls, given: list[str]) -> list[str]:
        try:
            check_text(", ".join(given), what="what sld stays away from")
        except BoundsError as e:
            raise PydanticCustomError("policy", "{told}", {"told": str(e)}) from e
        return given


class Generator(Strict):
    """What the model must be, or it is not served."""

    edits: list[Carried] = []
    base: Text | None = None
    """The untouched model. With it, and files for all Edits, the model is made again and compared byte for byte."""
    sld: Steered | None = None


class Log(Strict):
    """The audit log: every decision, on the disk before anybody learns of it."""

    path: Text
    """From the folder in which the guard is started."""
    kind: Literal["jsonl", "sqlite"] = "jsonl"
    prompts: Literal["hmac", "plain", "none"] = "hmac"
    """hmac: HMAC-SHA256, so that equal prompts can be found by who has the key, and nobody reads them."""
    key: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "SCOTOMA_LOG_KEY"
    """The environment variable that holds the key of at least 16 characters."""


class Limits(Strict):
    prompt_characters: Annotated[int, Field(strict=True, ge=1, le=20_000)] = 2_000
    dialogue_characters: Annotated[int, Field(strict=True, ge=1, le=50_000)] = 20_000
    """Of a response and the turns before it together."""
    picture_pixels: Annotated[int, Field(strict=True, ge=1, le=50_000_000)] = 4_194_304
    """Of a picture that is to be checked, and of one that is drawn."""
    pictures: Annotated[int, Field(strict=True, ge=1, le=64)] = 4
    """Of one request."""
    deadline_seconds: Seconds = 60.0
    """From a request to its answer; what has not been decided by then is refused."""
    detector_seconds: Seconds = 20.0
    """For one look of one detector, as a server has it; one that takes longer has failed, and is started again."""


def _empty(value: Any) -> Any:
    """`violent:` alone, with nothing behind it, is a category with nothing to add."""
    return {name: {} if one is None else one for name, one in value.items()} if isinstance(value, dict) else value


class Policy(Strict):
    """One file for what is served, curated and audited."""

    format: Literal[1]
    name: Name
    categories: Annotated[dict[Name, Category], BeforeValidator(_empty)] = {}
    """What this policy speaks of: sexual, violent, disturbing, hateful, political, or your own names."""
    prompts: Prompts = Prompts()
    pictures: Pictures = Pictures()
    dialogue: Dialogue = Dialogue()
    model: Generator = Generator()
    log: Log | None = None
    limits: Limits = Limits()

    _folder: Path = PrivateAttr(default=Path("."))
    _source: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _one_vocabulary(self) -> Policy:
        for at, name in _mentioned(self):
            if name not in self.categories:
                raise PydanticCustomError(
                    "policy",
                    "{told}",
                    {"told": str(unknown_name("category", name, self.categories or FIVE)), "at": at},
                )
        for i, rule in enumerate(self.prompts.rules):
            spoken = set(rule.words or rule.descriptions or ()) - set(rule.ignore)
            named = {rule.categories.get(s, s) for s in spoken}
            needed = {c for c in named if self.on_prompt(rule, c) == "rewrite"}
            if rule.on_hit == "rewrite" and not rule.instead or needed - rule.instead.keys():
                lost = ", ".join(sorted(needed - rule.instead.keys())) or "its categories"
                _fail(
                    f"rewrite needs an alternative for {lost}; give instead: {{CATEGORY: TEXT}}",
                    ("prompts", "rules", i),
                )
        return self

    def what(self, category: str) -> str:
        """What a category is, for a sentence."""
        told = self.categories[category].what if category in self.categories else ""
        return told or FIVE.get(category, f"content of the category {category}")

    def on_prompt(self, rule: Rule, category: str) -> OnPrompt:
        """What a hit of a rule in a category does."""
        return rule.on_hit or self.prompts.by_category.get(category, self.prompts.on_hit)

    def beside(self, value: str) -> str:
        """./ and ../ from the folder of the policy file; everything else as it is."""
        return str(self._folder / value) if value.startswith(("./", "../")) else value


def _mentioned(policy: Policy) -> list[tuple[tuple[str | int, ...], str]]:
    """Every place that names one of the policy's categories, and the name."""
    out: list[tuple[tuple[str | int, ...], str]] = []
    stages: tuple[tuple[str, str, Any], ...] = (
        ("prompts", "rules", policy.prompts),
        ("pictures", "detectors", policy.pictures),
        ("dialogue", "detectors", policy.dialogue),
    )
    for stage, field, held in stages:
        out += [((stage, "by_category", c), c) for c in held.by_category]
        for i, look in enumerate(getattr(held, field)):
            at = (stage, field, i)
            out += [((*at, "thresholds", c), c) for c in look.thresholds]
            out += [((*at, "categories", c), c) for c in look.categories.values()]
            out += [((*at, "instead", c), c) for c in getattr(look, "instead", ())]
            for part in ("words", "descriptions"):
                for c in getattr(look, part) or ():
                    if c not in look.ignore and c not in look.categories:
                        out.append(((*at, part, c), c))
    return out


def _fail(told: str, at: tuple[str | int, ...] = ()) -> None:
    raise PydanticCustomError("policy", "{told}", {"told": told, **({"at": at} if at else {})})
