"""Watching the calibration of the qubits in use while a model trains."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.providers import BackendV2
from qiskit.transpiler import Target

from qtm._arguments import check_method
from qtm._errors import CircuitError, ParameterError, require
from qtm._hardware.backends import refresh
from qtm._hardware.protocols import CalibrationProtocol

logger = logging.getLogger("qtm")

# The direction of a change for the worse, and the relative change that counts as drift.
# quantity -> (sign of a change for the worse, default threshold, unit)
_QUANTITIES: dict[str, tuple[int, float, str]] = {
    "t1": (-1, 0.5, "s"),
    "t2": (-1, 0.5, "s"),
    "readout_error": (+1, 1.0, "probability"),
    "gate_error": (+1, 1.0, "probability"),
    "two_qubit_error": (+1, 1.0, "probability"),
    # measured by `ReadoutAssignment` and `RandomizedBenchmarking`
    "assignment_error": (+1, 1.0, "probability"),
    "clifford_error": (+1, 1.0, "probability"),
}


@dataclass(frozen=True)
class Drift:
    """A calibration value that has become worse than its threshold allows.

    Attributes:
        step: The training step at which it was detected.
        quantity: "t1", "t2" (seconds), "readout_error", "gate_error", "two_qubit_error", "assignment_error" or
            "clifford_error" (probability).
        qubits: The qubit, or the pair.
        before: The reference value.
        now: The current value.
    """

    step: int
    quantity: str
    qubits: tuple[int, ...]
    before: float
    now: float

    def __str__(self) -> str:
        where = "-".join(map(str, self.qubits))
        return f"{self.quantity} of qubit {where} went from {self.before:.3g} to {self.now:.3g}"


def warn(drifts: Sequence[Drift]) -> None:
    """Log each drift as a warning; the default of `CalibrationWatch`."""
    for drift in drifts:
        logger.warning("calibration drift at step %d: %s", drift.step, drift)


def stop(drifts: Sequence[Drift]) -> bool:
    """Log each drift and ask the training to stop: ``CalibrationWatch(..., on_drift=stop)``."""
    warn(drifts)
    return True


class CalibrationWatch:
    """Records T1, T2, readout and gate errors of the qubits in use, and reports when they drift.

    A device changes under a long training run (Robbiati et al., "Qiboml: towards the orchestration of
    quantum-classical machine learning", section II.E.3 and Fig. 7). The record holds the published calibration, which
    takes no circuit, and the measurements of ``protocols``.

    Args:
        backend: The device; its calibration is fetched for every record if the device supports that.
        qubits: Physical qubits in use, or transpiled circuits, of which it takes the qubits and pairs.
        every: Number of steps between records.
        on_drift: Called with the list of `Drift` when there is any; if it returns True, ``should_stop``
            becomes true. The default logs a warning; `stop` ends the training; `Connection.recalibrate` in it makes
            modules transpile, and error mitigation calibrate, again.
        protocols: Additional measurements, such as `ReadoutAssignment()` and `RandomizedBenchmarking()`: one job each
            at every record, with its usage in the budget.
        sampler: Runs the protocols: ``connection.sampler``.
        thresholds: Relative change for the worse that counts as drift, by quantity ("t1", "t2": the
            fraction lost; errors: the fraction gained), over
            the defaults 0.5 and 1.0.

    Raises:
        CircuitError: The backend has no such qubit, or no calibration data.
        ParameterError: A threshold is for an unknown quantity, or ``every`` is below 1.

    Example:
        >>> from qiskit.providers.fake_provider import GenericBackendV2
        >>> watch = CalibrationWatch(GenericBackendV2(3, seed=1), [0, 1], every=10)
        >>> watch(0, loss=0.9)
        []
        >>> sorted({row["quantity"] for row in watch.record})
        ['gate_error', 'readout_error', 't1', 't2', 'two_qubit_error']
    """

    def __init__(
        self,
        backend: BackendV2,
        qubits: Iterable[int] | QuantumCircuit | Sequence[QuantumCircuit],
        *,
        every: int = 1,
        on_drift: Callable[[list[Drift]], Any] = warn,
        thresholds: Mapping[str, float] | None = None,
        protocols: Sequence[CalibrationProtocol] = (),
        sampler: Any = None,
    ) -> None:
        unknown = set(thresholds or ()) - _QUANTITIES.keys()
        if unknown:
            raise ParameterError(f"no threshold for {sorted(unknown)}; there are {', '.join(_QUANTITIES)}")
        if every < 1:
            raise ParameterError(f"every={every}; expected a number of steps, at least 1")
        if protocols:
            check_method(sampler, "sampler", "run", "a sampler", "give connection.sampler, which runs the protocols")
        self._backend, self._every, self._on_drift = backend, every, on_drift
        self._protocols, self._sampler = tuple(protocols), sampler
        self._thresholds = {name: row[1] for name, row in _QUANTITIES.items()} | dict(thresholds or {})
        self.qubits, self.pairs = _in_use(backend, qubits)
        self.record: list[dict[str, Any]] = []
        self.losses: list[tuple[int, float]] = []
        self.should_stop = False
        self._baseline: dict[tuple[str, tuple[int, ...]], float] = {}

    def __call__(self, step: int, loss: float | None = None) -> list[Drift]:
        """Record at every ``every``-th step, and return the drifts not yet reported (usually none).

        Args:
            step: The step of the training.
            loss: The loss at this step, kept for the plot.
        """
        if loss is not None:
            self.losses.append((step, float(loss)))
        if step % self._every:
            return []
        values = self._measure(step)
        drifts = [d for key, now in values.items() if (d := self._compare(step, key, now)) is not None]
        # A drift is reported once: later values are compared with the drifted one.
        self._baseline |= {(d.quantity, d.qubits): d.now for d in drifts}
        if drifts and self._on_drift(drifts) is True:
            self.should_stop = True
        return drifts

    def rebase(self) -> None:
        """Compare later values with the latest record, for instance after moving to other qubits."""
        self._baseline = {(r["quantity"], tuple(r["qubits"])): r["value"] for r in self.record}

    def state_dict(self) -> dict[str, Any]:
        """The record, the losses and the baseline of comparisons: ``checkpoint.save(step, watch=watch)``."""
        baseline = [[quantity, list(qubits), value] for (quantity, qubits), value in self._baseline.items()]
        losses = [list(point) for point in self.losses]
        return {"record": self.record, "losses": losses, "baseline": baseline, "should_stop": self.should_stop}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict`."""
        self.record = [dict(row) for row in state_dict["record"]]
        self.losses = [(int(step), float(loss)) for step, loss in state_dict["losses"]]
        self._baseline = {(quantity, tuple(qubits)): value for quantity, qubits, value in state_dict["baseline"]}
        self.should_stop = bool(state_dict["should_stop"])

    def _measure(self, step: int) -> dict[tuple[str, tuple[int, ...]], float]:
        """Read the calibration, record it as rows, and return it by quantity and qubits."""
        refresh(self._backend)
        values = dict(_calibration(self._backend.target, self.qubits, self.pairs))
        for protocol in self._protocols:
            values |= protocol.measure(self._sampler, self._backend, self.qubits)
        if not values:
            raise CircuitError(
                f"{self._backend.name} publishes no calibration of qubits {self.qubits}; watch a device, a "
                "fake device, or a simulator made from one with AerSimulator.from_backend"
            )
        self.record += [
            {"step": step, "time": time.time(), "quantity": quantity, "qubits": list(qubits), "value": value}
            for (quantity, qubits), value in values.items()
        ]
        return values

    def _compare(self, step: int, key: tuple[str, tuple[int, ...]], now: float) -> Drift | None:
        before = self._baseline.setdefault(key, now)
        sign, threshold = _QUANTITIES[key[0]][0], self._thresholds[key[0]]
        if before <= 0 or sign * (now - before) / before <= threshold:
            return None
        return Drift(step, key[0], key[1], before, now)

    def plot(self, target: Any) -> Any:
        """Draw the record beside the losses, one panel for each quantity.

        Args:
            target: A path to write the picture to, or a matplotlib figure to draw in.

        Returns:
            The figure.

        Raises:
            MissingPackage: matplotlib is not installed.
        """
        figure_class = require("matplotlib.figure", extra="viz").Figure
        figure = figure_class(figsize=(7, 9)) if isinstance(target, (str, Path)) else target
        names = [name for name in _QUANTITIES if any(row["quantity"] == name for row in self.record)]
        panels = figure.subplots(len(names) + bool(self.losses), 1, sharex=True, squeeze=False)[:, 0]
        if self.losses:
            panels[0].plot(*np.array(self.losses).T, color="black")
            panels[0].set_ylabel("loss")
        for panel, name in zip(panels[bool(self.losses) :], names, strict=True):
            self._plot_quantity(panel, name)
        panels[-1].set_xlabel("step")
        if isinstance(target, (str, Path)):
            figure.savefig(target, bbox_inches="tight")
        return figure

    def _plot_quantity(self, panel: Any, name: str) -> None:
        rows = [row for row in self.record if row["quantity"] == name]
        for qubits in sorted({tuple(row["qubits"]) for row in rows}):
            points = [(row["step"], row["value"]) for row in rows if tuple(row["qubits"]) == qubits]
            panel.plot(*np.array(points).T, marker=".", label="-".join(map(str, qubits)))
        panel.set_ylabel(f"{name}\n({_QUANTITIES[name][2]})")
        panel.legend(fontsize="x-small", ncols=4)


def _in_use(backend: BackendV2, qubits: Any) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the physical qubits, and the pairs that a two-qubit gate acts on."""
    circuits = [qubits] if isinstance(qubits, QuantumCircuit) else list(qubits)
    if circuits and isinstance(circuits[0], QuantumCircuit):
        touched = {tuple(c.find_bit(b).index for b in i.qubits) for c in circuits for i in c.data}
        chosen = sorted({q for qs in touched if len(qs) <= 2 for q in qs})
        pairs = sorted({(min(qs), max(qs)) for qs in touched if len(qs) == 2})
    else:
        chosen = sorted({int(qubit) for qubit in circuits})
        pairs = [(a, b) for a in chosen for b in chosen if a < b]
    wrong = [q for q in chosen if not 0 <= q < (backend.num_qubits or 0)]
    if wrong or not chosen:
        raise CircuitError(
            f"cannot watch qubits {wrong or chosen} of {backend.name}, which has {backend.num_qubits}; give "
            "physical qubits, or circuits that were transpiled for it"
        )
    return chosen, pairs


def _calibration(
    target: Target, qubits: Sequence[int], pairs: Sequence[tuple[int, int]]
) -> Iterable[tuple[tuple[str, tuple[int, ...]], float]]:
    properties = target.qubit_properties or []
    for qubit in qubits:
        known = properties[qubit] if qubit < len(properties) else None
        found = {
            "t1": getattr(known, "t1", None),
            "t2": getattr(known, "t2", None),
            "readout_error": _worst_error(target, (qubit,), ("measure",)),
            "gate_error": _worst_error(target, (qubit,), _gates(target, 1)),
        }
        yield from (((name, (qubit,)), float(value)) for name, value in found.items() if value is not None)
    for a, b in pairs:
        errors = [_worst_error(target, order, _gates(target, 2)) for order in ((a, b), (b, a))]
        if known_errors := [error for error in errors if error is not None]:
            yield ("two_qubit_error", (a, b)), min(known_errors)


def _gates(target: Target, width: int) -> list[str]:
    skipped = {"measure", "reset", "delay", "id"}
    names = [name for name in target.operation_names if name not in skipped]
    return [n for n in names if getattr(target.operation_from_name(n), "num_qubits", None) == width]


def _worst_error(target: Target, qubits: tuple[int, ...], names: Iterable[str]) -> float | None:
    found = [(target[name] or {}).get(qubits) for name in names if name in target.operation_names]
    errors = [entry.error for entry in found if entry is not None and entry.error is not None]
    return max(errors, default=None)
