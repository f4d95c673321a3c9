"""index.html in a real Chromium: it opens quietly, asks for nothing, and can be used by keyboard and on a phone."""

import json
import shutil
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.report import page as fake

selenium = pytest.importorskip("selenium", reason="selenium is not installed")

from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on the path (Debian: chromium, chromium-driver)"
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The addresses of a page with ordinary names and of one with hostile ones."""
    return [fake.write(tmp_path_factory.mktemp("page"), names).as_uri() for names in (None, fake.HOSTILE)]


@pytest.fixture(scope="module")
def chromium():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(300)
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium, pages):
    """At the ordinary page, on a desktop in light, with nothing remembered."""
    screen(chromium)
    media(chromium)
    chromium.get(pages[0])
    chromium.execute_script("localStorage.clear()")
    chromium.get(pages[0])
    return chromium


def screen(driver, width=1280, height=900):
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def media(driver, **features):
    values = {"prefers-color-scheme": "light", "prefers-reduced-motion": "no-preference"}
    values |= {name.replace("_", "-"): value for name, value in features.items()}
    listed = [{"name": name, "value": value} for name, value in values.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": listed})


def find(driver, selector):
    return driver.find_element(By.CSS_SELECTOR, selector)


def focus(driver, selector):
    driver.execute_script("document.querySelector(arguments[0]).focus()", selector)


def press(driver, *keys):
    ActionChains(driver).send_keys(*keys).perform()


def focused(driver):
    return driver.switch_to.active_element


def eventually(condition, seconds=20):
    """The condition's value as soon as it is true: the browser answers in its own time."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.02)
    return value


@pytest.mark.parametrize("which", [0, 1])
def test_opens_quietly_and_asks_for_nothing(chromium, pages, which):
    screen(chromium)
    chromium.get_log("browser"), chromium.get_log("performance")
    chromium.get(pages[which])
    find(chromium, "#curves canvas")
    for button in chromium.find_elements(By.CSS_SELECTOR, "thead button, .zoom, #theme, [data-show], summary"):
        chromium.execute_script("arguments[0].click()", button)
        chromium.execute_script("document.querySelector('dialog').close()")
    assert chromium.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith("data:")} == {pages[which]}
    assert chromium.execute_script("return window.pwned") is None


def test_hostile_names_are_shown_as_they_are(chromium, pages):
    chromium.get(pages[1])
    names = chromium.execute_script("return [...document.querySelectorAll('.chip .name')].map(e => e.textContent)")
    assert set(fake.HOSTILE.values()) - {fake.HOSTILE["drusen"]} <= set(names)
    assert chromium.execute_script("return window.pwned") is None


def test_the_policy_stops_what_is_not_ours(browser):
    rules = browser.execute_async_script("""
        const done = arguments[0], found = [];
        document.addEventListener("securitypolicyviolation", event => {
            found.push(event.effectiveDirective);
            if (found.length === 3) done(found.sort());
        });
        const add = (tag, values) => document.body.append(Object.assign(document.createElement(tag), values));
        add("img", {src: "http://127.0.0.1:9/x.png"});
        add("script", {textContent: "window.pwned = 1"});
        add("div", {innerHTML: "<p style='color: red'>x</p>"});
    """)
    assert rules == ["img-src", "script-src-elem", "style-src-attr"]
    assert browser.execute_script("return window.pwned") is None


def column(driver, table, place):
    """Numbers of a column as they stand; None where a value is missing."""
    return driver.execute_script(
        "return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)].map(r => r.cells[arguments[1]])"
        ".map(c => c.classList.contains('missing') ? null : c.dataset.sort ? Number(c.dataset.sort) : c.textContent)",
        table,
        place,
    )


def reveal(driver, selector):
    """Open what is folded around an element."""
    driver.execute_script(
        "let e = document.querySelector(arguments[0]).closest('details');"
        "for (; e; e = e.parentElement.closest('details')) e.open = true",
        selector,
    )


@pytest.mark.parametrize(("table", "place"), [("table-methods", 3), ("table-records", 3), ("table-forest", 4)])
def test_columns_sort_by_number_or_verdict_and_missing_ones_come_last(browser, table, place):
    reveal(browser, f"#{table}")
    original = column(browser, table, place)
    numbers = [v for v in original if v is not None]
    missing = [None] * (len(original) - len(numbers))
    assert len(set(numbers)) > 1 and bool(missing) == (table == "table-records")
    head = f"#{table} thead th:nth-child({place + 1})"
    focus(browser, f"{head} button")
    for state, expected in (
        ("descending", sorted(numbers, reverse=True) + missing),
        ("ascending", sorted(numbers) + missing),
        (None, original),
    ):
        press(browser, Keys.ENTER)
        assert column(browser, table, place) == expected
        assert find(browser, head).get_attribute("aria-sort") == state
        assert (state or "order") in find(browser, "#said").get_attribute("textContent")
    press(browser, Keys.SPACE)
    other = f"#{table} thead th:nth-child(1)"
    focus(browser, f"{other} button")
    press(browser, Keys.SPACE)
    assert find(browser, head).get_attribute("aria-sort") is None
    assert find(browser, other).get_attribute("aria-sort") == "ascending"
    words = column(browser, table, 0)
    assert words == sorted(words)


