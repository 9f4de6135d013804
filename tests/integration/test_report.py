"""The report of a strategy that really ran, opened in a real browser."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from matplotlib import image
from playwright.async_api import async_playwright

from tasks import ExecutionRequest
from worker.report.backtest import backtest_of
from worker.report.figures import claims, measure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Page, Route

    from worker import CodeExecutor

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
#: Read before the tests' environment is scrubbed of STRATBOX_*.
WRITE_PICTURES = os.environ.get("STRATBOX_SCREENSHOTS") == "write"
DATA = ROOT / "examples" / "data" / "sp500.json"
MARKET = json.loads(DATA.read_text())
#: Names lead nowhere: whatever a page asks for is seen, and answered by nobody.
CHROMIUM = ["--no-sandbox", "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND"]
HOSTILE = """
import json

name = "</title></svg><script>document.title = 'taken'</script><img src='http://127.0.0.1:9/x' onerror='alert(1)'>"
signals = [{"date": f"1999-01-0{day}", "action": action, "price": 1240} for day, action in ((5, name), (6, "BUY"))]
bars = len(json.load(open("/workspace/data.json"))["bars"]["close"])
print(json.dumps({"strategy": name, "symbol": "$x_{$", "headline": name, "signals": signals, "equity": [1.0] * bars}))
"""
#: Where a line begins on the screen, and how wide it is: a bounding rectangle has half of the stroke around it.
WITHOUT_STROKE = """
line => {
    const box = line.getBBox(), screen = line.getScreenCTM();
    return [screen.a * box.x + screen.e, screen.a * box.width];
}
"""
#: The middle of each mark on the screen, from left to right.
MIDDLES = """
selector => [...document.querySelectorAll(selector)].map(mark => {
    const box = mark.getBoundingClientRect();
    return [box.left + box.width / 2, box.width, box.height];
}).sort((one, other) => one[0] - other[0])
"""


@dataclasses.dataclass
class Reader:
    """A browser's page, and what it asked for and complained of."""

    page: Page
    asked: list[str]
    complaints: list[str]

    async def open(self, path: Path) -> None:
        """Open a report; it needs nothing but itself, and nothing is wrong with it."""
        await self.page.goto(path.as_uri())
        await self.page.wait_for_load_state("networkidle")
        assert self.asked == [path.as_uri()]
        assert self.complaints == []

    async def figure(self, key: str) -> tuple[str, str]:
        """Return a figure in full and as it is shown."""
        found = self.page.locator(f"#{key} data")
        return await found.get_attribute("value") or "", await found.inner_text()


@pytest.fixture
async def reader() -> AsyncIterator[Reader]:
    """A browser; requests of others than the page's own file are noted and not let through."""
    asked: list[str] = []
    complaints: list[str] = []

    async def note(route: Route) -> None:
        asked.append(route.request.url)
        await (route.continue_() if route.request.url.startswith("file://") else route.abort())

    if (program := shutil.which("chromium") or shutil.which("google-chrome")) is None:
        pytest.fail("no Chromium: run `make setup`")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=CHROMIUM)
        context = await browser.new_context(
            viewport={"width": 1280, "height": 962}, device_scale_factor=0.9, color_scheme="light"
        )
        await context.route("**/*", note)
        page = await context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield Reader(page, asked, complaints)
        await browser.close()


