"""Pages, crawls, robots.txt, and where requests may go."""

from __future__ import annotations

from shield.errors.base import Fault, ShieldError


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
