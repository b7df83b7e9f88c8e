"""All exceptions that this package raises, as one tree.

JobsError
├── ConfigurationError       a connection or a parameter is wrong: nothing was sent
│   └── PayloadError         a request body breaks a rule of the API: nothing was sent
├── CallError                an API call got no usable answer
│   ├── Unreachable          no answer: connection refused or reset, timeout, unknown host name
│   │   ├── UntrustedCertificate
│   │   └── WrongProtocol        HTTPS to a plain HTTP port, or the reverse
│   ├── UnreadableReply      not an answer to this request: a proxy's page, a truncated body, another run
│   ├── NoRunToWaitFor       a continuous job was asked to run: it restarts itself
│   └── ApiError             the API refused the call: status, error_code, message
│       ├── BadRequest           400
│       ├── Unauthenticated      401
│       │   └── SignInRefused        the credentials get no token: nothing was sent to the API
│       ├── PermissionDenied     403
│       ├── NotFound             there is no such run or job: 404, or 400 with a message that says so
│       ├── Conflict             409
│       ├── TooManyRequests      429
│       └── ServerError          5xx
└── RunError                 the calls worked, but the run did not end as expected
    ├── RunFailed            it ended without success; a subclass says why, if the API does
    │   ├── UserCodeFailed       its own code, query or test failed
    │   ├── RunMisconfigured     it could not work: a missing path, an invalid cluster spec, a disabled feature
    │   ├── RunNotPermitted      it lacks a permission
    │   ├── ClusterFailed        its cluster, driver or a library did not start, or was lost
    │   ├── LimitReached         a quota or rate limit of the workspace, a cluster, a budget or the cloud
    │   ├── PlatformFailed       Databricks, the cloud, or a service that the run needs
    │   ├── RunTimedOut
    │   ├── RunCanceled
    │   └── RunSkipped
    ├── RunLost              it can no longer be polled
    └── RunStillActive       it did not end in the time that the caller had
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class JobsError(Exception):
    """Base of all errors of this package.

    The attributes of subclasses have defaults, because `restored` may get them from another release, which has fewer.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the message and the attributes, because the constructors of subclasses take other arguments."""
        return restored, (type(self), self.args, self.__dict__)

    @property
    def worth_a_retry(self) -> bool:
        """Whether another try may succeed although nothing is changed in between."""
        return True


E = TypeVar("E", bound=JobsError)


def restored(kind: type[E], args: tuple[Any, ...], state: dict[str, Any]) -> E:
    """Return an error of the class `kind` with the given arguments and attributes, without calling its constructor."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class ConfigurationError(JobsError, ValueError):
    """A connection field or a parameter is missing or wrong. Nothing was sent."""

    worth_a_retry = False


class PayloadError(ConfigurationError):
    """A request body breaks rules of the API; the message lists them with field and remedy. Nothing was sent.

    ``endpoint`` is the endpoint of the request, and ``violations`` has one text for each broken rule.
    """

    endpoint = ""
    violations: Sequence[str] = ()

    def __init__(self, endpoint: str, violations: list[str]) -> None:
        self.endpoint = endpoint
        self.violations = violations
        super().__init__("\n".join([f"The {endpoint} payload breaks the rules of the Jobs API:", *violations]))


class CallError(JobsError):
    """An API call got no usable answer.

    ``sent`` is False if the request certainly did not reach the server, so that the call may be repeated even if it is
    not idempotent. ``unclear`` is True if the server may have executed the request, in this or an earlier attempt of
    the call.
    """

    sent = True
    unclear = True

    def __init__(self, message: str, *, sent: bool = True) -> None:
        self.sent = sent
        self.unclear = sent
        super().__init__(message)

    @property
    def transient(self) -> bool:
        """Whether the same call may succeed later although nothing is changed in between."""
        return True


class Unreachable(CallError):
    """The server did not answer: connection refused or reset, timeout, unknown host name."""


class UntrustedCertificate(Unreachable):
    """The server's certificate is not trusted, so nothing was sent."""

    transient = False


class WrongProtocol(Unreachable):
    """HTTPS was used with a plain HTTP port, or the reverse, so the server did not read the request."""

    transient = False

    def __init__(self, message: str) -> None:
        super().__init__(message, sent=False)


class UnreadableReply(CallError):
    """The reply is not an answer to the request: no JSON object, truncated, too large, or about another run."""

    remedy = (
        ". The reply was not used. Check that the connection leads to the right server, and that no proxy or login page"
        " answers in its place"
    )

    def __init__(self, message: str) -> None:
        super().__init__(message + self.remedy)

    @property
    def summary(self) -> str:
        """What is wrong with the reply."""
        return str(self).removesuffix(self.remedy)


class NoRunToWaitFor(CallError):
    """A continuous job was asked to run. It restarts itself, so the answer contains no run."""

    transient = False
    worth_a_retry = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.unclear = False


