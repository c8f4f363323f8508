"""What runs a module, as a table for people."""

from __future__ import annotations

from typing import Any

from cellweave.nn._plans import choices_for, facts_of, stack_plan
from cellweave.nn._run import Feed, options_of, surroundings_of
from cellweave.nn._weights import given_weights, named_parameters
from cellweave.weave import Plan, PlanRow, inside_of, size_of


def table_of(module: Any, feed: Feed) -> Plan:
    """One row for each layer and direction."""
    facts, options = facts_of(module), options_of(feed)
    plan = stack_plan(facts, options)
    given = given_weights(module)
    weights = [named_parameters(module, place, given) for place in plan.places]
    choices = choices_for(facts, options, surroundings_of(feed, weights))
    rows = []
    for number, (place, choice) in enumerate(zip(plan.places, choices, strict=True)):
        cell = f"{type(module).__name__} {size_of(place.spec)}"
        rows.append(PlanRow(str(number + 1), cell, inside_of(place.spec), choice.name, choice.threads, choice.why))
    notes = [
        f"layer {layer + 1}: its inputs are added to its outputs by torch"
        for layer, adds in enumerate(plan.sums)
        if adds
    ]
    return Plan(tuple(rows), "\n".join(notes))
