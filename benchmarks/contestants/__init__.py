"""One module for each library: `make(name, case)` gives the program of a contestant for a case."""
