"""Benchmarks: what is printed, the JSON file, the chart, and the machine that they name."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import platform
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from rich.console import Console

from benchmarks.chart import check_format, draw_chart
from benchmarks.environment import Environment, check_installed, count_cores, describe_environment, find_versions
from benchmarks.report import Claim, Report, build_claim_table, build_measurement_table, format_figures, format_spread
from benchmarks.timing import Measurement
from pxdbg_runtime.errors import ArgumentValueError, MissingPackageError, OutputError
from pxdbg_runtime.model.card import PackageVersion
from pxdbg_runtime.plots.drawing import save_figure
from tests.digit_files import names_in
from tests.isolation import limit_file_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS: Final = ("model", "what")
MEASUREMENTS: Final = (
    Measurement(labels=("resnet", "ours"), unit="s", samples=(2.0, 1.0, 4.0)),
    Measurement(labels=("resnet", "OpenVINO"), unit="s", reason="not installed: pip install openvino"),
    Measurement(labels=("resnet", "a [peer]"), unit="s", reason="it [bold]fails[/bold]"),
    Measurement(labels=("resnet", "memory"), unit="MB", samples=(400.0,)),
)
CLAIMS: Final = (
    Claim(model="resnet", what="fast", bound="at least", target=1.45, samples=(1.5, 1.6)),
    Claim(model="resnet", what="slow", bound="at most", target=2, samples=(2.5,)),
    Claim(model="resnet", what="absent", bound="at most", target=2, samples=()),
)
ENVIRONMENT: Final = Environment(
    date="2026-01-02T03:04:05+00:00",
    processor="A [processor]",
    n_cores=2,
    packages=(PackageVersion(package="python", version="3.11.7"), PackageVersion(package="torch", version="2.13.0")),
)
REPORT: Final = Report(
    command="peers",
    environment=ENVIRONMENT,
    families=("resnet",),
    rounds=3,
    quick=False,
    remarks=("resnet: seeded random demonstration weights",),
    columns=COLUMNS,
    measurements=MEASUREMENTS,
    claims=CLAIMS,
    tables=(build_measurement_table("Seconds", COLUMNS, MEASUREMENTS), build_claim_table("Ratios", CLAIMS)),
)


def print_report(report: Report) -> str:
    output = io.StringIO()
    report.print_to(Console(file=output, width=200, highlight=False))
    return output.getvalue()


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("ours", ["resnet", "ours", "2.00 s", "1.00 to 4.00"]),
        ("memory", ["resnet", "memory", "400 MB", "400 to 400"]),
        ("OpenVINO", ["resnet", "OpenVINO", "not installed"]),
        ("a [peer]", ["resnet", "a [peer]", "not measured"]),
        ("fast", ["resnet", "fast", "at least 1.45", "1.55", "1.50 to 1.60", "holds"]),
        ("slow", ["resnet", "slow", "at most 2", "2.50", "2.50 to 2.50", "does not hold"]),
        ("absent", ["resnet", "absent", "at most 2", "", "", "not measured"]),
    ],
)
def test_the_tables_have_all_measurements_and_claims(key: str, expected: list[str]) -> None:
    (line,) = (line for line in print_report(REPORT).splitlines() if key in line and "│" in line)
    assert [cell.strip() for cell in line.strip("│ ").split("│")] == expected


def test_the_machine_the_versions_the_weights_and_the_reasons_are_printed() -> None:
    lines = print_report(REPORT).splitlines()
    assert [*lines[:3], *lines[-2:]] == [
        "2026-01-02T03:04:05+00:00, A [processor], 2 cores",
        "python 3.11.7, torch 2.13.0",
        "resnet: seeded random demonstration weights",
        "resnet, OpenVINO: not installed: pip install openvino",
        "resnet, a [peer]: not measured: it [bold]fails[/bold]",
    ]


def test_the_json_file_holds_every_sample(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    REPORT.save_json(path)
    assert names_in(tmp_path) == ["peers.json"]
    content = json.loads(path.read_text())
    assert (content["schema"], content["command"], content["remarks"]) == (1, "peers", list(REPORT.remarks))
    assert (content["families"], content["rounds"], content["quick"]) == (["resnet"], 3, False)
    assert content["environment"] == {
        "date": ENVIRONMENT.date,
        "processor": "A [processor]",
        "n_cores": 2,
        "packages": [{"package": "python", "version": "3.11.7"}, {"package": "torch", "version": "2.13.0"}],
    }
    ours, openvino, _, _ = content["measurements"]
    assert ours == {
        "labels": {"model": "resnet", "what": "ours"},
        "unit": "s",
        "samples": [2.0, 1.0, 4.0],
        "median": 2.0,
        "smallest": 1.0,
        "largest": 4.0,
        "reason": "",
    }
    assert (openvino["samples"], openvino["median"]) == ([], None)
    assert openvino["reason"] == "not installed: pip install openvino"
    fast, slow, absent = content["claims"]
    assert fast == {
        "model": "resnet",
        "what": "fast",
        "bound": "at least",
        "target": 1.45,
        "samples": [1.5, 1.6],
        "verdict": "holds",
    }
    assert (slow["verdict"], absent["verdict"]) == ("does not hold", "not measured")


def test_a_number_that_is_none_is_never_written(tmp_path: Path) -> None:
    bad = Measurement(labels=("resnet", "ours"), unit="s", samples=(float("nan"),))
    report = dataclasses.replace(REPORT, measurements=(bad,))
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.save_json(tmp_path / "peers.json")
    assert list(tmp_path.iterdir()) == []


def widths(axes: Axes) -> list[float]:
    return [bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle)]


def test_the_chart_has_a_bar_for_each_measurement_and_a_panel_for_each_unit() -> None:
    seconds, megabytes = draw_chart(REPORT).axes
    assert (seconds.get_xlabel(), megabytes.get_xlabel()) == ("s", "MB")
    assert widths(seconds) == [2.0]
    assert [label.get_text() for label in seconds.get_yticklabels()] == ["resnet, ours"]
    assert widths(megabytes) == [400.0]
    (spread_line,) = seconds.collections[0].get_segments()  # type: ignore[attr-defined]  # a LineCollection
    assert np.allclose(spread_line[:, 0], (1.0, 4.0))


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_the_chart_appears_whole(tmp_path: Path, suffix: str, start: bytes) -> None:
    path = tmp_path / f"peers{suffix}"
    save_figure(draw_chart(REPORT), path)
    assert path.read_bytes().startswith(start)
    assert names_in(tmp_path) == [path.name]


def test_a_chart_that_fails_leaves_the_older_one(tmp_path: Path) -> None:
    path = tmp_path / "peers.png"
    path.write_bytes(b"older")
    with limit_file_size(1_000), pytest.raises(OutputError, match=r"peers\.png cannot be written: File too large\."):
        save_figure(draw_chart(REPORT), path)
    assert path.read_bytes() == b"older"
    assert names_in(tmp_path) == ["peers.png"]


def test_a_chart_of_nothing_is_a_chart(tmp_path: Path) -> None:
    report = dataclasses.replace(REPORT, measurements=MEASUREMENTS[1:2])
    save_figure(draw_chart(report), tmp_path / "empty.png")
    assert draw_chart(report).axes == []
    assert (tmp_path / "empty.png").stat().st_size > 0


def test_the_format_of_a_chart_is_checked_before_the_work() -> None:
    with pytest.raises(ArgumentValueError, match=r"peers\.txt must end in .*: expected one of \.pdf, \.png, \.svg"):
        check_format(Path("peers.txt"))


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.0, "0.00"), (0.00012, "0.000120"), (1.005, "1.00"), (99.94, "99.9"), (1234.5, "1,234"), (-2.5, "-2.50")],
)
def test_numbers_have_three_figures(value: float, written: str) -> None:
    assert format_figures(value) == written
    assert format_spread((value, value)) == f"{written} to {written}"


def test_this_machine_is_described() -> None:
    described = describe_environment()
    versions = {each.package: each.version for each in described.packages}
    assert datetime.fromisoformat(described.date).tzinfo is not None
    assert described.n_cores == count_cores() >= 1
    assert described.processor
    assert versions["python"] == platform.python_version()
    assert versions["numpy"] == np.__version__
    assert {"numba", "torch", "openvino", "pyarrow", "h5py", "uproot", "awkward", "ROOT"} <= versions.keys()
    assert any(package.startswith("onnxruntime") for package in versions)


@pytest.mark.slow
def test_a_package_without_metadata_is_of_an_unknown_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name == "spam" else None)
    versions = find_versions(("numpy", "spam", "eggs"))
    assert versions["numpy"] == np.__version__
    assert (versions["spam"], versions["eggs"]) == ("of an unknown version", "not installed")


def test_a_package_that_is_not_there_is_said_not_to_be_installed() -> None:
    check_installed("numpy")
    with pytest.raises(MissingPackageError, match=r"^not installed: pip install no_such_package$") as caught:
        check_installed("no_such_package")
    assert caught.value.package == "no_such_package"
