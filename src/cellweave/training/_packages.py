"""What this part needs beside torch: asked for before the modules that import it, so that the error says what to do."""

from cellweave._checks import require_packages

require_packages("cellweave.training", "train", "safetensors")
