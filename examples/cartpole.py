"""Balance a pole with a circuit of 4 qubits and 24 weights: quantum policy gradient on CartPole.

    python examples/cartpole.py              # about 20 s on two cores; writes cartpole.png
    python examples/cartpole.py --quick

The policy pushes left with probability (1 + <ZZZZ>) / 2. Its angles (theta) and the factors of its inputs
(lambda) are separate parameter sets, so that each can have its own learning rate: N. Meyer et al.,
arXiv:2404.06314, figure 3; algorithm and circuit: PMLR 202 (2023). Needs: pip install -e ".[bench]"
"""

import argparse
from pathlib import Path

import gymnasium
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from tqdm import tqdm

import qtm
from qtm.circuits import policy_circuit

BATCH = 10  # episodes per update
DISCOUNT = 0.99
LONGEST = 200  # steps after which an episode ends; one reward a step
RATES = {"theta 0.01, lambda 0.1": (0.01, 0.1), "one rate, 0.05": (0.05, 0.05)}


def make_policy(seed: int) -> qtm.QuantumModule:
    design = policy_circuit(num_qubits=4, depth=1)
    return qtm.QuantumModule(
        design.circuit,
        design.encoding_params,
        [design.variational_params, design.scaling_params],
        variational_params_names=["theta", "lam"],
        variational_params_initial=[("normal", {"std": 0.1}), ("constant", {"val": 1.0})],
        observables="tensoredZ",
        seed_init=seed,
    )


def play(policy: qtm.QuantumModule, games: list, random: np.random.Generator) -> list[tuple]:
    """One episode of every game, all at once: (observations, actions) each; as many steps as were rewarded."""
    now = np.array([game.reset(seed=int(random.integers(2**31)))[0] for game in games])
    seen, done, running = [[] for _ in games], [[] for _ in games], np.arange(len(games))
    while len(running):
        with torch.no_grad():
            left = (1 + policy(torch.tensor(now[running], dtype=torch.float32))[:, 0]) / 2
        actions = (random.random(len(running)) >= left.numpy()).astype(int)
        alive = np.ones(len(running), dtype=bool)
        for place, (number, action) in enumerate(zip(running, actions, strict=True)):
            seen[number].append(now[number].copy())
            done[number].append(action)
            now[number], _, fallen, late, _ = games[number].step(action)
            alive[place] = not (fallen or late)
        running = running[alive]
    return list(zip(seen, done, strict=True))


def returns(length: int) -> np.ndarray:
    """Discounted sum of the rewards still to come, at every step of an episode of `length` rewards."""
    return (1 - DISCOUNT ** np.arange(length, 0, -1)) / (1 - DISCOUNT)


def update(policy: qtm.QuantumModule, optimizer: torch.optim.Optimizer, episodes: list[tuple]) -> None:
    """One step along the policy gradient, with standardised returns."""
    observations = torch.tensor(np.concatenate([seen for seen, _ in episodes]), dtype=torch.float32)
    actions = torch.tensor(np.concatenate([done for _, done in episodes]))
    gains = torch.tensor(np.concatenate([returns(len(done)) for _, done in episodes]), dtype=torch.float32)
    gains = (gains - gains.mean()) / (gains.std() + 1e-6)
    values = policy(observations)[:, 0]
    chosen = ((1 + torch.where(actions == 0, values, -values)) / 2).clamp(min=1e-6)
    loss = -(chosen.log() * gains).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def train(rates: tuple[float, float], updates: int, seed: int, bar: tqdm) -> list[float]:
    """Mean length of the episodes before every update."""
    policy = make_policy(seed)
    optimizer = torch.optim.Adam([{"params": policy.theta, "lr": rates[0]}, {"params": policy.lam, "lr": rates[1]}])
    random = np.random.default_rng(seed)
    games = [gymnasium.make("CartPole-v1", max_episode_steps=LONGEST) for _ in range(BATCH)]
    lengths = []
    for _ in range(updates):
        episodes = play(policy, games, random)
        update(policy, optimizer, episodes)
        lengths.append(float(np.mean([len(done) for _, done in episodes])))
        bar.set_postfix_str(f"balanced for {lengths[-1]:.0f} steps", refresh=False)
        bar.update()
    return lengths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--quick", action="store_true", help="a few updates of one training")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the plot")
    options = parser.parse_args()
    updates, seeds = (4, 1) if options.quick else (options.updates, options.seeds)

    torch.set_num_threads(1)  # torch's share is small; the cores belong to the circuit
    curves = {}
    for name, rates in RATES.items():
        with tqdm(total=updates * seeds, desc=name, unit="update") as bar:
            curves[name] = np.array([train(rates, updates, seed, bar) for seed in range(seeds)])
        last = curves[name][:, -10:].mean()
        print(f"{name}: balanced for {curves[name][:, 0].mean():.0f} steps at first, {last:.0f} at last")

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, lengths in curves.items():
        (line,) = axes.plot(np.median(lengths, 0), lw=2, label=name)
        axes.fill_between(range(updates), lengths.min(0), lengths.max(0), alpha=0.15, color=line.get_color(), lw=0)
    axes.set(xlabel=f"update, each of {BATCH} episodes", ylabel="steps balanced", ylim=(0, LONGEST * 1.02))
    axes.set_title(f"CartPole: median and range of {seeds} trainings")
    axes.legend(loc="lower right")
    axes.grid(alpha=0.25)
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "cartpole.png", dpi=150)
    print(f"wrote {options.out / 'cartpole.png'}")


if __name__ == "__main__":
    main()
