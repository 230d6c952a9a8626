// One chart: the end of a series, its forecast, the band, and which patches were accepted.

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const STRIP = 5; // pixels of the strip below the curves that shows the patches

/** Shades the accepted patches: lightly behind the curves, and as a strip at the bottom, which is hollow elsewhere. */
function shade(u, patches) {
  const { ctx, bbox } = u;
  const ratio = devicePixelRatio;
  const strip = STRIP * ratio;
  ctx.save();
  ctx.strokeStyle = colour("accent");
  ctx.lineWidth = ratio;
  for (const { from, to, accepted } of patches) {
    const [left, right] = [from, to].map((x) => Math.round(u.valToPos(x, "x", true)));
    const bottom = bbox.top + bbox.height;
    const box = [left + ratio, bottom - strip, right - left - 2 * ratio, strip - ratio];
    ctx.strokeRect(...box);
    if (!accepted) continue;
    ctx.fillStyle = colour("accent");
    ctx.fillRect(...box);
    ctx.fillStyle = colour("shade");
    ctx.fillRect(left, bbox.top, right - left, bbox.height - strip);
  }
  ctx.restore();
}

/**
 * Draws into ``box`` and returns a function that removes the chart.
 *
 * x: times in seconds or numbers, of context and forecast; context: values; middle, low, high: of the forecast, the
 * latter two or null; patches: [{from, to, accepted}] in units of x; dated: whether x are times; name: of the column;
 * label: what the picture shows, for those who do not see it; stamp: x to text.
 */
export function draw(box, { x, context, middle, low, high, patches, dated, name, label, stamp }) {
  const plot = document.createElement("div");
  plot.className = "plot";
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", label);
  const readout = document.createElement("p");
  readout.className = "readout";
  readout.setAttribute("aria-hidden", "true"); // the table has every value
  box.append(readout, plot);

  const before = Array(context.length).fill(null);
  const joined = [...before.slice(1), context.at(-1), ...middle]; // the line starts where the context ends
  const after = Array(middle.length).fill(null);
  const data = [x, [...context, ...after], joined];
  if (low) data.push([...before, ...high], [...before, ...low]);

  const move = (u) => {
    const at = u.cursor.idx;
    if (at == null) return void (readout.textContent = name);
    const ahead = at - context.length;
    const band = ahead >= 0 && low ? ` (${figure(low[ahead])} to ${figure(high[ahead])})` : "";
    const value = ahead >= 0 ? `forecast ${figure(middle[ahead])}${band}` : figure(context[at]);
    readout.textContent = `${name} · ${stamp(x[at])} · ${value}`;
  };

  const font = "12px system-ui, sans-serif";
  const axis = () => ({
    font,
    stroke: colour("muted"),
    grid: { stroke: colour("line"), width: 1 },
    ticks: { show: false },
  });
  const year = "\n{YYYY}";
  const day = "\n{D} {MMM}";
  const full = "\n{D} {MMM} {YYYY}";
  const none = null;
  const formats = [
    [31536000, "{YYYY}", none, none, none, none, none, none, 1],
    [2419200, "{MMM}", year, none, none, none, none, none, 1],
    [86400, "{D} {MMM}", year, none, none, none, none, none, 1],
    [60, "{HH}:{mm}", full, none, day, none, none, none, 1],
    [1, "{HH}:{mm}:{ss}", full, none, day, none, none, none, 1],
  ];
  const accent = colour("accent");
  const line = (stroke, width) => ({ stroke, width, points: { show: x.length < 40, size: 5 } });
  const options = {
    width: plot.clientWidth,
    height: height(plot),
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, sync: { key: "charts" }, points: { size: 7 } },
    scales: { x: { time: dated } },
    axes: [
      { ...axis(), space: 70, ...(dated ? { values: formats } : {}) },
      { ...axis(), size: 58, values: (_, splits) => splits.map((value) => (value == null ? "" : figure(value))) },
    ],
    series: [
      {},
      line(colour("ink"), 1.25),
      line(accent, plot.clientWidth < 500 ? 1.5 : 2),
      ...(low
        ? [
            { stroke: "transparent", points: { show: false } },
            { stroke: "transparent", points: { show: false } },
          ]
        : []),
    ],
    bands: low ? [{ series: [3, 4], fill: colour("band") }] : [],
    hooks: { drawClear: [(u) => shade(u, patches)], setCursor: [move] },
  };
  readout.textContent = name;
  const chart = new uPlot(options, data, plot);
  const resized = new ResizeObserver(() => chart.setSize({ width: plot.clientWidth, height: height(plot) }));
  resized.observe(plot);
  return () => {
    resized.disconnect();
    chart.destroy();
    plot.remove();
    readout.remove();
  };
}

const height = (plot) => Math.round(Math.min(340, Math.max(220, plot.clientWidth * 0.45)));

/** A number for people: four digits that count, or all before the point. */
export function figure(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e7 || size < 1e-4) return value.toExponential(2);
  if (size >= 1000) return value.toLocaleString("en", { maximumFractionDigits: 0 });
  return value.toLocaleString("en", { maximumSignificantDigits: 4 });
}
