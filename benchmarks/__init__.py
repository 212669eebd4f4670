"""Benchmarks of pxdbg_runtime and its peers: ``python -m benchmarks COMMAND``. Programs, not tests; not in the wheel."""
