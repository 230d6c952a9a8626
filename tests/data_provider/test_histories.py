"""Tables of one's own: what is read from them, and what is refused."""

from contextlib import suppress
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leapcast.data_provider.data_loader import read_table
from leapcast.data_provider.histories import Table, told_filled
from leapcast.models.errors import UserError


def frame(rows=30, freq="h", start="2020-01-31", **columns) -> pd.DataFrame:
    times = pd.date_range(start, periods=rows, freq=freq)
    return pd.DataFrame({"date": times, "a": np.arange(rows) * 1.0, "b": np.sin(np.arange(rows)), **columns})


def long(series=5, rows=20) -> pd.DataFrame:
    parts = [frame(rows + i).assign(id=f"00{i}") for i in range(series)]
    return pd.concat(parts, ignore_index=True)


def only(source, *rest, **layout):
    (history,) = Table(source, *rest, **layout).histories()
    return history


def test_columns_and_time_are_found_and_continued(tmp_path):
    frame().to_csv(tmp_path / "t.csv", index=False)
    history = only(tmp_path / "t.csv")
    np.testing.assert_array_equal(history.values, frame()[["a", "b"]])
    assert history.ahead(3).tolist() == list(pd.date_range("2020-02-01 06:00", periods=3, freq="h"))
    assert Table(tmp_path / "t.csv", ["b"]).columns == ["b"]


@pytest.mark.parametrize(
    "freq", ["h", "15min", "D", "B", "W", "MS", "ME", "QE", "QS-FEB", "YS", "YS-JUL", "YE-JUN", "7D", "s"]
)
def test_time_stamps_go_on_in_their_own_step(freq):
    whole = pd.date_range("2020-02-29", periods=60, freq=freq)
    history = only(frame(50).assign(date=whole[:50]))
    assert history.ahead(10).tolist() == whole[50:].tolist()


@pytest.mark.parametrize("start", ["2019-01-01", "2020-02-14 09:30"])
@pytest.mark.parametrize(
    "freq",
    ["BME", "BMS", "2BME", "2MS", "6ME", "BQE", "BQS-FEB", "BYE", "SMS", "SME", "SMS-16", "SME-10", "WOM-3FRI"]
    + ["4W", "30D", pd.offsets.LastWeekOfMonth(weekday=4), pd.offsets.WeekOfMonth(3, week=1, weekday=2)]
    + [pd.offsets.CustomBusinessDay(weekmask=days) for days in ("Mon Tue Wed Thu Fri Sat", "Sun Mon Tue Wed Thu")],
    ids=str,
)
def test_rules_of_the_calendar_go_on(freq, start):
    whole = pd.date_range(start, periods=50, freq=freq)
    history = only(frame(40).assign(date=whole[:40]))
    assert history.ahead(10).tolist() == whole[40:].tolist()


def monthly(start, periods, months, day) -> pd.DatetimeIndex:
    """One day of every so many months, shorter ones at their end."""
    return pd.DatetimeIndex([pd.Timestamp(start) + pd.DateOffset(months=months * i, day=day) for i in range(periods)])


@pytest.mark.parametrize("day", [2, 15, 28, 29, 30, 31])
@pytest.mark.parametrize("months", [1, 2, 3, 12])
@pytest.mark.parametrize("start", ["2019-02-01", "2020-02-29 07:00"])
def test_months_on_any_day_go_on(day, months, start):
    whole = monthly(start, 40, months, day)
    table = frame(30).assign(date=whole[:30])
    assert only(table).ahead(10).tolist() == whole[30:].tolist()
    gap = table.drop(index=[7]).reset_index(drop=True)
    with pytest.raises(UserError, match=rf"{whole[7]} is missing after data row 7, by the rule of the others, .*every"):
        only(gap)
    assert (only(gap, missing="interpolate").times == whole[:30]).all()


@pytest.mark.parametrize(("start", "freq"), [("2021-07-01", "MS"), ("2021-01-01", "YS"), ("2021-07-31", "ME")])
def test_months_and_years_that_happen_to_be_of_one_length_are_months_and_years(start, freq):
    whole = pd.date_range(start, periods=6, freq=freq)
    assert only(frame(2).assign(date=whole[:2])).ahead(4).tolist() == whole[2:].tolist()


