"""The graph: LightRAG on PostgreSQL, written by one fenced child process a knowledge base."""
