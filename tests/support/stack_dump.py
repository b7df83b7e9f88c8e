"""What every task of an event loop, and every thread of this process, waits for: the message of a test that hangs."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import traceback
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

_KINDS = ("cr", "ag", "gi")


def stacks() -> str:
    """Return the stacks of the running event loop's tasks and of all other threads, with their local variables."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    tasks = ((task.get_name(), _awaited(task.get_coro())) for task in asyncio.all_tasks())
    threads = (
        (names.get(ident, "a thread"), reversed(list(traceback.walk_stack(frame))))
        for ident, frame in sys._current_frames().items()
        if ident != threading.get_ident()
    )
    return "\n".join(f"{name}:\n{_text(frames)}" for name, frames in chain(tasks, threads))


def _awaited(awaitable: Any) -> Iterator[tuple[FrameType, int]]:
    """Follow a coroutine to what it awaits: the task of a suspended one knows the first frame only."""
    while awaitable is not None:
        kind = next((kind for kind in _KINDS if hasattr(awaitable, f"{kind}_frame")), None)
        if kind is None:
            # What `async for` awaits does not show its generator.
            awaitable = next((it for it in gc.get_referents(awaitable) if hasattr(it, "ag_frame")), None)
            continue
        if (frame := getattr(awaitable, f"{kind}_frame")) is not None:
            yield frame, frame.f_lineno
        awaitable = getattr(awaitable, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")


def _text(frames: Iterable[tuple[FrameType, int]]) -> str:
    return "".join(traceback.StackSummary.extract(iter(frames), capture_locals=True).format())
