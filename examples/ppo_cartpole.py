"""Recurrent PPO on CartPole with hidden velocities, and how long its update takes in one call and step by step.

    python examples/ppo_cartpole.py            # some minutes on two cores
    python examples/ppo_cartpole.py --smoke    # seconds; learns nothing

The agent sees the cart's position and the pole's angle only, so it has to remember. A rollout of 128 steps holds ends
and beginnings of episodes; `resets=` starts the LSTM's state anew in the middle of a sequence, so that the update runs
the whole rollout in one call. The usual way loops over the time steps and multiplies the state with a mask: it is here
too, does the same update to the same weights, and is timed beside.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections import deque
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import nn

import cellweave as cw

#: Of CartPole's four observations (position, velocity, angle, angular velocity) the two that the agent sees, and the
#: values at which an episode ends.
SEEN, LIMITS = [0, 2], np.array([2.4, 0.2095], dtype=np.float32)
GAMMA, LAMBDA, CLIP, VALUE_WEIGHT, ENTROPY_WEIGHT, MAX_NORM = 0.99, 0.95, 0.2, 0.5, 0.01, 0.5
#: Rewards are scaled so that values stay near 1.
REWARD_SCALE = 0.02
#: Weights after one update may differ by this much between the two ways: they add up in another order.
AGREE = 1e-3

State = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Settings:
    """Of a run."""

    steps: int = 400_000  # in all environments together
    environments: int = 16
    rollout: int = 128  # steps of each environment between updates
    epochs: int = 4
    minibatches: int = 4  # each with whole rows: a sequence is not cut
    units: int = 64
    rate: float = 1e-3
    timings: int = 11  # updates timed each way
    seed: int = 1


SMOKE = replace(Settings(), steps=512, environments=4, rollout=64, minibatches=2, timings=3)


class Agent(nn.Module):
    """Policy and value over an LSTM."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(len(SEEN), units), nn.Tanh())
        self.core = cw.nn.LSTM(units, units)
        self.policy = nn.Linear(units, 2)
        self.value = nn.Linear(units, 1)

    def remember(self, x: torch.Tensor, state: State, starts: torch.Tensor) -> tuple[torch.Tensor, State]:
        """Outputs `[T, B, H]` and the last state; where `starts` `[T, B]` is true, the state starts from zeros."""
        return self.core(x, state, resets=starts)

    def forward(
        self, seen: torch.Tensor, state: State, starts: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, State]:
        """Logits `[T, B, 2]`, values `[T, B]`, last state."""
        y, state = self.remember(self.encoder(seen), state, starts)
        return self.policy(y), self.value(y).squeeze(-1), state


class LoopAgent(Agent):
    """The same agent the usual way: a loop over the time steps, the state masked where an episode starts."""

    def __init__(self, units: int) -> None:
        super().__init__(units)
        self.cell = nn.LSTMCell(units, units)

    def take(self, agent: Agent) -> LoopAgent:
        """Copy another agent's weights."""
        self.load_state_dict(agent.state_dict(), strict=False)
        self.cell.load_state_dict({name.removesuffix("_l0"): w for name, w in agent.core.state_dict().items()})
        del self.core
        return self

    def remember(self, x: torch.Tensor, state: State, starts: torch.Tensor) -> tuple[torch.Tensor, State]:
        """As the other agent's."""
        h, c = state[0][0], state[1][0]
        goes_on = (~starts).to(x.dtype).unsqueeze(-1)
        outputs = []
        for t in range(x.shape[0]):
            h, c = self.cell(x[t], (h * goes_on[t], c * goes_on[t]))
            outputs.append(h)
        return torch.stack(outputs), (h[None], c[None])


class Rollout(NamedTuple):
    """What a rollout is learned from: `[T, B, ...]`, and the state at its start."""

    seen: torch.Tensor
    starts: torch.Tensor
    actions: torch.Tensor
    log_probabilities: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    h: torch.Tensor
    c: torch.Tensor

    def rows(self, chosen: torch.Tensor) -> Rollout:
        """Some rows; axis 1 is the batch in all of them."""
        return Rollout(*(part[:, chosen] for part in self))


