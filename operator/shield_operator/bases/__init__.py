"""Bases: KnowledgeBases become knowledge bases of the orchestrator, move between embedding models, and are deleted with proof."""
