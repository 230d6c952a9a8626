"""The page in a headless Chromium, with a stand-in of the server, and once with the server itself."""

import csv
import io
import json
import re
import shutil
import socket
import subprocess
import sys

import pytest

from tests.serving.stub import MODEL, PATCH, Stub, hours, wave

pytest.importorskip("selenium", reason="the page is tested with selenium, which is not installed")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from leapcast.utils.io.files import harmless
from scripts.serving.page_time import chromium, drop, main

if not (shutil.which("chromedriver") and (shutil.which("chromium") or shutil.which("google-chrome"))):
    pytest.skip("the page is tested in Chromium, which is not installed", allow_module_level=True)

PATIENCE = 60  # seconds; no test depends on how fast it is
DONE = "const r = document.getElementById('result'); return !r.hidden && r.getAttribute('aria-busy') === 'false'"
ROWS = 800


def table(rows: int = ROWS, mark: str = ",") -> str:
    lines = [("date", "heat", "wind speed")]
    lines += [(stamp.replace("T", " "), str(wave(i)), str(wave(i + 7, 30))) for i, stamp in enumerate(hours(rows))]
    return "".join(mark.join(line) + "\n" for line in lines)


def long_table() -> str:
    lines = (f"{name},{stamp},{wave(i, level)}" for i, stamp in enumerate(hours(200)) for name, level in SERIES.items())
    return "item_id,timestamp,target\n" + "\n".join(lines)


SERIES = {"north": 50.0, "south": 80.0}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = chromium(tmp_path_factory.mktemp("profile"), "window-size=1280,900")
    browser.set_script_timeout(PATIENCE)
    yield browser
    browser.quit()


class Page:
    """What a person does on the page."""

    def __init__(self, browser, url: str):
        self.browser, self.url = browser, url
        for log in ("performance", "browser"):
            browser.get_log(log)  # forgets it
        browser.get(url)
        self.until(lambda: self["server"].text or self["access"].is_displayed())

    def __getitem__(self, name: str):
        return self.browser.find_element(By.ID, name)

    def until(self, condition):
        return WebDriverWait(self.browser, PATIENCE).until(lambda _: condition())

    def all(self, selector: str) -> list:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def done(self) -> None:
        self.until(lambda: self.browser.execute_script(DONE))

    def error(self) -> str:
        return self["error"].text

    def set(self, name: str, value: object) -> None:
        self[name].clear()
        self[name].send_keys(str(value))

    def submit(self) -> None:
        self.all("#settings button")[0].click()
        self.done()

    def example(self) -> None:
        self["example"].click()
        self.done()

    def drop(self, text: str, name: str = "table.csv") -> float:
        """Seconds until the forecast, or the error, is shown."""
        seconds, error = drop(self.browser, name, text)
        if not error:
            self.done()
        return seconds

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, **features: str) -> None:
        media = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})

    def style(self, selector: str, name: str) -> str:
        return self.all(selector)[0].value_of_css_property(name)

    def check(self, *expected: str) -> None:
        """Nobody else was asked for anything, and the console is empty but for ``expected`` addresses that failed."""
        sent = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        asked = [message["params"] for message in sent if message["method"] == "Network.requestWillBeSent"]
        asked = [one["request"]["url"] for one in asked if one["documentURL"].startswith(self.url)]  # not of new tabs
        assert asked
        assert not [url for url in asked if not url.startswith((self.url, f"blob:{self.url}"))]
        logged = [entry["message"] for entry in self.browser.get_log("browser")]
        assert not [line for line in logged if not line.startswith(tuple(self.url + path for path in expected))]


@pytest.fixture
def stub():
    stub = Stub()
    yield stub
    stub.close()


@pytest.fixture
def page(browser, stub):
    page = Page(browser, stub.url)
    yield page
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.prefer()
    page.check(*(["v1/forecast"] if stub.refusal else []))


