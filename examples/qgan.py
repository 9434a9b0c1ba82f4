"""Quantum GAN: a circuit learns to sample from a distribution that is known only from samples.

    python examples/qgan.py                  # about 8 s on two cores; writes qgan.png
    python examples/qgan.py --quick

C. Zoufal et al., npj Quantum Information 5, 103 (2019): a generator of 3 qubits, whose 8 outcomes stand for 0 to 7,
against a small classical discriminator, on rounded log-normal data. The generator's loss is exact, because the module
gives the probabilities of all outcomes. Large logits of the discriminator are penalised and both rates fall: otherwise
the two chase each other in circles (L. Mescheder et al., ICML 2018).
Needs: pip install -e ".[demo]"
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import qtm
from qtm.circuits import hardware_efficient_ansatz

QUBITS = 3


def real_samples(count: int, rng: np.random.Generator) -> np.ndarray:
    """Log-normal numbers rounded to 0..7; larger ones are drawn again."""
    drawn = np.round(rng.lognormal(1.0, 1.0, 4 * count))
    return drawn[drawn < 2**QUBITS][:count].astype(int)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the plot")
    options = parser.parse_args()
    steps, batch = (20 if options.quick else 3000), 256
    torch.manual_seed(1)
    torch.set_num_threads(1)
    rng = np.random.default_rng(1)
    data = real_samples(20_000, rng)
    target = np.bincount(data, minlength=2**QUBITS) / len(data)

    ansatz = hardware_efficient_ansatz(QUBITS, 3, "y", "linear", "cz", final_rotations=True)
    generator = qtm.QuantumModule.from_parts(
        [ansatz], outputs="probabilities", variational_params_initial={"variational": ("normal", {"std": 0.5})}
    )
    discriminator = nn.Sequential(nn.Linear(2**QUBITS, 20), nn.LeakyReLU(0.2), nn.Linear(20, 1))
    of_generator = torch.optim.Adam(generator.parameters(), lr=0.01, betas=(0.5, 0.99))
    of_discriminator = torch.optim.Adam(discriminator.parameters(), lr=0.01, betas=(0.5, 0.99))
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(o, steps) for o in (of_generator, of_discriminator)]
    outcomes, log = torch.eye(2**QUBITS), nn.functional.logsigmoid
    losses, entropies = [], []
    for _ in range(steps):
        real = torch.bincount(torch.tensor(rng.choice(data, batch)), minlength=2**QUBITS) / batch
        probabilities = generator()
        fake = probabilities.detach()
        logits = discriminator(outcomes).squeeze(1)
        of_discriminator.zero_grad()
        penalty = ((real + fake) * logits**2).sum()
        (-(real * log(logits)).sum() - (fake * log(-logits)).sum() + 0.1 * penalty).backward()
        of_discriminator.step()
        loss = -(probabilities * log(discriminator(outcomes).squeeze(1).detach())).sum()
        of_generator.zero_grad()
        loss.backward()
        of_generator.step()
        for schedule in schedules:
            schedule.step()
        losses.append(loss.item())
        p = fake.clamp_min(1e-9).double().numpy()
        entropies.append(float((p * np.log(p / target)).sum()))
    print(f"relative entropy to the data: {entropies[0]:.3f} at first, {entropies[-1]:.4f} after {steps} steps")

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    places = np.arange(2**QUBITS)
    left.bar(places - 0.2, target, 0.4, label="data")
    left.bar(places + 0.2, generator().detach().numpy(), 0.4, label="generator")
    left.set(
        xlabel="outcome", ylabel="probability", title=f"{QUBITS} qubits, {generator.num_trainable_parameters} angles"
    )
    left.legend()
    right.semilogy(entropies, lw=0.8)
    right.set(xlabel="step", ylabel="relative entropy", title="Distance to the data")
    right.grid(alpha=0.25)
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "qgan.png", dpi=110)
    print(f"wrote {options.out / 'qgan.png'}")


if __name__ == "__main__":
    main()
