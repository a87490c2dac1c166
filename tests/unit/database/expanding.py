"""Whether a migration only expands: what it does to tables that an older program is using at the same moment.

Tables that the migration itself makes are its own. To those that were there it may add columns that are nullable or have a default,
and indexes that refuse nothing. SQL in `op.execute` may not drop, rename, retype or tighten.
"""

from __future__ import annotations

import ast
import re

_ADDS = {"create_table", "add_column", "create_index", "execute", "f", "create_table_comment"}
_CONTRACTING = re.compile(
    r"\b(DROP|RENAME|TRUNCATE|DELETE\s+FROM|SET\s+NOT\s+NULL|SET\s+DATA\s+TYPE|ALTER\s+COLUMN\s+\S+\s+TYPE|ADD\s+CONSTRAINT)\b",
    re.IGNORECASE,
)


def contractions(source: str) -> list[str]:
    """What in a migration's `upgrade` would break an older program, one sentence each."""
    (upgrade,) = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == "upgrade"]
    calls = [node for node in ast.walk(upgrade) if isinstance(node, ast.Call)]
    operations = [(node.func.attr, node) for node in calls if isinstance(node.func, ast.Attribute) and _is_op(node.func.value)]
    made = {_text(node.args[0]) for name, node in operations if name == "create_table"}
    found = [f"op.{name} is not an addition" for name, _ in operations if name not in _ADDS]
    for name, node in operations:
        if name == "add_column" and _text(node.args[0]) not in made:
            options = {option.arg: option.value for option in _inner(node.args[1]).keywords}
            if _is(options.get("nullable"), False) and "server_default" not in options:
                found.append(f"a new column of {_text(node.args[0])} is required and has no default")
        unique = any(option.arg == "unique" and _is(option.value, True) for option in node.keywords)
        if name == "create_index" and unique and _text(node.args[1]) not in made:
            found.append(f"a new unique index on {_text(node.args[1])} refuses what an older program writes")
        if name == "execute":
            texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            if not texts:
                found.append("op.execute runs what is not written here")
            found += [f"SQL: {match[0]}" for text in texts if (match := _CONTRACTING.search(text))]
    return found


def _is_op(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"op", "batch_op"}


def _is(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _text(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else ast.dump(node)


def _inner(node: ast.expr) -> ast.Call:
    assert isinstance(node, ast.Call)
    return node
