"""The two checks of an operator's payload: when the DAG is parsed, and in full before it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.errors import ConfigurationError, PayloadError
from airflow_dbjobs.payloads.catalog import ENDPOINTS
from airflow_dbjobs.payloads.templates import UNKNOWN, is_templated, without

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_dbjobs.payloads.judging import Finding


# Findings that may be why another one is there: a misspelt name is often why a field is missing.
_CAUSES = ("FIELD-NAME", "FIELD-PLACE", "FIELD-UNKNOWN")


def check(endpoint: str, payload: object, version: str, *, cloud: str = "", strict: bool = False) -> list[str]:
    """Check a payload, a dict or a model, for an endpoint ("run-now") of an API version. Returns warnings.

    Numbers and booleans may be strings. What Databricks fills in itself ("{{job.run_id}}") is left out of judgement.
    `cloud` is "aws", "azure" or "gcp" where it is known. Where `strict`, a warning is a violation, too. Raises
    PayloadError, listing all violations, or ConfigurationError where the payload cannot be JSON.
    """
    from airflow_dbjobs.payloads.body import depth_in_words, to_json
    from airflow_dbjobs.payloads.judging import VERSIONS, findings
    from airflow_dbjobs.payloads.structure import plain

    _must_be_one_of("endpoint", endpoint, ENDPOINTS)
    _must_be_one_of("version", version, VERSIONS)
    with depth_in_words:
        payload = plain(payload)
        if isinstance(payload, Mapping):
            payload = to_json(payload, keep_templates=True)
        found = findings(endpoint, payload, version, cloud=cloud)
    _raise_errors(endpoint, found, found if strict else [finding for finding in found if finding.is_error])
    return [str(finding) for finding in found]


def check_early(
    endpoint: str,
    body: object,
    named: Mapping[str, Any],
    *,
    may_grow: bool = False,
    template_ext: Iterable[str] = (),
    strict: bool = False,
) -> list[str]:
    """Check what is known of a payload while the DAG is parsed: its ``json`` and its named parameters.

    Templates are left out of judgement, whole or in part. Which version the API has only the connection knows: what
    suits any version passes. `may_grow` says that a class of the user's own made the operator: fields may come to the
    payload later, and a text that ends in one of its `template_ext` is the name of a template file. Raises
    PayloadError, listing all violations, or ConfigurationError where the payload cannot be JSON.

    Returns what may be a placeholder (a job_id of 0), and is a violation where `strict`. Other warnings are left to the
    task's log, as a DAG file is parsed every few seconds; where `strict`, they are violations, too.
    """
    from airflow_dbjobs.payloads.body import depth_in_words, merge
    from airflow_dbjobs.payloads.judging import findings_of_any_version

    _must_be_one_of("endpoint", endpoint, ENDPOINTS)
    # Airflow calls a function that is the whole of a template field, and no other.
    unknown = is_templated(body) or callable(body) or (may_grow and isinstance(body, str))
    known = {name: UNKNOWN if callable(value) else value for name, value in named.items()}
    with depth_in_words:
        payload = merge(None if unknown else body, known, keep_templates=True)
        if may_grow and template_ext:
            suffixes = tuple(template_ext)
            payload = without(payload, lambda text: text.endswith(suffixes))
        found = findings_of_any_version(endpoint, payload, open_root=unknown or may_grow)
    placeholders = [finding for finding in found if finding.at_run]
    errors = [finding for finding in found if finding.is_error and not finding.at_run]
    _raise_errors(endpoint, found, found if strict else errors)
    return [str(finding) for finding in placeholders]


def _must_be_one_of(name: str, given: str, allowed: Iterable[str]) -> None:
    if given not in allowed:
        raise ConfigurationError(f"{name} is {given!r}; it must be one of {', '.join(allowed)}.")


def _raise_errors(endpoint: str, found: list[Finding], errors: list[Finding]) -> None:
    if errors:
        told = [finding for finding in found if finding in errors or finding.rule in _CAUSES]
        raise PayloadError(f"jobs/{endpoint}", [f"- {finding}" for finding in told])
