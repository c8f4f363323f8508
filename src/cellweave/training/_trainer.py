"""Truncated backpropagation with carried state, in steps that a snapshot can stand between."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from cellweave._errors import RunError
from cellweave._nest import flatten, pack
from cellweave.training._corpus import Corpus
from cellweave.training._interrupt import InterruptFlag
from cellweave.training._language_model import LanguageModel
from cellweave.training._metrics import MetricsFile, bits_per_token, loss_fields, perplexity
from cellweave.training._run_folder import RunFolder
from cellweave.training._schedule import learning_rate
from cellweave.training._settings import DEFAULT_EPOCHS, TrainConfig
from cellweave.training._windows import TextWindows

#: What a plateau multiplies the learning rate by.
_PLATEAU_FACTOR = 0.5


@dataclass(frozen=True)
class Progress:
    """What a run tells its caller.

    Attributes:
        level: "char" or "word".
        kind: "step" after each step, "train" with each line of the metrics file, "valid" after each validation.
        step, steps: Steps done, and steps of the whole run.
        loss: Nats per token: of the step, the mean since the last "train", or of the validation text.
        learning_rate: Of the last step.
        tokens_per_second: Since the run was started or resumed.
        seconds_left: Estimate; None before the first step.
    """

    level: str
    kind: str
    step: int
    steps: int
    loss: float
    learning_rate: float
    tokens_per_second: float
    seconds_left: float | None

    @property
    def bits(self) -> float:
        """The loss in bits per token."""
        return bits_per_token(self.loss)

    @property
    def perplexity(self) -> float:
        """The loss as perplexity."""
        return perplexity(self.loss)


@dataclass
class Counters:
    """The plain numbers of a run's state; `inf` stands for "no validation yet"."""

    step: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    loss_steps: int = 0
    gradient_norm: float = 0.0
    lr: float = 0.0
    validated_step: int = -1
    loss_before: float = math.inf
    best_loss: float = math.inf
    best_step: int = 0
    stale: int = 0
    lr_factor: float = 1.0


def _make_optimizer(config: TrainConfig, model: LanguageModel) -> torch.optim.Optimizer:
    parameters = model.parameters()
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=config.lr)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(parameters, lr=config.lr)


