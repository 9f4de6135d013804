"""The first code of every sandbox: become the runner, out of its archive. Standard library only."""

from __future__ import annotations

import gc

from worker.sandbox import archive

if __name__ == "__main__":
    gc.disable()  # imports make hardly any garbage; looking for it again and again takes 30 ms
    archive.use()
    from worker.sandbox import runner

    runner.main()
