"""`python -m shield`."""

from shield.cli import main

main()
