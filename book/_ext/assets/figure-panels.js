// What a figure consists of: its panels, the rows in which they stand, and words in lines of a given width.
const bookPanels = (() => {
  "use strict";
  const EPS = 0.005; // of domains, which are shares of the figure inside its margins
  const IN_SPACE = /3d$|^(surface|cone|streamtube|volume|isosurface)$/;
  const pen = document.createElement("canvas").getContext("2d");

  const key = (id) => id.replace(/^([xy])/, "$1axis"); // "x2" -> "xaxis2"

  // `text` broken at spaces so that no line is wider than `room`, in as few lines of about one width as that takes;
  // tags have no width and are not broken.
  function wrap(text, size, room) {
    if (!text) return text;
    pen.font = `${/<b>/.test(text) ? "bold " : ""}${size}px Arial, "Liberation Sans", sans-serif`;
    const wide = (words) => pen.measureText(words.replace(/<[^>]*>/g, "")).width;
    const filled = (line, limit) => {
      const lines = [];
      for (const word of line.split(/ +(?![^<]*>)/)) {
        const longer = lines.length ? `${lines[lines.length - 1]} ${word}` : word;
        if (lines.length && wide(longer) <= limit) lines[lines.length - 1] = longer;
        else lines.push(word);
      }
      return lines;
    };
    const even = (line) => {
      let lines = filled(line, room);
      for (let limit = room - 4; lines.length > 1 && limit > 0; limit -= 4) {
        const tried = filled(line, limit);
        if (tried.length > lines.length || Math.max(...tried.map(wide)) > room) break;
        lines = tried;
      }
      return lines.join("<br>");
    };
    return String(text).split("<br>").map(even).join("<br>");
  }

  function domain(layout, id) {
    const axis = layout[key(id)] || {};
    return axis.overlaying ? domain(layout, axis.overlaying) : axis.domain || [0, 1];
  }

  // The rectangles in which something is drawn, each with its axes or its scene.
  function panelsOf({ data, layout }) {
    const found = new Map();
    const panel = (x, y) => {
      const name = [...x, ...y].map((v) => v.toFixed(3)).join();
      if (!found.has(name)) found.set(name, { x, y, axes: { x: new Set(), y: new Set() }, scenes: new Set() });
      return found.get(name);
    };
    const pair = (x, y) => {
      const { axes } = panel(domain(layout, x), domain(layout, y));
      axes.x.add(x);
      axes.y.add(y);
    };
    for (const trace of data) {
      if (IN_SPACE.test(trace.type || "")) {
        const scene = trace.scene || "scene", { x = [0, 1], y = [0, 1] } = layout[scene]?.domain || {};
        panel(x, y).scenes.add(scene);
      } else if (!trace.domain) pair(trace.xaxis || "x", trace.yaxis || "y");
    }
    for (const name of Object.keys(layout)) { // panels without traces
      const anchor = /^xaxis/.test(name) && layout[name].anchor;
      if (anchor && anchor !== "free" && layout[key(anchor)]) pair(name.replace("axis", ""), anchor);
    }
    return [...found.values()];
  }

  // Panels whose heights overlap are one row; rows from the top, in each the panels from the left.
  function rowsOf(panels) {
    const rows = [];
    for (const panel of [...panels].sort((a, b) => b.y[1] - a.y[1])) {
      const row = rows[rows.length - 1];
      if (row && panel.y[1] > row.bottom + EPS) {
        row.panels.push(panel);
        row.bottom = Math.min(row.bottom, panel.y[0]);
      } else rows.push({ top: panel.y[1], bottom: panel.y[0], panels: [panel] });
    }
    for (const row of rows) row.panels.sort((a, b) => a.x[0] - b.x[0] || b.y[1] - a.y[1]);
    return rows;
  }

  return { EPS, key, panelsOf, rowsOf, wrap };
})();