def test_the_example_is_forecast_at_once(page, stub):
    page.example()
    fast, alone, *rest = stub.asked
    assert rest == [fast, alone, fast, alone]
    assert {**fast, "draft": "none"} == alone
    assert (fast["horizon"], fast["tolerance"], fast["draft"]) == (14 * PATCH, 0.005, "default")
    assert "quantile_levels" not in fast
    (series,) = fast["series"]
    assert len(series["values"]) == len(series["timestamps"]) == 1008
    line = page["line"].text
    assert line.startswith("71 % of the patches were accepted proposals: 10 of 14 model passes saved. 43 ms with spec")
    assert "136 ms without: 3.2 × faster (this machine, this request, medians of 3)" in line
    assert "differ by at most" in page["remark"].text
    (chart,) = page.all(".plot")
    assert chart.find_element(By.TAG_NAME, "canvas").size["width"] > 300
    assert chart.accessible_name.startswith(
        "Quay Street, value: the last 336 values, then a forecast of 336 values from "
    )
    assert chart.accessible_name.endswith("10 of 14 patches accepted.")
    assert page["about"].text == "Example: 2,016 rows, 2 series, 1 column of numbers, until 2024-02-11 23:00:00."
    assert len(page.all("#table tbody tr")) == 14 * PATCH


def test_values_are_read_off_the_chart(page):
    page.example()
    page.set("paths", 20)
    page.submit()
    over = page.all(".u-over")[0]
    readout = page.all(".readout")[0]
    assert readout.text == "value"
    ActionChains(page.browser).move_to_element_with_offset(over, -100, 0).perform()
    page.until(lambda: re.fullmatch(r"value · 2024-\d\d-\d\d \d\d:\d\d · [\d.]+", readout.text))
    ActionChains(page.browser).move_to_element_with_offset(over, 100, 0).perform()
    page.until(lambda: re.search(r" · forecast [\d.]+ \([\d.]+ to [\d.]+\)$", readout.text))


def test_a_dropped_file_is_forecast(page, stub):
    print(f"from drop to forecast: {page.drop(table()):.2f} s")
    assert page["about"].text == "table.csv: 800 rows, 2 columns of numbers, until 2024-02-03 07:00:00."
    assert stub.asked[0]["series"][0]["values"][-1] == wave(ROWS - 1)
    assert page.error() == ""


def test_a_chosen_file_is_forecast(page, stub, tmp_path):
    (tmp_path / "chosen.csv").write_text(table(mark=";"))
    for rounds in (1, 2):  # the same file may be chosen again
        page["file"].send_keys(str(tmp_path / "chosen.csv"))
        page.until(lambda: len(stub.asked) == 6 * rounds)  # noqa: B023
        page.done()
    assert page["about"].text.startswith("chosen.csv: 800 rows")


def test_settings_are_sent_and_paths_have_a_band(page, stub):
    page.drop(table())
    page.set("horizon", 30)
    page.set("tolerance", 0.01)
    page.set("paths", 20)
    Select(page["draft"]).select_by_value("self")
    page.all("#columns input")[1].click()
    page.submit()
    *_, fast, alone = stub.asked
    expected = {
        "horizon": 30,
        "tolerance": 0.01,
        "draft": "self",
        "quantile_levels": [0.1, 0.5, 0.9],
        "num_samples": 20,
    }
    assert expected.items() <= fast.items()
    assert alone == {**fast, "draft": "none"}
    assert fast["series"][0]["values"][-1] == [wave(ROWS - 1), wave(ROWS + 6, 30)]
    charts = page.all(".plot")
    assert [chart.accessible_name.split(":")[0] for chart in charts] == ["heat", "wind speed"]
    assert all("80 % band between" in chart.accessible_name for chart in charts)
    assert "forecast (median)\n80 % band\n" in page["legend"].text
    page.all("summary")[0].click()
    names = [name + level for name in ("heat", "wind speed") for level in ("", " 0.1", " 0.5", " 0.9")]
    assert [cell.text for cell in page.all("#table thead th")] == ["time", *names]


def test_a_series_of_a_long_table_is_chosen(page, stub):
    page.drop(long_table())
    assert page["about"].text == "table.csv: 400 rows, 2 series, 1 column of numbers, until 2024-01-09 07:00:00."
    Select(page["series"]).select_by_visible_text("south")
    page.submit()
    assert stub.asked[-1]["series"][0]["values"] == [wave(i, SERIES["south"]) for i in range(200)]
    assert page["result-title"].text == "Forecast of south"


