"""Run the steps of containers/ without a container: ``python -m tests.container_steps``.

Not a test module. A folder takes the place of the root: the paths that the recipes name are put below it, and
``python`` is that of a virtual environment in it. What this cannot show is the base image, the mounts and the user.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = REPOSITORY / "containers"
_ABSOLUTE: Final = re.compile(r"(?<![\w.\]}])/(src|wheels|data)\b")
"""The folders below the root that the recipes name."""


@dataclass(frozen=True)
class Instruction:
    """An instruction of a Dockerfile, and the stage that it belongs to; the stage is empty before the first."""

    stage: str
    name: str
    value: str


def parse_dockerfile(text: str) -> tuple[Instruction, ...]:
    """Parse the instructions of a Dockerfile."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ").splitlines()
    stage, instructions = "", []
    for line in filter(str.strip, lines):
        name, _, value = line.strip().partition(" ")
        if name == "FROM":
            stage = value.split()[-1]
        instructions.append(Instruction(stage, name, " ".join(value.split())))
    return tuple(instructions)


def list_stages(instructions: tuple[Instruction, ...], target: str) -> list[str]:
    """List the stages that a target is made of, in the order of their builds."""
    bases = {each.stage: each.value.split()[0] for each in instructions if each.name == "FROM"}
    chain = [target]
    while (base := bases[chain[0]]) in bases:
        chain.insert(0, base)
    return ["build", *chain]


def parse_definition(text: str) -> dict[str, str]:
    """Parse the sections of an Apptainer definition file, by name; the header has none."""
    parts = re.split(r"^%(\w+)\n", text, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def list_context() -> list[Path]:
    """List the files that .dockerignore lets into the build, of those that git knows."""
    patterns = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = [pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")]
    found = [path for pattern in kept for path in sorted(REPOSITORY.glob(pattern))]
    files = [file for path in found for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    return [file.relative_to(REPOSITORY) for file in files if file.is_file() and "__pycache__" not in file.parts]


def run_step(command: str, root: Path, variables: dict[str, str]) -> None:
    """Run a shell command below a root, and end the program if it fails."""
    command = _ABSOLUTE.sub(rf"{root}/\1", re.sub(r"^(--mount=\S+ )+", "", command))
    print("$", command, flush=True)
    path = f"{root}/stubs:{root}/venv/bin:/usr/bin:/bin"
    environment = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "HTTP"))}
    environment |= variables | {"PATH": path, "HOME": str(root), "VIRTUAL_ENV": f"{root}/venv"}
    if subprocess.run(["/bin/sh", "-ec", command], cwd=root, env=environment, check=False).returncode:
        sys.exit("this step fails")


def prepare_root(root: Path) -> None:
    """Make an empty root with Python, and with programs that must not run on this machine replaced."""
    subprocess.run([sys.executable, "-m", "venv", root / "venv"], check=True)
    (root / "stubs").mkdir()
    (root / "stubs" / "useradd").write_text("#!/bin/sh\n")
    (root / "stubs" / "useradd").chmod(0o755)


def run_dockerfile(root: Path, target: str) -> None:
    """Run the steps of a target of containers/Dockerfile."""
    prepare_root(root)
    instructions = parse_dockerfile((FOLDER / "Dockerfile").read_text(encoding="utf-8"))
    variables: dict[str, str] = {}
    for stage in list_stages(instructions, target):
        for each in (each for each in instructions if each.stage == stage):
            if each.name == "COPY":
                for file in list_context():
                    (root / "src" / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(REPOSITORY / file, root / "src" / file)
            elif each.name == "ENV":
                variables |= dict(word.split("=", 1) for word in each.value.split())
            elif each.name == "RUN":
                run_step(each.value, root, variables)
    run_step("pxdbg generate --seed 7 --output /data/bg.parquet && pxdbg show /data/bg.parquet", root, variables)


def write_host_packages(root: Path) -> dict[str, str]:
    """Write modules that end every Python that reads them where Apptainer's users have packages of their own.

    Returns the variables of such a user.
    """
    # Without this, Python in a virtual environment reads no packages of the home directory; that of an image does.
    settings = root / "venv" / "pyvenv.cfg"
    settings.write_text(settings.read_text().replace("packages = false", "packages = true"))
    folders = {
        "sitecustomize": root / "host",
        "usercustomize": root / f".local/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages",
    }
    for module, folder in folders.items():
        folder.mkdir(parents=True)
        (folder / f"{module}.py").write_text(f"raise SystemExit('Python reads packages of the host in {folder}')\n")
    return {"PYTHONPATH": f"{root}/host"}


def run_definition(root: Path, wheels: Path) -> None:
    """Run the steps of containers/pxdbg.def with the wheel that another recipe built."""
    prepare_root(root)
    sections = parse_definition((FOLDER / "pxdbg.def").read_text(encoding="utf-8"))
    shutil.copytree(wheels, root / "wheels")
    arguments = dict(line.strip().split("=", 1) for line in sections["arguments"].splitlines() if line.strip())
    run_step(re.sub(r"\{\{ (\w+) \}\}", lambda found: arguments[found[1]], sections["post"]), root, {})
    variables = write_host_packages(root)
    run_step(sections["environment"] + sections["test"], root, variables)
    arguments_of_run = "set -- generate --seed 7 --output bg.parquet\n"
    run_step(arguments_of_run + sections["environment"] + sections["runscript"], root, variables)


def main() -> None:
    """Run the steps for a CPU of both recipes."""
    with tempfile.TemporaryDirectory(prefix="pxdbg-container-") as folder:
        docker, apptainer = Path(folder, "docker"), Path(folder, "apptainer")
        docker.mkdir()
        apptainer.mkdir()
        run_dockerfile(docker, "cpu")
        run_definition(apptainer, docker / "wheels")


if __name__ == "__main__":
    main()
