"""A campaign with b2luigi, on the batch system that its settings name: python examples/campaign_b2luigi.py bg."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import b2luigi

if TYPE_CHECKING:
    from collections.abc import Iterator


class Part(b2luigi.Task):
    campaign = b2luigi.Parameter()
    number = b2luigi.IntParameter()

    def output(self) -> object:
        return b2luigi.LocalTarget(f"{self.campaign}/part-{self.number:06}.json")

    def run(self) -> None:
        subprocess.run(["pxdbg", "campaign", "part", str(self.number), self.campaign], check=True)


class Campaign(b2luigi.WrapperTask):
    campaign = b2luigi.Parameter()

    def requires(self) -> Iterator[Part]:
        plan = json.loads(Path(self.campaign, "plan.json").read_text(encoding="utf-8"))
        for number in range(len(plan["partitions"])):
            yield Part(campaign=self.campaign, number=number)


if __name__ == "__main__":
    b2luigi.process(Campaign(campaign=sys.argv[1]), workers=100, batch=True)
