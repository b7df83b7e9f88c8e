"""What an asset watcher needs of Airflow: the base class of its trigger, and the store for what it has to remember."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.triggers import base  # noqa: TID253 (only a trigger imports this module)

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

#: Before Airflow 3 there are no asset watchers, and so no such class.
EventTriggerBase: Any = getattr(base, "BaseEventTrigger", base.BaseTrigger)


def has_asset_store(trigger: BaseTrigger) -> bool:
    """Return whether Airflow gave the trigger a store, as it does from 3.3 on."""
    return getattr(trigger, "asset_state_store", None) is not None


def read_asset_values(trigger: BaseTrigger, key: str) -> list[Any]:
    """Return what is stored under a key for the assets that the trigger belongs to. Blocks, so call it in a thread."""
    return [value for store in _stores(trigger) if (value := store.get(key)) is not None]


def write_asset_values(trigger: BaseTrigger, key: str, value: Any) -> None:
    """Store a JSON value under a key for each asset that the trigger belongs to. Blocks, so call it in a thread."""
    for store in _stores(trigger):
        store.set(key, value)


def _stores(trigger: Any) -> list[Any]:
    """Return the stores of the trigger's assets: equal watchers of several assets have one trigger."""
    stores = trigger.asset_state_store
    return [*stores._by_name.values(), *stores._by_uri.values()]  # noqa: SLF001 (Airflow has no other access to several)
