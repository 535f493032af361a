"""Figures as the book draws them, on pages of their own: so this holds whichever chapters are built."""

import plotly.graph_objects as go
import pytest
from browsing import COLLISIONS, PALE, SIDE_BY_SIDE, STATE, click, controls, fits, press, tab_to, wait_until
from plotly.subplots import make_subplots

from resalign_utils.plotting import condition_dots

SCRIPTS = ("plotly.min", "figure-theme", "figure-panels", "figure-stacking", "figure-controls", "book-plotly")
INK = "#222222"


def page_of(figure, theme="light"):
    """A page with this figure alone, as the book writes it, with the book's own scripts and styles."""
    payload = figure.to_json().replace("<", "\\u003c")
    scripts = "".join(f'<script src="_static/vendor/{name}.js"></script>' for name in SCRIPTS)
    return f"""<!doctype html><html lang="en" data-theme="{theme}"><title>A figure</title>
        <meta name="viewport" content="width=device-width"><link rel="stylesheet" href="_static/custom.css">
        <style>html[data-theme=dark] body {{background: rgb(18, 18, 18)}}</style>
        <div class="output book-plotly"><div class="book-plotly-target" role="group" aria-label="A figure"></div>
        <script type="application/json" class="book-plotly-data">{payload}</script></div>{scripts}</html>"""


def opened(visit, figure, width=1280, **how):
    """The page of a figure, and the figure on it."""
    page = visit("a-figure-of-the-test.html", width, page_of(figure, **how))
    return page, page.locator(".book-plotly-target")


def film():
    """A line that climbs in three frames, with Plotly's own slider and buttons."""
    quick = {"frame": {"duration": 100}}
    steps = [{"label": str(n), "method": "animate", "args": [[str(n)], {}]} for n in range(3)]
    buttons = [
        {"label": "play", "method": "animate", "args": [None, quick]},
        {"label": "stop", "method": "animate", "args": [[None], quick]},
    ]
    return go.Figure(
        data=[{"y": [0, 0]}],
        frames=[go.Frame(name=str(n), data=[{"y": [0, n]}]) for n in range(3)],
        layout={
            "sliders": [{"steps": steps, "currentvalue": {"prefix": "epoch = "}}],
            "updatemenus": [{"type": "buttons", "buttons": buttons}],
        },
    )


@pytest.mark.parametrize("width", [1280, 390])
def test_a_film_is_moved_by_keys(visit, width):
    page, figure = opened(visit, film(), width)
    assert not figure.locator(".slider-group, .updatemenu-container").count(), "Plotly's own controls are drawn too"
    assert tab_to(page, "e.textContent === '▶ Play'")
    assert tab_to(page, "e.type === 'range'")
    assert page.evaluate("document.activeElement.labels[0].textContent") == "epoch"
    assert press(page, figure, "ArrowRight")
    assert controls(figure, "output").text_content() == "1"
    boxes = [part.bounding_box() for part in (figure, controls(figure, "button"), controls(figure, "label"))]
    for i, one in enumerate(boxes):
        assert one["x"] >= 0
        assert one["x"] + one["width"] <= width
        for other in boxes[i + 1 :]:
            beside = one["x"] + one["width"] <= other["x"] + 1
            assert beside or one["y"] + one["height"] <= other["y"] + 1, "controls on each other or on the figure"


def test_a_film_plays_to_its_end_and_stops(visit):
    page, figure = opened(visit, film())
    button = controls(figure, "button")
    button.click()
    assert "Pause" in button.text_content()
    assert wait_until(page, lambda: button.text_content() == "▶ Play", 5000)
    assert controls(figure, "output").text_content() == "2"
    assert controls(figure, "input").input_value() == "2"
    assert figure.evaluate("gd => gd._fullData[0].y[1]") == 2


def test_with_less_motion_only_the_range_moves_a_film(visit):
    page, figure = opened(visit, film())
    assert controls(figure, "button").is_visible()
    page.emulate_media(reduced_motion="reduce")
    assert not controls(figure, "button").is_visible()
    assert controls(figure, "input").is_visible()


