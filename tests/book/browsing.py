"""What the tests of pages and of figures ask a page, in its own language, and what they do with a figure."""

# What a reader sees of a figure's state: its title and all traces, whichever way the data is stored.
STATE = """gd => JSON.stringify([gd._fullLayout.title?.text, gd._fullData.map(t => [t.visible, t.name,
    ...[t.x, t.y, t.z, t.marker?.color, t.marker?.opacity].map(v => v?.length ? Array.from(v) : v)])])"""
# Contrast of each word of a figure with the ground it stands on, where that is too low: 4.5 is WCAG's AA. Words on
# the cells of a heat map have a ground of their own.
PALE = """() => {
    const parse = text => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0.05);
    const ground = light(parse(getComputedStyle(document.body).backgroundColor));
    return [...document.querySelectorAll('.book-plotly text')]
        .filter(e => e.textContent.trim() && !e.closest('.heatmaplayer, .hm, .hoverlayer'))
        .map(e => [e.textContent, light(parse(getComputedStyle(e).fill))])
        .filter(([, ink]) => Math.max(ink, ground) / Math.min(ink, ground) < 4.5).slice(0, 5);
}"""
# Pairs of panels of one figure of which neither stands above the other.
SIDE_BY_SIDE = """() => [...document.querySelectorAll('.book-plotly-target')].flatMap(gd => {
    const layout = gd._fullLayout, size = layout._size, found = new Map();
    for (const {xaxis: x, yaxis: y} of Object.values(layout._plots))
        found.set([x.domain, y.domain].flat().map(v => v.toFixed(2)).join(), [x.domain, y.domain]);
    for (const name of Object.keys(layout).filter(name => /^scene\\d*$/.test(name)))
        found.set(name, [layout[name].domain.x, layout[name].domain.y]);
    const panels = [...found.values()], apart = (a, b) => a[0] >= b[1] - 0.001 || b[0] >= a[1] - 0.001;
    return panels.flatMap((a, i) => panels.slice(i + 1).filter(b => !apart(a[1], b[1])).map(b => [a, b]));
})"""
# Words of a figure that lie on other words, or reach out of the figure.
COLLISIONS = """() => [...document.querySelectorAll('.book-plotly-target')].flatMap(gd => {
    const home = gd.getBoundingClientRect();
    const names = '[class$=tick] text, .infolayer text[class*=title], .annotation text, .legendtext';
    const words = [...gd.querySelectorAll(names)].map(e => [e, e.getBoundingClientRect()])
        .filter(([e, box]) => e.textContent.trim() && box.width && box.height);
    const inside = box => box.left > home.left - 2 && box.right < home.right + 2 && box.bottom < home.bottom + 2;
    const bad = words.filter(([, box]) => !inside(box)).map(([e]) => ['outside', e.textContent]);
    words.forEach(([e, a], i) => words.slice(i + 1).forEach(([f, b]) => {
        const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (wide > 3 && high > 5) bad.push([e.textContent, f.textContent]);
    }));
    return bad.slice(0, 5);
})"""
# Where the cells stand that name a frame in their customdata.
CELLS = """gd => {
    const box = gd.getBoundingClientRect(), layout = gd._fullLayout, found = [];
    for (const t of gd._fullData.filter(t => t.type === 'heatmap' && t.customdata)) {
        const x = layout[t.xaxis.replace('x', 'xaxis')], y = layout[t.yaxis.replace('y', 'yaxis')];
        t.customdata.forEach((row, i) => row.forEach((name, j) => { if (name)
            found.push([name, box.x + x._offset + x.c2p(j), box.y + y._offset + y.c2p(i)]); }));
    }
    return found;
}"""


def fits(page):
    """Whether the page does not scroll sideways."""
    return page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")


def wait_until(page, true, milliseconds):
    """Whether something becomes true in time."""
    for _ in range(max(1, milliseconds // 50)):
        if true():
            return True
        page.wait_for_timeout(50)
    return true()


def controls(figure, what):
    """One of the controls that the page puts under a figure."""
    return figure.locator("xpath=..").locator(f".book-controls {what}")


def press(page, figure, key):
    """Press a key; whether the figure's data or title changed, and the words under it."""
    before, said = figure.evaluate(STATE), controls(figure, "output").text_content()
    page.keyboard.press(key)
    return wait_until(
        page, lambda: figure.evaluate(STATE) != before and controls(figure, "output").text_content() != said, 5000
    )


def range_moves(page, figure):
    """Whether the keys move the range, and it the figure."""
    slider = controls(figure, "input[type=range]")
    slider.focus()
    at_end = slider.evaluate("e => e.value === e.max")
    return press(page, figure, "ArrowLeft" if at_end else "ArrowRight") and press(
        page, figure, "Home" if at_end else "End"
    )


def tab_to(page, condition):
    """Press Tab until the element that has the focus fulfils a condition, at most through a figure's own buttons."""
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate(f"(e => Boolean({condition}))(document.activeElement)"):
            return True
    return False


def click(page, figure, name):
    """Click on the cell of this name; whether the figure and the words under it changed."""
    figure.scroll_into_view_if_needed()
    ((x, y),) = [cell[1:] for cell in figure.evaluate(CELLS) if cell[0] == name]
    before, said = figure.evaluate(STATE), controls(figure, "output").text_content()
    page.mouse.click(x, y)
    return wait_until(
        page, lambda: figure.evaluate(STATE) != before and controls(figure, "output").text_content() != said, 5000
    )


def arrows_and_clicks_choose(page, figure):
    """Whether clicks on the first and the last cell, and from there an arrow key, change the figure."""
    cells = figure.evaluate(CELLS)
    clicked = all(click(page, figure, cell[0]) for cell in (cells[0], cells[-1]))
    figure.focus()
    return clicked and press(page, figure, "ArrowUp")
