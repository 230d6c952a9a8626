// The page: a table in, a forecast out, and what speculation saved. It talks to the server that it came from only.

import { draw, figure } from "./chart.js";
import { last, moment, ofSeries, parse, written } from "./table.js";

const LEVELS = [0.1, 0.5, 0.9]; // median and 80 % band
const CONTEXTS = 4; // contexts of values sent at most: the model may look for seasons in more than it reads
const PATCHES = 14; // of a forecast before anybody has said how many: speculation is for long ones
const COLUMNS = 12; // forecast and drawn at a time, at most
const LARGEST = 200 * 2 ** 20; // bytes of a file, which is parsed in memory
const ROUNDS = 3; // in which the same is decoded with and without speculation, in turns
const ENOUGH = 3000; // milliseconds of decoding after which no further round begins
const ROUNDING = 1e-4; // standard deviations
const NOTHING = 0.05; // share by which times differ for no reason
const DRAFTS = {
  default: ({ draft }) => `default: ${draft ?? "none"}`,
  self: () => "self: the model itself",
  none: () => "none: the model alone",
};

const at = (id) => document.getElementById(id);
const count = (number, word, words = `${word}s`) => `${number.toLocaleString("en")} ${number === 1 ? word : words}`;
const percent = (share) => `${figure(Number((100 * share).toPrecision(2)))}\u00a0%`;
const milliseconds = (value) => `${value.toFixed(value < 10 ? 1 : 0)}\u00a0ms`;

let model = null; // what /v1/model says
let table = null;
let token = ""; // in memory only
let running = null; // what aborts the task under way
let refused = null; // the task to go on with once a token is given
let render = () => {}; // draws the charts again
let drawn = []; // what removes each chart

/** A new element; children that are arrays of one text are strong. */
function make(tag, attributes, ...children) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children.map((child) => (Array.isArray(child) ? make("strong", {}, ...child) : child)));
  return element;
}

function tell(message) {
  at("error").textContent = message;
  at("error").hidden = !message;
}