class ApiError(CallError):
    """The API refused a call.

    Attributes: ``call`` (method and path), ``status`` (HTTP status), ``error_code`` and ``message`` (as Databricks gave
    them, or ""), ``request_id`` (or ""), ``retry_after`` (the Retry-After header, or None).
    """

    call = ""
    status = 0
    error_code = ""
    message = ""
    request_id = ""
    retry_after: str | None = None
    remedy = ""

    def __init__(
        self,
        call: str,
        status: int,
        error_code: str = "",
        message: str = "",
        *,
        request_id: str = "",
        retry_after: str | None = None,
    ) -> None:
        self.call = call
        self.status = status
        self.error_code = error_code
        self.message = message
        self.request_id = request_id
        self.retry_after = retry_after
        trail = f" (request id {request_id})" if request_id else ""
        text = message.rstrip(".") if self.remedy else message
        super().__init__(f"{self.summary}: {text or 'no message'}{self.remedy}{trail}")
        self.unclear = status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.NOT_IMPLEMENTED

    @property
    def summary(self) -> str:
        """The call and its answer: ``POST jobs/run-now answered 503 TEMPORARILY_UNAVAILABLE``."""
        return f"{self.call} answered {self.status} {self.error_code}".rstrip()

    @property
    def transient(self) -> bool:
        """Whether the same call may succeed later although nothing is changed in between."""
        return self.error_code == "COULD_NOT_ACQUIRE_LOCK"

    @property
    def worth_a_retry(self) -> bool:
        """Whether another try may succeed; a request that is wrong or not allowed remains so."""
        return self.transient or not isinstance(self, BadRequest | Unauthenticated | PermissionDenied | NotFound)


class BadRequest(ApiError):
    """400: the request breaks a rule of the API."""


class Unauthenticated(ApiError):
    """401: the credentials are missing or not accepted."""

    remedy = ". Check the connection's token (its password, or `token` in its extra): it is missing, expired or revoked"


class SignInRefused(Unauthenticated):
    """The connection's credentials get no token, for example because a secret is wrong. Nothing was sent to the API.

    ``status`` and ``error_code`` are those of the token server, if it refused. The message says what to check.
    """

    def __init__(self, message: str, *, status: int = 401, error_code: str = "") -> None:
        super().__init__("signing in", status, error_code, message)
        self.args = (message,)
        self.sent = self.unclear = False

    @property
    def summary(self) -> str:
        """The message, which names the token server and its answer."""
        return self.message


class PermissionDenied(ApiError):
    """403: the credentials are not valid for this workspace, or lack the permission."""

    remedy = (
        ". Check that the connection's token belongs to this workspace and is not expired, and that its owner has the"
        " permission (Can Manage Run to launch a job, Can View to poll its runs)"
    )


class NotFound(ApiError):
    """There is no such run or job: it never existed, was deleted, or has expired."""

    remedy = ". Check the id, and that the connection names the right workspace (a run is kept for 60 days)"


class Conflict(ApiError):
    """409: the state of the resource does not allow the call."""


class TooManyRequests(ApiError):
    """429: a rate limit, or the workspace's limit of concurrent runs."""

    transient = True


class ServerError(ApiError):
    """5xx: the service failed, or a gateway before it."""

    @property
    def transient(self) -> bool:
        """Whether the same call may succeed later; after 501 it cannot, because this server does not support it."""
        return self.status != HTTPStatus.NOT_IMPLEMENTED


class RunError(JobsError):
    """A run did not end as expected: the run ``run_id``, whose page is ``page_url``."""

    run_id = 0
    page_url = ""

    def __init__(self, message: str, *, run_id: int, page_url: str = "") -> None:
        self.run_id = run_id
        self.page_url = page_url
        super().__init__(message)


class RunFailed(RunError):
    """A run ended without success; a subclass says why, if the API does (``runs.failure_cause``).

    ``life_cycle_state``, ``result_state``, ``termination_code`` and ``termination_type`` are the API's, "" or None if
    it gave none (API 2.0 has only states). ``failed_tasks`` are the keys of the tasks that failed by themselves; tasks
    that only depend on them are not included.
    """

    life_cycle_state = ""
    result_state: str | None = None
    termination_code = ""
    termination_type = ""
    failed_tasks: tuple[str, ...] = ()

    def __init__(
        self,
        message: str,
        *,
        run_id: int,
        page_url: str = "",
        life_cycle_state: str = "",
        result_state: str | None = None,
        termination_code: str = "",
        termination_type: str = "",
        failed_tasks: Sequence[str] = (),
    ) -> None:
        self.life_cycle_state = life_cycle_state
        self.result_state = result_state
        self.termination_code = termination_code
        self.termination_type = termination_type
        self.failed_tasks = tuple(failed_tasks)
        super().__init__(message, run_id=run_id, page_url=page_url)

    @property
    def error_code(self) -> str:
        """The API's most specific word for how the run ended, like ``ApiError.error_code`` for a call."""
        return self.termination_code or self.result_state or self.life_cycle_state


class UserCodeFailed(RunFailed):
    """The run's own code failed: a notebook or program raised an error, or a query or test failed."""


class RunMisconfigured(RunFailed):
    """The run could not work as configured: something does not exist, is invalid or is not enabled."""

    worth_a_retry = False


class RunNotPermitted(RunFailed):
    """The run lacks a permission that it needs."""

    worth_a_retry = False


class ClusterFailed(RunFailed):
    """The run's cluster, driver or a library did not start, or was lost."""


class LimitReached(RunFailed):
    """The run reached a quota or rate limit of the workspace, a cluster, a budget or the cloud."""


class PlatformFailed(RunFailed):
    """Databricks, the cloud, or a service that the run needs (a Git provider, storage) failed."""


class RunTimedOut(RunFailed):
    """The run, or the task that made it fail, exceeded its own ``timeout_seconds``."""


class RunCanceled(RunFailed):
    """The run was cancelled."""


class RunSkipped(RunFailed):
    """The run never started: its job was at ``max_concurrent_runs``."""


class RunLost(RunError):
    """A run can no longer be polled: it was deleted, or polls failed for too long. It was not cancelled."""


class RunStillActive(RunError):
    """The run did not end in the time that the caller had. It was not cancelled."""
