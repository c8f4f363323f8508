"""What several tests share: tolerances, comparisons, case tables, the reader of golden sets."""
