"use strict";
// The table is the data: sorting, filtering and the plot read what the page already shows.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

function svg(name, attributes, parent) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (parent) parent.append(element);
  return element;
}

// ---- tooltips -------------------------------------------------------------------------------------------------

const tip = $("#tip");

function showTip(target) {
  const owner = target && target.closest && target.closest("[data-tip]");
  tip.hidden = !owner || !owner.dataset.tip;
  if (tip.hidden) return;
  tip.textContent = owner.dataset.tip;
  const box = owner.getBoundingClientRect(), own = tip.getBoundingClientRect();
  const below = box.bottom + 6 + own.height < innerHeight;
  tip.style.left = `${Math.max(8, Math.min(box.left + box.width / 2 - own.width / 2, innerWidth - own.width - 8))}px`;
  tip.style.top = `${below ? box.bottom + 6 : Math.max(8, box.top - own.height - 6)}px`;
}

// ---- sorting --------------------------------------------------------------------------------------------------

function sortBy(head) {
  const table = head.closest("table"), body = table.tBodies[0], button = $("button", head);
  const index = head.cellIndex, kind = button.dataset.kind;
  const first = head.dataset.better === "higher" ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const order = head.getAttribute("aria-sort") === first ? other : first;
  for (const one of $$("th[aria-sort]", table)) one.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  table.classList.add("sorted");
  const sign = order === "ascending" ? 1 : -1;
  const key = (row) => {
    const cell = row.cells[index];
    return kind === "text" ? cell.textContent.trim() : cell.dataset.v ? Number(cell.dataset.v) : null;
  };
  const keyed = [...body.rows].map((row, place) => ({ row, place, key: key(row) }));
  keyed.sort((a, b) => {
    if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.place - b.place;
    const found = kind === "text" ? a.key.localeCompare(b.key, "en", { numeric: true }) : a.key - b.key;
    return sign * found || a.place - b.place;
  });
  body.append(...keyed.map((one) => one.row));
}

// ---- filtering ------------------------------------------------------------------------------------------------

const wanted = (id) => ($(`#${id}`) ? $(`#${id}`).value : "");

function filter() {
  const words = wanted("find").toLowerCase().split(/\s+/).filter(Boolean);
  const [model, track, band] = ["model", "track", "band"].map(wanted);
  let shown = 0, all = 0;
  for (const section of $$("section.model")) {
    let left = 0;
    const isWanted = !model || section.dataset.model === model;
    for (const row of $(".board tbody", section).rows) {
      const { find, ...data } = row.dataset, text = find.toLowerCase();
      row.hidden = !isWanted || (track && data.track !== track) || (band && data.band !== band)
        || !words.every((word) => text.includes(word));
      left += !row.hidden;
      all += 1;
    }
    section.hidden = !isWanted;
    $(".empty", section).hidden = left > 0;
    shown += left;
    if (isWanted) plot(section);
  }
  $("#count").textContent = shown === all ? `${all} rows` : `${shown} of ${all} rows`;
}

// ---- the plot -------------------------------------------------------------------------------------------------

const FRAME = { left: 56, right: 846, top: 14, bottom: 312 };
const MARK = 18;

function scale(values, from, to) {
  const low = Math.min(...values), high = Math.max(...values), isLog = low > 0 && high > 10 * low;
  const [a, b] = isLog ? [Math.log10(low), Math.log10(high)] : [low, high];
  const room = 0.07 * (b - a) || Math.abs(b) * 0.05 || 1, start = a - room, end = b + room;
  const place = (value) => from + ((to - from) * ((isLog ? Math.log10(value) : value) - start)) / (end - start);
  const clipped = (value) => (isLog && value <= 0 ? from : place(value));
  return { place: clipped, isLog, ticks: isLog ? logTicks(start, end) : linearTicks(start, end) };
}

function linearTicks(start, end) {
  const rough = (end - start) / (FRAME.right > 500 ? 6 : 4), power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((n) => n * power >= rough), ticks = [];
  for (let n = Math.ceil(start / step); n * step <= end; n += 1) ticks.push(Number((n * step).toPrecision(12)));
  return ticks;
}

function logTicks(start, end) {
  const leading = end - start < 3 ? [1, 2, 5] : [1], ticks = [];
  for (let power = Math.floor(start); power <= end; power += 1) {
    for (const digit of leading) {
      const at = power + Math.log10(digit);
      if (at >= start && at <= end) ticks.push(Number((digit * 10 ** power).toPrecision(12)));
    }
  }
  return ticks;
}

const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

function pointsOf(section, x, y) {
  const points = [];
  for (const row of $(".board tbody", section).rows) {
    const [a, b] = [row.cells[x], row.cells[y]];
    if (row.hidden || !a.dataset.v || !b.dataset.v) continue;
    points.push({ row, x: Number(a.dataset.v), y: Number(b.dataset.v), a: a.dataset, b: b.dataset });
  }
  return points;
}

