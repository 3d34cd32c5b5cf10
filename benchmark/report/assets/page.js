"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector) => document.querySelector(selector);
  const root = document.documentElement;
  root.classList.add("script");

  // --- marks: a colour and a shape per family, as in the other plots ---

  const down = {
    draw(context, size) {
      const y = Math.sqrt(size / (Math.sqrt(3) * 3));
      context.moveTo(0, y * 2);
      context.lineTo(-Math.sqrt(3) * y, -y);
      context.lineTo(Math.sqrt(3) * y, -y);
      context.closePath();
    },
  };
  const diamond = {
    draw(context, size) {
      const r = Math.sqrt(size / 2);
      context.moveTo(0, -r);
      context.lineTo(r, 0);
      context.lineTo(0, r);
      context.lineTo(-r, 0);
      context.closePath();
    },
  };
  const turned = (symbol, angle) => ({
    draw(context, size) {
      const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
      symbol.draw({
        moveTo: (x, y) => context.moveTo(x * cos - y * sin, x * sin + y * cos),
        lineTo: (x, y) => context.lineTo(x * cos - y * sin, x * sin + y * cos),
        closePath: () => context.closePath(),
      }, size);
    },
  });
  const SHAPES = {
    o: d3.symbolCircle, s: d3.symbolSquare, "^": d3.symbolTriangle, D: diamond, v: down,
    P: d3.symbolCross, "*": d3.symbolStar, X: turned(d3.symbolCross, Math.PI / 4),
    "<": turned(d3.symbolTriangle, -Math.PI / 2), ">": turned(d3.symbolTriangle, Math.PI / 2),
  };
  const OPEN = [
    d3.symbolTimes, d3.symbolPlus, d3.symbolAsterisk, d3.symbolSquare2, d3.symbolDiamond2,
    d3.symbolTriangle2, d3.symbolX, d3.symbolCircle,
  ];
  const open = (layer) => { // layers that can be seen together differ
    const together = data.layers.filter(({ metric }) => metric === data.layers[layer].metric);
    return OPEN[together.indexOf(data.layers[layer]) % OPEN.length];
  };
  const family = (method) => data.families[data.methods[method].family];
  const colour = (method) => `var(${family(method).colour})`;
  const line = (method) => `var(${data.methods[method].line})`; // of one family's lines no two are alike
  const ink = (paint) => `color-mix(in oklab, ${paint} 60%, var(--text))`; // letters need more contrast
  const shape = (method) => SHAPES[family(method).marker];

  for (const svg of all("svg[data-marker]")) {
    d3.select(svg).append("path").attr("d", d3.symbol(SHAPES[svg.dataset.marker], 62)())
      .attr("fill", `var(${data.families[svg.dataset.family].colour})`);
  }
  for (const svg of all("svg[data-layer-marker]")) {
    d3.select(svg).append("path").attr("d", d3.symbol(open(+svg.dataset.layerMarker), 34)())
      .attr("fill", "none").attr("stroke", "var(--published)").attr("stroke-width", 1.3);
  }
  for (const svg of all("svg[data-stroke]")) {
    const method = svg.dataset.stroke;
    d3.select(svg).append("line").attr("x2", 26).attr("y1", 4).attr("y2", 4)
      .attr("stroke", line(method)).attr("stroke-width", 2)
      .attr("stroke-dasharray", data.methods[method].dash || null);
  }
  const frontLook = (name) => data.fronts.looks[name];
  const frontColour = (name) => `var(${frontLook(name).colour})`;
  for (const svg of all("svg[data-front-stroke]")) {
    const name = svg.dataset.frontStroke;
    d3.select(svg).append("line").attr("x2", 26).attr("y1", 6).attr("y2", 6)
      .attr("stroke", frontColour(name)).attr("stroke-width", 1.6)
      .attr("stroke-dasharray", frontLook(name).dash || null);
    d3.select(svg).append("path").attr("transform", "translate(13,6)")
      .attr("d", d3.symbol(SHAPES[frontLook(name).marker], 44)()).attr("fill", frontColour(name));
  }

  // Hatches as in the other plots, so that bars are told apart in grey.
  const HATCHES = {
    "///": "M-1,1l2,-2M0,8l8,-8M7,9l2,-2", "...": "M2,2h.01M6,6h.01", xxx: "M0,0l8,8M8,0l-8,8",
  };
  const patterns = d3.select(document.body).append("svg").attr("class", "unseen")
    .attr("aria-hidden", "true").append("defs").selectAll("pattern").data(data.bars).join("pattern")
    .attr("id", (_, i) => `bar-${i}`).attr("patternUnits", "userSpaceOnUse")
    .attr("width", 8).attr("height", 8);
  patterns.append("rect").attr("width", 8).attr("height", 8).attr("fill", (bar) => `var(${bar.colour})`);
  patterns.append("path").attr("d", (bar) => HATCHES[bar.hatch] ?? null).attr("fill", "none")
    .attr("stroke", "var(--page)").attr("stroke-width", 1.3).attr("stroke-linecap", "round");
  const fillOf = (bar) => (bar.look === null ? "var(--text)" : `url(#bar-${bar.look})`);
  for (const svg of all("svg[data-bar]")) {
    const [union, bar] = svg.dataset.bar.split(" ");
    d3.select(svg).append("rect").attr("width", 26).attr("height", 10)
      .attr("fill", fillOf(data.unions[union].bars[bar]));
  }

  // --- which methods are shown ---

  const filtered = new Set();
  const shown = (method) => !filtered.has(method);

  function applyFilter() {
    const text = one("#filter").value.trim().toLowerCase();
    const families = new Set(
      all("[data-family-filter]").filter((box) => box.checked).map((box) => box.dataset.familyFilter));
    filtered.clear();
    for (const [method, { family: name }] of Object.entries(data.methods)) {
      if (!families.has(name) || !method.toLowerCase().includes(text)) filtered.add(method);
    }
    for (const element of all("[data-method]")) {
      element.classList.toggle("filtered", filtered.has(element.dataset.method));
    }
    const total = Object.keys(data.methods).length;
    say(filtered.size ? `${total - filtered.size} of ${total} methods shown, in charts too.` : "");
    draw();
  }
  const say = (text) => { one("#status").textContent = text; };

  one("#filter").addEventListener("input", applyFilter);
  for (const box of all("[data-family-filter]")) box.addEventListener("change", applyFilter);

  // --- the table ---

  const table = one("#results");
  for (const box of all("[data-detail]")) {
    const apply = () => {
      table.classList.toggle(`show-${box.dataset.detail}`, box.checked);
    };
    box.addEventListener("change", () => { apply(); arrange(); draw(); });
    apply();
  }
  // The table stands beside the plot where it has room there, else below it.
  function arrange() {
    const first = one(".first");
    first.classList.remove("stacked");
    const frame = table.parentElement;
    first.classList.toggle("stacked", frame.scrollWidth > frame.clientWidth + 1);
  }
  arrange();
  sortable(table, say);

  // --- what the charts share ---

  // Plot's pointer follows the mouse; here a mark that has the focus is pointed at as well. One
  // stop for the Tab key, arrows from mark to mark: a leaderboard has a hundred.
  function reachable(svg, elements, label) {
    elements.forEach((element, i) => {
      element.setAttribute("tabindex", i ? "-1" : "0");
      element.setAttribute("role", "img");
      element.setAttribute("aria-label", label(i));
      element.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        elements.at((i + step) % elements.length).focus();
      });
      element.addEventListener("focus", () => {
        for (const other of elements) other.setAttribute("tabindex", other === element ? "0" : "-1");
        const box = element.getBoundingClientRect();
        svg.dispatchEvent(new PointerEvent("pointermove", {
          pointerType: "mouse", clientX: box.x + box.width / 2, clientY: box.y + box.height / 2,
        }));
      });
      element.addEventListener("blur", () => svg.dispatchEvent(
        new PointerEvent("pointerleave", { pointerType: "mouse" })));
    });
  }

  // Charts are drawn for the width they get; on paper that of an A4 or letter page.
  let sheet = null;
  const room = (figure, least) =>
    sheet ? sheet / (figure.closest(".pair") ? 2.1 : 1) : Math.max(least, figure.clientWidth);

  function place(figure, svg) {
    const old = figure.querySelector("svg");
    if (old) old.replaceWith(svg);
    else figure.append(svg);
  }

  const pen = document.createElement("canvas").getContext("2d");
  function textWidth(text, size) {
    pen.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
    return pen.measureText(text).width;
  }

  const ends = (low, high) => (low === null ? "" : `  [${low.toFixed(1)}, ${high.toFixed(1)}]`);
  const percent = ([value, low, high]) => `${value.toFixed(1)} %${ends(low, high)}`;
  const marked = (method) =>
    method + (data.methods[method].doubtful ? " [!]" : "") + (data.methods[method].undertrained ? " [u]" : "");
  const told = (method) =>
    `${method}${data.methods[method].doubtful ? "  [!] doubtful" : ""}${data.methods[method].undertrained ? "  [u] under-trained" : ""}`;
  const numberOfSeeds = ({ seeds }) => (seeds.length > 1 ? `${seeds.length} seeds` : "1 seed");
  const pad = (values, below = 1) => {
    const [low, high] = values.length ? d3.extent(values) : [0, 100];
    const margin = Math.max(1, (high - low) * 0.07);
    return [low - margin * below, high + margin];
  };
  const tipStyle = {
    fontSize: 12, lineHeight: 1.35, textPadding: 9, fill: "var(--surface)", stroke: "var(--line)",
    lineWidth: 26,
  };

  // --- trade-off ---

  const boxes = (kind) => all(`[data-${kind}]`);
  const on = (key) => one(`[data-show="${key}"]`)?.checked ?? false;

  function activeLayers(metric) {
    return boxes("layer")
      .filter((box) => box.checked && data.layers[+box.dataset.layer].metric === metric)
      .map((box) => +box.dataset.layer);
  }

  function offerLayers(metric) {
    let any = false;
    for (const label of all("#layers label")) {
      label.hidden = label.dataset.metric !== metric;
      any ||= !label.hidden;
    }
    const none = one("#no-layers");
    if (none) none.hidden = any;
  }

  function drawTradeoff() {
    const figure = one("#tradeoff-chart");
    const metric = one("#metric").value;
    const panel = data.tradeoff.metrics[metric];
    if (!panel) return;
    offerLayers(metric);
    const layers = activeLayers(metric);
    const theirs = layers.flatMap((layer) => data.layers[layer].points.map(([x, y, name, note]) => ({
      x, y, layer,
      tip: `PUBLISHED, not ours: ${data.layers[layer].source}\n${name}\n${note}\n` +
        `Clean ${x.toFixed(1)} %\n${panel.title} ${y.toFixed(1)} %`,
    })));
    const points = panel.points.filter((point) => shown(point.method));
    const off = on("whole") || theirs.length ? null : panel.outlier;
    const inside = points.filter((point) => point.method !== off);
    const outside = points.filter((point) => point.method === off);
    const bars = on("bars");
    const reach = (axis, end) => inside.map((p) => (bars ? p[axis][end] : p[axis][0]));
    const xs = [...reach("x", 1), ...reach("x", 2), ...outside.map((p) => p.x[0]),
      ...theirs.map((p) => p.x)];
    const ys = [...reach("y", 1), ...reach("y", 2), ...theirs.map((p) => p.y)];
    const x = pad(xs);
    const y = pad(ys, outside.length ? 2.2 : 1);
    const ours = [
      ...inside.map((p) => ({ ...p, cx: p.x[0], cy: p.y[0], name: marked(p.method) })),
      ...outside.map((p) => ({
        ...p, cx: p.x[0], cy: y[0] + (y[1] - y[0]) * 0.025, off: true,
        name: `${marked(p.method)} ↓ off scale`,
      })),
    ].map((p) => ({
      ...p,
      tip: `${told(p.method)}\nClean ${percent(p.x)}\n${panel.title} ${percent(p.y)}\n${numberOfSeeds(p)}`,
    }));
    const seeds = on("seeds") ? inside.flatMap((p) => p.seeds.map(([seed, sx, sy]) => ({
      method: p.method, cx: sx, cy: sy,
      tip: `${p.method}, seed ${seed}\nClean ${sx.toFixed(1)} %\n${panel.title} ${sy.toFixed(1)} %`,
    }))) : [];
    const path = panel.front.map((method) => inside.find((p) => p.method === method)).filter(Boolean);
    one("#tradeoff-chart figcaption").textContent = panel.caption;
    scatter(figure, {
      ours, theirs, layers, seeds, bars, names: on("names"), path: on("front") ? path : [],
      x: { domain: x, label: "Clean accuracy (%)" },
      y: { domain: y, label: `${panel.title} accuracy (%)` },
      what: `${panel.title} against clean accuracy, ${ours.length} methods` +
        `${theirs.length ? ` and ${theirs.length} published models` : ""}`,
    });
    one("#off-scale").textContent = outside.length
      ? `${off} (clean ${outside[0].x[0].toFixed(1)} %, ${panel.title} ${outside[0].y[0].toFixed(1)} %) ` +
        "lies far below and is drawn at the edge."
      : "";
    one("#legend-layers").hidden = !theirs.length;
    one("#legend-layers").textContent =
      `outlined grey: ${theirs.length} published figures, not ours`;
  }

  // Methods as points in a plane, with their intervals and names.
  function scatter(figure, {
    ours, theirs = [], layers = [], seeds = [], path = [], bars, names, x, y, what,
  }) {
    const width = room(figure, 280);
    const inside = ours.filter((p) => !p.off);
    const ends = { strokeOpacity: 0.45, strokeWidth: 1.2, className: "intervals" };
    const svg = Plot.plot({
      width, height: Math.round(Math.min(520, Math.max(340, width * 0.66))),
      marginLeft: 46, marginBottom: 42, marginRight: 16, marginTop: 26,
      style: { background: "none", fontSize: "12px" },
      x: { labelAnchor: "center", labelArrow: "none", grid: true,
        ticks: Math.max(3, Math.round(width / 110)), ...x },
      y: { labelArrow: "none", grid: true, ticks: 7, ...y },
      marks: [
        ...layers.map((layer) => Plot.dot(theirs.filter((p) => p.layer === layer), {
          x: "x", y: "y", r: 3.4, symbol: open(layer), fill: "none", stroke: "var(--published)",
          strokeWidth: 1.2, className: "published",
        })),
        path.length ? Plot.line(path, {
          x: (p) => p.x[0], y: (p) => p.y[0], stroke: "var(--quiet)", strokeDasharray: "5 4",
          strokeWidth: 1.2, className: "front",
        }) : null,
        bars ? Plot.link(inside, {
          x1: (p) => p.x[1], x2: (p) => p.x[2], y: (p) => p.y[0],
          stroke: (p) => colour(p.method), ...ends,
        }) : null,
        bars ? Plot.link(inside, {
          x: (p) => p.x[0], y1: (p) => p.y[1], y2: (p) => p.y[2],
          stroke: (p) => colour(p.method), ...ends,
        }) : null,
        Plot.dot(seeds, {
          x: "cx", y: "cy", r: 2.6, fill: "var(--page)", stroke: (p) => colour(p.method),
          symbol: (p) => shape(p.method), className: "seeds",
        }),
        Plot.dot(ours, {
          x: "cx", y: "cy", r: 5, fill: (p) => colour(p.method), symbol: (p) => shape(p.method),
          stroke: "var(--page)", strokeWidth: 0.8, className: "methods",
        }),
        Plot.tip([
          ...ours.map((p) => [p.cx, p.cy, p.tip]), ...seeds.map((p) => [p.cx, p.cy, p.tip]),
          ...theirs.map((p) => [p.x, p.y, p.tip]),
        ], Plot.pointer({ x: "0", y: "1", title: "2", maxRadius: 26, ...tipStyle })),
      ],
    });
    svg.setAttribute("role", "group");
    svg.setAttribute("aria-label", what);
    place(figure, svg);
    reachable(svg, all("g.methods > *", svg), (i) => ours[i].tip.replaceAll("\n", ", "));
    reachable(svg, all("g.published > *", svg), (i) => theirs[i].tip.replaceAll("\n", ", "));
    const drawn = d3.pairs(path.map((p) => [p.x[0], p.y[0]]));
    if (names) nameDots(svg, ours, theirs, bars, drawn, x.domain, y.domain);
  }

  // Greedy: crowded points first; of places on growing rings the one that covers least.
  function nameDots(svg, ours, theirs, bars, segments, xDomain, yDomain) {
    const sx = svg.scale("x").apply;
    const sy = svg.scale("y").apply;
    const size = 12;
    const at = ours.map((p) => [sx(p.cx), sy(p.cy)]);
    const crowd = at.map(([a, b]) => d3.sum(at, ([c, d]) => Math.exp(-Math.hypot(a - c, b - d) / 40)));
    const frame = [sx(xDomain[0]), sy(yDomain[1]), sx(xDomain[1]), sy(yDomain[0])];
    const dots = at.map(([a, b]) => [a - 6, b - 6, a + 6, b + 6]);
    const thin = bars ? ours.flatMap((p) => !p.off ? [
      [sx(p.x[1]), sy(p.cy) - 1, sx(p.x[2]), sy(p.cy) + 1],
      [sx(p.cx) - 1, sy(p.y[2]), sx(p.cx) + 1, sy(p.y[1])],
    ] : []) : [];
    for (const [start, end] of segments) {
      for (const t of d3.range(0, 1, 0.03)) {
        const [px, py] = d3.interpolate([sx(start[0]), sy(start[1])], [sx(end[0]), sy(end[1])])(t);
        thin.push([px - 1, py - 1, px + 1, py + 1]);
      }
    }
    const others = theirs.map((p) => [sx(p.x) - 3, sy(p.y) - 3, sx(p.x) + 3, sy(p.y) + 3]);
    const hits = (a, list) => list.filter(
      (b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]).length;
    const taken = [];
    const group = d3.select(svg).insert("g", "[aria-label=tip]") // below what the pointer shows
      .attr("aria-hidden", "true").attr("class", "names")
      .attr("font-size", size).attr("pointer-events", "none");
    for (const i of d3.range(ours.length).sort((a, b) => crowd[b] - crowd[a] || a - b)) {
      const half = [textWidth(ours[i].name, size) / 2 + 1, size * 0.55];
      const rest = dots.filter((_, k) => k !== i);
      let best = null;
      for (const [ring, radius] of [7, 13, 21, 31, 43, 57, 73, 92].entries()) {
        for (let angle = 0; angle < 360; angle += 15) {
          const dx = Math.cos((angle * Math.PI) / 180);
          const dy = Math.sin((angle * Math.PI) / 180);
          const cx = at[i][0] + dx * (radius + half[0]);
          const cy = at[i][1] + dy * (radius + half[1]);
          const box = [cx - half[0], cy - half[1], cx + half[0], cy + half[1]];
          const out = box[0] < frame[0] || box[1] < frame[1] || box[2] > frame[2] || box[3] > frame[3];
          const cost = 0.4 * ring ** 2 + Math.abs(dx * dy) + 100 * out + 60 * hits(box, taken) +
            30 * hits(box, rest) + 30 * hits(box, [dots[i]]) + 5 * Math.min(4, hits(box, thin)) +
            2 * Math.min(6, hits(box, others));
          if (!best || cost < best.cost) best = { cost, box, cx, cy, far: ring > 1 };
        }
      }
      taken.push(best.box);
      const paint = ink(colour(ours[i].method));
      if (best.far) {
        const [px, py] = at[i];
        group.append("line").attr("x1", px).attr("y1", py)
          .attr("x2", Math.max(best.box[0], Math.min(px, best.box[2])))
          .attr("y2", Math.max(best.box[1], Math.min(py, best.box[3])))
          .attr("stroke", paint).attr("stroke-opacity", 0.6).attr("stroke-width", 0.8);
      }
      group.append("text").attr("x", best.cx).attr("y", best.cy).attr("dy", "0.35em")
        .attr("text-anchor", "middle").attr("fill", paint).attr("stroke", "var(--page)")
        .attr("stroke-width", 3).attr("paint-order", "stroke").text(ours[i].name);
    }
  }

  // --- lines over epochs, and over radii of an attack ---

  const rows = (line, extra) => line.x.map((x, i) => ({
    x, mean: line.mean?.[i], low: line.low?.[i], high: line.high?.[i], value: line.value?.[i],
    ...extra,
  }));

  function lineChart(figure, {
    lines, seeds, band, paint, dash, y, height, what, digits, axis = "Epoch", of = "seeds",
  }) {
    const width = room(figure, 260);
    const longest = d3.max(Object.keys(lines), (name) => textWidth(name, 11)) ?? 0;
    const roomy = longest < 0.3 * width;
    const points = Object.entries(lines).flatMap(([name, line]) => rows(line, { name }));
    const svg = Plot.plot({
      width, height, marginLeft: 40, marginBottom: 36, marginTop: 10,
      marginRight: roomy ? longest + 34 : 12,
      style: { background: "none", fontSize: "11.5px" },
      x: { label: axis, labelAnchor: "center", labelArrow: "none",
        ticks: Math.max(3, Math.round(width / 120)) },
      y: { ...y, label: null, grid: true, ticks: 5 },
      marks: [
        band ? Plot.areaY(points, {
          x: "x", y1: "low", y2: "high", z: "name", fill: (p) => paint(p.name),
          fillOpacity: 0.12, className: "spread",
        }) : null,
        seeds.length ? Plot.line(seeds, {
          x: "x", y: "value", z: "run", stroke: (p) => paint(p.name), strokeWidth: 0.8,
          strokeOpacity: 0.7, className: "seeds",
        }) : null,
        ...Object.entries(lines).map(([name, line]) => (line.x.length > 1 ? Plot.line : Plot.dot)(
          rows(line), {
            x: "x", y: "mean", stroke: paint(name), strokeWidth: 1.8,
            ...(line.x.length > 1 ? { strokeDasharray: dash(name) } : { fill: paint(name), r: 2.5 }),
            className: "mean",
          })),
        Plot.tip(points, Plot.pointer({
          x: "x", y: "mean", maxRadius: 30, ...tipStyle,
          title: (p) => `${p.name}\n${axis} ${p.x}\n${p.mean.toFixed(digits)}` +
            (p.high > p.low ? `  (${of} ${p.low.toFixed(digits)} to ${p.high.toFixed(digits)})` : ""),
        })),
      ],
    });
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", what);
    if (roomy) nameLines(svg, lines, paint);
    place(figure, svg);
  }

  // Names at the right end, moved apart where they would touch.
  function nameLines(svg, lines, paint) {
    const x = svg.scale("x");
    const y = svg.scale("y");
    const gap = 13;
    const [bottom, top] = y.range;
    const ends = Object.entries(lines).map(([name, line]) => ({
      name, px: x.apply(line.x.at(-1)), py: y.apply(line.mean.at(-1)),
    })).sort((a, b) => a.py - b.py);
    const blocks = [];
    for (const end of ends) {
      blocks.push({ centre: end.py, n: 1 });
      while (blocks.length > 1) {
        const [a, b] = blocks.slice(-2);
        if (b.centre - a.centre >= (gap * (a.n + b.n)) / 2) break;
        blocks.splice(-2, 2, { centre: (a.centre * a.n + b.centre * b.n) / (a.n + b.n), n: a.n + b.n });
      }
    }
    let places = blocks.flatMap(({ centre, n }) => d3.range(n).map((j) => centre + gap * (j - (n - 1) / 2)));
    places = places.map((place, j) => Math.min(place, bottom + 4 - (places.length - 1 - j) * gap));
    places.forEach((place, j) => { places[j] = Math.max(place, j ? places[j - 1] + gap : top - 4); });
    const right = x.range[1];
    const group = d3.select(svg).append("g").attr("aria-hidden", "true")
      .attr("font-size", 11).attr("text-anchor", "start");
    ends.forEach(({ name, px, py }, j) => {
      const lead = (points) => group.append("polyline").attr("fill", "none")
        .attr("stroke", paint(name)).attr("stroke-opacity", 0.6).attr("points", points);
      // Dots from an early end to the edge: a line would look like measurements.
      if (px < right - 1) lead(`${px},${py} ${right},${py}`).attr("stroke-dasharray", "1 3");
      lead(`${right},${py} ${right + 5},${py} ${right + 17},${places[j]}`);
      group.append("text").attr("x", right + 21).attr("y", places[j]).attr("dy", "0.33em")
        .attr("fill", ink(paint(name))).text(name);
    });
  }

  const visible = (figure) => sheet || !figure.closest("details:not([open])");

  function drawCurves() {
    const want = (key) => one(`[data-curves="${key}"]`)?.checked ?? false;
    for (const figure of all("[data-curve]").filter(visible)) {
      const curve = data.curves[figure.dataset.curve];
      const lines = Object.fromEntries(Object.entries(curve.lines).filter(([method]) => shown(method)));
      lineChart(figure, {
        lines, paint: line, dash: (method) => data.methods[method].dash || null,
        band: want("band"), y: {}, digits: 1,
        height: Math.max(260, 14 * Object.keys(lines).length + 70),
        what: `${curve.title} during training`,
        seeds: want("seeds") ? Object.entries(lines).flatMap(([name, line]) =>
          Object.entries(line.seeds).flatMap(([seed, run]) => rows(run, { name, run: `${name} ${seed}` }))) : [],
      });
    }
  }

  function drawRadii() {
    for (const figure of all("[data-radii]").filter(visible)) {
      const curves = data.radii[figure.dataset.radii];
      const lines = Object.fromEntries(Object.entries(curves.lines).filter(([method]) => shown(method)));
      lineChart(figure, {
        lines, paint: line, dash: (method) => data.methods[method].dash || null,
        band: true, seeds: [], y: { zero: true }, digits: 1, axis: curves.axis, of: "95 %",
        height: Math.max(260, 14 * Object.keys(lines).length + 70),
        what: `Accuracy against eps, ${curves.title}`,
      });
    }
  }

  function drawFronts() {
    for (const figure of all("[data-front]").filter(visible)) {
      const plane = data.fronts.planes[figure.dataset.front];
      const names = Object.keys(plane.fronts);
      const of = (key) => names.flatMap((name) => plane.fronts[name][key].map((p) => ({ name, p })));
      const width = room(figure, 280);
      const points = of("points").map(({ name, p: [label, x, y] }) => ({
        name, x, y, tip: `${name}: ${label}\nClean ${x.toFixed(1)} %\n${plane.title} ${y.toFixed(1)} %`,
      }));
      const hulls = of("hull").map(({ name, p: [x, y] }) => ({ name, x, y }));
      const bands = of("band").map(({ name, p: [x, low, high] }) => ({ name, x, low, high }));
      const svg = Plot.plot({
        width, height: Math.round(Math.min(480, Math.max(300, width * 0.55))),
        marginLeft: 48, marginBottom: 38, marginTop: 28,
        style: { background: "none", fontSize: "12px" },
        x: { label: "Clean accuracy (%)", labelAnchor: "center", labelArrow: "none", grid: true,
          nice: true, ticks: Math.max(3, Math.round(width / 110)) },
        y: { label: `${plane.title} accuracy (%)`, labelArrow: "none", grid: true, nice: true, ticks: 7 },
        marks: [
          Plot.areaY(bands, { x: "x", y1: "low", y2: "high", z: "name",
            fill: (p) => frontColour(p.name), fillOpacity: 0.15, className: "bands" }),
          ...names.map((name) => Plot.line(hulls.filter((p) => p.name === name), {
            x: "x", y: "y", stroke: frontColour(name), strokeWidth: 1.8,
            strokeDasharray: frontLook(name).dash || null, className: "hull",
          })),
          Plot.dot(points, { x: "x", y: "y", r: 4.5, fill: (p) => frontColour(p.name),
            symbol: (p) => SHAPES[frontLook(p.name).marker], stroke: "var(--page)",
            strokeWidth: 0.8, className: "settings" }),
          Plot.tip(points, Plot.pointer({ x: "x", y: "y", title: "tip", maxRadius: 26, ...tipStyle })),
        ],
      });
      svg.setAttribute("role", "group");
      svg.setAttribute("aria-label", `Fronts: ${plane.title} against clean accuracy, ${names.join(", ")}`);
      place(figure, svg);
      reachable(svg, all("g.settings > *", svg), (i) => points[i].tip.replaceAll("\n", ", "));
    }
  }

  // --- differences, ranks and unions: a row for each method ---

  function rowChart(figure, { points, high = 22, x, right = 16, marks, what }) {
    const width = room(figure, 260);
    const names = points.map(({ method }) => method);
    const left = Math.min(0.42 * width, (d3.max(names, (name) => textWidth(marked(name), 12)) ?? 0) + 12);
    const svg = Plot.plot({
      width, height: names.length * high + 48, marginTop: 6, marginBottom: 42, marginLeft: left,
      marginRight: right, style: { background: "none", fontSize: "12px" },
      x: { labelAnchor: "center", labelArrow: "none", grid: true,
        ticks: Math.max(3, Math.round((width - left - right) / 100)), ...x },
      y: { type: "band", domain: names, padding: 0 },
      marks: [
        Plot.axisY({ label: null, tickSize: 0, tickFormat: marked, lineWidth: (left - 8) / 12,
          textOverflow: "ellipsis" }),
        ...marks,
        Plot.tip(points, Plot.pointerY({
          x: (p) => p.x[0], y: "method", title: "tip", maxRadius: high, ...tipStyle,
        })),
      ],
    });
    svg.setAttribute("role", "group");
    svg.setAttribute("aria-label", what);
    place(figure, svg);
    reachable(svg, all("g.methods > *", svg), (i) => points[i].tip.replaceAll("\n", ", "));
  }
  const shownRows = (rows) => rows.filter(({ method }) => shown(method));
  const rowDot = {
    x: (p) => p.x[0], y: "method", r: 3.8, stroke: (p) => colour(p.method),
    symbol: (p) => shape(p.method), className: "methods",
  };

  function drawDifferences() {
    const found = data.differences.map(({ rows }) => shownRows(rows).map((row) => ({
      ...row,
      tip: `${told(row.method)}\n${row.x[0].toFixed(1)} points${ends(row.x[1], row.x[2])}\n${row.p}`,
    })));
    const domain = pad([0, ...found.flat().flatMap((p) => p.x)]); // one scale for all of them
    for (const figure of all("[data-difference]").filter(visible)) {
      const { reference, caption } = data.differences[figure.dataset.difference];
      const points = found[figure.dataset.difference];
      rowChart(figure, {
        points, x: { domain, label: `Points above ${reference}` },
        what: `Differences from ${reference}: ${caption}`,
        marks: [
          Plot.ruleX([0], { stroke: "var(--quiet)" }),
          Plot.link(points, { x1: (p) => p.x[1], x2: (p) => p.x[2], y: "method",
            stroke: (p) => colour(p.method), strokeWidth: 1.4, className: "intervals" }),
          Plot.dot(points, { ...rowDot, fill: (p) => (p.sure ? colour(p.method) : "var(--page)") }),
        ],
      });
    }
  }

  function drawRanks() {
    for (const figure of all("[data-rank]").filter(visible)) {
      const { caption, rows: ranked, groups } = data.ranks[figure.dataset.rank];
      const joined = groups.map((group) => group.filter(shown)).filter((group) => group.length > 1);
      const worst = ranked.length;
      const points = shownRows(ranked).map(({ method, rank }) => {
        const alike = new Set(joined.filter((group) => group.includes(method)).flat());
        alike.delete(method);
        return {
          method, x: [rank],
          tip: `${told(method)}\nMean rank ${rank}` +
            (alike.size ? `\nNot told apart from ${[...alike].join(", ")}` : ""),
        };
      });
      rowChart(figure, {
        points, right: 22 + 10 * joined.length,
        x: { domain: [0.7, worst + 0.3], label: "Mean rank (1: best)",
          ticks: d3.range(1, worst + 1, Math.ceil(worst / 6)), tickFormat: String },
        what: `Mean ranks: ${caption}`,
        marks: [
          ...joined.map((group, i) => Plot.link([group], {
            x: () => worst + 0.3, y1: (names) => names[0], y2: (names) => names.at(-1), dx: 16 + 10 * i, stroke: "var(--text)",
            strokeWidth: 4, strokeLinecap: "round", className: "alike",
          })),
          Plot.dot(points, { ...rowDot, fill: (p) => colour(p.method) }),
        ],
      });
    }
  }

  function drawUnions() {
    for (const figure of all("[data-union]").filter(visible)) {
      const { caption, bars, rows: found } = data.unions[figure.dataset.union];
      const points = shownRows(found).map(({ method, values }) => ({
        method, values, x: [d3.max(values, (value) => value?.[0])],
        tip: told(method) + bars.map(({ title }, i) =>
          `\n${title} ${values[i] ? percent(values[i]) : "missing"}`).join(""),
      }));
      const high = 10 * bars.length + 8;
      rowChart(figure, {
        points, high, what: `Accuracy under each attack: ${caption}`,
        x: { domain: [0, pad([0, ...points.flatMap((p) => p.values.flat())])[1]], label: "Accuracy (%)" },
        marks: bars.flatMap((bar, i) => {
          const measured = points.filter((p) => p.values[i]);
          const value = (end) => (p) => p.values[i][end];
          const line = (from, to, stroke) => Plot.link(measured, {
            x1: value(from), x2: value(to), y: "method", dy: 4 + 10 * i + 4.5 - high / 2, stroke,
            strokeWidth: 1.2, className: "intervals",
          });
          return [
            Plot.barX(measured, { x1: 0, x2: value(0), y: "method", fill: fillOf(bar),
              insetTop: 4 + 10 * i, insetBottom: high - 4 - 10 * (i + 1) + 1,
              className: bar.look === null ? "methods" : "attack" }),
            line(1, 0, "var(--page)"), // on the bar
            line(0, 2, "var(--quiet)"),
          ];
        }),
      });
    }
  }

  // --- accuracy against cost ---

  function drawCost() {
    for (const figure of all("[data-cost]").filter(visible)) {
      const { title, caption, points } = data.cost[figure.dataset.cost];
      const ours = points.filter(({ method }) => shown(method)).map((p) => ({
        ...p, x: [p.passes, p.passes, p.passes], cx: p.passes, cy: p.y[0], name: marked(p.method),
        tip: `${told(p.method)}\n${p.passes} gradient passes\n${title} ${percent(p.y)}\n${numberOfSeeds(p)}`,
      }));
      const [least, most] = ours.length ? d3.extent(ours, (p) => p.passes) : [1, 10];
      const domain = [least / 1.25, most * 1.25];
      scatter(figure, {
        ours, bars: true, names: true,
        x: { type: "log", domain, label: "Gradient passes per image, natural training = 1",
          ticks: [-1, 0, 1, 2, 3, 4].flatMap((k) => [1, 2, 5].map((b) => b * 10 ** k))
            .filter((tick) => domain[0] <= tick && tick <= domain[1]), tickFormat: (tick) => `${tick}` },
        y: { domain: pad(ours.flatMap((p) => p.y)), label: `${title} accuracy (%)` },
        what: `Accuracy against gradient passes of training: ${caption}`,
      });
    }
  }

  function drawMixing() {
    for (const figure of all("[data-mixing]").filter(visible)) {
      if (!shown(figure.dataset.mixing)) continue;
      const { panel } = figure.dataset;
      lineChart(figure, {
        lines: data.mixing[figure.dataset.mixing][panel], seeds: [], band: true, digits: 2, height: 170,
        paint: (learner) => `var(${data.learners[learner].colour})`,
        dash: (learner) => data.learners[learner].dash || null,
        y: panel.startsWith("Weight") ? { domain: [0, 1.02] } : { zero: true },
        what: `${panel}, ${figure.dataset.mixing}`,
      });
    }
  }

  // --- class by class ---

  function showClasses() {
    const chosen = one('[name="class-metric"]:checked');
    for (const block of all("[data-class-metric]")) {
      block.hidden = block.dataset.classMetric !== chosen.value;
    }
  }
  for (const radio of all('[name="class-metric"]')) radio.addEventListener("change", showClasses);
  if (one('[name="class-metric"]')) showClasses();

  // --- colours, copying, drawing ---

  for (const radio of all('[name="theme"]')) {
    radio.addEventListener("change", () => { root.dataset.theme = radio.value; });
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // no permission, or a page that was not served over https
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  }
  for (const button of all(".copy")) {
    button.addEventListener("click", async () => {
      await copy(button.dataset.copy);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }

  // --- sections: a link opens what it leads to, charts are drawn when they are first seen ---

  function reveal(id) {
    const target = id && document.getElementById(id);
    if (!target) return;
    const fold = target.closest("details") ?? target.querySelector(":scope > details.fold");
    if (fold && !fold.open) {
      fold.open = true;
      draw();
    }
    target.scrollIntoView();
  }
  const menu = one(".menu");
  menu.addEventListener("click", () => {
    menu.setAttribute("aria-expanded", String(menu.getAttribute("aria-expanded") !== "true"));
  });
  for (const link of all('a[href^="#"]')) {
    link.addEventListener("click", () => {
      menu.setAttribute("aria-expanded", "false");
      reveal(link.hash.slice(1));
    });
  }
  addEventListener("hashchange", () => reveal(decodeURIComponent(location.hash.slice(1))));
  for (const fold of all("details.fold")) fold.addEventListener("toggle", () => { if (fold.open) draw(); });

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details[data-print]:not([open])");
    for (const part of opened) part.open = true;
    sheet = 680;
    draw();
  });
  addEventListener("afterprint", () => {
    for (const part of opened) part.open = false;
    sheet = null;
    draw();
  });

  function draw() {
    if (one("#metric").value) drawTradeoff();
    drawFronts();
    drawDifferences();
    drawRanks();
    drawUnions();
    drawCost();
    drawCurves();
    drawRadii();
    drawMixing();
  }
  one("#metric").addEventListener("change", drawTradeoff);
  for (const box of [...boxes("show"), ...boxes("layer")]) box.addEventListener("change", drawTradeoff);
  for (const box of boxes("curves")) box.addEventListener("change", drawCurves);
  draw();
  reveal(decodeURIComponent(location.hash.slice(1)));
  let width = root.clientWidth;
  addEventListener("resize", () => {
    if (root.clientWidth !== width) {
      width = root.clientWidth;
      arrange();
      draw();
    }
  });
})();
