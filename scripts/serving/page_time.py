"""Seconds from the drop of a CSV file on the page to its forecast, in Chromium: page_time.py URL TABLE.csv [TIMES]

Needs selenium, and Debian's chromium and chromium-driver or the like.
"""

import shutil
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from leapcast.models.errors import UserError, one_line

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
def main(url: str, table: str, times: str = "5") -> None:
    import tempfile

    text = Path(table).read_text()
    with tempfile.TemporaryDirectory() as folder:
        browser = chromium(Path(folder))
        try:
            browser.set_script_timeout(60)
            found = []
            for _ in range(int(times)):
                browser.get(url)
                seconds, error = drop(browser, Path(table).name, text)
                if error:
                    raise UserError(f"the page says: {error}")
                found.append(seconds)
        finally:
            browser.quit()
    rest = f", then median {statistics.median(found[1:]):.2f} s" if len(found) > 1 else ""
    print(f"{Path(table).name}, from drop to forecast: first {found[0]:.2f} s{rest} ({len(found)} drops)")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
