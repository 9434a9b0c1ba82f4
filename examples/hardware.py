"""Train on an IBM device, and in the same way on a fake one: a variational eigensolver of three spins.

    python examples/hardware.py                           # FakeManila, about 30 s on two cores, no account
    python examples/hardware.py --quick                   # two steps
    python examples/hardware.py --backend ibm_torino      # the device; account: see below
    python examples/hardware.py --resume                  # after Ctrl-C, a crash, or an exhausted budget
    python examples/hardware.py --backend fake_torino --estimator v2 --steps 5    # minutes: 133 qubits of noise

Two jobs to an optimizer step, one forward and one backward with every parameter shift. Each job is written to a journal
before it is submitted, so a killed run resumes without paying twice. The plot shows the loss and the published
calibration of the qubits in use: T1, T2, readout and gate errors. Give the budget of the whole run with --max-seconds
and --max-executions; a larger one may be given to --resume.

An account is the one saved with QiskitRuntimeService.save_account(...), or the token in QISKIT_IBM_TOKEN. The open plan
has no sessions: use --mode batch there. Needs: pip install -e ".[aer,demo,hardware]"
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from qiskit.circuit.library import real_amplitudes
from qiskit.quantum_info import SparsePauliOp
from tqdm import tqdm

import qtm
from qtm import hardware
from qtm.hardware import CalibrationWatch, Connection

ANSATZ = real_amplitudes(3, "linear", reps=1)
# The transverse-field Ising chain. It is measured in two bases, and both are in the one job.
ENERGY = SparsePauliOp(["ZZI", "IZZ", "XII", "IXI", "IIX"], [-1.0] * 5)
GROUND_STATE = float(np.linalg.eigvalsh(ENERGY.to_matrix())[0])


def connection(options: argparse.Namespace, journal: Path) -> Connection:
    """A device that is ready, or the interrupted run on it."""
    budget = {name: getattr(options, name) for name in ("max_seconds", "max_executions")}
    if options.resume:
        return hardware.resume(journal, **{name: limit for name, limit in budget.items() if limit is not None})
    is_local = options.backend.startswith(("fake_", "aer_"))
    return hardware.connect(
        options.backend,
        mode=options.mode,
        estimator=options.estimator,
        shots=options.shots,
        options={"resilience_level": 0 if is_local else 1},  # 1: readout mitigation; locally it takes minutes
        optimization_level=3,
        seed_transpiler=1,
        seed_simulator=1 if is_local else None,
        journal=journal,
        **budget,
    )


def exact_energy(model: qtm.QuantumModule) -> float:
    """The energy without noise or shots at the angles of the model: what the device would give if it were perfect."""
    (angles,) = model.parameters()
    return float(qtm.FastEstimator().run([(ANSATZ, ENERGY, angles.detach().numpy())]).result()[0].data.evs)


def train(
    device: Connection, model: qtm.QuantumModule, watch: CalibrationWatch, exact: list[float], steps: int
) -> None:
    """Adam from the last checkpoint on; a checkpoint after every step, and a look at the calibration."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.15)
    begin = device.checkpoint.load(model=model, optimizer=optimizer)
    watch.losses = [(step, loss) for step, loss in device.checkpoint.values.get("losses", [])]
    watch.record = device.checkpoint.values.get("calibration", [])
    exact.extend(device.checkpoint.values.get("exact", []))
    for step in (bar := tqdm(range(begin, steps), initial=begin, total=steps, unit="step")):
        exact.append(exact_energy(model))
        energy = model().squeeze()
        optimizer.zero_grad()
        energy.backward()
        optimizer.step()
        watch(step, loss=energy.item())
        course = {"losses": watch.losses, "calibration": watch.record, "exact": exact}
        device.checkpoint.save(step + 1, model=model, optimizer=optimizer, **course)
        bar.set_postfix_str(f"energy {energy.item():.3f}, {model.usage}")
        if watch.should_stop:
            print("the device has drifted; transpile anew with device.recalibrate(), or wait")
            break


def save_plot(watch: CalibrationWatch, exact: list[float], title: str, path: Path) -> None:
    """The energies, measured and exact, beside the calibration of the qubits in use."""
    figure = Figure(figsize=(8, 9), layout="constrained")
    watch.plot(figure)
    top = figure.axes[0]
    top.lines[0].set_label("as measured")
    top.plot([step for step, _ in watch.losses], exact, color="tab:blue", label="same angles,\nno noise")
    top.axhline(GROUND_STATE, color="black", ls="--", lw=1, label="ground state")
    top.set_ylabel("energy")
    for axes in figure.axes:
        axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
        axes.ticklabel_format(axis="y", scilimits=(-2, 3))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="fake_manila", help="a device of your account, or a fake one")
    parser.add_argument("--mode", default="session", choices=["session", "batch", "job"])
    parser.add_argument("--estimator", default="executor", choices=["executor", "v2"], help="v2 for wide fake devices")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--shots", type=int, default=1024)
    parser.add_argument("--max-seconds", type=float, help="quantum seconds of the run, by the service's count")
    parser.add_argument("--max-executions", type=int, help="circuits times shots of the run")
    parser.add_argument("--resume", action="store_true", help="go on with the run of the journal")
    parser.add_argument("--quick", action="store_true", help="two steps of 128 shots")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the journal and the plot")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.shots = 2, 128
    options.out.mkdir(parents=True, exist_ok=True)

    with connection(options, options.out / "hardware.journal") as device:
        model = qtm.QuantumModule(
            ANSATZ, None, ANSATZ.parameters, observables=[ENERGY],
            estimator=device.estimator, gradient="param-shift", pass_manager=device.pass_manager,
            variational_params_initial=("uniform", {"b": 1.0}), seed_init=0,
        ).double()  # fmt: skip
        print(f"{device.backend.name}: a step takes {model.estimate_usage(1)}")
        in_use = device.pass_manager.run(ANSATZ)
        watch = CalibrationWatch(device.backend, in_use, every=2, on_drift=hardware.stop)
        exact: list[float] = []
        try:
            train(device, model, watch, exact, options.steps)
        finally:  # what was measured is shown, also after an error or Ctrl-C
            if watch.losses:
                steps, title = len(watch.losses), f"Ising chain of three spins on {device.backend.name}"
                save_plot(watch, exact[:steps], title, options.out / "hardware.png")
        last = np.mean([loss for _, loss in watch.losses[-5:]])
        print(f"energy {last:.3f} as measured, {exact[-1]:.3f} without noise; ground state {GROUND_STATE:.3f}")
        print(f"used {device.usage}")
        print(f"wrote {options.out / 'hardware.png'} and the journal {device.journal.path}")


if __name__ == "__main__":
    main()
