"""Every error that a person or an agent can meet, once.

A leaf class carries a stable `code` (`area.reason`), a sentence (its docstring's first line), an `advice` on what to do, an
HTTP status, whether a retry makes sense, whose fault it is, and the CLI's exit code. The same class reaches MCP
(`structuredContent`), REST (RFC 9457), the CLI and a job's per-document outcome, so the four surfaces cannot disagree.
Messages never hold document text, tokens, credentials or paths of the server.
"""

from __future__ import annotations

import inspect
from enum import IntEnum, StrEnum
from typing import Any, ClassVar


class Fault(StrEnum):
    """Whose mistake an error is; the SLOs count only `dependency` and `server`."""

    CALLER = "caller"
    DEPENDENCY = "dependency"
    SERVER = "server"


class Exit(IntEnum):
    """Exit codes of the CLI and of `shield run-job`: fixed, a pod's failure policy depends on them."""

    OK = 0
    BUG = 1
    USAGE = 2
    BAD_SPEC = 10
    AUTH = 11
    REFUSED = 12
    ALL_FAILED = 13
    BUDGET = 14
    PARTIAL = 20
    TRANSIENT = 75
    LEASE_LOST = 76
    INTERRUPTED = 130
    DRAINED = 143


class ShieldError(Exception):
    """Base of all typed errors; raise a leaf class.

    Args:
        message: replaces the class's sentence with a more exact one; must be safe to show to the caller.
        retry_after: seconds after which a retry makes sense.
        details: small, safe facts (limits, names the caller sent) for the structured forms.
    """

    code: ClassVar[str] = ""
    advice: ClassVar[str] = ""
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    fault: ClassVar[Fault] = Fault.CALLER
    exit_code: ClassVar[Exit] = Exit.REFUSED

    def __init__(self, message: str | None = None, *, retry_after: float | None = None, **details: Any) -> None:
        self.message = message or self.sentence()
        self.retry_after = retry_after
        self.details = details
        super().__init__(f"{self.code}: {self.message}")

    @classmethod
    def sentence(cls) -> str:
        """The class's own sentence: the first line of its docstring."""
        return (inspect.getdoc(cls) or cls.__name__).splitlines()[0]

    def public(self) -> dict[str, Any]:
        """The structured form shared by every surface: code, message, advice, retryable, and when to retry."""
        body: dict[str, Any] = {
            "code": self.code,
            "message": self.message,
            "advice": self.advice,
            "retryable": self.retryable,
        }
        if self.retry_after is not None:
            body["retry_after"] = round(self.retry_after, 3)
        if self.details:
            body["details"] = self.details
        return body


def leaf_errors() -> dict[str, type[ShieldError]]:
    """All leaf classes by code, in order of code; the docs and the proofs walk this."""

    def walk(cls: type[ShieldError]) -> list[type[ShieldError]]:
        below = cls.__subclasses__()
        return [leaf for sub in below for leaf in walk(sub)] if below else [cls]

    return {cls.code: cls for cls in sorted(walk(ShieldError), key=lambda c: c.code) if cls.__module__ == __name__}


_CONTENT_AREAS = frozenset({"page", "document", "robots", "egress", "crawl"})


def blames_content(error: ShieldError) -> bool:
    """Whether the page or document itself is the cause, so that it is an outcome and not a failure of the job's run."""
    return isinstance(error, DependencyRejected) or error.code.partition(".")[0] in _CONTENT_AREAS


def from_code(code: str, message: str | None = None, **details: Any) -> ShieldError:
    """The error of a stored code, for outcomes read back from the database; an unknown code becomes `InternalError`."""
    return leaf_errors().get(code, InternalError)(message, **details)


# -- request ----------------------------------------------------------------------------------------------------------


class InvalidRequest(ShieldError):
    """The request has a field that is missing, unknown or out of range."""

    code, status, exit_code = "request.invalid", 422, Exit.USAGE
    advice = "Correct the named field; docs/API_REFERENCE.md lists every field with its limits."


class RequestTooLarge(ShieldError):
    """The request body is larger than allowed."""

    code, status = "request.too_large", 413
    advice = "Send large files through POST /uploads (or the create_upload tool) and pass the upload id."


class RequestTimeout(ShieldError):
    """The request body did not arrive in time."""

    code, status, retryable = "request.timeout", 408, True
    advice = "Send the request again over a steadier connection."


