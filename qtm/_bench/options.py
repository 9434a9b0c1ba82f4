"""The options of `qtm bench`, group by group."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtm._bench import ground_states, kernel_matrices
from qtm._bench.peers import KERNEL_PEERS, PEERS
from qtm._bench.workloads import WORKLOADS, Workload


def titled(commands: Any, name: str, title: str) -> argparse.ArgumentParser:
    """A subcommand; argparse formats its texts by ``%``, which a title may hold."""
    text = title.replace("%", "%%")
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    return command


def common(parser: argparse.ArgumentParser, repeats: int) -> None:
    parser.add_argument("--repeats", type=at_least(1), default=repeats, help=f"rounds of timing (default {repeats})")
    parser.add_argument("--quick", action="store_true", help="a short run, to check that it works")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="save here; results in FILE that are not measured again are kept"
    )


def sized(parser: argparse.ArgumentParser, workload: Workload, *, several_batches: bool = False) -> None:
    parser.add_argument("--threads", type=at_least(0), default=0, help="number of threads (default 0: all cores)")
    several: dict[str, Any] = {"nargs": "+", "dest": "batches"} if several_batches else {}
    parser.add_argument("--batch", type=at_least(1), help=f"samples (default {workload.batch})", **several)
    sizes = " ".join(map(str, workload.sizes))
    if workload.qubits:
        parser.add_argument("--qubits", type=at_least(2), help=f"default {workload.qubits}")
        parser.add_argument(f"--{workload.axis}", type=at_least(1), nargs="+", dest="sizes", help=f"default {sizes}")
    else:
        parser.add_argument("--qubits", type=at_least(2), nargs="+", dest="sizes", help=f"default {sizes}")
        parser.set_defaults(qubits=None)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="save a picture of the result here")


def comparing(parser: argparse.ArgumentParser, workload: Workload) -> None:
    sized(parser, workload)
    parser.add_argument(
        "--peers", nargs="+", metavar="NAME", choices=[*PEERS, "all", "none"],
        help=f"default: those of this list that are installed or given: {', '.join(peers_of(workload))}",
    )  # fmt: skip
    parser.add_argument("--peer-python", action="append", default=[], metavar="NAME=PATH", help="the Python of a peer")
    parser.add_argument(
        "--peer-options", action="append", default=[], metavar="NAME=OPTIONS",
        help="options of an adapter, such as original=--checkout=FOLDER",
    )  # fmt: skip
    parser.add_argument("--modes", nargs="+", choices=workload.modes, default=workload.modes, help="passes to time")
    if len(workload.gradients) > 1:
        methods = workload.gradients
        parser.add_argument("--gradients", nargs="+", choices=methods, default=methods, help="gradient methods of qtm")
    parser.add_argument("--dtypes", nargs="+", choices=("double", "single"), default=["double"], help="precisions")
    parser.add_argument("--limit", type=float, default=5.0, help="seconds; slower batches run in part and are scaled")
    parser.add_argument(
        "--patience", type=float, default=workload.patience,
        help=f"seconds; a slower call is cut off (default {workload.patience:g})",
    )  # fmt: skip
    parser.add_argument(
        "--stop", type=float, default=workload.stop,
        help="seconds; a peer whose call takes longer, or that compiles for ten times as long, is not tried on larger "
        f"sizes (default {workload.stop:g})",
    )  # fmt: skip
    if workload in (WORKLOADS["table2"], WORKLOADS["table3"]):
        parser.add_argument("--no-training", action="store_true", help="time the steps only")
        parser.add_argument("--seeds", type=at_least(1), default=10, help="trainings of the policy")
        parser.add_argument(
            "--mnist", type=Path, metavar="FOLDER", help="train on the MNIST data that torchvision downloaded to FOLDER"
        )


def comparing_kernels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=at_least(0), default=0, help="number of threads (default 0: all cores)")
    for name in ("qubits", "samples"):
        sizes = " ".join(map(str, getattr(kernel_matrices, name.upper())))
        parser.add_argument(f"--{name}", type=at_least(2), nargs="+", help=f"default {sizes}")
    parser.add_argument(
        "--peers", nargs="+", metavar="NAME", choices=[*KERNEL_PEERS, "none"],
        help=f"default: those of this list that are installed or given: {', '.join(KERNEL_PEERS)}",
    )  # fmt: skip
    parser.add_argument("--peer-python", action="append", default=[], metavar="NAME=PATH", help="the Python of a peer")
    parser.add_argument(
        "--peer-options", action="append", default=[], metavar="NAME=OPTIONS", help="options of an adapter"
    )
    parser.add_argument("--limit", type=float, default=10.0, help="seconds; a slower peer is timed on fewer samples")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds; slower calls are cut off")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="save a picture of the result here")


def training_mps(parser: argparse.ArgumentParser) -> None:
    names, ansatze = list(ground_states.TRUNCATIONS), list(ground_states.ANSATZE)
    parser.add_argument("--qubits", type=at_least(4), default=50, help="an even number (default 50)")
    parser.add_argument("--epochs", type=at_least(1), default=100, help="default 100")
    parser.add_argument("--ansatz", choices=ansatze, default=ansatze[0], help=f"default {ansatze[0]}")
    parser.add_argument("--rate", type=float, default=ground_states.RATE, help="learning rate of Adam")
    methods = ground_states.OPTIMIZERS
    parser.add_argument("--optimizer", choices=methods, default=methods[0], help=f"default {methods[0]}")
    parser.add_argument("--truncations", nargs="+", choices=names, default=names, help="truncations")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="save the errors over the epochs as a picture here")


def at_least(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least {least}")
        return int(text)

    return convert


def peers_of(workload: Workload) -> list[str]:
    """Peers of the workload: by default those that simulate its kind of states."""
    return list(workload.peers) or [name for name, peer in PEERS.items() if peer.states == workload.states]
