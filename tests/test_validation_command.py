"""``pxdbg validate``: the page, the JSON beside it, the output in the terminal, and errors."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from pxdbg_runtime import Digits
from pxdbg_runtime.command_line.console import stdout
from tests.digit_files import ANY_SUFFIX, names_in, random_digits
from tests.test_command_line import invoke, require_failure
from tests.validation_samples import build_marginals_content, write_events, write_marginals

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def read_page(path: Path) -> Element:
    """Parse a page, which is XML too: its tags are balanced."""
    return ET.fromstring(path.read_text(encoding="utf-8"))


def list_rows(page: Element) -> list[list[str]]:
    rows = [["".join(cell.itertext()) for cell in row] for row in page.iter("tr")]
    return [[text.replace("\N{NO-BREAK SPACE}", " ") for text in row] for row in rows]


def find_row(page: Element, label: str) -> list[str]:
    return next(cells for first, *cells in list_rows(page) if first == label)


def write_sample(path: Path, n_events: int = 3, seed: int = 1) -> Path:
    rng = np.random.default_rng(seed)
    return write_events(path, [random_digits(rng, 15_000, event) for event in range(3, 3 + n_events)])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write samples and references."""
    written = tmp_path_factory.mktemp("inputs")
    write_sample(written / "ours.parquet")
    write_sample(written / "_cost$5$.npz", seed=2)
    write_sample(written / "simulation.npz", seed=3)
    write_marginals(written / "marginals.json", build_marginals_content("one<b>", "two"))
    return written


@pytest.fixture
def folder(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working directory with copies of the samples and references."""
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_page_and_its_json(folder: Path) -> None:
    arguments = "ours.parquet _cost$5$.npz --reference marginals.json --reference simulation.npz --report out.html"
    result = invoke("validate", *arguments.split())
    assert result.exit_code == 0, result.output
    assert "wrote out.html and out.json" in result.stdout
    assert "against geant4, hits of 7 ADU or more" in result.stdout
    assert "demonstration: Made for a test" in result.stderr
    page = read_page(folder / "out.html")
    content = json.loads((folder / "out.json").read_text(encoding="utf-8"))

    images = list(page.iter("img"))
    assert len(images) == 9
    for image in images:
        head, _comma, body = image.attrib["src"].partition(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(body, validate=True).startswith(b"\x89PNG")
    assert not {"script", "link", "iframe", "b", "a"} & {element.tag for element in page.iter()}
    text = (folder / "out.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(", text)
    assert 'name="viewport"' in text

    columns = ["ours", "_cost$5$", "ours", "_cost$5$", "simulation", "one<b>", "two"]
    kinds = ["sample"] * 2 + ["half against half"] * 2 + ["reference digits"] + ["published generator"] * 2
    assert list_rows(page)[0] == ["", *(name + kind for name, kind in zip(columns, kinds, strict=True))]
    by_place = {(each["name"], each["role"], each["against"]): each["scores"] for each in content["comparisons"]}
    shown = find_row(page, "charge spectrum: W1 (ADU)")
    assert shown[0] == f"{by_place['ours', 'sample', 'geant4']['charge']['w1']:.2f}"
    assert shown[2] == f"{by_place['ours', 'half against half', 'ours']['charge']['w1']:.2f}"
    assert shown[5] == f"{by_place['one<b>', 'published', 'geant4']['charge']['w1']:.2f}"
    assert len(find_row(page, "total occupancy, difference")) == len(columns)
    assert find_row(page, "repeated images / tiles") == ["0 / 0", "0 / 0", "-", "-", "0 / 0", "-", "-"]
    assert find_row(page, "below 7 ADU, share of all pixels")[0].endswith(" %")
    notes = [note.text for note in page.iter("p")]
    assert "ours, _cost$5$, simulation: Made for a test: größer." in notes
    assert "geant4 and published generators: Made for a test: <nobody> & nothing." in notes
    headings = [heading.text for heading in page.iter("h2")]
    for expected in ("Charge spectrum", "Occupancy of each sensor", "Mean charge of each sensor", "Seams", "One image"):
        assert expected in headings
    assert [sample["name"] for sample in content["samples"]] == ["ours", "_cost$5$"]


@pytest.fixture
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes seconds."""
    monkeypatch.setattr("pxdbg_runtime.validation.page.draw_pictures", lambda *_arguments: ())


@pytest.mark.usefixtures("_without_pictures", "folder")
def test_the_table_fits_the_terminal_and_loses_no_character(monkeypatch: pytest.MonkeyPatch) -> None:
    contents = []
    for width in (200, 80, 60, 40):
        monkeypatch.setattr(stdout, "_width", width)
        result = invoke("validate", "ours.parquet", "--reference", "marginals.json", "--report", "out.html")
        table, _wrote, _paths = result.stdout.partition("wrote ")
        assert max(map(len, table.splitlines())) <= width
        contents.append(Counter(re.sub(r"[\s─]", "", table)))
    assert contents == contents[:1] * 4


@pytest.mark.usefixtures("_without_pictures")
def test_a_sample_alone_and_another_cut(folder: Path) -> None:
    result = invoke("validate", "ours.parquet", "--report", "out.html", "--min-charge", 30)
    assert result.exit_code == 0, result.output
    page = read_page(folder / "out.html")
    assert find_row(page, "charge spectrum: KS")[0] == "-"
    assert find_row(page, "below 30 ADU, share of all pixels")[0].endswith(" %")
    content = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    assert len(content["samples"][0]["marginals"]["charge_counts"]) == 226


@pytest.mark.slow
def test_one_event_with_one_hit_in_a_file_whose_name_is_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"not-utf8-\xff.npz")
    path = write_events(tmp_path / name, [random_digits(np.random.default_rng(1), 1, 3)])
    marginals = write_marginals(tmp_path / "m.json", build_marginals_content())
    result = invoke("validate", path, "--reference", marginals, "--report", tmp_path / "out.html")
    assert result.exit_code == 0, result.output
    read_page(tmp_path / "out.html")
    assert names_in(tmp_path) == sorted(["m.json", "out.html", "out.json", name])


