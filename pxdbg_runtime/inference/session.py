"""Sessions that run a graph on the requested execution provider, and on no other.

Where a provider cannot load or cannot run a node, ONNX Runtime logs a line and falls back to the CPU. Here that is an
error. Only ``provider="auto"`` may choose the CPU; it logs its choice and the reason.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.errors import ArgumentTypeError, InferenceError, ProviderError, one_line
from pxdbg_runtime.inference.cpu import detect_cpu
from pxdbg_runtime.inference.forks import ForkGuard
from pxdbg_runtime.inference.pinned_memory import pin_memory
from pxdbg_runtime.inference.providers import (
    CPU,
    CUDA,
    OPENVINO,
    describe_onnxruntime_error,
    explain_load_failure,
    explain_too_new,
    explain_unusable,
    import_onnxruntime,
    resolve_provider,
)
from pxdbg_runtime.limits.address_space import explain_memory_failure, report_memory_errors
from pxdbg_runtime.limits.threads import check_thread_count, prepare_threads
from pxdbg_runtime.model.card import FULL_WEIGHT_BITS, build_feed
from pxdbg_runtime.sensors import N_U_CELLS, N_V_CELLS
from pxdbg_runtime.task_threads import TaskThreads

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession, RunOptions

    from pxdbg_runtime.digitisation.digitiser import Images
    from pxdbg_runtime.model.card import GraphInput, ModelCard
    from pxdbg_runtime.model.graph_file import GraphFile

__all__ = ["ImageSession", "ProviderOptions"]

ProviderOptions = dict[str, str]
_FATAL: Final = 4
"""Log level of ONNX Runtime at which it raises errors without printing them too."""
_ELEMENT_TYPES: Final = {"latent": "float", "event_latent": "float", "sensor": "int64"}

_log = logging.getLogger(__name__)


class ImageSession:
    """Runs a graph over the sensors of an event.

    Threads may share a session. A fork may use its parent's session on a CPU if `ninter` is 1 and no other thread ran
    the graph at the time of the fork.

    Parameters
    ----------
    graph : GraphFile
        The session reads its content and does not keep it.
    provider : str
        ``auto``, ``cpu``, ``cuda``, or the name of another provider that ONNX Runtime offers.
    provider_options : mapping of str to str, optional
        Passed on to the provider.
    nintra, ninter : int
        Threads within an operator, and operators at a time.

    Attributes
    ----------
    path : Path
        Of the graph file, for messages.
    card : ModelCard
    sha256 : str
        Of the graph file.
    provider : str
        ONNX Runtime's name of the provider that runs the graph.
    provider_options : mapping of str to str
        The options of the provider: the given ones and our defaults.

    Raises
    ------
    MissingPackageError
        If ONNX Runtime is not installed.
    ProviderError
        If the provider is not offered, does not load, or cannot run every node of the graph.
    InferenceError
        If ONNX Runtime refuses the graph, or the graph does not fit its card.
    MemoryLimitError, ThreadLimitError
        If the job has too little memory or address space, or may start too few threads.
    """

    def __init__(
        self,
        graph: GraphFile,
        *,
        provider: str = "auto",
        provider_options: Mapping[str, str] | None = None,
        nintra: int = 1,
        ninter: int = 1,
    ) -> None:
        self.path = graph.path
        self.card = graph.card
        self.sha256 = graph.sha256
        _check_int8_weights(graph)
        self._given_options = _parse_options(provider_options)
        self._nintra = check_thread_count("nintra", nintra)
        self._ninter = check_thread_count("ninter", ninter)
        prepare_threads(self._nintra, self._ninter)
        asked = _parse_provider(provider)
        if asked == "auto":
            self._session, self.provider = self._create_best_session(graph.content)
        else:
            self.provider = resolve_provider(asked)
            self._session = self._create_session(self.provider, graph.content)
        _check_against_card(self._session, graph)
        self._forks = ForkGuard(self._session, self._find_fork_obstacle())
        # ONNX Runtime's CUDA provider creates its cuBLAS and cuDNN handles anew in each thread, so threads are kept.
        # With two, the GPU computes one batch while the CPU launches the kernels of the next.
        self._worker = None if self.provider == CPU else TaskThreads(2 if self.provider == CUDA else 1)
        self._idle_buffers: list[Images] = []

    @property
    def worker(self) -> TaskThreads | None:
        """Threads that run the graph as long as the session lives, None on a CPU; raises `InferenceError` in a fork."""
        if self._worker is not None:
            self._forks.check()
        return self._worker

    def allocate_images(self, n_images: int) -> Images:
        """Allocate an array for n images: (n, 250, 768), uint8 for charges and float32 for values."""
        shape = n_images, N_U_CELLS, N_V_CELLS
        return np.empty(shape, np.uint8) if self.card.output_kind == "charges" else np.empty(shape, np.float32)

    def take_buffer(self, n_images: int) -> Images:
        """Take an array for n images or more, pinned for a GPU's copies; `give_back` it for the next event."""
        if self.provider != CUDA:
            return self.allocate_images(n_images)
        while self._idle_buffers:
            with contextlib.suppress(IndexError):  # another thread took it
                buffer = self._idle_buffers.pop()
                if len(buffer) >= n_images:
                    return buffer
        buffer = self.allocate_images(n_images)
        pin_memory(buffer, self.provider_options.get("device_id", "0"))
        return buffer

    def give_back(self, buffer: Images) -> None:
        """Give an array back that no one uses any more."""
        if self.provider == CUDA:
            self._idle_buffers.append(buffer)

    def create_run_options(self) -> RunOptions:
        """Create run options for `compute_images`; any thread may set ``terminate`` to True to end the call."""
        return import_onnxruntime().RunOptions()

    @report_memory_errors(has_batch=True)
    def compute_images(
        self,
        sensors: Sequence[int],
        draws: Mapping[str, NDArray[np.float32]],
        buffer: Images | None = None,
        run: RunOptions | None = None,
    ) -> Images:
        """Compute the images of some sensors.

        Parameters
        ----------
        sensors : sequence of int
            Sensor indices.
        draws : mapping of str to ndarray of float32, shape (40, values)
            The event's draws by name.
        buffer : ndarray, optional
            From `allocate_images`, for as many sensors or more; ONNX Runtime writes into it. A new array if None.
        run : RunOptions, optional
            From `create_run_options`.

        Returns
        -------
        ndarray of float32 or uint8, shape (len(sensors), 250, 768)
            View of the buffer: values in [-1, 1] or charges in ADU, by the card's ``output_kind``.

        Raises
        ------
        InferenceError
            If ONNX Runtime fails, or if the session belongs to a parent process and cannot run in this fork.
        MemoryLimitError
            If there is too little memory.
        """
        images = (self.allocate_images(len(sensors)) if buffer is None else buffer)[: len(sensors)]
        with self._forks.call():
            try:
                binding = self._session.io_binding()
                for name, values in build_feed(self.card.inputs, draws, sensors).items():
                    binding.bind_cpu_input(name, np.ascontiguousarray(values))
                binding.bind_output(self.card.output, "cpu", 0, images.dtype.type, images.shape, images.ctypes.data)
                self._session.run_with_iobinding(binding, run)
            except _list_session_errors() as error:
                text = describe_onnxruntime_error(error)
                message = f"ONNX Runtime failed to run {self.path} on {self.provider}: {text}"
                raise explain_memory_failure(text, self.provider) or InferenceError(message) from error
        return images

    def _find_fork_obstacle(self) -> str | None:
        """Explain why no fork of this process can run the session; None if one can."""
        if self.provider != CPU:
            return f"{self.provider} does not survive a fork"
        return f"with ninter={self._ninter} it needs threads that a fork does not copy" if self._ninter > 1 else None

    def _create_best_session(self, content: bytes) -> tuple[InferenceSession, str]:
        """Create a session on CUDA if the graph runs there, else on the CPU, and log the choice."""
        if CUDA not in import_onnxruntime().get_available_providers():
            _log.info("provider auto chose %s: the installed ONNX Runtime does not offer CUDA", CPU)
        elif self.card.precision == "int8":
            _log.info("provider auto chose %s: int8 graphs are for the CPU", CPU)
        else:
            try:
                session = self._create_session(CUDA, content)
            except ProviderError as error:
                _log.warning("provider auto chose %s: %s", CPU, error)
            else:
                _log.info("provider auto chose %s", CUDA)
                return session, CUDA
        return self._create_session(CPU, content), CPU

    @report_memory_errors()
    def _create_session(self, provider: str, content: bytes) -> InferenceSession:
        onnxruntime = import_onnxruntime()
        reason = explain_unusable(provider)
        if reason is not None:
            raise ProviderError(provider, f"{provider} cannot run here: {reason}.")
        if provider == CPU and self._given_options:
            _log.warning("%s takes no options and ignores provider_options: %s", CPU, self._given_options)
        self.provider_options = self._add_default_options(provider)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._nintra
        options.inter_op_num_threads = self._ninter
        options.log_severity_level = _FATAL
        # A memory plan keeps its peak allocated for each batch size: measured 80 MB more for a ResNet, and no faster.
        options.enable_mem_pattern = False
        if self._ninter > 1:
            options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
        for pool in ("intra_op", "inter_op"):
            # Where there are more threads than CPUs, a spinning thread takes CPU time from one that works.
            options.add_session_config_entry(f"session.{pool}.allow_spinning", "0")
        if provider != CPU:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        try:
            session: InferenceSession = onnxruntime.InferenceSession(
                content,
                options,
                providers=[(provider, self.provider_options)],
                enable_fallback=0,
            )
        except _list_session_errors() as error:
            text = describe_onnxruntime_error(error)
            raise explain_memory_failure(text, provider) or self._explain_refusal(provider, error) from error
        # ONNX Runtime keeps the bytes to recreate the session on another provider, which enable_fallback=0 forbids.
        vars(session).pop("_model_bytes", None)
        if session.get_providers()[0] != provider:
            reason = explain_load_failure(provider) or "it did not load"
            message = f"{provider} cannot run here: {reason}; ONNX Runtime would run on {session.get_providers()[0]}."
            raise ProviderError(provider, message)
        return session

    def _add_default_options(self, provider: str) -> ProviderOptions:
        """Add our defaults to the given options, which take precedence.

        With those for CUDA a seed gives the same digits in each process: by itself cuDNN times its algorithms in each
        process and takes the fastest, where ``HEURISTIC`` chooses without timing; and TF32 would round the factors of a
        float32 graph to ten bits of mantissa. OpenVINO has threads of its own, as many as there are cores.
        """
        if provider == OPENVINO:
            return {"num_of_threads": str(self._nintra), **self._given_options}
        if provider != CUDA:
            return self._given_options
        defaults = {"cudnn_conv_algo_search": "HEURISTIC"}
        if self.card.precision == "float32":
            defaults["use_tf32"] = "0"
        elif "prefer_nhwc" not in self._given_options:
            # Measured on an H200: the same digits, 6.9 ms an event instead of 9.0 (ResNet) and 1.7 instead of 2.4
            # (ConvNet). Without channels last cuDNN cannot fuse biases into float16 convolutions.
            defaults |= {"prefer_nhwc": "1", "fuse_conv_bias": "1"}
        return {**defaults, **self._given_options}

    def _explain_refusal(self, provider: str, error: Exception) -> Exception:
        reason = explain_load_failure(provider, error)
        if reason is not None:
            return ProviderError(provider, f"{provider} cannot run here: {reason}.")
        if "fallback to CPU EP has been explicitly disabled" in str(error):
            other = "a float32 graph of the model, or " if self.card.precision == "int8" else ""
            message = (
                f"{provider} cannot run every node of {self.path}, or did not load; ONNX Runtime would run "
                f"them on the CPU without saying so. Choose {other}the provider cpu if that is what you want."
            )
            return ProviderError(provider, message)
        exported_with = next((each.version for each in self.card.made_with if each.package == "onnxruntime"), None)
        reason = explain_too_new(one_line(error), exported_with)
        if reason is not None:
            return InferenceError(f"ONNX Runtime created no session for {self.path} on {provider}: {reason}.")
        message = f"ONNX Runtime created no session for {self.path} on {provider}: {describe_onnxruntime_error(error)}"
        if self.provider_options:
            message += f" (provider_options: {self.provider_options})"
        return InferenceError(message)


