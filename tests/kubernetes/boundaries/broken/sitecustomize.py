"""An operator that is broken on purpose, for `python -m tests.kubernetes.boundaries --sabotage HOW`: the proof must notice.

Python imports this module by itself in the operator's process; the product has no switch for it.
"""

import os

match os.environ.get("SHIELD_BROKEN"):
    case "names":  # a Job's name does not follow from its IngestJob any more
        import secrets

        from shield_operator import names

        names.job_name = lambda ingestjob, attempt: f"{ingestjob}-{secrets.token_hex(2)}-{attempt}"
    case "cancel":  # rows do not end with their IngestJob
        from shield_operator.orchestrator import Orchestrator

        async def forget(self: Orchestrator, uids: object) -> None:
            """Ask for nothing."""

        Orchestrator.cancel = forget  # type: ignore[method-assign]
    case "owner":  # whoever has the name is taken for ours
        from shield_operator.ingestjobs.reconcile import IngestJobs

        async def take(self: IngestJobs, view: object, name: str) -> None:
            """Ask nobody."""

        IngestJobs._adopt = take  # type: ignore[method-assign]
