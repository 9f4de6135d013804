"""`make agent-demo`: from a sentence to a tested strategy, with a scripted model in place of DeepSeek.

Starts a Redis, a worker and a server that speaks the chat-completions protocol, runs `stratbox generate`, and stops
what it started. The model's first strategy imports os, its second one never ends, its third is a good one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from local import private_redis, private_worker
from scripted_model import Reply, scripted_model

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PROMPT = "Create RSI mean reversion strategy"
SCRIPT = (
    "import os\n\nprint(os.environ)\n",
    "position = 0\nwhile position < 1:\n    position += 0\n",
    (EXAMPLES / "rsi_mean_reversion.py").read_text(),
)


def main() -> int:
    """Run the command as a user would; return its exit code."""
    replies = [Reply(f"Here is the strategy.\n\n```python\n{code}```\n") for code in SCRIPT]
    with (
        tempfile.TemporaryDirectory(prefix="stratbox-agent-demo-") as folder,
        private_redis() as redis_url,
        private_worker(redis_url),
        scripted_model(*replies) as model,
    ):
        arguments = [
            PROMPT,
            "--data",
            str(EXAMPLES / "data" / "sp500.json"),
            "--timeout",
            "2",
            "--out",
            f"{folder}/rsi.py",
        ]
        own = {
            "STRATBOX_REDIS_URL": redis_url,
            "STRATBOX_DEEPSEEK_BASE_URL": model.url,
            "STRATBOX_DEEPSEEK_API_KEY": "none-is-needed-here",
        }
        print(f'stratbox generate "{PROMPT}" --data examples/data/sp500.json --timeout 2 --out rsi.py', flush=True)
        command = [sys.executable, "-m", "worker.cli", "generate", *arguments]
        return subprocess.run(command, env=os.environ | own, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
