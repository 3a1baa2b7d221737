// Columns in execution order: hover, or focus and use the arrow keys, to read them; Enter opens the layer.

const MARGIN = { left: 58, right: 12, top: 20, bottom: 20 };
const tip = h("div", { class: "tip", role: "status" });
tip.hidden = true;

// rows: { layer, name, kind, value, weight, mark, lines }; of equal values the one of more weight is the worst.
// options: title, text, height, unit(value) of the axis, said(value) beside a name, log, integer, strip, worst (colour it), none: text if all are zero.
function plot(rows, options) {
  const caption = h("figcaption", {}, h("h3", {}, options.title), h("p", {}, options.text));
  if (!rows.some((row) => row.value > 0)) {
    return h("figure", { class: "plot" }, caption, h("p", { class: "nothing" }, options.none));
  }
  const frame = h("div");
  const figure = h("figure", { class: "plot" }, caption, frame);
  let width = 0;
  new ResizeObserver(([entry]) => {
    const now = Math.floor(entry.contentRect.width);
    if (now && now !== width) {
      width = now;
      frame.replaceChildren(drawing(rows, options, width));
    }
  }).observe(frame);
  return figure;
}

function drawing(rows, options, width) {
  const height = options.height ?? 132;
  const inner = { w: width - MARGIN.left - MARGIN.right, h: height - MARGIN.top - MARGIN.bottom };
  const top = rows.reduce((best, row, i) => (above(row, rows[best]) ? i : best), 0);
  const scale = scaleOf(rows, options, inner.h);
  const pitch = inner.w / Math.max(rows.length, 1);
  const svg = s("svg", {
    width, height, viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "img", "aria-label": described(rows, options, top),
  });
  scale.ticks.forEach((value) => {
    const y = MARGIN.top + inner.h - scale.of(value);
    svg.append(s("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }));
    svg.append(s("text", { x: MARGIN.left - 6, y: y + 4, "text-anchor": "end" }, options.unit(value)));
  });
  const base = MARGIN.top + inner.h;
  const cursor = s("rect", { class: "cursor", y: MARGIN.top, width: pitch, height: inner.h, visibility: "hidden" });
  svg.append(cursor);
  const bar = Math.max(1, Math.min(pitch * 0.72, 34));
  rows.forEach((row, i) => {
    const x = MARGIN.left + (i + 0.5) * pitch;
    const tall = row.value ? Math.max(scale.of(row.value), 1.5) : 0;
    const kind = `column ${row.kind ?? ""}${options.worst && i === top ? " top" : ""}`;
    if (tall) svg.append(s("rect", { class: kind, x: x - bar / 2, y: base - tall, width: bar, height: tall, rx: Math.min(2, bar / 4) }));
    if (options.strip) svg.append(s("rect", { class: `column ${row.kind}`, x: MARGIN.left + i * pitch, y: base + 1, width: Math.max(pitch - (pitch > 4 ? 1 : 0), 1), height: 5 }));
    if (row.mark) {
      const y = base - scale.of(row.mark);
      svg.append(s("line", { class: "bound", x1: x - Math.max(bar / 2 + 1, 2.5), x2: x + Math.max(bar / 2 + 1, 2.5), y1: y, y2: y }));
    }
  });
  svg.append(s("line", { class: "axis", x1: MARGIN.left, x2: width - MARGIN.right, y1: base, y2: base }));
  svg.append(...names(rows, pitch, base));
  svg.append(label(rows[top], MARGIN.left + (top + 0.5) * pitch, width, options));
  follow(svg, cursor, rows, pitch);
  return svg;
}

function above(row, other) {
  return row.value > other.value || (row.value === other.value && row.weight > other.weight);
}

// Linear from zero, or by powers of ten below the largest.
function scaleOf(rows, options, height) {
  const values = rows.flatMap((row) => [row.value, row.mark]).filter((value) => value > 0);
  const most = Math.max(...values, 0);
  if (!options.log) {
    const unit = options.integer ? Math.max(nice(most / 3), 1) : nice(most / 3);
    const end = unit * Math.ceil(most / unit - 1e-9);
    const ticks = Array.from({ length: Math.round(end / unit) + 1 }, (_, i) => i * unit);
    return { ticks, of: (value) => (value / end) * height };
  }
  const high = Math.ceil(Math.log10(most));
  const low = Math.max(Math.floor(Math.log10(Math.min(...values))), high - 8) - 0.3;
  const every = Math.ceil((high - low) / 4);
  const ticks = [];
  for (let power = high; power >= low; power -= every) ticks.push(10 ** power);
  return { ticks, of: (value) => (Math.max(Math.log10(value) - low, 0) / (high - low)) * height };
}

function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 2.5, 5, 10].find((step) => step * power >= value * 0.999);
}

