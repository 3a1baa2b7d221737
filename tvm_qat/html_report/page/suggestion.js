// Which layers to keep in float, and what every set of them that was tried brought.

const MOST_NAMES = 4;

function suggestionSection() {
  const { words, flag, layers: named_layers, trials, within, kept } = data.suggestion;
  const links = named_layers.map((name, i) => [i ? ", " : "", named(name)]);
  const told = h("div", { class: "panel", id: "suggested" },
    words.map((line) => h("p", {}, line)),
    links.length ? h("p", {}, "Layers: ", links.flat()) : null,
    flag ? h("p", {}, h("code", {}, `tvm-qat compile ${flag}`)) : null);
  const columns = [
    { label: "In float", value: (row) => row.kept.length, text: (row) => row.kept.join(" "), cell: (row) => h("span", { title: row.kept.join("\n") }, some(row.kept)), first: true, wide: true },
    { label: "Nodes", number: true, value: (row) => row.kept.length },
    { label: "Outputs, at most", number: true, value: (row) => row.steps, cell: (row) => `${digits(row.steps)} steps` },
    { label: "Enough", value: (row) => (row.steps <= within ? "yes" : "no"), cell: (row) => `${row.steps <= within ? "✓ yes" : "no"}${same(row.kept, kept) ? ", chosen" : ""}` },
  ];
  const filters = [["all", () => true], ["enough", (row) => row.steps <= within]];
  return section("suggestion", "What to keep in float",
    `Each row is a set of nodes that was kept in float, folded and run: how far an output then is from the simulation. The limit was ${digits(within)} steps.`,
    [], told, table(trials, columns, { caption: "Trials", filters, limit: 40, what: ["trial", "trials"] }));
}

function some(names) {
  const more = names.length - MOST_NAMES;
  const shown = names.slice(0, MOST_NAMES).map((name) => short(name, 44)).join(", ") || "nothing";
  return more > 0 ? `${shown} and ${whole(more)} more` : shown;
}

function same(one, other) {
  return one.length === other.length && one.every((name, i) => name === other[i]);
}
