"""A whole fleet on this machine: PostgreSQL and Valkey from wheels, the Qdrant test peer, and real Shield processes.

`make dev` runs it for people (`python -m tests.fleet`); end-to-end, chaos and load tests run it for themselves on free ports.
"""

from tests.fleet.fleet import Fleet
from tests.fleet.members import Member

__all__ = ["Fleet", "Member"]
