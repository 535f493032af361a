// A figure's own slider, play button and clickable cells as things of the page: reached by Tab, moved by arrow keys,
// read out by a screen reader, and never on top of the figure.
const bookControls = (() => {
  "use strict";
  const AT_ONCE = { mode: "immediate", frame: { duration: 0, redraw: true }, transition: { duration: 0 } };
  const PAUSE = 900; // milliseconds a step stays while the film plays, unless the figure says so itself
  const ROOM = 45; // of a slider above the panels, in pixels

  const plain = (text) => String(text ?? "").replace(/([.:;,]?)<br>/g, (_, end) => `${end || "."} `).replace(/<[^>]*>/g, "").trim();
  const isFilm = (menu) => menu.type === "buttons" && (menu.buttons || []).every((button) => button.method === "animate");

  // `figure` without what the page shows itself. Menus of another kind stay where they are.
  function strip(figure) {
    const layout = { ...figure.layout }, [slider] = layout.sliders || [];
    if (!slider) return figure;
    layout.updatemenus = (layout.updatemenus || []).filter((menu) => !isFilm(menu));
    delete layout.sliders;
    const top = layout.margin?.t;
    if ((slider.y ?? 0) >= 1 && top > 2 * ROOM) layout.margin = { ...layout.margin, t: top - ROOM };
    return { ...figure, layout };
  }

  // What can be chosen, in the order of the slider, or of the frames where there is no slider.
  function stepsOf({ layout, frames }) {
    const [slider] = layout.sliders || [];
    if (slider) return slider.steps.filter((step) => step.visible !== false);
    return layout.meta?.click_to_frame ? frames.map(({ name }) => ({ method: "animate", args: [[name]], label: name })) : [];
  }

  const frameName = (step) => (step.method === "animate" ? String(step.args[0]?.[0] ?? "") : "");

  function element(tag, attributes = {}, text = "") {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.textContent = text;
    return made;
  }

  // Puts the controls under `target`. `figure` is the stored one. Returns the state, with which it can be drawn again.
  function add(target, figure) {
    const steps = stepsOf(figure);
    if (!steps.length) return null;
    const [slider] = figure.layout.sliders || [];
    const bar = element("div", { class: "book-controls" });
    const output = element("output");
    const state = { steps, at: slider?.active || 0, target, figure, output, timer: 0 };
    if (slider) {
      state.range = element("input", { type: "range", min: 0, max: steps.length - 1, step: 1 });
      state.range.value = state.at;
      state.range.addEventListener("input", () => { pause(state); show(state, Number(state.range.value)); });
      const film = (figure.layout.updatemenus || []).find(isFilm);
      if (film) bar.append(playButton(state, film));
      const label = element("label", {}, (slider.currentvalue?.prefix || "").replace(/[\s:=]+$/, "") || "Step");
      label.append(state.range);
      bar.append(label);
    }
    bar.append(output);
    target.after(bar);
    say(state);
    if (figure.layout.meta?.click_to_frame) addCells(state);
    return state;
  }

  // The page moves the film, not Plotly: so the range always stands where the figure does. With less motion
  // wished for, custom.css hides the button; the range still shows every step.
  function playButton(state, film) {
    state.play = element("button", { type: "button" }, "▶ Play");
    const pace = film.buttons.map((button) => button.args?.[1]?.frame?.duration).find((duration) => duration > 0) || PAUSE;
    state.play.addEventListener("click", () => {
      if (state.timer) return pause(state);
      if (state.at === state.steps.length - 1) show(state, 0);
      state.timer = setInterval(() => {
        show(state, state.at + 1);
        if (state.at === state.steps.length - 1) pause(state);
      }, pace);
      state.play.textContent = "❚❚ Pause";
    });
    return state.play;
  }

  function pause(state) {
    clearInterval(state.timer);
    state.timer = 0;
    if (state.play) state.play.textContent = "▶ Play";
  }

  function show(state, at) {
    state.at = at;
    say(state);
    if (state.range) state.range.value = at;
    return apply(state);
  }

  // Brings the drawing to the present step; also after it was drawn anew.
  function apply({ target, steps, at }) {
    const { method, args } = steps[at];
    if (method === "skip") return Promise.resolve();
    return Plotly[method](target, ...(method === "animate" ? [args[0], AT_ONCE] : args)).then(() => mark(target));
  }

  // The words of the present step: its label, or what the frame itself writes about it.
  function say({ steps, at, figure, output, range }) {
    const name = frameName(steps[at]);
    const frame = figure.frames.find((one) => one.name === name);
    const words = plain(frame?.layout?.annotations?.[0]?.text) || plain(steps[at].label) || name;
    output.textContent = words;
    range?.setAttribute("aria-valuetext", words);
  }

  // Cells: points of heat maps whose customdata names a frame.
  function cellsOf({ target, steps }) {
    const names = steps.map(frameName), layout = target._fullLayout, cells = [];
    for (const trace of target._fullData.filter((one) => one.type === "heatmap" && one.customdata)) {
      const [x, y] = ["x", "y"].map((letter) => layout[trace[`${letter}axis`].replace(letter, `${letter}axis`)]);
      trace.customdata.forEach((row, i) => row.forEach((name, j) => {
        const at = names.indexOf(name);
        if (at < 0) return;
        const column = trace.x?.[j] ?? j, line = trace.y?.[i] ?? i;
        cells.push({
          at, x: x._offset + x.c2p(x.d2c(column)), y: y._offset + y.c2p(y.d2c(line)),
          width: x._length / trace.customdata[0].length, height: y._length / trace.customdata.length,
        });
      }));
    }
    return cells;
  }

  function addCells(state) {
    const { target } = state;
    state.mark = element("span", { class: "book-cell", "aria-hidden": "true" });
    target.bookState = state;
    target.tabIndex = 0;
    target.setAttribute("role", "application");
    target.setAttribute("aria-roledescription", "map of cells");
    target.setAttribute("aria-label", `${target.getAttribute("aria-label") || "Map"}. The arrow keys choose a cell.`);
    const away = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    target.addEventListener("keydown", (event) => {
      if (!away[event.key] || event.target !== target) return;
      event.preventDefault();
      const next = neighbour(cellsOf(state), state.at, away[event.key]);
      if (next) show(state, next.at);
    });
  }

  // The nearest cell in a direction; one in the same row or column comes before one that is nearer but aside.
  function neighbour(cells, at, [right, down]) {
    const here = cells.find((cell) => cell.at === at) || cells[0];
    let best = null, least = Infinity;
    for (const cell of cells) {
      const [dx, dy] = [cell.x - here.x, cell.y - here.y];
      const ahead = dx * right + dy * down, aside = Math.abs(dx * down) + Math.abs(dy * right);
      const far = ahead + 4 * aside;
      if (ahead > 1 && far < least) [best, least] = [cell, far];
    }
    return best;
  }

  // Plotly empties the target when it draws: the mark is put back over the present cell.
  function mark(target) {
    const state = target.bookState;
    const cell = state && cellsOf(state).find((one) => one.at === state.at);
    if (!cell) return;
    const { x, y, width, height } = cell;
    Object.assign(state.mark.style, { left: `${x - width / 2}px`, top: `${y - height / 2}px`, width: `${width}px`, height: `${height}px` });
    target.append(state.mark);
  }

  // After each drawing: clicks, the present step, the mark. Plotly forgets its listeners when it draws anew.
  function attach(state) {
    const { target, figure } = state;
    if (figure.layout.meta?.click_to_frame)
      target.on("plotly_click", (event) => {
        const at = state.steps.map(frameName).indexOf(event.points[0].customdata);
        if (at >= 0) show(state, at);
      });
    target.on("plotly_relayout", () => mark(target));
    return state.at === (figure.layout.sliders?.[0]?.active || 0) ? mark(target) : apply(state);
  }

  return { add, attach, strip };
})();