class UnknownRoute(ShieldError):
    """There is nothing at this address."""

    code, status = "request.not_found", 404
    advice = "See /docs or docs/API_REFERENCE.md for the routes of this server."


class UnknownTool(ShieldError):
    """There is no tool of this name."""

    code, status = "request.tool_not_found", 404
    advice = "List the tools of this server with tools/list."


class MethodNotAllowed(ShieldError):
    """This address does not answer to that method."""

    code, status = "request.method_not_allowed", 405
    advice = "See /docs or docs/API_REFERENCE.md for the methods of this route."


class HostRefused(ShieldError):
    """The Host header names a host this server does not serve."""

    code, status = "request.host_refused", 421
    advice = "Use the server's own address, or add the name to SHIELD_ALLOWED_HOSTS."


class OriginRefused(ShieldError):
    """The Origin header names a web site that may not call this server."""

    code, status = "request.origin_refused", 403
    advice = "Call from the server's own origin, or add the origin to SHIELD_ALLOWED_ORIGINS."


class CursorInvalid(ShieldError):
    """The cursor is unknown, has expired, or belongs to another query."""

    code, status = "request.cursor_invalid", 400
    advice = "Repeat the query without a cursor; cursors live ten minutes and fit only the query that made them."


class IdempotencyMismatch(ShieldError):
    """This idempotency key was used before with another body."""

    code, status = "idempotency.mismatch", 422
    advice = "Use a new Idempotency-Key for a new request, or repeat the first request unchanged."


# -- knowledge bases --------------------------------------------------------------------------------------------------


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


# -- jobs -------------------------------------------------------------------------------------------------------------


class UnknownJob(ShieldError):
    """There is no such job, or it is not yours to see."""

    code, status = "job.not_found", 404
    advice = "Check the job id; ended jobs are kept for 30 days. list_jobs shows yours."


class JobNotRetryable(ShieldError):
    """Only a failed, partial or cancelled job can be retried."""

    code, status = "job.not_retryable", 409
    advice = "Wait until the job has ended, or submit a new one."


class JobEnded(ShieldError):
    """The job has ended already."""

    code, status = "job.ended", 409
    advice = "Read its outcome with get_job_status; an ended job does not change."


class JobCancelled(ShieldError):
    """The job was cancelled."""

    code, status = "job.cancelled", 409
    advice = "Retry it with POST /jobs/{id}/retry; what it finished is kept."


class DeadlineExceeded(ShieldError):
    """The job passed its deadline before it could end."""

    code, status, retryable, fault = "job.deadline_exceeded", 504, True, Fault.DEPENDENCY
    exit_code = Exit.ALL_FAILED
    advice = "The message names what it waited for; mend that, then retry the job."


class RetriesExhausted(ShieldError):
    """The job failed or killed its worker too often and was given up."""

    code, status, retryable, fault = "job.retries_exhausted", 500, True, Fault.SERVER
    exit_code = Exit.ALL_FAILED
    advice = "Read the job's last error; once its cause is gone, retry the job: it starts from what was finished."


class BudgetExceeded(ShieldError):
    """The job's next call to a language model could cost more tokens than its budget has left."""

    code, status, exit_code = "job.budget_exceeded", 422, Exit.BUDGET
    advice = "What is stored stays and is searchable; send it again with a larger budget to finish the graph: what was paid for is kept."


class NothingIngested(ShieldError):
    """No document of this job could be stored."""

    code, status, exit_code = "job.nothing_ingested", 422, Exit.ALL_FAILED
    advice = "Read the outcomes: each page or document names its own reason."


class WebhooksOff(ShieldError):
    """This server sends no webhooks."""

    code, status = "job.webhooks_off", 409
    advice = "Leave `webhook` out and poll the job, or have the operator set SHIELD_WEBHOOK_SECRET."


class SpecInvalid(ShieldError):
    """The file that specifies the job cannot be read."""

    code, status, exit_code = "job.spec_invalid", 422, Exit.BAD_SPEC
    advice = "Correct the file; `shield run-job --help` and docs/RUN_JOB.md show its form."


class LeaseLost(ShieldError):
    """Another worker took over this job."""

    code, status, retryable, fault, exit_code = "job.lease_lost", 409, True, Fault.SERVER, Exit.LEASE_LOST
    advice = "Nothing to do: the other worker finishes the job."


# -- documents --------------------------------------------------------------------------------------------------------


class UnknownDocument(ShieldError):
    """There is no such document, or it is not yours to see."""

    code, status = "document.not_found", 404
    advice = "List the documents with list_documents."


