"""The journal of a run: every job it submitted, in a file that survives the process."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtm._errors import QtmError
from qtm._primitives.job_usage import Usage

logger = logging.getLogger("qtm")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS isa (source TEXT PRIMARY KEY, circuit BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS job (
    id INTEGER PRIMARY KEY, content TEXT NOT NULL, occurrence INTEGER NOT NULL, attempt INTEGER NOT NULL,
    position INTEGER NOT NULL, state TEXT NOT NULL, job_id TEXT, created REAL NOT NULL,
    pubs INTEGER NOT NULL, circuits INTEGER NOT NULL, executions INTEGER NOT NULL, seconds REAL NOT NULL,
    error TEXT, result BLOB, UNIQUE (content, occurrence, attempt));
"""
_COLUMNS = "id, content, occurrence, attempt, state, job_id, created, error, result"

# An "intent" is written before the service is asked, so that a job accepted in the moment in which the
# process dies can still be found at the service, by its tag.
INTENT, SUBMITTED, DONE, FAILED = "intent", "submitted", "done", "failed"


@dataclass(frozen=True)
class Entry:
    """One attempt to run one job."""

    id: int
    content: str
    occurrence: int
    attempt: int
    state: str
    job_id: str | None
    created: float
    error: str | None
    result: bytes | None


