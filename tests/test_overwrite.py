"""No command replaces a digit file that exists, unless `--overwrite` says so; pictures and pages are drawn anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pxdbg_runtime.formats import read_digits
from tests.digit_files import SAMPLE, write
from tests.test_command_line import invoke

if TYPE_CHECKING:
    from pathlib import Path

    from pxdbg_runtime.model.graph_file import GraphFile

COMMANDS = (
    "generate --model GRAPH",
    "convert IN",
    "merge IN",
    "overlay IN IN --saturate 255",
    "campaign merge CAMPAIGN",
)


@pytest.fixture
def words(latent_graph: GraphFile, tmp_path: Path) -> dict[str, Path]:
    """What the words in capitals stand for."""
    campaign = tmp_path / "campaign"
    planned = invoke("campaign", "plan", "--model", latent_graph.path, "--events", 2, "--output", campaign)
    assert planned.exit_code == 0, planned.output
    assert invoke("campaign", "run", campaign, "--workers", 1).exit_code == 0
    return {"GRAPH": latent_graph.path, "IN": write(tmp_path / "in.npz", [SAMPLE]), "CAMPAIGN": campaign}


def test_digit_files_are_replaced_on_request_alone(words: dict[str, Path], tmp_path: Path) -> None:
    for command in COMMANDS:
        arguments = [words.get(word, word) for word in command.split()]
        output = tmp_path / f"{arguments[0]}-{arguments[1]}.parquet".replace("/", "")
        output.write_bytes(b"hours of work")
        refused = invoke(*arguments, "--output", output)
        expected = f"Error: {output} exists: name another file to write, or replace it with --overwrite.\n"
        assert (refused.exit_code, refused.stdout, refused.stderr) == (1, "", expected), command
        assert output.read_bytes() == b"hours of work", command
        result = invoke(*arguments, "--output", output, "--overwrite")
        assert result.exit_code == 0, result.output
        assert len(read_digits(output).digits) > 0, command


def test_a_name_that_leads_nowhere_is_free(latent_graph: GraphFile, tmp_path: Path) -> None:
    link = tmp_path / "link.npz"
    link.symlink_to(tmp_path / "target.npz")
    assert invoke("generate", "--model", latent_graph.path, "--output", link).exit_code == 0
    assert (tmp_path / "target.npz").is_file()
    again = invoke("generate", "--model", latent_graph.path, "--output", link)
    assert f"{link} exists: " in again.stderr


@pytest.mark.slow
def test_pictures_are_drawn_anew(tmp_path: Path) -> None:
    digits = write(tmp_path / "in.npz", [SAMPLE])
    picture = tmp_path / "event.png"
    picture.write_bytes(b"")
    assert invoke("plot", digits, "--output", picture).exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
