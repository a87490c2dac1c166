"""How fast the operator is, and how much it needs: `make bench-operator`."""
