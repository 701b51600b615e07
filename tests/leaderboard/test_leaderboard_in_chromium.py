"""The page in a headless Chromium, used with mouse and keyboard, in light and dark, on a desktop and on a phone."""

import shutil

import pytest
from PIL import Image

from leaderboard.page import write_page
from leaderboard.results import results

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Chromium and its driver: apt-get install chromium chromium-driver"
)


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, tmp_path, row):
    """The page of three attacks, a defense, a control and a torn file, open in the browser; no error may be left."""
    folder = tmp_path / "run"
    for name in ("curves", "reconstructions", "truth"):
        (folder / name).mkdir(parents=True)
    scores = {"gias": 22, "ig": 9.5, "ggl": 15}
    axis = {"none": {}, "sparsification:0.9": {"share of the update that is not sent": 0.9}}
    rows = [
        row(attack=attack, defense=defense, axis=axis[defense], task=task, psnr=psnr + extra - 3 * bool(axis[defense]))
        for attack, psnr in scores.items()
        for defense in axis
        for task, extra in (("t0", 0), ("t1", 1))
    ]
    rows += [row(control="mean_image", psnr=11), row(attack="old", protocol=0)]
    for task in ("t0", "t1"):
        (folder / "curves" / f"{task}.csv").write_text("step,stage,cost\n0,x,1.5\n1,x,0.5\n2,x,0.1\n")
        Image.new("RGB", (32, 32), "teal").save(folder / "reconstructions" / f"{task}--a.png")
    Image.new("RGB", (32, 32), "navy").save(folder / "truth" / "a.png")
    found = results(rows, [folder] * len(rows)) | {"warnings": ["x/rows.jsonl:3 is not a whole row"]}
    browser.get(f"file://{write_page(found, tmp_path)}")
    yield browser
    assert browser.get_log("browser") == []


def emulate(browser, width=1280, scheme="light"):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def all_of(browser, selector):
    return browser.find_elements(By.CSS_SELECTOR, selector)


def attacks(browser):
    return [button.text for button in all_of(browser, "#board tbody tr[data-id] th button")]


def head(browser, title):
    return next(th for th in all_of(browser, "#board thead th") if th.text.startswith(title))


def test_sorting(page):
    psnr = head(page, "PSNR")
    assert psnr.get_attribute("aria-sort") == "none"
    psnr.find_element(By.TAG_NAME, "button").click()
    assert psnr.get_attribute("aria-sort") == "descending"
    # 22.5, 20, 19.5, 15.5, 12.5, 11, 10, 7
    best_first = ["gias", "old", "gias", "ggl", "ggl", "mean image (control)", "ig", "ig"]
    assert attacks(page) == best_first
    psnr.find_element(By.TAG_NAME, "button").click()
    assert psnr.get_attribute("aria-sort") == "ascending"
    assert attacks(page) == best_first[::-1]
    head(page, "Attack").find_element(By.TAG_NAME, "button").click()
    assert psnr.get_attribute("aria-sort") == "none"
    assert attacks(page) == sorted(best_first)


def test_filtering_by_text_and_by_select(page):
    search = page.find_element(By.ID, "search")
    search.send_keys("GIAS sparsif")
    assert attacks(page) == ["gias"]
    assert page.find_element(By.ID, "count").text == "1 of 8 entries"
    search.clear()
    search.send_keys(" ")
    assert len(attacks(page)) == 8
    for title, value, left in (("Defense", "none", 5), ("Kind", "attacks", 4), ("Protocol", "present", 3)):
        label = next(label for label in all_of(page, "#filters label") if label.text.startswith(title))
        Select(label.find_element(By.TAG_NAME, "select")).select_by_visible_text(value)
        assert len(attacks(page)) == left
    assert set(attacks(page)) == {"gias", "ig", "ggl"}


def test_the_first_images_stand_beside_each_entry_before_anything_is_opened(page):
    for width in (1280, 390):
        emulate(page, width)
        entries = all_of(page, "#board tbody tr[data-id]")
        assert len(entries) == 8
        for row in entries:
            (image,) = row.find_elements(By.CSS_SELECTOR, "img.sheet")
            assert image.is_displayed()
            assert image.get_property("naturalHeight") == 64  # 32 px, truth and reconstruction
            assert image.size["height"] == 72
            assert image.location["x"] < width / 2
    assert not all_of(page, "dialog[open]")
    all_of(page, "#board img.sheet")[0].click()
    assert all_of(page, "dialog[open] .pictures")


