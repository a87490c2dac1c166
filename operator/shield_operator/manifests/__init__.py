"""Manifests that are generated from the models: CRDs, the operator, and the reference."""
