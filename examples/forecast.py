"""Forecast the CO2 over Mauna Loa two years ahead, with bands from variational dropout.

    python examples/forecast.py            # about a minute on two cores
    python examples/forecast.py --smoke    # seconds; forecasts badly

The series (weekly, 1958 to 2001) comes with statsmodels. An LSTM reads ten years of months and says the mean and the
deviation of each of the next 24. Its dropout masks are variational: one for the inputs, one for the state, one for the
outputs, the same at all steps (Gal & Ghahramani 2016). With them left on, each pass is a draw of the model; a mask for
each row of the batch lets one batched call draw as many as wanted. The bands hold both what the draws disagree about
and the noise that the model expects; how often the truth lies in them is counted on the last ten years, which the model
has not seen.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from statsmodels.datasets import co2
from torch import nn

import cellweave as cw

AHEAD = 24  # months
PAST = 120  # months that a forecast rests on
HELD_OUT = 120  # months at the end that training does not see
#: Half the width of a normal distribution's central 90 %, in deviations.
WIDTH_90 = 1.6449


@dataclass(frozen=True)
class Settings:
    """Of a run."""

    passes: int = 1500  # training steps
    rows: int = 32
    units: int = 64
    dropout: float = 0.1
    draws: int = 200
    rate: float = 3e-3
    seed: int = 1


SMOKE = replace(Settings(), passes=20, rows=8, units=16, draws=8)


def months() -> tuple[np.ndarray, np.ndarray]:
    """Monthly means in parts per million, gaps filled linearly, and the time of each in years."""
    weekly = co2.load_pandas().data["co2"]
    monthly = weekly.resample("MS").mean().interpolate()
    return monthly.to_numpy(np.float32), monthly.index.year.to_numpy() + (monthly.index.month.to_numpy() - 0.5) / 12


class Forecaster(nn.Module):
    """Means and log deviations of the next months, as differences from the last one, in units of a year's growth."""

    def __init__(self, units: int, dropout: float) -> None:
        super().__init__()
        self.memory = cw.nn.LSTM(
            3, units, input_dropout=dropout, state_dropout=dropout, output_dropout=dropout, variational=True,
            mask_per_row=True,
        )  # fmt: skip
        self.head = nn.Linear(units, 2 * AHEAD)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`[T, B, 3]` to two of `[B, AHEAD]`."""
        outputs, _ = self.memory(x)
        mean, log_deviation = self.head(outputs[-1]).chunk(2, dim=1)
        return mean, log_deviation.clamp(-5, 3)


@dataclass
class Series:
    """Windows of the series."""

    values: np.ndarray
    years: np.ndarray

    def past(self, origins: np.ndarray) -> torch.Tensor:
        """What is known before each origin, `[PAST, B, 3]`: differences from the month before, and the season."""
        at = origins[None, :] - PAST + np.arange(PAST)[:, None]
        season = 2 * np.pi * self.years[at]
        steps = self.values[at] - self.values[at - 1]
        return torch.from_numpy(np.stack([steps, np.sin(season), np.cos(season)], axis=-1).astype(np.float32))

    def future(self, origins: np.ndarray) -> torch.Tensor:
        """The months from each origin on less the last known one, `[B, AHEAD]`."""
        at = origins[:, None] + np.arange(AHEAD)[None, :]
        return torch.from_numpy(self.values[at] - self.values[origins - 1][:, None])


def train(series: Series, settings: Settings) -> Forecaster:
    """Fit by the normal likelihood."""
    model = Forecaster(settings.units, settings.dropout)
    optimizer = torch.optim.Adam(model.parameters(), settings.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.passes)
    pick = np.random.default_rng(settings.seed)
    last = len(series.values) - HELD_OUT - AHEAD
    for number in range(1, settings.passes + 1):
        origins = pick.integers(PAST + 1, last + 1, settings.rows)
        mean, log_deviation = model(series.past(origins))
        errors = (series.future(origins) - mean) / log_deviation.exp()
        loss = (0.5 * errors.square() + log_deviation).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if number % 250 == 0:
            print(f"pass {number:5}  negative log-likelihood {loss.item():6.3f} (less a constant)")
    return model


@torch.no_grad()
def draw_forecasts(model: Forecaster, past: torch.Tensor, draws: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and deviations `[draws, B, AHEAD]` of as many models, in one call in training mode."""
    rows = past.shape[1]
    mean, log_deviation = model.train()(past.repeat(1, draws, 1))
    return mean.view(draws, rows, AHEAD), log_deviation.exp().view(draws, rows, AHEAD)


