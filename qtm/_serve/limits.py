"""Limits on requests to the service."""

from __future__ import annotations

import base64
import binascii
import io
import struct
from dataclasses import dataclass
from typing import Any

from qiskit import QuantumCircuit, qasm3, qpy
from qiskit.exceptions import QiskitError

from qtm._errors import CircuitError, QtmError, require

# Reading older QPY files can execute code (CVE-2025-2000); they are never opened.
OLDEST_QPY = 13
_QPY_MAGIC = b"QISKIT"
# Exceptions raised when a damaged file is read.
_DAMAGED = (
    QiskitError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, EOFError, OSError, MemoryError,
    RecursionError, struct.error,
)  # fmt: skip


class LimitError(QtmError, ValueError):
    """A request exceeds a limit of the service; ``limit`` names it."""

    def __init__(self, limit: str, asked: float, allowed: float) -> None:
        super().__init__(f"{limit}: {asked:g} requested, at most {allowed:g} allowed")
        self.limit = limit


@dataclass(frozen=True)
class Limits:
    """Limits of requests.

    Attributes:
        qubits: Of a circuit.
        depth: Of a circuit.
        gates: Of a circuit, those inside the definitions of its gates counted one by one.
        batch: Samples in a request.
        seconds: For a prediction, a gradient or a training.
        models: Kept in all.
        queue: Trainings that run or wait.
        body: Bytes of a request.
    """

    qubits: int = 16
    depth: int = 2000
    gates: int = 20_000
    batch: int = 4096
    seconds: float = 60.0
    models: int = 1000
    queue: int = 16
    body: int = 2**24

    def check(self, limit: str, asked: float) -> None:
        """Refuse more than the limit of this name.

        Raises:
            LimitError: ``asked`` is more than allowed.
        """
        allowed = getattr(self, limit)
        if asked > allowed:
            raise LimitError(limit, asked, allowed)

    def circuit(self, text: str, form: str) -> QuantumCircuit:
        """The circuit of a request, within the limits.

        Args:
            text: OpenQASM 3, or a QPY file in base64.
            form: "qasm3" or "qpy".

        Raises:
            CircuitError: It cannot be read, or has control flow.
            LimitError: It has too many qubits or gates, or is too deep.
        """
        circuit = _read_qasm3(text, self) if form == "qasm3" else _read_qpy(text)
        self.check("qubits", circuit.num_qubits)
        self.check("depth", circuit.depth())
        if circuit.has_control_flow_op():
            raise CircuitError("the circuit has control flow, which the service does not run; unroll it")
        self.check("gates", _count_gates(circuit, {}))
        return circuit


def _count_gates(circuit: QuantumCircuit, known: dict[str, int]) -> int:
    """Gates of the circuit with definitions expanded; ``known`` holds the counts of definitions by name.

    Gates that are defined by one another can stand for more gates than could ever be expanded, so these are counted
    once for each name.
    """
    total = 0
    for instruction in circuit.data:
        name = instruction.name
        if not instruction.is_standard_gate() and name not in known:
            known[name] = 1  # placeholder while its definition is counted; no definition contains itself
            definition = instruction.operation.definition
            known[name] = 1 if definition is None else max(1, _count_gates(definition, known))
        total += 1 if instruction.is_standard_gate() else known[name]
    return total


def _check_definitions(program: Any, limits: Limits) -> None:
    """Refuse gates defined by too many others, which Qiskit's reader would expand.

    Raises:
        LimitError: A definition expands to more gates than are allowed.
    """
    syntax = require("openqasm3.ast", "serve")
    gates: dict[str, int] = {}
    for statement in program.statements:
        if isinstance(statement, syntax.QuantumGateDefinition):
            calls = [call for call in statement.body if isinstance(call, syntax.QuantumGate)]
            gates[statement.name.name] = sum(gates.get(call.name.name, 1) for call in calls)
            limits.check("gates", gates[statement.name.name])


def _read_qasm3(text: str, limits: Limits) -> QuantumCircuit:
    parser = require("openqasm3.parser", "serve")
    parsing_error = parser.QASM3ParsingError
    try:
        _check_definitions(parser.parse(text), limits)
        return qasm3.loads(text)
    except LimitError:
        raise
    except (QiskitError, parsing_error, ValueError, TypeError, RecursionError) as error:
        raise CircuitError(f"not an OpenQASM 3 circuit that Qiskit reads: {error}") from error


def _read_qpy(text: str) -> QuantumCircuit:
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise CircuitError(f"the QPY file is not in base64: {error}") from error
    if content[:6] != _QPY_MAGIC or len(content) < 7:
        raise CircuitError("not a QPY file: it has another header")
    if content[6] < OLDEST_QPY:
        raise CircuitError(
            f"QPY version {content[6]} is not accepted, only {OLDEST_QPY} and later; save it with Qiskit 2"
        )
    try:
        circuits = qpy.load(io.BytesIO(content))
    except _DAMAGED as error:
        raise CircuitError(f"Qiskit cannot read the QPY file: {error}") from error
    if len(circuits) != 1 or not isinstance(circuits[0], QuantumCircuit):
        raise CircuitError(f"the QPY file holds {len(circuits)} programs; expected one circuit")
    return circuits[0]
