"""Digital dynamical decoupling: pulses on idle qubits, which cancel slow phase drift."""

from __future__ import annotations

from dataclasses import dataclass

from qiskit.circuit import CircuitInstruction, QuantumCircuit
from qiskit.primitives.containers.estimator_pub import EstimatorPub

from qtm._errors import ParameterError, require
from qtm._mitigation.folding import append_native, layers, native_gates, standard_gates
from qtm._mitigation.method import Memoryless, Mitigated, Steps, values, with_circuit

RULES = ("xx", "yy", "xyxy")


@dataclass(frozen=True)
class Decoupling(Memoryless):
    """Digital dynamical decoupling (Das et al., arXiv:2109.05309), sequences by mitiq.

    Gates are scheduled as early as possible. A window is a run of layers in which a qubit has no gate, or ``id``.

    Args:
        rule: "xx", "yy" or "xyxy".
        keep_raw: also run the circuit without pulses, for ``evs_unmitigated``; doubles the cost.
    """

    rule: str = "xx"
    keep_raw: bool = True

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ParameterError(f"unknown rule {self.rule!r}; choose one of {', '.join(RULES)}")
        require("mitiq", extra="mitigation")

    def steps(self, pub: EstimatorPub) -> Steps:
        """Run the circuit with the pulses."""
        circuit, pulses = self._with_pulses(pub.circuit)
        results = yield [with_circuit(pub, circuit), *([pub] if self.keep_raw else [])]
        evs, stds = values(results[0])
        return Mitigated(evs, stds, values(results[-1])[0] if self.keep_raw else evs, {"pulses": pulses})

    def _with_pulses(self, circuit: QuantumCircuit) -> tuple[QuantumCircuit, int]:
        grid = [[circuit.data[i] for i in layer] for layer in layers(circuit)]
        pulses = {}  # (layer, qubit) -> name
        for qubit in {q for layer in grid for item in layer for q in item.qubits}:
            for start, length in _windows(grid, qubit):
                pulses.update({(start + i, qubit): name for i, name in enumerate(self._sequence(length))})
        gates, basis = standard_gates(), native_gates(circuit)
        result = circuit.copy_empty_like()
        for i, layer in enumerate(grid):
            for item in layer:
                if (i, item.qubits[0]) not in pulses:
                    result.append(item)
            for qubit in circuit.qubits:
                if (i, qubit) in pulses:
                    append_native(result, gates[pulses[i, qubit]], [qubit], basis)
            result.barrier()  # keeps the pulses in place between the gates
        return result, sum(name != "id" for name in pulses.values())

    def _sequence(self, length: int) -> list[str]:
        """Names of the gates that fill a window; empty if it is too short."""
        rules = require("mitiq.ddd.rules", extra="mitigation")
        operations = getattr(rules, self.rule)(length).all_operations()
        return [{"I": "id"}.get(str(op.gate), str(op.gate).lower()) for op in operations]


def _windows(grid: list[list[CircuitInstruction]], qubit: object) -> list[tuple[int, int]]:
    """(first layer, number of layers) of each idle window of the qubit."""
    busy = [any(qubit in item.qubits and item.operation.name != "id" for item in layer) for layer in grid]
    found: list[tuple[int, int]] = []
    start: int | None = None
    for i, is_busy in enumerate([*busy, True]):
        if is_busy and start is not None:
            found.append((start, i - start))
            start = None
        elif not is_busy and start is None:
            start = i
    return found
