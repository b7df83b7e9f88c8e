"""The base of all operators: building the payload from parameters, checking it, and connecting."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_dbjobs.airflow_compat import BaseOperator, conf
from airflow_dbjobs.operators.parameters import suggesting_parameters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_dbjobs.airflow_compat import Context
    from airflow_dbjobs.client.jobs_client import JobsClient


# The values of the option payload_mistakes.
MISTAKE_LEVELS = ("off", "warn", "error", "strict")


class PayloadOperator(BaseOperator):
    """Base of the operators, which differ in their payload and endpoint.

    :param json: the request body: a mapping, or a template that renders to one. Parameters override its fields.
    :param databricks_conn_id: the Airflow connection to the workspace.
    :param validate: whether to check the payload against the rules of the API: when the DAG is parsed all that is not
        templated, and everything before it is sent. Airflow's option ``payload_mistakes`` in the section
        ``databricks_jobs`` decides whether a mistake is an error.
    :param databricks_retry_limit: accepted for DAGs of the official operators; has no effect, and a warning says so.
    :param databricks_retry_delay: likewise.
    :param databricks_retry_args: likewise.
    """

    # The fields of the payload that are parameters of the operator.
    payload_fields: ClassVar[tuple[str, ...]] = ()
    endpoint: ClassVar[str]
    # Whether this is a user's subclass, whose constructor may set more fields after the check.
    _is_subclassed: ClassVar[bool] = False

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
        with suggesting_parameters(type(self), kwargs):
            super().__init__(**kwargs)
        self.json = json
        self.databricks_conn_id = databricks_conn_id
        self.validate = validate
        self._warn_about_retry_settings(
            databricks_retry_limit=databricks_retry_limit,
            databricks_retry_delay=databricks_retry_delay,
            databricks_retry_args=databricks_retry_args,
        )
        self._reported_references: set[str] = set()
        # For `on_kill`.
        self._client: JobsClient | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._is_subclassed = not cls.__module__.startswith("airflow_dbjobs.")
        if cls._is_subclassed:
            from airflow_dbjobs.operators.overrides import refuse_overrides

            refuse_overrides(cls)

    if not TYPE_CHECKING:  # for mypy, any attribute would exist

        def __getattr__(self, name: str) -> Any:
            """Say what replaces the hook of the official operators, which subclasses call."""
            if name in ("_hook", "_get_hook", "get_hook"):
                raise AttributeError(
                    f"{type(self).__qualname__} has no {name}, unlike the official provider's operators. Use the client"
                    " that DatabricksJobsHook(self.databricks_conn_id).get_conn() returns."
                )
            return super().__getattribute__(name)

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Return a partial operator, as in Airflow; the error for an unknown parameter has suggestions."""
        with suggesting_parameters(cls, kwargs):
            return super().partial(**kwargs)

    def _set_payload_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Set the attributes for fields of the payload, from all local variables of a constructor."""
        for name in self.payload_fields:
            setattr(self, name, parameters[name])

    def _payload_parameters(self) -> dict[str, Any]:
        """Return the parameters that are fields of the payload."""
        return {name: getattr(self, name) for name in self.payload_fields}

    @property
    def _mistake_level(self) -> str:
        """How to treat mistakes in the payload: "off", "warn", "error" or "strict"."""
        level = conf.get("databricks_jobs", "payload_mistakes", fallback="error").lower() if self.validate else "off"
        if level in MISTAKE_LEVELS:
            return level
        levels = ", ".join(MISTAKE_LEVELS)
        self.log.warning(
            '[databricks_jobs] payload_mistakes is %r; it must be one of %s. Using "error".', level, levels
        )
        return "error"

    def _check_early(self) -> None:
        """Check all that is not templated, so that a mistake is a DAG import error or a warning.

        Each constructor calls it last.
        """
        level = self._mistake_level
        if level == "off":
            return
        from airflow_dbjobs.errors import ConfigurationError

        try:
            warnings = self._find_early_mistakes(strict=level == "strict")
        except ConfigurationError as mistake:
            if level != "warn":
                raise
            warnings = [str(mistake)]
        for warning in warnings:
            self.log.warning("%s: The task is going to fail: %s", self.task_id, warning)
        self._check_references(level)

    def _find_early_mistakes(self, *, strict: bool) -> list[str]:
        """Raise ConfigurationError for certain mistakes; return those that may be placeholders, unless `strict`."""
        from airflow_dbjobs.payloads import check_early

        return check_early(
            self.endpoint,
            self.json,
            self._payload_parameters(),
            may_grow=self._is_subclassed,
            template_ext=self.template_ext,
            strict=strict,
        )

    def _check_references(self, level: str) -> None:
        """Warn once of each Databricks reference, such as ``{{job.id}}``, that Airflow would render instead."""
        from airflow_dbjobs.errors import PayloadError
        from airflow_dbjobs.payloads.references import ambiguous_references

        dag = self.get_dag()
        macros = (dag.user_defined_macros if dag else None) or {}
        templates = {name: getattr(self, name, None) for name in self.template_fields}
        found = set(ambiguous_references(templates, macros))
        if found and level == "strict":
            raise PayloadError(f"jobs/{self.endpoint}", [f"- {finding}" for finding in sorted(found)])
        for warning in sorted(found - self._reported_references):
            self.log.warning("%s: %s", self.task_id, warning)
        self._reported_references |= found

    def prepare_template(self) -> None:
        """Check references again: Airflow has read template files by now, and the DAG's macros are known."""
        if (level := self._mistake_level) != "off":
            self._check_references(level)

    def render_template(
        self, content: Any, context: Context, jinja_env: Any = None, seen_oids: set[int] | None = None
    ) -> Any:
        """Render a template, as in Airflow, but keep the references that Databricks resolves."""
        from airflow_dbjobs.payloads.references import keeping_references

        if isinstance(content, Enum):
            # Jinja would render the name of a member that is also a string.
            content = content.value
        environment = keeping_references(jinja_env or self.get_template_env())
        rendered = super().render_template(content, context, environment, seen_oids)
        if rendered is None and content is not None:
            # An error may follow, which can only say that the field is missing.
            self.log.info("The template %s rendered to None, so the field counts as not given", content)
        return rendered

    def _build_payload(self, client: JobsClient, context: Context) -> dict[str, Any]:
        """Return the request body from the rendered parameters. Raises ConfigurationError if it is wrong."""
        from airflow_dbjobs.payloads import merge

        payload = {**self._default_payload(), **merge(self.json, self._payload_parameters())}
        payload = self._forward_dag_params(payload, client, context)
        self._check_payload(self.endpoint, payload, client)
        return self._add_lineage(payload, client, context)

    def _check_payload(self, endpoint: str, payload: dict[str, Any], client: JobsClient) -> None:
        """Log the mistakes in a complete payload, or raise ConfigurationError for them."""
        from airflow_dbjobs.payloads import check

        if (level := self._mistake_level) != "off":
            version, strict = client.api_version, level == "strict"
            for warning in check(endpoint, payload, version, cloud=client.cloud, strict=strict):
                self.log.warning("jobs/%s payload: %s", endpoint, warning)

    def _add_lineage(
        self,
        payload: dict[str, Any],
        client: JobsClient,  # noqa: ARG002 (for overriding)
        context: Context,  # noqa: ARG002 (likewise)
    ) -> dict[str, Any]:
        """Return the payload with what OpenLineage needs to know, if the user wants that."""
        return payload

    def _forward_dag_params(
        self,
        payload: dict[str, Any],
        client: JobsClient,  # noqa: ARG002 (for overriding)
        context: Context,  # noqa: ARG002 (likewise)
    ) -> dict[str, Any]:
        """Return the payload with the DAG's params, if the operator forwards them."""
        return payload

    def _dag_run_params(self, context: Context) -> dict[str, Any]:
        """Return the params of the task and its DAG with their values in this DAG run; None for one without a value."""
        values = context.get("params") or {}
        return {name: values.get(name, default) for name, default in self.declared_params().items()}

    def declared_params(self) -> dict[str, Any]:
        """Return the params of the task and its DAG with their defaults; None for one without a default."""
        from airflow_dbjobs.airflow_compat import ParamValidationError

        declared: dict[str, Any] = {}
        for name in self.params:
            try:
                declared[name] = self.params[name]
            except ParamValidationError:
                declared[name] = None
        return declared

    def _default_payload(self) -> dict[str, Any]:
        """Return the values of payload fields that the user does not set."""
        return {}

    def _connect(self) -> JobsClient:
        from airflow_dbjobs.hooks.jobs import DatabricksJobsHook

        self._client = DatabricksJobsHook(self.databricks_conn_id, caller=self.task_type).get_conn()
        return self._client

    def _warn_about_retry_settings(self, **settings: object) -> None:
        if named := [name for name, value in settings.items() if value is not None]:
            self.log.warning(
                "%s: %s %s no effect. Failed API calls are retried for 10 minutes, failed polls for an hour. To change"
                " that, set retry_budget and outage_tolerance in the connection's extra.",
                self.task_id,
                ", ".join(named),
                "has" if len(named) == 1 else "have",
            )
