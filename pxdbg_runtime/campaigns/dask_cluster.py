"""Start workers of Dask on this machine, or connect to a running scheduler."""

from __future__ import annotations

import logging
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from pxdbg_runtime.errors import ArgumentValueError, SchedulerError, one_line
from pxdbg_runtime.inference.providers import CPU
from pxdbg_runtime.limits.address_space import estimate_process_memory
from pxdbg_runtime.model.graph_file import read_graph_file
from pxdbg_runtime.optional_imports import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

    from pxdbg_runtime.campaigns.folder import Campaign

__all__ = ["connect", "start_local_cluster"]

_CONNECT_S: Final = 30
_SETTINGS: Final = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
}
"""A partition holds no data in Dask that could be spilled, and a paused worker would stop the campaign. A worker beyond
its limit is restarted. Dask's profiler and health checks would interrupt a worker a hundred times a second."""


@contextmanager
def start_local_cluster(campaign: Campaign, workers: int) -> Iterator[Client]:
    """Start worker processes on this machine, each with one thread of Dask and a limit on its memory.

    The processes are spawned, not forked, and end with this one, even if it is killed.

    Raises
    ------
    MissingPackageError
        If dask.distributed is not installed.
    """
    distributed = _require_distributed()
    import dask

    on_cpu = campaign.plan.provider == CPU
    from pxdbg_runtime.campaigns.dask_worker import GPU_RESOURCE

    with (
        dask.config.set({**_SETTINGS, "distributed.worker.multiprocessing-method": "spawn"}),
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            # A GPU's driver and libraries take host memory of which we have no measurement.
            memory_limit=_estimate_memory(campaign) if on_cpu else 0,
            resources=None if on_cpu else {GPU_RESOURCE: 1},
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


@contextmanager
def connect(address: str) -> Iterator[Client]:
    """Connect to a running scheduler.

    Raises
    ------
    MissingPackageError
        If dask.distributed is not installed.
    ArgumentValueError
        If it is no address, or needs certificates that Dask does not have or cannot read.
    SchedulerError
        If no scheduler answers there.
    """
    distributed = _require_distributed()
    _check_address(address)
    try:
        client = distributed.Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:  # Dask's own time-outs are OSError
        message = f"No Dask scheduler answers at {address} ({one_line(error)}): start one with dask scheduler."
        raise SchedulerError(address, message) from None
    with client:
        yield client


def _check_address(address: str) -> None:
    """Check an address before there is a client: one that fails by another error than OSError takes a minute to end."""
    import dask
    from distributed.comm.addressing import parse_address, parse_host_port
    from distributed.comm.registry import get_backend
    from distributed.security import Security

    try:
        scheme, location = parse_address(address)
        get_backend(scheme)
        parse_host_port(location)
    except ValueError as error:
        message = f"{address} is no address of a Dask scheduler ({one_line(error)}): expected one as tcp://host:8786."
        raise ArgumentValueError("address", message) from None
    loads_certificates = dask.config.get("distributed.client.security-loader")
    try:
        has_certificates = Security().get_connection_args("client")["ssl_context"] is not None
    except (OSError, ValueError) as error:
        message = f"The certificates that Dask's configuration names cannot be used for {address}: {one_line(error)}."
        raise ArgumentValueError("address", message) from None
    if scheme == "tls" and not loads_certificates and not has_certificates:
        message = (
            f"{address} needs certificates, of which Dask's configuration names none: set distributed.comm.tls.ca-file "
            "and distributed.comm.tls.client, or DASK_DISTRIBUTED__COMM__TLS__CA_FILE and so on."
        )
        raise ArgumentValueError("address", message)


def _require_distributed() -> Any:  # noqa: ANN401  # a module
    return require("distributed", extra="dask", purpose="A campaign on several workers")


def _estimate_memory(campaign: Campaign) -> int:
    """Estimate the memory of a worker in bytes."""
    graph = read_graph_file(campaign.graph_path)
    n_values = sum(math.prod(draw.shape) for draw in graph.card.draws)
    return estimate_process_memory(graph.card.precision, campaign.plan.batch_size, n_values, graph.size)
