"""``gpu``: events a second on one NVIDIA GPU, ours beside PyTorch's, from the draws to the digits on the host."""

from __future__ import annotations

from collections import abc
from functools import cache, partial
from typing import TYPE_CHECKING, Final

from benchmarks.benchmark import Benchmark, Plan
from benchmarks.environment import check_installed
from benchmarks.events import EVENT, SEED, consume_stream
from benchmarks.graphs import Workspace
from benchmarks.timing import EVENTS_PER_SECOND, Case, Run, build_cases, time_rate
from pxdbg_runtime import Generator
from pxdbg_runtime.errors import ProviderError
from pxdbg_runtime.inference.devices import name_device
from pxdbg_runtime.inference.providers import CUDA, explain_unusable, resolve_provider
from pxdbg_runtime.model.card import Precision

if TYPE_CHECKING:
    from benchmarks.pytorch_gpu import CompileMode

_PROVIDER: Final = "cuda"
_N_EVENTS: Final = 50
_N_QUICK_EVENTS: Final = 10


def _list_cases(plan: Plan) -> abc.Generator[tuple[Case, ...], None, None]:
    n_events = _N_QUICK_EVENTS if plan.quick else _N_EVENTS
    for family in plan.families:
        load = cache(partial(_load_generator, plan.workspace, family))
        prepare_peer = partial(_prepare_pytorch, plan.workspace, family, n_events)
        preparations: dict[str, abc.Callable[[], Run]] = {
            "ours, float16, Generator.stream": partial(_prepare_stream, partial(load, "float16"), n_events),
            "ours, float16, Generator.generate": partial(_prepare_generate, partial(load, "float16"), n_events),
            "ours, float32, Generator.stream": partial(_prepare_stream, partial(load, "float32"), n_events),
            "PyTorch, float16, torch.compile with CUDA graphs": partial(prepare_peer, "reduce-overhead"),
            "PyTorch, float16, torch.compile": partial(prepare_peer, "default"),
            "PyTorch, float16, eager": partial(prepare_peer, None),
        }
        yield build_cases((family,), preparations, EVENTS_PER_SECOND)


def _load_generator(workspace: Workspace, family: str, precision: Precision) -> Generator:
    """Load the graph of a precision on the GPU; refuse before the export, which takes minutes, if there is none."""
    name = resolve_provider(_PROVIDER)
    obstacle = explain_unusable(name)
    if obstacle is not None:
        raise ProviderError(_PROVIDER, f"{name} cannot run here: {obstacle}.")
    graph = workspace.find_graph(family, precision, target="cuda")
    return Generator(graph.path, provider=_PROVIDER, seed=SEED)


def _prepare_stream(load: abc.Callable[[], Generator], n_events: int) -> Run:
    generator = load()
    consume = partial(consume_stream, generator)
    return time_rate(partial(consume, n_events), n_events, warm_up=consume)


def _prepare_generate(load: abc.Callable[[], Generator], n_events: int) -> Run:
    generator = load()

    def work() -> None:
        for event in range(n_events):
            generator.generate(event)

    return time_rate(work, n_events, warm_up=lambda: generator.generate(EVENT))


def _prepare_pytorch(workspace: Workspace, family: str, n_events: int, mode: CompileMode | None) -> Run:
    check_installed("torch")
    import torch

    from benchmarks.pytorch_gpu import build_event_generator, check_cuda, time_events
    from export.checkpoint import load_checkpoint
    from export.families import load_family

    check_cuda()
    model = load_checkpoint(workspace.find_checkpoint(family), family)
    variant = load_family(family).find_variant(model)
    generate = build_event_generator(model, variant, device="cuda", dtype=torch.float16, mode=mode)
    return time_events(generate, n_events)


def _list_remarks() -> tuple[str, ...]:
    return (f"GPU: {name_device(CUDA, {}) or 'none that an NVIDIA driver names'}",)


BENCHMARK: Final = Benchmark(
    name="gpu",
    help="Events a second on one NVIDIA GPU, ours beside PyTorch.",
    columns=("model", "what"),
    remarks=(
        "Whole events of 40 images at once, from the draws to the digits on the host; ours draws on the host.",
        "Generator.stream computes the next event while one is used; all others run one event after the other.",
        "PyTorch draws, and finds charges and hits, on the GPU; torch.compile compiles images and charges together.",
        "PyTorch's weights: channels last; spectral norms, and batch norms after a convolution in a sequence, folded.",
        "cuDNN's algorithms are chosen by rule in both.",
    ),
    list_remarks=_list_remarks,
    cases=_list_cases,
    title="Events a second on one NVIDIA GPU, digits on the host included",
)
