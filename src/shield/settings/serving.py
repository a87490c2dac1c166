"""Who may call, how calls are answered, and how the parts of a fleet call each other."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import ByteSize, Field, SecretStr

from shield.settings.base import Duration, Group, MiB, Texts, seconds


class AuthSettings(Group):
    mode: Literal["none", "api-key", "oidc"] = "none"
    """Who may call: `none` serves loopback only; `api-key` keys made with `shield keys`; `oidc` access tokens of your identity provider."""
    allow_open: bool = False
    """Second half of saying twice that an open server may leave loopback (the first is SHIELD_HOST)."""
    key_grace: Duration = timedelta(hours=24)
    """How long a rotated key stays valid beside its successor."""
    key_seen: Duration = seconds(60)
    """Least pause between two writes of a key's last use."""
    introspection_ttl: Duration = Field(seconds(30), le=seconds(30))
    """How long an MCP server of a fleet remembers what the orchestrator said about a key."""
    hop_secret: SecretStr | None = None
    """Shared by the processes of a fleet, at least 32 bytes: signs the short-lived token that says for whom an MCP server calls."""
    clock_skew: Duration = Field(seconds(30), le=seconds(300))
    """How far the clocks of token issuers may be off."""
    issuer: str | None = None
    """OIDC: the issuer's address, exactly as its tokens name it."""
    audience: Texts = ()
    """OIDC: what tokens must be meant for (comma-separated); default: the public URL, and the same with /mcp."""
    jwks_url: str | None = None
    """OIDC: address of the issuer's keys; default: as its discovery document says."""
    jwks_ttl: Duration = timedelta(hours=1)
    """OIDC: after this time the issuer's keys are fetched again."""
    jwks_keep: Duration = timedelta(hours=24)
    """OIDC: how long known keys go on while the issuer cannot be reached."""
    jwks_pause: Duration = seconds(10)
    """OIDC: least pause between two fetches, after a failure and for unknown keys alike."""
    jwks_timeout: Duration = seconds(5)
    """OIDC: longest fetch."""
    scope_claims: Texts = ("scope", "scp")
    """OIDC: claims that hold scopes (comma-separated)."""
    group_claim: str | None = None
    """OIDC: claim that holds groups or roles, for SHIELD_AUTH_SCOPE_MAP only; a dot leads into a nested claim."""
    scope_map: Texts = ()
    """OIDC: more scopes by scope or group, as `theirs=ours` (comma-separated): platform-team=admin,readers=kb:read."""
    kb_claim: str = "knowledge_bases"
    """OIDC: claim that lists the knowledge bases granted; `*` = all; a dot leads into a nested claim."""
    kb_default: Texts = ("default",)
    """OIDC: knowledge bases of a token without that claim (comma-separated); `*` = all."""
    audit_queries: bool = False
    """Keep an audit record of each search and question: who, where, a keyed hash and the length; never the text."""


class ApiSettings(Group):
    key: SecretStr | None = None
    """Key or token that the command line shows to the server at SHIELD_URL."""
    max_body_bytes: ByteSize = ByteSize(2 * MiB)
    """Largest request body other than an upload."""
    body_idle: Duration = seconds(30)
    """Longest pause within a request body."""
    body_timeout: Duration = timedelta(minutes=15)
    """Longest time for a whole request body."""
    drain: Duration = seconds(1)
    """How long a stopping server lets requests end that it has begun; more than the longest tool where servers are replaced one by one."""
    linger: Duration = seconds(2)
    """How long the rest of a refused body is read and dropped, so that its sender sees the answer."""
    keep_alive: Duration = seconds(15)
    """Pause after which a silent event stream sends a comment."""
    max_active: int = Field(6, ge=1)
    """Requests that one process works on at once; more wait for their turn."""
    max_answering: int = Field(32, ge=1)
    """Questions that one process answers at once, most of which wait for a language model."""
    max_waiting: int = Field(1000, ge=1)
    """Requests of one process that only wait: for a job's end, its events, or the rest of a body."""
    turn: Duration = seconds(0.3)
    """Longest wait for a turn; then the answer is 503 with Retry-After."""
    max_lag: Duration = seconds(0.5)
    """How far the event loop may lag behind, with more than a few requests inside, before new requests are refused at once."""


class ClientSettings(Group):
    connect: Duration = seconds(3)
    """Longest wait for a connection to a Shield server."""
    timeout: Duration = seconds(65)
    """Longest silence of a Shield server while it answers; more than any of its own limits."""


class OrchestratorSettings(Group):
    url: str | None = None
    """Where `shield mcp` finds the orchestrator, for example http://127.0.0.1:8001."""


class BreakerSettings(Group):
    threshold: int = Field(5, ge=1)
    """Failures in a row that open a circuit."""
    pause: Duration = seconds(60)
    """How long an open circuit refuses calls before one probe."""
