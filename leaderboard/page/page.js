"use strict";
const board = JSON.parse(document.getElementById("data").textContent);
const byId = new Map(board.entries.map(entry => [entry.id, entry]));
const $ = id => document.getElementById(id);

/** An element; attributes that are null are left out, children are elements or text, never markup. */
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "line", "text", "circle", "rect", "title"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") element.addEventListener("click", value);
    else if (value != null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter(child => child != null));
  return element;
}

function digits(number, count = 4) {
  if (number == null) return "-";
  const size = Math.abs(number);
  return size && (size < 1e-3 || size >= 1e6) ? number.toExponential(2) : String(+number.toPrecision(count));
}
const fixed = (number, count) => number == null ? "-" : Math.abs(number) < 1e-3 && number ? number.toExponential(1) : number.toFixed(count);
const BESIDE = { best_in_batch: "Best in batch (dB)", worst_in_batch: "Worst in batch (dB)", recognized: "Recognized", knows: "Knows", certified: "Certified", psnr_of_others: "PSNR without degenerate (dB)" };
const places = metric => metric === "psnr" || (metric in BESIDE && metric !== "recognized") ? 2 : 3;
const interval = (score, metric) => score.low == null ? (score.clusters === 1 ? "one batch" : "no interval") : `${fixed(score.low, places(metric))} to ${fixed(score.high, places(metric))}`;
const heading = metric => BESIDE[metric] ?? metric.toUpperCase() + (metric === "psnr" ? " (dB)" : "");
const higher = metric => board.metrics[metric] ?? true;
const name = entry => entry.attack + (entry.variant ? `, ${entry.variant}` : "");
const settingOf = entry => entry.settings.length === 1 ? board.settings[entry.settings[0]] : "every setting with its images";

// The table

const MEASURED = Object.keys(board.metrics);
const METRICS = [...MEASURED.slice(0, 1), ...Object.keys(BESIDE), ...MEASURED.slice(1)];
/** Whether a score is known and says what the PSNR does not: some batch has several images, or some image is degenerate. */
const tells = (metric, entries) => metric.endsWith("_in_batch") ? entries.some(entry => entry.fields.batch_size > 1)
  : metric === "psnr_of_others" ? entries.some(entry => entry.degenerate) : !(metric in BESIDE) || entries.some(entry => entry.scores[metric]);
const SHORT = MEASURED.slice(0, 2);  // below a picture
const several = key => new Set(board.entries.map(entry => entry.fields[key])).size > 1;
const COLUMNS = [
  { title: "Attack", value: name, cell: attackCell, header: true },
  ...(board.entries.some(entry => entry.strip) ? [{ title: "Truth above rebuilt", cell: stripCell }] : []),
  { title: "Place", value: entry => entry.place, cell: entry => entry.too_few ? make("span", { class: "interval" }, entry.too_few) : digits(entry.place) + (entry.tied ? " tie" : "") },
  ...METRICS.filter(metric => tells(metric, board.entries)).map(metric => ({
    title: heading(metric), value: entry => entry.scores[metric]?.mean, cell: entry => scoreCell(entry, metric), down: higher(metric),
  })),
  { title: "Images", value: entry => entry.n, cell: entry => `${entry.n} in ${entry.tasks} batches`, down: true },
  ...["diverged", "degenerate"].filter(key => board.entries.some(entry => entry[key])).map(key => ({ title: key[0].toUpperCase() + key.slice(1), value: entry => entry[key], cell: entry => String(entry[key]), down: true })),
  { title: "s/task", value: entry => entry.control === "mean_image" ? null : entry.seconds, cell: entry => digits(entry.control === "mean_image" ? null : entry.seconds, 3) },
  { title: "Gradients/task", value: entry => entry.gradient_evaluations, cell: entry => digits(entry.gradient_evaluations, 6) },
  ...(board.entries.some(entry => entry.training_seconds != null) ? [{ title: "s of training", value: entry => entry.training_seconds, cell: entry => digits(entry.training_seconds, 4) }] : []),
  { title: "Labels", value: entry => entry.fields.labels, cell: entry => entry.fields.label_method || entry.fields.labels || "-" },
  { title: "Attacker has", value: entry => entry.knowledge.join("; "), cell: entry => entry.knowledge.join("; ") || "-", wrap: true },
  ...(board.settings.length > 1 ? [{ title: "Setting", value: settingOf, cell: settingOf, wrap: true }] : []),
  ...(board.entries.some(entry => entry.reported.length) ? [{
    title: "Reported PSNR", value: entry => entry.reported[0]?.values.psnr, wrap: true, down: true,
    cell: entry => entry.reported.filter(r => r.values.psnr != null).map(r => `${r.values.psnr} (${r.source})`).join("; ") || "-",
  }] : []),
];
let order = { column: null, down: false };

