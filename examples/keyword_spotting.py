"""Spot keywords in a stream of sound, one frame of 10 ms after another.

    python examples/keyword_spotting.py            # about two minutes on two cores
    python examples/keyword_spotting.py --smoke    # seconds; spots badly

No recording comes with this script: the words are made here. Vowels and other voiced sounds are harmonics under three
formants (vowels: Peterson & Barney 1952), consonants are bands of noise and silences; pitch, vocal tract, speed,
loudness and background vary. That is far from speech, so the scores say nothing about real microphones. What is real is
the way: train a GRU over whole clips, then feed it a stream frame by frame with `cellweave.nn.Stream`. At its end the
script says how far the stream's outputs lie from those of one call over everything.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional as F

import cellweave as cw

RATE, WINDOW, HOP, BANDS = 8000, 200, 80, 24  # samples per second, of a frame, between frames; mel bands
TRACK = 40  # samples for which formants and loudness stand still
#: Formants in Hz of voiced sounds; vowels after Peterson & Barney, the others near their usual values.
VOICED = {
    "iy": (270, 2290, 3010), "ih": (390, 1990, 2550), "eh": (530, 1840, 2480), "ae": (660, 1720, 2410),
    "aa": (730, 1090, 2440), "ao": (570, 840, 2410), "uw": (300, 870, 2240), "er": (490, 1350, 1690),
    "n": (250, 1700, 2600), "m": (250, 1100, 2200), "l": (360, 1300, 2700), "r": (420, 1300, 1600),
    "y": (260, 2070, 3020), "w": (290, 610, 2150),
}  # fmt: skip
#: Middle in Hz, loudness and milliseconds of noises; a stop is a silence before one.
NOISES = {"s": (3400, 0.5, 110), "sh": (2400, 0.5, 110), "f": (1500, 0.12, 90), "h": (1000, 0.15, 60)}
STOPS = {"t": (3200, 0.5, 25), "k": (1900, 0.5, 30), "p": (800, 0.4, 20), "d": (2800, 0.3, 15), "g": (1700, 0.3, 20)}
KEYWORDS = {"yes": "y eh s", "no": "n ao uw", "stop": "s t aa p", "left": "l eh f t"}
NEAR = ("y eh t", "n ao t", "s t aa", "l eh s", "t aa p", "m ao uw")  # words that are easily taken for them
#: A word is to be announced from its end on for so many frames.
ANNOUNCED = 15
#: Frames that the probability is averaged over, the level that announces, and frames of rest after it.
SMOOTHED, LEVEL, REST = 5, 0.6, 40


@dataclass(frozen=True)
class Settings:
    """Of a run."""

    clips: int = 1600
    epochs: int = 8
    rows: int = 32
    units: int = 64
    layers: int = 2
    seconds: int = 180  # of the stream that it is judged by
    rate: float = 4e-3
    seed: int = 1


SMOKE = replace(Settings(), clips=48, epochs=1, rows=16, units=16, seconds=8)


def say(phonemes: list[str], pick: np.random.Generator) -> np.ndarray:
    """The sound of a word from a speaker of its own, about 1 at its loudest."""
    tract, pitch, speed = pick.uniform(0.87, 1.18), pick.uniform(95, 230), pick.uniform(0.8, 1.3)
    rows: list[tuple[float, ...]] = []  # F1, F2, F3, loudness of the voice, middle and loudness of the noise
    where = (500.0, 1500.0, 2500.0)
    for phoneme in phonemes:
        middle, loudness, length = (0.0, 0.0, pick.uniform(70, 160))
        if phoneme in VOICED:
            where = tuple(f * tract * pick.uniform(0.95, 1.05) for f in VOICED[phoneme])
            rows += [(*where, 1.0, 0.0, 0.0)] * max(1, round(length * speed * RATE / 1000 / TRACK))
            continue
        if phoneme in STOPS:
            rows += [(*where, 0.0, 0.0, 0.0)] * round(pick.uniform(35, 60) * speed * RATE / 1000 / TRACK)
        middle, loudness, length = {**NOISES, **STOPS}[phoneme]
        rows += [(*where, 0.0, middle * pick.uniform(0.92, 1.08), loudness)] * max(
            1, round(length * speed * RATE / 1000 / TRACK)
        )
    tracks = np.array(rows)
    smooth = np.ones(7) / 7
    for column in (0, 1, 2, 3, 5):  # sounds glide into each other
        padded = np.pad(tracks[:, column], 3, mode="edge" if column < 3 else "constant")
        tracks[:, column] = np.convolve(padded, smooth, mode="valid")
    samples = len(tracks) * TRACK
    glide = np.linspace(1.08, 0.9, samples) * pitch
    phase = 2 * np.pi * np.cumsum(glide) / RATE
    number = np.arange(1, int(0.45 * RATE / pitch))[:, None]  # harmonics below half the rate
    heights = number * glide[::TRACK]
    formants = sum(
        gain / (1 + ((heights - tracks[:, i]) / width) ** 2)
        for i, (gain, width) in enumerate(((1.0, 70), (0.6, 90), (0.35, 130)))
    )
    voice = (np.repeat(formants * tracks[:, 3], TRACK, axis=1) * np.sin(number * phase)).sum(0)
    hiss = np.convolve(pick.standard_normal(samples + 3), np.ones(4) / 4, mode="valid")
    noise = hiss * np.cos(2 * np.pi * np.cumsum(np.repeat(tracks[:, 4], TRACK)) / RATE) * np.repeat(tracks[:, 5], TRACK)
    voice /= max(1e-6, np.abs(voice).max())
    return (voice + 2 * noise).astype(np.float32)


@dataclass
class Sound:
    """Samples, and the words in it: (number of the keyword or 0, name, first sample, sample after the last)."""

    samples: np.ndarray
    words: list[tuple[int, str, int, int]]


def another(pick: np.random.Generator) -> str:
    """A word that is no keyword: two to four sounds in a row, or one that is near to a keyword."""
    if pick.random() < 0.4:
        return str(pick.choice(NEAR))
    spelled = " ".join(pick.choice([*VOICED, *NOISES, *STOPS], pick.integers(2, 5)))
    return spelled if spelled not in KEYWORDS.values() else another(pick)


def compose(seconds: float, pick: np.random.Generator) -> Sound:
    """Words with gaps before a background of noise; half of them are keywords."""
    length = int(seconds * RATE)
    samples = np.zeros(length, dtype=np.float32)
    words, at = [], int(pick.uniform(0.05, 0.5) * RATE)
    names = list(KEYWORDS)
    while True:
        chosen = int(pick.integers(1, len(names) + 1)) if pick.random() < 0.5 else 0
        if chosen:
            name, spelled = names[chosen - 1], KEYWORDS[names[chosen - 1]]
        else:
            name, spelled = "other", another(pick)
        sound = say(spelled.split(), pick)
        if at + len(sound) + int(0.25 * RATE) > length:
            break
        samples[at : at + len(sound)] += sound * pick.uniform(0.3, 1.0)
        words.append((chosen, name, at, at + len(sound)))
        at += len(sound) + int(pick.uniform(0.2, 0.9) * RATE)
    hum = pick.standard_normal(length).astype(np.float32)
    samples += hum * 10 ** pick.uniform(-2.4, -1.3)
    return Sound(samples, words)


def mel_filters() -> torch.Tensor:
    """Triangles `[129, BANDS]`, evenly spaced in mel from 60 Hz to 4 kHz."""
    mel = np.linspace(2595 * np.log10(1 + 60 / 700), 2595 * np.log10(1 + RATE / 2 / 700), BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    bins = np.fft.rfftfreq(256, 1 / RATE)[:, None]
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.from_numpy(np.clip(np.minimum(rise, fall), 0, None).astype(np.float32))


class Spotter(nn.Module):
    """Log mel energies, a GRU, a class for each frame: 0 for nothing, or a keyword."""

    def __init__(self, units: int, layers: int) -> None:
        super().__init__()
        self.register_buffer("filters", mel_filters())
        self.register_buffer("window", torch.hann_window(WINDOW))
        self.memory = cw.nn.GRU(BANDS, units, layers)
        self.head = nn.Linear(units, len(KEYWORDS) + 1)

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        """`[..., WINDOW]` samples to `[..., BANDS]`, about -2 to 2."""
        power = torch.fft.rfft(frames * self.window, 256).abs().square()
        return ((power @ self.filters + 1e-3).log() + 1) / 3

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Logits `[T, B, classes]` of `[T, B, WINDOW]`."""
        outputs, _ = self.memory(self.features(frames))
        return self.head(outputs)


