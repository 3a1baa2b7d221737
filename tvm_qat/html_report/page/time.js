// Each kernel's time beside the least time that its products could take on this core.

const boundOf = (kernel) => (data.peak?.gops && kernel.macs ? (2e-9 * kernel.macs) / data.peak.gops : null);

function timeSection() {
  if (!data.kernels.length) {
    return section("time", "Time", "The kernels were not timed.", []);
  }
  const total = data.kernels.reduce((sum, kernel) => sum + kernel.seconds, 0);
  const bound = data.kernels.reduce((sum, kernel) => sum + (boundOf(kernel) ?? 0), 0);
  const peak = data.peak.gops
    ? `The mark is the bound: its multiply-accumulates at ${digits(data.peak.gops)} GOPS, the measured peak of one core (${data.peak.instruction} in registers); together ${seconds(bound)}.`
    : "This machine has no instruction whose peak is known, so there is no bound.";
  const rows = data.kernels.map((kernel) => ({
    layer: kernel.layer, name: kernel.name, kind: kernel.layer === null ? "absorbed" : layers[kernel.layer].state,
    value: kernel.seconds, mark: boundOf(kernel),
    lines: [`${seconds(kernel.seconds)}, ${percent(kernel.share)} of the time`, ...rateLines(kernel), kernel.kernel],
  }));
  const panel = h("div", { class: "panel" },
    h("div", { class: "tools spread" }, h("h3", {}, `${seconds(total)} in ${counted(rows.length, "kernel")}`),
      legend(["integer", "integer"], ["float", "float"], ["bound", "bound by multiply-accumulates"], ...(rows.some((row) => row.layer === null) ? [["absorbed", "kernels without a node's name"]] : []))),
    plot(rows, {
      title: "Time of each kernel", text: "median, in execution order",
      unit: seconds, none: "no time was measured", height: 150,
    }));
  return section("time", "Time", `One thread, batch and inputs as verified. ${peak}`, [], panel, kernelTable(rows));
}

function rateLines(kernel) {
  if (!kernel.gops) return [];
  const share = kernel.of_peak === null ? "" : `, ${percent(kernel.of_peak)} of the peak`;
  return [`${scaled(kernel.macs)} multiply-accumulates, ${digits(kernel.gops)} GOPS${share}`];
}

function kernelTable() {
  const most = Math.max(...data.kernels.map((kernel) => kernel.seconds));
  const bar = (kernel) => {
    const mark = boundOf(kernel);
    const x = mark === null ? 0 : (170 * mark) / most;
    return s("svg", { class: "bar", width: 170, height: 14, "aria-hidden": "true" },
      s("rect", { class: `column ${kernel.layer === null ? "absorbed" : layers[kernel.layer].state}`, y: 2, width: Math.max((170 * kernel.seconds) / most, 1), height: 10, rx: 2 }),
      mark === null ? null : s("line", { class: "bound", x1: Math.max(x, 1), x2: Math.max(x, 1), y1: 0, y2: 14 }));
  };
  return table(data.kernels.map((kernel, place) => ({ ...kernel, place })), [
    { label: "Layer", first: true, value: (row) => row.name, cell: (row) => layerLink(row.layer, row.name) },
    { label: "Time and bound", value: (row) => row.seconds, text: () => "", cell: bar },
    { label: "Time", number: true, value: (row) => row.seconds, cell: (row) => seconds(row.seconds) },
    { label: "Share", number: true, value: (row) => row.share, cell: (row) => percent(row.share) },
    { label: "Bound", number: true, value: boundOf, cell: (row) => (boundOf(row) === null ? "" : seconds(boundOf(row))) },
    { label: "Of peak", number: true, value: (row) => row.of_peak, cell: (row) => percent(row.of_peak) },
    { label: "MACs", number: true, value: (row) => row.macs || null, cell: (row) => (row.macs ? scaled(row.macs) : "") },
    { label: "GOPS", number: true, value: (row) => row.gops, cell: (row) => (row.gops ? digits(row.gops) : "") },
    { label: "Kernel", value: (row) => row.kernel, cell: (row) => h("code", { title: row.kernel }, short(row.kernel, 30)) },
  ], { caption: "Kernels", what: ["kernel", "kernels"], sort: [2, true], limit: 12, layer: (row) => row.layer });
}
