"""The journal of a run: all its jobs, in a file that survives the process."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from qtm._errors import QtmError
from qtm._primitives.job_usage import Usage

logger = logging.getLogger("qtm")

_SCHEMA = """
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL, checksum BLOB NOT NULL);
CREATE TABLE isa (source TEXT PRIMARY KEY, circuit BLOB NOT NULL, checksum BLOB NOT NULL);
CREATE TABLE job (
    id INTEGER PRIMARY KEY, content TEXT NOT NULL, occurrence INTEGER NOT NULL, attempt INTEGER NOT NULL,
    position INTEGER NOT NULL, state TEXT NOT NULL, job_id TEXT, created REAL NOT NULL,
    pubs INTEGER NOT NULL, circuits INTEGER NOT NULL, executions INTEGER NOT NULL, seconds REAL NOT NULL,
    error TEXT, result BLOB, checksum BLOB NOT NULL, UNIQUE (content, occurrence, attempt));
"""
_VERSION = 2  # of the tables; 1 had no checksums
# The columns that a checksum covers: SQLite does not detect a changed byte within a value.
_JOB = (
    "content", "occurrence", "attempt", "position", "state", "job_id", "created",
    "pubs", "circuits", "executions", "seconds", "error", "result",
)  # fmt: skip
_CHECKED: dict[str, tuple[str, ...]] = {"setting": ("name", "value"), "isa": ("source", "circuit"), "job": _JOB}
_COLUMNS = "id, content, occurrence, attempt, state, job_id, created, error, result"

_DAMAGED = (
    "it is damaged, or is not a job journal. Restore it from a backup, or begin a run with another file; jobs of the "
    "old run are still at the service"
)

# An "intent" is written before the submission, so that a job accepted just before the process dies can be found at the
# service by its tag.
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


class Kept(Protocol):
    """A part of a run whose state determines later jobs, such as the maps of error mitigation."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...

    def forget(self) -> None: ...