function attackCell(entry) {
  return [make("button", { class: "open", type: "button", onclick: () => open(entry) }, entry.attack),
    entry.stale ? make("span", { class: "mark", title: `scored under ${entry.age === "older" ? "an older" : "a newer"} protocol` }, "stale") : null,
    entry.control !== "none" ? make("span", { class: "mark" }, "control") : null,
    entry.variant ? make("span", { class: "variant" }, entry.variant) : null];
}

/** Its first images, seen before anything is opened. */
function stripCell(entry) {
  if (!entry.strip) return "-";
  const label = `first images of ${name(entry)}: truth above reconstruction`;
  return make("button", { type: "button", "aria-label": `${label}; open it`, onclick: () => open(entry) }, make("img", { class: "sheet", src: entry.strip, alt: label }));
}

function scoreCell(entry, metric) {
  const score = entry.scores[metric];
  if (!score) return "-";
  const label = `${fixed(score.mean, places(metric))}: open ${name(entry)}`;
  return [make("button", { type: "button", "aria-label": label, onclick: () => open(entry) }, fixed(score.mean, places(metric))),
    make("span", { class: "interval" }, interval(score, metric) + (score.n !== entry.n && !metric.endsWith("_in_batch") ? ` (n=${score.n})` : ""))];
}

/** Filters for the fields in which entries differ; `values` returns the values of an entry. */
const FILTERS = [
  { title: "Setting", values: entry => entry.settings.map(i => board.settings[i]), wide: true },
  { title: "Attack", values: entry => [entry.attack.replace(/, shuffled update \(control\)$/, "")] },
  ...["data", "victim", "batch_size", "defense", "prior", "labels", "bn"].filter(several).map(key => ({
    title: { batch_size: "Images in a batch", defense: "Defense", bn: "Batch-norm statistics" }[key] ?? key[0].toUpperCase() + key.slice(1),
    values: entry => [entry.fields[key] == null ? "-" : String(entry.fields[key])],
  })),
  { title: "Kind", values: entry => [entry.control === "none" ? "attacks" : "controls"] },
  { title: "Protocol", values: entry => [entry.stale ? `${entry.age} (stale)` : "present"] },
].map(filter => ({ ...filter, options: [...new Set(board.entries.flatMap(filter.values))].sort((a, b) => a.localeCompare(b, "en", { numeric: true })) }))
  .filter(filter => filter.options.length > 1);

function drawFilters() {
  for (const filter of FILTERS) {
    filter.select = make("select", {}, make("option", { value: "" }, "all"), filter.options.map(value => make("option", { value }, value)));
    filter.select.addEventListener("change", draw);
    $("filters").append(make("label", { class: filter.wide ? "wide" : null }, filter.title, filter.select));
  }
  $("search").addEventListener("input", draw);
  $("filters").addEventListener("submit", event => event.preventDefault());
}

function chosen() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  return board.entries.filter(entry => {
    const text = [name(entry), ...Object.values(entry.fields), ...entry.knowledge, settingOf(entry)].join(" ").toLowerCase();
    return words.every(word => text.includes(word)) && FILTERS.every(f => !f.select.value || f.values(entry).includes(f.select.value));
  });
}

