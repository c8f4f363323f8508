"""`python -m cellweave`."""

from cellweave.cli import main

raise SystemExit(main())