def cell_map():
    """Two maps of two by three cells beside each other; each cell has a frame that moves the third panel's line."""
    figure = make_subplots(2, 2, specs=[[{}, {}], [{"colspan": 2}, None]], subplot_titles=["one", "two", "chosen"])
    frames = []
    for number in (1, 2):
        names = [[f"map {number}, row {i}, column {j}" for j in range(3)] for i in range(2)]
        scores = [[i + j * number for j in range(3)] for i in range(2)]
        figure.add_heatmap(z=scores, customdata=names, coloraxis="coloraxis", row=1, col=number)
        for i, row in enumerate(names):
            for j, name in enumerate(row):
                line = {"y": [number, i, j]}
                words = [{"text": f"<b>{name}</b><br>score {scores[i][j]}"}]
                frames.append(go.Frame(name=name, data=[line], traces=[2], layout={"annotations": words}))
    figure.add_scatter(y=[0, 0, 0], row=2, col=1)
    figure.frames = frames
    note = {"text": "none", "xref": "paper", "yref": "paper", "x": 0, "y": 0.45, "yanchor": "top", "showarrow": False}
    return figure.update_layout(
        annotations=[note, *figure.layout.annotations], meta={"click_to_frame": True}, height=600
    )


@pytest.mark.parametrize("width", [1280, 390])
def test_cells_of_a_map_are_reached_by_keys_and_clicks(visit, width):
    page, figure = opened(visit, cell_map(), width)
    shown = "gd => Array.from(gd._fullData[2].y)"
    assert click(page, figure, "map 1, row 1, column 1")
    assert figure.evaluate(shown) == [1, 1, 1]
    page.evaluate("document.activeElement.blur()")
    assert tab_to(page, "e.matches('.book-plotly-target')")
    assert "arrow keys" in figure.get_attribute("aria-label")
    mark = page.locator(".book-cell")
    places = [mark.bounding_box()]
    # From map 1 to map 2 at its right; heat maps count their rows from below.
    for key in ("ArrowRight", "ArrowRight" if width == 1280 else "ArrowDown"):
        assert press(page, figure, key)
        places.append(mark.bounding_box())
    name = controls(figure, "output").text_content()
    assert name.startswith("map 2, row 1, column 0" if width == 1280 else "map 1, row 0, column 2")
    assert "score" in name
    assert [place["width"] > 20 and place["height"] > 10 for place in places] == [True] * 3
    assert len({(round(place["x"]), round(place["y"])) for place in places}) == 3, "the mark stands still"
    assert mark.evaluate("e => getComputedStyle(e).borderTopWidth") == "3px"
    assert bool(page.evaluate(SIDE_BY_SIDE)) == (width == 1280)
    assert fits(page)


def grid():
    """Two rows of three panels that share titles and axes, with a reference line, a colour bar and a long note."""
    figure = make_subplots(
        2, 3, shared_xaxes=True, shared_yaxes=True, subplot_titles=list("abcdef"), x_title=None, vertical_spacing=0.2
    )
    for row, column in ((r, c) for r in (1, 2) for c in (1, 2, 3)):
        marker = {"color": [1, 2, 3], "colorbar": {"title": {"text": "depth"}}, "showscale": (row, column) == (1, 1)}
        figure.add_scatter(
            y=[row, column, 2], mode="lines+markers", marker=marker, showlegend=False, row=row, col=column
        )
    figure.update_yaxes(title_text="a height", col=1)
    figure.update_xaxes(title_text="a width", row=2)
    words = "a note under all panels that is much too long for one line of a phone, and goes on"
    figure.add_annotation(
        text=words, xref="paper", yref="paper", x=0.5, y=0, yanchor="top", yshift=-44, showarrow=False
    )
    return figure.update_layout(height=500, margin={"t": 40, "b": 90})


def scenes():
    """Two scenes beside each other."""
    figure = make_subplots(1, 2, specs=[[{"type": "scene"}] * 2], subplot_titles=["one", "two"])
    for column in (1, 2):
        figure.add_scatter3d(x=[0, 1], y=[0, 1], z=[0, column], showlegend=False, row=1, col=column)
    return figure.update_layout(height=400)


@pytest.mark.parametrize("make", [grid, scenes])
def test_panels_are_stacked_on_a_phone_and_part_again(visit, make):
    page, figure = opened(visit, make(), 390)
    assert not page.evaluate(SIDE_BY_SIDE)
    assert not page.evaluate(COLLISIONS)
    assert fits(page)
    high = figure.bounding_box()["height"]
    page.set_viewport_size({"width": 1280, "height": 1000})
    assert wait_until(page, lambda: page.evaluate(SIDE_BY_SIDE), 5000)
    assert figure.bounding_box()["height"] < high
    page.set_viewport_size({"width": 390, "height": 1000})
    assert wait_until(page, lambda: not page.evaluate(SIDE_BY_SIDE), 5000)


