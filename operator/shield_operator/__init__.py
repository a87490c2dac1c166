"""The operator: `IngestJob`, `IngestSchedule` and `KnowledgeBase` resources become batch/v1 Jobs, knowledge and a truthful status.

It shares no code with the server: it talks to Kubernetes and, over HTTP, to the orchestrator.
"""

__version__ = "0.2.0"
