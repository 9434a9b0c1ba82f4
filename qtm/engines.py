"""The engine protocol: how to add a simulation method.

A `SimulationMethod` compiles a `FlatCircuit` for one output; the compiled `Engine` maps gate angles to that output and
pulls cotangents back. Pass an instance wherever qtm takes ``method=``. ``tests/dense_engine.py`` is a complete example
in 80 lines; every engine passes the contract tests of ``tests/test_engine_contract.py``.
"""

from __future__ import annotations

from qtm._circuit.flatten import FlatCircuit, Preparation
from qtm._circuit.gates import Clifford, PauliRotation
from qtm._circuit.observables import Observable
from qtm._engines.engine import JVP, METRIC, SAMPLES, SECOND, VALUES, VJP, Cost, Engine, Plan, SimulationMethod
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation, Output, Probabilities, Samples, State
from qtm._engines.registry import METHODS

__all__ = [
    "JVP",
    "METHODS",
    "METRIC",
    "SAMPLES",
    "SECOND",
    "VALUES",
    "VJP",
    "Clifford",
    "Cost",
    "Engine",
    "Expectation",
    "FlatCircuit",
    "Observable",
    "Options",
    "Output",
    "PauliRotation",
    "Plan",
    "Preparation",
    "Probabilities",
    "Samples",
    "SimulationMethod",
    "State",
]
