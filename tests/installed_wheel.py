"""Run the commands of pxdbg from an installed wheel, outside the checkout: ``python -I tests/installed_wheel.py``.

Not a test module: ``make wheel-check`` and ``make release-check`` run it with the Python of an environment that holds
the wheel and some of its extras. It ends with the first failure.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import pxdbg_runtime
from pxdbg_runtime import Generator
from pxdbg_runtime.formats import read_digits
from pxdbg_runtime.formats.registry import FORMATS

CHECKOUT: Final = Path(__file__).resolve().parent.parent
PXDBG: Final = Path(sys.executable).with_name("pxdbg")
GENERATE: Final = ("generate", "--model", "resnet", "--seed", "7", "--events", "2")


def is_installed(*packages: str | None) -> bool:
    """Whether all these packages are installed."""
    return all(package is None or importlib.util.find_spec(package) for package in packages)


def run(*arguments: str) -> None:
    """Run ``pxdbg`` and end if it fails."""
    print("$ pxdbg", *arguments, flush=True)
    done = subprocess.run([PXDBG, *arguments], check=False)
    if done.returncode:
        sys.exit(f"pxdbg {arguments[0]} ended with {done.returncode}")


def check_location() -> None:
    """Check that the package comes from the environment, without the export, which is not in the wheel."""
    location = Path(pxdbg_runtime.__file__)
    if not location.is_relative_to(sys.prefix):
        sys.exit(f"{location} is not in the environment {sys.prefix}")
    if is_installed("export"):
        sys.exit("the wheel holds the package export")


def main() -> None:
    """Run all commands that the installed extras allow, and compare each digit file with Python's digits."""
    check_location()
    with tempfile.TemporaryDirectory() as folder:
        if Path(folder).resolve().is_relative_to(CHECKOUT):
            sys.exit(f"{folder} is in the checkout")
        os.chdir(folder)
        for command in ("--version", "doctor", "models", "providers", "check convnet"):
            run(*command.split())
        expected = Generator("resnet", seed=7).generate(1)
        suffixes = {suffix: each for each in FORMATS.values() for suffix in each.suffixes}
        for suffix, each in suffixes.items():
            if not is_installed(each.package):
                print(f"left out {suffix}: {each.package} is not installed")
                continue
            run(*GENERATE, "--output", f"events{suffix}")
            run("show", f"events{suffix}")
            if read_digits(Path(f"events{suffix}")).digits.of_event(1) != expected:
                sys.exit(f"events{suffix} has other digits than Generator.generate")
        if is_installed("matplotlib"):
            run("plot", "events.npz", "--output", "event.png")
        if is_installed("matplotlib", "scipy", "jinja2"):
            run("validate", "events.npz", "--report", "report.html")
        print(*sorted(path.name for path in Path().iterdir()))


if __name__ == "__main__":
    main()
