"""errors: the tree, and which reply becomes which error."""

from __future__ import annotations

import pickle
import re

import pytest

from airflow_dbjobs import errors
from airflow_dbjobs.client.responses import api_error


def drawn_tree() -> dict[str, str]:
    """Return the parent of each class as the module's docstring draws it."""
    path, parents = ["JobsError"], {}
    for branches, name in re.findall(r"^([│ ]*[├└]── )(\w+)", errors.__doc__ or "", re.MULTILINE):
        depth = len(branches) // 4
        path[depth:] = [name]
        parents[name] = path[depth - 1]
    return parents


class TestTree:
    def test_is_as_drawn(self) -> None:
        parents = drawn_tree()
        defined = {
            name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)
        }
        assert parents.keys() | {"JobsError"} == defined
        for name, parent in parents.items():
            assert getattr(errors, parent) in getattr(errors, name).__bases__, name


class TestApiError:
    @pytest.mark.parametrize(
        ("status", "body", "kind", "transient"),
        [
            (400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}, errors.BadRequest, False),
            (400, {"error_code": "COULD_NOT_ACQUIRE_LOCK"}, errors.BadRequest, True),
            (401, {}, errors.Unauthenticated, False),
            (403, {"error_code": 403, "message": "Invalid access token."}, errors.PermissionDenied, False),
            (404, {"error_code": "ENDPOINT_NOT_FOUND"}, errors.ApiError, False),
            (409, {}, errors.Conflict, False),
            (418, {}, errors.ApiError, False),
            (429, {}, errors.TooManyRequests, True),
            (500, {}, errors.ServerError, True),
            (501, {}, errors.ServerError, False),
            (504, {"message": "x"}, errors.ServerError, True),
            # The code says more than the status it came with.
            (400, {"error_code": "RESOURCE_DOES_NOT_EXIST"}, errors.NotFound, False),
            (400, {"error_code": "RESOURCE_ALREADY_EXISTS"}, errors.Conflict, False),
            (400, {"error_code": "REQUEST_LIMIT_EXCEEDED"}, errors.TooManyRequests, True),
            (503, {"error_code": "RESOURCE_EXHAUSTED"}, errors.TooManyRequests, True),
            # The cloud answers 400 for what does not exist; only the text tells, and only with 400.
            (
                400,
                {"error_code": "INVALID_PARAMETER_VALUE", "message": "Run 7 does not exist."},
                errors.NotFound,
                False,
            ),
            (400, {"message": "Job 7 does not exist"}, errors.NotFound, False),
            (400, {"message": "Cluster 0923-1 does not exist"}, errors.BadRequest, False),
            (500, {"message": "Run 7 does not exist."}, errors.ServerError, True),
            # A gateway's 404 says nothing about the run or job.
            (404, {"error_code": "A_CODE_OF_2031"}, errors.ApiError, False),
            (404, {"message": "Run 7 does not exist."}, errors.NotFound, False),
            (404, {"error_code": 404, "error": "Bad Target: /api/2.2/jobs/x"}, errors.ApiError, False),
        ],
    )
    def test_class_depends_on_code_and_status(
        self, status: int, body: dict[str, object], kind: type, transient: bool
    ) -> None:
        error = api_error("GET jobs/runs/get", status, body, {})
        assert type(error) is kind
        assert (error.status, error.transient) == (status, transient)

    @pytest.mark.parametrize(
        ("body", "headers", "text"),
        [
            ({"error_code": "A_CODE", "message": "why"}, {}, "POST jobs/create answered 418 A_CODE: why"),
            ({"error": "why"}, {}, "POST jobs/create answered 418: why"),
            ({"detail": "why"}, {}, "POST jobs/create answered 418: why"),
            ({"error_code": 418}, {}, "POST jobs/create answered 418: no message"),
            ({"message": "why"}, {"X-Request-Id": "r-1"}, "POST jobs/create answered 418: why (request id r-1)"),
            (
                {"message": "why", "details": [{"@type": "ErrorInfo"}, {"request_id": "r-2"}]},
                {},
                "POST jobs/create answered 418: why (request id r-2)",
            ),
            ({"message": "why", "details": "?"}, {}, "POST jobs/create answered 418: why"),
        ],
    )
    def test_text_has_call_status_code_message_and_request_id(
        self, body: dict[str, object], headers: dict[str, str], text: str
    ) -> None:
        assert str(api_error("POST jobs/create", 418, body, headers)) == text

    @pytest.mark.parametrize(
        ("status", "remedy"),
        [
            (401, ": it is missing, expired or revoked"),
            (
                403,
                " belongs to this workspace and is not expired, and that its owner has the permission (Can Manage Run",
            ),
            (404, " the id, and that the connection names the right workspace"),
        ],
    )
    def test_text_has_a_remedy(self, status: int, remedy: str) -> None:
        body = (
            {"error_code": "NOT_FOUND", "message": "The API's own words."}
            if status == 404
            else {"message": "The API's own words."}
        )
        text = str(api_error("GET jobs/list", status, body, {}))
        assert ": The API's own words. Check " in text
        assert remedy in text


class TestUnreadableReply:
    def test_text_says_what_became_of_the_reply_and_what_to_check(self) -> None:
        error = errors.UnreadableReply("GET jobs/get answered 200 without a JSON object")
        assert str(error).startswith(f"{error.summary}. The reply was not used. Check ")
        assert error.summary == "GET jobs/get answered 200 without a JSON object"


class TestPickling:
    @pytest.mark.parametrize(
        "error",
        [
            errors.ConfigurationError("why"),
            errors.PayloadError("jobs/run-now", ["- a: wrong."]),
            errors.Unreachable("why", sent=False),
            errors.UnreadableReply("why"),
            errors.NotFound("GET jobs/get", 404, "A_CODE", "why", request_id="r-1", retry_after="7"),
            errors.RunTimedOut("why", run_id=7, page_url="https://x/7", result_state="TIMEDOUT"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_keeps_message_and_attributes(self, error: errors.JobsError) -> None:
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


class TestPayloadError:
    def test_lists_all_violations(self) -> None:
        error = errors.PayloadError("jobs/run-now", ["- a: wrong.", "- b: wrong."])
        assert str(error) == "The jobs/run-now payload breaks the rules of the Jobs API:\n- a: wrong.\n- b: wrong."
        assert isinstance(error, ValueError)
