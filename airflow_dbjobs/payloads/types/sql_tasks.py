"""Tasks of SQL warehouses: queries, alerts, dashboards, Power BI."""

from typing import Annotated, TypedDict

from airflow_dbjobs.payloads.field_types import Bool, Many, Map, One, Text, Texts, sdk, v21


class SqlTaskSubscription(TypedDict, total=False):
    """Who is sent the result: a user or a destination."""

    user_name: Annotated[Text, v21("The user.")]
    destination_id: Annotated[Text, v21("The notification destination.")]


class SqlTaskQuery(TypedDict, total=False):
    """A saved query."""

    query_id: Annotated[Text, v21("The query. Required.")]


class SqlTaskDashboard(TypedDict, total=False):
    """A legacy dashboard, which is refreshed."""

    dashboard_id: Annotated[Text, v21("The dashboard. Required.")]
    custom_subject: Annotated[Text, v21("Subject of the mails.")]
    pause_subscriptions: Annotated[Bool, v21("Whether nobody is sent the result. Default: false.")]
    subscriptions: Annotated[Many["SqlTaskSubscription"], v21("Who is sent the result.")]


class SqlTaskAlert(TypedDict, total=False):
    """A legacy alert, which is evaluated."""

    alert_id: Annotated[Text, v21("The alert. Required.")]
    pause_subscriptions: Annotated[Bool, v21("Whether nobody is sent the result. Default: false.")]
    subscriptions: Annotated[Many["SqlTaskSubscription"], v21("Who is sent the result.")]


class SqlTaskFile(TypedDict, total=False):
    """A file of SQL statements."""

    path: Annotated[Text, v21("The file: absolute in the workspace, relative in a git source. Required.")]
    source: Annotated[Text, v21("WORKSPACE or GIT. Default: GIT where the job has a git_source.")]


class SqlTask(TypedDict, total=False):
    """Runs SQL on a warehouse: exactly one of query, dashboard, alert and file."""

    warehouse_id: Annotated[Text, v21("The SQL warehouse. Required.")]
    query: Annotated[One["SqlTaskQuery"], v21("A saved query.")]
    dashboard: Annotated[One["SqlTaskDashboard"], v21("A legacy dashboard.")]
    alert: Annotated[One["SqlTaskAlert"], v21("A legacy alert.")]
    file: Annotated[One["SqlTaskFile"], v21("A file of SQL statements.")]
    parameters: Annotated[Map, v21("Parameters by name; alerts take none.")]


class AlertTaskSubscriber(TypedDict, total=False):
    """Who is told of an alert: a user or a destination."""

    user_name: Annotated[Text, sdk("The user.")]
    destination_id: Annotated[Text, sdk("The notification destination.")]


class AlertTask(TypedDict, total=False):
    """Evaluates an alert: exactly one of alert_id and workspace_path."""

    alert_id: Annotated[Text, sdk("The alert.")]
    workspace_path: Annotated[Text, sdk("The alert's path, which starts with /Workspace.")]
    warehouse_id: Annotated[Text, sdk("SQL warehouse that evaluates it.")]
    subscribers: Annotated[Many["AlertTaskSubscriber"], sdk("Who is told, at most 100.")]
    parameters: Annotated[Map, sdk("Parameters by name, at most 10,000 characters as JSON.")]


class SubscriptionSubscriber(TypedDict, total=False):
    """Who is sent a dashboard: a user or a destination."""

    user_name: Annotated[Text, sdk("The user.")]
    destination_id: Annotated[Text, sdk("The notification destination.")]


class SubscriptionAttachmentDataAttachmentWidget(TypedDict, total=False):
    """A widget whose data is attached."""

    page_id: Annotated[Text, sdk("Page that it is on.")]
    widget_id: Annotated[Text, sdk("The widget.")]


class SubscriptionAttachmentDataAttachment(TypedDict, total=False):
    """Data that is attached."""

    widgets: Annotated[Many["SubscriptionAttachmentDataAttachmentWidget"], sdk("The widgets it comes from.")]
    file_format: Annotated[Text, sdk("FILE_FORMAT_CSV, FILE_FORMAT_EXCEL or FILE_FORMAT_TSV.")]
    include_applied_filters: Annotated[Bool, sdk("Whether the filters are attached too.")]


class SubscriptionAttachmentPageAttachment(TypedDict, total=False):
    """Pages that are attached."""

    page_ids: Annotated[Texts, sdk("The pages, with PAGE_SELECTION_SUBSET.")]
    page_selection: Annotated[Text, sdk("PAGE_SELECTION_ALL or PAGE_SELECTION_SUBSET.")]


class SubscriptionAttachment(TypedDict, total=False):
    """What is attached to a mail."""

    data_attachment: Annotated[One["SubscriptionAttachmentDataAttachment"], sdk("Data of widgets.")]
    page_attachment: Annotated[One["SubscriptionAttachmentPageAttachment"], sdk("Pages.")]


class Subscription(TypedDict, total=False):
    """Who is sent a dashboard, and how."""

    subscribers: Annotated[Many["SubscriptionSubscriber"], sdk("Who is sent it.")]
    custom_subject: Annotated[Text, sdk("Subject of the mails.")]
    paused: Annotated[Bool, sdk("Whether nobody is sent it. Default: false.")]
    attachment: Annotated[One["SubscriptionAttachment"], sdk("What is attached.")]


class DashboardTask(TypedDict, total=False):
    """Refreshes a dashboard."""

    dashboard_id: Annotated[Text, sdk("The dashboard.")]
    warehouse_id: Annotated[Text, sdk("SQL warehouse to use. Default: the dashboard's own.")]
    filters: Annotated[Map, sdk("Values of its filters, by name.")]
    subscription: Annotated[One["Subscription"], sdk("Who is sent it.")]


class PowerBiModel(TypedDict, total=False):
    """A semantic model of Power BI."""

    model_name: Annotated[Text, sdk("The model.")]
    workspace_name: Annotated[Text, sdk("Power BI workspace of the model.")]
    authentication_method: Annotated[Text, sdk("OAUTH or PAT.")]
    storage_mode: Annotated[Text, sdk("DIRECT_QUERY, DUAL or IMPORT.")]
    overwrite_existing: Annotated[Bool, sdk("Whether a model of that name is replaced.")]


class PowerBiTable(TypedDict, total=False):
    """A table that Power BI is given."""

    catalog: Annotated[Text, sdk("Catalog of the table.")]
    schema: Annotated[Text, sdk("Schema of the table.")]
    name: Annotated[Text, sdk("The table.")]
    storage_mode: Annotated[Text, sdk("DIRECT_QUERY, DUAL or IMPORT.")]


class PowerBiTask(TypedDict, total=False):
    """Updates a semantic model of Power BI."""

    connection_resource_name: Annotated[Text, sdk("Connection to Power BI.")]
    power_bi_model: Annotated[One["PowerBiModel"], sdk("The model.")]
    tables: Annotated[Many["PowerBiTable"], sdk("The tables it is given.")]
    warehouse_id: Annotated[Text, sdk("SQL warehouse that the model asks.")]
    refresh_after_update: Annotated[Bool, sdk("Whether the model is refreshed afterwards.")]
