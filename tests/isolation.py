"""Disks that fill: in namespaces of Linux, or by a limit on the size of files."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["limit_file_size", "run_isolated"]


@contextmanager
def limit_file_size(n_bytes: int) -> Iterator[None]:
    """Limit the size of files: writing more fails as on a full disk."""
    resource = pytest.importorskip("resource", reason="this platform has no such limits")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def run_isolated(script: str, scratch: Path, *, scratch_mib: int) -> subprocess.CompletedProcess[str]:
    """Run a shell script with a small writable disk at `scratch`, all else read-only, without a network.

    Skips where the kernel does not allow it, but fails there in CI, which must not lose this test silently.
    """
    namespaces = ["unshare", "--mount", "--net"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
    if subprocess.run([*namespaces, "true"], capture_output=True, check=False).returncode != 0:
        if os.environ.get("CI"):
            pytest.fail("this machine does not allow namespaces (unshare), which these tests need in CI")
        pytest.skip("this machine does not allow namespaces (unshare --mount --net)")
    mounts = f"mount -t tmpfs -o size={scratch_mib}m tmpfs '{scratch}'\nmount -o remount,bind,ro /\ncd '{scratch}'\n"
    return subprocess.run(
        [*namespaces, "bash", "-c", f"set -e\n{mounts}{script}"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
    )
