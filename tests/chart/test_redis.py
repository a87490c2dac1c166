"""The small Valkey of dev: nothing on disk, its password in a file."""

from __future__ import annotations

from tests.chart.render import render


def test_it_is_started_with_a_file_that_holds_the_password() -> None:
    container = render().container("StatefulSet", "redis")
    assert container["args"][0] == "/etc/shield/redis/redis.conf"
    assert "noeviction" in container["args"]
    [config] = [one for one in render().pod("StatefulSet", "redis")["volumes"] if one["name"] == "config"]
    assert config["secret"] == {"secretName": "shield-stores", "items": [{"key": "redis.conf", "path": "redis.conf"}]}


def test_it_keeps_nothing() -> None:
    assert "redis" not in render().names("PersistentVolumeClaim")
    assert "redis" not in render("production").names("StatefulSet")
