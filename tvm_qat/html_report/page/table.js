// A real table whose headers sort and whose rows can be searched.

// columns: { label, number, value(row) to sort and search by, cell(row), first, wide, title }.
// options: caption, sort: [column, descending], filters: [[text, keep(row)]], layer(row), limit, what: [one, many].
function table(rows, columns, options) {
  const state = { text: "", keep: null, column: null, descending: false, all: false };
  const body = h("tbody");
  const count = h("span", { class: "count", role: "status" });
  const more = h("button", { type: "button", onclick: () => { state.all = true; draw(); } });
  const headers = columns.map((column, i) =>
    h("th", { scope: "col", class: column.number ? "number" : null, title: column.title },
      h("button", { type: "button", onclick: () => sortBy(i) }, column.label)));
  const made = new Map();
  const texts = rows.map((row) => columns.map((column) => String(column.text ? column.text(row) : column.value(row) ?? "")).join(" ").toLowerCase());
  const order = rows.map((_, i) => i);

  function element(i) {
    if (!made.has(i)) made.set(i, line(rows[i], columns, options));
    return made.get(i);
  }

  function sortBy(i, descending) {
    const first = columns[i].number ? true : false;
    state.descending = descending ?? (state.column === i ? !state.descending : first);
    state.column = i;
    headers.forEach((header, at) => {
      if (at === i) header.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
      else header.removeAttribute("aria-sort");
    });
    const keys = rows.map(columns[i].value);
    order.sort((a, b) => compare(keys[a], keys[b], state.descending) || a - b);
    draw();
  }

  function draw() {
    const found = order.filter((i) => texts[i].includes(state.text) && (!state.keep || state.keep(rows[i])));
    const shown = state.all || !options.limit ? found : found.slice(0, options.limit);
    body.replaceChildren(...shown.map(element));
    if (!shown.length) {
      body.append(h("tr", { class: "empty" }, h("td", { colspan: columns.length }, "nothing matches")));
    }
    count.textContent = found.length === rows.length
      ? counted(rows.length, ...options.what) : `${whole(found.length)} of ${counted(rows.length, ...options.what)}`;
    more.hidden = shown.length === found.length;
    more.textContent = `Show all ${whole(found.length)}`;
  }

  const tools = h("div", { class: "tools" },
    search(`Search ${options.what[1]}`, (text) => { state.text = text; draw(); }),
    options.filters ? select("show", options.filters.map(([text], i) => [i, text]), (i) => {
      state.keep = options.filters[i][1];
      draw();
    }) : null,
    count, more);
  onChoice((layer) => {
    made.forEach((row, i) => {
      const mine = options.layer && layer !== null && options.layer(rows[i]) === layer;
      mine ? row.setAttribute("aria-current", "true") : row.removeAttribute("aria-current");
    });
  });
  state.keep = options.filters ? options.filters[0][1] : null;
  options.sort ? sortBy(...options.sort) : draw();
  const head = h("thead", {}, h("tr", {}, headers));
  const whole_table = h("table", { "aria-label": options.caption }, head, body);
  return h("div", { class: "panel" }, tools, h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": options.caption }, whole_table));
}

function line(row, columns, options) {
  return h("tr", {}, columns.map((column) => {
    const content = column.cell ? column.cell(row) : column.value(row);
    const kind = [column.number ? "number" : "", column.wide ? "wide" : "", column.first ? "name" : ""].join(" ").trim();
    const cell = content === null || content === undefined ? "" : content;
    return h(column.first ? "th" : "td", { scope: column.first ? "row" : null, class: kind || null }, cell);
  }));
}

// What is not known comes last in either direction.
function compare(a, b, descending) {
  const lost = (value) => value === null || value === undefined || value === "";
  if (lost(a) || lost(b)) return lost(a) - lost(b);
  const sign = typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return descending ? -sign : sign;
}