@dataclass
class Bands:
    """A forecast: its middle, how far the draws lie apart, and that with the noise beside it, each `[B, AHEAD]`."""

    middle: torch.Tensor
    draws: torch.Tensor
    whole: torch.Tensor


def bands_of(model: Forecaster, past: torch.Tensor, draws: int) -> Bands:
    """The forecast from many draws."""
    mean, deviation = draw_forecasts(model, past, draws)
    between = mean.std(0)
    return Bands(mean.mean(0), between, (between.square() + deviation.square().mean(0)).sqrt())


def coverage(truth: torch.Tensor, middle: torch.Tensor, deviation: torch.Tensor) -> float:
    """Share of the truth inside the 90 % band."""
    return ((truth - middle).abs() <= WIDTH_90 * deviation).float().mean().item()


def time_draws(model: Forecaster, past: torch.Tensor, draws: int) -> tuple[float, float]:
    """Milliseconds of one call with all draws, and of a call for each."""
    one, row = time.perf_counter(), past[:, :1]
    draw_forecasts(model, row, draws)
    each = time.perf_counter()
    for _ in range(draws):
        draw_forecasts(model, row, 1)
    return (each - one) * 1e3, (time.perf_counter() - each) * 1e3


def draw(series: Series, bands: Bands, origins: np.ndarray, covered: float, path: Path) -> None:
    """The last years with forecasts from five origins."""
    figure = Figure(figsize=(10, 4.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shown = slice(len(series.values) - HELD_OUT - 24, None)
    for number, row in enumerate(range(0, len(origins), AHEAD)):
        at = origins[row] + np.arange(AHEAD)
        last, middle = series.values[origins[row] - 1], bands.middle[row].numpy()
        for deviation, colour, label in (
            (bands.whole[row], "#f0d3cb", "90 %: draws and noise"), (bands.draws[row], "#dd9a89", "90 %: draws alone"),
        ):  # fmt: skip
            reach = WIDTH_90 * deviation.numpy()
            axes.fill_between(
                series.years[at], last + middle - reach, last + middle + reach, color=colour, linewidth=0,
                label=None if number else label,
            )  # fmt: skip
        axes.plot(series.years[at], last + middle, color="#c8553d", label=None if number else "forecast, 24 months")
        axes.axvline(series.years[at[0]], color="#999999", linewidth=0.7, linestyle=":")
    axes.plot(series.years[shown], series.values[shown], "o", color="#222222", markersize=2.2, label="measured")
    axes.set(xlabel="year", ylabel="CO2, parts per million")
    axes.set_title(f"Mauna Loa, forecast from each dotted line; {covered:.0%} of all held-out months inside", loc="left")
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    """Train, forecast, count, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a few seconds on one thread")
    parser.add_argument("--out", type=Path, default=Path("runs/examples/forecast.png"), help="the plot")
    for field in fields(Settings):
        parser.add_argument(f"--{field.name}", type=type(field.default), help=f"default {field.default}")
    options = parser.parse_args()
    given = {f.name: getattr(options, f.name) for f in fields(Settings) if getattr(options, f.name) is not None}
    settings = replace(SMOKE if options.smoke else Settings(), **given)
    torch.manual_seed(settings.seed)
    series = Series(*months())
    began = time.perf_counter()
    model = train(series, settings)
    print(f"trained in {time.perf_counter() - began:.0f} s")
    origins = np.arange(len(series.values) - HELD_OUT, len(series.values) - AHEAD + 1)
    past, truth = series.past(origins), series.future(origins)
    bands = bands_of(model, past, settings.draws)
    # the same month two years earlier, moved up by what those two years brought
    earlier = series.past(origins)[-AHEAD:, :, 0].sum(0)[:, None]
    shape = torch.from_numpy(series.values[origins[:, None] - AHEAD + np.arange(AHEAD)] - series.values[origins - 1][:, None])
    seasonal = shape + earlier
    covered = coverage(truth, bands.middle, bands.whole)
    print(f"{len(origins)} forecasts of {AHEAD} months from months that training did not see")
    print(f"mean absolute error   {(truth - bands.middle).abs().mean():.3f} ppm, middle of {settings.draws} draws")
    print(f"                      {(truth - seasonal).abs().mean():.3f} ppm, the season two years ago and its growth")
    print(f"inside the 90 % band  {covered:.1%} with draws and noise")
    print(f"                      {coverage(truth, bands.middle, bands.draws):.1%} with the draws alone")
    one, each = time_draws(model, past, settings.draws)
    print(f"{settings.draws} draws of one forecast: {one:.0f} ms in one call, {each:.0f} ms in a call each")
    draw(series, bands, origins, covered, options.out)
    print(f"plot: {options.out}")


if __name__ == "__main__":
    main()
