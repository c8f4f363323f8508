"""Layer runs for kernels in Triton's interpreter, which takes about 20 ms for a step of one program: few and small."""

from __future__ import annotations

import random

import numpy as np

from helpers.layer_cases import FEATURES, VARIANTS, LayerCase, LayerVariant, layer_cases, make_data, refusal
from helpers.layer_checks import from_backend, from_oracle
from helpers.tolerances import assert_close, worst_error

#: Steps, rows, units: one program; two, of which the last owns fewer units than it could.
ONE, SEVERAL = (4, 3, 5), (3, 3, 11)


def kernel_cases(kind: type) -> list[LayerCase]:
    """Cases of one recurrence: small ones of the shared table, and each variant with every feature in turn."""
    table = [
        case
        for case in layer_cases()
        if isinstance(case.variant.spec(1), kind)
        and case.dtype == "float32"
        and _size(case) < (64 if case.variant.name in ("rnn", "gru", "lstm") else 8)
    ]
    chooser, made = random.Random(11), []
    names = list(FEATURES)
    for variant in VARIANTS:
        if not isinstance(variant.spec(1), kind):
            continue
        rounds = {name: chooser.sample(FEATURES[name], len(FEATURES[name])) for name in names}
        for number, size in enumerate((ONE, SEVERAL)):
            features = {name: values[number % len(values)] for name, values in rounds.items()}
            made.append(LayerCase(variant, *size, **features, dtype="float32"))
    return [case for case in table + made if refusal("triton", case) is None]


def _size(case: LayerCase) -> int:
    return case.T * case.B * case.H


def check_half(case: LayerCase) -> None:
    """Fail unless a float16 case is as near to the float64 oracle as twice the error of plain torch in float16."""
    data = make_data(case)
    expected, reference, got = (
        from_oracle(data),
        from_backend(case, data, "reference"),
        from_backend(case, data, "triton"),
    )
    for kind, mine, base, wanted in zip(("", "d "), got, reference, expected, strict=True):
        for name in wanted:
            error = worst_error(base[name].float(), np.asarray(wanted[name]))
            assert_close(kind + name, mine[name].float(), wanted[name], 2.0 * error + 2.0**-10)


def variant_named(name: str) -> LayerVariant:
    """A variant of the shared table."""
    return next(variant for variant in VARIANTS if variant.name == name)