function measure() { // once for all plots: asking for a width makes the browser lay out everything
  FRAME.right = Math.max(320, Math.min(980, $("main").clientWidth)) - 14;
}

function front(points, xSign, ySign, grain) { // a better y beats also where x is worse by no more than grain
  const beats = (p, q) => {
    const [x, y] = [xSign * (p.x - q.x), ySign * (p.y - q.y)];
    return (y > 0 && x >= -grain) || (y === 0 && x > 0);
  };
  const best = points.filter((point) => !points.some((other) => beats(other, point)));
  return best.sort((p, q) => xSign * (q.x - p.x) || ySign * (q.y - p.y));
}

function plot(section) {
  const figure = $(".plot", section), picture = $("svg", figure);
  const [x, y] = [".x", ".y"].map((name) => Number($(name, figure).value));
  if (figure.hidden || !x || !y) return;
  const heads = $(".board thead tr", section).cells, points = pointsOf(section, x, y);
  picture.replaceChildren();
  picture.setAttribute("viewBox", `0 0 ${FRAME.right + 14} 360`);
  if (!points.length) return;
  const ends = (name, key) => points.flatMap((p) => [p[name], ...[p[key].lo, p[key].hi].filter(Boolean).map(Number)]);
  const positive = (values, own) => (Math.min(...own) > 0 ? values.filter((v) => v > 0) : values);
  const [xs, ys] = [points.map((p) => p.x), points.map((p) => p.y)];
  const across = scale(positive(ends("x", "a"), xs), FRAME.left, FRAME.right);
  const up = scale(positive(ends("y", "b"), ys), FRAME.bottom, FRAME.top);
  drawFrame(picture, across, up, heads[x], heads[y]);
  const isSize = (head) => head.dataset.kind === "removed";
  const sign = (head) => (isSize(head) || head.dataset.better === "higher" ? 1 : -1);
  const sure = points.filter((p) => ![p.a.tip, p.b.tip].some((tip) => tip.includes("disturbed")));
  const grain = across.isLog ? 0 : 0.01 * (isSize(heads[x]) ? 1 : Math.max(...xs.map(Math.abs)));
  const best = front(sure, sign(heads[x]), sign(heads[y]), grain);
  const stair = best.map((p, i) => `${i ? `H${across.place(p.x)}V` : `M${across.place(p.x)} `}${up.place(p.y)}`);
  if (best.length > 1) svg("path", { class: "front", d: stair.join("") }, picture);
  const taken = [];
  for (const point of points) drawPoint(picture, point, across, up, taken);
}

function drawFrame(picture, across, up, xHead, yHead) {
  const { left, right, top, bottom } = FRAME;
  const text = (content, attributes) => { svg("text", { class: "label", ...attributes }, picture).textContent = content; };
  for (const tick of across.ticks) {
    const at = across.place(tick);
    svg("path", { class: "grid", d: `M${at} ${top}V${bottom}` }, picture);
    text(label(tick, xHead), { x: at, y: bottom + 18, "text-anchor": "middle" });
  }
  for (const tick of up.ticks) {
    const at = up.place(tick);
    svg("path", { class: "grid", d: `M${left} ${at}H${right}` }, picture);
    text(label(tick, yHead), { x: left - 8, y: at + 4, "text-anchor": "end" });
  }
  svg("path", { class: "axis", d: `M${left} ${top}V${bottom}H${right}`, fill: "none" }, picture);
  text(title(xHead), { x: right, y: bottom + 40, "text-anchor": "end" });
  text(title(yHead), { x: left + 8, y: top + 4 });
}

const isShare = (head) => head.dataset.unit === "fraction";
const label = (value, head) => (isShare(head) ? String(Number((100 * value).toPrecision(6))) : short.format(value));
const title = (head) => $("button", head).textContent.trim().replace(/\s+/g, " ");

function drawPoint(picture, point, across, up, taken) {
  const [x, y] = [across.place(point.x), up.place(point.y)];
  // points that would cover one another stand a little aside, unless a bar along x would then be wrong
  const room = (at) => Math.min(13, ...taken.map(([a, b]) => Math.hypot(a - at, b - y)));
  const places = (point.a.lo ? [0] : [0, 1, -1, 2, -2, 3, -3]).map((n) => x + 13 * n);
  const moved = places.reduce((best, at) => (room(at) > room(best) ? at : best));
  taken.push([moved, y]);
  const link = svg("a", { href: $("a", point.row).getAttribute("href") }, picture);
  const mark = $(".mark", point.row).cloneNode(true), path = $("path", mark);
  const colour = path.getAttribute("fill") === "none" ? path.getAttribute("stroke") : path.getAttribute("fill");
  if (point.b.lo) bar(link, colour, `M${moved} ${up.place(Number(point.b.lo))}V${up.place(Number(point.b.hi))}`);
  if (point.a.lo) bar(link, colour, `M${across.place(Number(point.a.lo))} ${y}H${across.place(Number(point.a.hi))}`);
  if (path.getAttribute("fill") === "none") svg("circle", { cx: moved, cy: y, r: 6, class: "paper" }, link);
  for (const [key, value] of Object.entries({ x: moved - MARK / 2, y: y - MARK / 2, width: MARK, height: MARK })) {
    mark.setAttribute(key, value);
  }
  link.append(mark);
  svg("circle", { cx: moved, cy: y, r: 10 }, link);
  link.dataset.row = point.row.id;
  link.dataset.tip = `${point.row.dataset.label}: ${point.b.tip}; ${point.a.tip}`;
  link.setAttribute("aria-label", link.dataset.tip);
}

