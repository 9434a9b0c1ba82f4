"""Matrix product states: a simulation method for many qubits and little entanglement."""