def _check_int8_weights(graph: GraphFile) -> None:
    """Refuse an int8 graph whose products may saturate on this CPU, which would change its digits."""
    bits, cpu = graph.card.weight_bits, detect_cpu()
    if bits == FULL_WEIGHT_BITS and not cpu.has_dot_products:
        found = (
            f"Whether this CPU ({cpu.name}) has VNNI is not known on this system"
            if cpu.dot_products is None
            else f"This CPU ({cpu.name}) has neither VNNI (x86) nor dot products of bytes (Arm)"
        )
        message = (
            f"The int8 graph {graph.path} has weights of {bits} bits, whose products saturate on a CPU without VNNI. "
            f"{found}: use a float32 graph of the model, or export it with --weight-bits 7."
        )
        raise ProviderError(CPU, message)


def _parse_provider(provider: object) -> str:
    if not isinstance(provider, str):
        raise ArgumentTypeError("provider", f"provider must be the name of an execution provider, but is {provider!r}.")
    return provider.lower()


def _parse_options(options: object) -> ProviderOptions:
    if options is None:
        return {}
    if not isinstance(options, Mapping) or not all(isinstance(text, str) for pair in options.items() for text in pair):
        message = f"provider_options must be a mapping of strings to strings, but is {options!r}."
        raise ArgumentTypeError("provider_options", message)
    return dict(options)


