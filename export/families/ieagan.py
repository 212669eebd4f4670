"""The class-conditional generator IEA-GAN: one image for each sensor, whose condition takes part in every layer.

Two variants are in use. In basf2's, 603 keys and 11,676,449 parameters, the relational module sees the sensors alone.
In the published one it also sees four normal values of each sensor, drawn once an event, through `linear_f`.
"""

from __future__ import annotations

from typing import Final, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.families.family import Family
from export.families.generator_module import GeneratorModule
from pxdbg_runtime.model.card import Draw, GraphInput
from pxdbg_runtime.sensors import N_SENSORS

__all__ = ["FAMILY", "LATENT_SIZE", "STAGES", "IeaGan", "IeaGanWithEventNoise", "divide_by_spectral_norm"]

LATENT_SIZE: Final = 128
EMBEDDING_SIZE: Final = 128
CONDITION_SIZE: Final = EMBEDDING_SIZE + LATENT_SIZE
EVENT_NOISE_SIZE: Final = 4
N_HEADS: Final = 2
SEED_HEIGHT: Final = 4
SEED_WIDTH: Final = 12
"""Size of the first feature map; six upsamplings by 2 make it 256 x 768."""
STAGES: Final = ((512, 512), (512, 256), (256, 256), (256, 128), (128, 64), (64, 32))
"""Input and output channels; a stage is a block that keeps its input's channels and size, and one that upsamples."""
BOTTLENECK: Final = 4
"""A block has so many times fewer channels inside than its input."""
BATCH_NORM_EPS: Final = 1e-5
CUT: Final = -0.26
MIN_CHARGE_ADU: Final = 6


def divide_by_spectral_norm(weight: Tensor, u0: Tensor, eps: float) -> Tensor:
    """Divide a weight by its spectral norm, estimated by one power iteration from the stored vector.

    With W the weight as a matrix (out, rest): v = normalise(u0 W), u = normalise(v Wᵀ), and the norm is v Wᵀ uᵀ.

    Parameters
    ----------
    weight : Tensor, shape (out, ...)
    u0 : Tensor, shape (1, out)
    eps : float
        Smallest length by which a vector is divided.
    """
    matrix = weight.flatten(1)
    v = functional.normalize(u0 @ matrix, eps=eps)
    projected = v @ matrix.T
    u = functional.normalize(projected, eps=eps)
    return weight / (projected @ u.T).squeeze()


class SpectralNorm(nn.Module):
    """A layer that divides its weight by its spectral norm in each pass, until `fold_norm` stores the result."""

    weight: Tensor
    u0: Tensor

    def register_norm(self, eps: float) -> None:
        """Register the buffers: `u0` of shape (1, out), and `sv0`, a record of training without effect."""
        self.eps, self.is_folded = eps, False
        self.register_buffer("u0", torch.randn(1, len(self.weight)))
        self.register_buffer("sv0", torch.ones(1))

    def compute_weight(self) -> Tensor:
        """Compute the weight that takes effect."""
        return self.weight if self.is_folded else divide_by_spectral_norm(self.weight, self.u0, self.eps)

    @torch.no_grad()
    def fold_norm(self) -> None:
        """Store the weight that takes effect, computed in float64."""
        self.weight.copy_(divide_by_spectral_norm(self.weight.double(), self.u0.double(), self.eps))
        self.is_folded = True


class SpectralLinear(SpectralNorm, nn.Linear):
    """A linear layer with spectral norm."""

    def __init__(self, n_in: int, n_out: int, *, eps: float, bias: bool = True) -> None:
        super().__init__(n_in, n_out, bias=bias)
        self.register_norm(eps)

    def forward(self, values: Tensor) -> Tensor:
        """Map (n, in) to (n, out)."""
        return functional.linear(values, self.compute_weight(), self.bias)


class SpectralConv(SpectralNorm, nn.Conv2d):
    """A convolution with spectral norm that keeps the size."""

    def __init__(self, n_in: int, n_out: int, size: int, *, eps: float) -> None:
        super().__init__(n_in, n_out, size, padding=size // 2)
        self.register_norm(eps)

    def forward(self, features: Tensor) -> Tensor:
        """Map (n, in, h, w) to (n, out, h, w)."""
        return functional.conv2d(features, self.compute_weight(), self.bias, padding=self.padding)


class StoredNorm(nn.Module):
    """Standardise channels by stored statistics; in training mode by those of the batch, which it stores."""

    stored_mean: Tensor
    stored_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))

    def standardise(self, features: Tensor, factor: Tensor | None = None, offset: Tensor | None = None) -> Tensor:
        """Map (n, channels, h, w) to the same shape."""
        if self.training:
            self.stored_mean.copy_(features.mean((0, 2, 3)))
            self.stored_var.copy_(features.var((0, 2, 3), correction=0))
        return functional.batch_norm(
            features, self.stored_mean, self.stored_var, factor, offset, training=False, eps=BATCH_NORM_EPS
        )