class DocumentDeleting(ShieldError):
    """This document is being deleted; it can be stored again when that is done."""

    code, status, retryable = "document.deleting", 409, True
    advice = "Wait until the deletion's job has ended, then send the document again."


class TracesLeft(ShieldError):
    """The document is gone for readers, but something of it is still stored."""

    code, status, retryable, fault = "document.traces_left", 500, True, Fault.SERVER
    advice = "The job's proof says where; report it, and delete again once that is mended."


class DocumentTooLarge(ShieldError):
    """The file is larger than allowed."""

    code, status = "document.too_large", 413
    advice = "Split the file; the limits are in docs/LIMITS.md."


class DocumentTypeUnsupported(ShieldError):
    """The file is of no type that can be read."""

    code, status = "document.type_unsupported", 415
    advice = "Send PDF, DOCX, PPTX, XLSX, HTML, Markdown, text or CSV."


class DocumentTypeMismatch(ShieldError):
    """The file's content is not what its name or type says."""

    code, status = "document.type_mismatch", 422
    advice = "Send the file under its true extension."


class DocumentEncrypted(ShieldError):
    """The file opens only with a password."""

    code, status = "document.encrypted", 422
    advice = "Remove the password and send the file again."


class DocumentCorrupt(ShieldError):
    """The file is damaged and cannot be read."""

    code, status = "document.corrupt", 422
    advice = "Open and save it again with the program that made it, then send it again."


class DocumentBomb(ShieldError):
    """The file unpacks to far more than its size allows."""

    code, status = "document.bomb", 422
    advice = "Send a file without extreme compression, nesting or sheet dimensions; the limits are in docs/LIMITS.md."


class DocumentTooManyPages(ShieldError):
    """The file has more pages, rows or cells than allowed."""

    code, status = "document.too_many_pages", 422
    advice = "Split the file; the limits are in docs/LIMITS.md."


class DocumentEmpty(ShieldError):
    """No text could be found in the file."""

    code, status = "document.empty", 422
    advice = "If it is a scan, run it through OCR first: pictures of text are not read in this version. Otherwise check the file."


class DocumentEncodingUnknown(ShieldError):
    """The text is in no encoding that can be recognised."""

    code, status = "document.encoding_unknown", 422
    advice = "Save the file as UTF-8 and send it again."


class ConversionTimeout(ShieldError):
    """Converting the file took longer than allowed and was stopped."""

    code, status = "document.conversion_timeout", 422
    advice = "Split the file into smaller parts."


class ConversionOutOfMemory(ShieldError):
    """Converting the file needed more memory than allowed and was stopped."""

    code, status = "document.conversion_memory", 422
    advice = "Split the file into smaller parts."


class ConversionCrashed(ShieldError):
    """The converter broke on this file."""

    code, status, fault = "document.conversion_crashed", 422, Fault.SERVER
    advice = "Save the file in another format (PDF, DOCX or Markdown) and send it again."


class DocumentRootRefused(ShieldError):
    """Reading files by path is not allowed here, or the path lies outside the document root."""

    code, status = "document.path_refused", 403
    advice = "Use an upload, or set SHIELD_DOCUMENT_ROOT on a loopback or stdio server and name a file below it."


class TooManyFiles(ShieldError):
    """The directory holds more files than a job may have."""

    code, status, exit_code = "document.too_many_files", 422, Exit.ALL_FAILED
    advice = "Name a directory below it, or choose with `include` and `exclude`; SHIELD_FILE_MAX_FILES is the limit."


class GraphFailed(ShieldError):
    """The document could not be written into the graph."""

    code, status, retryable, fault = "document.graph_failed", 500, True, Fault.SERVER
    advice = "Its passages are searchable all the same; retry the job to try the graph again."


class UnknownUpload(ShieldError):
    """There is no such upload, it has expired, or it was used."""

    code, status = "document.upload_not_found", 404
    advice = "Upload the file again; an unused upload expires after 24 hours."


class UploadIncomplete(ShieldError):
    """The upload has no content yet."""

    code, status = "document.upload_incomplete", 409
    advice = "PUT the file to the upload's URL first."


class InlineContentInvalid(ShieldError):
    """The inline content is not valid base64, or is larger than 1 MiB."""

    code, status = "document.inline_invalid", 422
    advice = "Send base64 of at most 1 MiB, or use an upload."


# -- pages and crawls -------------------------------------------------------------------------------------------------


