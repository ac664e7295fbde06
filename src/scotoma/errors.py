"""Every error Scotoma raises on purpose. One sentence: the cause and the fix. Exit codes are the CLI's.

ScotomaError                      1   the root; never raised itself
├── UsageError                    2   an argument, name or option that does not fit
│   └── PolicyError               2   a policy file that cannot be read or does not fit
├── MissingExtraError             3   an optional dependency is not installed; gives the install line
│   └── MissingPackageError       3   a package that a model comes in is not installed; gives its own install line
├── BoundsError                   4   refused by the rules in bounds.py
├── ModelError                    5   a model that cannot be read or is of a family we do not know
│   ├── UnsafeFileError           5   a pickle, or any file that may run code when read
│   └── EmptyLayerGroupError      5   a layer group that selects no parameter
├── EditError                     6   an Edit file that is truncated, foreign, tampered with, or does not fit
│   ├── EditFormatError           6
│   ├── EditTamperedError         6
│   ├── BaseMismatchError         6
│   ├── StackingError             6
│   └── ForbiddenModelError       6   a policy wants Edits in a model that are not in it, or not as recorded
├── SelfCheckError                7   the erase changed nothing, broke the model, or leads where it must not
│   └── UndecidedError            7   nobody could judge the concept and --accept-undecided was not given
├── TrainingError                 8
│   ├── DivergedError             8   a loss that is not finite
│   └── CheckpointError           8   a checkpoint of another run or configuration
├── DataError                     9   data that is missing, has another hash, or cannot be read
│   └── LogError                  9   an audit log that cannot be written; the guard refuses meanwhile
└── GateError                    10   an audit found more than its limits allow
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ScotomaError(Exception):
    """Root of the tree. `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(ScotomaError):
    exit_code = 2


class PolicyError(UsageError):
    pass


class MissingExtraError(ScotomaError):
    exit_code = 3

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f"{purpose} needs {package}, which is not installed: pip install 'scotoma[{extra}]'")


class MissingPackageError(MissingExtraError):
    def __init__(self, package: str, install: str, purpose: str):
        ScotomaError.__init__(self, f"{purpose} needs the package {package}, which is not installed: {install}")


class BoundsError(ScotomaError):
    exit_code = 4


class ModelError(ScotomaError):
    exit_code = 5


class UnsafeFileError(ModelError):
    pass


class EmptyLayerGroupError(ModelError):
    pass


class EditError(ScotomaError):
    exit_code = 6


class EditFormatError(EditError):
    pass


class EditTamperedError(EditError):
    pass


class BaseMismatchError(EditError):
    pass


class StackingError(EditError):
    pass


class ForbiddenModelError(EditError):
    pass


class SelfCheckError(ScotomaError):
    exit_code = 7


class UndecidedError(SelfCheckError):
    pass


class TrainingError(ScotomaError):
    exit_code = 8


class DivergedError(TrainingError):
    pass


class CheckpointError(TrainingError):
    pass


class DataError(ScotomaError):
    exit_code = 9


class LogError(DataError):
    pass


class GateError(ScotomaError):
    exit_code = 10


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """A UsageError for a name that is not known, with the nearest known names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"known: {', '.join(known)}."
    return UsageError(f"unknown {kind} {name!r}; {hint}")