class Player:
    """Plays all environments and keeps the state of the agent's memory from one rollout to the next."""

    def __init__(self, settings: Settings) -> None:
        makers = [lambda: gymnasium.make("CartPole-v1") for _ in range(settings.environments)]
        same_step = gymnasium.vector.AutoresetMode.SAME_STEP  # an episode's first observation follows its last reward
        self.world = gymnasium.vector.SyncVectorEnv(makers, autoreset_mode=same_step)
        self.seen = self.visible(self.world.reset(seed=settings.seed)[0])
        self.starts = torch.ones(settings.environments, dtype=torch.bool)
        shape = (1, settings.environments, settings.units)
        self.state: State = (torch.zeros(shape), torch.zeros(shape))
        self.running = np.zeros(settings.environments)
        self.finished: deque[float] = deque(maxlen=100)

    @staticmethod
    def visible(observations: np.ndarray) -> torch.Tensor:
        """What the agent may see, `[B, 2]`, about -1 to 1."""
        return torch.from_numpy((observations[:, SEEN] / LIMITS).astype(np.float32))

    @torch.no_grad()
    def play(self, agent: Agent, steps: int) -> Rollout:
        """A rollout with advantages."""
        first = self.state
        kept: list[tuple[torch.Tensor, ...]] = []
        for _ in range(steps):
            seen, starts = self.seen, self.starts
            logits, values, self.state = agent(seen[None], self.state, starts[None])
            chosen = torch.distributions.Categorical(logits=logits[0], validate_args=False)
            actions = chosen.sample()
            rewards, ended = self.act(actions)
            kept.append((seen, starts, actions, chosen.log_prob(actions), values[0], rewards, ended))
        seen, starts, actions, log_probabilities, values, rewards, ended = map(torch.stack, zip(*kept, strict=True))
        _, last, _ = agent(self.seen[None], self.state, self.starts[None])
        advantages = advantages_of(rewards, values, ended, last[0])
        return Rollout(seen, starts, actions, log_probabilities, advantages, advantages + values, *first)

    def act(self, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step of all environments: rewards, and which episodes ended with it."""
        observations, rewards, terminated, truncated, _ = self.world.step(actions.numpy())
        ended = terminated | truncated
        self.running += rewards
        self.finished.extend(self.running[ended])
        self.running[ended] = 0
        self.seen, self.starts = self.visible(observations), torch.from_numpy(ended)
        return torch.from_numpy(rewards.astype(np.float32)) * REWARD_SCALE, self.starts


def advantages_of(
    rewards: torch.Tensor, values: torch.Tensor, ended: torch.Tensor, last: torch.Tensor
) -> torch.Tensor:
    """Generalized advantage estimation (Schulman et al. 2016); an episode cut at 500 steps counts as ended."""
    goes_on = (~ended).float()
    found = torch.zeros_like(values)
    following, value_after = torch.zeros_like(last), last
    for t in reversed(range(len(values))):
        delta = rewards[t] + GAMMA * value_after * goes_on[t] - values[t]
        following = delta + GAMMA * LAMBDA * goes_on[t] * following
        found[t], value_after = following, values[t]
    return found


def loss_of(agent: Agent, batch: Rollout) -> torch.Tensor:
    """PPO's clipped loss (Schulman et al. 2017)."""
    logits, values, _ = agent(batch.seen, (batch.h, batch.c), batch.starts)
    policy = torch.distributions.Categorical(logits=logits, validate_args=False)
    ratio = (policy.log_prob(batch.actions) - batch.log_probabilities).exp()
    advantages = (batch.advantages - batch.advantages.mean()) / (batch.advantages.std() + 1e-8)
    gain = torch.minimum(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages).mean()
    return VALUE_WEIGHT * (values - batch.returns).square().mean() - gain - ENTROPY_WEIGHT * policy.entropy().mean()


def update(agent: Agent, optimizer: torch.optim.Optimizer, rollout: Rollout, settings: Settings) -> None:
    """Several passes over a rollout, in minibatches of whole rows."""
    for _ in range(settings.epochs):
        for rows in torch.randperm(settings.environments).chunk(settings.minibatches):
            optimizer.zero_grad()
            loss_of(agent, rollout.rows(rows)).backward()
            nn.utils.clip_grad_norm_(agent.parameters(), MAX_NORM)
            optimizer.step()


def compare(agent: Agent, rollout: Rollout, settings: Settings) -> tuple[float, float]:
    """Milliseconds of a whole update, in one call and step by step, after a check that both do the same."""
    ways = (copy.deepcopy(agent), LoopAgent(settings.units).take(agent))
    optimizers = [torch.optim.Adam(way.parameters(), settings.rate, eps=1e-5) for way in ways]
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(settings.timings + 1):  # the first warms up
        for way, optimizer, found in zip(ways, optimizers, times, strict=True):
            torch.manual_seed(settings.seed + turn)  # the same minibatches
            began = time.perf_counter()
            update(way, optimizer, rollout, settings)
            found.append(time.perf_counter() - began)
        if turn == 0:
            torch.testing.assert_close(
                ways[0].core.weight_hh_l0, ways[1].cell.weight_hh, rtol=0, atol=AGREE, msg=lambda text: f"update: {text}"
            )
    return statistics.median(times[0][1:]) * 1e3, statistics.median(times[1][1:]) * 1e3


def train(settings: Settings) -> tuple[list[tuple[int, float]], tuple[float, float]]:
    """Learn. Returns the curve (steps, mean return of the last 100 episodes) and the two times of an update."""
    torch.manual_seed(settings.seed)
    agent, player = Agent(settings.units), Player(settings)
    optimizer = torch.optim.Adam(agent.parameters(), settings.rate, eps=1e-5)
    per_rollout = settings.environments * settings.rollout
    curve: list[tuple[int, float]] = []
    began, in_updates = time.perf_counter(), 0.0
    for done in range(0, settings.steps, per_rollout):
        optimizer.param_groups[0]["lr"] = settings.rate * (1 - done / settings.steps)
        rollout = player.play(agent, settings.rollout)
        at = time.perf_counter()
        update(agent, optimizer, rollout, settings)
        in_updates += time.perf_counter() - at
        curve.append((done + per_rollout, float(np.mean(player.finished)) if player.finished else 0.0))
        if len(curve) % 20 == 0:
            print(f"{curve[-1][0]:>9,} steps  mean return {curve[-1][1]:6.1f}  {time.perf_counter() - began:5.0f} s")
    print(f"trained in {time.perf_counter() - began:.0f} s, {in_updates:.0f} s of it in updates")
    return curve, compare(agent, rollout, settings)


def draw(curve: list[tuple[int, float]], times: tuple[float, float], path: Path) -> None:
    """The learning curve beside the two times."""
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(2.4, 1))
    left.plot(*zip(*curve, strict=True), color="#c8553d", linewidth=2)
    left.axhline(500, color="#666666", linewidth=0.8, linestyle="--")
    left.annotate("the most an episode gives", (0, 500), xytext=(4, -12), textcoords="offset points", color="#666666")
    left.set(xlabel="environment steps", ylabel="mean return of the last 100 episodes", ylim=(0, 530))
    left.set_title("CartPole without velocities, recurrent PPO", loc="left")
    left.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k")
    bars = right.bar(["one call with\nresets=", "loop over\ntime steps"], times, color=["#c8553d", "#7aa6c2"], width=0.6)
    right.bar_label(bars, [f"{value:.0f} ms" for value in times], padding=2)
    right.set_title("One PPO update", loc="left")
    right.set(ylabel="milliseconds (median)", ylim=(0, max(times) * 1.12))
    for axes in (left, right):
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    """Train, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a few seconds on one thread")
    parser.add_argument("--out", type=Path, default=Path("runs/examples/ppo_cartpole.png"), help="the plot")
    for field in fields(Settings):
        kind = float if field.name == "rate" else int
        parser.add_argument(f"--{field.name}", type=kind, help=f"default {field.default}")
    options = parser.parse_args()
    given = {f.name: getattr(options, f.name) for f in fields(Settings) if getattr(options, f.name) is not None}
    settings = replace(SMOKE if options.smoke else Settings(), **given)
    curve, times = train(settings)
    print(f"mean return: {curve[0][1]:.1f} after the first rollout, {curve[-1][1]:.1f} at the end")
    print(
        f"one update ({settings.epochs} epochs, {settings.minibatches} minibatches of {settings.rollout} steps, "
        f"{torch.get_num_threads()} threads): {times[0]:.1f} ms in one call, {times[1]:.1f} ms step by step, "
        f"{times[1] / times[0]:.1f} times as long"
    )
    draw(curve, times, options.out)
    print(f"plot: {options.out}")


if __name__ == "__main__":
    main()
