"""The trigger of a sensor that waits for more than the end of a run: it looks in the triggerer, every so often."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.errors import CallError, NotFound
from airflow_dbjobs.triggers.base import JobsTrigger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_dbjobs.client.wait import Watch
    from airflow_dbjobs.runs.conditions import Condition, Look
    from airflow_dbjobs.runs.polling.condition_poller import Looker


class DatabricksSensorTrigger(JobsTrigger):
    """Fires once: when the condition is met or never will be, or when the run of a job that it is about is known.

    `condition` is what `sensing.from_plain` reads, `poke_interval` the seconds between two looks. `run_page_url` and
    `deadline` (epoch seconds) are as in ``triggers.DatabricksRunTrigger``. Nothing is ever cancelled. Arguments of
    another release are ignored.
    """

    def __init__(
        self,
        condition: Mapping[str, Any],
        databricks_conn_id: str,
        *,
        poke_interval: float = 60,
        run_page_url: str = "",
        deadline: float | None = None,
        **_: Any,
    ) -> None:
        super().__init__(databricks_conn_id, run_page_url=run_page_url, deadline=deadline)
        self.condition = condition
        self.poke_interval = poke_interval
        # As the last look has left it; None before the first.
        self._latest: Condition | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments; no credentials among them."""
        return (
            "airflow_dbjobs.triggers.DatabricksSensorTrigger",
            {
                "condition": dict(self.condition),
                "databricks_conn_id": self.databricks_conn_id,
                "poke_interval": self.poke_interval,
                "run_page_url": self.run_page_url,
                "deadline": self.deadline,
            },
        )

    @property
    def what(self) -> str:
        """What is asked for, as a sentence begins with it."""
        return self._latest.what if self._latest else "What the sensor waits for"

    def event(self) -> dict[str, Any]:
        """Return which run it is about, if that is known: what ``triggers.events`` reads."""
        run_id = self._latest.run_id if self._latest else self.condition.get("chosen")
        return {"run_id": run_id, "run_page_url": self.run_page_url}

    async def wait(self) -> dict[str, Any]:
        """Look until there is something to fire for. Raises JobsError."""
        from airflow_dbjobs.client.wait import Watch
        from airflow_dbjobs.runs.conditions import from_plain
        from airflow_dbjobs.runs.polling.condition_poller import Looker

        self._latest = from_plain(self.condition)
        client = await self.connect()
        watch = Watch(
            self._latest.run_id or 0,
            self.poke_interval,
            client.patience,
            client.clock,
            warn=self.log.warning,
            what=self._latest.what,
        )
        while True:
            looker = Looker.shared(client)
            with looker.in_use():
                look = await self._look(self._latest, looker, watch)
            if look:
                return {"met": look.verdict is True, "state": look.says}
            client = await self.reconnect(client)

    async def _look(self, condition: Condition, looker: Looker, watch: Watch) -> Look | None:
        """Return the look that is to be fired for, None where the credentials are to be read anew."""
        from airflow_dbjobs.client.wait import jittered

        run_id, said = condition.run_id, ""
        while True:
            asked_at = watch.clock()
            try:
                look = await looker.look(condition)
            except CallError as error:
                if isinstance(error, NotFound) and run_id is None:
                    raise
                await asyncio.sleep(watch.failed(error, asked_at))
                if watch.refused:
                    return None
                continue
            watch.answered()
            condition = self._latest = look.condition
            if look.run and condition.run_id is None:
                # A run in the way of an idle job, or its last one: the resumed task does not look again.
                self.run_page_url = look.run.page_url
            if look.says != said:
                said = look.says
                self.log.info("%s", said)
            if look.verdict is not None or condition.run_id != run_id:
                return look
            await asyncio.sleep(jittered(watch.period))