def reported(executor: CodeExecutor, code: str, folder: Path, *options: str | Path) -> tuple[Path, dict[str, Any]]:
    """Run a strategy in a sandbox and make its report; gives the page, and what the strategy printed."""
    result = executor.execute(ExecutionRequest(code=code, data=MARKET))
    assert result.success, result.error
    (folder / "result.json").write_text(result.model_dump_json())
    page = folder / "report.html"
    command = [
        sys.executable,
        "-m",
        "worker.cli",
        "report",
        folder / "result.json",
        "--data",
        DATA,
        "-o",
        page,
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (0, f"wrote {page}"), done.stderr
    printed: dict[str, Any] = result.json()
    return page, printed


def recomputed(printed: dict[str, Any]) -> dict[str, float]:
    """Return the figures of what was printed, computed here once more, in another way."""
    equity = printed["equity"]
    returns = [equity[bar] / equity[bar - 1] - 1 for bar in range(1, len(equity))]
    signals = [signal["action"] for signal in printed["signals"]]
    return {
        "total_return": equity[-1] / equity[0] - 1,
        "sharpe": statistics.mean(returns) / statistics.stdev(returns) * math.sqrt(252),
        "max_drawdown": min(equity[bar] / max(equity[: bar + 1]) - 1 for bar in range(len(equity))),
        "trades": signals.count("SELL"),
        "bars": len(MARKET["bars"]["close"]),
    }


@pytest.mark.parametrize("name", ["moving_average_crossover", "rsi_mean_reversion"])
async def test_a_report_shows_what_the_strategy_printed(
    name: str, executor: CodeExecutor, tmp_path: Path, reader: Reader
) -> None:
    """Figures as computed here from the equity, in full and rounded; drawn, with a mark for each signal at its bar."""
    picture = tmp_path / "report.png"
    path, printed = reported(executor, (ROOT / f"examples/{name}.py").read_text(), tmp_path, "--png", picture)
    await reader.open(path)
    page = reader.page

    assert await page.locator("h1").inner_text() == f"{name} · SP500"
    expected = recomputed(printed)
    for key, value in expected.items():
        full, shown = await reader.figure(key)
        assert float(full) == pytest.approx(value, rel=1e-9), key
        percent, digits = f"{value:.1%}", f"{value:.2f}"
        assert shown.removeprefix("+") == {"sharpe": digits, "trades": str(value), "bars": "5,031"}.get(key, percent)
        assert printed["metrics"].get(key, value) == pytest.approx(value, abs=1e-3), "as the strategy itself says"
    assert await page.locator(".claim").count() == ("trades" not in printed), "only a win rate that nobody can check"
    wins = [trade["profit"] > 0 for trade in printed.get("trades", ()) if trade["exit_date"]]
    assert (await reader.figure("win_rate"))[0] == (str(sum(wins) / len(wins)) if wins else "")

    drawn = await page.locator("figure svg").bounding_box()
    assert drawn is not None
    assert drawn["width"] > 1000
    assert drawn["height"] > 500
    for line in ("line-price", "line-equity", "line-drawdown"):
        box = await page.locator(f"#{line} path").bounding_box()
        assert box is not None
        assert box["width"] > 0.8 * drawn["width"]
        assert box["height"] > 50
    left, width = await page.locator("#line-price path").evaluate(WITHOUT_STROKE)
    for action in ("BUY", "SELL"):
        dates = [signal["date"] for signal in printed["signals"] if signal["action"] == action]
        bars = [MARKET["bars"]["date"].index(date) for date in dates]
        middles = await page.evaluate(MIDDLES, f"#signals-{action.lower()} use")
        assert len(middles) == len(bars) > 5
        across = [left + width * bar / (expected["bars"] - 1) for bar in bars]
        assert [middle for middle, _, _ in middles] == pytest.approx(across, abs=0.5)
        assert all(min(size) > 4 for _, *size in middles)

    height, width, _ = image.imread(picture).shape
    assert (width, height) == (1440, 840)
    assert path.stat().st_size < 300_000
    taken = await page.screenshot(animations="disabled")
    assert 10_000 < len(taken) < 150_000
    if WRITE_PICTURES and name == "moving_average_crossover":
        IMAGES.mkdir(parents=True, exist_ok=True)
        (IMAGES / "report.png").write_bytes(taken)


@pytest.mark.parametrize(
    "name", ["rsi_mean_reversion", "moving_average_crossover", "bollinger_breakout", "pairs_trading"]
)
def test_no_example_is_contradicted(name: str, executor: CodeExecutor) -> None:
    """What numpy and pandas made of it in the sandbox is what the report computes: the convention means the same."""
    data = json.loads((ROOT / "examples/data/sp500_nasdaq.json").read_text())
    code = (ROOT / f"examples/{name}.py").read_text()
    printed = backtest_of(executor.execute(ExecutionRequest(code=code, data=data)), name)
    figures = dataclasses.asdict(measure(printed))
    said = claims(printed.metrics)
    assert said.keys() == {"total_return", "sharpe", "max_drawdown", "trades", "win_rate"}
    if not printed.trades:
        del said["win_rate"]
    # Metrics and equity are printed rounded.
    assert {key: figures[key] for key in said} == pytest.approx(said, abs=1e-4)


async def test_a_hostile_strategy_stays_text(executor: CodeExecutor, tmp_path: Path, reader: Reader) -> None:
    """What it calls itself is read as it is written: no element comes of it, nothing runs, nothing is fetched."""
    path, printed = reported(executor, HOSTILE, tmp_path)
    await reader.open(path)
    page, name = reader.page, printed["strategy"]
    assert await page.locator("h1").inner_text() == f"{name} · $x_{{$"
    assert await page.title() == f"{name} · $x_{{$"
    assert await page.locator(".headline").inner_text() == f"The strategy says: {name}"
    assert name in await page.locator("tbody").inner_text()
    assert await page.locator("script, img, iframe, object, link, a").count() == 0
    assert await page.locator("svg").count() == 1
    assert await page.locator("#signals-buy use, #signals-other use").count() == 2
    sharpe, shown = await reader.figure("sharpe")
    assert (float(sharpe), shown) == (0.0, "0.00")


async def test_the_page_itself_forbids_what_it_does_not_need(
    executor: CodeExecutor, tmp_path: Path, reader: Reader
) -> None:
    """Were there markup of a strategy's in it after all, it could neither run a script nor fetch anything."""
    path, _ = reported(executor, HOSTILE, tmp_path)
    await reader.open(path)
    markup = "<img src='http://127.0.0.1:9/x'><img src='data:,' onerror=\"document.title = 'taken'\">"
    await reader.page.evaluate("markup => document.body.insertAdjacentHTML('beforeend', markup)", markup)
    await reader.page.wait_for_timeout(300)
    assert await reader.page.title() != "taken"
    assert [url for url in reader.asked if url.startswith("http")] == []
    assert any("img-src" in complaint for complaint in reader.complaints)
    assert any("script" in complaint for complaint in reader.complaints)