class Journal:
    """The jobs of one run, keyed by their content and by how often that content was submitted before.

    Args:
        path: The file; it is created if it does not exist. None keeps the journal in memory.

    Raises:
        QtmError: The file is not a journal, or another process is using it.

    Example:
        >>> journal = Journal(None)
        >>> journal.usage().jobs
        0
    """

    def __init__(self, path: str | Path | None) -> None:
        self.path = None if path is None else Path(path)
        self._lock = threading.RLock()
        self._closed: tuple[Usage, list[dict[str, Any]]] | None = None
        self._database = self._open()
        self.run_id = self.setting("run_id") or self._new_run()
        self.epoch = 0  # how often the run was recalibrated: circuits of one epoch keep their layout
        self._position = 0
        self._past: Counter[str] = Counter()
        self._unmatched = self._replayable()

    def _open(self) -> sqlite3.Connection:
        try:
            database = sqlite3.connect(self.path or ":memory:", check_same_thread=False, timeout=1.0)
            # Exclusive: two processes that continue the same run would pay for each job twice.
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA synchronous = FULL")  # every commit is on the disk before a job is sent
            database.executescript("BEGIN IMMEDIATE;" + _SCHEMA + "COMMIT;")
        except sqlite3.Error as error:
            hint = "another process is using it" if "locked" in str(error) else "it is not a job journal"
            raise QtmError(f"cannot open the journal {str(self.path)!r}: {hint} ({error})") from error
        return database

    def _new_run(self) -> str:
        run_id = uuid.uuid4().hex
        self.set_setting("run_id", run_id)
        return run_id

    def _write(self, statement: str, *values: Any) -> int:
        with self._lock, self._open_database() as database:
            return int(database.execute(statement, values).lastrowid or 0)

    def _read(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._open_database().execute(statement, values).fetchall()

    def _open_database(self) -> sqlite3.Connection:
        if self._closed is not None:
            raise QtmError(
                "the connection is closed; run inside its `with` block, or continue with hardware.resume(...)"
            )
        return self._database

    def setting(self, name: str) -> Any:
        """Return what was stored under ``name``, or None."""
        rows = self._read("SELECT value FROM setting WHERE name = ?", name)
        return json.loads(rows[0][0]) if rows else None

    def set_setting(self, name: str, value: Any) -> None:
        """Store a JSON value under ``name``."""
        self._write("INSERT OR REPLACE INTO setting VALUES (?, ?)", name, json.dumps(value))

    def session_seconds(self) -> float:
        """Return the seconds of all sessions of this run, as far as the service has reported them."""
        rows = self._read("SELECT value FROM setting WHERE name LIKE 'session:%'")
        return sum(float(json.loads(value)) for (value,) in rows)

    def isa(self, source: str) -> bytes | None:
        """Return the transpiled circuit (QPY) that was stored for ``source``, or None."""
        rows = self._read("SELECT circuit FROM isa WHERE source = ?", source)
        return rows[0][0] if rows else None

    def set_isa(self, source: str, circuit: bytes) -> None:
        """Keep a transpiled circuit: a resumed run must not meet a later calibration's layout."""
        self._write("INSERT OR REPLACE INTO isa VALUES (?, ?)", source, circuit)

    @property
    def position(self) -> int:
        """How many jobs the run has asked for so far, replayed ones included."""
        return self._position

    def seek(self, position: int) -> None:
        """Go back to where the run had asked for ``position`` jobs: what follows is replayed."""
        with self._lock:
            rows = self._read(
                "SELECT content, COUNT(DISTINCT occurrence) FROM job WHERE position < ? GROUP BY content",
                position,
            )
            self._position, self._past = position, Counter(dict(rows))
            self._unmatched = self._replayable()

    def _replayable(self) -> set[tuple[str, int]]:
        return set(self._read("SELECT content, occurrence FROM job WHERE position >= ?", self._position))

    def peek(self, content: str, ahead: int = 0) -> Entry | None:
        """Return the entry that the next-but-``ahead`` submission of ``content`` would replay."""
        with self._lock:
            return self.latest(content, self._past[content] + ahead)

    def advance(self, content: str) -> tuple[int, int]:
        """Count one more submission of ``content``; return its occurrence and its position in the run."""
        with self._lock:
            occurrence, position = self._past[content], self._position
            self._past[content] += 1
            self._position += 1
            if (content, occurrence) in self._unmatched:
                self._unmatched.discard((content, occurrence))
            elif self._unmatched:
                logger.warning(
                    "job %d of this run is not in the journal, while %d others are: the run does not repeat "
                    "itself (unseeded random numbers? changed data or code?), so it is submitted anew",
                    position, len(self._unmatched),
                )  # fmt: skip
            return occurrence, position

    def latest(self, content: str, occurrence: int) -> Entry | None:
        """Return the last attempt at a job, or None if it was never attempted."""
        key = "content = ? AND occurrence = ? ORDER BY attempt DESC LIMIT 1"
        rows = self._read(f"SELECT {_COLUMNS} FROM job WHERE {key}", content, occurrence)
        return Entry(*rows[0]) if rows else None

    def intend(self, content: str, occurrence: int, position: int, usage: Usage) -> Entry:
        """Write that a job is about to be submitted; call this before the service is asked."""
        last = self.latest(content, occurrence)
        attempt = 0 if last is None else last.attempt + 1
        self._write(
            "INSERT INTO job (content, occurrence, attempt, position, state, created, pubs, circuits,"
            " executions, seconds) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            content, occurrence, attempt, position, INTENT, time.time(),
            usage.pubs, usage.circuits, usage.executions, usage.seconds,
        )  # fmt: skip
        entry = self.latest(content, occurrence)
        assert entry is not None
        return entry

    def tag(self, entry: Entry) -> str:
        """Return the tag under which the service knows this attempt (68 characters, unique to the run)."""
        name = f"{self.run_id}:{entry.content}:{entry.occurrence}:{entry.attempt}"
        return "qtm-" + hashlib.sha256(name.encode()).hexdigest()

    def submitted(self, entry: Entry, job_id: str) -> None:
        """Write the id that the service gave to a job."""
        self._write("UPDATE job SET state = ?, job_id = ? WHERE id = ?", SUBMITTED, job_id, entry.id)

    def done(self, entry: Entry, result: bytes, seconds: float | None) -> None:
        """Write the result of a job, and the seconds it was charged if they are known."""
        self._write(
            "UPDATE job SET state = ?, result = ?, seconds = COALESCE(?, seconds) WHERE id = ?",
            DONE, result, seconds, entry.id,
        )  # fmt: skip

    def failed(self, entry: Entry, error: str) -> None:
        """Write why a job failed; a resumed run submits it again."""
        self._write("UPDATE job SET state = ?, error = ? WHERE id = ?", FAILED, error, entry.id)

    def withdraw(self, entry: Entry) -> None:
        """Forget an entry: there is no such job, it was refused or was lost with a local process."""
        self._write("DELETE FROM job WHERE id = ?", entry.id)

    def usage(self) -> Usage:
        """Return what all jobs of the run, of every process that took part in it, have used."""
        if self._closed is not None:
            return self._closed[0]
        sums = "COUNT(*), TOTAL(pubs), TOTAL(circuits), TOTAL(executions), TOTAL(seconds)"
        (jobs, pubs, circuits, executions, seconds), = self._read(
            f"SELECT {sums} FROM job WHERE job_id IS NOT NULL"
        )  # fmt: skip
        return Usage(int(jobs), int(pubs), int(circuits), int(executions), float(seconds))

    def jobs(self) -> list[dict[str, Any]]:
        """Return every job of the run as a row (a dict), in the order of submission."""
        if self._closed is not None:
            return self._closed[1]
        names = ("job_id", "state", "created", "pubs", "circuits", "executions", "seconds", "error")
        rows = self._read(f"SELECT {', '.join(names)} FROM job ORDER BY id")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def close(self) -> None:
        """Close the file, so that another process may continue the run; what was used can still be read."""
        with self._lock:
            if self._closed is None:
                self._closed = self.usage(), self.jobs()
                self._database.close()