@pytest.mark.parametrize("limit", [1_000_000, 1000])
def test_only_the_last_rows_are_sent(page, stub, limit):
    stub.model["limits"] = {**MODEL["limits"], "values": limit}
    page.browser.refresh()
    page.drop(table(3000))
    (series,) = stub.asked[0]["series"]
    assert len(series["values"]) == len(series["timestamps"]) == min(4 * MODEL["context"], limit)
    assert series["timestamps"][-1] == hours(3000)[-1]


def test_without_a_draft_nothing_is_compared(page, stub):
    page.example()
    Select(page["draft"]).select_by_value("none")
    page.submit()
    assert [body["draft"] for body in stub.asked] == ["default", "none"] * 3 + ["none"]
    assert page["line"].text == "Decoded by the model alone: 14 passes in 136 ms."
    stub.planned = None
    Select(page["draft"]).select_by_value("default")
    page.submit()
    assert page["line"].text.endswith("The server's plan takes no draft here: it would not pay.")


@pytest.mark.parametrize(
    ("burden", "told"),
    [
        (0.5, "14 ms with speculation, 4.8 ms without: 2.8 × slower (this machine, this request, medians of 3)."),
        (3.0, "14 ms with speculation, 29 ms without: no gain (this machine, this request, medians of 3)."),
        (400.0, "14 ms with speculation, 3880 ms without: no gain (this machine, this request, once)."),
    ],
)
def test_speculation_that_saves_nothing_is_not_called_faster(page, stub, burden, told):
    stub.burden = burden
    page.drop(table())
    page.set("horizon", PATCH)
    page.submit()
    assert page["line"].text == f"0 % of the patches were accepted proposals: 0 of 1 model passes saved. {told}"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            ("2024-01-02 03:00:00", "02.01.2024 03:00"),
            "data row 28: in “02.01.2024 03:00” the day or the month may come",
        ),
        ((f",{wave(790)},", ",warm,"), "data row 791, column “heat”: “warm” is not a number"),
        ((f",{wave(790)},", ',"1,5",'), "column “heat”: “1,5” is not a number: write decimals with a point"),
        ((f",{wave(790)},", ",1e999,"), "column “heat”: “1e999” is too large"),
        (
            ("2024-01-02 03:00:00", "2024-01-02 04:30:00"),
            "data row 29: “2024-01-02 04:00:00” is not later than the row",
        ),
        (("2024-01-02 03:00:00", "2024-02-30"), "data row 28: “2024-02-30” is no time stamp: write"),
        (("date,heat,wind speed\n", ""), "the first row holds values: it must name the columns"),
        (("heat,wind speed", "heat,heat"), "two columns are called “heat”"),
        (("2024-01-01 05:00:00,", "2024-01-01 05:00:00,1,"), "data row 6 has 4 cells, the header 3"),
        (("date", '"date'), "a quotation mark is not closed"),
        (("date", "\0"), "this is not a text file: save the table as CSV"),
    ],
)
def test_what_is_wrong_with_a_table_is_told_in_one_line(page, stub, change, told):
    text = table()
    assert change[0] in text
    page.drop(text.replace(*change, 1))
    assert told in page.error()
    assert page.error().startswith("table.csv: " if page["work"].get_attribute("hidden") else "")
    assert "\n" not in page.error()
    assert page["error"].aria_role == "alert"
    assert not page["result"].is_displayed()
    assert not stub.asked


def test_missing_rows_and_short_tables_are_told(page):
    lines = table().splitlines(keepends=True)
    page.drop("".join(lines[:700] + lines[701:]))
    assert "data row 700: “2024-01-30 04:00:00” does not follow “2024-01-30 02:00:00” by the usual step" in page.error()
    page.drop("".join(lines[:41]))
    assert page.error() == "the series has 40 rows, and the model needs 48: take a longer one"
    page.drop("date,a\n")
    assert page.error() == "table.csv: the file has no rows: a header and rows of numbers are expected"
    page.drop(table())
    assert page.error() == ""


def test_gaps_are_filled_and_told(page, stub):
    page.drop(table().replace(f",{wave(790)},", ",,", 1).replace(f",{wave(791)},", ",NA,", 1))
    assert page["warnings"].text == "Column “heat”: 2 empty cells were filled linearly, the first in data row 791."
    values = stub.asked[0]["series"][0]["values"]
    assert values[790] == pytest.approx((2 * wave(789) + wave(792)) / 3)
    assert values[791] == pytest.approx((wave(789) + 2 * wave(792)) / 3)