/** The server's answer to a request, as JSON; an Error of one line where there is none. */
async function call(path, signal, body) {
  const headers = {
    ...(body && { "Content-Type": "application/json" }),
    ...(token && { Authorization: `Bearer ${token}` }),
  };
  let response;
  try {
    response = await fetch(path, {
      method: body ? "POST" : "GET",
      headers,
      body: body && JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Error("the server does not answer: is it still running?");
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const detail = typeof answer.detail === "string" ? answer.detail : `the server answered ${response.status}`;
  throw Object.assign(new Error(detail), { status: response.status });
}

/** Runs a task in place of the one under way; what goes wrong is told in one line. */
async function attempt(task) {
  running?.abort();
  const mine = (running = new AbortController());
  tell("");
  try {
    await task(mine.signal);
  } catch (error) {
    if (mine.signal.aborted) return;
    if (error.status === 401) {
      if (token) tell("the server does not take this token");
      refused = task;
      at("access").hidden = false;
      at("token").focus();
    } else tell(error.message);
  } finally {
    if (running === mine) at("result").setAttribute("aria-busy", "false");
  }
}

/** Learns what is served, and shows it. */
async function describe(signal) {
  const first = model === null;
  model = await call("v1/model", signal);
  if (first) {
    at("draft").replaceChildren(...model.drafts.map((name) => make("option", { value: name }, DRAFTS[name](model))));
    at("tolerance").value = model.defaults.tolerance;
    at("horizon").max = model.limits.horizon ?? "";
    at("paths").max = model.limits.num_samples ?? "";
  }
  const units = {
    series: "series",
    horizon: "values ahead",
    values: "values",
    num_samples: "sample paths",
  };
  const limits = Object.entries(units).filter(([name]) => model.limits[name] != null);
  const bytes = model.limits.body_bytes;
  const audit = model.audit;
  const rows = {
    Model: [model.name, model.target, `${figure(model.parameters / 1e6)} million parameters`]
      .filter(Boolean)
      .join(", "),
    Draft: model.draft ?? "none",
    Patch: count(model.patch, "value"),
    Context: `${count(model.context, "value")}; a series needs at least ${model.shortest.toLocaleString("en")}`,
    "Limits per call": [
      ...limits.map(([name, unit]) => `${model.limits[name].toLocaleString("en")} ${unit}`),
      ...(bytes ? [`${figure(bytes / 2 ** 20)} MiB`] : []),
    ].join(", "),
    ...(audit && {
      Audit:
        `${percent(audit.share)} of the requests are decoded again by the model alone. ` +
        (audit.requests
          ? `So far ${audit.requests.toLocaleString("en")}: mean square difference ${figure(audit.drift)} in ` +
            `standardised units, ${percent(audit.above)} of them above ${figure(audit.limit)}.`
          : "None so far."),
    }),
  };
  const items = Object.entries(rows).flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]);
  at("server").replaceChildren(...items);
}

/** Takes a table, shows what is in it, and forecasts it. */
function open(name, read) {
  return attempt(async (signal) => {
    if (!model) await describe(signal);
    table = await read(signal);
    const ids = [...table.series.keys()];
    const columns = table.columns.map((column) => table.header[column]);
    const rows = table.series.get(ids[0]);
    const end = table.time === null ? "" : `, until ${table.rows[rows.at(-1)][table.time].replace("T", " ")}`;
    const series = table.id === null ? "" : `, ${count(ids.length, "series", "series")}`;
    const size = `${count(table.rows.length, "row")}${series}, ${count(columns.length, "column")} of numbers`;
    at("about").textContent = [`${name}: ${size}${end}.`, ...table.notes].join(" ");
    at("about").hidden = false;

    at("series").replaceChildren(...ids.map((id) => make("option", { value: id }, id === "" ? "(no id)" : id)));
    at("series-field").hidden = table.id === null;
    const boxes = table.columns.map((column, index) =>
      make("input", { type: "checkbox", value: column, checked: !index }),
    );
    at("columns").replaceChildren(
      ...boxes.map((box, index) => make("label", { className: "check" }, box, make("span", {}, columns[index]))),
    );
    at("columns-field").hidden = columns.length === 1;
    const usual = Math.min(PATCHES * model.patch, Math.floor(rows.length / 3), model.limits.horizon ?? Infinity);
    at("horizon").value = Math.max(1, usual);
    at("work").hidden = false;
    await forecast(signal);
  });
}

/** The settings as they stand; an Error of one line about the first that does not do. */
function asked() {
  const form = at("settings");
  const bad = [...form.elements].find((element) => element.willValidate && !element.checkValidity());
  for (const input of form.querySelectorAll("input")) input.removeAttribute("aria-invalid");
  if (bad) {
    bad.setAttribute("aria-invalid", "true");
    bad.focus();
    throw new Error(`${bad.labels[0].firstChild.textContent.trim()}: ${bad.validationMessage}`);
  }
  const columns = [...at("columns").querySelectorAll(":checked")].map((box) => Number(box.value));
  if (!columns.length) throw new Error("Columns: choose at least one");
  if (columns.length > COLUMNS) throw new Error(`Columns: choose at most ${COLUMNS} at a time`);
  return {
    id: table.id === null ? "" : at("series").value,
    columns,
    horizon: Number(at("horizon").value),
    draft: at("draft").value,
    tolerance: Number(at("tolerance").value),
    paths: Number(at("paths").value),
  };
}

/** Forecasts with the settings, shows it, and then measures the same without speculation. */
async function forecast(signal) {
  const { id, columns, horizon, draft, tolerance, paths } = asked();
  at("result").setAttribute("aria-busy", "true");
  const most = Math.min(CONTEXTS * model.context, Math.floor((model.limits.values ?? Infinity) / columns.length));
  const past = last(table, id, columns, most);
  const rows = past.x.length;
  if (rows < model.shortest)
    throw new Error(`the series has ${count(rows, "row")}, and the model needs ${model.shortest}: take a longer one`);
  const [only] = past.values;
  const values = columns.length === 1 ? only : only.map((_, row) => past.values.map((column) => column[row]));
  const body = {
    series: [{ values, ...(past.stamps && { timestamps: past.stamps }) }],
    horizon,
    draft,
    tolerance,
    ...(paths && { quantile_levels: LEVELS, num_samples: paths }),
  };
  const answer = await call("v1/forecast", signal, body);
  show({ ...past, names: columns.map((column) => table.header[column]), id, paths }, answer);
  summarise(answer, null, draft);
  if (answer.draft !== null) {
    const found = await measured(answer, body, signal);
    summarise(answer, found, draft);
    at("remark").textContent = remarks(answer, found, past);
    at("remark").hidden = false;
  }
  if (model.audit) await describe(signal);
}

/** The same with and without speculation in turns: {fast, slow: milliseconds, alone: answer without, shared}. */
async function measured(answer, body, signal) {
  const found = { fast: [answer.decode_ms], slow: [], alone: null, shared: answer.batch.requests > 1 };
  const decode = async (draft, times) => {
    const other = await call("v1/forecast", signal, { ...body, draft });
    times.push(other.decode_ms);
    found.shared ||= other.batch.requests > 1;
    return other;
  };
  for (;;) {
    found.alone = await decode("none", found.slow);
    const spent = [...found.fast, ...found.slow].reduce((sum, time) => sum + time);
    if (found.slow.length === ROUNDS || spent > ENOUGH) return found;
    await decode(body.draft, found.fast);
  }
}

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[Math.floor((sorted.length - 1) / 2)] + sorted[Math.ceil((sorted.length - 1) / 2)]) / 2;
};

