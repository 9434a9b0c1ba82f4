"""Primitives, the gate table as data, and the parameter-shift rules of its parameters.

A gate name is looked up in ``GATES``; its row lists the gate's Clifford gates and Pauli rotations on local qubit and
parameter numbers, in time order, and its global phase. ``qtm._circuit.flatten.flatten`` turns a whole circuit into
primitives on circuit qubits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import pi

import numpy as np


@dataclass(frozen=True, slots=True)
class Clifford:
    """A Clifford gate for the frame: one of x, z, s, sdg, cx, cz, swap."""

    name: str
    qubits: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PauliRotation:
    """exp(-i a/2 P) with a = offset + sum of coefficient * angle[index] over ``terms``, in radians.

    Character j of ``pauli`` (X, Y or Z, never I) acts on ``qubits[j]``.
    """

    pauli: str
    qubits: tuple[int, ...]
    terms: tuple[tuple[int, float], ...] = ()
    offset: float = 0.0


Primitive = Clifford | PauliRotation


@dataclass(frozen=True, slots=True)
class ShiftRule:
    """An expectation value as a function of one gate angle: a Fourier sum with these frequencies.

    The derivative is then exactly ``sum(c * f(angle + s) for c, s in rule.terms)``.

    Example:
        >>> [(round(c, 3), round(s, 3)) for c, s in ShiftRule((1.0,)).terms]
        [(0.5, 1.571), (-0.5, -1.571)]
    """

    frequencies: tuple[float, ...]

    @property
    def terms(self) -> tuple[tuple[float, float], ...]:
        """Pairs (coefficient, shift in radians), two for every frequency."""
        return _shift_terms(self.frequencies)


@lru_cache(maxsize=1024)
def _shift_terms(frequencies: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    """Solve for the coefficients at the shifts of Wierichs et al., Quantum 6, 677 (2022), section 3.

    f(s) - f(-s) = 2 sum_w b_w sin(w s) and f'(0) = sum_w w b_w, hence 2 sum_r c_r sin(w s_r) = w for every
    frequency w. With equidistant frequencies this gives the paper's closed form (two frequencies: the
    four-term rule of Anselmetti et al., New J. Phys. 23, 113010 (2021)); with others it is still exact.
    """
    w = np.asarray(frequencies)  # (frequencies,)
    count = len(w)
    shifts = (2 * np.arange(1, count + 1) - 1) * pi / (2 * w.max())
    coefficients = np.linalg.solve(2 * np.sin(np.outer(w, shifts)), w)
    plus = zip(coefficients.tolist(), shifts.tolist(), strict=True)
    return tuple(term for c, s in plus for term in ((c, s), (-c, -s)))


@dataclass(frozen=True, slots=True)
class GateRow:
    """One gate: its primitives in time order, and the shift rule of each of its parameters.

    The gate is exp(i phase) times its primitives: ``phase`` lists a constant and a coefficient of each parameter,
    in radians; empty where it is 0.
    """

    sequence: tuple[Primitive, ...] = ()
    shifts: tuple[ShiftRule, ...] = ()
    phase: tuple[float, ...] = ()


# A generator with two eigenvalues (rotations; projectors as in cp): one frequency, the two-term rule.
TWO_TERM = ShiftRule((1.0,))
# Eigenvalues -1/2, 0, 1/2 (controlled rotations): the four-term rule.
FOUR_TERM = ShiftRule((0.5, 1.0))
# An angle that enters as V(phi) ... V(-phi): matrix elements exp(+-i phi), so their products reach 2 phi.
CONJUGATING = ShiftRule((1.0, 2.0))


def _by(pauli: str, qubits: tuple[int, ...], coefficient: float = 1.0, parameter: int = 0) -> PauliRotation:
    return PauliRotation(pauli, qubits, ((parameter, coefficient),))


def _at(pauli: str, qubits: tuple[int, ...], angle: float) -> PauliRotation:
    return PauliRotation(pauli, qubits, (), angle)


def _c(name: str, *qubits: int) -> Clifford:
    return Clifford(name, qubits)


_Q, _T, _CT = (0,), (1,), (0, 1)  # the qubit of a one-qubit gate; target; control and target


def _hadamard(qubit: int) -> tuple[Primitive, ...]:
    return (_c("z", qubit), _at("Y", (qubit,), pi / 2))


def _controlled_phase(angle: float) -> tuple[Primitive, ...]:
    # exp(i a |11><11|) with |11><11| = (1 - Z0 - Z1 + Z0 Z1) / 4
    return (_at("Z", _Q, angle / 2), _at("Z", _T, angle / 2), _at("ZZ", _CT, -angle / 2))


def _ccz() -> tuple[Primitive, ...]:
    # exp(i pi |111><111|): the product of three projectors (1 - Z) / 2, expanded
    subsets = ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))
    return tuple(_at("Z" * len(s), s, pi / 4 if len(s) % 2 else -pi / 4) for s in subsets)


def _ccx(target: int) -> tuple[Primitive, ...]:
    return (*_hadamard(target), *_ccz(), *_hadamard(target))


def _controlled_rotation(axis: str) -> GateRow:
    # exp(-i a/2 |1><1| P) with |1><1| = (1 - Z) / 2
    return GateRow((_by(axis, _T, 0.5), _by("Z" + axis, _CT, -0.5)), (FOUR_TERM,))


def _rotation(pauli: str) -> GateRow:
    return GateRow((_by(pauli, tuple(range(len(pauli)))),), (TWO_TERM,))


def _u(theta: int, phi: int, lam: int) -> tuple[Primitive, ...]:
    return (_by("Z", _Q, 1, lam), _by("Y", _Q, 1, theta), _by("Z", _Q, 1, phi))


def _cu(*control_phase: tuple[int, float]) -> tuple[Primitive, ...]:
    # Barenco et al., Phys. Rev. A 52, 3457 (1995), lemma 5.1: the target's run between two CX is one block
    return (
        PauliRotation("Z", _Q, (*control_phase, (1, 0.5), (2, 0.5))),
        PauliRotation("Z", _T, ((1, -0.5), (2, 0.5))),
        _c("cx", 0, 1),
        PauliRotation("Z", _T, ((1, -0.5), (2, -0.5))),
        _by("Y", _T, -0.5),
        _c("cx", 0, 1),
        _by("Y", _T, 0.5),
        _by("Z", _T, 1, 1),
    )


def _exchange(sign: float, qubit: int, beta: float) -> GateRow:
    """XX + YY (sign 1) or XX - YY (sign -1), turned by ``beta`` times the second parameter about Z."""
    turn, back = _by("Z", (qubit,), beta, 1), _by("Z", (qubit,), -beta, 1)
    middle = (_by("XX", _CT, 0.5), _by("YY", _CT, 0.5 * sign))
    return GateRow((turn, *middle, back), (FOUR_TERM, CONJUGATING))


_U_ROW = GateRow(_u(0, 1, 2), (TWO_TERM,) * 3, (0, 0, 0.5, 0.5))
_PHASE = GateRow((_by("Z", _Q),), (TWO_TERM,), (0, 0.5))
_CONTROLLED_PHASE = GateRow((_by("Z", _Q, 0.5), _by("Z", _T, 0.5), _by("ZZ", _CT, -0.5)), (TWO_TERM,), (0, 0.25))

GATES: dict[str, GateRow] = {
    "id": GateRow(),
    "delay": GateRow(),
    "global_phase": GateRow(phase=(0, 1)),
    "x": GateRow((_c("x", 0),)),
    "y": GateRow((_c("z", 0), _c("x", 0)), phase=(pi / 2,)),
    "z": GateRow((_c("z", 0),)),
    "s": GateRow((_c("s", 0),)),
    "sdg": GateRow((_c("sdg", 0),)),
    "h": GateRow(_hadamard(0)),
    "t": GateRow((_at("Z", _Q, pi / 4),), phase=(pi / 8,)),
    "tdg": GateRow((_at("Z", _Q, -pi / 4),), phase=(-pi / 8,)),
    "sx": GateRow((_at("X", _Q, pi / 2),), phase=(pi / 4,)),
    "sxdg": GateRow((_at("X", _Q, -pi / 2),), phase=(-pi / 4,)),
    "rx": _rotation("X"),
    "ry": _rotation("Y"),
    "rz": _rotation("Z"),
    "p": _PHASE,
    "u1": _PHASE,
    "r": GateRow((_by("Z", _Q, -1, 1), _by("X", _Q), _by("Z", _Q, 1, 1)), (TWO_TERM, CONJUGATING)),
    "u": _U_ROW,
    "u3": _U_ROW,
    "u2": GateRow((_by("Z", _Q, 1, 1), _at("Y", _Q, pi / 2), _by("Z", _Q, 1, 0)), (TWO_TERM,) * 2, (0, 0.5, 0.5)),
    "cx": GateRow((_c("cx", 0, 1),)),
    "cy": GateRow((_c("sdg", 1), _c("cx", 0, 1), _c("s", 1))),
    "cz": GateRow((_c("cz", 0, 1),)),
    "swap": GateRow((_c("swap", 0, 1),)),
    "dcx": GateRow((_c("cx", 0, 1), _c("cx", 1, 0))),
    "iswap": GateRow((_c("s", 0), _c("s", 1), _c("cz", 0, 1), _c("swap", 0, 1))),
    "ecr": GateRow((_at("ZX", _CT, pi / 2), _c("x", 0))),
    "ch": GateRow((_at("Y", _T, -pi / 4), _c("cz", 0, 1), _at("Y", _T, pi / 4))),
    "cs": GateRow(_controlled_phase(pi / 2), phase=(pi / 8,)),
    "csdg": GateRow(_controlled_phase(-pi / 2), phase=(-pi / 8,)),
    "csx": GateRow((_at("Z", _Q, pi / 4), _at("X", _T, pi / 4), _at("ZX", _CT, -pi / 4)), phase=(pi / 8,)),
    "crx": _controlled_rotation("X"),
    "cry": _controlled_rotation("Y"),
    "crz": _controlled_rotation("Z"),
    "cp": _CONTROLLED_PHASE,
    "cu1": _CONTROLLED_PHASE,
    "cu": GateRow(_cu((3, 1.0)), (FOUR_TERM, TWO_TERM, TWO_TERM, TWO_TERM), (0, 0, 0.25, 0.25, 0.5)),
    "cu3": GateRow(_cu(), (FOUR_TERM, TWO_TERM, TWO_TERM), (0, 0, 0.25, 0.25)),
    "rxx": _rotation("XX"),
    "ryy": _rotation("YY"),
    "rzz": _rotation("ZZ"),
    "rzx": _rotation("ZX"),
    "xx_plus_yy": _exchange(1.0, 0, 1.0),
    "xx_minus_yy": _exchange(-1.0, 1, -1.0),
    "ccx": GateRow(_ccx(2), phase=(pi / 8,)),
    "ccz": GateRow(_ccz(), phase=(pi / 8,)),
    "cswap": GateRow((_c("cx", 2, 1), *_ccx(2), _c("cx", 2, 1)), phase=(pi / 8,)),
}


def pauli_row(pauli: str, coefficient: float) -> GateRow:
    """The row of exp(-i t coefficient P) with parameter t; identities in ``pauli`` are left out."""
    acting = tuple(j for j, letter in enumerate(pauli) if letter != "I")
    if not acting or coefficient == 0.0:
        return GateRow(phase=(0, -coefficient)) if coefficient else GateRow()
    letters = "".join(pauli[j] for j in acting)
    return GateRow((_by(letters, acting, 2 * coefficient),), (ShiftRule((2 * abs(coefficient),)),))