function sorted(entries) {
  if (order.column === null) return entries;
  const { value } = COLUMNS[order.column], sign = order.down ? -1 : 1;
  return [...entries].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x == null || y == null) return (x == null) - (y == null);  // entries without a value are last in both orders
    return sign * (typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true }));
  });
}

function sortBy(column) {
  order = { column, down: order.column === column ? !order.down : Boolean(COLUMNS[column].down) };
  $("board").tHead.querySelectorAll("th").forEach((th, i) => COLUMNS[i].value && th.setAttribute("aria-sort", i !== column ? "none" : order.down ? "descending" : "ascending"));
  drawRows();
}

function drawRows() {
  const entries = sorted(chosen()), rows = entries.map(entry => make("tr", { class: entry.stale ? "stale" : null, "data-id": entry.id },
    COLUMNS.map(column => column.header ? make("th", { scope: "row" }, column.cell(entry)) : make("td", { class: column.wrap ? "wrap" : null }, column.cell(entry)))));
  const groups = new Map();
  if (order.column === null) entries.forEach((entry, i) => {  // without a sort column the board is ordered by setting
    if (i === 0 || settingOf(entries[i - 1]) !== settingOf(entry)) groups.set(rows[i], make("tr", { class: "group" }, make("th", { colspan: COLUMNS.length, scope: "rowgroup" }, make("span", {}, settingOf(entry)))));
  });
  $("board").tBodies[0].replaceChildren(...rows.flatMap(row => groups.has(row) ? [groups.get(row), row] : [row]));
  $("count").textContent = `${rows.length} of ${board.entries.length} entries`;
}

// Charts

const MOST = 16;
const LIMITS = { left: 58, right: 18, top: 10, bottom: 44 };
const MARKS = ["M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0", "M-4-4h8v8h-8z", "M0-5L5 4h-10z", "M0-5L5 0L0 5L-5 0z", "M0 5L5-4h-10z"];
const DASHES = [null, "7 3", "2 3", "9 3 2 3"];
const look = i => ({ color: `var(--c${i % 7})`, mark: MARKS[i % 5], dash: DASHES[Math.floor(i / 7) % 4] });

/** With `zero` a logarithmic scale is one of x + 1, which has a place for 0. */
function scale(values, low, high, log, zero) {
  const f = log ? x => Math.log10(x + (zero ? 1 : 0)) : x => x;
  let [a, b] = [Math.min(...values.map(f)), Math.max(...values.map(f))];
  if (a === b) [a, b] = [a - (log ? 0.3 : 0.5), b + (log ? 0.3 : 0.5)];
  const room = 0.04 * (b - a);
  [a, b] = [a - room, b + room];
  const to = x => low + (f(x) - a) / (b - a) * (high - low);
  let ticks = [];
  if (log) {
    const steps = b - a < 2 ? [1, 2, 5] : [1], skip = Math.max(1, Math.ceil((b - a) / 5));
    if (zero) ticks.push(0);
    for (let e = zero ? 1 : Math.floor(a); e <= b; e += 1) if (e % skip === 0) ticks.push(...steps.map(s => s * 10 ** e));
  }
  if (ticks.filter(t => f(t) >= a && f(t) <= b).length < 2) {
    const [from, to] = log ? [10 ** a, 10 ** b] : [a, b], raw = (to - from) / 5, power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 5, 10].find(s => s * power >= raw);
    ticks = Array.from({ length: 8 }, (_, i) => (Math.ceil(from / step) + i) * step);
  }
  return { to, ticks: ticks.filter(t => f(t) >= a && f(t) <= b) };
}

/** A figure; series have a name and points {x, y, low, high, id}, joined by lines or marked. */
function chart({ title, caption, x, y, series, joined, marked }) {
  series = series.map(s => ({ ...s, points: s.points.filter(p => p.y != null && p.x != null && (!y.log || p.y > 0) && (!x.log || x.zero || p.x > 0)) })).filter(s => s.points.length);
  if (!series.length) return null;
  const holder = make("div", { class: "plot" });
  const figure = make("figure", {}, make("h3", {}, title), holder,
    series.length === 1 ? null : make("ul", { class: "legend" }, series.map((s, i) => make("li", {}, swatch(i, joined, marked), s.name))), make("figcaption", {}, caption));
  const render = () => holder.replaceChildren(plot(Math.max(260, Math.min(760, holder.clientWidth || 600)), { title, x, y, series, joined, marked }));
  new ResizeObserver(render).observe(holder);
  return figure;
}

