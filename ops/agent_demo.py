"""`make agent-demo`: from a sentence to a tested strategy, with a scripted model in place of DeepSeek.

Starts a Redis, a worker and a server that speaks the chat-completions protocol, runs `stratbox generate`, and stops
what it started. The model's first strategy imports os, its second one never ends, its third is a good one.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from local import private_redis, private_worker
from scripted_model import Reply, scripted_model

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "Create RSI mean reversion strategy"
SCRIPT = (
    "import os\n\nprint(os.environ)\n",
    "position = 0\nwhile position < 1:\n    position += 0\n",
    (ROOT / "examples" / "rsi_mean_reversion.py").read_text(),
)


def main() -> int:
    """Run the command as a user would; return its exit code."""
    replies = [Reply(f"Here is the strategy.\n\n```python\n{code}```\n") for code in SCRIPT]
    with private_redis() as redis_url, private_worker(redis_url), scripted_model(*replies) as model:
        arguments = [PROMPT, "--data", "examples/data/sp500.json", "--timeout", "2", "--out", ".setup/rsi.py"]
        own = {
            "STRATBOX_REDIS_URL": redis_url,
            "STRATBOX_DEEPSEEK_BASE_URL": model.url,
            "STRATBOX_DEEPSEEK_API_KEY": "none-is-needed-here",
        }
        print(shlex.join(["stratbox", "generate", *arguments]), flush=True)
        command = [sys.executable, "-m", "worker.cli", "generate", *arguments]
        return subprocess.run(command, cwd=ROOT, env=os.environ | own, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