const bar = (parent, colour, d) => svg("path", { class: "bar", stroke: colour, d, fill: "none" }, parent);

function setUpPlot(section) {
  const figure = $(".plot", section), heads = [...$(".board thead tr", section).cells];
  for (const axis of ["x", "y"]) {
    const select = $(`.${axis}`, figure);
    for (const head of heads.filter((one) => one.dataset.axis === axis)) {
      const option = document.createElement("option");
      option.value = head.cellIndex;
      option.textContent = head.dataset.better === "none" ? title(head) : title(head).replace(/ [↑↓]/, "");
      select.append(option);
    }
    select.addEventListener("change", () => plot(section));
  }
  const quality = heads.find((head) => head.dataset.id === $(".basis code", section)?.textContent);
  if (quality) $(".y", figure).value = quality.cellIndex;
  const places = (option) => new Set($$(".board tbody tr:not(.dense)", section)
    .map((row) => Number(row.cells[option.value].dataset.v || 0)).filter(Boolean).map((v) => v.toPrecision(2))).size;
  const spread = [...$(".x", figure).options].find((option) => places(option) > 1);
  if (spread) spread.selected = true;
  figure.hidden = !$(".x", figure).options.length || !$(".y", figure).options.length;
}

// ---- which rows are tied; moving through a table by keys -------------------------------------------------------

function light(target) {
  for (const one of $$(".tied, .lit")) one.classList.remove("tied", "lit");
  const point = target.closest?.(".plot a[data-row]");
  const row = point ? $(`#${point.dataset.row}`) : target.closest?.(".board tbody tr");
  if (!row) return;
  if (point) row.classList.add("lit");
  for (const link of $$(".plot a[data-row]")) link.classList.toggle("lit", link.dataset.row === row.id);
  for (const tie of (row.dataset.ties || "").split(" ").filter(Boolean)) $(`#r${tie}`)?.classList.add("tied");
}

function move(event) {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  const cell = step && event.target.closest(".board tbody tr > *");
  if (!cell) return;
  const isShown = (one) => one && !one.hidden && one.offsetParent !== null;
  const next = (one) => (step[0] < 0 ? one.previousElementSibling : one.nextElementSibling);
  let target = cell;
  if (step[1]) {
    do target = step[1] < 0 ? target.previousElementSibling : target.nextElementSibling; while (target && !isShown(target));
  } else {
    let row = cell.parentElement;
    do row = next(row); while (row && row.hidden);
    target = row && row.cells[cell.cellIndex];
  }
  if (!target) return;
  event.preventDefault();
  const inner = $("a", target) || target;
  if (inner === target) target.tabIndex = -1;
  inner.focus();
}

// ---- dark and light -------------------------------------------------------------------------------------------

function setUpTheme() {
  const button = $(".theme"), root = document.documentElement;
  let kept = "";
  try { kept = localStorage.getItem("theme") || ""; } catch { /* some browsers keep nothing for files */ }
  root.style.colorScheme = kept;
  button.hidden = false;
  button.addEventListener("click", () => {
    const isDark = (root.style.colorScheme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "")) === "dark";
    root.style.colorScheme = isDark ? "light" : "dark";
    try { localStorage.setItem("theme", root.style.colorScheme); } catch { /* as above */ }
  });
}

setUpTheme();
measure();
for (const section of $$("section.model")) setUpPlot(section);
if ($(".controls")) {
  for (const head of $$(".board thead th")) $("button", head).addEventListener("click", () => sortBy(head));
  for (const id of ["find", "model", "track", "band"]) $(`#${id}`)?.addEventListener("input", filter);
  $(".controls").addEventListener("submit", (event) => event.preventDefault());
  $("#view").addEventListener("input", () => { for (const table of $$(".board")) table.dataset.view = wanted("view"); });
  filter();
}
for (const kind of ["pointerover", "focusin"]) {
  document.addEventListener(kind, (event) => { showTip(event.target); light(event.target); });
}
document.addEventListener("keydown", (event) => (event.key === "Escape" ? showTip(null) : move(event)));
addEventListener("resize", () => { measure(); for (const section of $$("section.model:not([hidden])")) plot(section); });
document.addEventListener("scroll", () => showTip(null), { passive: true, capture: true });
