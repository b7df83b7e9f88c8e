"""Make the connection form from the table in ``hooks.fields``: as data since Airflow 3.2, as widgets before.

An empty field has no value, whether the extra contains null, an empty string or nothing. Flags are not in the form, as
`auth_type` replaces them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.hooks.fields import SCHEMES, SDK_AUTH_TYPES, SECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.hooks.fields import Field

_TYPES = {"number": "number", "object": "object"}


def conn_fields() -> dict[str, dict[str, Any]]:
    """Return the form as `conn-fields` of Airflow's provider.yaml.schema.json, each section under its heading."""
    return {
        field.name: {
            "label": field.title,
            "description": _help(field),
            "schema": {**_schema(field), "section": section},
        }
        for section, field in _shown()
    }


def form_widgets() -> dict[str, Any]:
    """Return the form for Airflow before 3.2, where a flat list of text fields is all there is.

    Without what that would spoil, which is left to the JSON of the extra: an object, which it would show and save as
    Python's text of it; a field of which empty has a meaning, which Airflow 2 does not save; and one that may be 0 or
    false, which Airflow 2 shows as empty, and so deletes when anything else is saved.
    """
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from wtforms import PasswordField, StringField
    from wtforms.validators import Optional, any_of

    class SecretWidget(BS3PasswordFieldWidget):  # type: ignore[misc] # optional dependency
        """Shows a placeholder for a stored secret, which Airflow 2 saves as unchanged; an empty one it would delete."""

        def __call__(self, field: Any, **kwargs: Any) -> Any:
            self.hide_value = False
            # Keep a value that was just typed, if the form is shown again because of a mistake in another field.
            if field.data and not field.raw_data:
                kwargs["value"] = _airflow_2_unchanged()
            return super().__call__(field, **kwargs)

    widgets = {}
    for section, field in _shown():
        if field.kind == "object" or field.empty_counts or field.zero_counts:
            continue
        is_secret = field.kind == "secret"
        widgets[field.name] = (PasswordField if is_secret else StringField)(
            f"{section}: {field.title}",
            description=_help(field) + (f" One of: {', '.join(field.choices)}." if field.choices else ""),
            # Airflow 3 turns this into a dropdown list.
            validators=[Optional(), any_of(list(field.choices))] if field.choices else [Optional()],
            widget=SecretWidget() if is_secret else BS3TextFieldWidget(),
        )
    return widgets


def _airflow_2_unchanged() -> str:
    from airflow_dbjobs.airflow_compat import SENSITIVE_FIELD_PLACEHOLDER

    return str(SENSITIVE_FIELD_PLACEHOLDER)


def _shown() -> Iterator[tuple[str, Field]]:
    for section, fields in SECTIONS.items():
        for field in fields:
            if field.kind != "flag":
                yield section, field


def _help(field: Field) -> str:
    # A default that the form fills in is visible anyway.
    return f"{field.help} Default: {field.default}." if field.default and not field.empty_counts else field.help


def _schema(field: Field) -> dict[str, Any]:
    # "null" allows an empty field.
    schema: dict[str, Any] = {"type": [_TYPES.get(field.kind, "string"), "null"]}
    if field.kind == "secret":
        schema["format"] = "password"
    if field.kind == "number":
        schema["minimum"] = 0
    if field.choices:
        schema["enum"] = list(field.choices)
    if field.name == "auth_type":
        schema["values_display"] = _auth_types()
    if field.empty_counts:
        schema["default"] = field.default
    return schema


def _auth_types() -> dict[str, str]:
    by_sdk = {name: f"{name}: by databricks-sdk" for name in SDK_AUTH_TYPES}
    return {scheme.name: f"{scheme.name}: {scheme.help.rstrip('.')}" for scheme in SCHEMES} | by_sdk
