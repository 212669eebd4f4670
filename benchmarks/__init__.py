"""Benchmarks of pxdbg_runtime and its peers: ``python -m benchmarks COMMAND``. They are not in the wheel."""
