"""Pages of the Jobs API: lists, and the arrays of one job or run that API 2.2 cuts into pages of 100 elements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.errors import UnreadableReply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Json = dict[str, Any]
    # Asks for a page: its query is what is added to the list's own.
    Ask = Callable[[Mapping[str, Any]], Json]

# Each page of a job or run repeats its other fields.
_PAGED_RUN_ARRAYS = ("tasks", "job_clusters", "job_parameters", "repair_history", "iterations")
_PAGED_JOB_ARRAYS = ("tasks", "job_clusters", "environments", "parameters")


def elements(ask: Ask, name: str, *, by_offset: bool) -> Iterator[Json]:
    """Yield the elements of a list, which its pages hold under `name`.

    Pages follow ``next_page_token`` (a missing or empty one ends the list). `by_offset` says that a page which has
    ``has_more`` and no token is followed by offset: 2.0 knows nothing else, and 2.1 did not before the middle of 2023.
    """
    page = ask({})
    offset = 0
    while True:
        found = objects(page, name)
        yield from found
        offset += len(found)
        if token := page.get("next_page_token"):
            page = _after(page, ask({"page_token": token}))
        elif by_offset and page.get("has_more") and found:
            page = ask({"offset": offset})
        else:
            return


def objects(page: Json, name: str) -> list[Json]:
    """Return the elements of an array of an answer, [] where it has none. Raises UnreadableReply."""
    found = page.get(name) or []
    if isinstance(found, list) and all(isinstance(element, dict) for element in found):
        return found
    raise UnreadableReply(f"The API answered with {name} that are no list of JSON objects")


def whole_run(ask: Ask) -> Json:
    """Return a run with all elements of its arrays, however many pages they come in."""
    run = ask({})
    for page in _further(ask, run):
        _extend(run, page, _PAGED_RUN_ARRAYS)
    return _without_marks(run)


def whole_job(ask: Ask) -> Json:
    """Return a job with all elements of its settings' arrays, however many pages they come in."""
    job = ask({})
    for page in _further(ask, job):
        _extend(job.setdefault("settings", {}), page.get("settings") or {}, _PAGED_JOB_ARRAYS)
    return _without_marks(job)


def _further(ask: Ask, page: Json) -> Iterator[Json]:
    while token := page.get("next_page_token"):
        page = _after(page, ask({"page_token": token}))
        yield page


def _after(last: Json, page: Json) -> Json:
    """Return a page. Raises UnreadableReply where it points to itself: the walk would never end."""
    if page.get("next_page_token") == last["next_page_token"]:
        raise UnreadableReply("The API answered with a page that names itself as the next one")
    return page


def _without_marks(whole: Json) -> Json:
    """Return what is whole now without what says that its first page was not."""
    return {name: value for name, value in whole.items() if name not in {"has_more", "next_page_token"}}


def _extend(whole: Json, page: Json, arrays: tuple[str, ...]) -> None:
    for name in arrays:
        if page.get(name):
            whole[name] = [*(whole.get(name) or ()), *page[name]]
