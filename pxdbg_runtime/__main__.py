"""``python -m pxdbg_runtime``: the command ``pxdbg``."""

from __future__ import annotations

from pxdbg_runtime.command_line import app

if __name__ == "__main__":
    app(prog_name="pxdbg")