def _check_against_card(session: InferenceSession, graph: GraphFile) -> None:
    """Compare the inputs and the output of a session with those of the card."""
    card = graph.card
    expected = {each.name: (_format_type(each), _find_shape(each, card)) for each in card.inputs}
    try:
        found = {each.name: (each.type, _drop_axis_names(each.shape)) for each in session.get_inputs()}
        outputs = {each.name: (each.type, _drop_axis_names(each.shape)) for each in session.get_outputs()}
    except UnicodeDecodeError:
        message = f"The graph {graph.path} does not fit its card: names of its inputs or outputs are not valid UTF-8."
        raise InferenceError(message) from None
    if found != expected:
        message = f"The graph {graph.path} does not fit its card: its inputs are {found}, but the card has {expected}."
        raise InferenceError(message)
    kind, dtype = ("tensor(uint8)", "uint8") if card.output_kind == "charges" else ("tensor(float)", "float32")
    if outputs != {card.output: (kind, (None, N_U_CELLS, N_V_CELLS))}:
        message = (
            f"The graph {graph.path} does not fit its card: its outputs are {outputs}, expected {card.output!r}, "
            f"{dtype} of shape (n, {N_U_CELLS}, {N_V_CELLS})."
        )
        raise InferenceError(message)


def _format_type(graph_input: GraphInput) -> str:
    return f"tensor({_ELEMENT_TYPES[graph_input.role]})"


def _find_shape(graph_input: GraphInput, card: ModelCard) -> tuple[int | None, ...]:
    if graph_input.role == "sensor":
        return (None,)
    rows, values = next(draw.shape for draw in card.draws if draw.name == graph_input.draw)
    return (rows if graph_input.role == "event_latent" else None, values)


def _drop_axis_names(shape: list[int | str | None]) -> tuple[int | None, ...]:
    """Replace the names of dynamic axes, which are free, by None."""
    return tuple(axis if isinstance(axis, int) else None for axis in shape)


def _list_session_errors() -> tuple[type[Exception], ...]:
    """List ONNX Runtime's exceptions, which share no base class, and those that its Python code raises."""
    state = import_onnxruntime().capi.onnxruntime_pybind11_state
    own = (value for value in vars(state).values() if isinstance(value, type))
    return (ValueError, RuntimeError, *(each for each in own if issubclass(each, Exception)))
