// A figure as a phone shows it: panels that stand side by side go one below the other, and long words are wrapped.
// Works on any figure of make_subplots or plotly.express; only pixels are counted, no figure is known by name.
// Two sizes are at work: domains, shares of what lies inside the margins as Plotly has it, and pixels.
const bookStacking = (() => {
  "use strict";
  const NARROW = 500; // a box narrower than this, in pixels, gets the phone's figure
  const PAGE = 720; // the width for which figures are made
  const EPS = bookPanels.EPS;
  const TICKS = 24; // room for tick labels
  const BAR = 62; // room for a horizontal colour bar with its ticks and title
  const { key, panelsOf, rowsOf, wrap } = bookPanels;

  const lineCount = (text) => (String(text).trim() ? String(text).split("<br>").length : 0);
  const tall = (words) => lineCount(words.text) * (words.font?.size || 13) * 1.3;

  // What the template says, where the layout itself says nothing.
  const told = (layout, part) => ({ ...layout.template?.layout?.[part], ...layout[part] });

  // Beside each other a title is written once for a row or a column; one below the other each panel needs its own.
  function ownTitles(layout, panels) {
    const axisOf = (panel, letter) => layout[key([...panel.axes[letter]][0] || "")];
    for (const panel of panels)
      for (const letter of ["x", "y"]) {
        const axis = axisOf(panel, letter);
        if (!axis) continue;
        const inLine = panels.filter((other) => Math.abs(panel[letter][0] - other[letter][0]) < EPS); // column, or row
        const mates = inLine.map((other) => axisOf(other, letter)).filter(Boolean);
        const titled = mates.find((mate) => mate.title?.text);
        if (!axis.title?.text && titled) axis.title = { ...titled.title };
        // Hidden because a mate shows the same ticks.
        if (axis.showticklabels === false) axis.showticklabels = mates.some((mate) => mate.showticklabels !== false);
      }
  }

  const isTitle = (words, panel) =>
    words.yanchor === "bottom" && Math.abs(words.y - panel.y[1]) < EPS &&
    words.x > panel.x[0] - EPS && words.x < panel.x[1] + EPS;
  const onPaper = (thing) => thing.xref === "paper" && thing.yref === "paper";

  // How high each panel becomes, and the room above and below it, in pixels.
  function measure(row, figure, place) {
    const { layout } = figure;
    for (const panel of row.panels) {
      const axes = [...panel.axes.x, ...panel.axes.y].map((id) => layout[key(id)] || {});
      const old = (panel.y[1] - panel.y[0]) * place.oldHeight;
      const shape = old / ((panel.x[1] - panel.x[0]) * place.oldWidth);
      const lists = [...panel.axes.y].some((id) => layout[key(id)]?.ticktext && layout[key(id)].fixedrange); // rows with names
      const square = Math.abs(shape - 1) < 0.1 && !lists;
      const keeps = panel.scenes.size || axes.some((axis) => axis.scaleanchor) || square;
      if (keeps) panel.height = Math.min(shape, 1.1) * place.width;
      else panel.height = row.panels.length > 1 ? Math.min(old, 0.75 * place.width) : old;
      for (const id of panel.axes.y) fitTitle(layout[key(id)], panel.height + 24);
      for (const id of panel.axes.x) fitTitle(layout[key(id)], place.width);
      const below = [...panel.axes.x].map((id) => layout[key(id)]).filter((axis) => axis && axis.visible !== false);
      panel.more = Math.max(0, ...below.map((axis) => lineCount(axis.title?.text) - 1)) * 18; // lines beyond the first
      panel.foot = Math.max(6, ...below.map((axis) => TICKS + lineCount(axis.title?.text) * 20));
      const titles = (layout.annotations || []).filter((words) => onPaper(words) && isTitle(words, panel));
      panel.head = Math.max(8, ...titles.map((words) => tall(words) + 10));
    }
  }

  function fitTitle(axis, room) {
    if (axis?.title?.text) axis.title.text = wrap(axis.title.text, axis.title.font?.size || 14, room);
  }

  // Sets `at` (the top, in pixels from the top of all) of each panel; returns the height of all.
  function arrange(rows, place) {
    let at = 0;
    rows.forEach((row, number) => {
      const before = rows[number - 1];
      if (before) {
        const gap = (before.bottom - row.top) * place.oldHeight + (before.extra || 0) + before.more;
        at += Math.max(gap, before.panels[before.panels.length - 1].foot + row.panels[0].head);
      }
      row.panels.forEach((panel, index) => {
        if (index) at += row.panels[index - 1].foot + panel.head;
        panel.at = at;
        at += panel.height;
      });
      row.more = row.panels[row.panels.length - 1].more;
      row.end = at;
    });
    return at;
  }

  // The new place of what stood at (x, y) on the paper.
  function moved({ x, y, yanchor }, rows, place) {
    const above = [...rows].reverse().find((row) => y < row.top + EPS); // the row at this height, or above it
    if (!above) return { x, y: 1 + ((y - 1) * place.oldHeight) / place.height };
    const hangs = yanchor === "top" && y < above.bottom + EPS; // a note under the whole row
    const panel = above.panels.find((p) => x > p.x[0] - EPS && x < p.x[1] + EPS && y > p.y[0] - EPS && y < p.y[1] + EPS);
    if (panel && !hangs) {
      const share = (panel.y[1] - y) / (panel.y[1] - panel.y[0]);
      const across = (x - panel.x[0]) / (panel.x[1] - panel.x[0]);
      return { x: panel.domain ? across : x, y: 1 - (panel.at + share * panel.height) / place.height };
    }
    const below = (above.bottom - y) * place.oldHeight;
    if (below >= -EPS) return { x, y: 1 - (above.end + above.more + below) / place.height };
    const share = (above.top - y) / (above.top - above.bottom), first = above.panels[0].at;
    return { x, y: 1 - (first + share * (above.end - first)) / place.height };
  }

  // Tick texts and names of the legend that would run into each other, or off the page.
  function wrapSmall({ data, layout }, rows, place, width) {
    for (const trace of data) if (trace.name) trace.name = wrap(trace.name, 13, width - 75);
    for (const panel of rows.flatMap((row) => row.panels))
      for (const id of panel.axes.x) {
        const axis = layout[key(id)];
        if (Array.isArray(axis?.ticktext)) axis.ticktext = axis.ticktext.map((text) => wrap(text, 14, (0.75 * place.width) / axis.ticktext.length));
      }
  }

  // The words of a layout or a frame, wrapped. Of a frame only the changes are stored: `base` is what they change.
  function wrapWords(words, base, place) {
    const full = { ...base, ...words };
    return onPaper(full) && full.text && !full.textangle
      ? { ...words, text: wrap(full.text, full.font?.size || 13, place.width + place.right - 4) } : words;
  }

  // Notes between and below the rows need more room when they take more lines, in any of the frames.
  function makeRoom(figure, before, rows) {
    let under = 0;
    (figure.layout.annotations || []).forEach((words, index) => {
      if (!onPaper(words) || words.yanchor !== "top") return;
      const all = [words, ...figure.frames.map((frame) => frame.layout?.annotations?.[index] || {})];
      const old = [before.layout.annotations[index], ...before.frames.map((frame) => frame.layout?.annotations?.[index] || {})];
      const lines = (list) => Math.max(...list.map((entry) => lineCount(entry.text || "")));
      const extra = (lines(all) - lines(old)) * (words.font?.size || 13) * 1.3;
      const row = [...rows].reverse().find((r) => words.y < r.bottom + EPS);
      if (row && row !== rows[rows.length - 1]) row.extra = Math.max(row.extra || 0, extra);
      else under = Math.max(under, extra);
    });
    return under;
  }

  function applyDomains(rows, layout, place) {
    for (const panel of rows.flatMap((row) => row.panels)) {
      const y = [1 - (panel.at + panel.height) / place.height, 1 - panel.at / place.height].map((v) => Math.min(1, Math.max(0, v)));
      panel.domain = panel.x[0] > EPS || panel.x[1] < 1 - EPS;
      for (const id of panel.axes.x) if (layout[key(id)]) layout[key(id)].domain = [0, 1];
      for (const id of panel.axes.y) if (layout[key(id)] && !layout[key(id)].overlaying) layout[key(id)].domain = y;
      for (const scene of panel.scenes) layout[scene] = { ...layout[scene], domain: { x: [0, 1], y } };
      Object.assign(panel, { newY: y });
    }
  }

  // Every upright colour bar, with the axes of what it explains.
  function uprightBars({ data, layout }) {
    const bars = [];
    for (const name of Object.keys(layout).filter((name) => /^coloraxis/.test(name))) {
      const user = data.find((trace) => (trace.coloraxis || trace.marker?.coloraxis) === name);
      if (user && layout[name].showscale !== false) bars.push([layout[name], user]);
    }
    for (const trace of data)
      for (const owner of [trace, trace.marker, trace.line])
        if (owner && !owner.coloraxis && owner.showscale !== false && (owner.colorbar || owner.type === "heatmap")) bars.push([owner, trace]);
    return bars.filter(([owner]) => owner.colorbar?.orientation !== "h");
  }

  // One shared bar lies below all panels; one of several stands beside its own. Returns the room needed below.
  function moveBars(figure, rows) {
    const bars = uprightBars(figure);
    if (bars.length === 1) {
      const [owner] = bars[0], bar = owner.colorbar || {};
      owner.colorbar = {
        ...bar, orientation: "h", x: 0.5, xanchor: "center", xref: "paper", y: 0, yanchor: "bottom", yref: "container",
        len: 0.8, lenmode: "fraction", thickness: 12, title: { ...bar.title, side: "bottom" },
      };
      return BAR;
    }
    for (const [owner, trace] of bars) {
      const panel = rows.flatMap((row) => row.panels).find((p) => p.axes.y.has(trace.yaxis || "y"));
      if (!panel) continue;
      const [low, high] = panel.newY;
      owner.colorbar = { ...owner.colorbar, x: 1.02, xanchor: "left", y: (low + high) / 2, yanchor: "middle", len: high - low, lenmode: "fraction" };
    }
    return 0;
  }

  // The legend lies below all panels, and as far from the figure's lower end as it did, or above a bar that came there.
  function legendBelow(layout, oldTotal, bar, width) {
    const legend = told(layout, "legend"), hangs = legend.yref === "container";
    if (!hangs && (legend.x ?? 1.02) <= 1 && (legend.y ?? 1) > 0) return; // inside a panel
    const offset = hangs && legend.y < 0.5 ? legend.y * oldTotal : 0;
    const upright = hangs && legend.orientation === "v";
    layout.legend = {
      ...layout.legend, orientation: upright ? "v" : "h",
      title: { ...legend.title, text: wrap(legend.title?.text, legend.title?.font?.size || 12, width - 40) },
      x: 0.5, xanchor: "center", y: (offset + bar) / layout.height, yanchor: "bottom", yref: "container",
      // By the container Plotly takes an upright legend for one at the side, and leaves the panels no room.
      xref: upright ? "paper" : legend.xref || "paper",
    };
  }

  // Room for an upright legend below, at most. Plotly takes it from the panels, and fails where nothing is left of them;
  // what is too much is given back after the first drawing.
  function legendRoom({ data, layout }) {
    const legend = told(layout, "legend");
    if (legend.yref !== "container" || legend.orientation !== "v") return 0;
    const names = data.filter((trace) => trace.showlegend !== false).map((trace) => lineCount(trace.name || ""));
    return (lineCount(legend.title?.text || "") + names.reduce((sum, lines) => sum + lines, 0)) * 19;
  }

  // All words on the paper, of the layout and of its frames, in lines that are not too long.
  function wrapAll({ layout, frames }, place, width) {
    layout.annotations = (layout.annotations || []).map((words) => wrapWords(words, {}, place));
    for (const frame of frames)
      if (frame.layout?.annotations)
        frame.layout.annotations = frame.layout.annotations.map((words, index) => wrapWords(words, layout.annotations[index], place));
    if (layout.title?.text) layout.title.text = wrap(layout.title.text, layout.title.font?.size || 17, width - 20);
  }

  // Everything that stands on the paper goes with its panel.
  function moveAll({ layout, frames }, rows, place) {
    const shift = (words) => (onPaper(words) ? { ...words, ...moved(words, rows, place) } : words);
    const before = layout.annotations;
    layout.annotations = before.map(shift);
    for (const frame of frames)
      if (frame.layout?.annotations)
        frame.layout.annotations = frame.layout.annotations.map((words, index) =>
          "x" in words || "y" in words ? shift({ ...before[index], ...words }) : words);
    layout.shapes = (layout.shapes || []).map((shape) => {
      if (!onPaper(shape)) return shape;
      const [a, b] = [[shape.x0, shape.y0], [shape.x1, shape.y1]].map(([x, y]) => moved({ x, y }, rows, place));
      return { ...shape, x0: a.x, y0: a.y, x1: b.x, y1: b.y };
    });
  }

  // `figure` (data, layout, frames) for a box of this width; the figure itself if it is wide enough.
  function stack(figure, width) {
    if (width >= NARROW) return figure;
    const { data, layout, frames } = structuredClone(figure);
    const copy = { data, layout, frames };
    const margin = { t: 100, b: 80, l: 80, r: 80, ...told(layout, "margin") };
    const total = layout.height || 450;
    const place = {
      oldHeight: total - margin.t - margin.b, oldWidth: PAGE - margin.l - margin.r,
      width: width - margin.l - margin.r, right: margin.r,
    };
    place.height = place.oldHeight;
    const all = rowsOf(panelsOf(copy));
    const axes = all.flatMap((row) => row.panels).flatMap((panel) => [...panel.axes.y]);
    // Two panels on one y axis cannot part, for the axis has one place: such a figure only gets shorter lines.
    const rows = new Set(axes).size === axes.length ? all : [];
    wrapSmall(copy, all, place, width);
    wrapAll(copy, place, width);
    let under = makeRoom(copy, figure, rows), over = 0;
    if (rows.some((row) => row.panels.length > 1)) ownTitles(layout, rows.flatMap((row) => row.panels));
    if (rows.length) {
      for (const row of rows) measure(row, copy, place);
      place.height = arrange(rows, place);
      applyDomains(rows, layout, place);
      moveAll(copy, rows, place);
      under += rows[rows.length - 1].more;
      over = Math.max(0, rows[0].panels[0].head - margin.t + 4);
    }
    const bar = moveBars(copy, rows);
    layout.margin = { ...layout.margin, t: margin.t + over, b: margin.b + under };
    layout.height = Math.round(place.height + layout.margin.t + layout.margin.b);
    legendBelow(layout, total, bar, width);
    layout.height += legendRoom(copy);
    copy.panelsHeight = place.height;
    return copy;
  }

  // Plotly takes the room of a legend of many lines from the panels, and sets notes and legend without a look at each
  // other. After a first drawing, the layout's change that gives the panels their height and parts the two.
  function giveBack(gd, wanted) {
    const { legend, height, margin, _size } = gd._fullLayout;
    const boxes = (names) => [...gd.querySelectorAll(names)].map((part) => part.getBoundingClientRect()).filter((box) => box.height);
    const end = gd.getBoundingClientRect().top + height - _size.b;
    const below = boxes(".legend, .infolayer > g[class*='colorbar'], .infolayer > g[class^='cb']").filter((box) => box.top > end - 1);
    const notes = boxes(".annotation, .infolayer text[class*='xtitle']").map((box) => box.bottom);
    const lack = Math.round(wanted - _size.h); // below 0: room that the legend did not take
    const overlap = below.length ? Math.max(0, Math.ceil(Math.max(end, ...notes) + 6 - Math.min(...below.map((box) => box.top)))) : 0;
    if (Math.abs(lack + overlap) < 2) return null;
    const change = { height: height + lack + overlap, "margin.b": Math.max(margin.b, _size.b) + overlap };
    if (legend?.yref === "container") change["legend.y"] = (legend.y * height) / change.height;
    return change;
  }

  return { NARROW, stack, giveBack };
})();