@pytest.mark.usefixtures("_without_pictures")
def test_the_same_file_as_sample_and_reference(folder: Path) -> None:
    result = invoke("validate", "ours.parquet", "--reference", "ours.parquet", "--report", "out.html")
    assert result.exit_code == 0, result.output
    page = read_page(folder / "out.html")
    assert list_rows(page)[0][-1] == "ours.parquet (reference)reference digits"
    assert find_row(page, "charge spectrum: KS")[0] == "0.000"


def list_columns(page: Element) -> list[tuple[str, str]]:
    """List the names and the kinds of the columns of the summary."""
    heads = page.iter("th")
    return [("".join(head.itertext())[: -len(kind.text or "")], kind.text or "") for head in heads for kind in head]


@pytest.mark.usefixtures("_without_pictures")
@pytest.mark.parametrize(
    ("second", "names"),
    [
        ("others.json", ("(marginals)", "(others)")),
        ("folder/marginals.json", ("(marginals.json)", "(folder/marginals.json)")),
    ],
)
def test_two_files_of_marginals_are_two_references(folder: Path, second: str, names: tuple[str, str]) -> None:
    """The summary shows the generators of the first one only, as its scores are against that."""
    (folder / "folder").mkdir()
    write_marginals(folder / second, build_marginals_content("one<b>", "two"))
    result = invoke(
        *("validate", "ours.parquet", "--reference", "marginals.json", "--reference", second, "--report", "out.html")
    )
    assert result.exit_code == 0, result.output
    content = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    first_name, second_name = names
    assert [(each["name"], each["role"], each["against"]) for each in content["comparisons"]] == [
        ("ours", "sample", f"geant4 {first_name}"),
        (f"one<b> {first_name}", "published", f"geant4 {first_name}"),
        (f"two {first_name}", "published", f"geant4 {first_name}"),
        ("ours", "sample", f"geant4 {second_name}"),
        (f"one<b> {second_name}", "published", f"geant4 {second_name}"),
        (f"two {second_name}", "published", f"geant4 {second_name}"),
        ("ours", "half against half", "ours"),
    ]
    assert list_columns(read_page(folder / "out.html")) == [
        ("ours", "sample"),
        ("ours", "half against half"),
        (f"one<b> {first_name}", "published generator"),
        (f"two {first_name}", "published generator"),
    ]
    assert content["primary"] == f"geant4 {first_name}"


