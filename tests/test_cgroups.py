"""Quotas and limits of cgroups, read from files like the kernel's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pxdbg_runtime.limits.cgroups import read_cpu_quota, read_memory_limit

if TYPE_CHECKING:
    from pathlib import Path

V2 = "0::/slurm/job_7/step_0\n"
V1 = "9:name=systemd:/x\n4:memory:/condor/slot1\n1:cpu,cpuacct:/condor/slot1\n0::/init.scope\n"
NO_LIMIT = "9223372036854771712\n"


def write(folder: Path, files: dict[str, str]) -> tuple[Path, Path]:
    """Write files by their path; return where cgroups are mounted and the file of membership."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder / "cgroup", folder / "membership"


@pytest.mark.parametrize(
    ("files", "quota", "limit"),
    [
        ({}, None, None),
        ({"membership": V2}, None, None),
        (
            {
                "membership": V2,
                "cgroup/slurm/job_7/step_0/cpu.max": "max 100000\n",
                "cgroup/slurm/job_7/cpu.max": "150000 100000\n",
                "cgroup/slurm/cpu.max": "800000 100000\n",
                "cgroup/slurm/job_7/step_0/memory.max": "max\n",
                "cgroup/slurm/job_7/memory.max": "2147483648\n",
            },
            1.5,
            2**31,
        ),
        # In a container the folder that the membership names is not there, its own is the root.
        ({"membership": V2, "cgroup/cpu.max": "50000 100000\n", "cgroup/memory.max": "1000\n"}, 0.5, 1000),
        (
            {
                "membership": V1,
                "cgroup/cpu,cpuacct/condor/slot1/cpu.cfs_quota_us": "200000\n",
                "cgroup/cpu,cpuacct/condor/slot1/cpu.cfs_period_us": "50000\n",
                "cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "cgroup/memory/condor/slot1/memory.limit_in_bytes": "3000000000\n",
                "cgroup/memory/memory.limit_in_bytes": NO_LIMIT,
            },
            4.0,
            3_000_000_000,
        ),
        ({"membership": V1, "cgroup/memory/memory.limit_in_bytes": NO_LIMIT}, None, None),
        # Version 2 beside version 1.
        ({"membership": V1, "cgroup/unified/init.scope/cpu.max": "300000 100000\n"}, 3.0, None),
        ({"membership": "no cgroup\n\n:\n", "cgroup/cpu.max": "1 1\n"}, None, None),
        ({"membership": V2, "cgroup/cpu.max": "1 0\n", "cgroup/memory.max": "much\n"}, None, None),
    ],
)
def test_the_least_of_all_groups_above_counts(
    tmp_path: Path, files: dict[str, str], quota: float | None, limit: int | None
) -> None:
    mounts, membership = write(tmp_path, files)
    assert read_cpu_quota(mounts, membership) == quota
    assert read_memory_limit(mounts, membership) == limit