// Names below the columns where there is room, else numbers of layers.
function names(rows, pitch, base) {
  if (pitch >= 52) {
    const tail = commonTail(rows);
    return rows.map((row, i) => s("text", { x: MARGIN.left + (i + 0.5) * pitch, y: base + 17, "text-anchor": "middle" },
      short(row.name.endsWith(tail) ? row.name.slice(0, row.name.length - tail.length) : row.name, Math.floor((pitch - 6) / 6.4))));
  }
  const every = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((step) => step * pitch >= 40) ?? 1000;
  return rows.map((row, i) => [row, i]).filter(([, i]) => i % every === 0).map(([row, i]) =>
    s("text", { x: MARGIN.left + (i + 0.5) * pitch, y: base + 17, "text-anchor": "middle" }, numberOf(row)));
}

// What most names end in (as `/quantize`) tells none from another.
function commonTail(rows) {
  const counts = new Map();
  rows.forEach(({ name }) => {
    const tail = name.includes("/") ? name.slice(name.lastIndexOf("/")) : "";
    counts.set(tail, (counts.get(tail) ?? 0) + 1);
  });
  const [tail, count] = [...counts].sort((a, b) => b[1] - a[1])[0];
  return 2 * count > rows.length ? tail : "";
}

function numberOf(row) {
  const number = row.layer === null ? null : layers[row.layer].number;
  return number === null ? "" : `#${number}`;
}

function label(row, x, width, options) {
  const text = `${short(row.name, 60)}  ${(options.said ?? options.unit)(row.value)}`;
  const half = text.length * 3.5;
  const at = Math.min(Math.max(x, MARGIN.left + half), width - MARGIN.right - half);
  return s("text", { class: "strong", x: at, y: 12, "text-anchor": "middle" }, text);
}

function described(rows, options, top) {
  const found = `largest: ${rows[top].name}, ${options.unit(rows[top].value)}`;
  return `${options.title}, ${rows.length} columns; ${found}. Arrow keys read the columns.`;
}

function follow(svg, cursor, rows, pitch) {
  let at = -1;
  const show = (i) => {
    at = Math.min(Math.max(i, 0), rows.length - 1);
    if (at < 0) return;
    cursor.setAttribute("x", MARGIN.left + at * pitch);
    cursor.setAttribute("visibility", "visible");
    const box = svg.getBoundingClientRect();
    showTip(rows[at], box.left + MARGIN.left + (at + 0.5) * pitch, box.top + MARGIN.top);
  };
  const hide = () => {
    cursor.setAttribute("visibility", "hidden");
    tip.hidden = true;
  };
  const under = (event) => Math.floor((event.clientX - svg.getBoundingClientRect().left - MARGIN.left) / pitch);
  svg.addEventListener("pointermove", (event) => show(under(event)));
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("click", (event) => { show(under(event)); open(rows[at]); });
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (move !== undefined) show(move);
    else if (event.key === "Enter") open(rows[at]);
    else return;
    event.preventDefault();
  });
}

function open(row) {
  if (row && row.layer !== null) choose(row.layer);
}

function showTip(row, x, y) {
  tip.replaceChildren(h("b", {}, `${numberOf(row)} ${row.name}`.trim()), ...row.lines.map((text) => h("div", {}, text)));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - box.width - 20)) + scrollX}px`;
  tip.style.top = `${y + scrollY + 4}px`;
}
