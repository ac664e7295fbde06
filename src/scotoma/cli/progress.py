"""Progress of long work, on stderr, for people: with progress("drawing") as report: sample(..., progress=report)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A callable (done, total) that moves a bar, or does nothing where stderr is not a terminal.

    The bar is gone when the context is left, by Ctrl-C or an error as well, and the cursor is back. Nothing is written
    to stdout, and what others write there is left alone. One at a time: two open bars would overwrite each other.
    """
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(file=sys.stderr)
    # Without redirect_stdout=False, lines printed meanwhile would go to stderr, and so be lost to a pipe.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, refresh_per_second=4) as bars:
        task = bars.add_task(label, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
