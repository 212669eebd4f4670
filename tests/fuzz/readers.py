"""All that reads files, by name."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest
import safetensors.torch
import torch
from msgspec import structs

from export.checkpoint.loading import load_checkpoint
from export.conditions.hsf import HsfServer
from export.conditions.sqlite_file import SqliteFile
from export.conditions.v2 import V2Server
from pxdbg_runtime import Generator
from pxdbg_runtime.campaigns import open_campaign
from pxdbg_runtime.errors import CampaignError
from pxdbg_runtime.formats import FORMATS
from pxdbg_runtime.inference import verification
from pxdbg_runtime.model.builtin_models import MANIFEST_NAME, find_artifacts_folder, format_manifest, read_manifest
from pxdbg_runtime.model.graph_file import CARD_KEY, DIGEST_KEY, append_card, read_graph_file
from pxdbg_runtime.model.protobuf import encode_delimited
from pxdbg_runtime.validation.marginals import read_marginals
from tests.campaigns import make_parts, plan_campaign
from tests.checkpoints import SmallNet, register_family
from tests.conditions_server import NAME, QUICK, TAG, ConditionsServer
from tests.conditions_sqlite import write_database
from tests.fuzz.digit_readers import build_digit_reader, build_provenance_reader, build_replacement_reader
from tests.fuzz.mutations import mutate_bytes, mutate_json_or_bytes, mutate_zip
from tests.fuzz.reader import Reader
from tests.graphs import EVENT_WIDE_CARD, LATENT_CARD, describe_graph, event_wide_model, latent_model
from tests.validation_samples import build_marginals_content

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from export.conditions.server import Server
    from pxdbg_runtime.campaigns import Campaign
    from pxdbg_runtime.model.card import ModelCard

__all__ = ["READERS"]

_METADATA_FIELD: Final = 14
_ATTEMPT_ONCE: Final = replace(QUICK, attempts=1, total_timeout_s=5.0)


def _seal_graph(model: bytes, card: bytes) -> bytes:
    """Append a card of any bytes and the digest that fits."""
    with_card = model + _encode_entry(CARD_KEY, card)
    return with_card + _encode_entry(DIGEST_KEY, hashlib.sha256(with_card).hexdigest().encode())


def _encode_entry(key: str, value: bytes) -> bytes:
    return encode_delimited(_METADATA_FIELD, encode_delimited(1, key.encode()) + encode_delimited(2, value))


def _build_graph_reader(_folder: Path) -> Reader:
    graphs = [(latent_model(), LATENT_CARD), (event_wide_model(), EVENT_WIDE_CARD)]
    return Reader(
        samples=tuple(append_card(model.SerializeToString(), card) for model, card in graphs),
        read=lambda path: read_graph_file(path).content,
        file_name="graph.onnx",
    )


def _build_graph_runner(_folder: Path) -> Reader:
    """A graph whose digest is right, as whoever writes a hostile one would make it, up to the first image."""

    def run(path: Path) -> None:
        Generator(path, seed=1, provider="cpu", verify=False).generate(0, sensors=["1.1.1"])

    return Reader(
        samples=(latent_model().SerializeToString(),),
        read=run,
        file_name="graph.onnx",
        seal=partial(_seal_graph, card=LATENT_CARD.to_json().encode()),
    )


def _build_card_reader(_folder: Path) -> Reader:
    def read(path: Path) -> None:
        read_graph_file(path)

    whole = read_graph_file(find_artifacts_folder() / "convnet-int8.onnx").card
    return Reader(
        samples=tuple(_shorten_card(card).to_json().encode() for card in (LATENT_CARD, EVENT_WIDE_CARD, whole)),
        read=read,
        file_name="graph.onnx",
        mutate=mutate_json_or_bytes,
        seal=lambda card: _seal_graph(latent_model().SerializeToString(), card),
    )


def _shorten_card(card: ModelCard) -> ModelCard:
    """Leave few pixels in the known answers, which are nearly all of a card."""
    if card.known_answers is None:
        return card
    pixels, outputs = 4 * 12, 1 * 12  # bytes of twelve, int32 and uint8, or a quarter of them float32
    images = tuple(
        structs.replace(image, pixels=image.pixels[: pixels * 4 // 3], outputs=image.outputs[: outputs * 4 // 3])
        for image in card.known_answers.images
    )
    return structs.replace(card, known_answers=structs.replace(card.known_answers, images=images))


def _build_manifest_reader(_folder: Path) -> Reader:
    def read(path: Path) -> None:
        read_manifest.__wrapped__(path.parent)

    graph = append_card(latent_model().SerializeToString(), LATENT_CARD)
    listed = describe_graph(_write_and_read(_folder / "graph.onnx", graph))
    return Reader(
        samples=(format_manifest((listed, structs.replace(listed, name="other"))).encode(),),
        read=read,
        file_name=MANIFEST_NAME,
        mutate=mutate_json_or_bytes,
    )


def _write_and_read(path: Path, content: bytes) -> Any:  # noqa: ANN401  # GraphFile
    path.write_bytes(content)
    return read_graph_file(path)


def _build_marginals_reader(_folder: Path) -> Reader:
    def read(path: Path) -> None:
        read_marginals(path)

    return Reader(
        samples=(json.dumps(build_marginals_content("ieagan")).encode(),),
        read=read,
        file_name="marginals.json",
        mutate=mutate_json_or_bytes,
    )


def _build_sqlite_reader(folder: Path) -> Reader:
    def read(path: Path) -> None:
        source = SqliteFile(address=str(path), limits=_ATTEMPT_ONCE)
        source.fetch_tag_state(TAG)
        source.fetch_entries(TAG, NAME, (0, 0))

    return Reader(
        samples=(write_database(folder / "sound", {"revision": 4}, {}).read_bytes(),),
        read=read,
        file_name="database.sqlite",
    )


def _build_list_reader(_folder: Path, *, interface: Any) -> Reader:  # noqa: ANN401  # v2 or hsf
    """The list of payloads that a server answers with; everything else it answers is sound."""
    with ConditionsServer(interface) as server:
        entries = [server.entry(), server.entry(revision=4, name="other")]

    def read(path: Path) -> None:
        def answer(request: httpx.Request) -> httpx.Response:
            content = path.read_bytes()
            if "user_settings" in request.url.path:
                content = b'{"CDB_PAYLOAD_BASE_URL": "https://example.invalid/files"}'
            return httpx.Response(200, content=iter([content]))  # to be read, as from a server

        kind: type[Server] = V2Server if interface == "v2" else HsfServer
        with httpx.Client(transport=httpx.MockTransport(answer)) as client:
            source: Any = kind(client=client, address="https://example.invalid", limits=_ATTEMPT_ONCE)
            source.fetch_entries(TAG, NAME, (0, 0))

    return Reader(
        samples=(json.dumps(entries).encode(),), read=read, file_name="answer.json", mutate=mutate_json_or_bytes
    )


def _build_checkpoint_reader(folder: Path, *, kind: str) -> Reader:
    register_family(pytest.MonkeyPatch(), "small", SmallNet)
    path = folder / "small.pt"
    weights = {key: value.contiguous() for key, value in SmallNet().state_dict().items()}
    if kind == "safetensors":
        safetensors.torch.save_file(weights, path)
    else:
        torch.save({"epoch": 3, "state": weights}, path, _use_new_zipfile_serialization=kind == "torch")

    def read(altered: Path) -> None:
        load_checkpoint(altered, "small")

    return Reader(
        samples=(path.read_bytes(),),
        read=read,
        file_name="checkpoint.pt",
        mutate=mutate_zip if kind == "torch" else mutate_bytes,
    )


def _build_record_reader(_folder: Path) -> Reader:
    """The record of a passed known-answer test in the user's cache."""
    record: dict[str, object] = {"graph_sha256": "0" * 64, "onnxruntime": "1.23", "device": "a CPU"}

    def read(path: Path) -> object:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(verification, "_find_record_path", lambda _: path)
            return verification._has_passed(record) or None

    return Reader(
        samples=(json.dumps(record).encode(),),
        read=lambda path: json.loads(path.read_bytes()) if read(path) else None,
        file_name="record.json",
        mutate=mutate_json_or_bytes,
    )


