"""Reference implementations in NumPy float64, written from the published equations.

They share no code with `src/` and never import cellweave. Row vectors throughout: `x [B, I] @ W [I, H]`.
"""