class ConditionalNorm(StoredNorm):
    """A batch norm whose factor and offset are linear in the condition."""

    def __init__(self, channels: int, *, eps: float) -> None:
        super().__init__(channels)
        self.gain = SpectralLinear(CONDITION_SIZE, channels, eps=eps, bias=False)
        self.bias = SpectralLinear(CONDITION_SIZE, channels, eps=eps, bias=False)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Map (n, channels, h, w) and (n, 256) to (n, channels, h, w)."""
        factor: Tensor = (1 + self.gain(condition))[:, :, None, None]
        offset: Tensor = self.bias(condition)[:, :, None, None]
        return self.standardise(features) * factor + offset


class OutputNorm(StoredNorm):
    """A batch norm whose factor and offset are parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Map (n, channels, h, w) to the same shape."""
        return self.standardise(features, self.gain, self.bias)


class Attention(nn.Module):
    """Scaled dot-product attention over the sensors of an event."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv_proj = nn.Linear(EMBEDDING_SIZE, 3 * EMBEDDING_SIZE)
        self.o_proj = nn.Linear(EMBEDDING_SIZE, EMBEDDING_SIZE)

    def forward(self, rows: Tensor) -> Tensor:
        """Map (40, 128) to (40, 128)."""
        parts = self.qkv_proj(rows).view(N_SENSORS, N_HEADS, -1).transpose(0, 1)
        query, key, value = parts.chunk(3, dim=-1)
        weights = torch.softmax(query @ key.transpose(1, 2) * query.shape[-1] ** -0.5, dim=-1)
        joined: Tensor = self.o_proj((weights @ value).transpose(0, 1).reshape(N_SENSORS, EMBEDDING_SIZE))
        return joined


class Encoder(nn.Module):
    """A pre-norm encoder block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(EMBEDDING_SIZE)
        self.self_attn = Attention()
        self.norm2 = nn.LayerNorm(EMBEDDING_SIZE)
        self.linear_net = nn.Sequential(
            nn.Linear(EMBEDDING_SIZE, EMBEDDING_SIZE),
            nn.Identity(),
            nn.ReLU(),
            nn.Linear(EMBEDDING_SIZE, EMBEDDING_SIZE),
        )

    def forward(self, rows: Tensor) -> Tensor:
        """Map (40, 128) to (40, 128)."""
        attended = rows + self.self_attn(self.norm1(rows))
        result: Tensor = attended + self.linear_net(self.norm2(attended))
        return result


class RelationalModule(nn.Module):
    """Relate the embeddings of an event's sensors to each other."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(Encoder())
        self.norm = nn.LayerNorm(EMBEDDING_SIZE)

    def forward(self, rows: Tensor) -> Tensor:
        """Map (40, 128) to (40, 128)."""
        result: Tensor = self.norm(self.layers(rows))
        return result


