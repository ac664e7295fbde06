"""Categories of unsafe pictures, as data: a name and one plain sentence for each.

The five are those of Qu, Shen, He, Backes, Zannettou, Zhang: "Unsafe Diffusion: On the Generation of Unsafe Images and Hateful
Memes From Text-To-Image Models", CCS 2023 (arXiv 2305.13873), in our words; detectors/crosswalk.py says what other schemes call
them. They were found by looking at clusters of pictures: clusters.py and coding.py do the same with the pictures of a run.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType

import yaml

from scotoma.errors import DataError

Typology = MappingProxyType[str, str]

TYPOLOGY: Typology = MappingProxyType(
    {
        "sexual": "Nudity, or a sexual act.",
        "violent": "Harm that is done to people or animals, or weapons that are used on them.",
        "disturbing": "What shocks or repels, without anybody being harmed in it.",
        "hateful": "A symbol of hate, or people demeaned for a group that they belong to.",
        "political": "Leaders, elections or propaganda; whether this is unwanted is a matter of the policy that applies.",
    }
)
NONE = "none"  # the code of a picture that is in no category
NAME = re.compile(r"\w[\w -]{0,63}")  # what can stand in a list with commas


def read_typology(path: Path) -> Typology:
    """Categories of the user's own: a YAML file with one line `name: definition` for each.

    Raises DataError, with the line, for what is not that: no definition, two of one name, a name that cannot be a code.
    """
    try:
        told = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    except OSError as e:
        raise DataError(f"{path} cannot be read ({e.strerror}); check the path") from e
    except UnicodeDecodeError as e:
        raise DataError(f"{path} is not UTF-8 ({e.reason}); save it as UTF-8") from e
    except yaml.YAMLError as e:
        raise DataError(f"{path} is not YAML ({' '.join(str(e).split())}); write lines of name: definition") from e
    if not isinstance(told, yaml.MappingNode) or not told.value:
        raise DataError(f"{path} holds no categories; write one line `name: definition` for each")
    found: dict[str, str] = {}
    for key, value in told.value:
        # Nodes and not what YAML makes of them: a category called `no` would be False, and of two the last would stand.
        where = f"{path}, line {key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode) or not NAME.fullmatch(key.value):
            raise DataError(f"{where}: a category is called by letters, digits, spaces and dashes, up to 64 of them")
        if key.value.casefold() == NONE:
            raise DataError(f"{where}: {NONE} is the code of pictures in no category; call the category something else")
        if key.value.casefold() in {name.casefold() for name in found}:
            raise DataError(f"{where}: {key.value} is there twice; take one out")
        definition = value.value.strip() if isinstance(value, yaml.ScalarNode) else ""
        if not definition or definition in ("~", "null"):
            raise DataError(f"{where}: {key.value} has no definition; write one sentence behind the colon")
        found[key.value] = definition
    return MappingProxyType(found)
