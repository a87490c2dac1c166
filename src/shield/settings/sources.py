"""Where documents come from: addresses, pages, a browser, files."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import ByteSize, Field

from shield.settings.base import Duration, GiB, Group, KiB, MiB, Numbers, Texts, seconds


class EgressSettings(Group):
    ports: Numbers = (80, 443)
    """Ports that caller-given addresses may use (comma-separated)."""
    allow: Texts = ()
    """Private ranges that may be called all the same, each as CIDR:port (comma-separated)."""
    nat64: bool = False
    """Reach public IPv4 sites through NAT64 addresses (IPv6-only clusters with DNS64)."""
    resolve_timeout: Duration = seconds(5)
    """Longest wait for a host's addresses."""


class CrawlSettings(Group):
    max_page_bytes: ByteSize = ByteSize(8 * MiB)
    """Largest decompressed page; a larger one is `page.too_large`."""
    page_timeout: Duration = seconds(30)
    """Longest time for one page, redirects included."""
    document_timeout: Duration = seconds(120)
    """Longest time for fetching one document by its address, redirects included."""
    max_redirects: int = Field(5, ge=0, le=20)
    """Redirect hops a page."""
    max_links: int = Field(500, ge=1)
    """Links followed from one page, in their order."""
    per_host_delay: Duration = timedelta(milliseconds=250)
    """Pause between the starts of two requests to one host when robots.txt names none."""
    per_host: int = Field(2, ge=1)
    """Requests to one host at once."""
    concurrency: int = Field(8, ge=1)
    """Requests of one process at once."""
    max_crawl_delay: Duration = seconds(30)
    """Longest pause robots.txt may ask for before the job must accept it explicitly."""
    max_retry_after: Duration = seconds(120)
    """Longest Retry-After that is waited out."""
    default_retry_after: Duration = seconds(5)
    """Pause after a 429 that names none."""
    throttle_retries: int = Field(2, ge=0)
    """Tries after a 429 or 503 with Retry-After."""
    max_robots_bytes: ByteSize = ByteSize(512 * KiB)
    """How much of robots.txt is read."""
    max_sitemap_bytes: ByteSize = ByteSize(50 * MiB)
    """Largest sitemap, decompressed."""
    max_sitemap_urls: int = Field(50_000, ge=1)
    """Addresses read from one sitemap."""
    max_sitemaps: int = Field(50, ge=1)
    """Sitemaps a crawl reads, those that an index names included."""
    robots_ttl: Duration = timedelta(hours=1)
    """How long a site's robots.txt is remembered."""
    robots_retry: Duration = seconds(60)
    """How long a robots.txt that could not be read counts as a refusal before it is asked for again."""
    max_queued: int = Field(10_000, ge=1)
    """Addresses a crawl remembers beyond its max_pages; links found later are dropped."""
    user_agent_token: str = "shield"  # noqa: S105
    """The name robots.txt rules are matched with."""


class BrowserSettings(Group):
    enabled: bool = True
    """Whether a Chromium that is found may be used."""
    executable: Path | None = None
    """Chromium's program; unset = `chromium` or `google-chrome` on the PATH."""
    sandbox: Literal["auto", "required"] = "auto"
    """Chromium's own sandbox: `auto` = wherever the kernel allows it, with a warning where not; `required` = no sandbox, no browser."""
    tabs: int = Field(2, ge=1, le=32)
    """Pages shown at once."""
    start: Duration = seconds(30)
    """Longest start of the browser."""
    idle: Duration = seconds(60)
    """After this pause the browser is stopped."""
    max_pages: int = Field(200, ge=1)
    """Pages after which the browser is replaced by a fresh one."""
    settle: Duration = seconds(5)
    """Longest wait, once a page is parsed, for its scripts to end their requests; then it is read as it is."""
    quiet: Duration = seconds(0.5)
    """Pause without a request after which a page counts as complete."""
    max_transfer: ByteSize = ByteSize(32 * MiB)
    """Most bytes that one page's scripts may send and receive; more is `page.too_large`."""
    max_requests: int = Field(500, ge=1)
    """Most requests of one page's scripts; further ones fail."""
    memory: ByteSize = ByteSize(1536 * MiB)
    """Memory of the browser, all its processes together; above it the largest one is killed."""


class FileSettings(Group):
    max_bytes: ByteSize = ByteSize(64 * MiB)
    """Largest file."""
    max_files: int = Field(10_000, ge=1)
    """Most files of a directory that one job ingests."""
    max_pages: int = 2000
    """Most pages or slides."""
    max_zip_entries: int = 10_000
    """Most entries of an Office file."""
    max_zip_bytes: ByteSize = ByteSize(512 * MiB)
    """Most bytes an Office file may unpack to."""
    max_zip_ratio: int = 200
    """Highest compression ratio of an entry."""
    max_xml_bytes: ByteSize = ByteSize(32 * MiB)
    """Largest XML member of an Office file."""
    max_cells: int = 1_000_000
    """Most cells of a workbook, merged ranges included."""
    max_csv_rows: int = 50_000
    """Most rows of a CSV file."""
    max_html_depth: int = 256
    """Deepest nesting of HTML or XML elements."""
    max_text_bytes: ByteSize = ByteSize(64 * MiB)
    """Most text a file may yield."""
    convert_timeout: Duration = seconds(120)
    """Time for a conversion, plus one second a page."""
    convert_memory: ByteSize = ByteSize(3 * GiB)
    """Address space of the converting child."""
    convert_idle: Duration = seconds(60)
    """After this pause the converter's process is stopped."""
    convert_start: Duration = seconds(60)
    """Longest start of the converter's process: it loads Docling once."""
    max_inline_bytes: ByteSize = ByteSize(1 * MiB)
    """Largest inline content."""
    upload_ttl: Duration = timedelta(hours=24)
    """How long an unused upload is kept."""
    upload_sweep: Duration = timedelta(hours=1)
    """How old a file without an upload must be before it is removed."""
