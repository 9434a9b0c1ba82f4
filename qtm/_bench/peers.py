"""Other packages, each in its own process and, if necessary, its own Python.

The adapters live in `benchmarks/peers` of a checkout and speak JSON over stdin and stdout, as
described in `benchmarks/peers/_protocol.py`; this module is the client.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qtm._bench.workloads import Case
from qtm._errors import MissingPackage, ParameterError, QtmError
from qtm._machine import free_memory

_LOGGER = logging.getLogger("qtm")
_ADAPTERS = Path(__file__).parents[2] / "benchmarks" / "peers"
_REPOSITORY_NEEDED = (
    "the adapters of other packages are in benchmarks/peers of a checkout of qtm, not in an installed package: "
    "clone the repository and run `qtm bench` from an editable installation of it (pip install -e .), "
    "or measure qtm alone with --peers none"
)
# A peer that leaves less than this to the machine is stopped before the machine stops something else.
_LEAST_FREE = 1 << 30
_BOTH = ("double", "single")


@dataclass(frozen=True)
class Peer:
    """How a package is run.

    Attributes:
        adapter: File in `benchmarks/peers`, without `peer_` and `.py`.
        package: The module that must be importable.
        dtypes: Supported precisions, the preferred one first.
        arguments: Options of the adapter.
        gradient: The gradient method of qtm that it is compared with.
        compiles: Whether its first call compiles, which makes loading a task twice expensive.
        whole: Whether a call has a fixed cost (starting processes), so that part of a batch is not representative.
        tolerance: Largest deviation of its results, relative to the largest result; the default depends on the dtype.
        states: What it simulates: "vector", "mixed" (noise), "mps" (matrix product states), or "gpu" (vectors there).
    """

    adapter: str
    package: str
    dtypes: tuple[str, ...] = ("double",)
    arguments: tuple[str, ...] = ()
    gradient: str = "reverse"
    compiles: bool = False
    whole: bool = False
    tolerance: float | None = None
    states: str = "vector"


PEERS: dict[str, Peer] = {
    # Its connector to torch hands parameters on in single precision; its states are double.
    "qiskit-machine-learning": Peer("qiskit_machine_learning", "qiskit_machine_learning", tolerance=1e-5),
    "qiskit-machine-learning-shift": Peer(
        "qiskit_machine_learning", "qiskit_machine_learning", arguments=("--gradient", "param_shift"),
        gradient="param-shift", tolerance=1e-5,
    ),
    "qiskit-machine-learning-spsa": Peer(
        "qiskit_machine_learning", "qiskit_machine_learning", arguments=("--gradient", "spsa"), gradient="spsa",
        tolerance=1e-5,
    ),
    # The same here; and it starts processes in every call.
    "original": Peer("original", "qiskit_torch_module", whole=True, tolerance=1e-4),
    "tensorcircuit": Peer("tensorcircuit", "tensorcircuit", _BOTH, compiles=True),
    "tensorcircuit-words": Peer(
        "tensorcircuit", "tensorcircuit", _BOTH, arguments=("--values", "words"), compiles=True,
    ),
    "tensorcircuit-lightcone": Peer(
        "tensorcircuit", "tensorcircuit", _BOTH, arguments=("--values", "lightcone"), compiles=True,
    ),
    # The same program in another form: a scalar loss, differentiated by inputs and weights.
    "tensorcircuit-loss": Peer(
        "tensorcircuit", "tensorcircuit", _BOTH, arguments=("--step", "loss"), compiles=True,
    ),
    "quimb": Peer("quimb", "quimb", _BOTH, compiles=True),
    "qulacs": Peer("qulacs", "qulacs"),
    "lightning": Peer("lightning", "pennylane_lightning", _BOTH),
    "default-qubit": Peer("default_qubit", "pennylane"),
    "default-mixed": Peer("default_mixed", "pennylane", _BOTH, compiles=True, states="mixed"),
    "default-mixed-torch": Peer("default_mixed", "pennylane", arguments=("--interface", "torch"), states="mixed"),
    "tensorcircuit-mixed": Peer("tensorcircuit_mixed", "tensorcircuit", _BOTH, compiles=True, states="mixed"),
    "qulacs-mixed": Peer("qulacs_mixed", "qulacs", states="mixed"),
    "tensorcircuit-mps": Peer("tensorcircuit_mps", "tensorcircuit", states="mps", tolerance=1e-6),
    "aer-mps": Peer("aer_mps", "qiskit_aer", states="mps", tolerance=1e-6),
    "quimb-mps": Peer("quimb_mps", "quimb", states="mps", tolerance=1e-6),
    "mindquantum": Peer("mindquantum", "mindquantum", _BOTH),
    "torchquantum": Peer("torchquantum", "torchquantum", ("single",)),
    "tensorflow-quantum": Peer("tensorflow_quantum", "tensorflow_quantum", ("single",)),
    # Some of its numbers are single also where the state is double.
    "deepquantum": Peer("deepquantum", "deepquantum", _BOTH, tolerance=1e-5),
    "qiboml": Peer("qiboml", "qiboml"),
    "plain-torch-gpu": Peer("plain_torch", "torch", _BOTH, arguments=("--device", "cuda"), states="gpu"),
    "lightning-gpu": Peer(
        "lightning", "pennylane_lightning_gpu", _BOTH, arguments=("--device", "lightning.gpu"), states="gpu",
    ),
    "tensorcircuit-gpu": Peer("tensorcircuit", "jax_cuda12_plugin", _BOTH, compiles=True, states="gpu"),
    "torchquantum-gpu": Peer("torchquantum", "torchquantum", ("single",), ("--device", "cuda"), states="gpu"),
    "scaluq": Peer("scaluq", "scaluq", _BOTH),
    "pyqtorch": Peer("pyqtorch", "pyqtorch", _BOTH),
    "squlearn": Peer("squlearn", "squlearn"),
}  # fmt: skip

# For kernel matrices, in place of values and gradients.
KERNEL_PEERS: dict[str, Peer] = {
    "qiskit-machine-learning": Peer("kernel_qiskit_machine_learning", "qiskit_machine_learning"),
    "pennylane": Peer("kernel_pennylane", "pennylane"),
    "pennylane-pairs": Peer("kernel_pennylane", "pennylane", arguments=("--pairs", "--device", "lightning.qubit")),
    "squlearn": Peer("kernel_squlearn", "squlearn"),
}


class PeerFailed(QtmError):
    """A peer could not compute something; the message contains its answer."""


class CutOff(PeerFailed):
    """A peer exceeded its time limit of ``seconds``, or (then None) the available memory."""

    def __init__(self, message: str, seconds: float | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds


def adapters() -> Path:
    """The folder of the adapters.

    Raises:
        MissingPackage: qtm was installed without its repository.
    """
    if not _ADAPTERS.is_dir():
        raise MissingPackage(_REPOSITORY_NEEDED)
    return _ADAPTERS


def python_of(name: str, pythons: dict[str, str], peers: Mapping[str, Peer] = PEERS) -> str | None:
    """The interpreter for a peer: the one given for it, or this one if it has the package; None otherwise."""
    if name in pythons:
        return pythons[name]
    return sys.executable if importlib.util.find_spec(peers[name].package) is not None else None


def chosen_peers(
    named: Sequence[str], known: Iterable[str], pythons: dict[str, str], peers: Mapping[str, Peer] = PEERS
) -> list[str]:
    """Peers to measure: those that are named, else those of ``known`` that are available.

    Raises:
        MissingPackage: peers are named, and qtm was installed without its repository.
    """
    if named or pythons:
        adapters()
    elif not _ADAPTERS.is_dir():
        _LOGGER.info("only qtm is measured: the adapters of other packages are in benchmarks/peers of its repository")
        return []
    return list(named) or [name for name in known if python_of(name, pythons, peers) is not None]


def describe(case: Case) -> dict[str, Any]:
    """The neutral description of a case's circuit, made by the repository's own translator."""
    path = adapters() / "_describe.py"
    spec = importlib.util.spec_from_file_location("qtm_benchmarks_describe", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = case.model
    described: dict[str, Any] = module.describe(
        model.circuit, list(model.encoding_params), model.trainable_params, list(case.observables)
    )
    return described | ({"pauli": case.pauli} if case.pauli else {})


class PeerProcess:
    """A running adapter.

    Args:
        name: A key of ``peers``.
        python: The interpreter to run it in.
        threads: Number of threads it may use.
        arguments: Further options of the adapter.
        peers: The table that contains the peer.

    Raises:
        PeerFailed: the process does not start.
    """

    def __init__(
        self,
        name: str,
        python: str,
        threads: int,
        arguments: tuple[str, ...] = (),
        peers: Mapping[str, Peer] = PEERS,
    ) -> None:
        self.name = name
        self.peer = peers[name]
        script = adapters() / f"peer_{self.peer.adapter}.py"
        command = [python, str(script), "--threads", str(threads), *self.peer.arguments, *arguments]
        self._errors = tempfile.TemporaryFile(mode="w+", encoding="utf-8")  # noqa: SIM115 (closed in `close`)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                start_new_session=True,
            )
        except OSError as error:
            raise PeerFailed(f"{name}: {python} cannot be run ({error}); see --peer-python") from error
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.about: dict[str, Any] = self._answer(120.0)["ready"]
        except PeerFailed:
            self.close()
            raise

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def load(self, case: Case, dtype: str, samples: int | None, timeout: float) -> dict[str, Any]:
        """Make a case ready; the answer says how many of its ``samples`` will be run."""
        data = case.data
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "data.npz"
            np.savez(path, inputs=data.inputs, weights=data.weights, cotangent=data.cotangent)
            job = {"job": "load", "circuit": describe(case), "dtype": dtype, "data": str(path)}
            return self.ask(job | {"samples": samples}, timeout)

    def ask(self, job: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Send a job and wait for its answer.

        Raises:
            CutOff: no answer arrived in ``timeout`` seconds, or memory ran out; the process is ended.
            PeerFailed: the answer is an error, or the process died.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise PeerFailed(f"{self.name} has exited: {self._last_words()}") from error
        return self._answer(timeout)

    def close(self) -> None:
        """Kill the process and the workers that it started."""
        self._kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):  # a job that it did not live to read
                stream.close()

    def _kill(self) -> None:
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError):  # all have ended already
                os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.kill()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _answer(self, timeout: float) -> dict[str, Any]:
        line = self._line(timeout)
        if not line:
            raise PeerFailed(f"{self.name} has exited: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerFailed(f"{self.name}: {answer['error']}")
        return answer

    def _line(self, timeout: float) -> str:
        end = time.monotonic() + timeout
        while True:
            try:
                return self._lines.get(timeout=min(0.25, max(end - time.monotonic(), 0.0)))
            except queue.Empty:
                if free_memory() < _LEAST_FREE:
                    self._kill()
                    raise CutOff(f"{self.name} used up the memory of this machine") from None
                if time.monotonic() >= end:
                    self._kill()
                    raise CutOff(f"{self.name} did not answer within {timeout:.0f} s", timeout) from None

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1] if lines else "it printed no message"


def parse_assignments(texts: list[str], option: str, peers: Mapping[str, Peer] = PEERS) -> dict[str, str]:
    """``["qulacs=/path/python"]`` as a dictionary whose keys are peers.

    Raises:
        ParameterError: it is not of the form ``NAME=VALUE``, or the name is not a peer.
    """
    pairs = dict(text.partition("=")[::2] for text in texts)
    for name, value in pairs.items():
        if name not in peers or not value:
            raise ParameterError(
                f"{option} takes NAME=VALUE with NAME one of {', '.join(peers)}; not {name!r}={value!r}"
            )
    return pairs