class PageTooLarge(ShieldError):
    """The page is larger than allowed."""

    code, status = "page.too_large", 413
    advice = "Nothing was stored of it; the limit is 8 MiB after decompression."


class PageTimeout(ShieldError):
    """The page did not arrive in time."""

    code, status, retryable, fault = "page.timeout", 504, True, Fault.DEPENDENCY
    advice = "Try again when the site answers faster."


class PageUnreachable(ShieldError):
    """The site refused or broke the connection, or its name does not resolve."""

    code, status, retryable, fault = "page.unreachable", 502, True, Fault.DEPENDENCY
    advice = "Check the address and try again."


class PageHttpError(ShieldError):
    """The site answered with an error."""

    code, status = "page.http_error", 502
    advice = "The message holds the site's status; open the page in a browser to see why."


class PageNotFound(ShieldError):
    """The site has no such page."""

    code, status = "page.not_found", 404
    advice = "Check the address; the page answered 404 or 410."


class PageVanished(ShieldError):
    """The site has this page no more; its document is being removed."""

    code, status = "page.vanished", 410
    advice = "Nothing to do: the job removes the document, as `remove_vanished` asks."


class PageThrottled(ShieldError):
    """The site asked to slow down for longer than a job may wait."""

    code, status, retryable, fault = "page.throttled", 429, True, Fault.DEPENDENCY
    advice = "Retry the job later."


class PageRedirectLoop(ShieldError):
    """The page redirects too often."""

    code, status = "page.redirect_loop", 502
    advice = "Start from the address where the redirects end."


class PageLeftScope(ShieldError):
    """The page redirects out of the allowed domains."""

    code, status = "page.left_scope", 422
    advice = "Add the target's host to allowed_domains."


class PageDuplicate(ShieldError):
    """Another page of this crawl leads to the same address."""

    code, status = "page.duplicate", 409
    advice = "Nothing to do: the content is stored once, under the other page."


class PageExcluded(ShieldError):
    """The page redirects to an address that the job leaves out."""

    code, status = "page.excluded", 422
    advice = "Change `include` or `exclude` if the page is wanted."


class PageTypeUnsupported(ShieldError):
    """The page is of no type that can be read."""

    code, status = "page.type_unsupported", 415
    advice = "HTML, PDF, Office files, Markdown, text and CSV are read."


class PageEmpty(ShieldError):
    """The page has no readable text."""

    code, status = "page.empty", 422
    advice = "The page may need JavaScript, which this version does not run; ingest its text another way."


class PageNeedsBrowser(ShieldError):
    """The page shows its text only with JavaScript, and no browser is available."""

    code, status = "page.needs_browser", 422
    advice = "Install Chromium where a worker runs and crawl with render `auto` or `browser`, or ingest the text another way."


class PageRenderFailed(ShieldError):
    """The browser could not show the page."""

    code, status, retryable, fault = "page.render_failed", 502, True, Fault.DEPENDENCY
    advice = "Try again, or crawl with render `http`: the page may need more memory or time than a page gets."


class UrlInvalid(ShieldError):
    """The address is not a valid http or https URL, or holds a user name or password."""

    code, status = "crawl.url_invalid", 422
    advice = "Give an absolute http:// or https:// address without credentials, of at most 2,048 characters."


class SitemapInvalid(ShieldError):
    """The sitemap cannot be read as one."""

    code, status = "crawl.sitemap_invalid", 422
    advice = "Give the address of an XML sitemap, a sitemap index, or a list of addresses, one a line."


class CrawlIncomplete(ShieldError):
    """The crawl did not see the whole site, so no document was removed."""

    code, status = "crawl.incomplete", 409
    advice = "The message says what was missing; mend it and crawl again."


class RobotsDenied(ShieldError):
    """The site's robots.txt does not allow this page."""

    code, status = "robots.denied", 403
    advice = "Ask the site's owner, or ingest the document itself."


class RobotsUnavailable(ShieldError):
    """The site's robots.txt could not be read, which means: do not crawl."""

    code, status, retryable, fault = "robots.unavailable", 503, True, Fault.DEPENDENCY
    advice = "Try again when the site answers; RFC 9309 reads a failing robots.txt as a refusal."


class RobotsDelayTooLong(ShieldError):
    """The site asks for a longer pause between pages than a job accepts."""

    code, status = "robots.delay_too_long", 422
    advice = "Set accept_crawl_delay to the delay you accept, in seconds."


