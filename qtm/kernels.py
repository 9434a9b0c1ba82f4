"""Quantum kernels: similarity matrices of samples, for support vector machines and other kernel methods.

The fidelity kernel of a feature map U is ``|<0|U(y)^-1 U(x)|0>|^2``. On the exact simulator all states of a matrix are
computed in one batch, and the kernel matrix is one matrix product; on devices it is estimated by compute-uncompute
circuits. The projected kernel compares expectation values instead, by default the density matrices of single qubits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.passmanager import BasePassManager
from qiskit.primitives import BaseEstimatorV2, BaseSamplerV2
from torch import Tensor, nn

from qtm._arguments import (
    checked_choice,
    checked_flag,
    checked_int,
    checked_number,
    checked_seed,
)
from qtm._engines.registry import Method
from qtm._errors import ParameterError
from qtm._kernels.feature_maps import Features, local_paulis, read_feature_map
from qtm._kernels.losses import kernel_target_alignment, svc_loss
from qtm._kernels.matrices import Combine, blocked_matrix, fidelities, gaussian, whole_matrix
from qtm._kernels.positive import closest_psd
from qtm._kernels.progress import progress_bar
from qtm._kernels.sampled import PairSampler, with_shots
from qtm._kernels.samples import as_samples, same_samples
from qtm._kernels.training import train_kernel
from qtm._noise.aer_model import Noise
from qtm._primitives.job_usage import Usage
from qtm._torch.inputs import same_dtype

__all__ = ["QuantumKernel", "closest_psd", "kernel_target_alignment", "svc_loss", "train_kernel"]

_KINDS = ("fidelity", "projected")
_DUPLICATES = ("all", "off_diagonal", "none")


class QuantumKernel(nn.Module):
    """A kernel given by a feature map, as a torch module and for scikit-learn and qiskit-machine-learning.

    ``kernel(X, Y)`` is a differentiable tensor, ``kernel.evaluate(X, Y)`` a NumPy array, as in
    ``SVC(kernel=kernel.evaluate)``. The kernel is accepted wherever qiskit-machine-learning takes its
    ``FidelityQuantumKernel``, ``FidelityStatevectorKernel`` or one of their trainable versions (``QSVC``, ``QSVR``,
    ``PegasosQSVC``, ``QuantumKernelTrainer``).

    Args:
        feature_map: a Qiskit circuit whose parameters are the features, in the order of ``feature_map.parameters``,
            or a `ModelCircuit` or `StackedCircuit` of `qtm.circuits`, which names features and trained parameters.
        training_parameters: parameters of the circuit that are trained, not features.
        training_parameters_initial: as ``variational_params_initial`` of `QuantumModule`; None: uniformly from 0 to
            2 pi, and trainable scales of `qtm.circuits` at 1.
        seed_init: seed of the initial values.
        kind: "fidelity", the squared overlap of states, or "projected", ``exp(-gamma / 2 |f(x) - f(y)|^2)`` of
            expectation values f. With the default observables the exponent is -gamma times the sum of the squared
            Frobenius distances of the qubits' density matrices (Huang et al., Nat. Commun. 12, 2631 (2021)).
        observables: observables of a projected kernel; None: X, Y and Z on every qubit.
        gamma: inverse width of a projected kernel, above 0.
        sampler: any ``BaseSamplerV2``, for a fidelity kernel: it runs a compute-uncompute circuit for each pair of
            samples. None: the exact simulator.
        estimator: any ``BaseEstimatorV2``, for a projected kernel. None: the exact simulator.
        shots: shots for each entry of a fidelity kernel: run on the sampler (None: its own default) or, without
            one, drawn from the exact fidelities (None: exact values).
        seed: seed of shots drawn from exact fidelities.
        enforce_psd: whether `evaluate` replaces a symmetric matrix with shots or noise by the closest positive
            semidefinite one (`qtm.kernels.closest_psd`).
        evaluate_duplicates: which entries are measured, as for ``FidelityQuantumKernel``: "all"; "off_diagonal", where
            the diagonal of a symmetric matrix is 1; "none", where all entries of equal samples are 1.
        max_circuits_per_job: pairs in a job of the sampler. None: as many as 10 million executions allow.
        pass_manager: transpiles the circuits for the device, once.
        noise: an Aer ``NoiseModel`` or a backend, for a projected kernel on the exact simulator. For a fidelity
            kernel with noise, give ``sampler=qtm.FastSampler(noise=...)``.
        method: simulation method, as for `QuantumModule`.
        num_threads: threads of the simulator; 0: all cores.
        progress: True: a progress bar (needs tqdm); None: on a terminal, after two seconds, where tqdm is installed.

    Attributes:
        variational: the trained parameters, a `torch.nn.Parameter` (training parameters,).

    Raises:
        CircuitError: the feature map is not a circuit, cannot be simulated, or lacks an inverse that a sampler needs.
        ParameterError: an argument is unusable, or belongs to the other kind of kernel.
        ShapeError: no parameter is left for features.

    Example:
        >>> import numpy as np
        >>> from qiskit.circuit.library import zz_feature_map
        >>> kernel = QuantumKernel(zz_feature_map(2))
        >>> X = np.random.default_rng(0).uniform(0, 3, (5, 2))
        >>> matrix = kernel.evaluate(X)
        >>> matrix.shape, bool(np.allclose(np.diag(matrix), 1))
        ((5, 5), True)
        >>> from sklearn.svm import SVC
        >>> SVC(kernel=kernel.evaluate).fit(X, [0, 1, 0, 1, 0]).predict(X).shape
        (5,)
    """

    def __init__(
        self,
        feature_map: QuantumCircuit,
        *,
        training_parameters: Sequence[Parameter] | None = None,
        training_parameters_initial: Any = None,
        seed_init: int | None = None,
        kind: str = "fidelity",
        observables: Any = None,
        gamma: float = 1.0,
        sampler: BaseSamplerV2 | None = None,
        estimator: BaseEstimatorV2 | None = None,
        shots: int | None = None,
        seed: int | None = None,
        enforce_psd: bool = True,
        evaluate_duplicates: str = "off_diagonal",
        max_circuits_per_job: int | None = None,
        pass_manager: BasePassManager | None = None,
        noise: Noise = None,
        method: Method = "auto",
        num_threads: int = 0,
        progress: bool | None = None,
    ) -> None:
        super().__init__()
        self._kind = checked_choice(kind, "kind", _KINDS)
        _check_kind(
            kind, {"sampler": sampler, "shots": shots, "max_circuits_per_job": max_circuits_per_job},
            {"observables": observables, "estimator": estimator, "noise": noise},
        )  # fmt: skip
        self._enforce_psd = checked_flag(enforce_psd, "enforce_psd")
        self._evaluate_duplicates = checked_choice(evaluate_duplicates, "evaluate_duplicates", _DUPLICATES)
        self._progress = None if progress is None else checked_flag(progress, "progress")
        self._gamma = checked_number(gamma, "gamma", "give the inverse width, such as 1.0", above=0)
        self._shots = None if shots is None else checked_int(shots, "shots", "give the shots of an entry", least=1)
        self._random = np.random.default_rng(None if seed is None else checked_seed(seed, "seed"))
        self._map = read_feature_map(feature_map, training_parameters)
        self.variational = nn.Parameter(self._map.initial(training_parameters_initial, seed_init))
        self._is_noisy = shots is not None or sampler is not None or estimator is not None
        shared: dict[str, Any] = {
            "method": method, "num_threads_forward": num_threads, "num_threads_backward": num_threads,
        }  # fmt: skip
        self._features, self._sampled = None, None
        if sampler is not None:
            self._sampled = PairSampler(sampler, self._map, self._shots, max_circuits_per_job, pass_manager)
        elif kind == "fidelity":
            self._features = Features(self._map, outputs="state", **shared)
        else:
            self._features = Features(
                self._map, estimator=estimator, gradient="auto", pass_manager=pass_manager, noise=noise,
                observables=local_paulis(self.feature_map.num_qubits) if observables is None else observables, **shared,
            )  # fmt: skip

    # A tensor, or an array

    def forward(self, x: Any, y: Any = None) -> Tensor:
        """The kernel matrix (rows, columns) of samples ``x`` (rows, features) and ``y`` (columns, features).

        Without ``y`` the symmetric matrix of ``x`` with itself. Differentiable with respect to samples and trained
        parameters; with shots drawn from exact fidelities, the derivative is that of the exact fidelities. The dtype
        follows the trained parameters, or the samples where there are none.

        Raises:
            ShapeError: samples are not (samples, features).
            ParameterError: a value is NaN or infinite.
            OutOfMemory: the states of two samples do not fit.
            JobError: the sampler or estimator failed.
        """
        weights = self.variational
        left, _ = same_dtype(as_samples(x, self.num_features, "x"), [weights])
        right = None if y is None else same_dtype(as_samples(y, self.num_features, "y"), [weights])[0].to(left.dtype)
        if self._sampled is not None:
            return self._on_sampler(left, right)
        exact = self._exact(left, right)
        if self._shots is None:
            return exact
        drawn = with_shots(exact, self._shots, self._random, symmetric=right is None, skip=self._skipped(left, right))
        return exact + (drawn - exact).detach()

    def evaluate(self, x_vec: Any, y_vec: Any = None) -> np.ndarray:
        """The kernel matrix (rows, columns) of samples ``x_vec`` and ``y_vec`` as a NumPy array, float64.

        Computed in double precision whatever the dtype of the module. If ``y_vec`` equals ``x_vec``, the matrix is
        symmetric. A single sample (features,) counts as one row.

        Raises:
            ShapeError: samples are not (samples, features).
            ParameterError: a value is NaN or infinite.
            OutOfMemory: the states of two samples do not fit.
            JobError: the sampler or estimator failed.
        """
        left = as_samples(x_vec, self.num_features, "x_vec").detach().double()
        right = None if y_vec is None else as_samples(y_vec, self.num_features, "y_vec").detach().double()
        if right is not None and same_samples(left, right):
            right = None
        weights = {name: p.detach().double() for name, p in self.named_parameters()}
        with torch.no_grad():
            matrix: np.ndarray = torch.func.functional_call(self, weights, (left, right)).numpy()
        return closest_psd(matrix) if self._enforce_psd and right is None and self._is_noisy else matrix

    def _exact(self, left: Tensor, right: Tensor | None) -> Tensor:
        assert self._features is not None
        features = partial(self._features, self.variational)
        combine: Combine = fidelities if self._kind == "fidelity" else gaussian(self._gamma)
        tensors = (left, self.variational) if right is None else (left, right, self.variational)
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            return whole_matrix(features, combine, left, right)
        rows, columns = len(left), len(left if right is None else right)
        numbers = self._features.module.output_size * (2 if self._kind == "fidelity" else 1)
        with torch.no_grad(), progress_bar(self._progress, rows * columns, "kernel matrix") as tick:
            size = float(numbers * left.element_size())
            return blocked_matrix(features, combine, left, right, bytes_per_sample=size, tick=tick)

    def _on_sampler(self, left: Tensor, right: Tensor | None) -> Tensor:
        assert self._sampled is not None
        wanted = ~self._skipped(left, right)
        wanted = wanted.triu() if right is None else wanted  # entries of a symmetric matrix once
        with progress_bar(self._progress, int(wanted.sum()), "kernel entries") as tick:
            return self._sampled.matrix(left, right, self.variational, wanted, tick)

    def _skipped(self, left: Tensor, right: Tensor | None) -> Tensor:
        """Entries (rows, columns) that are 1 without a measurement."""
        other = left if right is None else right
        skipped = torch.zeros(len(left), len(other), dtype=torch.bool)
        if self._evaluate_duplicates == "none":
            skipped = (left.detach()[:, None] == other.detach()).all(2)
        elif self._evaluate_duplicates == "off_diagonal" and right is None:
            skipped.fill_diagonal_(True)
        return skipped

    # The interface of qiskit-machine-learning's kernels

    @property
    def feature_map(self) -> QuantumCircuit:
        """The circuit."""
        return self._map.circuit

    @property
    def num_features(self) -> int:
        """Features of a sample."""
        return len(self._map.features)

    @property
    def enforce_psd(self) -> bool:
        """Whether `evaluate` makes matrices with shots or noise positive semidefinite."""
        return self._enforce_psd

    @property
    def evaluate_duplicates(self) -> str:
        """Which entries are measured."""
        return self._evaluate_duplicates

    @property
    def training_parameters(self) -> list[Parameter]:
        """Parameters of the circuit that are trained."""
        return list(self._map.trained)

    @property
    def num_training_parameters(self) -> int:
        """Number of trained parameters."""
        return len(self._map.trained)

    @property
    def parameter_values(self) -> np.ndarray:
        """Values of the trained parameters, (training parameters,) float64."""
        values: np.ndarray = self.variational.detach().double().numpy()
        return values

    def assign_training_parameters(self, parameter_values: Mapping[Parameter, float] | Sequence[float]) -> None:
        """Set trained parameters: all of them in order, or some by a mapping.

        Raises:
            ParameterError: there is another number of values, or a parameter is not trained.
        """
        values = self.parameter_values.copy()
        if isinstance(parameter_values, Mapping):
            if unknown := [str(p) for p in parameter_values if p not in self._map.trained]:
                raise ParameterError(f"not among the training parameters: {', '.join(unknown)}")
            for parameter, value in parameter_values.items():
                values[self._map.trained.index(parameter)] = value
        else:
            if np.shape(parameter_values) != values.shape:
                shape = np.shape(parameter_values)
                raise ParameterError(
                    f"values of shape {shape} for {len(values)} training parameters; give one for each"
                )
            values[:] = parameter_values
        with torch.no_grad():
            self.variational.copy_(torch.from_numpy(values))

    @property
    def usage(self) -> Usage:
        """Usage of the sampler or estimator; the exact simulator is not counted."""
        runner = self._sampled or self._features
        assert runner is not None
        return runner.usage

    def estimate_usage(self, rows: int, columns: int | None = None) -> Usage:
        """Forecast the usage of `evaluate` for ``rows`` samples, with themselves or with ``columns`` others.

        Nothing is submitted. All samples are assumed to differ.
        """
        rows = checked_int(rows, "rows", "give the number of samples")
        others = 0 if columns is None else checked_int(columns, "columns", "give the number of samples")
        if self._sampled is None:
            assert self._features is not None
            return self._features.module.estimate_usage(rows + others) if self._is_noisy else Usage()
        diagonal = rows if self._evaluate_duplicates == "all" else 0
        pairs = rows * (rows - 1) // 2 + diagonal if columns is None else rows * others
        return self._sampled.preview(pairs)

    def extra_repr(self) -> str:
        """The kind and sizes, for ``print(kernel)``."""
        return (
            f"kind={self._kind!r}, num_features={self.num_features}, num_qubits={self.feature_map.num_qubits}, "
            f"num_training_parameters={self.num_training_parameters}"
        )


def _check_kind(kind: str, of_fidelity: Mapping[str, Any], of_projected: Mapping[str, Any]) -> None:
    """Refuse arguments that belong to the other kind of kernel."""
    wrong = of_projected if kind == "fidelity" else of_fidelity
    for name, value in wrong.items():
        if value is not None:
            other = "projected" if kind == "fidelity" else "fidelity"
            raise ParameterError(
                f"{name}= belongs to kind={other!r}, not to kind={kind!r}; leave it out or change kind"
            )
