"""Flower as an operator sees it: a headless Chromium logs in, watches a strategy, terminates it."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from local import private_flower
from playwright.async_api import async_playwright, expect

from tasks import ExecutionStatus

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator, Iterator

    from playwright.async_api import Page, Route

    from tasks import StrategyClient

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
#: Read before the tests' environment is scrubbed of STRATBOX_*.
WRITE_PICTURES = os.environ.get("STRATBOX_SCREENSHOTS") == "write"
RSI = (ROOT / "examples" / "rsi_mean_reversion.py").read_text()
MARKET = json.loads((ROOT / "examples" / "data" / "sp500.json").read_text())
#: Chromium's own traffic, and names: nothing is asked of any host but this one.
CHROMIUM = ["--no-sandbox", "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
PASSWORD = secrets.token_hex(8)
LOOP = "print('position opened')\nwhile True:\n    pass\n"


@pytest.fixture(scope="module")
def flower(redis_url: str, worker_process: subprocess.Popen[bytes]) -> Iterator[str]:
    """Flower beside a real worker."""
    del worker_process
    with private_flower(redis_url, PASSWORD) as address:
        yield address


@pytest.fixture
async def page(flower: str) -> AsyncIterator[Page]:
    """A page of a browser whose user has the password; a request that would leave this machine fails the test."""
    foreign = []

    async def stay_here(route: Route) -> None:
        if route.request.url.startswith(f"{flower}/"):
            await route.continue_()
        else:
            foreign.append(route.request.url)
            await route.abort()

    if (program := shutil.which("chromium") or shutil.which("google-chrome")) is None:
        pytest.fail("no Chromium: run `make setup`")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=CHROMIUM)
        context = await browser.new_context(
            base_url=flower,
            http_credentials={"username": "stratbox", "password": PASSWORD, "origin": flower},
            # A picture of 1280 by 560, with room for every column.
            viewport={"width": 1706, "height": 746},
            device_scale_factor=0.75,
            color_scheme="light",
        )
        await context.route("**/*", stay_here)
        yield await context.new_page()
        await browser.close()
    assert foreign == []


async def picture(page: Page, name: str) -> None:
    """Take a picture of the kind docs/images holds; STRATBOX_SCREENSHOTS=write puts it there."""
    taken = await page.screenshot(animations="disabled")
    assert 10_000 < len(taken) < 150_000
    if WRITE_PICTURES:
        IMAGES.mkdir(parents=True, exist_ok=True)
        (IMAGES / name).write_bytes(taken)


async def test_operator_terminates_a_running_strategy(page: Page, client: StrategyClient) -> None:
    """The worker is online, the strategy runs, its page has a summary; Terminate ends it, and the page says so."""
    expect.set_options(timeout=15_000)
    await page.goto("/")
    await expect(page.locator("#workers-online")).to_have_text("1")
    done = [client.submit(RSI, MARKET, user_id=f"desk-{number}") for number in range(6)]
    assert all(submission.ended_within(30) for submission in done)
    running = client.submit(LOOP, {"symbol": "ACME"}, user_id="alice", timeout=60)
    await expect(page.locator("#workers-active")).to_have_text("1")
    await expect(page.locator("#workers-table tbody tr")).to_contain_text("Online")
    await picture(page, "flower-workers.png")

    await page.get_by_role("link", name="Tasks").click()
    row = page.locator("#tasks-table tbody tr", has_text="STARTED")
    await expect(row).to_contain_text("STRATEGY_EXECUTION")
    await expect(row).to_contain_text("alice")
    await picture(page, "flower-running.png")

    await row.locator("a", has_text=running.id[:8]).first.click()
    await expect(page.locator("#task-page")).to_contain_text(re.compile(r"user_id='alice', code=sha256:[0-9a-f]{12}"))
    await page.wait_for_load_state()  # the page is there before its script is, and the button does nothing until then
    await page.get_by_role("button", name="Terminate").click()
    await expect(page.locator("#toast-container")).to_contain_text(f"Revoked '{running.id}'")
    assert (await running.result_async(timeout=10)).status is ExecutionStatus.CANCELLED
    while await page.locator("#task-page .badge").inner_text() != "SUCCESS":
        await page.reload()  # as it does itself after 5 s
    await expect(page.locator("#task-page")).to_contain_text("'status': 'cancelled'")
    await expect(page.get_by_role("button", name="Terminate")).to_have_count(0)
    await picture(page, "flower-task.png")
