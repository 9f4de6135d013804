"""Others' ways to run the strategy; `ops/setup bench` installs them.

They need an image with a shell, and write into it: `bench/Dockerfile.peers` is of the same Python, numpy and pandas.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import epicbox.utils
from llm_sandbox import SandboxBackend, SandboxSession
from llm_sandbox.pool import PoolConfig, create_pool_manager
from urllib3 import Retry

from bench.contenders import CONFIG, DATA, PATIENCE_SECONDS, STRATEGY, Contender

IMAGE = "stratbox/bench-peers"
FOLDER = "/sandbox"
CODE = STRATEGY.replace("/workspace", FOLDER)
MEBIBYTES = CONFIG.limits.memory_bytes // 2**20


class Epicbox(Contender):
    """A container per strategy, as epicbox makes it: no CPU limit, root inside, a root file system to write to."""

    name = "epicbox"

    def __init__(self, at_once: int) -> None:
        super().__init__(at_once)
        # It was written for urllib3 before 2, where this argument had another name.
        epicbox.utils.Retry = lambda method_whitelist, **options: Retry(allowed_methods=method_whitelist, **options)
        epicbox.configure(profiles=[epicbox.Profile("python", IMAGE)])

    def run(self) -> str:
        """Run the strategy and return what it printed."""
        contents = {"strategy.py": CODE, "data.json": json.dumps(DATA)}
        result = epicbox.run(
            "python",
            "python3 strategy.py",
            files=[{"name": name, "content": text.encode()} for name, text in contents.items()],
            limits={"cputime": 60, "realtime": PATIENCE_SECONDS, "memory": MEBIBYTES, "processes": CONFIG.limits.pids},
        )
        if result["exit_code"]:
            raise RuntimeError(result)
        return str(result["stdout"].decode())


class LlmSandboxPool(Contender):
    """A pool of containers that serve strategy after strategy, whoever's, as llm-sandbox keeps it."""

    name = "llm-sandbox, pool"

    def __init__(self, at_once: int) -> None:
        super().__init__(at_once)
        self._data = Path(self._stack.enter_context(tempfile.TemporaryDirectory()), "data.json")
        self._data.write_text(json.dumps(DATA))
        limits = {
            "mem_limit": f"{MEBIBYTES}m",
            "memswap_limit": f"{MEBIBYTES}m",
            "nano_cpus": round(CONFIG.limits.cpus * 1e9),
            "pids_limit": CONFIG.limits.pids,
            "network_mode": "none",
        }
        kept = {"lang": "python", "image": IMAGE, "skip_environment_setup": True, "runtime_configs": limits}
        size = PoolConfig(max_pool_size=at_once, min_pool_size=at_once)
        pool = create_pool_manager(backend=SandboxBackend.DOCKER, config=size, **kept)
        self._pool = self._stack.enter_context(pool)

    def run(self) -> str:
        """Run the strategy and return what it printed."""
        with SandboxSession(lang="python", pool=self._pool) as session:
            session.copy_to_runtime(str(self._data), f"{FOLDER}/data.json")
            result = session.run(CODE)
        if result.exit_code:
            raise RuntimeError(result)
        return str(result.stdout)


PEERS: list[type[Contender]] = [Epicbox, LlmSandboxPool]
