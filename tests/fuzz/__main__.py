"""``python -m tests.fuzz``: alter sound files at random and read them; failing files are saved.

The exit code is 1 if a case failed: an exception that is not one of this package, a message of several lines, a crash,
a case that takes more than two minutes or a gigabyte, or content that a digest should protect and does not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.readers import READERS
from tests.fuzz.watch import Plan, fuzz


def main() -> None:
    """Read the arguments, run all readers one after the other, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="time for all readers together")
    parser.add_argument("--cases", type=int, help="cases of each reader, instead of a time")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the cases; by default the time")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", nargs="+", choices=READERS, default=list(READERS), help="readers to run")
    parser.add_argument("--output", type=Path, default=Path("build/fuzz"), help="folder for failing files")
    arguments = parser.parse_args()
    time_s = 60 * arguments.minutes / len(arguments.only) if arguments.cases is None else float("inf")
    print(f"seed {arguments.seed}; failing files go to {arguments.output}", flush=True)  # noqa: T201
    n_failures = 0
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.only:
            plan = Plan(
                name=name,
                build=READERS[name],
                seed=arguments.seed,
                first=arguments.first,
                cases=arguments.cases,
                time_s=time_s,
            )
            tally = fuzz(plan, Path(scratch) / name, arguments.output)
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(tally.kinds.items()))
            print(f"{name}: {tally.n_cases:,} cases ({kinds}), longest {tally.longest_s:.2f} s", flush=True)  # noqa: T201
            for failure, path in tally.failures:
                print(f"  {failure}; its files: {path}", flush=True)  # noqa: T201
            n_failures += len(tally.failures)
    sys.exit(n_failures > 0)


if __name__ == "__main__":
    main()
