"""`qtm bench`: time qtm, compare it with the peak of the machine and with other packages.

`qtm bench core` compares the kernels with the peak of the machine. The other benchmarks reproduce a figure or table of
[1] or [2] beside every available peer: a package of this environment, or of another one given with
`--peer-python NAME=PATH`. A peer's outputs are checked against qtm's before its time counts.

[1] N. Meyer et al., Qiskit-Torch-Module: Fast Prototyping of Quantum Neural Networks, arXiv:2404.06314.
[2] M. Robbiati et al., Qiboml: towards the orchestration of quantum-classical machine learning (2025).
"""

from __future__ import annotations

import argparse
import logging
import shlex
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from qtm._bench import gpu, ground_states, kernel_matrices, kernels, noise, second, training
from qtm._bench.compare import Row, Settings, alone, beside, now
from qtm._bench.options import common, comparing, comparing_kernels, peers_of, sized, titled, training_mps
from qtm._bench.peers import KERNEL_PEERS, chosen_peers, parse_assignments
from qtm._bench.report import Report, comparison_table, core_table, ground_state_lines, show, training_lines
from qtm._bench.tables import write_tables
from qtm._bench.timing import alternate
from qtm._bench.workloads import WORKLOADS, Case, QtmRunner, Workload
from qtm._errors import ParameterError, require
from qtm._executors import resolve_threads

logger = logging.getLogger("qtm")

