"""A single-node Kubernetes on this machine, of upstream components built from source, without Docker."""