class EgressDenied(ShieldError):
    """The address does not lead to the public internet, and is on no allow-list."""

    code, status = "egress.denied", 403
    advice = "Use a public address, or have an operator add the range to SHIELD_EGRESS_ALLOW."


class EgressPortDenied(ShieldError):
    """The address uses a port that may not be called."""

    code, status = "egress.port_denied", 403
    advice = "Use port 80 or 443, or have an operator extend SHIELD_EGRESS_PORTS."


# -- queries ----------------------------------------------------------------------------------------------------------


class QueryTooShort(ShieldError):
    """The query has no word to search for."""

    code, status = "query.too_short", 422
    advice = "Ask with at least one word of three letters."


class QueryTimeout(ShieldError):
    """The query took too long and was stopped."""

    code, status, retryable, fault = "query.timeout", 504, True, Fault.SERVER
    advice = "Ask a narrower question, or use mode `naive`."


# -- identity and quotas ----------------------------------------------------------------------------------------------


class Unauthenticated(ShieldError):
    """The request carries no credential."""

    code, status, exit_code = "auth.required", 401, Exit.AUTH
    advice = "Send `Authorization: Bearer` with a valid key or token; the command line reads SHIELD_API_KEY."


class CredentialInvalid(ShieldError):
    """The credential is wrong, has expired, was revoked, or is meant for another server."""

    code, status, exit_code = "auth.invalid", 401, Exit.AUTH
    advice = "Use a valid key (an administrator makes one with `shield keys create`), or get a new token for this server."


class IdentityUnavailable(ShieldError):
    """The credential cannot be checked at the moment."""

    code, status, retryable, fault, exit_code = "auth.unavailable", 503, True, Fault.DEPENDENCY, Exit.TRANSIENT
    advice = "Try again after the time in Retry-After; the identity provider, or the orchestrator, does not answer."


class Forbidden(ShieldError):
    """Your credential does not allow this."""

    code, status, exit_code = "auth.forbidden", 403, Exit.AUTH
    advice = "Ask an administrator for the scope named in the message."


class UnknownKey(ShieldError):
    """There is no such API key, or it has ended."""

    code, status = "auth.key_not_found", 404
    advice = "List the keys with `shield keys list`; only a valid key can be rotated."


class QueueFull(ShieldError):
    """The queue is full."""

    code, status, retryable, fault = "quota.queue_full", 503, True, Fault.SERVER
    advice = "Try again after the time in Retry-After; nothing was stored."


class Overloaded(ShieldError):
    """The server has more to do than it can answer in time."""

    code, status, retryable, fault = "quota.overloaded", 503, True, Fault.SERVER
    advice = "Try again after the time in Retry-After; if it lasts, add replicas."


class TooManyPending(ShieldError):
    """You have too many jobs waiting."""

    code, status, retryable = "quota.pending_jobs", 429, True
    advice = "Wait for some of your jobs to end, or cancel some."


class BytesQuotaExceeded(ShieldError):
    """You have sent as many bytes today as you may."""

    code, status, retryable = "quota.bytes", 429, True
    advice = "Try again tomorrow, or ask an operator to raise the quota."


# -- dependencies and ourselves ---------------------------------------------------------------------------------------


class CircuitOpen(ShieldError):
    """A dependency keeps failing, so calls to it are paused for a moment."""

    code, status, retryable, fault = "dependency.circuit_open", 503, True, Fault.DEPENDENCY
    exit_code = Exit.TRANSIENT
    advice = "Try again after the time in Retry-After."


class DependencyUnavailable(ShieldError):
    """A dependency does not answer."""

    code, status, retryable, fault = "dependency.unavailable", 503, True, Fault.DEPENDENCY
    exit_code = Exit.TRANSIENT
    advice = "Try again in a moment; /readyz names the state of each dependency."


class DependencyMisconfigured(ShieldError):
    """A dependency refuses our credential or does not know the configured model."""

    code, status, retryable, fault = "dependency.misconfigured", 503, True, Fault.DEPENDENCY
    exit_code = Exit.TRANSIENT
    advice = "An operator must mend the credential or the model's name; waiting jobs go on by themselves."


class DependencyThrottled(ShieldError):
    """A dependency asked to slow down."""

    code, status, retryable, fault = "dependency.throttled", 503, True, Fault.DEPENDENCY
    exit_code = Exit.TRANSIENT
    advice = "Try again after the time in Retry-After."


class DependencyRejected(ShieldError):
    """A dependency refused this input."""

    code, status, fault = "dependency.rejected", 422, Fault.DEPENDENCY
    advice = "The message names the dependency; the document or query itself is the cause."


