"""The actions of the module in initialize, event and terminate."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pxdbg_runtime.basf2.filling import choose_fill
from pxdbg_runtime.basf2.numbering import derive_seed, pack_event_number
from pxdbg_runtime.basf2.release import import_release_module
from pxdbg_runtime.basf2.specs import BUILTIN_PREFIX
from pxdbg_runtime.errors import ArgumentValueError, ModelNotFoundError, ModuleStateError
from pxdbg_runtime.generator import Generator
from pxdbg_runtime.model.builtin_models import find_graph, read_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from pxdbg_runtime.basf2.filling import Fill
    from pxdbg_runtime.basf2.release import StoreArray, StoreObject
    from pxdbg_runtime.basf2.specs import Specs
    from pxdbg_runtime.model.card import ModelCard

__all__ = ["NAME", "Background"]

NAME = "PXDBackgroundGenerator"


@dataclass(frozen=True, kw_only=True)
class _Store:
    """Objects of the data store and the conditions database that initialize found or created."""

    root: ModuleType
    array: StoreArray
    event_meta_data: StoreObject
    find_model: Callable[[], str | Path]
    fill: Fill
    seed: int


class Background:
    """Replaces the PXD digits that BGOverlayInput read with generated ones.

    The generator is created at the first event: not every session survives a fork (docs/running.md), and ``basf2 -p
    N`` forks its workers after initialize.

    Parameters
    ----------
    specs : Specs
    """

    def __init__(self, specs: Specs) -> None:
        self._specs = specs
        self._store: _Store | None = None
        self._generator: Generator | None = None
        self._generator_model: str | Path | None = None
        self._n_events = 0

    def initialize(self) -> None:
        """Find the extension name, the array, the seed and the graph, and choose how the array is filled.

        Raises
        ------
        ModelNotFoundError
            If no checkpoint was given and the global tags have no payload for the model.
        ArgumentValueError, GraphFileError, CardError
            If the checkpoint or payload is not a graph, or of another family than the specs' model.
        """
        basf2, root = import_release_module("basf2"), import_release_module("ROOT")
        belle2 = root.Belle2
        self.terminate()
        background_info = belle2.PyStoreObj("BackgroundInfo", belle2.DataStore.c_Persistent)
        if not background_info.isValid():
            basf2.B2ERROR(f"{NAME}: there is no BackgroundInfo; the path must contain BGOverlayInput before {NAME}.")
            return
        array = belle2.PyStoreArray(
            belle2.PXDDigit.Class(), "PXDDigits" + str(background_info.obj().getExtensionName())
        )
        array.registerInDataStore(belle2.DataStore.c_DontWriteOut)
        event_meta_data = belle2.PyStoreObj("EventMetaData")
        event_meta_data.isRequired()
        find_model = _build_model_finder(belle2, self._specs)
        _check_family(find_graph(find_model(), None).card, self._specs)
        fill, description = choose_fill(root, array)
        seed = derive_seed(str(basf2.get_random_seed())) if self._specs.seed is None else self._specs.seed
        self._store = _Store(
            root=root, array=array, event_meta_data=event_meta_data, find_model=find_model, fill=fill, seed=seed
        )
        basf2.B2INFO(f"{NAME}: the seed is {seed}, the random stream {self._specs.random_stream}.")
        basf2.B2INFO(f"{NAME}: digits are written {description}.")
        if self._specs.random_stream == "torch" and basf2.get_nprocesses() > 0:
            basf2.B2WARNING(
                f"{NAME}: with random_stream='torch' the background of an event depends on the order in which events "
                "arrive, and with -p that order can differ from run to run: use random_stream='philox', or no -p."
            )

    def event(self) -> None:
        """Generate the digits of the event and replace those in the array.

        Raises
        ------
        ModuleStateError
            If initialize has not been called, or found no BackgroundInfo.
        PxdbgError
            If the graph cannot run here as requested.
        """
        store = self._store
        if store is None:
            message = f"{NAME} was asked for an event without a successful initialize: let basf2 call its functions."
            raise ModuleStateError(message)
        digits = self._get_generator(store).generate(self._number_event(store))
        store.fill(store.root, store.array, digits)
        self._n_events += 1

    def terminate(self) -> None:
        """Release the generator and what initialize found."""
        self._store, self._generator, self._generator_model, self._n_events = None, None, None, 0

    def _number_event(self, store: _Store) -> int:
        if self._specs.random_stream == "torch":
            return self._n_events
        event = store.event_meta_data.obj()
        return pack_event_number(event.getExperiment(), event.getRun(), event.getEvent())

    def _get_generator(self, store: _Store) -> Generator:
        """Return the generator; create it at the first event and when the payload changes with the run."""
        model = store.find_model()
        if self._generator is None or model != self._generator_model:
            self._generator = self._create_generator(model, store.seed)
            self._generator_model = model
        return self._generator

    def _create_generator(self, model: str | Path, seed: int) -> Generator:
        specs = self._specs
        generator = Generator(
            model,
            precision=specs.precision,
            provider=specs.provider,
            seed=seed,
            random_stream=specs.random_stream,
            nintra=specs.nintra,
            ninter=specs.ninter,
        )
        card = generator.card
        _check_family(card, specs)
        import_release_module("basf2").B2INFO(
            f"{NAME}: {card.name} ({card.nature}), {card.precision} on {generator.provider}, "
            f"graph with SHA-256 {generator.graph_sha256}."
        )
        return generator


def _build_model_finder(belle2: ModuleType, specs: Specs) -> Callable[[], str | Path]:
    """Return a function that finds the model of the current run: that of the specs, or the payload's file."""
    given = specs.given_model
    if given is not None:
        return lambda: given
    # A required payload that is missing would end the job before this module could say what to do.
    payload = belle2.DBAccessorBase(belle2.DBStoreEntry.c_RawFile, specs.payload, False)
    return lambda: _find_payload(str(payload.getFilename()), specs)


def _find_payload(filename: str, specs: Specs) -> Path:
    """Return the path of a payload's file, whose name is empty if no global tag has the payload for the run."""
    if filename:
        return Path(filename)
    names = sorted({graph.name for graph in read_manifest()})
    message = (
        f"No checkpoint was given, and no global tag has the payload {specs.payload} for this run: in a checkout of "
        f"pxdbg_runtime where PyTorch is installed, run `python -m export --from-conditions "
        f"{shlex.quote(specs.globaltag)} --family {specs.model} --output graphs` once, and pass the path of the graph "
        "that it writes as checkpoint=."
    )
    if specs.model in names:
        message += (
            f' checkpoint="{BUILTIN_PREFIX}{specs.model}" runs without that, but is a stand-in, not the '
            "collaboration's weights."
        )
    raise ModelNotFoundError(specs.payload, names, message)


def _check_family(card: ModelCard, specs: Specs) -> None:
    if card.family != specs.model:
        message = (
            f"model is {specs.model!r}, but the graph {card.name} is of the family {card.family}: "
            f"give model={card.family!r}."
        )
        raise ArgumentValueError("model", message)
