"""Which known name a misspelt one was meant to be."""

from __future__ import annotations

import difflib
from functools import lru_cache

# From this likeness on, of two names that differ one is taken for a slip of the other.
LIKELY = 0.8
CERTAIN = 0.9


@lru_cache(maxsize=1024)
def near_miss(name: str, known: tuple[str, ...], likeness: float = LIKELY) -> str | None:
    """Return the known name that is most like `name`, if any is enough like it."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=likeness)), None)
