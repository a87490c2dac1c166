"""Embedding: text to vectors, by the builtin model or a provider, each text once."""
