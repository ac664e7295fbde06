"""Import arrows: each room of src/scotoma imports rooms of lower floors only.

    python scripts/check/arrows.py

errors <- {records, statistics, bounds, weights, waiting, allocator} <- {report, models, detectors} <- {erasure, evaluation, dialogue, curation}
<- {auditing, guard} <- api <- cli. Rooms of one floor do not import each other, and a room's own modules import each
other without a circle at import time. Reads the source with ast, so imports inside functions and under TYPE_CHECKING
count as well.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset({"records", "statistics", "bounds", "weights", "waiting", "allocator"}),
    frozenset({"report", "models", "detectors"}),
    frozenset({"erasure", "evaluation", "dialogue", "curation"}),
    frozenset({"auditing", "guard"}),
    frozenset({"api"}),
    frozenset({"cli"}),
)
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
# The package itself hands out the public names and may be asked for its version by anyone; presets hold no code.
FREE = frozenset({"__init__", "__main__", "configs"})
PACKAGE = "scotoma"


def modules(source: Path) -> dict[str, Path]:
    """Dotted name -> file of every module under `source`, the folder of the package."""
    out = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        out[".".join((PACKAGE, *(parts[:-1] if parts[-1] == "__init__" else parts)))] = path
    return out


def imports(name: str, path: Path, known: Iterable[str]) -> Iterator[tuple[int, str, bool]]:
    """(line, module of ours that is imported, is it imported when the module is) for each import in one file."""
    known = set(known)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    late = {id(n) for outer in ast.walk(tree) if _waits(outer) for n in ast.walk(outer)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, base]) if base else ".".join(up)
            found = [f"{base}.{a.name}" if f"{base}.{a.name}" in known else base for a in node.names]
        else:
            continue
        for target in dict.fromkeys(found):
            if target == PACKAGE or target.startswith(PACKAGE + "."):
                yield node.lineno, target, id(node) not in late


def _waits(node: ast.AST) -> bool:
    """True for what is not run at import: a function body, a block under TYPE_CHECKING."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.dump(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def room(module: str) -> str:
    """Which room a module is in: scotoma.models.load -> models; the package itself is __init__."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def violations(source: Path) -> list[str]:
    """One sentence for each import against the arrows, each module without a floor, and each circle."""
    found: list[str] = []
    all_modules = modules(source)
    at_import: dict[str, set[str]] = {name: set() for name in all_modules}
    for name, path in all_modules.items():
        here = room(name)
        if here not in FLOOR and here not in FREE:
            found.append(
                f"{path.relative_to(source)}: the room {here!r} has no floor; give it one in {Path(__file__).name}"
            )
            continue
        for line, target, now in imports(name, path, all_modules):
            there = room(target)
            if now and target in all_modules and target != name:
                at_import[name].add(target)
            if here in FREE or there == here or there in FREE:
                continue
            where = f"{path.relative_to(source)}:{line}"
            if there not in FLOOR:
                found.append(f"{where} imports {target}, whose room {there!r} has no floor")
            elif FLOOR[there] == FLOOR[here]:
                found.append(
                    f"{where} imports {target}: {here} and {there} are on one floor; pass a callable from above"
                )
            elif FLOOR[there] > FLOOR[here]:
                found.append(f"{where} imports {target}: {there} is above {here}; pass a callable from above")
    return found + [f"circle at import: {' -> '.join(circle)}" for circle in circles(at_import)]


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """One closed path for each circle found by depth-first search; a package's own __init__ counts like any module."""
    state: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        state[name] = 1
        path.append(name)
        for target in sorted(graph.get(name, ())):
            if state.get(target) == 1:
                found.append([*path[path.index(target) :], target])
            elif target not in state:
                visit(target)
        path.pop()
        state[name] = 2

    for name in sorted(graph):
        if name not in state:
            visit(name)
    return found


def main() -> int:
    source = Path(__file__).resolve().parents[2] / "src" / PACKAGE
    found = violations(source)
    for line in found:
        print(f"arrows: {line}", file=sys.stderr)
    if not found:
        print(f"arrows: {len(modules(source))} modules, every import points down")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