def evaluate(model: LanguageModel, tokens: torch.Tensor, config: TrainConfig, check: Callable[[], None]) -> float:
    """Mean loss of a text in nats per token, without dropout, from the zero state on.

    Args:
        model: Put in evaluation mode.
        tokens: Token numbers `[N]`.
        config: Names batch and time; a short text is read in fewer rows.
        check: Called between windows; what it raises ends the evaluation.
    """
    rows = max(1, min(config.batch, (len(tokens) - 1) // config.time))
    windows = TextWindows(tokens, rows, config.time)
    state = model.initial_state(windows.rows)
    total, count = 0.0, 0
    model.eval()
    with torch.inference_mode():
        for index in range(windows.all_windows):
            check()
            inputs, targets = windows.window(index)
            loss, state = model.loss(inputs, targets, state)
            total += loss.item() * targets.numel()
            count += targets.numel()
    return total / count


class Trainer:
    """The state of a run and what moves it on.

    Its whole state is `model`, `optimizer`, `counters`, the carried recurrent state, the best weights and torch's
    default generator; the place in the text follows from the number of steps.

    Args:
        config: Settings with `threads` filled in.
        corpus: The data.
        folder: Where snapshots, metrics and weights go.
        flag: Tells that Ctrl-C was pressed.
        observe: Is given each `Progress`.
        snapshot: What `RunFolder.read_snapshot` gave, to go on from there.
    """

    def __init__(
        self,
        config: TrainConfig,
        corpus: Corpus,
        folder: RunFolder,
        flag: InterruptFlag,
        observe: Callable[[Progress], None],
        snapshot: dict[str, Any] | None = None,
    ) -> None:
        self._config, self._corpus, self._folder, self._flag, self._observe = config, corpus, folder, flag, observe
        self._windows = TextWindows(corpus.train, config.batch, config.time)
        self._model = LanguageModel(config.model, len(corpus.vocabulary), config.seed)
        self._optimizer = _make_optimizer(config, self._model)
        self._carried = self._model.initial_state(config.batch)
        self.counters = Counters()
        self.best_weights: dict[str, torch.Tensor] = {}
        self.steps = config.steps or (config.epochs or DEFAULT_EPOCHS) * self._windows.full_windows
        self._validate_every = config.validate_every or self._windows.full_windows
        self._load(snapshot)
        self._started = time.monotonic()
        self._seconds_before, self._step_before = self.counters.seconds, self.counters.step

    def _load(self, snapshot: dict[str, Any] | None) -> None:
        if snapshot is None:
            self.metrics = MetricsFile(self._folder.metrics)
            return
        try:
            self.counters = Counters(**snapshot["counters"])
            self._model.load_state_dict(snapshot["model"])
            self._optimizer.load_state_dict(snapshot["optimizer"])
            self._carried = pack(self._carried, snapshot["carried"])
            self.best_weights = dict(snapshot["best_weights"])
            torch.set_rng_state(snapshot["generator"])
            offset = int(snapshot["metrics_bytes"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise RunError(
                f"{self._folder.snapshot}: expected a snapshot of this run's model, got another: {reason}. Train again."
            ) from error
        if self.best_weights:  # the file may be of a later step, or gone
            self._folder.write_weights(self.best_weights)
        self.metrics = MetricsFile(self._folder.metrics, offset)

    def save(self) -> None:
        """Write a snapshot of the whole state."""
        self.counters.seconds = self._elapsed()
        self._folder.write_snapshot(
            {
                "counters": asdict(self.counters),
                "model": dict(self._model.state_dict()),
                "optimizer": self._optimizer.state_dict(),
                "carried": flatten(self._carried),
                "best_weights": self.best_weights,
                "generator": torch.get_rng_state(),
                "metrics_bytes": self.metrics.sync(),
            }
        )

    def run(self) -> str:
        """Train to the end.

        Returns:
            Why it ended: "steps", "patience" or "seconds".
        Raises:
            InterruptRequested: Ctrl-C was pressed; the state is between two steps. RunError: the loss is not finite.
        """
        while True:
            self._flag.check()
            reason = self._reason_to_end()
            if self._validation_is_due(reason):
                self._validate()
                reason = self._reason_to_end()
            if reason or self.counters.step % self._config.snapshot_every == 0:
                self.save()
            if reason:
                return reason
            self._train_window()

    def _elapsed(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def _reason_to_end(self) -> str:
        config, counters = self._config, self.counters
        if counters.step >= self.steps:
            return "steps"
        if config.patience is not None and counters.stale >= config.patience:
            return "patience"
        if config.max_seconds is not None and self._elapsed() >= config.max_seconds:
            return "seconds"
        return ""

    def _validation_is_due(self, reason: str) -> bool:
        step = self.counters.step
        return step != self.counters.validated_step and (bool(reason) or step % self._validate_every == 0)

    def _validate(self) -> None:
        loss = evaluate(self._model, self._corpus.valid, self._config, self._flag.check)
        self._require_finite("validation", loss)
        counters = self.counters
        counters.validated_step = counters.step
        if counters.step == 0:
            counters.loss_before = loss
        best = loss < counters.best_loss
        if best:
            counters.best_loss, counters.best_step, counters.stale = loss, counters.step, 0
            self.best_weights = {name: tensor.detach().clone() for name, tensor in self._model.state_dict().items()}
            self._folder.write_weights(self.best_weights)
        else:
            counters.stale += 1
            if self._config.schedule == "plateau":
                counters.lr_factor *= _PLATEAU_FACTOR
        values = {"epoch": self._epoch(), **loss_fields(loss), "best": best, "seconds": round(self._elapsed(), 3)}
        self.metrics.write("valid", counters.step, values)
        self._tell("valid", loss)

    def _train_window(self) -> None:
        config, counters = self._config, self.counters
        index = counters.step % self._windows.full_windows
        if index == 0:  # a new epoch begins at the text's start
            self._carried = self._model.initial_state(config.batch)
        counters.lr = learning_rate(config, counters.step, self.steps, counters.lr_factor)
        for group in self._optimizer.param_groups:
            group["lr"] = counters.lr
        self._model.train()
        self._optimizer.zero_grad(set_to_none=True)
        inputs, targets = self._windows.window(index)
        loss, carried = self._model.loss(inputs, targets, self._carried)
        value = loss.item()
        self._require_finite("training", value)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), config.clip or math.inf)
        self._optimizer.step()
        self._carried = carried
        counters.step += 1
        counters.loss_sum += value
        counters.loss_steps += 1
        counters.gradient_norm = norm.item()
        self._tell("step", value)
        if counters.step % config.log_every == 0 or counters.step == self.steps:
            self._log()

    def _require_finite(self, kind: str, loss: float) -> None:
        if not math.isfinite(loss):
            raise RunError(
                f"train: expected a finite {kind} loss, got {loss} after step {self.counters.step}. "
                "Train again with a lower learning rate (--lr) or stronger clipping (--clip)."
            )

    def _log(self) -> None:
        counters = self.counters
        loss = counters.loss_sum / counters.loss_steps
        counters.loss_sum, counters.loss_steps = 0.0, 0
        values = {
            "epoch": self._epoch(),
            **loss_fields(loss),
            "learning_rate": counters.lr,
            "gradient_norm": counters.gradient_norm if math.isfinite(counters.gradient_norm) else None,
            "seconds": round(self._elapsed(), 3),
            "tokens_per_second": round(self._tokens_per_second(), 1),
        }
        self.metrics.write("train", counters.step, values)
        self._tell("train", loss)

    def _epoch(self) -> float:
        return round(self.counters.step / self._windows.full_windows, 4)

    def _seconds_per_step(self) -> float:
        done = self.counters.step - self._step_before
        return (time.monotonic() - self._started) / done if done else 0.0

    def _tokens_per_second(self) -> float:
        seconds = self._seconds_per_step()
        return self._config.batch * self._config.time / seconds if seconds else 0.0

    def _tell(self, kind: str, loss: float) -> None:
        counters, left = self.counters, None
        if counters.step > self._step_before:
            left = (self.steps - counters.step) * self._seconds_per_step()
            if self._config.max_seconds is not None:
                left = max(0.0, min(left, self._config.max_seconds - self._elapsed()))
        speed = self._tokens_per_second()
        self._observe(Progress(self._config.level, kind, counters.step, self.steps, loss, counters.lr, speed, left))
