"""Everything this package raises, as one tree.

JobsError
├── ConfigurationError       a connection or a parameter is wrong: nothing was sent
│   └── PayloadError         a request body breaks a rule of the API: nothing was sent
├── CallError                one API call did not give a usable answer
│   ├── Unreachable          no answer: refused, reset, timed out, name not resolved
│   │   ├── UntrustedCertificate
│   │   └── WrongProtocol        HTTPS where plain HTTP is spoken, or the reverse
│   ├── UnreadableReply      an answer that is not the one asked for: a proxy's page, a cut body, another run
│   ├── NoRunToWaitFor       a continuous job was started, which restarts itself
│   └── ApiError             the API said no: status, error_code, message
│       ├── BadRequest           400
│       ├── Unauthenticated      401
│       │   └── SignInRefused        no token is given for the credentials: nothing was sent to the API
│       ├── PermissionDenied     403
│       ├── NotFound             a run or job that does not exist: 404, or 400 with a message that says so
│       ├── Conflict             409
│       ├── TooManyRequests      429
│       └── ServerError          5xx
└── RunError                 the call worked, the run did not end well
    ├── RunFailed            it ended without success; itself where the API does not say of what
    │   ├── UserCodeFailed       what it ran raised an error, or exited so
    │   ├── RunMisconfigured     it could never have worked: a path, a cluster's spec, a feature that is not there
    │   ├── RunNotPermitted      it may not use what it needs
    │   ├── ClusterFailed        its cluster or a library did not start, or was lost
    │   ├── LimitReached         a quota or rate limit: of runs, clusters, contexts, the cloud's machines
    │   ├── PlatformFailed       Databricks, the cloud, or a service that they need
    │   ├── RunTimedOut
    │   ├── RunCanceled
    │   └── RunSkipped
    ├── RunLost              the run cannot be asked for any more
    └── RunStillActive       whoever waits for it had no more time
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class JobsError(Exception):
    """Base of every error of this package.

    Attributes of subclasses have defaults, as an error may be `restored` from what another release knew of it.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the error as it is: the arguments of a subclass cannot be told from its message."""
        return restored, (type(self), self.args, self.__dict__)

    @property
    def worth_a_retry(self) -> bool:
        """Whether another try may end better with nothing changed by anyone; False where it would end the same."""
        return True


E = TypeVar("E", bound=JobsError)


def restored(kind: type[E], args: tuple[Any, ...], state: dict[str, Any]) -> E:
    """Return an error of a class with the arguments and attributes of another."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class ConfigurationError(JobsError, ValueError):
    """A connection field or a parameter is missing or wrong. Nothing was sent."""

    worth_a_retry = False


class PayloadError(ConfigurationError):
    """A request body breaks rules of the API; the message lists each with its field and remedy. Nothing was sent."""

    endpoint = ""
    violations: Sequence[str] = ()

    def __init__(self, endpoint: str, violations: list[str]) -> None:
        self.endpoint = endpoint
        self.violations = violations
        super().__init__("\n".join([f"The {endpoint} payload breaks the rules of the Jobs API:", *violations]))


class CallError(JobsError):
    """One API call gave no usable answer.

    ``sent`` is False where the request provably never reached the server, so that even a call which is not idempotent
    may be repeated. ``unclear`` says that the server may have done what was asked, in this attempt or in an earlier
    one of the same call.
    """

    sent = True
    unclear = True

    def __init__(self, message: str, *, sent: bool = True) -> None:
        self.sent = sent
        self.unclear = sent
        super().__init__(message)

    @property
    def transient(self) -> bool:
        """Whether the same call may succeed later with nothing changed by anyone."""
        return True


class Unreachable(CallError):
    """No answer: connection refused or reset, a timeout, a name that does not resolve."""


class UntrustedCertificate(Unreachable):
    """The server's certificate is not trusted, so nothing was sent to it."""

    transient = False


class WrongProtocol(Unreachable):
    """HTTPS was spoken to a port of plain HTTP, or the reverse: the server has read nothing of the request."""

    transient = False

    def __init__(self, message: str) -> None:
        super().__init__(message, sent=False)


class UnreadableReply(CallError):
    """An answer that is not the one asked for: no JSON object, cut short, too large, about another run."""


class NoRunToWaitFor(CallError):
    """A continuous job was told to run: it restarts itself, and the answer names no run."""

    transient = False
    worth_a_retry = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.unclear = False


