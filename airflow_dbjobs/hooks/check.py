"""What the "Test" button of a connection says: who signs in, and how, and what the Jobs API lets them do.

It reads, and launches nothing. Whether a run may be launched is decided for each job, so that is said of a few jobs, as
far as their permissions tell it.
"""

from __future__ import annotations

import queue
import threading
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.client import pagination
from airflow_dbjobs.client.auth.tokens import TokenAuth, TokenCache
from airflow_dbjobs.client.jobs_client import JobsClient
from airflow_dbjobs.client.retry import RetryPolicy
from airflow_dbjobs.client.sanitize import cleaned
from airflow_dbjobs.client.session import HOST_REMEDY
from airflow_dbjobs.client.transport import Transport
from airflow_dbjobs.errors import (
    ApiError,
    CallError,
    JobsError,
    PermissionDenied,
    Unreachable,
    UnreadableReply,
    UntrustedCertificate,
    WrongProtocol,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_dbjobs.hooks.fields import Scheme

    Json = Mapping[str, Any]

# Somebody waits in front of the form.
SECONDS = 15.0
# When nothing more is asked.
_ASKING_SECONDS = 14.0
_SIGN_IN_SECONDS = 10.0
_SIGNING_IN = "Signing in"
# One attempt for each call: whoever pressed the button can do it again.
_ONE_ATTEMPT = RetryPolicy(retry_budget=0.0, connect_timeout=5.0, read_timeout=10.0)
_JOBS = 5
_MAY_RUN = frozenset({"CAN_MANAGE_RUN", "CAN_MANAGE", "IS_OWNER"})
_EACH_JOB = "Whether a run may be launched is decided for each job"
_LONGEST_NAME = 200


def check(client: JobsClient, scheme: Scheme, *, seconds: float = SECONDS) -> tuple[bool, str]:
    """Return whether the client's credentials may list jobs, and what is to be said of them, in whole sentences.

    `scheme` is the way in which they sign in. It takes `seconds` at most.
    """
    trial = _Trial(client, scheme)
    ended: queue.SimpleQueue[tuple[bool, str] | Exception] = queue.SimpleQueue()

    def run() -> None:
        outcome: tuple[bool, str] | Exception
        try:
            outcome = trial.run()
        except Exception as error:  # noqa: BLE001 (it is raised below)
            outcome = error
        trial.close()
        ended.put(outcome)

    # Not everything has a timeout: a name that is looked up, an answer that comes byte by byte.
    threading.Thread(target=run, name="airflow_dbjobs-check", daemon=True).start()
    try:
        outcome = ended.get(timeout=seconds)
    except queue.Empty:
        return trial.found or (False, trial.failure(Unreachable(f"{trial.stage} took longer than {seconds:.3g} s")))
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


class _Trial:
    """One press of the button. `stage` says what is waited for, `found` what is known before all is."""

    def __init__(self, client: JobsClient, scheme: Scheme) -> None:
        given = client.transport
        # The credentials are tried, and not a token that they were good for some time ago.
        self._auth = (
            TokenAuth(given.auth.source, cache=TokenCache()) if isinstance(given.auth, TokenAuth) else given.auth
        )
        transport = Transport(
            given.base_url,
            self._auth,
            workspace_id=given.workspace_id,
            policy=_ONE_ATTEMPT,
            network=given.network,
            product=given.product,
        )
        self._client = JobsClient(transport=transport, api_version=client.api_version)
        self._clock = transport.clock
        self._deadline = self._clock() + _ASKING_SECONDS
        self._how = f"by {scheme.name} ({scheme.help.rstrip('.')})"
        self.stage = _SIGNING_IN
        self.found: tuple[bool, str] | None = None

    def run(self) -> tuple[bool, str]:
        """Ask, and return what `check` does."""
        try:
            if isinstance(self._auth, TokenAuth):
                self._auth.token(_SIGN_IN_SECONDS)
            self.stage = "GET jobs/list"
            jobs: list[Json] = list(islice(self._client.list_jobs(page_size=_JOBS), _JOBS))
        except PermissionDenied as error:
            # Nobody, or somebody who may not.
            self.found = False, self.failure(error)
            return False, self.failure(error, self._me())
        except JobsError as error:
            return False, self.failure(error)
        self.found = self._success(None)
        if me := self._me():
            self.found = self._success(me)
        return self._success(me, self._launching(jobs, me))

    def close(self) -> None:
        """Let the connections go."""
        self._client.close()

    def _success(self, me: Json | None, launching: str = f"{_EACH_JOB}.") -> tuple[bool, str]:
        answers = f"The Jobs API {self._client.api_version} answers, and jobs may be listed."
        return True, f"{self._signed_in(me)}. {answers} {launching}"

    def failure(self, error: JobsError, me: Json | None = None) -> str:
        """Return what went wrong, and what to do."""
        said = str(error).rstrip(".")
        if self._is_of_the_host(error) and HOST_REMEDY not in said:
            said += f". {HOST_REMEDY}"
        if me:
            return f"{self._signed_in(me)}, but jobs may not be listed: {said}."
        return f"It signs in {self._how}. {said}."

    def _is_of_the_host(self, error: JobsError) -> bool:
        """Whether there may be no server, or one that knows nothing of the API; who gives tokens is another."""
        if self.stage == _SIGNING_IN or isinstance(error, UntrustedCertificate | WrongProtocol):
            return False
        return isinstance(error, Unreachable | UnreadableReply) or type(error) is ApiError

    def _signed_in(self, me: Json | None) -> str:
        if me is None:
            return f"Signed in to {self._where} {self._how}; the workspace does not tell who that is"
        names = dict.fromkeys(str(me[key]) for key in ("displayName", "userName") if me.get(key))
        who = cleaned(" / ".join(names))[:_LONGEST_NAME]
        return f"Signed in to {self._where} as {who} {self._how}"

    @property
    def _where(self) -> str:
        client = self._client
        return f"{client.host}, workspace {client.workspace_id}," if client.workspace_id else client.host

    def _me(self) -> Json | None:
        """Return who calls, as the SCIM API says it; None where it does not."""
        try:
            me = self._ask("2.0/preview/scim/v2/Me")
        except CallError:
            return None
        return me if me.get("userName") else None

    def _launching(self, jobs: list[Json], me: Json | None) -> str:
        """Return what the permissions of some jobs say of launching a run."""
        if not jobs:
            return f"{_EACH_JOB}, and none is shown to these credentials."
        if me is None:
            return f"{_EACH_JOB}."
        told = [may for job in jobs if (may := self._may_run(job, me)) is not None]
        if not told:
            return f"{_EACH_JOB}, and the permissions of those looked at are not shown to these credentials."
        remedy = "" if any(told) else " Can Manage Run on a job is what it takes."
        return f"{_EACH_JOB}: as far as permissions tell, {sum(told)} of {len(told)} looked at may be run.{remedy}"

    def _may_run(self, job: Json, me: Json) -> bool | None:
        """Whether the permissions of a job let somebody run it; None where they are not shown."""
        try:
            grants = pagination.objects(self._ask(f"2.0/permissions/jobs/{int(job['job_id'])}"), "access_control_list")
            name = _folded(me["userName"])
            # A group may be told by its id alone.
            groups = {_folded(group.get("display")) for group in pagination.objects(me, "groups")} - {""}
            mine = [
                grant
                for grant in grants
                if name in (_folded(grant.get("user_name")), _folded(grant.get("service_principal_name")))
                or _folded(grant.get("group_name")) in groups
            ]
            held = [level for grant in mine for level in pagination.objects(grant, "all_permissions")]
        except (CallError, KeyError, TypeError, ValueError):
            return None
        return any(level.get("permission_level") in _MAY_RUN for level in held)

    def _ask(self, path: str) -> dict[str, Any]:
        left = self._deadline - self._clock()
        if left < 1:
            raise Unreachable("There is no time left to ask", sent=False)
        self.stage = f"GET {path.partition('/')[2]}"
        return self._client.transport.send("GET", path, limit=left)


def _folded(name: object) -> str:
    """Return a name as it is compared: in whatever case it is written. None, and so nobody, is empty."""
    return str(name or "").casefold()
