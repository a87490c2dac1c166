"""Proofs that count from the outside: `python -m tests.proofs delete | errors | isolation [--sabotage]`.

Each prints its counts and exits with 0 only if they are right. With `--sabotage` the product is broken on purpose first, and
the proof must fail; the Makefile's targets run both.
"""

from __future__ import annotations

import asyncio
import sys

from tests.proofs import delete, errors, isolation

PROOFS = {"delete": delete.prove, "errors": errors.prove, "isolation": isolation.prove}


def main() -> int:
    """Run one proof."""
    names = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    if len(names) != 1 or names[0] not in PROOFS:
        print(f"usage: python -m tests.proofs {' | '.join(PROOFS)} [--sabotage]", file=sys.stderr)
        return 2
    sabotage = "--sabotage" in sys.argv
    good = asyncio.run(PROOFS[names[0]](sabotage=sabotage))
    if sabotage:
        print(f"proof-{names[0]} on a product broken on purpose: {'NOT NOTICED' if good else 'noticed, as it must be'}")
        return 1 if good else 0
    print(f"proof-{names[0]}: {'ok' if good else 'FAILED'}")
    return 0 if good else 1


sys.exit(main())
