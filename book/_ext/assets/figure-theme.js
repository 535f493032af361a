// The colours of a figure on the dark ground of the page.
// Pure greys (ink, grids, walls) are turned over; a hue means something and stays, unless it would sink in the ground.
const bookTheme = (() => {
  "use strict";
  const GROUND = [18, 18, 18]; // the theme's dark ground
  const GROUND_KEYS = /^(paper_bgcolor|plot_bgcolor|bgcolor)$/;
  const NOT_COLOURS = new Set(["x", "y", "z", "text", "hovertext", "customdata", "hovertemplate", "name", "ids", "meta"]);
  const LINES = 2; // least contrast of a line or marker with the ground: the darkest violet becomes lighter, red stays
  const TEXT = 4.5; // least contrast of words (WCAG AA)
  const pen = document.createElement("canvas").getContext("2d");

  const isDark = () => document.documentElement.dataset.theme === "dark";

  // [red, green, blue, opacity] of any colour that CSS knows, or null.
  function parse(text) {
    if (typeof text !== "string" || !CSS.supports("color", text)) return null;
    pen.fillStyle = text;
    const found = pen.fillStyle; // "#rrggbb", or "rgba(…)" where it is not opaque
    if (found.startsWith("#")) return [1, 3, 5].map((at) => parseInt(found.slice(at, at + 2), 16)).concat(1);
    return found.match(/[\d.]+/g).map(Number);
  }

  function write([red, green, blue, opacity]) {
    const parts = [red, green, blue].map(Math.round);
    return opacity === 1 ? `rgb(${parts})` : `rgba(${parts},${opacity})`;
  }

  // WCAG's relative luminance and contrast.
  function luminance(colour) {
    const [r, g, b] = colour.map((v) => (v <= 10 ? v / 3294.6 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }
  function contrast(one, other) {
    const [a, b] = [luminance(one) + 0.05, luminance(other) + 0.05];
    return Math.max(a, b) / Math.min(a, b);
  }

  const turned = (grey) => 40 + ((255 - grey) * 195) / 255; // white becomes nearly the ground, #222222 a light ink

  function onDark(text, least) {
    const colour = parse(text);
    if (!colour || colour[3] === 0) return text;
    let [rgb, opacity] = [colour.slice(0, 3), colour[3]];
    if (Math.max(...rgb) - Math.min(...rgb) <= 2) rgb = rgb.map(turned);
    // A near-white grid is meant to be faint; only what was dark on white has to stand out.
    if (contrast(colour.slice(0, 3), [255, 255, 255]) > 2)
      while (contrast(rgb, GROUND) < least) rgb = rgb.map((v) => v + (255 - v) * 0.08);
    return write([...rgb, opacity]);
  }

  // A copy of a figure, or of a part of it, in dark colours. `inFont`: the colour is one of words.
  function recolour(part, key, inFont) {
    if (typeof part === "string") {
      if (GROUND_KEYS.test(key)) return inFont === "hover" ? "rgb(40,46,54)" : "rgba(0,0,0,0)";
      return /color$/.test(key) ? onDark(part, inFont ? TEXT : LINES) : part;
    }
    if (part === null || typeof part !== "object" || NOT_COLOURS.has(key)) return part;
    if (Array.isArray(part)) return part.map((entry) => recolour(entry, key, inFont));
    const copy = {};
    for (const [name, value] of Object.entries(part)) {
      if (name === "colorscale") copy[name] = key === "marker" ? scale(value) : value; // of lines; areas keep theirs
      else if (name === "hoverlabel") copy[name] = recolour(value, name, "hover");
      else copy[name] = recolour(value, name, /font$/.test(name) ? "words" : inFont);
    }
    return copy;
  }

  const scale = (stops) =>
    Array.isArray(stops) ? stops.map(([at, colour]) => [at, onDark(colour, LINES)]) : stops;

  // Heat maps keep their own colours, and so does what is written or drawn on their cells.
  function onCells({ data }) {
    const axes = new Set(data.filter((trace) => trace.type === "heatmap").map((trace) => trace.xaxis || "x"));
    return (axis) => axes.has(String(axis || "x").replace(/ domain$/, ""));
  }

  // Behind a heat map: grey where it has no value, as its note says; white paper is the page's.
  function ground({ data, layout }) {
    const own = data.some((trace) => trace.type === "heatmap") && parse(layout.plot_bgcolor);
    return own && contrast(own.slice(0, 3), [255, 255, 255]) > 1.1 ? layout.plot_bgcolor : "rgba(0,0,0,0)";
  }

  // `figure` as it is drawn on the present ground.
  function dress(figure) {
    if (!isDark()) return figure;
    const keeps = onCells(figure);
    const trace = (part, index) => {
      const whole = { ...figure.data[index], ...part };
      if (/3d|scene/.test(whole.type) || !keeps(whole.xaxis)) return recolour(part, "data");
      const { hoverlabel, colorbar } = recolour({ hoverlabel: part.hoverlabel, colorbar: part.colorbar }, "data");
      return { ...part, ...(hoverlabel && { hoverlabel }), ...(colorbar && { colorbar }) };
    };
    const layout = recolour(figure.layout, "layout");
    if (figure.layout.shapes)
      layout.shapes = figure.layout.shapes.map((shape, index) => (keeps(shape.xref) ? shape : layout.shapes[index]));
    const ink = write([...[34, 34, 34].map(turned), 1]);
    Object.assign(layout, { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: ground(figure) });
    layout.font = { color: layout.template?.layout?.font?.color || ink, ...layout.font };
    const frames = figure.frames.map((frame) => ({
      ...frame,
      layout: recolour(frame.layout, "layout"),
      data: frame.data?.map((part, index) => trace(part, frame.traces?.[index] ?? index)),
    }));
    return { data: figure.data.map(trace), layout, frames };
  }

  return { dress, isDark };
})();
