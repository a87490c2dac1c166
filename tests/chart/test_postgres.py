"""The small PostgreSQL of dev."""

from __future__ import annotations

from tests.chart.render import render


def test_it_is_made_as_the_public_image_wants_it() -> None:
    env = render().env("StatefulSet", "postgres")
    assert env["POSTGRES_PASSWORD_FILE"] == "/etc/shield/passwords/postgres-password"
    assert (env["POSTGRES_USER"], env["POSTGRES_DB"], env["PGDATA"]) == ("shield", "shield", "/var/lib/postgresql/data/pgdata")
    assert render().container("StatefulSet", "postgres")["image"] == "docker.io/pgvector/pgvector:0.8.1-pg17"


def test_the_claim_is_an_object_of_its_own_so_that_it_can_grow_and_go() -> None:
    spec = render().one("StatefulSet", "postgres")["spec"]
    assert "volumeClaimTemplates" not in spec
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "shield-postgres"}} in spec["template"]["spec"]["volumes"]
    assert "annotations" not in render().one("PersistentVolumeClaim", "postgres")["metadata"]
    assert render("keda").one("PersistentVolumeClaim", "postgres")["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert {"name": "data", "emptyDir": {}} in render("local").pod("StatefulSet", "postgres")["volumes"]


def test_what_may_not_change_in_a_statefulset_does_not_hold_the_charts_version() -> None:
    spec = render().one("StatefulSet", "postgres")["spec"]
    assert not [key for key in spec["selector"]["matchLabels"] if "version" in key or "chart" in key]


def test_production_has_none_and_a_stand_in_may_replace_the_entry_point() -> None:
    assert render("production").of("StatefulSet") == []
    assert render("local").container("StatefulSet", "postgres")["command"][0] == "tini"


def test_the_umbrellas_registry_stands_for_the_public_one() -> None:
    assert render("umbrella").container("StatefulSet", "postgres")["image"] == "registry.example.com/mirror/pgvector/pgvector:0.8.1-pg17"