def test_an_error_of_the_server_is_told(page, stub):
    stub.refusal = 422, "series 0: too short"
    page["example"].click()
    page.until(page.error)
    assert page.error() == "series 0: too short"
    page.set("horizon", 0)
    page.all("#settings button")[0].click()
    page.until(lambda: page.error().startswith("Horizon: "))
    assert page["horizon"].get_attribute("aria-invalid") == "true"
    assert page.browser.switch_to.active_element == page["horizon"]
    page.set("horizon", 48)
    stub.refusal = None
    page.submit()
    assert page.error() == ""
    stub.refusal = 503, "draining"  # its line in the console is expected


def test_a_server_that_is_gone_is_told(browser):
    stub = Stub()
    page = Page(browser, stub.url)
    stub.close()
    page["example"].click()
    page.until(page.error)
    assert page.error() == "the server does not answer: is it still running?"
    page.check("v1/example")


def test_a_token_is_asked_for_and_kept_in_memory(browser, stub):
    stub.token = "sesame"
    page = Page(browser, stub.url)
    assert browser.switch_to.active_element == page["token"]
    page["token"].send_keys("mustard", Keys.ENTER)
    page.until(page.error)
    assert page.error() == "the server does not take this token"
    page["token"].send_keys("sesame", Keys.ENTER)
    page.until(lambda: page["server"].text)
    page.example()
    assert not page["access"].is_displayed()
    assert browser.execute_script("return [localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    page.check("v1/model")


def test_the_keyboard_is_enough(page, stub):
    keys = ActionChains(page.browser)

    def reach(name: str) -> None:
        for _ in range(30):
            keys.send_keys(Keys.TAB).perform()
            if page.browser.switch_to.active_element.get_attribute("id") == name:
                return
        raise AssertionError(f"#{name} is not reached by Tab")

    reach("file")
    assert page["file"].accessible_name == "Drop a CSV file here, or choose one"
    assert page.style("#drop", "outline-style") == "solid"  # the focus is seen
    reach("example")
    assert page.style("#example", "outline-style") == "solid"
    keys.send_keys(Keys.ENTER).perform()
    page.done()
    reach("download")
    reach("horizon")
    assert page.style("#horizon", "outline-style") == "solid"
    keys.send_keys("72", Keys.ENTER).perform()
    page.until(lambda: len(stub.asked) == 12)
    assert stub.asked[-1]["horizon"] == 72


def test_a_screen_reader_finds_its_way(page):
    page.example()
    roles = {role: [e for e in page.all("header, main, footer, section") if e.aria_role == role] for role in LANDMARKS}
    assert all(roles.values())
    assert all(element.accessible_name for element in roles["region"])
    controls = [e for e in page.all("button, select, input, a, summary") if e.is_displayed() or e == page["file"]]
    assert len(controls) > 8
    assert all(element.accessible_name for element in controls)
    assert page["line"].get_attribute("aria-live") == "polite"
    page.all("summary")[0].click()
    assert page["table"].aria_role == "table"
    assert page.browser.execute_script("return document.documentElement.lang") == "en"


LANDMARKS = "banner", "main", "contentinfo", "region"


@pytest.mark.parametrize("width", [320, 390])
def test_it_fits_a_phone(page, width):
    page.size(width, 800)
    page.drop(table())
    page.all("summary")[0].click()
    narrow = "const e = document.documentElement; return e.scrollWidth <= e.clientWidth && e.clientWidth"
    assert page.browser.execute_script(narrow) == width
    targets = page.all("button, select, input:not([type=checkbox]):not([type=file]), .check, .button, summary, #drop")
    heights = [element.size["height"] for element in targets if element.is_displayed()]
    assert len(heights) >= 9
    assert min(heights) >= 44 or page.browser.execute_script("return matchMedia('(pointer: fine)').matches")
    (canvas,) = page.all("canvas")
    assert canvas.size["width"] <= width


def test_dark_and_less_motion_are_heeded(page):
    page.example()
    assert page.style("body", "background-color").startswith("rgba(255, 255, 255")
    assert page.style("button", "transition-duration") != "0s"
    drawn = "return document.querySelector('canvas').toDataURL()"
    light = page.browser.execute_script(drawn)
    page.prefer(prefers_color_scheme="dark", prefers_reduced_motion="reduce")
    assert not page.style("body", "background-color").startswith("rgba(255, 255, 255")
    assert page.style("button", "transition-duration") == "0s"
    page.until(lambda: len(page.all("canvas")) == 1 and page.browser.execute_script(drawn) != light)


def test_the_forecast_is_downloaded(page, tmp_path):
    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.browser.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    page.drop(table())
    page["download"].click()
    page.until(lambda: (tmp_path / "forecast.csv").exists())
    lines = (tmp_path / "forecast.csv").read_text().splitlines()
    assert lines[0] == "time,heat"
    assert lines[1] == f"{hours(ROWS + 1)[-1]},{wave(ROWS - 24)}"
    assert len(lines) == 1 + ROWS // 3


def test_limits_and_the_audit_are_shown(page, stub):
    assert "64 series, 10,000 values ahead, 1,000,000 values, 1,000 sample paths, 16 MiB" in page["server"].text
    assert "Audit" not in page["server"].text
    stub.model["audit"] = {"share": 0.01, "requests": 12, "drift": 0.0004, "above": 0.25, "limit": 0.01}
    page.browser.refresh()
    page.until(lambda: "Audit" in page["server"].text)
    assert (
        "So far 12: mean square difference 0.0004 in standardised units, 25 % of them above 0.01."
        in page["server"].text
    )


NUMBERED = "Left out, for it numbers the rows: “id”."


def test_the_time_of_a_drop_is_recorded(stub, tmp_path):
    (tmp_path / "table.csv").write_text(table())
    asked = [stub.url, str(tmp_path / "table.csv"), "--times", "2", "--output", str(tmp_path / "serving")]
    assert not main(asked)
    (file,) = (tmp_path / "serving").iterdir()
    record = json.loads(file.read_text())
    assert file.name == "page.json"
    assert record["command"].endswith("page_time.py " + " ".join(asked))
    assert record["drops"] == 2
    assert record["cores"] >= 1
    assert 0 < record["seconds"]["first"] <= record["seconds"]["max"]
    file.unlink()
    (tmp_path / "table.csv").write_text("date,a\n")
    assert main(asked) == 2  # the page's error
    assert not list((tmp_path / "serving").iterdir())


READ = """
const [text, done] = arguments;
import("/static/table.js").then(({parse, last}) => {
  const table = parse(text);
  const id = [...table.series.keys()].at(-1);
  const {values, x, stamps, notes} = last(table, id, table.columns, 1000);
  done({columns: table.columns.map((c) => table.header[c]), id, values, x, stamps, notes: [...table.notes, ...notes]});
}).catch((error) => done({error: error.message}));
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("date,a\n2020-01-01,1\n2020-02-01,2\n", {"stamps": ["2020-01-01T00:00:00", "2020-02-01T00:00:00"]}),
        ("\ufeffdate;a;b\r\n2020-01-01;1.5;-2e1\r\n\r\n", {"columns": ["a", "b"], "values": [[1.5], [-20]]}),
        ('when\t"a ""b"""\n2020-01-01 00:30\t1', {"columns": ['a "b"'], "stamps": ["2020-01-01T00:30:00"]}),
        ('"date","a\nb"\n"2020-01-01","1"\n', {"columns": ["a\nb"], "values": [[1]]}),
        ("a\n1\n2\n3\n", {"x": [0, 1, 2], "stamps": None}),
        ("t,time,a\n7,10,1\n8,20,2\n", {"x": [10, 20], "stamps": None, "columns": ["t", "a"]}),
        (",a\n0,5\n1,6\n", {"columns": ["a"]}),
        (",a\n2020-01-01T00:00:00Z,5\n", {"stamps": ["2020-01-01T00:00:00Z"], "x": [1577836800]}),
        ("ds,a\n2020-01-01T02:00:00.5+02:00,5\n", {"stamps": ["2020-01-01T02:00:00.5+02:00"], "x": [1577836800.5]}),
        ("place,ds,a\nx,2020-01-01,1\ny,2020-01-01,2\n", {"id": "y", "values": [[2]], "columns": ["a"]}),
        ("id,ds,a\n1,2020-01-01,1\n2,2020-01-01,2\n", {"id": "2", "values": [[2]]}),
        ("id,date,a\n1,2020-01-01,5\n2,2020-01-02,6\n", {"values": [[5, 6]], "notes": [NUMBERED]}),
        ("id,a\n7,5\n9,6\n", {"values": [[5, 6]], "notes": [NUMBERED]}),
        ("date,id,a\n2020-01-01,x9,5\n2020-01-02,x4,6\n", {"values": [[5, 6]], "columns": ["a"]}),
        ("date,series\n2020-01-01,5.5\n2020-01-02,4\n", {"values": [[5.5, 4]], "columns": ["series"]}),
        ("id,a\n7,5\n7,6\n8,1\n", {"id": "8", "values": [[1]]}),
        ("ds,a,sky\n2020-01-01,1,blue\n", {"notes": ["Left out, for it holds no numbers: “sky”."]}),
        ("ds,on\n2020-01-01,True\n2020-01-02,false\n", {"values": [[1, 0]]}),
        ("ds,a\n2020-01-01,NA\n2020-01-02,4\n2020-01-03,\n", {"values": [[4, 4, 4]]}),
        ("ds,a\n2020-01-03,1\n2020-01-06,4\n2020-01-07,5\n", {"values": [[1, 4, 5]]}),  # working days
        ("ds,a\n2020-01-01,1\n2020-01-01,2\n", {"error": None}),
        ("sky\nblue\n", {"error": "no column holds numbers: a header and rows of numbers are expected"}),
        ("ds,a\n1/2/2020,1\n", {"error": None}),
    ],
)
def test_tables_are_read(page, text, found):
    answer = page.browser.execute_async_script(READ, text)
    assert found.keys() <= answer.keys(), answer
    assert {name: answer[name] for name, value in found.items() if name != "error" or value} == {
        name: value for name, value in found.items() if name != "error" or value
    }


