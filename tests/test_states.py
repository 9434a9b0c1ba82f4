"""`qtm.states` beside `qiskit.quantum_info`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from qiskit.quantum_info import Statevector, partial_trace, random_statevector, state_fidelity

import qtm
from qtm import states


def samples(num_qubits: int = 4, count: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.stack([random_statevector(2**num_qubits, seed=s).data for s in range(count)]))


@pytest.mark.parametrize("qubits", [[0], [3], [0, 2], [1, 2, 3], [0, 1, 2, 3]])
def test_reduced_density_matrix_purity_and_entropy(qubits):
    psi = samples().reshape(3, 1, 16)
    rest = [q for q in range(4) if q not in qubits]
    found = states.reduced_density_matrix(psi, qubits)
    assert found.shape == (3, 1, 2 ** len(qubits), 2 ** len(qubits))
    for row, state in enumerate(psi[:, 0].numpy()):
        expected = partial_trace(Statevector(state), rest)
        np.testing.assert_allclose(found[row, 0], expected.data, atol=1e-12)
        assert states.purity(found)[row, 0].item() == pytest.approx(expected.purity().real)
        entropy = -np.log2(expected.purity().real)
        assert states.renyi_2_entropy(psi, qubits)[row, 0].item() == pytest.approx(entropy, abs=1e-12)
        assert states.renyi_2_entropy(psi, qubits, base=np.e)[row, 0].item() == pytest.approx(
            entropy * np.log(2), abs=1e-12
        )


def test_the_order_of_qubits_is_that_of_the_argument():
    psi = samples()[0]
    one, other = states.reduced_density_matrix(psi, [0, 2]), states.reduced_density_matrix(psi, [2, 0])
    swapped = [0, 2, 1, 3]
    torch.testing.assert_close(other, one[swapped][:, swapped])


@pytest.mark.parametrize("kind", [torch.complex64, torch.complex128])
def test_fidelity_and_overlap(kind):
    psi, target = samples().to(kind), random_statevector(16, seed=9)
    for given in (target, target.data, target.data.tolist(), torch.from_numpy(target.data)):
        found = states.fidelity(psi, given)
        for row, state in enumerate(psi):
            inner = np.vdot(target.data, state.numpy())
            assert states.overlap(psi, given)[row].item() == pytest.approx(inner, abs=1e-6)
            assert found[row].item() == pytest.approx(state_fidelity(Statevector(state.numpy()), target), abs=1e-6)
    torch.testing.assert_close(states.fidelity(psi, psi), torch.ones(3, dtype=psi.real.dtype))


def test_derivatives():
    psi = samples(3, 2).requires_grad_()
    target = samples(3, 3)[2]
    functions = [
        lambda p: states.reduced_density_matrix(p, [2, 0]),
        lambda p: states.purity(states.reduced_density_matrix(p, [1])),
        lambda p: states.renyi_2_entropy(p, [0, 1]),
        lambda p: states.fidelity(p, target),
        lambda p: states.overlap(p, target),
    ]
    for function in functions:
        assert torch.autograd.gradcheck(function, (psi,))
        assert torch.autograd.gradgradcheck(function, (psi,))


def test_refusals():
    psi = samples()
    for qubits in ([4], [-1], [0, 0]):
        with pytest.raises(qtm.ParameterError, match="different numbers from 0 to 3"):
            states.reduced_density_matrix(psi, qubits)
    with pytest.raises(qtm.ShapeError, match="expected \\(..., 2\\*\\*qubits\\)"):
        states.renyi_2_entropy(psi[:, :3], [0])
    with pytest.raises(qtm.DtypeError, match="complex tensor"):
        states.reduced_density_matrix(psi.real, [0])
    with pytest.raises(qtm.ShapeError, match="the target has 8 amplitudes, and the states have 16"):
        states.fidelity(psi, np.ones(8))
    with pytest.raises(qtm.ShapeError, match="\\(..., d, d\\)"):
        states.purity(torch.ones(2, 3))
    with pytest.raises(qtm.ParameterError, match="base"):
        states.renyi_2_entropy(psi, [0], base=1)
