"""Services for tests on a cluster: PostgreSQL with pgvector, Valkey, the Qdrant test peer and a site, as restricted pods; and Shield on them."""
