"""What goes into the server and what comes out, as pydantic models: the fields of the OpenAI API, and what is added to them.

A field that is not known is an error, as it is there. What a request says of quality, style and the like is read and has no effect.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def _whole(text: str) -> str:
    """Halves of characters cannot be written down, hashed or sent on."""
    if not text.isascii() and re.search("[\ud800-\udfff]", text):  # a data URL of megabytes is ASCII
        raise ValueError("holds half of a character")
    return text


def _no(value: object) -> object:
    """For a Literal[False], which 0 is equal to."""
    if value is not False:
        raise ValueError("is not taken here")
    return value


Words = Annotated[str, Field(max_length=50_000), AfterValidator(_whole)]
Short = Annotated[str, Field(max_length=200), AfterValidator(_whole)]
Address = Annotated[str, Field(max_length=100_000_000), AfterValidator(_whole)]


class Described(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class Asked(Described):
    model_config = ConfigDict(extra="forbid", strict=True)


# ------------------------------------------------------------------------------------------------------------- pictures


class ImageRequest(Asked):
    prompt: Annotated[Words, Field(min_length=1)]
    model: Short | None = None
    """What /v1/models names, or nothing."""
    n: Annotated[int, Field(ge=1, le=64)] | None = 1
    size: Annotated[str, Field(pattern=r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$")] | None = None
    """auto, or the size that the model draws."""
    response_format: Literal["b64_json"] | None = None
    output_format: Literal["png"] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """Of the first picture; the next has the next one. An addition to the API: with the official client extra_body={"seed": 7}."""
    user: Short | None = None
    quality: Short | None = None
    style: Short | None = None
    background: Literal["auto", "opaque"] | None = None
    moderation: Literal["auto"] | None = None
    """What is refused is for the policy to say."""


class Picture(Described):
    b64_json: str
    revised_prompt: str | None = None
    """What was drawn, where the policy changed the prompt."""
    seed: int
    action: Literal["returned", "blurred"]
    sentence: str
    """What was done to it and why, empty where nothing was."""
    sha256: str
    """Of the pixels, rows of RGB: what the detectors looked at, or the blurred picture made of it. The audit log has the same."""


class NotShown(Described):
    index: int
    seed: int
    stage: str
    category: str
    message: str


class Images(Described):
    created: int
    data: list[Picture]
    refused: list[NotShown]
    """Pictures of this request that are not shown, where others are."""
    credits: list[str]
    """Of what the model was trained on; they go where the pictures go."""


# ----------------------------------------------------------------------------------------------------------- moderation


class TextPart(Asked):
    type: Literal["text"]
    text: Words


class ImageAddress(Asked):
    url: Address
    """data:image/png;base64,... A server that followed addresses would call whom it is told to."""
    detail: Short | None = None


class ImagePart(Asked):
    type: Literal["image_url"]
    image_url: ImageAddress


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]
MOST_INPUTS = 32


class ModerationRequest(Asked):
    input: (
        Words
        | Annotated[list[Words], Field(min_length=1, max_length=MOST_INPUTS)]
        | Annotated[list[Part], Field(min_length=1, max_length=MOST_INPUTS)]
    )
    """A text; several, each judged by itself; or parts, which are one thing and get one result."""
    model: Short | None = None


class Moderated(Described):
    flagged: bool
    """False only where every check looked and found nothing."""
    categories: dict[str, bool]
    """Those of the policy's categories that somebody looked for; `bounds` where a rule refused that no policy switches off."""
    category_scores: dict[str, float]
    """The highest of any detector; of those that gave one."""
    category_applied_input_types: dict[str, list[str]]
    undecided: list[str]
    """Categories about which a detector could not say anything."""
    action: str
    """What the policy does: allow, review, rewrite, blur, refuse."""
    sentence: str


class Moderations(Described):
    id: str
    model: str
    results: list[Moderated]


# ----------------------------------------------------------------------------------------------------------------- chat


class ChatPart(Asked):
    type: Literal["text"]
    text: Words


class Message(Asked):
    role: Literal["system", "developer", "user", "assistant"]
    content: Words | Annotated[list[ChatPart], Field(min_length=1, max_length=MOST_INPUTS)]
    name: Short | None = None

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "\n".join(p.text for p in self.content)


Number = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]


class ChatRequest(Asked):
    """What is not here is not passed on: tools, pictures, sound, log probabilities and streams would pass by what judges."""

    model: Annotated[Short, Field(min_length=1)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=100)]
    n: Annotated[int, Field(ge=1, le=8)] | None = None
    stream: Annotated[Literal[False], BeforeValidator(_no)] | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    presence_penalty: Number | None = None
    frequency_penalty: Number | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: Short | Annotated[list[Short], Field(min_length=1, max_length=4)] | None = None
    user: Short | None = None


class Said(Described):
    role: Literal["assistant"]
    content: str


class Choice(Described):
    index: int
    message: Said
    finish_reason: str


class Completion(Described):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: dict[str, int]


# --------------------------------------------------------------------------------------------------------------- others


class Served(Described):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(Described):
    object: Literal["list"]
    data: list[Served]


class InForce(Described):
    name: str
    identity: str
    """sha256 of the policy and of every detector's card; the audit log has it in every row."""
    says: list[str]
    model: str
    size: str
    credits: list[str]
    chat: bool


class State(Described):
    status: str
    missing: list[str]


class Problem(Described):
    message: str
    type: str
    param: str | None
    code: str
    stage: str = ""
    category: str = ""


class Problems(Described):
    error: Problem


def answers(*statuses: int, body: bool = True) -> dict[int | str, dict[str, Any]]:
    """The errors of an operation, for its description. What the door says (server_door.py) may come of any."""
    whole = sorted({401, 421, 429, *((400, 408, 413, 415) if body else ()), *statuses})
    return {s: {"model": Problems, "description": MEANING[s]} for s in whole}


MEANING = {
    400: "Refused: code content_policy_violation. Any other code: the request does not fit.",
    401: "No key, or one that this server does not know.",
    404: "There is no such model.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    421: "The Host header is not one that this server answers to.",
    429: "Too much at once, for this key or altogether; Retry-After says when to come back.",
    503: "Somebody who has to look or draw is not there; Retry-After says when to come back.",
}