def rows_shown(driver, table):
    return driver.execute_script(
        "return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)].filter(r => !r.hidden).length", table
    )


def test_methods_are_filtered_by_family_and_backbone_in_every_table(browser):
    every = rows_shown(browser, "table-methods")
    focus(browser, "[data-filter=family]")
    press(browser, "colora")
    eventually(lambda: rows_shown(browser, "table-methods") == 2)
    assert rows_shown(browser, "table-forest") == 0
    assert f"2 of {every} methods" in find(browser, "#filtered").text
    focus(browser, "[data-filter=backbone]")
    press(browser, "medmamba")
    eventually(lambda: rows_shown(browser, "table-methods") == 0)
    focus(browser, "[data-filter=family]")
    press(browser, "all")
    eventually(lambda: rows_shown(browser, "table-methods") == 1)
    focus(browser, "[data-filter=backbone]")
    press(browser, "all")
    eventually(lambda: rows_shown(browser, "table-methods") == every)


@pytest.mark.parametrize("width", [1280, 390])
def test_a_link_opens_what_is_folded_and_its_target_is_not_hidden(browser, width):
    screen(browser, width, 800)
    media(browser, prefers_reduced_motion="reduce")
    link = find(browser, "#table-methods tbody tr:nth-last-child(2) a")
    target = link.get_attribute("hash")
    browser.execute_script("arguments[0].click()", link)
    eventually(lambda: find(browser, target).is_displayed())
    free = (
        "const r = document.querySelector(arguments[0]).cells[1].getBoundingClientRect();"
        "const e = document.elementFromPoint(r.left + 5, r.top + r.height / 2);"
        "return e !== null && e.closest('tr')?.id === arguments[0].slice(1)"
    )
    eventually(lambda: browser.execute_script(free, target))


def test_the_contents_scroll_where_they_are_longer_than_the_screen(browser):
    screen(browser, 1280, 300)
    box = "const e = document.querySelector('nav.contents');"
    assert browser.execute_script(f"{box} return e.scrollHeight > e.clientHeight && e.clientHeight <= 300")
    assert browser.execute_script(f"{box} e.scrollTop = 1000; return e.scrollTop") > 0


def test_the_first_screen_holds_answer_verdicts_and_what_was_not_run(browser):
    screen(browser, 1280, 800)
    bottom = "return document.querySelector('#answer .warning').getBoundingClientRect().bottom"
    assert browser.execute_script(bottom) <= 800
    screens = browser.execute_script("return document.documentElement.scrollHeight") / 800
    assert screens <= 14


def test_a_phone_shows_the_verdicts_and_legible_figures(browser, pages):
    screen(browser, 390, 800)
    browser.get(pages[0])
    right = "return document.querySelector('#table-forest .verdict').getBoundingClientRect().right"
    assert browser.execute_script(right) <= 390
    assert browser.execute_script("return document.querySelector('figure img').getBoundingClientRect().width") >= 500


def test_paper_loses_no_column(browser):
    media(browser)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    screen(browser, 680, 1000)  # an A4 page's width between its margins
    browser.execute_script("document.querySelectorAll('details:not(.licence)').forEach(d => d.open = true)")
    wide = browser.execute_script(
        "return [...document.querySelectorAll('table')].filter(t => t.getBoundingClientRect().right > innerWidth + 1"
        " || [...t.rows[0].cells].some(c => getComputedStyle(c).display === 'none')).map(t => t.id)"
    )
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert wide == []


def test_figures_keep_their_order_of_lightness_in_the_dark(browser):
    media(browser, prefers_color_scheme="dark")
    style = "const s = getComputedStyle(document.querySelector('figure img'));"
    style += "return [s.filter, s.mixBlendMode, s.backgroundColor]"
    assert browser.execute_script(style) == ["none", "normal", "rgb(255, 255, 255)"]


def test_a_figure_opens_and_closes_by_keyboard(browser):
    assert not find(browser, "dialog").is_displayed()
    for close in (Keys.ESCAPE, Keys.ENTER):
        reveal(browser, "main button.zoom")
        focus(browser, "main button.zoom")
        press(browser, Keys.ENTER)
        dialog = find(browser, "dialog[open]")
        image = find(browser, "dialog img")
        assert image.get_attribute("src") == find(browser, "main figure img").get_attribute("src")
        assert eventually(lambda image=image: image.get_property("naturalWidth")) and image.get_attribute("alt")
        assert dialog.accessible_name == find(browser, "main button.zoom").get_attribute("data-title")
        assert focused(browser).text == "Close"
        press(browser, close)
        assert not dialog.is_displayed()
        assert focused(browser) == find(browser, "main button.zoom")


def background(driver):
    return driver.execute_script("return getComputedStyle(document.body).backgroundColor")


