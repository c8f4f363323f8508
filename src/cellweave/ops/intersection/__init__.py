"""The intersection RNN."""

from cellweave.ops.intersection._reference import intersection_step as intersection_step
