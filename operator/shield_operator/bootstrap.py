"""The Secrets of an installation that brings none: made once, in the cluster, never anywhere else.

`shield-operator secrets ensure --namespace NS --spec JSON` makes what is missing and changes nothing that is there: a Secret that exists gets the
keys it lacks, so a later release may ask for more. The specification names Secrets and keys and holds no value:

    [{"id": "stores", "name": "shield-stores", "keys": {"password": {"random": "hex"}}},
     {"id": "services", "name": "shield-services", "keys": {"DSN": {"text": "postgresql://shield:{stores/password}@db/shield"}}}]

`random` is 192 bits as `hex`, or an `api-key` of Shield; `text` may use values of this and of earlier Secrets as `{id/key}`. Values are never printed. Two that
run at once end with the same Secrets: a write holds only if nobody wrote meanwhile. `secrets delete` removes Secrets by name.
"""

from __future__ import annotations

import base64
import re
import secrets
import string
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

import structlog
from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError, model_validator

from shield_operator.cluster import AlreadyExists, Cluster, Conflict, Kind, NotFound, Obj
from shield_operator.names import MANAGED_BY_LABEL
from shield_operator.settings import ConfigurationError

log = structlog.get_logger(__name__)

SECRETS = Kind("", "v1", "secrets", "Secret")
_TRIES = 5
"""How often somebody else may write meanwhile."""
_REFERENCE = re.compile(r"\{([a-z0-9-]+)/([A-Za-z0-9._-]+)\}")

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
KeyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,253}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Origin(_Model):
    """Where a value comes from: chance, or a text."""

    random: Literal["hex", "api-key"] | None = None
    text: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.random is None) == (self.text is None):
            raise ValueError("a key is either random or a text")
        return self


class SecretSpec(_Model):
    """A Secret that has to be there."""

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$")]
    """What texts call it."""
    name: Name
    keys: dict[KeyName, Origin]


_SPECS = TypeAdapter(list[SecretSpec])


def read_spec(text: str) -> list[SecretSpec]:
    """The specification.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        return _SPECS.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ConfigurationError(f"--spec: {'/'.join(str(part) for part in first['loc'])}: {first['msg']}") from error


async def ensure(cluster: Cluster, namespace: str, specs: Sequence[SecretSpec]) -> None:
    """Make what is missing.

    Raises:
        ConfigurationError: a text names a value that there is not.
        ClusterError: the API server refused or failed.
    """
    known: dict[str, Mapping[str, str]] = {}
    for spec in specs:
        known[spec.id] = await _ensure_one(cluster, namespace, spec, known)


async def delete(cluster: Cluster, namespace: str, names: Sequence[str]) -> None:
    """Remove Secrets; those that are gone are no error."""
    for name in names:
        try:
            found = await cluster.get(SECRETS, namespace, name)
        except NotFound:
            continue
        await cluster.delete(SECRETS, namespace, name, uid=found["metadata"]["uid"])
        log.info("secret.deleted", namespace=namespace, name=name)


async def _ensure_one(cluster: Cluster, namespace: str, spec: SecretSpec, known: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """All values of a Secret, made where they were missing."""
    for _ in range(_TRIES):
        found = await _found(cluster, namespace, spec.name)
        there = {key: base64.b64decode(value).decode() for key, value in ((found or {}).get("data") or {}).items()}
        made: dict[str, str] = {}
        for key, origin in spec.keys.items():
            if key not in there:
                made[key] = _value(origin, {**known, spec.id: {**there, **made}})
        if found is not None and not made:
            return there
        try:
            await _write(cluster, namespace, spec.name, found, made)
        except (AlreadyExists, Conflict):
            continue  # somebody else was faster; theirs holds
        log.info("secret.changed" if found else "secret.created", namespace=namespace, name=spec.name, keys=sorted(made))
        return {**there, **made}
    raise Conflict(f"the Secret {spec.name} is written by others all the time")


async def _found(cluster: Cluster, namespace: str, name: str) -> Obj | None:
    try:
        return await cluster.get(SECRETS, namespace, name)
    except NotFound:
        return None


async def _write(cluster: Cluster, namespace: str, name: str, found: Obj | None, made: Mapping[str, str]) -> None:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in made.items()}
    if found is not None:
        version = {"resourceVersion": found["metadata"]["resourceVersion"]}
        await cluster.patch(SECRETS, namespace, name, {"metadata": version, "data": data})
        return
    labels = {"app.kubernetes.io/part-of": "shield", MANAGED_BY_LABEL: "shield-secrets"}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    await cluster.create(SECRETS, namespace, {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "data": data})


def _value(origin: Origin, known: Mapping[str, Mapping[str, str]]) -> str:
    if origin.random == "hex":
        return secrets.token_hex(24)
    if origin.random == "api-key":  # docs/SECURITY.md: a public id and 256 random bits
        return f"shk_{''.join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))}_{secrets.token_urlsafe(32)}"

    def named(match: re.Match[str]) -> str:
        value = known.get(match[1], {}).get(match[2])
        if value is None:
            raise ConfigurationError(f"There is no value {match[0]}.")
        return value

    return _REFERENCE.sub(named, origin.text or "")
