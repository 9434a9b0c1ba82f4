"""Models and trainings in a SQLite file: weights as raw numbers, circuits as received, nothing pickled."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SCHEMA = """
CREATE TABLE IF NOT EXISTS models (
    id TEXT PRIMARY KEY, request TEXT NOT NULL, weights BLOB NOT NULL, version INTEGER NOT NULL, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, model TEXT NOT NULL, status TEXT NOT NULL, epoch INTEGER NOT NULL, epochs INTEGER NOT NULL,
    loss REAL, error TEXT, created REAL NOT NULL);
"""
INTERRUPTED = "the service was stopped while it ran"


class Store:
    """The database. Every call opens its own connection, so any thread may call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_SCHEMA)
            connection.execute(
                "UPDATE jobs SET status='failed', error=? WHERE status IN ('waiting', 'running')", (INTERRUPTED,)
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, timeout=30)
        connection.row_factory = sqlite3.Row
        try:
            with connection:
                yield connection
        finally:
            connection.close()

    def add_model(self, request: dict[str, Any], weights: NDArray[np.float64]) -> str:
        """Store the request of a model and its weights (weights,); returns its id."""
        identity = uuid.uuid4().hex
        with self._open() as connection:
            connection.execute(
                "INSERT INTO models VALUES (?, ?, ?, 0, ?)",
                (identity, json.dumps(request), weights.astype("<f8").tobytes(), time.time()),
            )
        return identity

    def model(self, identity: str) -> tuple[dict[str, Any], NDArray[np.float64], int] | None:
        """Request, weights (weights,) and their version; None if the model does not exist."""
        row = self._row("SELECT request, weights, version FROM models WHERE id=?", identity)
        return row and (json.loads(row["request"]), np.frombuffer(row["weights"], "<f8").copy(), row["version"])

    def set_weights(self, identity: str, weights: NDArray[np.float64]) -> None:
        """Replace the weights (weights,) of a model."""
        with self._open() as connection:
            connection.execute(
                "UPDATE models SET weights=?, version=version+1 WHERE id=?", (weights.astype("<f8").tobytes(), identity)
            )

    def delete_model(self, identity: str) -> bool:
        """Delete a model; returns whether it existed."""
        with self._open() as connection:
            return connection.execute("DELETE FROM models WHERE id=?", (identity,)).rowcount > 0

    def count(self, table: str, where: str = "1") -> int:
        """Rows of one of the two tables."""
        with self._open() as connection:
            return int(connection.execute(f"SELECT COUNT(*) FROM {table} WHERE {where}").fetchone()[0])

    def add_job(self, model: str, epochs: int) -> str:
        """Store a waiting training; returns its id."""
        identity = uuid.uuid4().hex
        with self._open() as connection:
            connection.execute(
                "INSERT INTO jobs VALUES (?, ?, 'waiting', 0, ?, NULL, NULL, ?)", (identity, model, epochs, time.time())
            )
        return identity

    def update_job(self, identity: str, status: str, epoch: int, loss: float | None, error: str | None = None) -> None:
        """Set the status of a training: waiting, running, done or failed."""
        with self._open() as connection:
            connection.execute(
                "UPDATE jobs SET status=?, epoch=?, loss=?, error=? WHERE id=?", (status, epoch, loss, error, identity)
            )

    def job(self, identity: str) -> dict[str, Any] | None:
        """The current state of a training; None if it does not exist."""
        row = self._row("SELECT * FROM jobs WHERE id=?", identity)
        return row and dict(row)

    def _row(self, query: str, identity: str) -> Any:
        with self._open() as connection:
            return connection.execute(query, (identity,)).fetchone()