def test_each_stacked_panel_has_its_own_titles_and_ticks(visit):
    _, figure = opened(visit, grid(), 390)
    axes = figure.evaluate("""gd => Object.values(gd._fullLayout._plots).flatMap(({xaxis: x, yaxis: y}) =>
        [[x.title.text, x.showticklabels], [y.title.text, y.showticklabels]])""")
    assert axes == [["a width", True], ["a height", True]] * 6
    tops = figure.evaluate("""gd => Object.values(gd._fullLayout._plots).map(p => p.yaxis._offset)""")
    titles = [figure.locator(".annotation-text", has_text=letter).first.bounding_box()["y"] for letter in "abcdef"]
    top = figure.bounding_box()["y"]
    assert all(0 < panel - (title - top) < 40 for panel, title in zip(tops, titles, strict=True)), (tops, titles)


def test_rows_with_names_keep_their_height_on_a_phone(visit):
    figure = condition_dots({f"condition {n}": [n, n + 1] for n in range(19)}, x_label="alignment", height=700)
    _, target = opened(visit, figure, width=390)
    apart = target.evaluate("gd => gd._fullLayout.yaxis.d2p(0) - gd._fullLayout.yaxis.d2p(1)")
    assert abs(apart) > 25, "a figure about as wide as high was taken for a square"


COLOURS = """gd => {
    const fill = name => getComputedStyle(gd.querySelector(name)).fill;
    const line = gd.querySelectorAll('.scatterlayer .js-line');
    return {ground: getComputedStyle(document.body).backgroundColor, paper: gd._fullLayout.paper_bgcolor,
        plot: gd._fullLayout.plot_bgcolor, words: fill('.xtick text'), title: fill('[class*=xtitle]'),
        lines: [...line].map(e => getComputedStyle(e).stroke),
        grid: getComputedStyle(gd.querySelector('.xgrid')).stroke};
}"""


def test_a_figure_follows_the_theme(visit):
    figure = go.Figure(layout={"xaxis": {"title": {"text": "width"}, "gridcolor": "#e4e4e4"}, "font": {"color": INK}})
    for colour in (INK, "#bd1f01"):
        figure.add_scatter(y=[1, 2, 3], line={"color": colour})
    note = {"text": "x", "font": {"color": INK}}
    figure.update_layout(paper_bgcolor="#ffffff", plot_bgcolor="#ffffff", annotations=[note])
    page, target = opened(visit, figure)
    light = target.evaluate(COLOURS)
    assert [light["paper"], light["words"]] == ["#ffffff", "rgb(34, 34, 34)"]
    assert light["lines"] == ["rgb(34, 34, 34)", "rgb(189, 31, 1)"]
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_function("() => document.querySelector('.book-plotly-target').dataset.ready")
    assert wait_until(page, lambda: target.evaluate(COLOURS) != light, 5000)
    dark = target.evaluate(COLOURS)
    assert dark["paper"] == dark["plot"] == "rgba(0,0,0,0)"
    ink, hue = dark["lines"]
    assert hue == "rgb(189, 31, 1)", "a colour that means something changed"
    assert sum(map(int, ink[4:-1].split(","))) > 550, "ink is still dark"
    assert sum(map(int, dark["grid"][4:-1].split(","))) < 300, "the grid shouts"
    assert not page.evaluate(PALE)
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    assert wait_until(page, lambda: target.evaluate(COLOURS) == light, 5000), "the light figure did not come back"


@pytest.mark.parametrize(("ground", "shown"), [("#bdbdbd", "#bdbdbd"), ("#ffffff", "rgba(0,0,0,0)")])
def test_a_heat_map_keeps_the_grey_of_what_has_no_value_in_the_dark(visit, ground, shown):
    figure = go.Figure(go.Heatmap(z=[[1.0, None], [None, 0.5]]), layout={"plot_bgcolor": ground})
    _, target = opened(visit, figure, theme="dark")
    assert target.evaluate("gd => gd._fullLayout.plot_bgcolor") == shown


def test_a_frame_stays_when_the_theme_is_switched(visit):
    page, figure = opened(visit, film())
    controls(figure, "input").focus()
    assert press(page, figure, "End")
    state = figure.evaluate(STATE)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_function("() => document.querySelector('.book-plotly-target').dataset.ready")
    assert wait_until(page, lambda: figure.evaluate("gd => gd._fullData[0].y[1]") == 2, 5000), state
