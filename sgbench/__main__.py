"""``python -m sgbench``."""

from sgbench.cli import main

main()
