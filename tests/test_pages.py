"""The HTML page of a pipeline, in a real browser."""

import shutil

import pytest
import sample

from hypernodes import Pipeline, RunReport, node

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; on Debian: apt install chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def messages():
    """What the pages log and fetch."""
    return []


@pytest.fixture(scope="module")
def page(messages):
    """The page of a browser, which all tests share: each process of a browser takes a second to start."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 800})
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on(
            "request",
            lambda request: messages.append(request.url) if request.url.startswith("http") else None,
        )
        yield page
        browser.close()


@pytest.fixture
def opened(page, messages, tmp_path):
    """Open a file, or the page of a pipeline, and check that it logs nothing and fetches nothing."""

    def open_page(shown, **options):
        file = tmp_path / "page.html" if isinstance(shown, Pipeline) else shown
        if isinstance(shown, Pipeline):
            shown.visualize(file, **options)
        page.goto(file.as_uri())
        return page

    yield open_page
    found, messages[:] = [*messages], []
    assert found == []


@node(output_name="low")
def lower(x: int, by: int = 1) -> int:
    """Go down <b>a bit</b> & stop."""
    return x - by


words = sample.nested_map
deep = Pipeline(
    [
        Pipeline([lower, sample.diamond.as_node({"low": "x"}, name="</script><b>")], name="middle"),
        sample.longest,
    ],
    name='deep "one" <i>',
)


def names(page):
    return page.locator("#picture .name").all_text_contents()


def test_pipelines_open_and_close_by_click_and_by_key(opened):
    page = opened(deep)
    assert page.title() == 'deep "one" <i>'
    assert names(page) == ["middle", "longest"]
    page.locator('[data-id="0"]').click()
    assert sorted(names(page)) == sorted(["middle", "lower", "</script><b>", "longest"])
    page.locator('[data-id="0.1"]').click()
    assert {"half", "square", "add"} <= set(names(page))
    page.locator('[data-id="0.1"]').press("Enter")
    assert "half" not in names(page)
    page.get_by_text("close all").click()
    assert names(page) == ["middle", "longest"]
    page.get_by_text("open all").click()
    assert "half" in names(page)


@pytest.mark.parametrize("orient", ["TB", "LR", "BT", "RL"])
def test_nothing_is_cut_off_and_nothing_overlaps(opened, orient):
    page = opened(words, depth=None, orient=orient)
    frame = page.locator("#picture").bounding_box()
    boxes = [box.bounding_box() for box in page.locator(".node > rect, .input > rect").all()]
    assert len(boxes) == 5
    for number, box in enumerate(boxes):
        assert box["x"] >= frame["x"]
        assert box["x"] + box["width"] <= frame["x"] + frame["width"]
        assert box["y"] >= frame["y"]
        assert box["y"] + box["height"] <= frame["y"] + frame["height"]
        for other in boxes[:number]:
            assert (
                box["x"] + box["width"] <= other["x"]
                or other["x"] + other["width"] <= box["x"]
                or box["y"] + box["height"] <= other["y"]
                or other["y"] + other["height"] <= box["y"]
            )
    for box in page.locator(".node, .input").all():
        outer = box.locator("rect").first.bounding_box()
        for text in box.locator("text").all():
            inner = text.bounding_box()
            assert outer["x"] <= inner["x"]
            assert inner["x"] + inner["width"] <= outer["x"] + outer["width"]


def test_hovering_shows_the_signature_and_the_docstring(opened):
    page = opened(deep, depth=2)
    page.locator(".node", has_text="lower").hover()
    assert page.locator("#tip").inner_text().splitlines() == [
        "lower(x: int, by: int = 1) -> int",
        "Go down <b>a bit</b> & stop.",
    ]
    assert page.locator(".arrow.lit").count() == 2


def test_it_zooms_pans_and_changes_its_colours(opened):
    page = opened(words)
    before = page.locator("#picture").get_attribute("viewBox")
    page.mouse.move(500, 400)
    page.mouse.wheel(0, -300)
    page.wait_for_function(
        "before => document.getElementById('picture').getAttribute('viewBox') !== before", arg=before
    )
    zoomed = page.locator("#picture").get_attribute("viewBox")
    page.mouse.move(60, 700)
    page.mouse.down()
    page.mouse.move(200, 600, steps=4)
    page.mouse.up()
    assert page.locator("#picture").get_attribute("viewBox") != zoomed
    page.get_by_text("fit").click()
    assert page.locator("#picture").get_attribute("viewBox") == before
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.get_by_text("light / dark").click()
    assert page.evaluate(colour) != light


@pytest.mark.timeout(60)
def test_many_nodes_are_still_drawn(opened):
    chain = [node(eval(f"lambda v{n}: v{n}"), output_name=f"v{n + 1}") for n in range(500)]
    page = opened(Pipeline(chain, name="big"))
    assert page.locator(".node").count() == 500


def test_waterfalls_and_reports_are_pages_that_need_nothing_else(opened, tmp_path):
    pipeline = words.with_callbacks([RunReport()])
    pipeline.map({"text": ["a bcd", "<i>e</i>"], "unit": 1}, "text")
    report = pipeline.last_run
    page = opened(report.waterfall("worker").save(tmp_path / "run.html"))
    page.wait_for_selector(".bars .point path")
    assert page.locator(".bars .point path").count() == 7
    assert "split" in page.locator(".legend").text_content()
    page = opened(report.save(tmp_path / "report.html"))
    page.wait_for_selector(".bars .point path")
    assert page.locator(".js-plotly-plot").count() == 2
    assert "word" in page.locator("table").first.inner_text()
