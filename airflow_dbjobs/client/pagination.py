"""Read the pages of lists, and of the arrays in a job or run, which API 2.2 splits into pages of 100 elements."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.errors import UnreadableReply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Json = dict[str, Any]
    # Fetches a page; its argument is added to the query.
    FetchPage = Callable[[Mapping[str, Any]], Json]

# Each page of a job or run repeats its other fields.
_PAGED_RUN_ARRAYS = ("tasks", "job_clusters", "job_parameters", "repair_history", "iterations")
_PAGED_JOB_ARRAYS = ("tasks", "job_clusters", "environments", "parameters")


def elements(fetch: FetchPage, name: str, *, by_offset: bool) -> Iterator[Json]:
    """Yield the elements of a list from the field `name` of all its pages.

    ``next_page_token`` leads to the next page; if it is missing or empty, the list ends. With `by_offset`, a first page
    with ``has_more`` and no token is followed by offset: API 2.0 has no tokens, and 2.1 had none before the middle of
    2023.
    """
    first = fetch({})
    following = _by_offset(fetch, first, name) if by_offset and not next_token(first) else _by_token(fetch, first)
    for page in chain([first], following):
        yield from objects(page, name)


def objects(page: Mapping[str, Any], name: str) -> list[Json]:
    """Return the array `name` of a reply; [] if there is none. Raises UnreadableReply if it is not one of objects."""
    found = page.get(name) or []
    if isinstance(found, list) and all(isinstance(element, dict) for element in found):
        return found
    raise UnreadableReply(f"The API returned {name} that are not a list of JSON objects")


def next_token(page: Mapping[str, Any]) -> str:
    """Return the token of the next page; "" if there is none. Raises UnreadableReply if it is not a string."""
    token = page.get("next_page_token") or ""
    if not isinstance(token, str):
        raise UnreadableReply("The API returned a next_page_token that is not a string")
    return token


def whole_run(fetch: FetchPage) -> Json:
    """Return a run with its arrays complete."""
    run = fetch({})
    for page in _by_token(fetch, run):
        _extend(run, page, _PAGED_RUN_ARRAYS)
    return _without_page_fields(run)


def whole_job(fetch: FetchPage) -> Json:
    """Return a job with the arrays of its settings complete."""
    job = fetch({})
    for page in _by_token(fetch, job):
        settings, more = job.setdefault("settings", {}), page.get("settings") or {}
        if not isinstance(settings, dict) or not isinstance(more, dict):
            raise UnreadableReply("The API returned job settings that are not a JSON object")
        _extend(settings, more, _PAGED_JOB_ARRAYS)
    return _without_page_fields(job)


def _by_token(fetch: FetchPage, page: Json) -> Iterator[Json]:
    """Yield the pages after `page`. Raises UnreadableReply if two have the same token: the list would never end."""
    seen = set()
    while token := next_token(page):
        if token in seen:
            raise UnreadableReply("The API returned pages that form a loop")
        seen.add(token)
        page = fetch({"page_token": token})
        yield page


def _by_offset(fetch: FetchPage, page: Json, name: str) -> Iterator[Json]:
    """Yield the pages after `page`. Raises UnreadableReply if two are equal: the server ignores the offset."""
    offset = 0
    while page.get("has_more") and (found := objects(page, name)):
        offset += len(found)
        before, page = page, fetch({"offset": offset})
        if page == before:
            raise UnreadableReply(f"The API returned the same page of {name} for two offsets")
        yield page


def _without_page_fields(merged: Json) -> Json:
    """Remove the fields which say that the first page was incomplete."""
    return {name: value for name, value in merged.items() if name not in {"has_more", "next_page_token"}}


def _extend(merged: Json, page: Json, arrays: tuple[str, ...]) -> None:
    for name in arrays:
        if more := objects(page, name):
            merged[name] = [*objects(merged, name), *more]