class Journal:
    """The jobs of one run, keyed by their content and by the number of earlier submissions of the same content.

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
        try:
            self.run_id = self.setting("run_id") or self._new_run()
        except BaseException:
            self._database.close()
            raise
        self.epoch = 0  # number of recalibrations: circuits of one epoch keep their layout
        self._position = 0
        self._past: Counter[str] = Counter()
        self._unmatched = self._replayable()
        self._parts: list[tuple[str, Kept]] = []
        self._saved: list[list[Any]] = []  # states of a checkpoint, including parts created after it was loaded

    def _open(self) -> sqlite3.Connection:
        database: sqlite3.Connection | None = None
        try:
            database = sqlite3.connect(self.path or ":memory:", check_same_thread=False, timeout=1.0)
            # Exclusive: two processes that continue the same run would pay for each job twice.
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA synchronous = FULL")  # every commit is on the disk before a job is sent
            self._prepare(database)
        except BaseException as error:
            if database is not None:
                database.close()  # otherwise the file stays locked as long as the error object exists
            if not isinstance(error, (sqlite3.Error, ValueError, OverflowError)) or isinstance(error, QtmError):
                raise
            hint = "another process is using it" if "locked" in str(error) else _DAMAGED
            raise QtmError(f"cannot open the journal {str(self.path)!r} ({error}): {hint}") from error
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        """Lock the file; create the tables of a new one, check those of an old one."""
        database.execute("BEGIN IMMEDIATE")
        ((tables,),) = database.execute("SELECT COUNT(*) FROM sqlite_master").fetchall()
        database.execute("COMMIT")  # the lock stays
        if not tables:
            database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
            return
        ((version,),) = database.execute("PRAGMA user_version").fetchall()
        if version != _VERSION:
            raise QtmError(
                f"{str(self.path)!r} is not a job journal of this version of qtm (its version is {version}, expected "
                f"{_VERSION}); continue the run with the version that began it, or name another file"
            )
        ((verdict, *_), *_) = database.execute("PRAGMA integrity_check").fetchall()
        damaged = [verdict] if verdict != "ok" else [name for name in _CHECKED if _is_changed(database, name)]
        if damaged:
            raise QtmError(f"the journal {str(self.path)!r} was changed from outside ({damaged[0]}): {_DAMAGED}")

    def _new_run(self) -> str:
        run_id = uuid.uuid4().hex
        self.set_setting("run_id", run_id)
        return run_id

    def _write(self, statement: str, *values: Any) -> None:
        try:
            with self._lock, self._open_database() as database:
                database.execute(statement, values)
        except sqlite3.Error as error:
            raise QtmError(
                f"cannot write to the journal {str(self.path)!r} ({error}). What it holds is kept: free some space on "
                "the disk, or repair it, and continue with hardware.resume(journal); a job that was submitted in this "
                "moment is found at the service, and nothing is paid twice"
            ) from error

    def _read(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._open_database().execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise QtmError(f"cannot read the journal {str(self.path)!r} ({error}): {_DAMAGED}") from error

    def _insert(self, table: str, *values: Any) -> None:
        """Write a row, with its checksum, in place of one with the same key."""
        columns = (*_CHECKED[table], "checksum")
        places = ", ".join("?" * len(columns))
        self._write(
            f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES ({places})", *values, _checksum(values)
        )

    def _change(self, entry: Entry, **changes: Any) -> None:
        """Write new values of a job, and the checksum of the whole row."""
        with self._lock:
            (row,) = self._read(f"SELECT {', '.join(_JOB)} FROM job WHERE id = ?", entry.id)
            values = dict(zip(_JOB, row, strict=True)) | changes
            names = ", ".join(f"{name} = ?" for name in (*changes, "checksum"))
            checksum = _checksum(values.values())
            self._write(f"UPDATE job SET {names} WHERE id = ?", *changes.values(), checksum, entry.id)

    def _open_database(self) -> sqlite3.Connection:
        if self._closed is not None:
            raise QtmError(
                "the connection is closed; run inside its `with` block, or continue with hardware.resume(...)"
            )
        return self._database

    def setting(self, name: str) -> Any:
        """Return the value stored under ``name``, or None."""
        rows = self._read("SELECT value FROM setting WHERE name = ?", name)
        return json.loads(rows[0][0]) if rows else None

    def set_setting(self, name: str, value: Any) -> None:
        """Store a JSON value under ``name``."""
        self._insert("setting", name, json.dumps(value))

    def session_seconds(self) -> float:
        """Return the seconds of all sessions of this run, as far as the service has reported them."""
        rows = self._read("SELECT value FROM setting WHERE name LIKE 'session:%'")
        return sum(float(json.loads(value)) for (value,) in rows)

    def isa(self, source: str) -> bytes | None:
        """Return the transpiled circuit (QPY) that was stored for ``source``, or None."""
        rows = self._read("SELECT circuit FROM isa WHERE source = ?", source)
        return rows[0][0] if rows else None

    def set_isa(self, source: str, circuit: bytes) -> None:
        """Store a transpiled circuit: a resumed run must not use the layout of a later calibration."""
        self._insert("isa", source, circuit)

    def keep(self, name: str, part: Kept) -> None:
        """Save the state of a part in checkpoints; a resumed run restores it to the part of the same number.

        Before the first checkpoint this is the initial state of the run, such as a seed that was drawn.

        Raises:
            QtmError: The run had a different part at this position.
        """
        with self._lock:
            self._parts.append((name, part))
            number = len(self._parts) - 1
            if self.setting(f"part:{number}") is None:
                self.set_setting(f"part:{number}", [name, part.state_dict()])
            else:
                self._restore_part(number)

    def states(self) -> list[list[Any]]:
        """Name and state of every part, for a checkpoint."""
        return [[name, part.state_dict()] for name, part in self._parts]

    def restore(self, states: list[list[Any]]) -> None:
        """Restore the states of a checkpoint; parts that are not in it keep their initial state."""
        with self._lock:
            self._saved = states
            for number in range(len(self._parts)):
                self._restore_part(number)

    def _restore_part(self, number: int) -> None:
        name, part = self._parts[number]
        known = number < len(self._saved)
        saved_name, state = self._saved[number] if known else self.setting(f"part:{number}")
        if saved_name != name:
            raise QtmError(
                f"the run's error mitigation number {number} was {saved_name!r} and is now {name!r}; make the "
                "same mitigated estimators in the same order as the run did"
            )
        part.load_state_dict(state)

    def forget(self) -> None:
        """Discard the parts' measurements of the device, so that they are repeated."""
        for _, part in self._parts:
            part.forget()

    @property
    def position(self) -> int:
        """Number of jobs submitted or replayed so far."""
        return self._position

    def seek(self, position: int) -> None:
        """Rewind to the point after ``position`` jobs; later submissions are replayed."""
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
        """Record that a job is about to be submitted; call this before contacting the service."""
        last = self.latest(content, occurrence)
        attempt = 0 if last is None else last.attempt + 1
        self._insert(
            "job", content, occurrence, attempt, position, INTENT, None, time.time(),
            usage.pubs, usage.circuits, usage.executions, float(usage.seconds), None, None,
        )  # fmt: skip
        entry = self.latest(content, occurrence)
        assert entry is not None
        return entry

    def tag(self, entry: Entry) -> str:
        """Return the tag of this attempt at the service (68 characters, unique to the run)."""
        name = f"{self.run_id}:{entry.content}:{entry.occurrence}:{entry.attempt}"
        return "qtm-" + hashlib.sha256(name.encode()).hexdigest()

    @property
    def run_tag(self) -> str:
        """The tag that all jobs of the run carry at the service."""
        return run_tag(self.run_id)

    def submitted(self, entry: Entry, job_id: str) -> None:
        """Record the id that the service assigned to a job."""
        self._change(entry, state=SUBMITTED, job_id=job_id)

    def done(self, entry: Entry, result: bytes, seconds: float | None) -> None:
        """Record the result of a job, and the seconds charged for it if they are known."""
        charged = {} if seconds is None else {"seconds": float(seconds)}
        self._change(entry, state=DONE, result=result, **charged)

    def failed(self, entry: Entry, error: str) -> None:
        """Record why a job failed; a resumed run submits it again."""
        self._change(entry, state=FAILED, error=error)

    def withdraw(self, entry: Entry) -> None:
        """Delete an entry: its job was rejected, or was lost with a local process."""
        self._write("DELETE FROM job WHERE id = ?", entry.id)

    def usage(self) -> Usage:
        """Return the usage of all jobs of the run, in all its processes.

        Seconds are those of the jobs, or the wall-clock time of the sessions, which is billed, if that is more.
        """
        if self._closed is not None:
            return self._closed[0]
        sums = "COUNT(*), TOTAL(pubs), TOTAL(circuits), TOTAL(executions), TOTAL(seconds)"
        (jobs, pubs, circuits, executions, seconds), = self._read(
            f"SELECT {sums} FROM job WHERE job_id IS NOT NULL"
        )  # fmt: skip
        seconds = max(float(seconds), self.session_seconds())
        return Usage(int(jobs), int(pubs), int(circuits), int(executions), seconds)

    def jobs(self) -> list[dict[str, Any]]:
        """Return every job of the run as a row (a dict), in the order of submission."""
        if self._closed is not None:
            return self._closed[1]
        names = ("job_id", "state", "created", "pubs", "circuits", "executions", "seconds", "error")
        rows = self._read(f"SELECT {', '.join(names)} FROM job ORDER BY id")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def close(self) -> None:
        """Close the file, so that another process can continue the run; usage and jobs can still be read."""
        with self._lock:
            if self._closed is not None:
                return
            try:
                self._closed = self.usage(), self.jobs()
            except QtmError as error:
                logger.warning("%s", error)
                self._closed = Usage(), []
            finally:
                self._database.close()


def run_tag(run_id: str) -> str:
    """Return the tag of all jobs of a run."""
    return f"qtm-run-{run_id}"


def _checksum(values: Iterable[Any]) -> bytes:
    digest = hashlib.sha256()
    for value in values:
        part = value if isinstance(value, bytes) else repr(value).encode()
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


def _is_changed(database: sqlite3.Connection, table: str) -> bool:
    rows = database.execute(f"SELECT {', '.join(_CHECKED[table])}, checksum FROM {table}")
    return any(_checksum(values) != checksum for *values, checksum in rows)
