"""What the operators share that send a payload: its parts, its two checks, and the connection."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator, conf

from airflow_dbjobs.operators.parameters import explained

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_dbjobs.client.jobs_client import JobsClient


# What the option payload_mistakes may be.
MISTAKES = ("off", "warn", "error", "strict")


def without_models(value: Any) -> Any:
    """Return a parameter with the models in it made plain dicts, so that Airflow sees their templates and XComArgs."""
    # Where the module was never loaded there are no models, and nothing is paid for them.
    structure = sys.modules.get("airflow_dbjobs.payloads.structure")
    return structure.plain(value) if structure else value


class PayloadOperator(BaseOperator):
    """Base of the operators; they differ in their payload and endpoint.

    :param json: the request body (a mapping or a model, or a template that renders to one). Named parameters win over
    its fields.
    :param databricks_conn_id: the connection to the workspace.
    :param validate: check the payload by the rules of the API (``payloads``): what is not templated when the DAG is
    parsed, all of it before it is sent. What becomes of mistakes is for Airflow's option ``payload_mistakes`` in the
    section ``databricks_jobs``.
    :param databricks_retry_limit: of the official operators; it has no effect here, and a warning says so.
    :param databricks_retry_delay: likewise.
    :param databricks_retry_args: likewise.
    """

    # The payload's fields that are parameters of the operator.
    payload_fields: ClassVar[tuple[str, ...]] = ()
    endpoint: ClassVar[str]

    template_ext: Sequence[str] = (".json-tpl",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"json": "json"}
    ui_color = "#ff3621"
    ui_fgcolor = "#fff"

    def __init__(
        self,
        *,
        json: Any = None,
        databricks_conn_id: str = "databricks_default",
        validate: bool = True,
        databricks_retry_limit: int | None = None,
        databricks_retry_delay: float | None = None,
        databricks_retry_args: dict[Any, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        with explained(type(self), kwargs):
            super().__init__(**kwargs)
        self.json = without_models(json)
        self.databricks_conn_id = databricks_conn_id
        self.validate = validate
        self._warn_of_retry_settings(
            databricks_retry_limit=databricks_retry_limit,
            databricks_retry_delay=databricks_retry_delay,
            databricks_retry_args=databricks_retry_args,
        )
        self._references_told: set[str] = set()
        # What a kill must know.
        self._client: JobsClient | None = None

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Return a partial operator, to be expanded (Airflow's), with the models in its parameters made plain dicts."""
        with explained(cls, kwargs):
            return super().partial(**{name: without_models(value) for name, value in kwargs.items()})

    def _keep(self, given: Mapping[str, Any]) -> None:
        """Keep the parameters that are fields of the payload, of all that a constructor was given."""
        for name in self.payload_fields:
            setattr(self, name, without_models(given[name]))

    def _named(self) -> dict[str, Any]:
        """Return the parameters that are fields of the payload; the last step of a constructor checks them."""
        return {name: getattr(self, name) for name in self.payload_fields}

    @property
    def _mistakes(self) -> str:
        """What becomes of mistakes in the payload: "off", "warn", "error" or "strict"."""
        level = conf.get("databricks_jobs", "payload_mistakes", fallback="error").lower() if self.validate else "off"
        if level in MISTAKES:
            return level
        self.log.warning("[databricks_jobs] payload_mistakes is %r; it must be one of %s.", level, ", ".join(MISTAKES))
        return "error"

    def _check_early(self) -> None:
        """Check what is not templated, so that the DAG's import error, or a warning, names field and rule."""
        level = self._mistakes
        if level == "off":
            return
        from airflow_dbjobs.errors import ConfigurationError

        try:
            warnings = self._mistakes_when_parsed(strict=level == "strict")
        except ConfigurationError as mistake:
            if level != "warn":
                raise
            warnings = [str(mistake)]
        for warning in warnings:
            self.log.warning("%s: The task is going to fail: %s", self.task_id, warning)
        self._check_references(level)

    def _mistakes_when_parsed(self, *, strict: bool) -> list[str]:
        """Raise what is wrong for sure; return what may be a placeholder, unless `strict`."""
        from airflow_dbjobs.payloads import check_early

        return check_early(
            self.endpoint,
            self.json,
            self._named(),
            may_grow=self._may_grow,
            template_ext=self.template_ext,
            strict=strict,
        )

    def _check_references(self, level: str) -> None:
        """Tell of references that Airflow may fill in before Databricks does, each once."""
        from airflow_dbjobs.errors import PayloadError
        from airflow_dbjobs.payloads.references import ambiguous_references

        dag = self.get_dag()
        macros = (dag.user_defined_macros if dag else None) or {}
        found = set(ambiguous_references({"json": self.json, **self._named()}, macros))
        if found and level == "strict":
            raise PayloadError(f"jobs/{self.endpoint}", [f"- {finding}" for finding in sorted(found)])
        for warning in sorted(found - self._references_told):
            self.log.warning("%s: %s", self.task_id, warning)
        self._references_told |= found

    def prepare_template(self) -> None:
        """Check what Airflow has read from template files, and what the DAG defines for its templates."""
        if (level := self._mistakes) != "off":
            self._check_references(level)

    def render_template(
        self, content: Any, context: Context, jinja_env: Any = None, seen_oids: set[int] | None = None
    ) -> Any:
        """Render a template (Airflow's), and let Databricks' own references in it pass as they are written."""
        from airflow_dbjobs.payloads.references import keeping_references

        environment = keeping_references(jinja_env or self.get_template_env())
        return super().render_template(content, context, environment, seen_oids)

    @property
    def _may_grow(self) -> bool:
        """Whether a class of the user's own made this operator, which may set more when this constructor is done."""
        return not type(self).__module__.startswith("airflow_dbjobs.")

    def _checked_payload(self, client: JobsClient, context: Context) -> dict[str, Any]:
        """Return the request body, rendered. Raises errors.ConfigurationError, before anything is sent."""
        from airflow_dbjobs.payloads import check, merge

        payload = self._completed({**self._defaults(), **merge(self.json, self._named())}, client, context)
        if (level := self._mistakes) != "off":
            version, strict = client.api_version, level == "strict"
            for warning in check(self.endpoint, payload, version, cloud=client.cloud, strict=strict):
                self.log.warning("jobs/%s payload: %s", self.endpoint, warning)
        return payload

    def _completed(
        self,
        payload: dict[str, Any],
        client: JobsClient,  # noqa: ARG002 (for overriding)
        context: Context,  # noqa: ARG002 (likewise)
    ) -> dict[str, Any]:
        """Return the payload with what it is given beside what the user wrote."""
        return payload

    def _dag_params(self, context: Context) -> dict[str, Any]:
        """Return the params of the task and its DAG, as this DAG run has them; one without a value is None."""
        given = context.get("params") or {}
        return {name: given.get(name, value) for name, value in self._declared_params().items()}

    def _declared_params(self) -> dict[str, Any]:
        """Return the params of the task and its DAG, as they are declared; one without a default is None."""
        from airflow.providers.common.compat.sdk import ParamValidationError

        declared: dict[str, Any] = {}
        for name in self.params:
            try:
                declared[name] = self.params[name]
            except ParamValidationError:
                declared[name] = None
        return declared

    def _defaults(self) -> dict[str, Any]:
        """Return what the payload holds where the user gives nothing else."""
        return {}

    def _connect(self) -> JobsClient:
        from airflow_dbjobs.hooks.jobs import DatabricksJobsHook

        self._client = DatabricksJobsHook(self.databricks_conn_id, caller=self.task_type).get_conn()
        return self._client

    def _warn_of_retry_settings(self, **settings: object) -> None:
        if named := [name for name, value in settings.items() if value is not None]:
            self.log.warning(
                "%s: %s %s no effect here. A failing API call is retried for 10 minutes, a failing poll for an hour.",
                self.task_id,
                ", ".join(named),
                "has" if len(named) == 1 else "have",
            )
