"""The argument ``outputs`` of a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qtm._arguments import refused
from qtm._engines.outputs import Probabilities, State
from qtm._errors import ParameterError

Outputs = str | tuple[str, Mapping[str, Any]]
_ADVICE = "give 'expectation', 'probabilities', 'state', or ('probabilities', {'qubits': [0, 2]}), say"


def read_outputs(outputs: Any, observables: Any, num_qubits: int) -> Probabilities | State | None:
    """The output named by the argument; None: expectation values.

    Raises:
        ParameterError: the output, an option or a qubit is unknown; or observables are given for an output that has
            none.
    """
    name, options = outputs if isinstance(outputs, tuple) and len(outputs) == 2 else (outputs, {})
    if name not in ("expectation", "probabilities", "state") or not isinstance(options, Mapping):
        raise refused("outputs", "a name, or a pair of name and options", outputs, _ADVICE)
    known = ["qubits"] if name == "probabilities" else []
    if unknown := sorted(set(map(str, options)) - set(known)):
        raise ParameterError(
            f"outputs {name!r} has no option {', '.join(map(repr, unknown))}; its options are "
            f"{', '.join(known) or 'none'}"
        )
    if name == "expectation":
        return None
    if not (isinstance(observables, str) and observables == "individualZ"):
        raise ParameterError(f"outputs={name!r} has no observables; leave observables= out, or use 'expectation'")
    if name == "state":
        return State()
    return Probabilities(_checked_qubits(options.get("qubits", range(num_qubits)), num_qubits))


def _checked_qubits(qubits: Any, num_qubits: int) -> tuple[int, ...]:
    try:
        numbers = tuple(int(q) for q in qubits if int(q) == q)
        complete = len(numbers) == len(qubits) > 0
    except (TypeError, ValueError):
        complete = False
    if not complete:
        raise refused("qubits", "a list of qubit numbers, at least one", qubits, _ADVICE)
    wrong = [q for q in numbers if not 0 <= q < num_qubits]
    if wrong or len(set(numbers)) < len(numbers):
        what = f"holds {wrong[0]}" if wrong else "names a qubit twice"
        raise ParameterError(f"qubits={list(numbers)} {what}; the qubits of the circuit are 0 to {num_qubits - 1}")
    return numbers