@pytest.mark.usefixtures("_without_pictures")
@pytest.mark.parametrize(
    ("samples", "name"), [("ours.parquet", "ours.parquet"), ("ours.parquet more.npz --merge", "ours and 1 more")]
)
def test_digits_that_have_the_name_of_the_published_simulation(folder: Path, samples: str, name: str) -> None:
    write_sample(folder / "geant4.npz", seed=4)
    write_events(folder / "more.npz", [random_digits(np.random.default_rng(5), 15_000, 6)], first_event=6)
    references = "--reference marginals.json --reference geant4.npz"
    result = invoke("validate", *samples.split(), *references.split(), "--report", "out.html")
    assert result.exit_code == 0, result.output
    page = read_page(folder / "out.html")
    assert list_columns(page)[0] == (name, "sample")
    assert ("geant4.npz", "reference digits") in list_columns(page)
    assert find_row(page, "cluster size against reference digits: mean / median")[0].endswith(" %")
    content = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    against = [each["against"] for each in content["comparisons"] if (each["name"], each["role"]) == (name, "sample")]
    assert against == ["geant4", "geant4.npz"]


@pytest.mark.usefixtures("_without_pictures")
def test_a_sample_that_has_the_name_of_the_published_simulation(folder: Path) -> None:
    write_sample(folder / "geant4.npz", seed=4)
    result = invoke("validate", "geant4.npz", "--reference", "marginals.json", "--report", "out.html")
    assert result.exit_code == 0, result.output
    assert list_columns(read_page(folder / "out.html"))[0] == ("geant4.npz", "sample")


@pytest.mark.parametrize(
    ("options", "exit_code", "expected"),
    [
        ("gone.parquet --report out.html", 1, "gone.parquet cannot be read: No such file"),
        ("ours.csv --report out.html", 2, f"must end in {ANY_SUFFIX}"),
        ("ours.parquet --report out.htm", 2, r"--report must end in \.html, but is out\.htm"),
        ("ours.parquet --report nowhere/out.html", 1, "the folder nowhere does not exist"),
        ("ours.parquet", 2, "Missing option '--report'"),
        ("--report out.html", 2, "(?i)Missing argument 'digits"),
        ("ours.parquet --reference gone.json --report out.html", 1, "gone.json cannot be read: No such file"),
        ("ours.parquet --reference other.json --report out.html", 1, "other.json is not a JSON file of marginals"),
        ("ours.parquet --reference a.csv --report out.html", 2, rf"must end in \.json, {ANY_SUFFIX}, but is a"),
        ("ours.parquet --reference gone.npz --report out.html", 1, "gone.npz cannot be read"),
        ("ours.parquet ours.parquet --report out.html", 2, "ours.parquet is given twice"),
        (
            "ours.parquet --reference marginals.json --reference marginals.json --report out.html",
            2,
            r"marginals\.json is given twice\.",
        ),
        ("high.npz --report out.html", 2, "ask for --min-charge 9"),
        ("empty.npz --report out.html", 1, "holds no digit of 7 ADU or more"),
        ("ours.parquet --reference empty.npz --report out.html", 1, "empty.npz holds no digit"),
        ("other.json --report out.html", 2, r"other\.json must end in"),
        ("ours.parquet --min-charge 9 --reference marginals.json --report out.html", 2, "are cut at 7 ADU"),
        ("ours.parquet --min-charge 0 --report out.html", 2, "--min-charge"),
        ("ours.parquet --report taken.html", 1, "taken.html is a folder"),
    ],
)
def test_what_fails_leaves_no_page(folder: Path, options: str, exit_code: int, expected: str) -> None:
    (folder / "other.json").write_text("{}", encoding="utf-8")
    (folder / "taken.html").mkdir()
    write_events(folder / "high.npz", [Digits.empty()], min_charge=9)
    write_events(folder / "empty.npz", [Digits.empty()])
    before = set(names_in(folder))
    require_failure(invoke("validate", *options.split()), exit_code, expected)
    assert set(names_in(folder)) == before


