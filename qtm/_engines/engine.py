"""The engine protocol: a simulation method compiles a flat circuit for one output; tensors in, tensors out.

Two stages. A `SimulationMethod` is a frozen dataclass whose fields are its options; it declares its outputs,
refuses what it cannot simulate with a reason, predicts its cost, and compiles. The compiled `Engine` maps gate angles
to the output and pulls cotangents back. It knows nothing about inputs and weights.

Shapes: angles (batch, angles), one for every entry of ``FlatCircuit.angles``, in radians; ``prepared`` holds one
complex tensor (batch or 1, 2**qubits) for every entry of ``FlatCircuit.initial``, normalised.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from qtm._circuit.flatten import FlatCircuit
from qtm._engines.options import Options
from qtm._engines.outputs import Output
from qtm._errors import UnsupportedError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# Operations that an engine may support for an output.
VALUES, VJP, JVP, SECOND, SAMPLES, METRIC = "values", "vjp", "jvp", "second", "samples", "metric"
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


@dataclass(frozen=True, slots=True)
class Cost:
    """A prediction for one sample: real multiply-adds of values and derivatives together, and bytes of its states."""

    multiply_adds: float
    memory: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Memory and arithmetic of a compiled engine for a batch.

    Attributes:
        method: the name of the simulation method.
        states: pairs of (log2 of the size of a state, number of such states per sample).
        memory: bytes of the states that exist at the same time.
        multiply_adds: real multiply-adds of values and derivatives.
        notes: remarks about choices such as truncation.
    """

    method: str
    states: tuple[tuple[float, int], ...]
    memory: float
    multiply_adds: float
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        sizes = " and ".join(
            f"{count} state{'s' if count > 1 else ''} of 2^{bits:.3g} amplitudes" for bits, count in self.states
        )
        power = min(max(int(self.memory).bit_length() - 1, 0) // 10, len(_UNITS) - 1)
        memory = f"{self.memory / 1024**power:.1f} {_UNITS[power]}"
        return f"{self.method}: {sizes} a sample, {memory}, {self.multiply_adds:.2g} multiply-adds" + "".join(
            f"; {note}" for note in self.notes
        )


class ArrayBatch(Protocol):
    """An engine for a fixed number of samples without prepared amplitudes: arrays in, arrays out.

    Arrays are contiguous. `vjp` consumes the residuals.
    """

    def forward(self, angles: np.ndarray, keep: bool) -> tuple[np.ndarray, Any]:
        """Outputs (batch, outputs) of angles (batch, angles), and residuals if ``keep``."""

    def vjp(self, angles: np.ndarray, cotangent: np.ndarray, residuals: Any) -> np.ndarray:
        """Derivatives with respect to the angles (batch, angles) for a cotangent (batch, outputs)."""


class Engine(ABC):
    """A circuit compiled for one output. Reusable, thread-safe, and picklable."""

    output: Output
    gives_nan: bool = (
        False  # whether outputs of angles beyond `LARGEST_ANGLE` are NaN, so that a GPU need not check them
    )

    @abstractmethod
    def forward(self, angles: Tensor, prepared: Sequence[Tensor], *, keep: bool = False) -> tuple[Tensor, Any]:
        """The output (batch, outputs), and the residuals for one `vjp` if ``keep`` (None where there are none).

        An angle that is not finite gives an output that is not finite; the caller reports why.
        """

    def vjp(
        self,
        angles: Tensor,
        prepared: Sequence[Tensor],
        cotangent: Tensor,
        residuals: Any = None,
        *,
        by_prepared: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Pull a cotangent (batch, outputs) back to the angles (batch, angles) and, on request, to ``prepared``.

        Complex tensors follow torch: the gradient of a real loss L with respect to z = x + iy is dL/dx + i dL/dy, and
        the cotangent of a complex output is that gradient. Without residuals the states are recomputed.
        """
        raise UnsupportedError(f"{type(self).__name__} does not compute derivatives of {type(self.output).__name__}")

    def jvp(
        self,
        angles: Tensor,
        prepared: Sequence[Tensor],
        tangent: Tensor,
        prepared_tangents: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """The derivative (batch, outputs) of the output along a tangent (batch, angles).

        ``prepared_tangents`` are the tangents of ``prepared``; None: zero.
        """
        raise UnsupportedError(
            f"{type(self).__name__} computes no derivatives of {type(self.output).__name__} in forward mode "
            "(torch.func.jvp, jacfwd, forward_ad); use torch.func.vjp, jacrev or backward(), or method='statevector'"
        )

    def second(
        self,
        angles: Tensor,
        prepared: Sequence[Tensor],
        cotangent: Tensor,
        tangent: Tensor,
        prepared_tangents: Sequence[Tensor] | None = None,
        *,
        by_prepared: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """The derivative of `vjp` at a fixed cotangent along a tangent: Hessian-vector products."""
        raise UnsupportedError(
            f"{type(self).__name__} computes first derivatives of {type(self.output).__name__} only; call backward() "
            "without create_graph=True, or use method='statevector'"
        )

    def metric_product(self, angles: Tensor, prepared: Sequence[Tensor], tangent: Tensor) -> Tensor:
        """The metric, the real part of the quantum geometric tensor, times a tangent: both (batch, angles)."""
        raise UnsupportedError(f"{type(self).__name__} computes no metric; use method='statevector'")

    def sample(
        self, angles: Tensor, prepared: Sequence[Tensor], shots: int, generator: np.random.Generator
    ) -> np.ndarray:
        """Bits (batch, shots, qubits) bool of shots; column j is ``output.qubits[j]``."""
        raise UnsupportedError(f"{type(self).__name__} does not draw samples")

    def small_batch(self, batch: int) -> ArrayBatch | None:
        """A faster path for this number of samples; None if there is none. The caller caches it."""
        return None

    @abstractmethod
    def plan(self, batch: int) -> Plan:
        """Memory and arithmetic for a batch of this size."""


class SimulationMethod(ABC):
    """One way to simulate. Subclass it as a frozen dataclass whose fields are the options of the method."""

    name: ClassVar[str]  # as Qiskit Aer calls it, where Aer has it
    devices: ClassVar[frozenset[str]] = frozenset({"cpu"})  # as torch calls their types
    is_exact: ClassVar[bool] = True  # "auto" never chooses a method that is not exact
    simulates_noise: ClassVar[bool] = False  # whether it takes circuits with channels and readout errors
    takes_control_flow: ClassVar[bool] = False  # whether it takes a `DynamicCircuit`; others get measurements deferred
    gives: ClassVar[Mapping[type, frozenset[str]]]  # by type of output

    def refuses_device(self, device: str) -> str | None:
        """Why the method does not compute on a type of device, in the form of `refuses`; None if it does."""
        if device in self.devices:
            return None
        own = " and ".join(sorted(self.devices))
        return f"computes on {own}, and the tensors are on {device}; move the module and its inputs with .cpu()"

    def refuses(self, circuit: FlatCircuit, output: Output, options: Options) -> str | None:
        """Why the method cannot simulate this, as the end of a sentence that begins with its name; None if it can."""
        if type(output) not in self.gives:
            return f"gives no {type(output).__name__}"
        if circuit.is_noisy and not self.simulates_noise:
            return "simulates no noise; use method='density_matrix'"
        return None

    @abstractmethod
    def cost(self, circuit: FlatCircuit, output: Output, options: Options) -> Cost:
        """Predicted cost of one sample, by which ``method="auto"`` chooses."""

    @abstractmethod
    def compile(self, circuit: FlatCircuit, output: Output, options: Options) -> Engine:
        """The engine for one output of a circuit; call it only if `refuses` returned None."""
