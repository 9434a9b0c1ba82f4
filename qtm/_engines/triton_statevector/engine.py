"""State vectors in Triton: on the GPU of the tensors, in as few launches as their size allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from qtm._circuit.flatten import FlatCircuit
from qtm._circuit.pauli_program import program_of
from qtm._engines.engine import VALUES, VJP, Cost, Engine, Plan, SimulationMethod
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation, Output, Probabilities, State
from qtm._engines.statevector.engine import StateVector, known_cones
from qtm._engines.triton_statevector import launch
from qtm._engines.triton_statevector.cone_batch import Target
from qtm._engines.triton_statevector.graphs import Graphs, recorder_for
from qtm._engines.triton_statevector.outputs import Compiled, compiled
from qtm._engines.triton_statevector.schedule import MAX_BITS
from qtm._engines.triton_statevector.sweeps import Traffic
from qtm._errors import ParameterError, UnsupportedError
from qtm._locks import fork_safe_lock

# Two states of 2^bits amplitudes fit in the registers of a program. 12 bits fit in complex64, compiled for NVIDIA's
# compute capability 9.0, but not in complex128, and half as many programs share the SMs for few states.
_TILE_BITS = 11
_MOST_TILE_BITS = 13


@dataclass(frozen=True)
class TritonStateVector(SimulationMethod):
    """The exact state vectors of "statevector" in Triton kernels, on a GPU; first derivatives only.

    Tensors on ``cuda`` are processed on their own device, CPU tensors on the current GPU. With the environment
    variable ``TRITON_INTERPRET=1`` Triton's interpreter runs the kernels on the CPU, slowly, for tests.

    Args:
        tile_bits: log2 of the maximum number of amplitudes of a program. Smaller states take one launch for each sweep,
            larger ones a launch for each pass over their tiles.
        graphs: whether to record launches in CUDA graphs and replay them for the same shape. Only for states so small
            that launching takes longer than computing; larger ones are launched as usual. Not yet run on a GPU.

    Raises:
        ParameterError: ``tile_bits`` is out of range, or ``graphs`` is not a bool.
    """

    name: ClassVar[str] = "triton"
    devices: ClassVar[frozenset[str]] = frozenset({"cpu", "cuda"})
    gives: ClassVar[Mapping[type, frozenset[str]]] = {
        Expectation: frozenset({VALUES, VJP}),
        Probabilities: frozenset({VALUES, VJP}),
        State: frozenset({VALUES, VJP}),
    }

    tile_bits: int = _TILE_BITS
    graphs: bool = False

    def __post_init__(self) -> None:
        bits = self.tile_bits
        if not isinstance(bits, int) or not 1 <= bits <= _MOST_TILE_BITS:
            raise ParameterError(f"tile_bits is {bits!r}; give an integer from 1 to {_MOST_TILE_BITS}")
        if not isinstance(self.graphs, bool):
            raise ParameterError(f"graphs is {self.graphs!r}; give True or False")

    def refuses(self, circuit: FlatCircuit, output: Output, options: Options) -> str | None:
        """Why the method cannot simulate this: Triton or a GPU is missing, or "statevector" cannot either."""
        if (why := super().refuses(circuit, output, options) or launch.refusal()) is not None:
            return why
        if options.executor is not None:
            return "computes on one device, and takes no executor; leave executor= out"
        if (why := StateVector().refuses(circuit, output, options)) is not None:
            return why
        bits = max(cone.program.num_bits for cone in known_cones(program_of(circuit), output))
        return None if bits <= MAX_BITS else f"takes states of at most {MAX_BITS} bits, not {bits}"

    def cost(self, circuit: FlatCircuit, output: Output, options: Options) -> Cost:
        """That of state vectors on the CPU."""
        return StateVector().cost(circuit, output, options)

    def compile(self, circuit: FlatCircuit, output: Output, options: Options) -> Engine:
        """The engine for one output."""
        return TritonEngine(self, circuit, output, replace(options, executor=None))


class TritonEngine(Engine):
    """A circuit compiled for the Triton kernels; its tables are created for each device on first use."""

    gives_nan = True

    def __init__(self, method: TritonStateVector, circuit: FlatCircuit, output: Output, options: Options) -> None:
        self.method, self.circuit, self.output, self.options = method, circuit, output, options
        self._compiled: dict[torch.device, Compiled] = {}
        self._graphs: dict[torch.device, Graphs] = {}
        self._lock = fork_safe_lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return TritonEngine, (self.method, self.circuit, self.output, self.options)

    def _on(self, device: torch.device) -> Compiled:
        with self._lock:
            if device not in self._compiled:
                program = program_of(self.circuit)
                cones = known_cones(program, self.output)
                tiles = self.method.tile_bits
                self._compiled[device] = compiled(
                    self.circuit, program, cones, self.output, self.options, tiles, device
                )
            return self._compiled[device]

    def _sweeps(self, device: torch.device) -> Compiled | Graphs:
        """The sweeps on a device, replayed from graphs if the method requests it and the device supports it."""
        made = self._on(device)
        if not self.method.graphs:
            return made
        with self._lock:
            if device not in self._graphs and (recorder := recorder_for(device)) is not None:
                self._graphs[device] = Graphs(made, recorder, device, self.options.memory)
            return self._graphs.get(device, made)

    def forward(self, angles: Tensor, prepared: Sequence[Tensor], *, keep: bool = False) -> tuple[Tensor, Any]:
        """See `Engine.forward`."""
        device = launch.device_for(angles.device)
        with torch.no_grad():
            values, kept = self._sweeps(device).forward(angles.to(device), [p.to(device) for p in prepared], keep)
        return values.to(angles.device), kept

    def vjp(
        self,
        angles: Tensor,
        prepared: Sequence[Tensor],
        cotangent: Tensor,
        residuals: Any = None,
        *,
        by_prepared: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """See `Engine.vjp`."""
        device = launch.device_for(angles.device)
        with torch.no_grad():
            target = Target(angles.to(device), [p.to(device) for p in prepared], by_prepared)
            by_angles, by_amplitudes = self._sweeps(device).vjp(target, cotangent.to(device), residuals)
        found = tuple(a.to(angles.device) for a in by_amplitudes) if by_prepared else None
        return by_angles.to(angles.device), found

    def jvp(self, *arguments: Any, **options: Any) -> Tensor:
        """Not supported: only first derivatives in reverse mode are."""
        raise UnsupportedError(_NO_TANGENTS.format("no derivatives in forward mode (torch.func.jvp, jacfwd)"))

    def second(self, *arguments: Any, **options: Any) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Not supported: only first derivatives are."""
        raise UnsupportedError(_NO_TANGENTS.format("first derivatives only"))

    def metric_product(self, angles: Tensor, prepared: Sequence[Tensor], tangent: Tensor) -> Tensor:
        """Refused."""
        raise UnsupportedError(_NO_TANGENTS.format("no metric"))

    def plan(self, batch: int) -> Plan:
        """See `Engine.plan`."""
        same = StateVector().compile(self.circuit, self.output, self.options).plan(batch)
        return replace(same, method=self.method.name)

    def traffic(self, batch: int, device: torch.device) -> list[Traffic]:
        """Memory traffic of a batch on a device, for each group of equal cones."""
        return [one.sweeps.traffic(batch * len(one.cones)) for one in self._on(device).batches]


_NO_TANGENTS = (
    "the Triton engine, which computes on GPUs, gives {}; move the module and its inputs with .cpu(), and use "
    "method='statevector'"
)
