"""What pages of the documentation need as tests: small models under the built-in names, and files of their readers."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final
from unittest import mock

from msgspec import structs

from pxdbg_runtime.limits.threads import JobCpus
from pxdbg_runtime.model import builtin_models
from pxdbg_runtime.model.builtin_models import MANIFEST_NAME, format_manifest, read_manifest
from tests.graphs import FIDELITY, describe_graph, latent_model, write_graph
from tests.test_verification import build_latent_card
from tests.validation_samples import build_marginals_content, write_marginals

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["replace_builtin_models", "write_marginals_of_a_test"]

_MIN_CHARGE_ADU: Final = 7


@contextlib.contextmanager
def replace_builtin_models() -> Iterator[None]:
    """Replace each built-in graph in this block by one of the same name and precision that takes milliseconds.

    Campaigns find one CPU, so that they start no worker processes, which takes seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        graphs = []
        for listed in read_manifest():
            card = structs.replace(
                build_latent_card("charges" if listed.precision == "int8" else "values"),
                name=listed.name,
                family=listed.name,
                nature="stand-in",
                precision=listed.precision,
                weight_bits=7 if listed.precision == "int8" else None,
                fidelity=None if listed.precision == "float32" else FIDELITY,
                min_charge=_MIN_CHARGE_ADU,
            )
            graphs.append(describe_graph(write_graph(Path(folder) / listed.file, latent_model(), card)))
        (Path(folder) / MANIFEST_NAME).write_text(format_manifest(tuple(graphs)), encoding="utf-8")
        one_cpu = JobCpus(count=1, limited_by="the tests of pages start no worker processes")
        with (
            mock.patch.object(builtin_models, "find_artifacts_folder", return_value=Path(folder)),
            mock.patch("pxdbg_runtime.command_line.campaign.count_job_cpus", return_value=one_cpu),
        ):
            read_manifest.cache_clear()
            yield
    read_manifest.cache_clear()


def write_marginals_of_a_test(path: str) -> None:
    """Write a file of marginals, with one published generator beside the simulation."""
    write_marginals(Path(path), build_marginals_content("ieagan"))
