"use strict";
// Theme, sorting, filtering, enlarging and the learning curves. Data reaches the page as text, never as markup.
(() => {
  const find = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  document.body.classList.add("scripted");

  // --- Theme -------------------------------------------------------------------------------------------------------
  const themeButton = find("#theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);
  const themeChanged = () => {
    themeButton.setAttribute("aria-pressed", String(isDark()));
    drawCurves();
  };
  themeButton.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("colora-theme", root.dataset.theme);
    } catch {
      // Not remembered, still changed.
    }
    themeChanged();
  });
  systemDark.addEventListener("change", themeChanged);

  // --- Sorting: ascending and descending in turn, then as it was; missing values last in both ----------------------
  const said = find("#said");
  for (const table of all("table.sortable")) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    for (const button of all("thead button", table)) {
      button.addEventListener("click", () => sort(table, body, original, button.closest("th")));
    }
  }

  function sort(table, body, original, head) {
    const numeric = head.dataset.type !== "text"; // verdicts have their rank
    const turn = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
    const next = turn[turn.indexOf(head.getAttribute("aria-sort")) + 1]; // -1 + 1: the first; after the last: none
    for (const other of all("th[aria-sort]", table)) other.removeAttribute("aria-sort");
    if (next) head.setAttribute("aria-sort", next);
    body.append(...(next ? sorted(original, head.cellIndex, numeric, next === "ascending" ? 1 : -1) : original));
    said.textContent = `${head.textContent.trim()}: ${next ? `sorted, ${next}` : "in the report's order"}`;
  }

  function sorted(rows, column, numeric, sign) {
    const words = new Intl.Collator("en", { numeric: true });
    const value = (row) => {
      const cell = row.cells[column];
      if (cell.classList.contains("missing") || (numeric && cell.dataset.sort === undefined)) return null;
      return numeric ? Number(cell.dataset.sort) : cell.textContent.trim();
    };
    const order = (a, b) => (numeric ? (a < b ? -1 : a > b ? 1 : 0) : words.compare(a, b)); // infinities too
    return rows
      .map((row) => ({ row, value: value(row) }))
      .sort((a, b) => {
        if (a.value === null || b.value === null) return (a.value === null) - (b.value === null);
        return sign * order(a.value, b.value);
      })
      .map(({ row }) => row);
  }

  // --- Filtering: whatever belongs to a method of another family or backbone is hidden ------------------------------
  const methods = JSON.parse(find("#method-data").textContent); // [{family, backbone}], by number
  const filters = all("select[data-filter]");
  for (const filter of filters) filter.addEventListener("change", applyFilters);

  function applyFilters() {
    const fits = methods.map((method) => filters.every(({ value, dataset }) => !value || method[dataset.filter] === value));
    for (const element of all("[data-method]")) element.hidden = !(fits[element.dataset.method] ?? filters.every(({ value }) => !value));
    const rows = all("#table-methods tbody tr");
    const count = rows.filter((row) => !row.hidden).length;
    find("#filtered").textContent = count === rows.length ? "" : `${count} of ${rows.length} methods, in every table`;
  }

  // --- Links: what is folded opens when something in it is the target ----------------------------------------------
  const unfold = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (!target) return;
    for (let fold = target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
    target.scrollIntoView({ block: "start" });
  };
  addEventListener("hashchange", unfold);
  unfold();

  // --- Figures: enlarged in a dialog, which the browser closes by Esc, giving the focus back ------------------------
  const dialog = find("#enlarged");
  const picture = find("img", dialog);
  for (const button of all("button.zoom")) {
    button.addEventListener("click", () => {
      const image = find("img", button);
      picture.src = image.src;
      picture.alt = image.alt;
      picture.width = image.width && Number(image.getAttribute("width"));
      picture.height = Number(image.getAttribute("height"));
      picture.classList.toggle("drawing", image.classList.contains("drawing"));
      find("h2", dialog).textContent = button.dataset.title;
      const link = find("a", dialog);
      link.href = image.src;
      link.download = button.dataset.file;
      dialog.showModal();
      find(".scroll", dialog).scrollTo(0, 0);
    });
  }
  find("button", dialog).addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // the backdrop

  // --- Learning curves ---------------------------------------------------------------------------------------------
  const box = find("#curves");
  const data = JSON.parse(find("#curve-data")?.textContent ?? "null");
  let plot = null;
  let at = data ? data.start : 0; // the epoch read out, as a place in data.epochs

  function drawCurves() {
    if (!data) return;
    const metric = find("#metric").value;
    const band = find("#band").checked;
    const ink = getComputedStyle(box).getPropertyValue("color");
    const grid = getComputedStyle(find(".chart", box)).borderTopColor;
    const columns = [data.epochs];
    const series = [{}];
    const bands = [];
    let end = 1; // the last epoch of what is shown, as a place
    for (const method of data.methods) {
      const chip = chips[method.number];
      const values = method.lines[metric];
      if (!values) continue;
      const color = getComputedStyle(chip.key).color;
      const shown = chip.box.checked;
      if (shown) end = Math.max(end, method.last);
      const line = { stroke: color, show: shown, width: 2, points: { show: data.epochs.length < 3 } };
      const edge = { show: shown && band, stroke: "transparent", points: { show: false } };
      chip.series = series.length;
      series.push({ ...line, dash: method.dash ? method.dash.split(" ").map(Number) : [] }, edge, { ...edge });
      bands.push({ series: [chip.series + 2, chip.series + 1], fill: color.replace(/\)$/, " / 0.14)").replace(/,/g, "") });
      columns.push(...values);
    }
    plot?.destroy();
    const axis = { stroke: ink, font: "13px system-ui, sans-serif", labelFont: "13px system-ui, sans-serif" };
    const lines = { stroke: grid, width: 1 };
    plot = new uPlot(
      {
        width: find(".chart", box).clientWidth,
        height: Math.min(420, Math.max(260, innerHeight * 0.5)),
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
        scales: { x: { time: false, range: [data.epochs[0], data.epochs[Math.min(end, data.epochs.length - 1)]] } },
        axes: [
          { ...axis, label: "Epoch", labelSize: 22, grid: { show: false }, ticks: lines, incrs: [1, 2, 5, 10, 20, 50, 100] },
          { ...axis, size: 52, grid: lines, ticks: lines },
        ],
        series,
        bands,
        hooks: { setCursor: [(chart) => chart.cursor.idx !== null && read(chart.cursor.idx)] },
      },
      columns,
      find(".chart", box),
    );
    read(at);
  }

  // The values at an epoch, beside the methods' names; the slider says them to those who cannot see the chart.
  function read(place) {
    at = place;
    const metric = find("#metric").value;
    const spoken = [];
    for (const method of data.methods) {
      const values = method.lines[metric];
      if (!values) continue;
      const [mean, low, high] = values.map((part) => part[place]);
      const text = mean === null ? "\u2014" : mean.toFixed(3);
      chips[method.number].value.textContent = text;
      chips[method.number].spread.textContent = mean === null || method.seeds < 2 ? "" : `${low.toFixed(3)}\u2013${high.toFixed(3)}`;
      if (chips[method.number].box.checked) spoken.push(`${method.name} ${mean === null ? "no value" : text}`);
    }
    const slider = find("#epoch");
    slider.value = place;
    slider.setAttribute("aria-valuetext", `epoch ${data.epochs[place]}: ${spoken.join(", ") || "no method is shown"}`);
    find("#epoch-shown").textContent = data.epochs[place];
  }

  const chips = {};
  if (data) {
    for (const label of all(".chip", box)) {
      const chip = { box: find("input", label), key: find("svg", label), value: find(".value", label), spread: find(".spread", label) };
      chips[chip.box.value] = chip;
      chip.box.addEventListener("change", drawCurves);
    }
    for (const control of [find("#metric"), find("#band")]) control.addEventListener("change", drawCurves);
    find("#epoch").addEventListener("input", (event) => {
      const place = Number(event.target.value);
      plot.setCursor({ left: plot.valToPos(data.epochs[place], "x"), top: 10 });
      read(place);
    });
    for (const button of all("button[data-show]", box)) {
      button.addEventListener("click", () => {
        for (const method of data.methods) {
          const show = { all: true, none: false, first: method.first }[button.dataset.show];
          chips[method.number].box.checked = show;
        }
        drawCurves();
      });
    }
    box.hidden = false;
    let width = 0;
    new ResizeObserver(([entry]) => {
      if (plot && Math.abs(entry.contentRect.width - width) > 1) {
        width = entry.contentRect.width;
        plot.setSize({ width: Math.floor(width), height: plot.height });
      }
    }).observe(find(".chart", box));
  }
  themeChanged();

  // --- Where the reader is, in the contents ------------------------------------------------------------------------
  const links = new Map(all("nav.contents a").map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const link of links.values()) link.removeAttribute("aria-current");
        links.get(entry.target.id)?.setAttribute("aria-current", "true");
      }
    },
    { rootMargin: "-10% 0px -80% 0px" },
  );
  for (const id of links.keys()) seen.observe(document.getElementById(id));

  // --- On paper: light, and nothing folded away --------------------------------------------------------------------
  let before;
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.theme = "light";
    for (const fold of all("details:not(.licence)")) fold.open = true;
    drawCurves();
  });
  addEventListener("afterprint", () => {
    if (before) root.dataset.theme = before;
    else delete root.dataset.theme;
    drawCurves();
  });
})();
