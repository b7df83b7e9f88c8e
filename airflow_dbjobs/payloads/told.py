"""The kinds of fields as editors and mypy see them in an answer of the API: what was told, and None where it was not.

The checks and the reading of answers take them for the kinds of a request, which they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional, TypeAlias, TypeVar, Union

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    _S = TypeVar("_S")
    Text: TypeAlias = str | None
    Texts: TypeAlias = Sequence[str] | None
    Int: TypeAlias = int | None
    Bool: TypeAlias = bool | None
    Map: TypeAlias = Mapping[str, Any] | None
    Anything: TypeAlias = Any
    One = Optional[_S]  # noqa: UP045 (a generic alias of `X | None` needs 3.12)
    Many = Union[Sequence[_S], None]  # noqa: UP007 (likewise)
else:
    from airflow_dbjobs.payloads.kinds import Anything, Bool, Int, Many, Map, One, Text, Texts  # noqa: F401 (offered)