@pytest.mark.usefixtures("_without_pictures")
def test_a_report_replaces_the_json_of_a_report_alone(folder: Path) -> None:
    """The page is named by the user, the JSON beside it is not: in a campaign it may be the record of a partition."""
    assert invoke("validate", "ours.parquet", "--report", "ours.html").exit_code == 0
    first = (folder / "ours.json").read_bytes()
    assert invoke("validate", "simulation.npz", "--report", "ours.html").exit_code == 0
    assert (folder / "ours.json").read_bytes() != first
    for content in (b'{"schema": 1, "part": 0}', first[:-9], b"[" * 100_000, b"\xff", b""):
        (folder / "ours.json").write_bytes(content)
        result = invoke("validate", "gone.parquet", "--report", "ours.html")
        require_failure(
            result, 2, r"--report would replace ours\.json, which is not the JSON of a report: name another"
        )
        assert (folder / "ours.json").read_bytes() == content


@pytest.mark.usefixtures("folder", "_without_pictures")
def test_the_page_appears_after_its_json(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced: list[str] = []
    replace = Path.replace

    def record_and_replace(path: Path, target: Path) -> Path:
        replaced.append(target.name)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", record_and_replace)
    assert invoke("validate", "ours.parquet", "--report", "out.html").exit_code == 0
    assert replaced == ["out.json", "out.html"]


@pytest.mark.parametrize(
    ("reference", "report", "named"),
    [
        ("marginals.json", "marginals.html", r"marginals\.json"),
        ("./marginals.json", "marginals.html", r"marginals\.json over marginals\.json|over marginals\.json"),
        ("marginals.json", "hard.html", r"hard\.json over marginals\.json"),
        ("soft.json", "marginals.html", r"marginals\.json over soft\.json"),
        ("marginals.json", "page.html", r"page\.html over marginals\.json"),
    ],
)
def test_a_report_is_not_written_over_what_is_read(folder: Path, reference: str, report: str, named: str) -> None:
    marginals = folder / "marginals.json"
    (folder / "hard.json").hardlink_to(marginals)
    (folder / "soft.json").symlink_to(marginals)
    (folder / "page.html").symlink_to(marginals)
    before = marginals.read_bytes()
    result = invoke("validate", "ours.parquet", "--reference", reference, "--report", report)
    require_failure(result, 2, rf"--report would write (over )?.*{named}, which is read: name another file to write")
    assert marginals.read_bytes() == before


@pytest.mark.parametrize("package", ["scipy", "matplotlib", "jinja2"])
def test_without_a_package_the_message_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for module in [each for each in sys.modules if each == package or each.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    result = invoke("validate", "ours.parquet", "--report", "out.html")
    require_failure(result, 1, rf"A validation needs {package}, .* pip install 'pxdbg-runtime\[validate\]'")
    assert "out.html" not in names_in(folder)


def test_a_broken_numba_is_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [each for each in sys.modules if each.startswith(("numba", "pxdbg_runtime.validation."))]:
        monkeypatch.delitem(sys.modules, module)
    broken = folder / "packages"
    broken.mkdir()
    (broken / "numba.py").write_text("raise ImportError('Numba needs NumPy 2.2 or less. Got NumPy 2.4.')")
    monkeypatch.syspath_prepend(broken)
    result = invoke("validate", "ours.parquet", "--report", "out.html")
    require_failure(result, 1, r"A validation needs numba, .* does not import \(Numba needs NumPy 2\.2 or less\.")
    assert "out.html" not in names_in(folder)


def test_the_command_line_starts_without_them() -> None:
    program = (
        "import sys, pxdbg_runtime.command_line\n"
        "print([each for each in ('scipy', 'jinja2', 'matplotlib', 'pyarrow') if each in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


@pytest.mark.slow
def test_scipy_stats_is_not_imported_without_a_reference_of_digits(folder: Path) -> None:
    """It takes a second and 48 MB."""
    program = (
        "import sys\nfrom pxdbg_runtime.command_line import app\n"
        "arguments = 'validate ours.parquet --reference marginals.json --report out.html'\n"
        "app(arguments.split(), standalone_mode=False)\n"
        "print([each for each in ('scipy.special', 'scipy.stats', 'scipy.spatial') if each in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "['scipy.special']"