function swatch(i, joined, marked) {
  const { color, mark, dash } = look(i);
  return make("svg", { width: 26, height: 12, "aria-hidden": "true" },
    joined ? make("line", { x1: 1, x2: 25, y1: 6, y2: 6, stroke: color, "stroke-width": 2.5, "stroke-dasharray": dash }) : null,
    marked ? make("path", { d: mark, transform: "translate(13 6)", fill: color }) : null);
}

function plot(width, { title, x, y, series, joined, marked }) {
  const height = Math.round(Math.max(230, width * 0.5)), all = series.flatMap(s => s.points);
  const sx = scale(all.map(p => p.x), LIMITS.left, width - LIMITS.right, x.log, x.zero);
  const sy = scale(all.flatMap(p => [p.y, p.low ?? p.y, p.high ?? p.y]).filter(v => !y.log || v > 0), height - LIMITS.bottom, LIMITS.top, y.log);
  const [right, bottom] = [width - LIMITS.right, height - LIMITS.bottom];
  const svg = make("svg", { width, height, role: "img", "aria-label": `${title}: ${y.label} against ${x.label}` });
  for (const t of sx.ticks) svg.append(make("line", { class: "grid", x1: sx.to(t), x2: sx.to(t), y1: LIMITS.top, y2: bottom }),
    make("text", { x: sx.to(t), y: bottom + 16, "text-anchor": "middle" }, digits(t, 3)));
  for (const t of sy.ticks) svg.append(make("line", { class: "grid", x1: LIMITS.left, x2: right, y1: sy.to(t), y2: sy.to(t) }),
    make("text", { x: LIMITS.left - 6, y: sy.to(t) + 4, "text-anchor": "end" }, digits(t, 3)));
  svg.append(make("path", { class: "axis", d: `M${LIMITS.left} ${LIMITS.top}V${bottom}H${right}`, fill: "none" }),
    make("text", { x: (LIMITS.left + right) / 2, y: height - 8, "text-anchor": "middle" }, x.label),
    make("text", { transform: `translate(13 ${(LIMITS.top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, y.label));
  series.forEach((s, i) => {
    const { color, mark, dash } = look(i), at = p => [sx.to(p.x).toFixed(1), sy.to(p.y).toFixed(1)];
    if (joined && s.band) {
      const edge = key => s.points.map(p => `${sx.to(p.x).toFixed(1)} ${sy.to(Math.max(p[key], y.log ? 1e-300 : -Infinity)).toFixed(1)}`);
      svg.append(make("path", { d: `M${edge("low").join("L")}L${edge("high").reverse().join("L")}Z`, fill: color, opacity: 0.18 }));
    }
    if (joined) svg.append(make("path", { d: "M" + s.points.map(p => at(p).join(" ")).join("L"), fill: "none", stroke: color, "stroke-width": 2, "stroke-dasharray": dash }));
    for (const p of marked || s.points.length === 1 ? s.points : []) {
      const [px, py] = at(p), tip = `${s.name}: ${y.label} ${digits(p.y)}${p.low == null ? "" : ` (${digits(p.low)} to ${digits(p.high)})`}, ${x.label} ${digits(p.x)}`;
      if (p.low != null && !s.band) svg.append(make("line", { x1: px, x2: px, y1: sy.to(p.low), y2: sy.to(p.high), stroke: color, "stroke-width": 1.5 }));
      svg.append(make("path", { d: mark, transform: `translate(${px} ${py})`, fill: color, stroke: "var(--paper)" }, make("title", {}, tip)));
    }
  });
  return svg;
}

/** Cost by step, or by time, where all steps of a run are taken to be equally long. */
function costs(entries, timed) {
  return entries.filter(e => e.curve).map(e => ({
    name: name(e), band: !timed,
    points: e.curve.steps.map((step, i) => ({ x: timed ? (step + 1) / e.curve.length * e.seconds : step, y: e.curve.median[i], low: e.curve.low[i], high: e.curve.high[i] })),
  }));
}

function drawCharts() {
  const entries = chosen(), attacks = entries.filter(e => e.control === "none"), ids = new Set(entries.map(e => e.id));
  const groups = board.settings.map((label, i) => [label, attacks.filter(e => e.settings.includes(i))]).filter(([, group]) => group.length > 1);
  const sweeps = board.sweeps.map(sweep => chart({ title: `PSNR by ${sweep.axis}`, caption: `${sweep.setting}. Bars: 95 % intervals.`, x: { label: sweep.axis, log: /^(images|steps)/.test(sweep.axis), zero: sweep.axis.startsWith("steps") }, y: { label: "PSNR (dB)" },
    series: sweep.lines.map(line => ({ name: name(byId.get(line.points[0].id)), points: line.points.filter(p => ids.has(p.id)).map(p => ({ x: p.x, y: p.mean, ...bounds(p) })) })), joined: true, marked: true }));
  const figures = groups.flatMap(([label, group]) => [
    chart({ title: "Cost against time", caption: `${label}. Median over tasks. Attacks match by different costs: compare their shapes, not their heights.`,
      x: { label: "time (s)", log: true }, y: { label: "attacker's cost", log: true }, series: costs(group, true), joined: true }),
    chart({ title: "Quality against budget", caption: `${label}. Bars: 95 % intervals.`, x: { label: budget(group).label, log: true }, y: { label: "PSNR (dB)" }, marked: true,
      series: group.map(e => ({ name: name(e), points: [{ x: budget(group).value(e), y: e.scores.psnr?.mean, ...bounds(e.scores.psnr) }] })) }),
  ]);
  const drawn = [...sweeps, ...figures].filter(Boolean);  // sweeps first: they are few and span several settings
  $("charts").replaceChildren(...drawn.slice(0, MOST));
  if (drawn.length > MOST) $("charts").append(make("p", { class: "note" }, `${MOST} of ${drawn.length} charts: choose a setting above to see the other charts.`));
  if (!drawn.length) $("charts").append(make("p", { class: "note" }, "Nothing to draw: a chart needs two attacks of one setting, or one attack at two batch sizes, strengths of a defense or lengths of the victim's training."));
}
/** The number of gradients, which is the same on every machine; the time where all entries took equally many. */
const budget = group => new Set(group.map(e => e.gradient_evaluations)).size > 1
  ? { label: "gradients of the victim per task", value: e => e.gradient_evaluations } : { label: "time per task (s)", value: e => e.seconds };
const bounds = score => ({ low: score?.low ?? null, high: score?.high ?? null });

// Attacks by defenses: the brighter, the more leaks

const CIVIDIS = [[0, 34, 78], [58, 77, 110], [124, 123, 120], [188, 175, 111], [254, 232, 56]];
function heat(share) {
  const place = share * (CIVIDIS.length - 1), i = Math.min(CIVIDIS.length - 2, Math.floor(place));
  const [r, g, b] = CIVIDIS[i].map((c, k) => Math.round(c + (place - i) * (CIVIDIS[i + 1][k] - c)));
  return `background:rgb(${r} ${g} ${b});color:${0.3 * r + 0.59 * g + 0.11 * b > 120 ? "#000" : "#fff"}`;
}

function drawMatrices() {
  $("matrices").hidden = !board.matrices.length;
  for (const matrix of board.matrices) {
    const means = matrix.lines.flatMap(line => line.cells).filter(Boolean).map(cell => cell.mean), up = higher(matrix.metric);
    const [low, high] = [Math.min(...means), Math.max(...means)], pick = up ? Math.max : Math.min;
    const best = matrix.defenses.map((_, k) => pick(...matrix.lines.filter(line => !line.control && line.cells[k]).map(line => line.cells[k].mean)));
    const color = cell => heat(high === low ? 0.5 : up ? (cell.mean - low) / (high - low) : (high - cell.mean) / (high - low));
    const cells = line => line.cells.map((cell, k) => cell ? make("td", { style: color(cell), class: !line.control && cell.mean === best[k] ? "best" : null },
      fixed(cell.mean, places(matrix.metric)), make("br"), make("small", {}, interval(cell, matrix.metric))) : make("td", {}, "-"));
    $("matrices").append(make("p", { class: "note" }, `${heading(matrix.metric)}, best attack on each defense framed, the brightest leaks most: ${matrix.setting}`),
      make("div", { class: "scroll", role: "region", "aria-label": "Attacks by defenses", tabindex: 0 }, make("table", { class: "heat" },
        make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Attack"), matrix.defenses.map(d => make("th", { scope: "col" }, d)))),
        make("tbody", {}, matrix.lines.map(line => make("tr", {}, make("th", { scope: "row" }, line.attack), cells(line)))))));
    if (matrix.gains.length) $("matrices").append(make("p", { class: "note" }, matrix.what_gains_are),
      table(["Attack", ...matrix.defenses], matrix.gains.map(line => [line.attack, ...line.cells.map(cell => cell ? difference(cell, matrix.metric) : "-")])));
  }
}

// One entry

const difference = (score, metric) => `${score.mean > 0 ? "+" : ""}${fixed(score.mean, places(metric))} (${interval(score, metric)}), ${score.verdict}`;
const words = key => key.replaceAll("_", " ");
const table = (heads, rows) => make("div", { class: "scroll", role: "region", "aria-label": heads[0], tabindex: 0 }, make("table", {}, make("thead", {}, make("tr", {}, heads.map(h => make("th", { scope: "col" }, h)))),
  make("tbody", {}, rows.map(cells => make("tr", {}, cells.map(cell => make("td", {}, cell)))))));

function picture(key, text) {
  return make("figure", {}, make("img", { src: board.pictures[key], alt: text }), make("figcaption", {}, text));
}

function pictures(row) {
  const truth = row.truth, ours = row.reconstruction;
  const over = truth && ours ? make("figure", {}, make("div", { class: "over", role: "img", "aria-label": "difference" }, [truth, ours].map(key => make("img", { src: board.pictures[key], alt: "" }))), make("figcaption", {}, "difference")) : null;
  return make("div", {}, truth ? picture(truth, "truth") : null, picture(ours, "rebuilt"), over,
    make("p", {}, `${row.image}: ${SHORT.map(metric => metric === "psnr" ? `${fixed(row.psnr, 2)} dB` : `${heading(metric)} ${fixed(row[metric], 2)}`).join(", ")}` + (row.status === "diverged" ? ", diverged" : "") + (row.degenerate ? ", degenerate" : "")));
}

function open(entry) {
  const dialog = $("entry"), base = byId.get(entry.reference), shown = entry.rows.filter(row => row.reconstruction);
  const copy = text => make("button", { type: "button", onclick: event => navigator.clipboard.writeText(text).then(() => { event.target.textContent = "Copied"; }, () => { event.target.textContent = "Select it and copy"; }) }, "Copy");
  const curve = chart({ title: "Cost by step", caption: entry.curve ? `The attacker's cost, median and quartiles over ${entry.curve.tasks} tasks. Stages: ${entry.curve.stages.map(([step, stage]) => `${stage} from ${step}`).join(", ")}.` : "",
    x: { label: "step" }, y: { label: "attacker's cost", log: true }, series: costs([entry], false), joined: true });
  const scores = METRICS.filter(metric => entry.scores[metric] && tells(metric, [entry])).map(metric => {
    const score = entry.scores[metric], minus = entry.differences[metric];
    return [heading(metric), fixed(score.mean, places(metric)), interval(score, metric), score.n,
      ...(base ? [minus ? difference(minus, metric) : "-"] : [])];
  });
  dialog.replaceChildren(...[
    make("header", {}, make("h2", { id: "entry-heading" }, name(entry)), make("button", { type: "button", onclick: () => dialog.close() }, "Close")),
    make("p", { class: "soft" }, settingOf(entry) + (entry.stale ? `. Stale: protocol ${entry.fields.protocol}, the present one is ${board.protocol}.` : "")),
    make("h3", {}, "Repeat it"), entry.commands.map(line => [make("pre", {}, make("code", {}, line)), copy(line)]),
    make("h3", {}, "Scores"), table(["Metric", "Mean", "95 % interval", "n", ...(base ? [`Minus ${name(base)}, paired`] : [])], scores),
    entry.corrected ? make("p", { class: "note" }, entry.corrected) : null,
    entry.reported.length ? [make("h3", {}, "Reported"), table(["Source", "Values", "Note"], entry.reported.map(published))] : null,
    make("h3", {}, "What the attacker has"), make("p", {}, entry.knowledge.join("; ") || "Nothing: no attack was run."),
    curve,
    make("h3", {}, "Pictures"), make("p", { class: "note" }, `${shown.length} of ${entry.rows.length} images` + (shown.length && !shown.some(row => row.truth) ? "; the true images were not kept by this run." : shown.length ? "; differences are shown at twice their brightness." : ".")),
    make("div", { class: "pictures" }, shown.map(pictures)),
    make("h3", {}, "Configuration"), make("dl", {}, Object.entries(entry.fields).filter(([, value]) => value != null && value !== "").map(([key, value]) => make("div", {}, make("dt", {}, words(key)), make("dd", {}, String(value))))),
    make("details", {}, make("summary", {}, `Scores of all ${entry.rows.length} images`), table(["Task", "Image", "Seed", "Status", "Cost", ...Object.keys(board.metrics).map(heading)],
      entry.rows.map(row => [row.task, row.image, row.seed, row.status, digits(row.cost), ...Object.keys(board.metrics).map(metric => fixed(row[metric], places(metric)))]))),
  ].flat(2).filter(Boolean));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  history.replaceState(null, "", `#${entry.id}`);
}

const published = r => [r.source, Object.entries(r.values).map(([metric, value]) => `${heading(metric)} ${value}`).join(", "), r.note ?? ""];

const described = setting => Object.entries(setting).map(([key, value]) => typeof value === "object" && value ? described(value) : `${words(key)} ${value}`).join(", ");

function draw() {
  drawRows();
  drawCharts();
}

$("summary").textContent = `Entries: ${board.entries.length}, settings: ${board.settings.length}, images: ${board.entries.reduce((sum, e) => sum + e.n, 0)}, protocol: ${board.protocol}.`;
$("notes").append(...Object.entries(board.notes).filter(([metric]) => tells(metric, board.entries)).map(([metric, note]) => make("li", {}, `${heading(metric)}: ${note}.`)));
$("warnings").hidden = !board.warnings.length;
$("warnings").firstChild.textContent = `${board.warnings.length === 1 ? "1 result is" : `${board.warnings.length} results are`} torn or missing; all other results are shown`;
$("warnings").lastChild.append(...board.warnings.map(text => make("li", {}, text)));
$("board").tHead.append(make("tr", {}, COLUMNS.map((column, i) => make("th", { scope: "col", "aria-sort": column.value ? "none" : null }, column.value ? make("button", { type: "button", onclick: () => sortBy(i) }, column.title) : column.title))));
$("reported").hidden = !board.reported.length;
$("reported").querySelector("summary").textContent = `${board.reported.length} numbers`;
$("reported").querySelector(".scroll").replaceWith(table(["Method", "Setting", "Source", "Values", "Note"], board.reported.map(r => [r.method, described(r.setting), ...published(r)])));
$("entry").addEventListener("close", () => history.replaceState(null, "", "#"));
drawFilters();
drawMatrices();
draw();
if (byId.has(location.hash.slice(1))) open(byId.get(location.hash.slice(1)));