BROKEN = {
    "a holiday": (
        pd.date_range("2020-01-01", periods=30, freq="BME"),
        20,
        -1,
        r"last business day of every month \(BME",
    ),
    "a month start": (pd.date_range("2020-01-01", periods=30, freq="QS"), 3, 2, r"first day of every quarter \(3MS\)"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_stamp_that_breaks_the_rule_of_the_others_is_named_with_it(case):
    times, row, days, rule = BROKEN[case]
    moved = times[row] + pd.Timedelta(days=days)
    broken = times.delete(row).insert(row, moved)
    with pytest.raises(UserError, match=rf"not regular: .*{rule}"):
        only(frame(30).assign(date=broken))


def test_holidays_are_missing_business_days():
    days = pd.date_range("2020-01-01", periods=30, freq="B").delete(7)
    with pytest.raises(UserError, match=r"2020-01-10 00:00:00 is missing after data row 7, .*business days \(B\)"):
        only(frame(29).assign(date=days))


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe"])
@pytest.mark.parametrize("freq", ["D", "B", "MS", "6h"])
def test_days_of_a_zone_go_by_the_clock_on_the_wall(freq, zone):
    local = pd.date_range("2016-02-01", periods=400, freq=freq)
    local = local.tz_localize(zone, nonexistent="shift_forward", ambiguous=np.ones(400, bool))
    assert only(frame(300).assign(date=local[:300])).ahead(100).tolist() == local[300:].tolist()
    if freq == "6h":
        return
    for moved in (local.tz_convert("UTC"), local.tz_convert("UTC").tz_localize(None)):
        with pytest.raises(UserError, match=r"move with summer time, .* write local dates without offset"):
            only(frame(300).assign(date=moved[:300]))


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_days_in_a_file_that_move_with_summer_time_are_told(zone, tmp_path):
    local = pd.date_range("2020-03-01", periods=60, tz="Europe/Berlin")
    written = [stamp.isoformat() for stamp in (local.tz_convert(zone) if zone else local)]
    frame(60).assign(date=written).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(UserError, match=r"move with summer time, as .*data rows 29 and 30.* write local dates"):
        only(tmp_path / "t.csv")
    frame(60).assign(date=local.tz_localize(None)).to_csv(tmp_path / "t.csv", index=False)
    assert only(tmp_path / "t.csv").ahead(1)[0] == pd.Timestamp("2020-04-30"), "as the message says"


def test_zones_names_and_numbers():
    local = pd.date_range("2020-03-28 20:00", periods=40, freq="h", tz="Europe/Berlin")  # into summer time
    assert only(frame(30).assign(date=local[:30])).ahead(10).tolist() == local[30:].tolist()
    for freq in ("D", "W", "MS"):  # midnight on the wall stays midnight
        local = pd.date_range("2019-02-01", periods=60, freq=freq, tz="Europe/Berlin")
        assert only(frame(50).assign(date=local[:50])).ahead(10).tolist() == local[50:].tolist()
    years = frame(30).assign(date=np.arange(1990, 2020))
    assert only(years).ahead(2).tolist() == [2020, 2021]
    odd = frame().rename(columns={"date": "moment of measurement"})
    assert Table(odd).time == "moment of measurement"
    assert Table(frame().set_index("date")).columns == ["a", "b"]


def test_zones_in_a_file_and_stamps_without_a_time(tmp_path):
    local = pd.date_range("2020-03-28 20:00", periods=40, freq="h", tz="Europe/Berlin")  # two offsets
    frame(40).assign(date=local.map(str)).to_csv(tmp_path / "t.csv", index=False)
    assert (only(tmp_path / "t.csv").times == local).all()
    midnight = pd.date_range("2020-01-01", periods=30, freq="h")
    text = [str(stamp).removesuffix(" 00:00:00") for stamp in midnight]
    frame().assign(date=text).to_csv(tmp_path / "t.csv", index=False)
    table = Table(tmp_path / "t.csv")
    (history,) = table.histories()
    assert (history.times == midnight).all()
    assert table.written(history.ahead(3)) is None, "the format of the first row tells no hours"
    assert Table(frame().assign(date=midnight.map(str))).written(history.ahead(3)) == "%Y-%m-%d %H:%M:%S"


def test_the_day_may_come_first():
    days = pd.date_range("2020-01-01", periods=40)
    for form in ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y %H:%M"):
        table = frame(30).assign(date=days[:30].strftime(form))
        assert only(table).ahead(10).tolist() == days[30:].tolist()
        assert Table(table).written(days) == form
    months = pd.date_range("2020-01-01", periods=30, freq="MS").strftime("%d/%m/%Y")
    assert only(frame(30).assign(date=months)).ahead(1)[0] == pd.Timestamp("2022-07-01")
    minutes = pd.date_range("2020-03-05", periods=30, freq="min").strftime("%d/%m/%Y %H:%M")
    with pytest.raises(UserError, match="may begin with the day or the month"):
        only(frame(30).assign(date=minutes))


def test_ids_of_frames_stay_what_they_are():
    numbered = long(2).assign(id=lambda table: table["id"].astype(int))
    assert [history.name for history in Table(numbered, id_column="id").histories()] == [0, 1]


def test_dates_written_as_numbers():
    days = pd.date_range("2020-01-20", periods=40)
    history = only(frame(30).assign(date=days[:30].strftime("%Y%m%d").astype(int)))
    assert history.ahead(10).tolist() == days[30:].tolist()
    months = pd.date_range("2019-06-01", periods=40, freq="MS")
    assert (
        only(frame(30).assign(date=months[:30].strftime("%Y%m").astype(int))).ahead(10).tolist() == months[30:].tolist()
    )


def test_frames_are_left_as_they_are_and_ids_may_be_called_na(tmp_path):
    given = frame().rename(columns={"a": 1})
    assert Table(given).columns == ["1", "b"]
    assert given.columns.tolist() == ["date", 1, "b"]
    with pytest.raises(UserError, match="several columns '1'"):
        Table(given.rename(columns={"b": "1"}))
    long(2).replace({"001": "NA"}).to_csv(tmp_path / "t.csv", index=False)
    assert [history.name for history in Table(tmp_path / "t.csv", id_column="id").histories()] == ["000", "NA"]
    long(2).set_index(["id", "date"]).to_parquet(tmp_path / "t.parquet")
    assert len(list(Table(tmp_path / "t.parquet", id_column="id").histories())) == 2


def test_formats_agree(tmp_path):
    long().to_csv(tmp_path / "t.csv", index=False)
    long().to_csv(tmp_path / "t.csv.gz", index=False)
    long().to_parquet(tmp_path / "t.parquet")
    tables = [Table(source, id_column="id") for source in (long(), *sorted(tmp_path.iterdir()))]
    assert len(tables) == 4
    for found in zip(*(table.histories() for table in tables), strict=True):
        for history in found[1:]:
            assert history.name == found[0].name
            np.testing.assert_array_equal(history.values, found[0].values)
            assert (history.times == found[0].times).all()
            assert (history.number, history.step) == (found[0].number, found[0].step)


@pytest.mark.parametrize("cells", [1, 99, 2**20])
def test_series_are_whole_however_the_file_is_cut(cells, tmp_path, monkeypatch):
    monkeypatch.setattr("data_provider.histories.CELLS", cells)
    monkeypatch.setattr("data_provider.histories.ROWS", 16)
    long().to_csv(tmp_path / "t.csv", index=False)
    found = list(Table(tmp_path / "t.csv", id_column="id").histories())
    assert [history.name for history in found] == ["000", "001", "002", "003", "004"], "ids are text"
    assert [len(history.values) for history in found] == [20, 21, 22, 23, 24]
    assert found[-1].read == 1


def test_gaps_are_refused_or_filled():
    table = frame().drop(index=[4, 5, 20]).reset_index(drop=True)
    table.loc[0, "b"] = table.loc[9, "a"] = np.nan
    with pytest.raises(UserError, match=r"2020-01-31 04:00:00 is missing after data row 4: add it, or give `missing`"):
        only(table)
    with pytest.raises(UserError, match=r"NaN in column 'b', data row 4"):
        only(frame(b=[0.0] * 3 + [np.nan] * 27))
    history = only(table, missing="interpolate")
    np.testing.assert_allclose(history.values[:, 0], np.arange(30))
    assert history.values[0, 1] == history.values[1, 1]
    months = frame(24, "MS").drop(index=7)
    assert len(only(months, missing="interpolate").values) == 24
    days = frame(60, "B").drop(index=[8, 30])
    assert len(only(days, missing="interpolate").values) == 60, "holidays, no weekends"


def test_what_is_filled_is_counted():
    table = frame(800).drop(index=[4, 5]).reset_index(drop=True)  # two rows are missing
    table.loc[100:499, "b"] = table.loc[0, "b"] = np.nan
    filled = only(table, missing="interpolate").filled
    assert set(filled) == {"a", "b"}
    assert filled["a"] == (2, 2, "after data row 4 (2020-01-31 04:00:00)", None)
    assert filled["b"] == (403, 400, "from data row 101 on (2020-02-04 06:00:00)", "a day")
    lines = told_filled(filled)
    assert "b 403 values (longest run 400, from data row 101 on" in lines[0]
    assert "a 2 values (longest run 2" in lines[0]
    assert lines[1].startswith("warning: gaps longer than a day")
    assert "b, 400 time steps from data row 101 on" in lines[1]
    assert "a, " not in lines[1].split(": ", 2)[2]
    assert only(frame(), missing="interpolate").filled == {}
    assert told_filled({}) == []


@pytest.mark.parametrize(
    ("freq", "most", "season"),
    [
        *((freq, most, "a day") for freq, most in {"h": 24, "15min": 96, "12h": 2}.items()),
        *((freq, most, "a week") for freq, most in {"D": 7, "B": 5}.items()),
        *((freq, most, "a year") for freq, most in {"W": 52, "MS": 12, "QE": 4, "YS": 1}.items()),
    ],
)
@pytest.mark.parametrize("rows", [False, True], ids=["values", "rows"])
def test_a_gap_longer_than_a_season_is_told(freq, most, season, rows):
    for length, told in ((most, None), (most + 1, season)):
        table = frame(300, freq)
        if rows:
            table = table.drop(index=range(20, 20 + length)).reset_index(drop=True)
        else:
            table.loc[20 : 19 + length, "a"] = np.nan
        found = only(table, missing="interpolate").filled["a"]
        assert (found.values, found.longest, found.season) == (length, length, told)
        assert "data row 20 " in found.place if rows else "data row 21 on" in found.place


def test_many_columns_are_told_in_a_short_line():
    wide = frame(30).assign(**{f"{i}{'x' * 900}": np.where(np.arange(30) == 3, np.nan, 1.0) for i in range(50)})
    (line,) = told_filled(only(wide, missing="interpolate").filled)
    assert len(line) < 2000
    assert line.endswith("and 42 more columns")


@pytest.mark.parametrize("name", ["a", "date", "1", "a b", "é"])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_names_of_two_columns_are_refused_as_they_are_written(name, suffix, tmp_path):
    table = frame().rename(columns={"a": name}) if name != "date" else frame()
    table.insert(3, name, 7.0, allow_duplicates=True)
    path = tmp_path / f"t{suffix}"
    table.to_csv(path, index=False)
    with pytest.raises(UserError, match=f"has several columns '{name}': rename them"):
        Table(path)
    with pytest.raises(UserError, match=f"has several columns '{name}': rename them"):
        read_table(path)


@pytest.mark.parametrize("start", ["", "\ufeff", "\n\n"])
def test_columns_that_are_called_as_pandas_would_call_doubled_ones(start, tmp_path):
    text = start + frame().rename(columns={"b": "a.1"}).to_csv(index=False)
    (tmp_path / "t.csv").write_text(text)
    assert Table(tmp_path / "t.csv").columns == ["a", "a.1"]
    assert read_table(tmp_path / "t.csv").columns.tolist() == ["a", "a.1"]


OTHER = {
    "dates": pd.date_range("2021-01-01", periods=30),
    "dates of a zone": pd.date_range("2021-01-01", periods=30, tz="Europe/Berlin"),
    "no dates": pd.Series([pd.NaT] * 30),
    "objects": pd.Series(pd.date_range("2021-01-01", periods=30), dtype=object),
    "days": pd.Series([pd.Timestamp("2021-01-01").date()] * 30),
    "categories": pd.Categorical(pd.date_range("2021-01-01", periods=30)),
    "durations": pd.timedelta_range("1h", periods=30),
    "complex numbers": np.arange(30) * 1j,
    "months": pd.period_range("2021-01", periods=30, freq="M"),
}


@pytest.mark.parametrize("case", OTHER)
def test_columns_that_only_look_like_numbers_are_refused(case, tmp_path):
    table = frame(other=OTHER[case])
    what = case if case in ("durations", "complex numbers") else "dates"
    with pytest.raises(UserError, match=f"column 'other' holds {what}, not numbers: leave it out by `columns`"):
        Table(table)
    assert only(table, ["a"]).values.shape == (30, 1)
    if case not in ("complex numbers", "categories"):  # which Parquet has not
        table.to_parquet(tmp_path / "t.parquet")
        with pytest.raises(UserError, match=r"'other' holds .*not numbers"):
            Table(tmp_path / "t.parquet")


def test_truth_values_and_decimals_are_numbers(tmp_path):
    flags, prices = np.arange(30) % 2 == 1, [Decimal(i) / 4 for i in range(30)]
    table = frame(flag=flags, price=prices)
    table.to_parquet(tmp_path / "t.parquet")
    for source in (table, tmp_path / "t.parquet"):
        np.testing.assert_array_equal(only(source, ["flag", "price"]).values.T, [flags, np.arange(30) / 4])
    prices[3] = None
    with pytest.raises(UserError, match="NaN in column 'price', data row 4"):
        only(frame(price=prices))


def test_long_names_are_refused_in_a_short_line(tmp_path):
    long_name = "x" * 2_000_000
    frame().rename(columns={"b": long_name}).to_csv(tmp_path / "t.csv", index=False)
    for read in (Table, read_table):
        with pytest.raises(UserError, match="a name of 2,000,000 characters") as caught:
            read(tmp_path / "t.csv")
        assert len(str(caught.value)) < 300
    assert only(frame().rename(columns={"b": "x" * 1000})).values.shape == (30, 2)
    with pytest.raises(UserError, match="has 2,000 characters: shorten it") as caught:
        list(Table(long(2).replace({"001": "x" * 2000}), id_column="id").histories())
    assert len(str(caught.value)) < 200
    with pytest.raises(UserError, match="has no column 'xxx") as caught:
        Table(frame().rename(columns={"b": "y" * 1000}), [long_name])
    assert len(str(caught.value)) < 300


BAD = {
    "no such column": (frame(), {"columns": ["c"]}, "no column 'c'"),
    "time as a variable": (frame(), {"columns": ["date"]}, "time or id"),
    "time as id": (frame(), {"id_column": "date", "time_column": "date"}, "both"),
    "nothing to forecast": (frame()[["date"]], {}, "no columns to forecast"),
    "no time": (frame()[["a", "b"]], {}, "`time_column`"),
    "text": (frame(c=["x"] * 30), {}, r"'c' is not numeric \('x' in data row 1\)"),
    "mixed": (frame(c=[1.0] * 7 + ["none"] + [1.0] * 22), {}, "'none' in data row 8"),
    "infinite": (frame(b=[0.0] * 3 + [-np.inf] * 27), {}, "infinite value in column 'b', data row 4"),
    "one row": (frame(1), {}, "one row"),
    "no rows": (frame(0), {"time_column": "date"}, "no rows"),
    "twice": (frame().iloc[[0, 1, 1, 2]], {}, "in data row 3 comes twice"),
    "unsorted": (frame().iloc[[0, 2, 1, 3]], {}, "data row 3 is earlier"),
    "irregular": (
        frame(4).assign(
            date=pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-03", "2020-01-03 11:00"], format="ISO8601")
        ),
        {},
        "not regular",
    ),
    "sparse": (
        frame(4).assign(date=pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-03", "2030-01-04"])),
        {},
        "not regular",
    ),
    "not a time": (frame().assign(date="soon"), {"time_column": "date"}, "cannot read the time column"),
    "fractions of time": (frame().assign(date=0.5), {"time_column": "date"}, "neither a date nor a whole number"),
    "no time stamp": (frame().assign(date=[None, *frame(29)["date"]]), {"time_column": "date"}, "data row 1"),
    "id again": (long().iloc[[*range(40), *range(5)]], {"id_column": "id"}, r"'000' comes again at data row 41"),
    "no id": (long().assign(id=[None] * 110), {"id_column": "id"}, "data row 1 has no id"),
    "empty column": (frame(b=[np.nan] * 30), {"missing": "interpolate"}, "'b' has no values"),
    "huge": (frame().assign(date=10**19), {"time_column": "date"}, "cannot read the time column|comes twice"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("kind", ["frame", "file"])
def test_what_cannot_be_forecast_is_refused_in_one_line(case, kind, tmp_path):
    table, layout, expected = BAD[case]
    source = table.reset_index(drop=True)
    if kind == "file":
        source.to_csv(tmp_path / "t.csv", index=False)
        source = tmp_path / "t.csv"
    with pytest.raises(UserError, match=expected) as caught:
        list(Table(source, **layout).histories())
    assert "\n" not in str(caught.value)


FILES = {
    "nothing": b"",
    "not utf-8": "date,a\n2020-01-01,1\n2020-01-02,\xe9\n".encode("latin-1"),
    "binary": bytes(range(256)),
    "ragged": b"date,a\n2020-01-01,1\n2020-01-02,2,3,4\n",
    "quote": b'date,a\n"2020-01-01,1\n',
    "no name": b",date,a\n0,2020-01-01,1\n1,2020-01-02,2\n",
    "header": b"date,a\n",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".csv.gz", ".csv.zip", ".csv.xz", ".csv.bz2"])
def test_broken_files_are_refused(name, suffix, tmp_path):
    (tmp_path / f"t{suffix}").write_bytes(FILES[name])
    with pytest.raises(UserError) as caught:
        list(Table(tmp_path / f"t{suffix}").histories())
    assert "\n" not in str(caught.value)


def test_a_flipped_byte_in_a_compressed_file(tmp_path):
    long(50).to_csv(tmp_path / "t.csv.gz", index=False)
    content = bytearray((tmp_path / "t.csv.gz").read_bytes())
    for place in range(200, len(content), 200):
        content[place] ^= 0xFF
    (tmp_path / "t.csv.gz").write_bytes(content)
    with pytest.raises(UserError, match="cannot read"):
        list(Table(tmp_path / "t.csv.gz", id_column="id").histories())


def test_many_columns(tmp_path):
    wide = pd.DataFrame(np.ones((30, 3000))).rename(columns=str).assign(date=frame()["date"])
    wide.to_csv(tmp_path / "t.csv", index=False)
    assert only(tmp_path / "t.csv").values.shape == (30, 3000)


text = st.text(alphabet=st.sampled_from("0123456789,-:.\n\"'eE+nNaAinf Tdate\x00\u00e9;\t"), max_size=200)


@given(
    body=st.one_of(text.map(str.encode), st.binary(max_size=200)), head=st.sampled_from([b"", b"date,a,b\n", b"a,b\n"])
)
def test_whatever_is_in_a_file_it_is_read_or_refused(body, head, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "t.csv"
    path.write_bytes(head + body)
    for layout in ({}, {"id_column": "b", "missing": "interpolate"}):
        with suppress(UserError):
            for history in Table(path, **layout).histories():
                assert np.isfinite(history.values).all()
                history.ahead(3)


@pytest.mark.parametrize("first", [2**63 - 20, 2**63 + 5])
def test_numbers_that_would_wrap_are_refused(first):
    rows = pd.DataFrame({"time": np.arange(20, dtype=np.uint64) + np.uint64(first), "v": np.arange(20.0)})
    with pytest.raises(UserError, match=r"beyond numbers|too large"):
        next(Table(rows).histories()).ahead(4)