def _build_plan_reader(folder: Path) -> Reader:
    def read(path: Path) -> None:
        open_campaign(path.parent)

    return Reader(
        samples=(_plan(folder).plan.to_json().encode(),), read=read, file_name="plan.json", mutate=mutate_json_or_bytes
    )


def _build_part_reader(folder: Path) -> Reader:
    """The record of a complete partition."""
    campaign = _plan(folder)
    make_parts(campaign, [0])

    def read(path: Path) -> None:
        campaign.record_path(0).write_bytes(path.read_bytes())
        status = campaign.examine(0, compare_hash=True)
        if status.state != "complete":
            raise CampaignError(path, status.reason)

    return Reader(
        samples=(campaign.record_path(0).read_bytes(),),
        read=read,
        file_name="record.json",
        mutate=mutate_json_or_bytes,
    )


def _plan(folder: Path) -> Campaign:
    graph = _write_and_read(folder / "tiny.onnx", append_card(latent_model().SerializeToString(), LATENT_CARD))
    return plan_campaign(folder / "campaign", graph)


READERS: Final[dict[str, Callable[[Path], Reader]]] = {
    "graph": _build_graph_reader,
    "graph-run": _build_graph_runner,
    "card": _build_card_reader,
    "manifest": _build_manifest_reader,
    **{f"digits-{name}": partial(build_digit_reader, format_name=name) for name in FORMATS},
    "replacement": build_replacement_reader,
    "provenance": build_provenance_reader,
    "marginals": _build_marginals_reader,
    "sqlite": _build_sqlite_reader,
    "list-v2": partial(_build_list_reader, interface="v2"),
    "list-hsf": partial(_build_list_reader, interface="hsf"),
    "checkpoint-safetensors": partial(_build_checkpoint_reader, kind="safetensors"),
    "checkpoint-torch": partial(_build_checkpoint_reader, kind="torch"),
    "checkpoint-legacy": partial(_build_checkpoint_reader, kind="legacy"),
    "record": _build_record_reader,
    "plan": _build_plan_reader,
    "part": _build_part_reader,
}
"""By name: builds the reader in a folder for its sound files. Raises `MissingPackageError` if a format lacks one."""