_MOST_EPISODES = 1500
_THREADS_TITLE = "Fig. 4 of [1]: threads over one thread, re-uploading circuit of depth 3"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``qtm bench`` with these arguments (by default those of the process) and return the exit status.

    Raises:
        QtmError: an option is wrong, or something is missing; the message says what to do.
    """
    arguments = sys.argv[2:] if arguments is None else list(arguments)
    options = _parser().parse_args(arguments)
    options.command = _command(arguments)
    status: int = options.run(options)
    return status


def _command(arguments: Sequence[str]) -> str:
    """The command for publication, without paths of this machine."""
    words, own = ["qtm", "bench"], {"--json", "--plot", "--peer-python", "--peer-options", "--mnist"}
    for before, word in zip(["", *arguments], arguments, strict=False):
        if not own & {before, word, word.partition("=")[0]}:
            words.append(word)
    return shlex.join(words)


# --- The command line -------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "qtm bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(title="benchmarks", metavar="NAME", required=True)
    core = commands.add_parser("core", help="kernels against the peak of the machine, and the overhead around them")
    common(core, repeats=15)
    core.set_defaults(run=_run_core)
    for name, workload in WORKLOADS.items():
        command = titled(commands, name, workload.title)
        common(command, repeats=7)
        comparing(command, workload)
        command.set_defaults(run=_run_comparison, name=name)
    threads = titled(commands, "threads", _THREADS_TITLE)
    common(threads, repeats=15)
    sized(threads, WORKLOADS["fig1"], several_batches=True)
    threads.set_defaults(run=_run_threads)
    second_order = titled(commands, "second", second.TITLE)
    common(second_order, repeats=7)
    sized(second_order, WORKLOADS["fig1"])
    second_order.add_argument(
        "--dtypes", nargs="+", choices=("double", "single"), default=["double"], help="precisions"
    )
    second_order.set_defaults(run=_run_second)
    mps = titled(commands, "mps", ground_states.TITLE)
    common(mps, repeats=10)
    training_mps(mps)
    mps.set_defaults(run=_run_mps)
    kernel = titled(commands, "kernel", kernel_matrices.TITLE)
    common(kernel, repeats=7)
    comparing_kernels(kernel)
    kernel.set_defaults(run=_run_kernel)
    on_gpu = titled(commands, "gpu", "steps on a GPU, beside the CPU and other packages on the same GPU")
    common(on_gpu, repeats=7)
    gpu.add_options(on_gpu)
    on_gpu.set_defaults(run=_run_gpu)
    tables = commands.add_parser("tables", help="fill the tables of the documents from the JSON files")
    tables.add_argument("--check", action="store_true", help="change nothing; fail if a table differs from the results")
    tables.set_defaults(run=_run_tables)
    return parser


# --- Benchmarks -------------------------------------------------------------------------------------------------


def _run_core(options: argparse.Namespace) -> int:
    title = "Kernels against the peak of the machine"
    head = {"title": title, "axis": "", "commands": [options.command], "threads": 0}
    results = Report("core", options.json, head)
    sizes = kernels.QUICK if options.quick else kernels.Sizes()
    with _progress("core") as bar:
        for figure in kernels.measure(sizes, 5 if options.quick else options.repeats):
            results.add({**figure.as_dict(), "measured": now()})
            bar.set_postfix_str(figure.what)
            bar.update()
    print(show(title, *core_table(results.content)))
    return 0


def _run_comparison(options: argparse.Namespace) -> int:
    workload = WORKLOADS[options.name]
    gradients = tuple(getattr(options, "gradients", workload.gradients))
    workload = replace(workload, modes=tuple(options.modes), gradients=gradients)
    settings = _settings(options)
    sizes = options.sizes or (workload.quick if options.quick else workload.sizes)
    report = _report(options.name, workload, options, settings)
    torch.set_num_threads(settings.threads)
    peers = _chosen(options, workload, settings)
    with _progress(options.name) as bar:
        done = _recorder(report, bar)
        alone(workload, sizes, settings, done)
        if workload.pauli:
            _noisy_rows(workload, sizes, settings, done)
        for peer in peers:
            report.about(peer, beside(peer, workload, sizes, settings, done))
        if not options.quick and not getattr(options, "no_training", True):
            _TRAININGS[options.name](report, options, settings, bar)
    return _finish(report, options)


def _noisy_rows(workload: Workload, sizes: Sequence[int], settings: Settings, done: Callable[[Row], None]) -> None:
    for x in sizes:
        for row in noise.rows(workload.case(x, settings.batch), settings.threads, settings.repeats):
            done(row)


def _run_threads(options: argparse.Namespace) -> int:
    workload = WORKLOADS["fig1"]
    settings = Settings(resolve_threads(options.threads), options.repeats)
    sizes = options.sizes or (workload.quick if options.quick else workload.sizes)
    report = _report("threads", workload, options, settings, _THREADS_TITLE)
    counts = range(2, settings.threads + 1)
    with _progress("threads") as bar:
        for x, batch, count in product(sizes, options.batches or [workload.batch], counts):
            _recorder(report, bar)(_threads_row(workload.case(x, batch), count, settings.repeats))
    return _finish(report, options)


def _run_second(options: argparse.Namespace) -> int:
    workload = WORKLOADS["fig1"]
    repeats = min(options.repeats, 3) if options.quick else options.repeats
    settings = Settings(resolve_threads(options.threads), repeats, dtypes=tuple(options.dtypes), batch=options.batch)
    torch.set_num_threads(settings.threads)
    report = _report("second", workload, options, settings, second.TITLE)
    with _progress("second") as bar:
        done = _recorder(report, bar)
        for x in options.sizes or (workload.quick if options.quick else workload.sizes):
            for dtype in settings.dtypes:
                for row in second.rows(workload.case(x, settings.batch), dtype, settings.threads, repeats):
                    done(row)
    return _finish(report, options)


def _run_kernel(options: argparse.Namespace) -> int:
    threads = resolve_threads(options.threads)
    torch.set_num_threads(threads)
    settings = Settings(
        threads, 2 if options.quick else options.repeats, limit=options.limit, patience=options.patience,
        pythons=parse_assignments(options.peer_python, "--peer-python", KERNEL_PEERS),
        options=parse_assignments(options.peer_options, "--peer-options", KERNEL_PEERS),
    )  # fmt: skip
    quick = kernel_matrices.QUICK if options.quick else (kernel_matrices.QUBITS, kernel_matrices.SAMPLES)
    sizes = options.qubits or quick[0], options.samples or quick[1]
    head = {"title": kernel_matrices.TITLE, "axis": "qubits", "commands": [options.command], "threads": threads}
    report = Report("kernel", options.json, head)
    named = options.peers or []
    peers = [] if "none" in named else chosen_peers(named, KERNEL_PEERS, settings.pythons, KERNEL_PEERS)
    with _progress("kernel") as bar:
        done = _recorder(report, bar)
        kernel_matrices.alone(*sizes, settings, done)
        for peer in peers:
            report.about(peer, kernel_matrices.beside(peer, *sizes, settings, done))
    return _finish(report, options)


def _run_gpu(options: argparse.Namespace) -> int:
    workload, settings = gpu.asked(options)
    head = {"title": workload.title, "axis": "qubits", "commands": [options.command], "threads": settings.threads}
    report = Report("gpu", options.json, head)
    with _progress("gpu") as bar:
        gpu.measure(workload, options, settings, _chosen(options, workload, settings), report, _recorder(report, bar))
    return _finish(report, options)


def _threads_row(case: Case, count: int, repeats: int) -> Row:
    contestants = [QtmRunner(case, "double", threads) for threads in (count, 1)]
    many, one = alternate([partial(ours.timed, "combined") for ours in contestants], repeats)
    row = Row(case.x, "combined", "qtm, one thread", "double", "reverse", case.batch, count, measured=now())
    row.qtm_ms, row.peer_ms = many.summary(), one.summary()
    row.samples, row.repeats = case.batch, repeats
    return row


def _settings(options: argparse.Namespace) -> Settings:
    return Settings(
        threads=resolve_threads(options.threads),
        repeats=min(options.repeats, 5) if options.quick else options.repeats,
        dtypes=tuple(options.dtypes),
        limit=options.limit,
        patience=options.patience,
        stop=options.stop,
        batch=options.batch,
        qubits=options.qubits or (3 if options.quick and WORKLOADS[options.name].qubits else None),
        pythons=parse_assignments(options.peer_python, "--peer-python"),
        options=parse_assignments(options.peer_options, "--peer-options"),
    )


def _chosen(options: argparse.Namespace, workload: Workload, settings: Settings) -> list[str]:
    """Peers to run: as requested, or those of the workload that are available."""
    named = options.peers or []
    if "none" in named:
        if len(named) > 1:
            raise ParameterError("--peers none excludes other names")
        return []
    if "all" in named:
        named = peers_of(workload)
    return chosen_peers(named, peers_of(workload), settings.pythons)


def _report(
    name: str, workload: Workload, options: argparse.Namespace, settings: Settings, title: str | None = None
) -> Report:
    shown = {"title": title or workload.title, "axis": workload.axis}
    head = shown | {"commands": [options.command], "threads": settings.threads}
    return Report(name, options.json, head)


def _recorder(report: Report, bar: Any) -> Callable[[Row], None]:
    def done(row: Row) -> None:
        report.add(row.as_dict())
        bar.set_postfix_str(f"{row.peer} {row.x} {row.mode}: {row.status}")
        bar.update()

    return done


def _finish(report: Report, options: argparse.Namespace) -> int:
    content = report.content
    batches = ", ".join(map(str, dict.fromkeys(row["batch"] for row in content["rows"])))
    title = f"{content['title']}; batch {batches}, {content['threads']} threads"
    print(show(title, *comparison_table(content)))
    for line in training_lines(content):
        print(line)
    if options.plot:
        from qtm._bench.plots import comparison_figure

        _save(comparison_figure(content), options.plot)
    return 0


def _run_mps(options: argparse.Namespace) -> int:
    """Trainings from ``repeats`` starts with each truncation."""
    qubits, epochs, starts = (8, 2, 1) if options.quick else (options.qubits, options.epochs, options.repeats)
    head = {
        "title": ground_states.TITLE, "axis": "", "commands": [options.command], "threads": torch.get_num_threads(),
    }  # fmt: skip
    report = Report("mps", options.json, head)
    how = f"adam, rate {options.rate}" if options.optimizer == "adam" else options.optimizer
    with _progress("mps", "update") as bar:
        for truncation in options.truncations:
            latest: list[ground_states.Training] = []
            for latest in ground_states.train(
                qubits, options.ansatz, truncation, epochs, range(starts), options.rate, options.optimizer
            ):
                median = statistics.median(t.errors[-1] for t in latest)
                bar.set_postfix_str(f"{truncation}, {len(latest)} starts: median error {median:.2%}")
                bar.update()
            what = f"{options.ansatz}, {qubits} qubits, {truncation}, {how}, {epochs} epochs"
            for training_ in latest:
                report.training({"what": what, **training_.as_dict(), "qubits": qubits, "measured": now()})
    for line in ground_state_lines(report.content):
        print(line)
    if options.plot:
        from qtm._bench.plots import ground_state_figure

        _save(ground_state_figure(report.content), options.plot)
    return 0


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"wrote {path}")


# --- Trainings --------------------------------------------------------------------------------------------------


def _train_classifier(report: Report, options: argparse.Namespace, settings: Settings, bar: Any) -> None:
    data, images = training.digits_or_mnist(options.mnist)
    last = None
    for last in training.classifier(images, training.EPOCHS, settings.threads):
        bar.set_postfix_str(f"{data}: held-out accuracy {last.held_out_accuracy:.1%}")
        bar.update()
    assert last is not None
    head = {"what": f"classifier on {data}", "epochs": training.EPOCHS, "measured": now()}
    report.training(head | asdict(last))


def _train_policies(report: Report, options: argparse.Namespace, settings: Settings, bar: Any) -> None:
    def tick(mean: float) -> None:
        bar.set_postfix_str(f"CartPole: mean reward {mean:.0f}")

    for name, rates in training.RATES.items():
        for seed in range(options.seeds):
            result = training.learn(rates, seed, settings.threads, _MOST_EPISODES, tick)
            report.training({"what": f"policy, {name}", "seed": seed, **asdict(result), "measured": now()})
            bar.update()


_TRAININGS = {"table2": _train_classifier, "table3": _train_policies}


# --- The rest ---------------------------------------------------------------------------------------------------


def _run_tables(options: argparse.Namespace) -> int:
    drifted = write_tables(Path(__file__).parent.parent, change=not options.check)
    for path in drifted:
        print(f"{'drifted' if options.check else 'wrote'}: {path}")
    return 1 if drifted and options.check else 0


@contextmanager
def _progress(name: str, unit: str = "measurement") -> Iterator[Any]:
    """A progress bar below the log, which omits jobs: these are being measured."""
    progress_bar = require("tqdm", "bench").tqdm
    log_above_bar = require("tqdm.contrib.logging", "bench").logging_redirect_tqdm
    shape = f"{{desc}}: {{n}} {unit}s [{{elapsed}}{{postfix}}]"  # the total is not known, a mean rate says nothing
    logger.addFilter(_is_no_job)
    try:
        with log_above_bar([logger]), progress_bar(desc=name, bar_format=shape) as bar:
            yield bar
    finally:
        logger.removeFilter(_is_no_job)


def _is_no_job(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or not record.getMessage().startswith("job ")
