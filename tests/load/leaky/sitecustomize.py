"""A leak of 2 MiB a minute in every Shield process, planted to see that a soak catches it."""

import os
import threading
import time

if os.environ.get("SHIELD_MODE") == "server":
    _kept: list[bytearray] = []

    def _leak() -> None:
        while True:
            time.sleep(1.5)
            _kept.append(bytearray(os.urandom(52_429)))  # 2 MiB / 40, touched so that it is resident

    threading.Thread(target=_leak, daemon=True).start()
