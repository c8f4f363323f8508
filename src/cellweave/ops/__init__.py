"""Functions on plain tensors, one folder per recurrence."""
