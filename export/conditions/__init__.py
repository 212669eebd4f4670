"""Checkpoints from Belle II's conditions database: from a global tag to a verified file in the local cache."""

from __future__ import annotations

from export.conditions.cache import default_cache
from export.conditions.fetching import Fetched, fetch_payload
from export.conditions.limits import Limits
from export.conditions.naming import checkpoint_payload_name, graph_payload_name
from export.conditions.servers import servers_to_ask

__all__ = [
    "Fetched",
    "Limits",
    "checkpoint_payload_name",
    "default_cache",
    "fetch_payload",
    "graph_payload_name",
    "servers_to_ask",
]
