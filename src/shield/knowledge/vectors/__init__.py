"""The fast index over chunks: ids, vectors and filter fields, never text. It can always be rebuilt from PostgreSQL."""
