"""The actions of the module in initialize, event and terminate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pxdbg_runtime.basf2.filling import compile_bulk_fill, fill_in_bulk, fill_one_by_one
from pxdbg_runtime.basf2.numbering import derive_seed, pack_event_number
from pxdbg_runtime.basf2.release import import_release_module
from pxdbg_runtime.errors import ArgumentValueError, ModuleStateError
from pxdbg_runtime.generator import Generator
from pxdbg_runtime.model.builtin_models import find_graph

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

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
    fills_in_bulk: bool
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
        """Find the extension name, register the array, determine the seed, and compile the bulk fill.

        Raises
        ------
        ArgumentValueError, GraphFileError, CardError
            If the checkpoint of the specs is not a graph, or of another family than the specs' model.
        """
        basf2, root = import_release_module("basf2"), import_release_module("ROOT")
        belle2 = root.Belle2
        self.terminate()
        if self._specs.given_model is not None:
            _check_family(find_graph(self._specs.given_model, None).card, self._specs)
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
        self._store = _Store(
            root=root,
            array=array,
            event_meta_data=event_meta_data,
            find_model=_build_model_finder(belle2, self._specs),
            fills_in_bulk=compile_bulk_fill(root),
            seed=derive_seed(str(basf2.get_random_seed())) if self._specs.seed is None else self._specs.seed,
        )
        basf2.B2INFO(f"{NAME}: the seed is {self._store.seed}, the random stream {self._specs.random_stream}.")
        if self._specs.random_stream == "torch" and basf2.get_nprocesses() > 0:
            basf2.B2WARNING(
                f"{NAME}: with random_stream='torch' each of the parallel processes generates the same events."
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
        (fill_in_bulk if store.fills_in_bulk else fill_one_by_one)(store.root, store.array, digits)
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
    payload = belle2.DBAccessorBase(belle2.DBStoreEntry.c_RawFile, specs.payload, True)
    return lambda: Path(str(payload.getFilename()))


def _check_family(card: ModelCard, specs: Specs) -> None:
    if card.family != specs.model:
        message = f"model is {specs.model!r}, but the graph {card.name} is a {card.family}: give model={card.family!r}."
        raise ArgumentValueError("model", message)
