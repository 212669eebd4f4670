"""Run by test_root_formats in a process of its own, with real ROOT: read our files, and rewrite them as others do.

Arguments: the folder with ttree.root, rntuple.root, first.root and second.root. Results: digits of the files in NPZ,
files that ROOT wrote, and the texts in results.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import ROOT

LIST_TYPES = {"sensor_id": "uint16", "u_cell": "uint16", "v_cell": "uint16", "charge": "uint8"}


def read_tree(path: Path) -> dict[str, list[Any]]:
    file = ROOT.TFile.Open(str(path))
    tree = file.Get("digits")
    columns: dict[str, list[Any]] = {name: [] for name in ("event", "n_digits", *LIST_TYPES)}
    for entry in range(tree.GetEntries()):
        tree.GetEntry(entry)
        for name in ("event", "n_digits"):
            columns[name].append(getattr(tree, name))
        for name in LIST_TYPES:
            # Without digits, an array has the length of the event before.
            columns[name].append(np.array(getattr(tree, name))[: tree.n_digits])
    return columns


def read_ntuple(path: Path) -> dict[str, list[Any]]:
    reader = ROOT.RNTupleReader.Open("digits", str(path))
    n_entries = reader.GetNEntries()
    event = reader.GetView["std::int64_t"]("event")
    columns: dict[str, list[Any]] = {"event": [event(entry) for entry in range(n_entries)]}
    del event  # ROOT crashes if the reader goes first
    for name, kind in LIST_TYPES.items():
        view = reader.GetView[f"std::vector<std::{kind}_t>"](name)
        columns[name] = [np.array(view(entry)) for entry in range(n_entries)]
        del view
    columns["n_digits"] = [len(each) for each in columns["charge"]]
    return columns


def save(path: Path, columns: dict[str, list[Any]]) -> None:
    lists = {name: np.concatenate(columns.pop(name)) for name in LIST_TYPES}
    np.savez(path, **lists, **{name: np.array(values) for name, values in columns.items()})  # type: ignore[arg-type]


def save_with_other_baskets(path: Path, target: Path) -> None:
    """Copy a TTree event by event, with baskets of some columns that hold an event or two."""
    file = ROOT.TFile.Open(str(path))
    output = ROOT.TFile(str(target), "RECREATE")
    tree = file.Get("digits").CloneTree(0)
    for name, n_bytes in {"event": 16, "u_cell": 800, "charge": 2000}.items():
        tree.SetBasketSize(name, n_bytes)
    tree.CopyEntries(file.Get("digits"))
    tree.Write()
    output.Close()


def read_string(path: Path, name: str) -> str:
    return str(ROOT.TFile.Open(str(path)).Get(name).GetString().Data())


def main(folder: Path) -> None:
    save(folder / "ttree.npz", read_tree(folder / "ttree.root"))
    save(folder / "rntuple.npz", read_ntuple(folder / "rntuple.root"))
    save_with_other_baskets(folder / "ttree.root", folder / "other_baskets.root")
    as_ntuple = ROOT.RDF.RSnapshotOptions()
    as_ntuple.fOutputFormat = ROOT.RDF.ESnapshotOutputFormat.kRNTuple
    tree = ROOT.RDataFrame("digits", str(folder / "ttree.root"))
    tree.Snapshot("digits", str(folder / "tree_of_tree.root"))
    tree.Snapshot("digits", str(folder / "ntuple_of_tree.root"), "", as_ntuple)
    tree.Filter("event >= 5").Snapshot("digits", str(folder / "selection.root"))
    ROOT.RDataFrame("digits", str(folder / "rntuple.root")).Snapshot("digits", str(folder / "tree_of_ntuple.root"))
    for target, sources in {"merged": ("second", "first"), "twice": ("first", "first"), "copy": ("first",)}.items():
        merger = ROOT.TFileMerger(False, False)  # what hadd is made of
        merger.OutputFile(str(folder / f"{target}.root"))
        for source in sources:
            merger.AddFile(str(folder / f"{source}.root"))
        merger.Merge()
    results = {
        kind: {name: read_string(folder / f"{kind}.root", name) for name in ("pxdbg", "pxdbg_digest")}
        for kind in ("ttree", "rntuple")
    }
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
