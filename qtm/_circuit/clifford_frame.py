"""Pauli strings as bit masks, and the Clifford frame that absorbs a circuit's Clifford gates.

A string is ``(k, x, z)`` for ``i^k X^x Z^z``, bit q of a mask standing for qubit q; on a basis state,
``i^k X^x Z^z |i> = i^k (-1)^popcount(i & z) |i ^ x>``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from qtm._circuit.gates import Clifford, PauliRotation
from qtm._circuit.gf2 import bits_of

PauliMask = tuple[int, int, int]


def multiply(a: PauliMask, b: PauliMask) -> PauliMask:
    """The product of two strings."""
    return (a[0] + b[0] + 2 * (a[2] & b[1]).bit_count()) & 3, a[1] ^ b[1], a[2] ^ b[2]


def commute(a: PauliMask, b: PauliMask) -> bool:
    """Whether two strings commute."""
    return not ((a[1] & b[2]).bit_count() ^ (a[2] & b[1]).bit_count()) & 1


class Frame:
    """The Clifford F in ``|psi> = F |phi>``: the images ``F' X F`` and ``F' Z F`` for each qubit.

    `absorb` takes only gates that keep every image of Z diagonal; `turn` takes any Clifford rotation.
    """

    def __init__(self, num_qubits: int) -> None:
        self.x: list[PauliMask] = [(0, 1 << q, 0) for q in range(num_qubits)]
        self.z: list[PauliMask] = [(0, 0, 1 << q) for q in range(num_qubits)]

    def absorb(self, gate: Clifford) -> None:
        """Let F become gate * F."""
        _ABSORB[gate.name](self, *gate.qubits)

    def turn(self, rotation: PauliRotation, quarters: int) -> None:
        """Let F become exp(-i quarters pi/4 P) * F, P being the string of the rotation.

        exp(i pi/4 P) Q exp(-i pi/4 P) is Q where P and Q commute, and -i Q P where they do not.
        """
        image = self.image(rotation)
        for _ in range(quarters % 4):
            for images in (self.x, self.z):
                for q in rotation.qubits:
                    if not commute(images[q], image):
                        images[q] = multiply((3, 0, 0), multiply(images[q], image))

    def image(self, rotation: PauliRotation) -> PauliMask:
        """F' P F of the string P of a rotation."""
        total: PauliMask = (0, 0, 0)
        for letter, q in zip(rotation.pauli, rotation.qubits, strict=True):
            total = multiply(total, self._letter(letter, q))
        return total

    def pull_back(self, k: int, x: int, z: int) -> PauliMask:
        """F' P F of the string i^k X^x Z^z."""
        total: PauliMask = (k, 0, 0)
        for images, mask in ((self.x, x), (self.z, z)):
            while mask:
                total = multiply(total, images[(mask & -mask).bit_length() - 1])
                mask &= mask - 1
        return total

    def _letter(self, letter: str, q: int) -> PauliMask:
        if letter == "X":
            return self.x[q]
        if letter == "Z":
            return self.z[q]
        return multiply(multiply((1, 0, 0), self.x[q]), self.z[q])

    def _phase(self, q: int, k: int) -> None:
        self.x[q] = multiply((k, 0, 0), multiply(self.x[q], self.z[q]))

    def _cx(self, c: int, t: int) -> None:
        self.x[c], self.z[t] = multiply(self.x[c], self.x[t]), multiply(self.z[c], self.z[t])

    def _cz(self, a: int, b: int) -> None:
        self.x[a], self.x[b] = multiply(self.x[a], self.z[b]), multiply(self.z[a], self.x[b])

    def _swap(self, a: int, b: int) -> None:
        self.x[a], self.x[b], self.z[a], self.z[b] = self.x[b], self.x[a], self.z[b], self.z[a]

    def _negate(self, images: list[PauliMask], q: int) -> None:
        k, x, z = images[q]
        images[q] = (k + 2) & 3, x, z


def act_on_basis(
    gates: Iterable[Clifford],
    states: np.ndarray,  # (states,) uint64, bit q is qubit q
) -> tuple[np.ndarray, np.ndarray]:
    """Basis states after gates that `Frame.absorb` accepts, and k (states,) of their factors i^k."""
    states, k = states.copy(), np.zeros(len(states), np.int64)
    one = np.uint64(1)
    for gate in gates:
        qubits = [np.uint64(q) for q in gate.qubits]
        bits = [states >> q & one for q in qubits]
        if gate.name == "x":
            states ^= one << qubits[0]
        elif gate.name == "cx":
            states ^= bits[0] << qubits[1]
        elif gate.name == "swap":
            differ = bits[0] ^ bits[1]
            states ^= differ << qubits[0] | differ << qubits[1]
        else:  # diagonal: the power of i where all qubits are 1
            k += _DIAGONAL[gate.name] * np.bitwise_and.reduce(bits).astype(np.int64)
    return states, k & 3


_DIAGONAL = {"z": 2, "s": 1, "sdg": 3, "cz": 2}

_ABSORB: dict[str, Callable[..., object]] = {
    "x": lambda f, q: f._negate(f.z, q),
    "z": lambda f, q: f._negate(f.x, q),
    "y": lambda f, q: (f._negate(f.x, q), f._negate(f.z, q)),
    "s": lambda f, q: f._phase(q, 3),
    "sdg": lambda f, q: f._phase(q, 1),
    "cx": Frame._cx,
    "cz": Frame._cz,
    "swap": Frame._swap,
}


def conjugate(
    frame: Frame,
    k: np.ndarray,  # (terms,)
    x: np.ndarray,  # (terms,) uint64
    z: np.ndarray,  # (terms,) uint64
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """F' P F for many strings at once: all X factors first, then all Z factors."""
    if x.dtype == object:
        return _conjugate_wide(frame, k, x, z)
    k_out = k.astype(np.int64).copy()
    x_out, z_out = np.zeros_like(x), np.zeros_like(z)
    for images, mask in ((frame.x, x), (frame.z, z)):
        for q, (kq, xq, zq) in enumerate(images):
            hit = (mask >> np.uint64(q)) & np.uint64(1) == 1
            swaps = np.bitwise_count(z_out & np.uint64(xq)).astype(np.int64)
            k_out += np.where(hit, kq + 2 * swaps, 0)
            x_out ^= np.where(hit, np.uint64(xq), np.uint64(0))
            z_out ^= np.where(hit, np.uint64(zq), np.uint64(0))
    return k_out & 3, x_out, z_out


def _conjugate_wide(
    frame: Frame, k: np.ndarray, x: np.ndarray, z: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same for masks that are Python integers: string by string, over the bits that are set."""
    out = np.empty((3, len(x)), object)
    for term, (k_term, x_term, z_term) in enumerate(zip(k, x, z, strict=True)):
        total: PauliMask = (int(k_term), 0, 0)
        for images, mask in ((frame.x, x_term), (frame.z, z_term)):
            for q in bits_of(mask):
                total = multiply(total, images[q])
        out[:, term] = total
    return out[0].astype(np.int64), out[1], out[2]