WRITE = """
const [lines, done] = arguments;
import("/static/table.js").then(({written}) => done(written(lines)));
"""


def test_no_cell_of_a_download_is_run_by_a_spreadsheet(page):
    cells = ["=1+1", "+a", "-a", "@a", "\ta", "\ra", " =1", "＝1", '=HYPERLINK("x")']
    kept = ["a=1", "-1.5", "+2e-7", "2024-01-01", -1.5, -1e-9, 3]
    text = page.browser.execute_async_script(WRITE, [cells, kept])
    (found, numbers) = csv.reader(io.StringIO(text, newline=""))
    assert found == [f"'{cell}" for cell in cells]
    assert found == [harmless(cell) for cell in cells]  # as the command line does
    assert numbers[:4] == kept[:4] == [harmless(cell) for cell in kept[:4]]
    assert [float(number) for number in numbers[4:]] == kept[4:]


@pytest.mark.slow
def test_with_the_server(browser):
    """The embedded pair forecasts the example and a dropped table."""
    pytest.importorskip("fastapi", reason="the server is not installed")
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    command = [sys.executable, "-m", "leapcast", "serve", "embedded", "--port", str(port), "--audit", "1"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        assert any("serving at" in line for line in server.stdout), "the server has stopped"
        page = Page(browser, f"http://127.0.0.1:{port}/")
        page.example()
        for _ in range(2):
            print(f"from drop to forecast: {page.drop(table()):.2f} s")
            print(page["line"].text)
        assert page.error() == ""
        line = r"(\d+) % of the patches were accepted proposals: .* \d+ ms without: .* \(this machine, this request, "
        assert (found := re.match(line, page["line"].text))
        assert int(found[1]) > 50
        page.set("paths", 10)
        page.submit()
        assert "80 % band between" in page.all(".plot")[0].accessible_name
        assert "100 % of the requests are decoded again" in page["server"].text
        page.drop(long_table())
        assert page["about"].text == "table.csv: 400 rows, 2 series, 1 column of numbers, until 2024-01-09 07:00:00."
        page.set("horizon", 5000)
        page.all("#settings button")[0].click()
        page.until(page.error)
        assert page.error().startswith("Horizon: ")
        page.check()
    finally:
        server.terminate()
        server.wait()
