"""The command `qtm serve`."""

from __future__ import annotations

import argparse
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtm._errors import require
from qtm._serve.limits import Limits

TOKEN = "QTM_SERVE_TOKEN"
_LIMITS = {
    "qubits": "largest number of qubits",
    "depth": "largest depth",
    "batch": "most samples",
    "seconds": "longest time in seconds",
}


def add_arguments(commands: Any, at_least: Callable[[int], Callable[[str], int]]) -> argparse.ArgumentParser:
    """Add `serve` to the commands of `qtm`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "serve",
        help="serve models over HTTP",
        description="Serve models over HTTP: create them from circuits, predict, differentiate, train. The token that "
        f"requests have to carry is that of the environment variable {TOKEN}; without it one is generated and shown.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=at_least(0), default=8000, help="port to listen on")
    parser.add_argument("--database", type=Path, default=Path("qtm-serve.sqlite"), help="SQLite file of the models")
    for name, what in _LIMITS.items():
        parser.add_argument(
            f"--{name}", type=at_least(1), default=int(getattr(Limits(), name)), help=f"{what} of a request"
        )
    return parser


def run(options: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Serve until interrupted."""
    uvicorn = require("uvicorn", "serve")
    from qtm._serve.app import create_app

    token = os.environ.get(TOKEN) or secrets.token_urlsafe(24)
    if TOKEN not in os.environ:
        say(f"token: {token}")
    limits = Limits(**{name: getattr(options, name) for name in _LIMITS})
    uvicorn.run(create_app(options.database, token, limits), host=options.host, port=options.port, log_level="warning")
