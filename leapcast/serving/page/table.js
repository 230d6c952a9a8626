// Tables in the browser: CSV text to series of numbers. What is wrong is thrown as an Error of one line.

const TIME_NAMES = ["date", "datetime", "ds", "time", "timestamp"];
const ID_NAMES = ["item_id", "unique_id", "series_id", "series", "id"];
const MISSING = new Set(["", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None", "<NA>"]);
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const FORMULA = /^[\t\r\n]|^\s*[=+\-@＝＋－＠]/; // as in utils/io/files.py
const INTEGER = /^[+-]?\d+$/;
const STAMP =
  /^(\d{4})[-/](\d{1,2})(?:[-/](\d{1,2})(?:[T ](\d{1,2}):(\d{2})(?::(\d{2})(\.\d+)?)?\s?(Z|[+-]\d{2}:?\d{2})?)?)?$/;
const DAY_OR_MONTH_FIRST = /^\d{1,2}[./-]\d{1,2}[./-]\d{2,4}\b/;
const SAMPLED = 200; // rows at each end by which a column is judged
const DAY = 86400;

const quoted = (name) => `“${name.length > 40 ? name.slice(0, 40) + "…" : name}”`;
const number = (cell) => (/^(true|false)$/i.test(cell) ? Number(cell.toLowerCase() === "true") : Number(cell));
const numeric = (cell) => NUMBER.test(cell) || /^(true|false)$/i.test(cell);

/** A time stamp as {seconds since 1970, iso, zoned}; read as UTC where no zone is given; else null. */
export function moment(cell) {
  const found = STAMP.exec(cell);
  if (!found) return null;
  const [year, month, day, hour, minute, second] = found.slice(1, 7).map((part) => Number(part ?? 0));
  const date = new Date(Date.UTC(year, month - 1, day || 1, hour, minute, second));
  if (date.getUTCMonth() !== month - 1 || hour > 23 || minute > 59 || second > 59) return null; // such as 31 February
  const zone = found[8] ?? "";
  const [hours, minutes] = zone.length > 1 ? [zone.slice(0, 3), zone.slice(-2)].map(Number) : [0, 0];
  const offset = hours * 3600 + (zone[0] === "-" ? -minutes : minutes) * 60;
  const iso = date.toISOString().slice(0, 19) + (found[7] ?? "") + zone;
  return { seconds: date.getTime() / 1000 + Number(found[7] ?? 0) - offset, iso, zoned: zone !== "" };
}

/** Records of cells, without blanks around them; separated by comma, semicolon or tab, as the header mostly is. */
function records(text) {
  const header = text.slice(0, text.search(/[\r\n]|$/)).replace(/"[^"]*"/g, "");
  const counts = [",", ";", "\t"].map((mark) => [header.split(mark).length, mark]);
  const mark = counts.reduce((most, next) => (next[0] > most[0] ? next : most))[1];
  if (!text.includes('"')) {
    const lines = text.split(/\r\n|\n|\r/).filter((line) => line.trim() !== "");
    return lines.map((line) => line.split(mark).map((cell) => cell.trim()));
  }
  const found = [];
  let record = [];
  let at = 0;
  const end = () => {
    if (record.length > 1 || record[0] !== "") found.push(record);
    record = [];
  };
  while (at < text.length) {
    let cell = "";
    while (text[at] === " ") at += 1;
    if (text[at] === '"') {
      at += 1;
      for (;;) {
        const close = text.indexOf('"', at);
        if (close < 0) throw new Error(`data row ${found.length}: a quotation mark is not closed`);
        cell += text.slice(at, close);
        at = close + 1;
        if (text[at] !== '"') break;
        cell += '"';
        at += 1;
      }
    }
    const start = at;
    while (at < text.length && text[at] !== mark && text[at] !== "\n" && text[at] !== "\r") at += 1;
    record.push((cell + text.slice(start, at)).trim());
    if (text[at] === mark) {
      at += 1;
      if (at === text.length) record.push("");
      continue;
    }
    end();
    at += text[at] === "\r" && text[at + 1] === "\n" ? 2 : 1;
  }
  return found;
}

/** Whether the rows' time stamps (or numbers) rise; cells that are neither do not count. */
function rises(rows, column) {
  const value = (cell) => moment(cell)?.seconds ?? Number(cell);
  return rows.every((row, index) => {
    const [before, next] = [rows[index - 1]?.[column], row[column]];
    if (before === undefined || (before.length === next.length && before < next)) return true; // in ISO form, and quick
    return !(value(next) <= value(before));
  });
}

function grouped(rows, column) {
  const groups = new Map();
  rows.forEach((row, index) => {
    if (!groups.has(row[column])) groups.set(row[column], []);
    groups.get(row[column]).push(index);
  });
  return groups;
}

/**
 * A table of the text of a CSV file.
 *
 * {header, rows: records of cells, time: index of the time column or null, columns: indices of those that hold numbers,
 * id: index or null, series: Map of id -> indices of its rows, notes: lines about what was left out}
 */
export function parse(text) {
  if (text.includes("\0")) throw new Error("this is not a text file: save the table as CSV");
  const [header, ...rows] = records(text.replace(/^\ufeff/, ""));
  if (!rows.length) throw new Error("the file has no rows: a header and rows of numbers are expected");
  const odd = rows.findIndex((row) => row.length !== header.length);
  if (odd >= 0) throw new Error(`data row ${odd + 1} has ${rows[odd].length} cells, the header ${header.length}`);
  if (header.some((cell) => NUMBER.test(cell) || moment(cell)))
    throw new Error("the first row holds values: it must name the columns");
  const twice = header.find((name, index) => name !== "" && header.indexOf(name) !== index);
  if (twice !== undefined) throw new Error(`two columns are called ${quoted(twice)}: give each its own name`);

  const sample = rows.length > 2 * SAMPLED ? [...rows.slice(0, SAMPLED), ...rows.slice(-SAMPLED)] : rows;
  const told = (column) => sample.map((row) => row[column]).filter((cell) => !MISSING.has(cell));
  const all = header.map((_, column) => column);
  const named = all.find((column) => TIME_NAMES.includes(header[column].toLowerCase()));
  const dates = all.find((column) => {
    const cell = told(column)[0] ?? "";
    return moment(cell) || DAY_OR_MONTH_FIRST.test(cell);
  });
  const time = named ?? dates ?? null;
  if (time !== null) {
    const bad = rows.findIndex((row) => DAY_OR_MONTH_FIRST.test(row[time]));
    if (bad >= 0)
      throw new Error(
        `data row ${bad + 1}: in ${quoted(rows[bad][time])} the day or the month may come first: write 2020-02-01`,
      );
  }

  const others = all.filter((column) => column !== time);
  const words = others.filter((column) => told(column).filter(numeric).length < Math.max(1, told(column).length / 2));
  const ids = ID_NAMES.flatMap((name) => others.find((column) => header[column].toLowerCase() === name) ?? []);
  const repeated = time !== null && !rises(rows, time);
  const candidates = [...ids, ...(repeated ? words : [])];
  const splits = (column) => {
    const groups = [...grouped(rows, column).values()];
    if (!repeated && groups.length === rows.length) return false; // a number or key of each row
    const inOrder = (group) =>
      rises(
        group.map((row) => rows[row]),
        time,
      );
    return time === null || groups.every(inOrder);
  };
  const id = candidates.find(splits) ?? null;
  const unnamed = others.filter((column) => header[column] === ""); // the row numbers that pandas writes
  const counting = ids.filter(
    (column) => column !== id && rows.every((row) => INTEGER.test(row[column])) && rises(rows, column),
  );
  const left = [...words, ...unnamed, ...counting];
  const columns = others.filter((column) => column !== id && !left.includes(column));
  if (!columns.length) throw new Error("no column holds numbers: a header and rows of numbers are expected");
  if (repeated && id === null) {
    const at = rows.findIndex((row, index) => index && !rises([rows[index - 1], row], time));
    throw new Error(
      `data row ${at + 1}: ${quoted(rows[at][time])} is not later than the row before; ` +
        "a table of several series needs a column item_id",
    );
  }
  const out = words.filter((column) => column !== id && header[column] !== "").map((column) => quoted(header[column]));
  const notes = [];
  if (out.length)
    notes.push(`Left out, for it holds no numbers: ${out.slice(0, 5).join(", ")}${out.length > 5 ? " …" : ""}.`);
  if (counting.length)
    notes.push(`Left out, for it numbers the rows: ${counting.map((column) => quoted(header[column])).join(", ")}.`);
  return {
    header,
    rows,
    time,
    columns,
    id,
    series: id === null ? new Map([["", rows.map((_, index) => index)]]) : grouped(rows, id),
    notes,
  };
}

/** The same of the body of a request: series with values, time stamps and ids, all of as many columns. */
export function ofSeries(series) {
  const width = [].concat(series[0].values[0]).length;
  const names = width === 1 ? ["value"] : Array.from({ length: width }, (_, column) => `value ${column + 1}`);
  const stamped = Boolean(series[0].timestamps);
  const rows = series.flatMap(({ id, values, timestamps }, index) =>
    values.map((row, at) => [
      String(id ?? index),
      stamped ? timestamps[at] : String(at),
      ...[].concat(row).map(String),
    ]),
  );
  return {
    header: ["item_id", "timestamp", ...names],
    rows,
    time: stamped ? 1 : null,
    columns: names.map((_, column) => column + 2),
    id: 0,
    series: grouped(rows, 0),
    notes: [],
  };
}

/** The values of one column over ``indices``; gaps are filled linearly, and told. */
function filled(table, column, indices, notes) {
  const name = quoted(table.header[column]);
  const gaps = [];
  const values = indices.map((row, at) => {
    const cell = table.rows[row][column];
    if (MISSING.has(cell)) {
      gaps.push(at);
      return null;
    }
    if (!numeric(cell)) {
      const hint = /^[+-]?\d+,\d+$/.test(cell) ? ": write decimals with a point" : "";
      throw new Error(`data row ${row + 1}, column ${name}: ${quoted(cell)} is not a number${hint}`);
    }
    if (!Number.isFinite(number(cell)))
      throw new Error(`data row ${row + 1}, column ${name}: ${quoted(cell)} is too large`);
    return number(cell);
  });
  if (!gaps.length) return values;
  if (gaps.length === values.length) throw new Error(`column ${name} has no numbers in its last ${values.length} rows`);
  for (const at of gaps) {
    let next = at;
    while (next < values.length && values[next] === null) next += 1;
    const before = values[at - 1] ?? values[next]; // filled from left to right, so the one before is known
    const after = values[next] ?? before;
    values[at] = before + (after - before) / (next - at + 1);
  }
  const cells = gaps.length === 1 ? "1 empty cell was" : `${gaps.length} empty cells were`;
  notes.push(`Column ${name}: ${cells} filled linearly, the first in data row ${indices[gaps[0]] + 1}.`);
  return values;
}

/** The times of ``indices``: {x: numbers that rise, stamps: ISO texts or null, zoned}. */
function times(table, indices, first) {
  if (table.time === null) return { x: indices.map((_, at) => first + at), stamps: null, zoned: false };
  const cells = indices.map((row) => table.rows[row][table.time]);
  const counted = cells.every((cell) => INTEGER.test(cell));
  const found = cells.map((cell, at) => {
    const time = counted ? { seconds: Number(cell) } : moment(cell);
    if (!time) throw new Error(`data row ${indices[at] + 1}: ${quoted(cell)} is no time stamp: write 2020-02-01 13:00`);
    return time;
  });
  const steps = found.slice(1).map((time, at) => time.seconds - found[at].seconds);
  const usual = [...steps].sort((a, b) => a - b)[Math.floor(steps.length / 2)];
  // days and longer steps may be of a calendar (months, working days): the server knows those
  const gap = steps.findIndex((step) => step <= 0 || (step !== usual && (counted || usual < DAY)));
  if (gap >= 0) {
    const row = indices[gap + 1] + 1;
    throw new Error(
      `data row ${row}: ${quoted(cells[gap + 1])} does not follow ${quoted(cells[gap])} by the usual step: ` +
        "add or remove rows",
    );
  }
  return {
    x: found.map((time) => time.seconds),
    stamps: counted ? null : found.map((time) => time.iso),
    zoned: !counted && found[0].zoned,
  };
}

/**
 * The last rows of one series, at most ``most`` of them.
 *
 * {values: an array per column, x, stamps, zoned, notes: what was filled}
 */
export function last(table, id, columns, most) {
  const all = table.series.get(id);
  const indices = all.slice(-most);
  const notes = [];
  const values = columns.map((column) => filled(table, column, indices, notes));
  return { values, ...times(table, indices, all.length - indices.length), notes };
}

/** CSV text of records; an apostrophe stands before text that a spreadsheet would run as a formula. */
export function written(lines) {
  const cell = (value) => {
    const text = FORMULA.test(value) && !NUMBER.test(value) ? `'${value}` : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return lines.map((line) => line.map(cell).join(",") + "\n").join("");
}
