"""``pxdbg show``: print the card of a graph, or a summary of digits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Column, Table

from pxdbg_runtime.command_line.console import format_event_count, report_failures, stdout
from pxdbg_runtime.command_line.safe_text import make_line
from pxdbg_runtime.command_line.sensor_tables import (
    SensorMeans,
    build_comparison_table,
    build_ladder_table,
    list_means,
)
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.formats import SUFFIX_LIST, SUFFIXES, DigitReader, merge_files, open_events
from pxdbg_runtime.formats.provenance import has_random_weights, list_sensors
from pxdbg_runtime.model.builtin_models import find_graph
from pxdbg_runtime.model.card import Fidelity, ModelCard, describe_weights
from pxdbg_runtime.model.graph_file import GraphFile
from pxdbg_runtime.plots.summary import GEANT4_MEAN_CHARGE, GEANT4_OCCUPANCIES, SummaryCounter
from pxdbg_runtime.sensors import READOUT_THRESHOLD_ADU, SENSORS
from pxdbg_runtime.validation.marginals import read_marginals

__all__ = ["show"]

_GEANT4: Final = (
    "Geant4: means of the public statistics of the IEA-GAN authors; a model that does not know its sensors has "
    "about the mean of both layers in each"
)


def show(
    file: Annotated[
        list[str],
        typer.Argument(
            help=f"Built-in model, graph (.onnx) or digit file ({SUFFIX_LIST}); several files are one sample."
        ),
    ],
    reference: Annotated[
        Path | None,
        typer.Option(help=f"Published marginals (.json) or digits ({SUFFIX_LIST}) to compare each sensor with."),
    ] = None,
) -> None:
    """Show the card of a graph, or a summary of digits: occupancy and mean charge by layer and by sensor."""
    with report_failures():
        paths = [Path(each) for each in file]
        others = [each for each in paths if each.suffix not in SUFFIXES]
        if not others:
            _show_digits(open_events(paths[0]) if len(paths) == 1 else merge_files(paths), reference)
        elif reference is not None:
            message = f"--reference is compared with digit files, {SUFFIX_LIST}, but {others[0]} is none: omit it."
            raise ArgumentValueError("reference", message)
        elif len(paths) == 1:
            _check_kind(paths[0])
            _show_graph(find_graph(file[0], None))
        else:
            message = (
                f"Several files are one sample if all are digit files, {SUFFIX_LIST}, but {others[0]} is none: "
                "show it alone."
            )
            raise ArgumentValueError("file", message)


def _check_kind(path: Path) -> None:
    """Refuse a file whose name says that it is neither a graph nor digits; there may be a model of any other name."""
    if path.suffix not in {"", ".onnx"} and os.path.isfile(path):  # noqa: PTH113  # Path raises for too long a name
        message = f"{path} is neither a graph (.onnx) nor a digit file ({SUFFIX_LIST}): expected one of them."
        raise ArgumentValueError("file", message)


def _show_graph(graph: GraphFile) -> None:
    card = graph.card
    table = Table("", Column(overflow="fold"), show_header=False)
    for key, value in _format_card(card):
        table.add_row(key, value)
    table.add_row("file", f"{graph.path}, {graph.size / 1e6:.1f} MB")
    table.add_row("SHA-256", graph.sha256)
    stdout.print(table)


def _format_card(card: ModelCard) -> list[tuple[str, str]]:
    inputs = ", ".join(f"{each.name} ({each.role})" for each in card.inputs)
    draws = ", ".join(f"{draw.name} {draw.shape[0]} x {draw.shape[1]}" for draw in card.draws)
    parity = (
        f"largest difference {card.parity.max_abs_difference:.1e}, equal charges of hits "
        f"{100 * card.parity.equal_charges:.3f} % ({card.parity.images} images)"
    )
    float64 = (
        f"largest difference {card.parity.max_float64_difference:.1e}, PyTorch's own float32 "
        f"{card.parity.pytorch_float64_difference:.1e}"
    )
    answers = card.known_answers
    known = "none" if answers is None else f"{answers.compared} of {len(answers.images)} images, see pxdbg check"
    return [
        ("model", card.name),
        ("family", card.family),
        ("weights", card.nature),
        ("provenance", card.provenance),
        ("precision", card.precision if card.weight_bits is None else f"int8, weights of {card.weight_bits} bits"),
        ("target", card.target),
        ("outputs", "charges" if card.output_kind == "charges" else "tanh values"),
        ("passes", ", ".join(card.passes) or "none"),
        ("opset", str(card.opset)),
        ("inputs", inputs),
        ("draws per event", draws),
        ("sensors", str(len(card.sensors))),
        ("smallest charge", f"{card.min_charge} ADU"),
        ("cut", "none" if card.cut is None else f"outputs not above {card.cut:g} are empty"),
        ("against PyTorch", parity),
        ("against float64", float64),
        ("known answers", known),
        *([] if card.fidelity is None else [("against float32", _format_fidelity(card.fidelity))]),
        ("checkpoint SHA-256", card.checkpoint_sha256),
        ("made with", ", ".join(f"{each.package} {each.version}" for each in card.made_with)),
    ]


def _format_fidelity(fidelity: Fidelity) -> str:
    return (
        f"W1 of the charge spectrum {fidelity.charge_w1_adu:.3f} ADU, occupancy "
        f"{100 * (fidelity.occupancy_ratio - 1):+.2f} %, identical digits {100 * fidelity.identical_digits:.1f} % "
        f"({fidelity.images} images){'' if fidelity.is_within_bounds else ': beyond the bounds'}"
    )


def _show_digits(reader: DigitReader, reference: Path | None) -> None:
    counter, threshold = _count_digits(reader)
    cut_adu = max(threshold, READOUT_THRESHOLD_ADU)
    of_sensors = (
        build_ladder_table(_average_sensors(reader, counter, cut_adu))
        if reference is None
        else _compare_sensors(reader, counter, threshold, reference)
    )
    cut = f" of {threshold} ADU or more" if counter.n_digits or reader.jobs else ""
    stdout.print(f"{_format_events(reader)}, {counter.n_digits:,} digits{cut}", soft_wrap=True)
    table = Table("", "digits per event", "occupancy", "Geant4", "mean charge", "Geant4")
    sensors, is_random = list_sensors(reader.jobs), has_random_weights(reader.jobs)
    has_geant4 = False
    for part in counter.summarise(reader.n_events, sensors, min_charge=cut_adu):
        # Random weights, a mean over some sensors of both layers and a higher threshold have no counterpart in Geant4.
        is_whole = part.part != "both layers" or sensors == SENSORS
        is_comparable = not is_random and threshold <= READOUT_THRESHOLD_ADU and is_whole
        has_geant4 |= is_comparable
        table.add_row(
            part.part,
            f"{part.digits_per_event:,.0f}",
            f"{100 * part.occupancy:.2f} %",
            f"{100 * GEANT4_OCCUPANCIES[part.part]:.2f} %" if is_comparable else "",
            "–" if part.mean_charge is None else f"{part.mean_charge:.1f} ADU",  # noqa: RUF001  # a dash, as printed
            f"{GEANT4_MEAN_CHARGE:.0f} ADU" if part.part == "both layers" and is_comparable else "",
        )
    stdout.print(table)
    stdout.print(of_sensors)
    if threshold < READOUT_THRESHOLD_ADU:
        # Beside a reference the title of the sensors' table has the cut of that table.
        tables = "the tables" if reference is None else "the table of the layers"
        stdout.print(
            f"counted in {tables}: digits of {READOUT_THRESHOLD_ADU} ADU or more, as in Geant4", soft_wrap=True
        )
    stdout.print(
        "\n".join([*map(make_line, _format_provenance(reader)), *([_GEANT4] if has_geant4 else [])]),
        soft_wrap=True,
    )


def _count_digits(reader: DigitReader) -> tuple[SummaryCounter, int]:
    """Count the digits of a sample; return them with its threshold: the smallest charge if the file does not say."""
    counter = SummaryCounter()
    for digits in reader.read_blocks():
        counter.add(digits)
    return counter, reader.jobs[0].min_charge if reader.jobs else counter.smallest_charge or 1


def _average_sensors(reader: DigitReader, counter: SummaryCounter, min_charge: int = 1) -> SensorMeans:
    return list_means(counter.summarise_sensors(reader.n_events, min_charge=min_charge), list_sensors(reader.jobs))


def _compare_sensors(reader: DigitReader, counter: SummaryCounter, threshold: int, reference: Path) -> Table:
    """Compare each sensor with a reference, both with the larger of their thresholds."""
    if reference.suffix == ".json":
        marginals = read_marginals(reference).reference
        if threshold > marginals.min_charge:
            message = (
                f"The digits have a threshold of {threshold} ADU, but published marginals are cut at "
                f"{marginals.min_charge} ADU: compare with digits of that threshold."
            )
            raise ArgumentValueError("reference", message)
        cut, name = marginals.min_charge, marginals.name
        theirs = SensorMeans(marginals.sensor_mean_occupancy, marginals.sensor_mean_charge)
    else:
        other = open_events(reference)
        of_other, other_threshold = _count_digits(other)
        cut, name = max(threshold, other_threshold), reference.stem
        theirs = _average_sensors(other, of_other, cut)
    return build_comparison_table(_average_sensors(reader, counter, cut), theirs, name, cut)


def _format_events(reader: DigitReader) -> str:
    if len(reader.jobs) == 1:
        return f"events {reader.jobs[0].first_event} to {reader.jobs[0].last_event}"
    return format_event_count(reader.n_events)


def _format_provenance(reader: DigitReader) -> list[str]:
    """Describe how the digits were generated, and whether a digest was compared, in lines."""
    lines = []
    for job in reader.jobs:
        events = f", events {job.first_event} to {job.last_event}" if len(reader.jobs) > 1 else ""
        lines.append(f"{job}, pxdbg-runtime {job.version}{events}")
    if reader.jobs:
        job = reader.jobs[0]
        lines += [] if job.graph_sha256 is None else [f"graph SHA-256 {job.graph_sha256}"]
        lines.append(describe_weights(job.nature, job.provenance))
    else:
        lines += [
            f"provenance: unknown ({reader.remark})",
            "only events with digits are counted: others cannot be seen",
        ]
    checked = "checked" if reader.is_checked else "not checked (an older release or another tool wrote the file)"
    return [*lines, f"digest: {checked}"]