const columnOf = (values, column) => values.map((value) => (Array.isArray(value) ? value[column] : value));

/** Charts, legend, table and file of an answer. */
function show(past, answer) {
  const [{ timestamps, mean, quantiles }] = answer.forecasts;
  const step = past.x.at(-1) - past.x.at(-2);
  const dated = past.stamps !== null;
  const ahead = mean.map((_, row) => (dated ? moment(timestamps[row]).seconds : past.x.at(-1) + step * (row + 1)));
  const days = [...past.x, ...ahead].every((x) => x % 86400 === 0);
  const stamp = (x) => {
    if (!dated) return String(x);
    const iso = new Date(x * 1000).toISOString();
    return days ? iso.slice(0, 10) : `${iso.slice(0, 10)} ${iso.slice(11, 16)}${past.zoned ? " UTC" : ""}`;
  };
  at("result-title").textContent = past.id ? `Forecast of ${past.id}` : "Forecast";
  at("result").hidden = false;

  const made = pictures(past, answer, ahead, stamp);
  render = () => {
    drawn.forEach((remove) => remove());
    drawn = made.map((picture) => draw(at("charts"), picture));
  };
  render();
  explain(past, answer);

  const parts = [["", mean], ...(past.paths ? LEVELS.map((level) => [` ${level}`, quantiles[String(level)]]) : [])];
  const curves = past.names.flatMap((name, column) =>
    parts.map(([suffix, values]) => [name + suffix, columnOf(values, column)]),
  );
  const heading = ["time", ...curves.map(([name]) => name)];
  const row = (time, shown, index) => [time, ...curves.map(([, values]) => shown(values[index]))];
  tabulate(
    heading,
    ahead.map((x, index) => row(stamp(x), figure, index)),
  );
  const whole = ahead.map((x, index) => row(dated ? timestamps[index] : x, (value) => value, index));
  URL.revokeObjectURL(at("download").href);
  at("download").href = URL.createObjectURL(new Blob([written([heading, ...whole])], { type: "text/csv" }));
}

/** What is drawn of each column: see draw. */
function pictures(past, answer, ahead, stamp) {
  const [{ mean, quantiles, accepted_patches: accepted }] = answer.forecasts;
  const shown = Math.min(past.x.length, Math.max(ahead.length, 4 * answer.patch));
  const edge = (patch) => (patch ? ahead[Math.min(patch * answer.patch, ahead.length) - 1] : past.x.at(-1));
  const patches = accepted.map((taken, patch) => ({ from: edge(patch), to: edge(patch + 1), accepted: taken }));
  const [low, middle, high] = LEVELS.map((level) => (past.paths ? quantiles[String(level)] : null));
  return past.names.map((name, column) => {
    const [curve, lower, upper] = [middle ?? mean, low, high].map((values) => values && columnOf(values, column));
    const ends = (values) => `between ${figure(Math.min(...values))} and ${figure(Math.max(...values))}`;
    const label = [
      `${past.id ? past.id + ", " : ""}${name}: the last ${shown} values, then a forecast of`,
      `${count(ahead.length, "value")} from ${stamp(ahead[0])} to ${stamp(ahead.at(-1))}, ${ends(curve)}.`,
      ...(lower ? [`80 % band ${ends([...lower, ...upper])}.`] : []),
      `${accepted.filter(Boolean).length} of ${count(patches.length, "patch", "patches")} accepted.`,
    ].join(" ");
    return {
      x: [...past.x.slice(-shown), ...ahead],
      context: past.values[column].slice(-shown),
      middle: curve,
      low: lower,
      high: upper,
      patches,
      dated: past.stamps !== null,
      name,
      label,
      stamp,
    };
  });
}

/** The legend, and what was filled or is warned of. */
function explain(past, answer) {
  const several = past.paths > 1 || past.names.length > 1;
  const accepted = several ? "patch accepted in most columns and paths" : "accepted patch";
  const keys = [
    ["context", "last values"],
    ["forecast", past.paths ? "forecast (median)" : "forecast (mean)"],
    ...(past.paths ? [["band", "80 % band"]] : []),
    ...(answer.draft === null ? [] : [["patch accepted", accepted]]),
    ["patch", "the model's own patch"],
  ];
  const items = keys.map(([name, text]) => make("li", {}, make("span", { className: `key ${name}` }), text));
  at("legend").replaceChildren(...items);
  const warnings = [...past.notes, ...answer.warnings];
  at("warnings").replaceChildren(...warnings.map((text) => make("li", {}, text)));
  at("warnings").hidden = !warnings.length;
}

