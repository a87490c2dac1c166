"""Knowledge bases, and the collections they are moved between."""

from __future__ import annotations

from shield.errors.base import Exit, Fault, ShieldError


class UnknownKnowledgeBase(ShieldError):
    """There is no such knowledge base, or it is not yours to see."""

    code, status = "kb.not_found", 404
    advice = "List yours with list_knowledge_bases; create one with POST /knowledge-bases or `shield kb create`."


class KnowledgeBaseExists(ShieldError):
    """A knowledge base of that name exists already."""

    code, status = "kb.exists", 409
    advice = "Choose another name, or use the existing one."


class KnowledgeBaseConflict(ShieldError):
    """A knowledge base of that name exists already, and is somebody else's."""

    code, status = "kb.conflict", 409
    advice = "Choose another name, or have its owner delete it."


class KnowledgeBaseDeleting(ShieldError):
    """A knowledge base of that name is being deleted."""

    code, status, retryable = "kb.deleting", 409, True
    advice = "Wait until its deletion has ended, then try again."


class KnowledgeBaseNameInvalid(ShieldError):
    """A knowledge base's name is 1-40 lower-case letters, digits and inner hyphens."""

    code, status, exit_code = "kb.name_invalid", 422, Exit.USAGE
    advice = "Choose a name such as `team-handbook`."


class KnowledgeBaseProtected(ShieldError):
    """The knowledge base `default` cannot be removed."""

    code, status = "kb.protected", 409
    advice = "Delete its documents instead, or use another knowledge base."


class KnowledgeBaseHasNoGraph(ShieldError):
    """This knowledge base keeps no graph."""

    code, status = "kb.no_graph", 409
    advice = "Use mode `naive`, or create a knowledge base with `graph: true`."


class ReindexNotPossible(ShieldError):
    """The knowledge base cannot be reindexed that way now."""

    code, status = "kb.reindex_refused", 409
    advice = "Follow the message; `shield kb collections NAME` shows what the base has."


class ReindexIncomplete(ShieldError):
    """The collection does not hold every document yet."""

    code, status, retryable, fault = "kb.reindex_incomplete", 409, True, Fault.SERVER
    advice = "Wait until the missing documents are indexed, then try again; `shield kb collections NAME` counts them."


class ReindexDiffers(ShieldError):
    """The new collection answers the golden questions differently, so it was not made live."""

    code, status = "kb.reindex_differs", 409
    advice = (
        "Read its report with `shield kb collections NAME`; use it all the same with `shield kb flip NAME`, or give it up with `discard`."
    )


class NothingToFlip(ShieldError):
    """There is no collection that this knowledge base could change to."""

    code, status = "kb.nothing_to_flip", 409
    advice = "Flipping needs a reindex that is ready, rolling back one that was flipped at most seven days ago."
