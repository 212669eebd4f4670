"""What the build puts in besides the modules: the graphs in a wheel, the export stage in an editable install."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BuildHook(BuildHookInterface):
    """Adds graphs and manifest to a wheel, and the package ``export`` to an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add them, before the files are collected."""
        artifacts = Path(self.root) / "artifacts"
        if version == "editable":
            self.build_config.packages.append("export")
        else:
            graphs = [artifacts / "manifest.json", *artifacts.glob("*.onnx")]
            build_data["force_include"].update({str(each): f"pxdbg_runtime/artifacts/{each.name}" for each in graphs})
