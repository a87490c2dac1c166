"""The test services under a pod's restrictions: each asks for its password, and keeps or forgets what it should."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from images.catalogue import TEST_SERVICES
from tests.kubernetes.sandbox import Open, Sandbox, sandboxes

BEGIN = """
import os, signal, socket, subprocess, sys, time
from pathlib import Path
Path('/tmp/password').write_text('right')
def begin(module, **environment):
    return subprocess.Popen([sys.executable, '-m', f'tests.kubernetes.services.{module}'], env={**os.environ, **environment})
def reached(port):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            return socket.create_connection(('127.0.0.1', port), 1).close()
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f'nothing listens on {port}')
"""


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    open_: Open
    with sandboxes(tmp_path_factory.mktemp("services")) as open_:
        yield open_(TEST_SERVICES)


def test_postgres_has_pgvector_wants_its_password_and_keeps_its_data_over_a_kill(services: Sandbox) -> None:
    code = """
import psycopg
def connect(password='right'):
    until = time.monotonic() + 60
    while True:
        try:
            return psycopg.connect(host='127.0.0.1', user='shield', dbname='shield', password=password, autocommit=True)
        except psycopg.OperationalError as error:
            if 'password' in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.1)
places = {'PGDATA': '/var/lib/shield/pg', 'POSTGRES_PASSWORD_FILE': '/tmp/password'}
server = begin('postgres', **places)
with connect() as connection:
    connection.execute('CREATE EXTENSION vector')
    connection.execute("CREATE TABLE kept AS SELECT '[1,2]'::vector AS v")
    version = connection.execute('SHOW server_version').fetchone()[0]
try:
    connect('wrong')
    raise SystemExit('a wrong password was taken')
except psycopg.OperationalError:
    pass
server.kill()
server.wait()
server = begin('postgres', **places)
with connect() as connection:
    kept = connection.execute('SELECT v::text FROM kept').fetchone()[0]
server.send_signal(signal.SIGINT)
print('end', server.wait(30), version.split('.')[0], kept)
"""
    status, said = services.python(BEGIN + code, within=200)
    assert status == 0, said
    assert said.splitlines()[-1] == "end 0 18 [1,2]"


def test_valkey_wants_its_password(services: Sandbox) -> None:
    code = """
import redis
server = begin('valkey', VALKEY_PASSWORD_FILE='/tmp/password')
reached(6379)
answers = []
for password in ('right', 'wrong'):
    try:
        answers.append(redis.Redis(password=password).ping())
    except redis.AuthenticationError:
        answers.append('refused')
assert 'right' not in Path(f'/proc/{server.pid}/cmdline').read_text()
server.terminate()
print('end', server.wait(30), answers)
"""
    status, said = services.python(BEGIN + code, within=120)
    assert status == 0, said
    assert said.splitlines()[-1] == "end 0 [True, 'refused']"


def test_the_qdrant_peer_wants_its_key(services: Sandbox) -> None:
    code = """
import urllib.error, urllib.request
server = begin('qdrant', QDRANT_API_KEY_FILE='/tmp/password')
reached(6333)
def status(key):
    request = urllib.request.Request('http://127.0.0.1:6333/collections', headers={'api-key': key})
    try:
        return urllib.request.urlopen(request, timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code
print('end', status('right'), status('wrong'))
server.kill()
"""
    status, said = services.python(BEGIN + code, within=120)
    assert status == 0, said
    assert "end 200 401" in said


def test_the_site_serves_pages_and_tells_who_asked_for_what(services: Sandbox) -> None:
    code = """
import json, urllib.request
server = begin('site', SITE_PAGES='5')
reached(8080)
get = lambda path: urllib.request.urlopen(f'http://127.0.0.1:8080{path}', timeout=10).read().decode()
get('/-/ready')
page = get('/page/3')
get('/')
visits = json.loads(get('/-/visits'))
server.terminate()
print('end', 'Station 3 stands' in page, visits, server.wait(30))
"""
    status, said = services.python(BEGIN + code, within=120)
    assert status == 0, said
    assert said.splitlines()[-1] == "end True ['/page/3', '/'] 0"