class Block(nn.Module):
    """A pre-activation bottleneck block; the skip takes the first channels of the input."""

    def __init__(self, n_in: int, n_out: int, *, upsamples: bool, eps: float) -> None:
        super().__init__()
        hidden = n_in // BOTTLENECK
        self.n_out, self.upsamples = n_out, upsamples
        self.bn1, self.conv1 = ConditionalNorm(n_in, eps=eps), SpectralConv(n_in, hidden, 1, eps=eps)
        self.bn2, self.conv2 = ConditionalNorm(hidden, eps=eps), SpectralConv(hidden, hidden, 3, eps=eps)
        self.bn3, self.conv3 = ConditionalNorm(hidden, eps=eps), SpectralConv(hidden, hidden, 3, eps=eps)
        self.bn4, self.conv4 = ConditionalNorm(hidden, eps=eps), SpectralConv(hidden, n_out, 1, eps=eps)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Map (n, in, h, w) and (n, 256) to (n, out, h, w), or (n, out, 2h, 2w)."""
        main = self.conv1(functional.relu(self.bn1(features, condition)))
        main = functional.relu(self.bn2(main, condition))
        skip = features[:, : self.n_out]
        if self.upsamples:
            main, skip = _upsample(main), _upsample(skip)
        main = functional.relu(self.bn3(self.conv2(main), condition))
        main = functional.relu(self.bn4(self.conv3(main), condition))
        return torch.add(self.conv4(main), skip)


class IeaGan(GeneratorModule):
    """Embedding and relational module, linear layer, twelve conditional blocks, batch norm, ReLU, convolution, tanh."""

    eps: float = 1e-6
    """Of the spectral norms."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Embedding(N_SENSORS, EMBEDDING_SIZE)
        self.RR_G = RelationalModule()
        n_first = STAGES[0][0]
        self.linear = SpectralLinear(CONDITION_SIZE, n_first * SEED_HEIGHT * SEED_WIDTH, eps=self.eps)
        self.blocks = nn.ModuleList()
        for n_in, n_out in STAGES:
            for outputs in (n_in, n_out):
                # Stages keep the channels in their first block; the second upsamples, with as many channels at times.
                upsamples = len(self.blocks) % 2 == 1
                self.blocks.append(nn.ModuleList([Block(n_in, outputs, upsamples=upsamples, eps=self.eps)]))
        n_last = STAGES[-1][1]
        self.output_layer = nn.Sequential(OutputNorm(n_last), nn.ReLU(), SpectralConv(n_last, 1, 3, eps=self.eps))
        self.table: Tensor | None
        self.register_buffer("table", None, persistent=False)

    def full_image(self, latent: Tensor, sensor: Tensor, *event_latent: Tensor) -> Tensor:
        """Compute the uncropped image, float32 (n, 1, 256, 768) in [-1, 1].

        Parameters
        ----------
        latent : Tensor, shape (n, 128)
        sensor : Tensor of int64, shape (n,)
            Index along the event axis, 0 to 39.
        *event_latent : Tensor, shape (40, 4)
            Of the whole event; only of the variant with event noise.
        """
        rows = self.relate_sensors(*event_latent) if self.table is None else self.table
        condition = torch.cat([rows[sensor], latent], dim=1)
        features = self.linear(condition).view(-1, STAGES[0][0], SEED_HEIGHT, SEED_WIDTH)
        for block in self.blocks:
            features = block.get_submodule("0")(features, condition)
        return torch.tanh(self.output_layer(features))

    def relate_sensors(self) -> Tensor:
        """Compute the embeddings of the event's sensors, shape (40, 128)."""
        related: Tensor = self.RR_G(self.shared.weight)
        return related

    @torch.no_grad()
    def fold(self) -> Self:
        """Fold the spectral norms into weights, and the relational module into a table where it is a constant."""
        for module in self.modules():
            if isinstance(module, SpectralNorm):
                module.fold_norm()
        self.fold_relations()
        return self

    def fold_relations(self) -> None:
        """Store the embeddings of the sensors, computed in float64."""
        self.double()
        table = self.relate_sensors()
        self.float()
        self.table = table.float()

    @torch.no_grad()
    def scale_output(self, factor: float, offset: float) -> None:
        """Multiply the values before the tanh by a factor, before the last convolution, and add an offset."""
        parameters = dict(self.output_layer.named_parameters())
        for name in ("0.gain", "0.bias", "2.bias"):  # the weight has a spectral norm, which would undo a factor
            parameters[name].mul_(factor)
        parameters["2.bias"].add_(offset)


class IeaGanWithEventNoise(IeaGan):
    """The variant in which the relational module also sees four normal values of each sensor."""

    eps = 1e-12

    def __init__(self) -> None:
        super().__init__()
        self.linear_f = SpectralLinear(EMBEDDING_SIZE + EVENT_NOISE_SIZE, EMBEDDING_SIZE, eps=self.eps)

    def relate_sensors(self, *event_latent: Tensor) -> Tensor:
        """Compute the embeddings of the event's sensors, shape (40, 128), from its noise, shape (40, 4)."""
        related: Tensor = self.RR_G(self.linear_f(torch.cat([self.shared.weight, *event_latent], dim=1)))
        return related

    def fold_relations(self) -> None:
        """Keep the relational module, which depends on the event."""


def _upsample(features: Tensor) -> Tensor:
    return functional.interpolate(features, scale_factor=2.0, mode="nearest")


_LATENT_DRAW: Final = Draw(name="latent", shape=(N_SENSORS, LATENT_SIZE))
_EVENT_DRAW: Final = Draw(name="event_latent", shape=(N_SENSORS, EVENT_NOISE_SIZE))
_INPUTS: Final = (
    GraphInput(name="latent", role="latent", draw=_LATENT_DRAW.name),
    GraphInput(name="sensor", role="sensor", draw=None),
)
FAMILY: Final = Family(
    name="ieagan",
    module_class=IeaGan,
    draws=(_LATENT_DRAW,),
    inputs=_INPUTS,
    cut=CUT,
    min_charge=MIN_CHARGE_ADU,
    variants=(
        Family(
            name="ieagan",
            module_class=IeaGanWithEventNoise,
            draws=(_LATENT_DRAW, _EVENT_DRAW),
            inputs=(*_INPUTS, GraphInput(name="event_latent", role="event_latent", draw=_EVENT_DRAW.name)),
            cut=CUT,
            min_charge=MIN_CHARGE_ADU,
        ),
    ),
)
