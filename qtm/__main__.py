"""The command `qtm`: train the demo model, describe the installation, run benchmarks and services."""

from __future__ import annotations

import argparse
import importlib
import logging
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

import qtm
from qtm._commands import compare as compare_command
from qtm._commands import serve as serve_command
from qtm._demo import classifier
from qtm._engines.statevector.kernels import expectation as measure
from qtm._engines.statevector.kernels import simd
from qtm._errors import QtmError, require
from qtm._machine import available_cores, free_memory

_LOGGER = logging.getLogger("qtm")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments`` (by default those of the process) and return the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    _show_log()
    try:
        if arguments[:1] == ["bench"]:
            return _run_bench(arguments[1:])
        options = _parser().parse_args(arguments)
        return options.run(options) or 0
    except (QtmError, OSError) as error:
        print(f"qtm: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nqtm: interrupted", file=sys.stderr)
        return 130


def _show_log() -> None:
    """Show the log of the library, above all the compilation of kernels."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("qtm: %(message)s"))
    _LOGGER.handlers[:] = [handler]
    _LOGGER.setLevel(logging.INFO)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("qtm", description="Train Qiskit circuits in PyTorch.")
    parser.add_argument("--version", action="version", version=f"qtm {qtm.__version__}")
    parser.set_defaults(run=lambda _: parser.print_help())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="train a 10-qubit classifier on handwritten digits",
        description="Train a 10-qubit circuit with 220 weights on the handwritten digits of scikit-learn.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    default = classifier.Settings()
    demo.add_argument("--epochs", type=_at_least(1), default=default.epochs, help="passes over the training set")
    demo.add_argument(
        "--seed", type=_at_least(0), default=default.seed, help="seed of the split, the weights and the batches"
    )
    demo.add_argument("--threads", type=_at_least(0), default=default.threads, help="number of threads; 0: all cores")
    where = "where to compute" if len(classifier.DEVICES) > 1 else argparse.SUPPRESS  # an option only with a choice
    demo.add_argument("--device", choices=classifier.DEVICES, default=default.device, help=where)
    demo.add_argument("--out", type=Path, default=Path("qtm-demo"), metavar="FOLDER", help="folder for the results")
    demo.set_defaults(run=_run_demo)
    info = commands.add_parser(
        "info",
        help="versions, processor and kernel cache",
        description="Show the versions, processor, memory and kernel cache that a bug report needs.",
    )
    info.set_defaults(run=_run_info)
    comparison = compare_command.add_arguments(commands, _at_least)
    comparison.set_defaults(run=lambda options: compare_command.run(options, print))
    service = serve_command.add_arguments(commands, _at_least)
    service.set_defaults(run=lambda options: serve_command.run(options, print))
    commands.add_parser("bench", help="time qtm and other packages (`qtm bench --help`)")
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least {least}")
        return number

    return convert


def _run_bench(arguments: Sequence[str]) -> int:
    """Run the benchmarks, which parse their own arguments."""
    if find_spec("qtm.bench") is None:
        raise QtmError("this installation has no qtm.bench; install qtm from a checkout of its repository")
    return importlib.import_module("qtm.bench").main(arguments) or 0


def _run_demo(options: argparse.Namespace) -> None:
    progress_bar = require("tqdm", "demo").tqdm
    log_above_bar = require("tqdm.contrib.logging", "demo").logging_redirect_tqdm
    require("matplotlib", "demo")  # fail now, not after the training
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # torch only computes a softmax; its idle threads would take the circuit's cores
    began = time.perf_counter()
    model = classifier.Classifier(classifier.Settings(options.epochs, options.seed, options.threads, options.device))
    digits, module = model.digits, model.module
    print(
        f"{len(digits.images)} training digits, {len(digits.held_out_images)} held out; "
        f"{module.circuit.num_qubits} qubits, {module.num_trainable_parameters} weights, "
        f"{options.threads or available_cores()} threads"
    )
    seconds = 0.1 if sys.stderr.isatty() else 10  # a log file gets a line every ten seconds
    with (
        log_above_bar([_LOGGER]),
        progress_bar(total=model.num_steps, unit="step", desc="training", mininterval=seconds) as bar,
    ):
        for step in model.train():
            bar.set_postfix_str(_postfix(step), refresh=False)
            bar.update()
    print(_summary(model, time.perf_counter() - began))
    for path in model.save(options.out):
        print(f"wrote {path}")


def _postfix(step: classifier.Step) -> str:
    return (
        f"epoch {step.epoch + 1}, loss {step.loss:.3f}, accuracy {step.accuracy:.1%}, "
        f"held out {step.held_out_accuracy:.1%}, {1e3 * step.seconds:.1f} ms/step"
    )


def _summary(model: classifier.Classifier, seconds: float) -> str:
    accuracy, total = model.held_out_accuracy(), len(model.digits.held_out_images)
    return (
        f"held-out accuracy {accuracy:.1%} ({round(accuracy * total)} of {total} digits); {seconds:.0f} s, "
        f"median {model.history.step_milliseconds:.2f} ms per step of {classifier.BATCH} digits"
    )


def _run_info(options: argparse.Namespace) -> None:
    rows = {
        "qtm": qtm.__version__,
        **{package: version(package) for package in ("qiskit", "torch", "numpy", "numba")},
        "python": f"{platform.python_version()} on {platform.platform()}",
        "processor": _processor(),
        "vectors": f"{8 * simd.VECTOR_BYTES} bits, {simd.lanes('float64')} double or {simd.lanes('float32')} single",
        "threads": f"{available_cores()} (torch uses {torch.get_num_threads()})",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none that torch can use",
        "free memory": f"{free_memory() / 2**30:.1f} GiB",
        "kernel cache": str(measure.evaluate.stats.cache_path),
    }
    for name, value in rows.items():
        print(f"{name:<14}{value}")


def _processor() -> str:
    """The processor model; Linux gives it only in a file."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


if __name__ == "__main__":
    sys.exit(main())
