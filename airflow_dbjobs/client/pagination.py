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
    walk = _Walk(ask)
    page = ask({})
    offset = 0
    while True:
        found = objects(page, name)
        yield from found
        offset += len(found)
        if token := next_token(page):
            page = walk.page(token)
        elif by_offset and page.get("has_more") and found:
            following = ask({"offset": offset})
            if following == page:
                raise UnreadableReply(f"The API answered with the same page of {name} for another offset")
            page = following
        else:
            return


def objects(page: Mapping[str, Any], name: str) -> list[Json]:
    """Return the elements of an array of an answer, [] where it has none. Raises UnreadableReply."""
    found = page.get(name) or []
    if isinstance(found, list) and all(isinstance(element, dict) for element in found):
        return found
    raise UnreadableReply(f"The API answered with {name} that are no list of JSON objects")


def next_token(page: Mapping[str, Any]) -> str:
    """Return the token of the next page, "" where there is none. Raises UnreadableReply."""
    token = page.get("next_page_token") or ""
    if not isinstance(token, str):
        raise UnreadableReply("The API answered with a next_page_token that is no text")
    return token


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
        settings, more = job.setdefault("settings", {}), page.get("settings") or {}
        if not isinstance(settings, dict) or not isinstance(more, dict):
            raise UnreadableReply("The API answered with settings of a job that are no JSON object")
        _extend(settings, more, _PAGED_JOB_ARRAYS)
    return _without_marks(job)


def _further(ask: Ask, page: Json) -> Iterator[Json]:
    walk = _Walk(ask)
    while token := next_token(page):
        page = walk.page(token)
        yield page


class _Walk:
    """Asks for pages by their tokens, and for none twice: that walk would never end."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._tokens: set[str] = set()

    def page(self, token: str) -> Json:
        """Return the page of a token. Raises UnreadableReply where it was asked for before."""
        if token in self._tokens:
            raise UnreadableReply("The API answered with pages that lead back to one another")
        self._tokens.add(token)
        return self._ask({"page_token": token})


def _without_marks(whole: Json) -> Json:
    """Return what is whole now without what says that its first page was not."""
    return {name: value for name, value in whole.items() if name not in {"has_more", "next_page_token"}}


def _extend(whole: Json, page: Json, arrays: tuple[str, ...]) -> None:
    for name in arrays:
        if more := objects(page, name):
            whole[name] = [*objects(whole, name), *more]
