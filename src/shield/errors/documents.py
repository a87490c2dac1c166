"""Documents, uploads and their conversion."""

from __future__ import annotations

from shield.errors.base import Exit, Fault, ShieldError


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
