"""``pxdbg models``, ``show`` and ``plot``: what there is to run, and what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from pxdbg_runtime.command_line.console import report_failures, stdout
from pxdbg_runtime.command_line.inputs import check_not_an_input
from pxdbg_runtime.digits import Digits
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.formats import SUFFIXES, DigitReader, merge_files, open_events
from pxdbg_runtime.formats.atomic_write import check_target
from pxdbg_runtime.model.builtin_models import find_graph, read_manifest
from pxdbg_runtime.model.card import Fidelity, ModelCard
from pxdbg_runtime.model.graph_file import GraphFile
from pxdbg_runtime.plots.event_display import save_event
from pxdbg_runtime.plots.summary import REAL_BACKGROUND, REAL_MEAN_CHARGE, SummaryCounter

__all__ = ["models", "plot", "show"]


def models() -> None:
    """List the models that come with the package, each checked against the manifest."""
    with report_failures():
        table = Table("model", "precision", "size", "weights", "provenance")
        for listed in read_manifest():
            card = find_graph(listed.name, listed.precision, listed.target).card
            size = f"{listed.size / 1e6:.1f} MB"
            table.add_row(listed.name, listed.precision, size, card.nature, card.provenance)
        stdout.print(table)


def show(
    file: Annotated[
        list[str],
        typer.Argument(
            help="Graph (.onnx), name of a shipped model, or digits (.parquet, .npz); several of digits are one sample."
        ),
    ],
) -> None:
    """Show what a file is: the card of a graph, or a summary of digits."""
    with report_failures():
        paths = [Path(each) for each in file]
        others = [each for each in paths if each.suffix not in SUFFIXES]
        if not others:
            _show_digits(open_events(paths[0]) if len(paths) == 1 else merge_files(paths))
        elif len(paths) == 1:
            _show_graph(find_graph(file[0], None))
        else:
            message = (
                f"Several files are shown as one sample if all are digits, {' or '.join(SUFFIXES)}, but {others[0]} is "
                "none: show it by itself."
            )
            raise ArgumentValueError("file", message)


def plot(
    file: Annotated[Path, typer.Argument(help="Digits: .parquet or .npz.")],
    output: Annotated[Path, typer.Option(help="Picture to write: .png, .pdf or .svg.")],
    event: Annotated[
        int | None, typer.Option(min=0, show_default="the first of the file", help="Event to draw.")
    ] = None,
) -> None:
    """Draw one event: both layers unrolled, hits coloured by charge, and the charge spectrum."""
    with report_failures():
        check_target(output, room_bytes=100_000)
        check_not_an_input("output", output, [file])
        reader = open_events(file)
        first, last = int(reader.event_numbers[0]), int(reader.event_numbers[-1])
        chosen = first if event is None else event
        if chosen not in reader.event_numbers:
            message = f"--event must be one of those in {file}, {first} to {last}, but is {chosen}."
            raise ArgumentValueError("event", message)
        # All blocks are read, so that what the file holds is compared with its digest.
        digits = Digits.concatenate([block.of_event(chosen) for block in reader.blocks()])
        save_event(digits, output, title=_title(reader, chosen))
        stdout.print(f"wrote {output}", markup=False, soft_wrap=True)


def _title(reader: DigitReader, event: int) -> str:
    if not reader.jobs:
        return f"PXD background, event {event}: how it was made is unknown"
    (how,) = reader.jobs
    worth = "" if how.nature == "checkpoint" else f"  ({how.nature}, no real physics)"
    return f"PXD background, event {event}: {how.model}, seed {how.seed}{worth}"


def _show_graph(graph: GraphFile) -> None:
    card = graph.card
    table = Table("", Column(overflow="fold"), show_header=False)
    for key, value in _card_rows(card):
        table.add_row(key, value)
    table.add_row("file", f"{graph.path}, {graph.size / 1e6:.1f} MB")
    table.add_row("SHA-256", graph.sha256)
    stdout.print(table)


def _card_rows(card: ModelCard) -> list[tuple[str, str]]:
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
        ("made for", card.target),
        ("output_kind", "charges" if card.output_kind == "charges" else "tanh values"),
        ("passes", ", ".join(card.passes) or "none"),
        ("opset", str(card.opset)),
        ("inputs", inputs),
        ("draws an event", draws),
        ("sensors", str(len(card.sensors))),
        ("smallest charge", f"{card.min_charge} ADU"),
        ("cut", "none" if card.cut is None else f"outputs not above {card.cut:g} are empty"),
        ("against PyTorch", parity),
        ("against float64", float64),
        ("known answers", known),
        *([] if card.fidelity is None else [("against float32", _said(card.fidelity))]),
        ("checkpoint SHA-256", card.checkpoint_sha256),
        ("made with", ", ".join(f"{each.package} {each.version}" for each in card.made_with)),
    ]


def _said(fidelity: Fidelity) -> str:
    return (
        f"W1 of the charge spectrum {fidelity.charge_w1_adu:.3f} ADU, occupancy "
        f"{100 * (fidelity.occupancy_ratio - 1):+.2f} %, identical digits {100 * fidelity.identical_digits:.1f} % "
        f"({fidelity.images} images){'' if fidelity.is_within_bounds else ': beyond the bounds'}"
    )


def _show_digits(reader: DigitReader) -> None:
    counter = SummaryCounter()
    for digits in reader.blocks():
        counter.add(digits)
    stdout.print(f"{_events(reader)}, {counter.n_digits:,} digits{_threshold(reader, counter)}", soft_wrap=True)
    table = Table("", "digits an event", "occupancy", "real", "mean charge", "real")
    for part in counter.summaries(reader.n_events):
        table.add_row(
            part.part,
            f"{part.digits_per_event:,.0f}",
            f"{100 * part.occupancy:.2f} %",
            f"{100 * REAL_BACKGROUND[part.part]:.2f} %",
            "–" if part.mean_charge is None else f"{part.mean_charge:.1f} ADU",  # noqa: RUF001  # a dash, as printed
            f"{REAL_MEAN_CHARGE:.0f} ADU" if part.part == "both layers" else "",
        )
    stdout.print(table)
    stdout.print(
        "\n".join([*_origin_lines(reader), "real: means of the public Geant4 statistics of the IEA-GAN authors"]),
        markup=False,
        soft_wrap=True,
    )


def _events(reader: DigitReader) -> str:
    if len(reader.jobs) == 1:
        (how,) = reader.jobs
        return f"events {how.first_event} to {how.last_event}"
    return "1 event" if reader.n_events == 1 else f"{reader.n_events:,} events"


def _threshold(reader: DigitReader, counter: SummaryCounter) -> str:
    smallest = reader.jobs[0].min_charge if reader.jobs else counter.smallest_charge
    return "" if smallest is None else f" of {smallest} ADU or more"


def _origin_lines(reader: DigitReader) -> list[str]:
    """Say how the digits were made, and whether they are those that were written."""
    lines = [
        f"{how}, pxdbg-runtime {how.version}"
        + (f", events {how.first_event} to {how.last_event}" if len(reader.jobs) > 1 else "")
        for how in reader.jobs
    ]
    if reader.jobs:
        how = reader.jobs[0]
        lines += [] if how.graph_sha256 is None else [f"graph SHA-256 {how.graph_sha256}"]
        lines.append(f"{how.nature}: {how.provenance}")
    else:
        lines += [
            f"how they were made: unknown ({reader.remark})",
            "counted are the events that have digits: others cannot be seen",
        ]
    checked = "checked" if reader.is_checked else "not checked (an older release or another tool wrote the file)"
    return [*lines, f"digest: {checked}"]