def frames_of(samples: np.ndarray) -> torch.Tensor:
    """`[T, WINDOW]`."""
    return torch.from_numpy(samples).unfold(0, WINDOW, HOP)


def labels_of(sound: Sound, count: int) -> torch.Tensor:
    """The class of each frame, `[T]`."""
    found = torch.zeros(count, dtype=torch.long)
    for chosen, _, _, end in sound.words:
        if chosen:
            last = (end - WINDOW) // HOP  # the frame that ends with the word
            found[last : last + ANNOUNCED] = chosen
    return found


def train(model: Spotter, settings: Settings) -> None:
    """Whole clips of two seconds."""
    pick = np.random.default_rng(settings.seed)
    began = time.perf_counter()
    sounds = [compose(2.0, pick) for _ in range(settings.clips)]
    frames = torch.stack([frames_of(sound.samples) for sound in sounds], dim=1)  # [T, clips, WINDOW]
    labels = torch.stack([labels_of(sound, len(frames)) for sound in sounds], dim=1)
    print(f"{settings.clips} clips made in {time.perf_counter() - began:.0f} s")
    optimizer = torch.optim.Adam(model.parameters(), settings.rate)
    count = -(-settings.clips // settings.rows)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.rate, total_steps=count * settings.epochs)
    for epoch in range(1, settings.epochs + 1):
        began, total = time.perf_counter(), 0.0
        for rows in torch.randperm(settings.clips).split(settings.rows):
            loss = F.cross_entropy(model(frames[:, rows]).flatten(0, 1), labels[:, rows].flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch}  loss {total / count:.3f}  {time.perf_counter() - began:.1f} s")


@dataclass
class Heard:
    """What came of a stream: features `[T, BANDS]`, probabilities `[T, classes]`, (frame, keyword) announced, and
    microseconds of a whole frame and of the GRU's step in it."""

    features: torch.Tensor
    probabilities: torch.Tensor
    announced: list[tuple[int, int]]
    frame_us: float
    step_us: float
    difference: float


@torch.no_grad()
def listen(model: Spotter, samples: np.ndarray) -> Heard:
    """Frame by frame, as the sound would come in."""
    stream = cw.nn.Stream(model.eval().memory)
    frames = frames_of(samples)
    seen, outputs, probabilities = [], [], []
    whole: list[float] = []
    steps: list[float] = []
    announced: list[tuple[int, int]] = []
    quiet_until = 0
    for t in range(len(frames)):
        began = time.perf_counter()
        x = model.features(frames[t : t + 1])
        at = time.perf_counter()
        y = stream.step(x)
        steps.append(time.perf_counter() - at)
        probabilities.append(model.head(y)[0].softmax(0))
        level, chosen = torch.stack(probabilities[-SMOOTHED:]).mean(0)[1:].max(0)
        if t >= quiet_until and float(level) > LEVEL:
            announced.append((t, int(chosen) + 1))
            quiet_until = t + REST
        whole.append(time.perf_counter() - began)
        seen.append(x[0])
        outputs.append(y[0])
    at_once, _ = model.memory(torch.stack(seen)[:, None])
    difference = float((at_once[:, 0] - torch.stack(outputs)).abs().max())
    return Heard(
        torch.stack(seen), torch.stack(probabilities), announced, statistics.median(whole) * 1e6,
        statistics.median(steps) * 1e6, difference,
    )  # fmt: skip


@torch.no_grad()
def torch_step_us(model: Spotter, count: int) -> float:
    """Microseconds of the same step by torch.nn's GRU."""
    gru = nn.GRU(BANDS, model.memory.hidden_size, model.memory.num_layers)
    gru.load_state_dict(model.memory.state_dict())
    x, state, times = torch.randn(1, 1, BANDS), torch.zeros(model.memory.num_layers, 1, model.memory.hidden_size), []
    for _ in range(count):
        began = time.perf_counter()
        _, state = gru(x, state)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def judge(sound: Sound, announced: list[tuple[int, int]]) -> tuple[int, int, int]:
    """Keywords said, keywords announced within 0.4 s of their end, announcements of anything else."""
    said = [(chosen, end) for chosen, _, _, end in sound.words if chosen]
    left, hits = list(announced), 0
    for chosen, end in said:
        for found in left:
            late = found[0] * HOP + WINDOW - end
            if found[1] == chosen and -0.15 * RATE <= late <= 0.4 * RATE:
                hits += 1
                left.remove(found)
                break
    return len(said), hits, len(left)


def draw(sound: Sound, heard: Heard, path: Path) -> None:
    """The first eight seconds: sound, words, probabilities, announcements."""
    figure = Figure(figsize=(11, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.2))
    seconds = min(8.0, len(sound.samples) / RATE)
    times = (np.arange(len(heard.features)) * HOP + WINDOW) / RATE
    shown = times <= seconds
    top.imshow(
        heard.features[shown].T.numpy(), origin="lower", aspect="auto", cmap="Greys", extent=(0, seconds, 0, BANDS)
    )
    top.set(ylabel="mel band", ylim=(0, BANDS + 7))
    top.set_title("Sound, and what was said (keywords in colour)", loc="left")
    colours = ["#555555", "#c8553d", "#2f6f9f", "#4f9a58", "#9a5fb0"]
    for chosen, name, first, end in sound.words:
        if end / RATE <= seconds:
            top.plot([first / RATE, end / RATE], [BANDS + 1] * 2, color=colours[chosen], linewidth=3)
            top.annotate(
                name, ((first + end) / 2 / RATE, BANDS + 2), ha="center", va="bottom", fontsize=9,
                color=colours[chosen], fontweight="bold" if chosen else "normal",
            )  # fmt: skip
    for number, name in enumerate(KEYWORDS, 1):
        bottom.plot(times[shown], heard.probabilities[shown, number].numpy(), color=colours[number], label=name)
    for frame, chosen in heard.announced:
        if times[frame] <= seconds:
            bottom.plot(times[frame], 1.07, "v", color=colours[chosen], markersize=8)
    bottom.axhline(LEVEL, color="#666666", linewidth=0.8, linestyle="--")
    bottom.set(xlabel="seconds", ylabel="probability", ylim=(0, 1.15), xlim=(0, seconds))
    bottom.set_title("What the GRU says after each frame; triangles: announced", loc="left")
    bottom.legend(frameon=False, ncols=4, loc="upper right", bbox_to_anchor=(1, 1.17))
    bottom.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    """Train, listen, judge, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a few seconds on one thread")
    parser.add_argument("--out", type=Path, default=Path("runs/examples/keyword_spotting.png"), help="the plot")
    for field in fields(Settings):
        parser.add_argument(f"--{field.name}", type=type(field.default), help=f"default {field.default}")
    options = parser.parse_args()
    given = {f.name: getattr(options, f.name) for f in fields(Settings) if getattr(options, f.name) is not None}
    settings = replace(SMOKE if options.smoke else Settings(), **given)
    torch.manual_seed(settings.seed)
    model = Spotter(settings.units, settings.layers)
    train(model, settings)
    pick = np.random.default_rng(settings.seed + 1)
    sound = compose(settings.seconds, pick)
    heard = listen(model, sound.samples)
    said, hits, alarms = judge(sound, heard.announced)
    others = len(sound.words) - said
    print(f"a stream of {settings.seconds} s: {hits} of {said} keywords announced, {alarms} false alarms", end="")
    print(f" ({others} other words)")
    print(f"largest difference from one call over all {len(heard.features):,} frames: {heard.difference:g}")
    print(
        f"median of a frame of {HOP * 1000 // RATE} ms: {heard.frame_us:.0f} us, {heard.step_us:.1f} us of it in the "
        f"GRU's step (torch.nn's takes {torch_step_us(model, 500):.1f} us), {torch.get_num_threads()} threads"
    )
    draw(sound, heard, options.out)
    print(f"plot: {options.out}")


if __name__ == "__main__":
    main()