def test_a_number_opens_its_entry(page):
    page.find_element(By.CSS_SELECTOR, "tr[data-id] td button").click()
    dialog = page.find_element(By.ID, "entry")
    assert dialog.get_attribute("open") is not None
    assert dialog.find_element(By.TAG_NAME, "code").text.startswith("python -m benchmark run --method=gias")
    drawn = WebDriverWait(page, 10).until(lambda _: dialog.find_elements(By.CSS_SELECTOR, "svg[role=img]"))
    (curve,) = drawn  # when the browser has told the size of its place
    assert "attacker's cost" in curve.text
    pictures = dialog.find_elements(By.CSS_SELECTOR, ".pictures img")
    assert len(pictures) == 2 * 4  # truth, reconstruction, and both in the difference
    assert all(page.execute_script("return arguments[0].naturalWidth", picture) == 32 for picture in pictures)
    assert "batch size" in dialog.text
    assert "labels given" in dialog.text


def test_what_a_mean_hides_stands_beside_the_psnr_and_why_there_is_no_place(page):
    heads = [th.text.split("\n")[0].rstrip(" ↕") for th in all_of(page, "#board thead th")]
    assert heads[3:7] == ["PSNR (dB)", "Best in batch (dB)", "Worst in batch (dB)", "Recognized"]
    assert "Knows" not in heads  # two batches, of one image
    notes = page.find_element(By.ID, "notes").text
    assert notes.startswith("Recognized: share of images with a PSNR of at least 20 dB")
    first = page.find_element(By.CSS_SELECTOR, "tr[data-id]").text
    assert "2 batches share images, count as 1 (5 needed): fewer TASKS or more images" in first


def test_a_link_to_an_entry_opens_it(page):
    entry = all_of(page, "tr[data-id]")[1].get_attribute("data-id")
    page.get(page.current_url.split("#")[0] + f"#{entry}")
    page.refresh()
    assert page.find_element(By.ID, "entry").get_attribute("open") is not None


def test_by_keyboard_alone(page):
    def focused():
        return page.switch_to.active_element

    def press(*keys):
        webdriver.ActionChains(page).send_keys(*keys).perform()

    for _ in range(40):
        press(Keys.TAB)
        if focused().text.startswith("PSNR"):
            break
    outline = page.execute_script("return getComputedStyle(arguments[0]).outlineStyle", focused())
    assert outline == "solid"  # a visible focus
    press(Keys.ENTER)
    assert head(page, "PSNR").get_attribute("aria-sort") == "descending"
    for _ in range(20):
        press(Keys.TAB)
        if focused().text == "gias":
            break
    press(Keys.SPACE)
    dialog = page.find_element(By.ID, "entry")
    assert dialog.get_attribute("open") is not None
    assert page.execute_script("return arguments[0].contains(document.activeElement)", dialog)
    press(Keys.ESCAPE)
    assert dialog.get_attribute("open") is None
    assert focused().text == "gias"  # back where it was


def test_charts_have_axes_units_and_a_legend(page):
    shown = {figure.text.split("\n")[0]: figure for figure in all_of(page, "#charts figure")}
    assert set(shown) == {"Cost against time", "Quality against budget", "PSNR by share of the update that is not sent"}
    time = shown["Cost against time"].find_element(By.CSS_SELECTOR, "svg[role=img]")
    assert "time (s)" in time.text
    assert {li.text for li in shown["Cost against time"].find_elements(By.TAG_NAME, "li")} == {"gias", "ig", "ggl"}
    assert len(all_of(page, "table.heat tbody tr")) == 4
    assert [td.text.split("\n")[0] for td in all_of(page, "table.heat td.best")] == ["22.50", "19.50"]


def test_torn_files_are_reported(page):
    page.find_element(By.CSS_SELECTOR, "#warnings summary").click()
    assert "x/rows.jsonl:3 is not a whole row" in page.find_element(By.ID, "warnings").text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_readable_in_light_and_dark_and_no_wider_than_the_screen(page, width, scheme):
    emulate(page, width, scheme)
    wide = page.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width
    page.find_element(By.CSS_SELECTOR, "tr[data-id] th button").click()
    dialog = page.find_element(By.ID, "entry")
    assert page.execute_script("return arguments[0].scrollWidth <= arguments[0].clientWidth", dialog)
    for selector in ("dialog h2", "dialog dt", "#count", ".note", "thead button", ".interval", ".mark"):
        style = "const s = getComputedStyle(document.querySelector(arguments[0])); return [s.color, s.backgroundColor]"
        ink = page.execute_script(style, selector)[0]
        paper = page.execute_script(style, "body")[1]
        assert contrast(ink, paper) >= 3.5, selector
    emulate(page)


def contrast(ink, paper):
    """WCAG 2's ratio of two CSS colors."""

    def luminance(color):
        parts = [int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(ink), luminance(paper)))
    return (high + 0.05) / (low + 0.05)