class ApiError(CallError):
    """The API refused a call.

    Attributes: ``status`` (HTTP status), ``error_code`` (Databricks' name for it, "" if it gave none), ``message`` (its
    text), ``request_id`` ("" if none), ``retry_after`` (the reply's Retry-After header, or None).
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
        said = message.rstrip(".") if self.remedy else message
        super().__init__(f"{self.summary}: {said or 'no message'}{self.remedy}{trail}")
        self.unclear = status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.NOT_IMPLEMENTED

    @property
    def summary(self) -> str:
        """The call and the answer in short: ``POST jobs/run-now answered 503 TEMPORARILY_UNAVAILABLE``."""
        return f"{self.call} answered {self.status} {self.error_code}".rstrip()

    @property
    def transient(self) -> bool:
        """Whether the same call may succeed later with nothing changed by anyone."""
        return self.error_code == "COULD_NOT_ACQUIRE_LOCK"

    @property
    def worth_a_retry(self) -> bool:
        """Whether another try may end better: a request that is wrong, or not allowed, stays so."""
        return self.transient or not isinstance(self, BadRequest | Unauthenticated | PermissionDenied | NotFound)


class BadRequest(ApiError):
    """400: the request breaks a rule of the API."""


class Unauthenticated(ApiError):
    """401: no credentials, or credentials that are not accepted."""

    remedy = ". Check the connection's token (its password, or `token` in its extra): it is missing, expired or revoked"


class SignInRefused(Unauthenticated):
    """No token is given for the connection's credentials: a wrong secret, say. Nothing was sent to the API.

    ``status`` and ``error_code`` are those of the token server, where it was one that refused. The message says what to
    check.
    """

    def __init__(self, message: str, *, status: int = 401, error_code: str = "") -> None:
        super().__init__("signing in", status, error_code, message)
        self.args = (message,)
        self.sent = self.unclear = False

    @property
    def summary(self) -> str:
        """The whole message: it names the token server and its answer."""
        return self.message


class PermissionDenied(ApiError):
    """403: the credentials are not valid for this workspace, or lack the permission."""

    remedy = (
        ". Check that the connection's token belongs to this workspace and is not expired, and that its owner has the"
        " permission (Can Manage Run to launch a job, Can View to watch it)"
    )


class NotFound(ApiError):
    """The run or job does not exist: never did, was deleted, or expired."""

    remedy = ". Check the id, and that the connection names the right workspace (a run is kept for 60 days)"


class Conflict(ApiError):
    """409: the resource is in a state that does not allow the call."""


class TooManyRequests(ApiError):
    """429: a rate limit, or the workspace's limit of concurrent runs."""

    transient = True


class ServerError(ApiError):
    """5xx: the service, or a gateway before it, failed."""

    @property
    def transient(self) -> bool:
        """Whether the same call may succeed later: unless it is 501, a call that this server does not know."""
        return self.status != HTTPStatus.NOT_IMPLEMENTED


class RunError(JobsError):
    """A run did not end as asked. ``run_id`` and ``page_url`` say which."""

    run_id = 0
    page_url = ""

    def __init__(self, message: str, *, run_id: int, page_url: str = "") -> None:
        self.run_id = run_id
        self.page_url = page_url
        super().__init__(message)


class RunFailed(RunError):
    """A run ended without success; a subclass says of what, where the API does (``runs.failure_cause``).

    ``life_cycle_state``, ``result_state``, ``termination_code`` and ``termination_type`` are as the API gave them, ""
    or None where it gave none (2.0 has only states). ``failed_tasks`` are the keys of the tasks that failed by
    themselves.
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
        """The API's most exact word for this end, as ``ApiError.error_code`` is for a call's."""
        return self.termination_code or self.result_state or self.life_cycle_state


class UserCodeFailed(RunFailed):
    """What the run ran failed: a notebook or program raised an error, a query or a test did not pass."""


class RunMisconfigured(RunFailed):
    """The run could not work as it was described: something does not exist, or is not valid or not enabled."""

    worth_a_retry = False


class RunNotPermitted(RunFailed):
    """The run was refused something that it needs."""

    worth_a_retry = False


class ClusterFailed(RunFailed):
    """The run's cluster, its driver or a library did not start, or was lost."""


class LimitReached(RunFailed):
    """The run met a quota or a rate limit: of the workspace, a cluster, a budget or the cloud."""


class PlatformFailed(RunFailed):
    """Databricks, the cloud, or a service that the run needs (a Git provider, storage) failed."""


class RunTimedOut(RunFailed):
    """The run, or the task that it failed of, was stopped at its own ``timeout_seconds``."""


class RunCanceled(RunFailed):
    """The run was cancelled."""


class RunSkipped(RunFailed):
    """The run never started: its job was at ``max_concurrent_runs``."""


class RunLost(RunError):
    """A run can no longer be asked for: deleted, forbidden to this connection, or the API is silent for too long."""


class RunStillActive(RunError):
    """Who waits for a run had no more time. The run was not cancelled."""