class DatabaseUnavailable(ShieldError):
    """The database does not answer; nothing was stored."""

    code, status, retryable, fault = "dependency.database_unavailable", 503, True, Fault.DEPENDENCY
    exit_code = Exit.TRANSIENT
    advice = "Try again in a moment."


class DatabaseBusy(ShieldError):
    """The database is being upgraded, backed up or restored by somebody else."""

    code, status, retryable, fault = "dependency.database_busy", 503, True, Fault.DEPENDENCY
    exit_code = Exit.TRANSIENT
    advice = "Try again when that has ended; SHIELD_POSTGRES_SCHEMA_WAIT sets how long is waited."


class SchemaBehind(ShieldError):
    """The database has not been upgraded to this version yet."""

    code, status, retryable, fault = "dependency.schema_behind", 503, True, Fault.DEPENDENCY
    exit_code = Exit.TRANSIENT
    advice = "Run `shield db upgrade` once, from this version."


class ServerUnreachable(ShieldError):
    """The Shield server does not answer."""

    code, status, retryable, fault = "dependency.server_unreachable", 503, True, Fault.DEPENDENCY
    exit_code = Exit.TRANSIENT
    advice = "Start it with `shield up`, or check SHIELD_URL."


class InternalError(ShieldError):
    """Something went wrong on our side."""

    code, status, retryable, fault, exit_code = "request.internal", 500, True, Fault.SERVER, Exit.BUG
    advice = "Try again; if it stays, report it with the correlation id."


class ConfigInvalid(ShieldError):
    """The configuration has a value that is missing, unknown or out of range."""

    code, status, fault, exit_code = "config.invalid", 500, Fault.SERVER, Exit.USAGE
    advice = "Correct the named setting; `shield config` prints the effective values."


class DataDirectoryRefused(ShieldError):
    """The data directory cannot be used as it is."""

    code, status, fault, exit_code = "config.data_dir", 500, Fault.SERVER, Exit.USAGE
    advice = "Follow the message, or choose another directory with SHIELD_DATA_DIR."


class DataDirectoryBusy(ShieldError):
    """Another process owns the data directory and does not answer."""

    code, status, fault, exit_code = "config.data_dir_busy", 500, Fault.SERVER, Exit.TRANSIENT
    advice = "Stop the other process, or choose another directory with SHIELD_DATA_DIR."


class DatabaseUnsuitable(ShieldError):
    """The database server does not meet what Shield needs."""

    code, status, fault, exit_code = "config.database", 500, Fault.SERVER, Exit.USAGE
    advice = "Follow the message; docs/DATABASE.md says what is needed."


# -- backups ----------------------------------------------------------------------------------------------------------


class BackupDamaged(ShieldError):
    """The backup is not whole, or is no backup."""

    code, status = "backup.damaged", 422
    advice = "Take another backup; nothing was changed."


class BackupTooNew(ShieldError):
    """The backup, or the database, was made by a newer version than this one."""

    code, status, exit_code = "backup.too_new", 422, Exit.USAGE
    advice = "Use the version that the message names, or a later one."


class BackupPlaceRefused(ShieldError):
    """The backup cannot be written or read there."""

    code, status, exit_code = "backup.place", 422, Exit.USAGE
    advice = "Name a new file, or s3://bucket/key with the AWS_* variables of your object store."


class BackupPlaceUnavailable(ShieldError):
    """The object store does not answer."""

    code, status, retryable, fault = "backup.place_unavailable", 503, True, Fault.DEPENDENCY
    exit_code = Exit.TRANSIENT
    advice = "Try again in a moment."


class DatabaseNotEmpty(ShieldError):
    """The database holds documents or jobs already."""

    code, status = "backup.database_not_empty", 409
    advice = "Restore into an empty database, or replace everything in this one with --force."


# -- rollouts ---------------------------------------------------------------------------------------------------------


class RolloutRefused(ShieldError):
    """Helm did not do what the rollout asked for."""

    code, status = "rollout.refused", 409
    advice = "Follow the message; `helm history RELEASE` says what stands."


class RolloutBlind(ShieldError):
    """Prometheus does not say how stable servers and canary do."""

    code, status, retryable, fault = "rollout.blind", 503, True, Fault.DEPENDENCY
    exit_code = Exit.TRANSIENT
    advice = "Check --prometheus, and that it has the rule group shield-canary of the release's namespace."
