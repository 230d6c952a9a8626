"""Seconds from the drop of a CSV file on the page of a running server to its forecast, in Chromium.

Needs selenium, and Debian's chromium and chromium-driver or the like.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from tqdm import tqdm

from leapcast.models.errors import UserError, one_line
from leapcast.utils.io.files import write_json
from leapcast.utils.reporting.record import environment

FLAGS = [
    *("headless", "no-sandbox", "no-first-run", "disable-gpu", "disable-quic", "disable-sync", "disable-dev-shm-usage"),
    *("disable-background-networking", "disable-component-update"),
]
DROP = """
const [name, text, done] = arguments;
const files = new DataTransfer();
files.items.add(new File([text], name, {type: "text/csv"}));
const event = new DragEvent("drop", {dataTransfer: files, bubbles: true, cancelable: true});
const result = document.getElementById("result");
const error = document.getElementById("error");
result.hidden = true;
const start = performance.now();
const seen = new MutationObserver(() => {
  if (result.hidden && error.hidden) return;
  seen.disconnect();
  requestAnimationFrame(() => setTimeout(() => done([(performance.now() - start) / 1000, error.textContent])));
});
document.getElementById("drop").dispatchEvent(event);
seen.observe(document.body, {attributes: true, subtree: true, attributeFilter: ["hidden"]});
"""


def chromium(folder: Path, *flags: str) -> webdriver.Chrome:
    """A headless Chromium with an empty profile in ``folder``, which keeps a log of its requests."""
    options = Options()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for flag in (*FLAGS, f"user-data-dir={folder}", *flags):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = shutil.which("chromedriver")
    if not options.binary_location or driver is None:
        raise UserError("no chromium with its chromedriver: install both (Debian: chromium and chromium-driver)")
    return webdriver.Chrome(options, Service(driver))


def drop(browser: webdriver.Chrome, name: str, text: str) -> tuple[float, str]:
    """Drops a file on the page; the seconds until the first forecast is drawn, or an error told, and that error."""
    seconds, error = browser.execute_async_script(DROP, name, text)
    return seconds, error


@one_line
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("url", help="of a running server on this machine")
    parser.add_argument("table", type=Path, help="CSV file")
    parser.add_argument("--times", type=int, default=20, help="drops, each on a page loaded anew")
    parser.add_argument("--output", type=Path, default=Path("results/serving"), help="folder")
    args = parser.parse_args(argv)
    if args.times < 1:
        raise UserError(f"--times {args.times}: give at least 1")
    if not args.table.is_file():
        raise UserError(f"no data file {args.table}: give a CSV file")
    text, found = args.table.read_text(), []
    with tempfile.TemporaryDirectory() as folder:
        browser = chromium(Path(folder))
        try:
            browser.set_script_timeout(60)
            for _ in tqdm(range(args.times), desc="drops", disable=None):
                browser.get(args.url)
                one, error = drop(browser, args.table.name, text)
                if error:
                    raise UserError(f"the page says: {error}")
                found.append(one)
            version = browser.capabilities["browserVersion"]
        finally:
            browser.quit()
    seconds = {"first": found[0], "median": statistics.median(found), "max": max(found)}
    machine = environment(torch.device("cpu")) | {"chromium": version}
    del machine["threads"]  # the server has its own
    record = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python scripts/serving/page_time.py " + " ".join(sys.argv[1:] if argv is None else argv),
        "environment": machine,
        "cores": os.cpu_count(),
        "drops": len(found),
        "seconds": seconds,
    }
    write_json(args.output / "page.json", record)
    told = ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())
    print(f"{args.table.name}, from drop to forecast: {told} ({len(found)} drops, {record['cores']} cores)")


if __name__ == "__main__":
    sys.exit(main())
