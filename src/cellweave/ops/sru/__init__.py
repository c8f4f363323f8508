"""The simple recurrent unit."""

from cellweave.ops.sru._reference import sru_step as sru_step
