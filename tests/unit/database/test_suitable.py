"""What is said about a server that will not do."""

import pytest

from shield.database.suitable import Server


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (Server(number=140012, encoding="UTF8", vector="0.8.0"), "PostgreSQL 14.12 is too old; 15 or later is needed."),
        (Server(number=90624, encoding="UTF8", vector="0.8.0"), "too old"),
        (Server(number=160004, encoding="SQL_ASCII", vector="0.8.0"), "encoding is SQL_ASCII"),
        (Server(number=160004, encoding="UTF8", vector=None), "CREATE EXTENSION vector"),
    ],
)
def test_the_reason_is_a_sentence_with_what_to_do(server: Server, said: str) -> None:
    assert said in (server.problem() or "")


def test_a_server_that_will_do_has_no_problem() -> None:
    assert Server(number=150000, encoding="UTF8", vector="0.5.0").problem() is None
    assert Server(number=180004, encoding="UTF8", vector=None, may_install=True).problem() is None
