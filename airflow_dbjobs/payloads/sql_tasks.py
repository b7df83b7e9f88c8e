"""Tasks of SQL warehouses: queries, alerts, dashboards, Power BI."""

import warnings

from airflow_dbjobs.payloads.kinds import Bool, Many, Map, One, Text, Texts
from airflow_dbjobs.payloads.structure import Structure, sdk, v21


class SqlTaskSubscription(Structure):
    """Who is sent the result: a user or a destination."""

    user_name: Text = v21("The user.")
    destination_id: Text = v21("The notification destination.")


class SqlTaskQuery(Structure):
    """A saved query."""

    query_id: Text = v21("The query. Required.")


class SqlTaskDashboard(Structure):
    """A legacy dashboard, which is refreshed."""

    dashboard_id: Text = v21("The dashboard. Required.")
    custom_subject: Text = v21("Subject of the mails.")
    pause_subscriptions: Bool = v21("Whether nobody is sent the result.", default="false")
    subscriptions: Many["SqlTaskSubscription"] = v21("Who is sent the result.")


class SqlTaskAlert(Structure):
    """A legacy alert, which is evaluated."""

    alert_id: Text = v21("The alert. Required.")
    pause_subscriptions: Bool = v21("Whether nobody is sent the result.", default="false")
    subscriptions: Many["SqlTaskSubscription"] = v21("Who is sent the result.")


class SqlTaskFile(Structure):
    """A file of SQL statements."""

    path: Text = v21("The file: absolute in the workspace, relative in a git source. Required.")
    source: Text = v21("Where it lies: WORKSPACE or GIT.", default="GIT where the job has a git_source")


class SqlTask(Structure):
    """Runs SQL on a warehouse: exactly one of query, dashboard, alert and file."""

    warehouse_id: Text = v21("The SQL warehouse. Required.")
    query: One["SqlTaskQuery"] = v21("A saved query.")
    dashboard: One["SqlTaskDashboard"] = v21("A legacy dashboard.")
    alert: One["SqlTaskAlert"] = v21("A legacy alert.")
    file: One["SqlTaskFile"] = v21("A file of SQL statements.")
    parameters: Map = v21("Parameters by name; alerts take none.", secret=True)


class AlertTaskSubscriber(Structure):
    """Who is told of an alert: a user or a destination."""

    user_name: Text = sdk("The user.")
    destination_id: Text = sdk("The notification destination.")


class AlertTask(Structure):
    """Evaluates an alert: exactly one of alert_id and workspace_path."""

    alert_id: Text = sdk("The alert.")
    workspace_path: Text = sdk("The alert's path, which starts with /Workspace.")
    warehouse_id: Text = sdk("SQL warehouse that evaluates it.")
    subscribers: Many["AlertTaskSubscriber"] = sdk("Who is told, at most 100.")
    parameters: Map = sdk("Parameters by name, at most 10,000 characters as JSON.", secret=True)


class SubscriptionSubscriber(Structure):
    """Who is sent a dashboard: a user or a destination."""

    user_name: Text = sdk("The user.")
    destination_id: Text = sdk("The notification destination.")


class SubscriptionAttachmentDataAttachmentWidget(Structure):
    """A widget whose data is attached."""

    page_id: Text = sdk("Page that it is on.")
    widget_id: Text = sdk("The widget.")


class SubscriptionAttachmentDataAttachment(Structure):
    """Data that is attached."""

    widgets: Many["SubscriptionAttachmentDataAttachmentWidget"] = sdk("The widgets it comes from.")
    file_format: Text = sdk("FILE_FORMAT_CSV, FILE_FORMAT_EXCEL or FILE_FORMAT_TSV.")
    include_applied_filters: Bool = sdk("Whether the filters are attached too.")


class SubscriptionAttachmentPageAttachment(Structure):
    """Pages that are attached."""

    page_ids: Texts = sdk("The pages, with PAGE_SELECTION_SUBSET.")
    page_selection: Text = sdk("PAGE_SELECTION_ALL or PAGE_SELECTION_SUBSET.")


class SubscriptionAttachment(Structure):
    """What is attached to a mail."""

    data_attachment: One["SubscriptionAttachmentDataAttachment"] = sdk("Data of widgets.")
    page_attachment: One["SubscriptionAttachmentPageAttachment"] = sdk("Pages.")


class Subscription(Structure):
    """Who is sent a dashboard, and how."""

    subscribers: Many["SubscriptionSubscriber"] = sdk("Who is sent it.")
    custom_subject: Text = sdk("Subject of the mails.")
    paused: Bool = sdk("Whether nobody is sent it.", default="false")
    attachment: One["SubscriptionAttachment"] = sdk("What is attached.")


class DashboardTask(Structure):
    """Refreshes a dashboard."""

    dashboard_id: Text = sdk("The dashboard.")
    warehouse_id: Text = sdk("SQL warehouse to use.", default="the dashboard's own")
    filters: Map = sdk("Values of its filters, by name.")
    subscription: One["Subscription"] = sdk("Who is sent it.")


class PowerBiModel(Structure):
    """A semantic model of Power BI."""

    model_name: Text = sdk("The model.")
    workspace_name: Text = sdk("Power BI workspace of the model.")
    authentication_method: Text = sdk("OAUTH or PAT.")
    storage_mode: Text = sdk("DIRECT_QUERY, DUAL or IMPORT.")
    overwrite_existing: Bool = sdk("Whether a model of that name is replaced.")


with warnings.catch_warnings():
    # A deprecated method of pydantic's base class has the name of the field `schema`.
    warnings.filterwarnings("ignore", 'Field name "schema"', UserWarning)

    class PowerBiTable(Structure):
        """A table that Power BI is given."""

        catalog: Text = sdk("Catalog of the table.")
        schema: Text = sdk("Schema of the table.")  # type: ignore[assignment]  # see above
        name: Text = sdk("The table.")
        storage_mode: Text = sdk("DIRECT_QUERY, DUAL or IMPORT.")


class PowerBiTask(Structure):
    """Updates a semantic model of Power BI."""

    connection_resource_name: Text = sdk("Connection to Power BI.")
    power_bi_model: One["PowerBiModel"] = sdk("The model.")
    tables: Many["PowerBiTable"] = sdk("The tables it is given.")
    warehouse_id: Text = sdk("SQL warehouse that the model asks.")
    refresh_after_update: Bool = sdk("Whether the model is refreshed afterwards.")