function tabulate(heading, lines) {
  const head = make("tr", {}, ...heading.map((name) => make("th", { scope: "col" }, name)));
  const rows = lines.map(([time, ...values]) =>
    make("tr", {}, make("th", { scope: "row" }, time), ...values.map((value) => make("td", {}, value))),
  );
  at("table").replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
}

/** The line: acceptance, passes saved, and times, where they were measured. */
function summarise(answer, found, draft) {
  const [{ patches, target_passes: passes, accepted }] = answer.forecasts;
  const parts = [];
  if (answer.draft === null) {
    const took = milliseconds(answer.decode_ms);
    parts.push("Decoded by the model alone: ", [count(patches, "pass", "passes")], " in ", [took], ".");
    if (draft === "default" && model.draft === null) parts.push(" The server was started without a draft.");
    else if (draft !== "none") parts.push(" The server's plan takes no draft here: it would not pay.");
  } else {
    const saved = `${figure(patches - passes)} of ${patches} model passes saved`;
    parts.push([percent(accepted)], " of the patches were accepted proposals: ", [saved], ". ");
    if (found) parts.push(...compared(median(found.fast), median(found.slow), patches > passes, found.slow.length));
    else parts.push([milliseconds(answer.decode_ms)], " with speculation, measuring without …");
  }
  at("line").replaceChildren(...make("p", {}, ...parts).childNodes);
  at("remark").hidden = true;
}

/** How much faster it was with speculation; where no pass was saved a difference is chance. */
function compared(fast, slow, saved, rounds) {
  const factor = (value) => `${value.toFixed(value < 10 ? 1 : 0)}\u00a0×\u00a0`;
  const verdict =
    fast > slow * (1 + NOTHING)
      ? `${factor(fast / slow)}slower`
      : saved && slow > fast * (1 + NOTHING)
        ? `${factor(slow / fast)}faster`
        : "no gain";
  const scope = ` (this machine, this request, ${rounds === 1 ? "once" : `medians of ${rounds}`}).`;
  return [[milliseconds(fast)], " with speculation, ", [milliseconds(slow)], " without: ", [verdict], scope];
}

/** How far the two forecasts are from each other, and what may have disturbed their times. */
function remarks(answer, { alone, shared }, past) {
  const distances = past.values.map((context, column) => {
    const mean = context.reduce((sum, value) => sum + value, 0) / context.length;
    const spread = Math.sqrt(context.reduce((sum, value) => sum + (value - mean) ** 2, 0) / context.length);
    const [one, other] = [answer, alone].map(({ forecasts }) => columnOf(forecasts[0].mean, column));
    return Math.max(...one.map((value, row) => Math.abs(value - other[row]))) / (spread || 1);
  });
  const largest = Math.max(...distances);
  const away = `differ by at most ${figure(Number(largest.toPrecision(2)))} standard deviations of the last values`;
  return (
    `The two forecasts ${largest < ROUNDING ? "are the same up to rounding" : away}.` +
    (shared ? " Other requests shared a batch with these, and its time." : "")
  );
}

/** The text of a file. */
async function text(file) {
  if (file.size > LARGEST) throw new Error("larger than 200 MB: take the last part of it");
  const bytes = await file.arrayBuffer();
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder("windows-1252").decode(bytes); // what older spreadsheets write
  }
}

function openFile(file) {
  return open(file.name, async () => {
    try {
      return parse(await text(file));
    } catch (error) {
      throw new Error(`${file.name}: ${error.message}`);
    }
  });
}

at("file").addEventListener("change", () => {
  const [file] = at("file").files;
  if (file) openFile(file);
  at("file").value = ""; // the same file may be chosen again
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) at("drop").classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault(); // anywhere on the page: the browser would open the file otherwise
  at("drop").classList.remove("over");
  const { files } = event.dataTransfer;
  if (files.length > 1) tell("drop one file at a time");
  else if (files.length) openFile(files[0]);
});
at("example").addEventListener("click", () =>
  open("Example", async (signal) => ofSeries((await call("v1/example", signal)).series)),
);
at("settings").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(forecast);
});
at("access").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value;
  at("token").value = "";
  at("access").hidden = true;
  attempt(refused);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => render());
attempt(describe);