def test_theme_follows_the_system_until_told_and_is_remembered(browser):
    light = background(browser)
    media(browser, prefers_color_scheme="dark")
    dark = background(browser)
    assert dark != light
    button = find(browser, "#theme")
    eventually(lambda: button.get_attribute("aria-pressed") == "true")
    button.click()
    assert background(browser) == light and button.get_attribute("aria-pressed") == "false"
    browser.refresh()  # in the same process, which has what it stored; a new one may not have it yet
    assert background(browser) == light
    find(browser, "#theme").click()
    assert background(browser) == dark
    media(browser)
    browser.refresh()
    assert background(browser) == dark


@pytest.mark.parametrize("width", [375, 320])
def test_a_phone_never_scrolls_sideways(browser, pages, width):
    screen(browser, width, 700)
    browser.get(pages[0])
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    eventually(lambda: browser.execute_script("return document.querySelector('#curves canvas').clientWidth") <= width)
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    browser.execute_script("scrollTo(500, 0)")
    assert browser.execute_script("return scrollX") == 0
    # Wide tables scroll in their own box.
    box = "document.querySelector('#table-claims').parentElement"
    assert browser.execute_script(f"return {box}.scrollWidth > {box}.clientWidth + 100")
    assert browser.execute_script(f"{box}.scrollLeft = 100; return {box}.scrollLeft") == 100


def test_keyboard_starts_at_the_skip_link(browser):
    press(browser, Keys.TAB)
    link = focused(browser)
    assert link.text == "Skip to the results"
    outline = "return getComputedStyle(arguments[0]).outlineStyle + getComputedStyle(arguments[0]).outlineWidth"
    assert browser.execute_script(outline, link) == "solid3px"
    press(browser, Keys.ENTER)
    assert focused(browser).get_attribute("id") == "main"


def shown(driver):
    """What the chart's canvas holds, and the values beside the names by method number."""
    picture = driver.execute_script("return document.querySelector('#curves canvas').toDataURL()")
    values = driver.execute_script(
        "return Object.fromEntries([...document.querySelectorAll('.chip')].filter(c => c.querySelector('.value'))"
        ".map(c => [c.querySelector('input').value, c.querySelector('.value').textContent]))"
    )
    return picture, values


def expected(data, metric, place):
    lines = {str(method["number"]): method["lines"] for method in data["methods"] if method["lines"]}
    return {number: f"{line[metric][0][place]:.3f}" for number, line in lines.items()}


def test_learning_curves_are_read_by_slider_mouse_and_choice(browser):
    data = json.loads(find(browser, "#curve-data").get_attribute("textContent"))
    last = len(data["epochs"]) - 1
    assert len(expected(data, "val_acc", last)) == len(fake.METHODS) - 1
    first_picture, values = shown(browser)
    assert values == pytest.approx(expected(data, "val_acc", last))

    focus(browser, "#epoch")
    press(browser, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert shown(browser)[1] == expected(data, "val_acc", last - 2)
    slider = find(browser, "#epoch")
    full = expected(data, "val_acc", last - 2)["0"]
    assert slider.get_attribute("aria-valuetext").startswith(f"epoch {last - 1}: full {full}")

    chart = find(browser, ".u-over")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", chart)
    ActionChains(browser).move_to_element_with_offset(chart, -chart.size["width"] // 2 + 2, 0).perform()
    eventually(lambda: shown(browser)[1] == expected(data, "val_acc", 0))

    find(browser, ".chip input").click()
    eventually(lambda: shown(browser)[0] != first_picture)
    find(browser, ".chip input").click()
    eventually(lambda: shown(browser)[0] == first_picture)
    find(browser, "#band").click()
    eventually(lambda: shown(browser)[0] != first_picture)

    for option, checked in (
        ("all", len(fake.METHODS) - 1),
        ("none", 0),
        ("first", sum(a["first"] for a in data["methods"])),
    ):
        find(browser, f"[data-show={option}]").click()
        assert len(browser.find_elements(By.CSS_SELECTOR, ".chip input:checked")) == checked
    focus(browser, "#metric")
    press(browser, "Training loss")
    place = int(slider.get_attribute("value"))
    eventually(lambda: shown(browser)[1] == expected(data, "train_loss", place))


def test_reduced_motion_is_respected(browser):
    smooth = "return getComputedStyle(document.documentElement).scrollBehavior"
    assert browser.execute_script(smooth) == "smooth"
    media(browser, prefers_reduced_motion="reduce")
    assert browser.execute_script(smooth) == "auto"


@pytest.mark.skipif(find_spec("axe_core_python") is None, reason="axe-core-python is not installed")
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 375)])
def test_axe_finds_nothing(browser, pages, scheme, width):
    """Deque's accessibility checker: WCAG 2.1 A and AA, and its best practices."""
    script = Path(find_spec("axe_core_python").origin).with_name("axe.min.js").read_text(encoding="utf-8")
    media(browser, prefers_color_scheme=scheme)
    screen(browser, width)
    browser.get(pages[0])
    browser.execute_script(script)
    found = browser.execute_async_script(
        "const done = arguments[0];"
        "axe.run({resultTypes: ['violations']}).then(done, error => done({failed: `${error}`}))"
    )
    assert "failed" not in found and len(found["passes"]) > 20
    assert [(v["id"], [node["html"] for node in v["nodes"]]) for v in found["violations"]] == []
