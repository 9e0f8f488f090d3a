"""Checks a page in a real, headless Chromium: browser.py CHECK URL [ARGUMENT …].

Prints its observations as JSON. What holds for every page is checked here: no overflow on a narrow screen, no requests
to other hosts, and accessibility in the light and the dark scheme.
"""

import base64
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from axe_core_python.selenium import Axe
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

TIMEOUT = 60


@contextmanager
def opened(url: str) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1000,1200"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService("/usr/bin/chromedriver")
    page = webdriver.Chrome(options=options, service=service)
    try:
        page.get(url)
        yield page
    finally:
        page.quit()


def show_in(page: webdriver.Chrome, scheme: str, width: int | None = None) -> None:
    feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
    if width is not None:
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def check_page(page: webdriver.Chrome) -> None:
    complaints = [it["message"] for it in page.get_log("browser") if it["level"] == "SEVERE"]
    assert not complaints, complaints
    hosts = page.execute_script(
        "return [...new Set(performance.getEntriesByType('resource').map(it => new URL(it.name).host))]"
        ".filter(it => it !== location.host)"
    )
    assert not hosts, f"from other hosts: {hosts}"
    for scheme in ("light", "dark"):
        show_in(page, scheme)
        found = Axe().run(page)["violations"]
        violations = [(it["id"], it["nodes"][0]["html"], it["nodes"][0].get("failureSummary")) for it in found]
        assert not violations, f"in the {scheme} scheme: {violations}"
    show_in(page, "light", 360)
    width = page.execute_script("return document.documentElement.scrollWidth")
    assert width <= 360, f"{width} wide on a screen of 360"
    # The whole list, without horizontal scrolling.
    hidden = page.execute_script(
        "return [...document.querySelectorAll('.jobs td')]"
        ".filter(it => it.textContent && (!it.checkVisibility() || it.getBoundingClientRect().right > 360))"
        ".map(it => it.textContent)"
    )
    assert not hidden, f"not visible on a screen of 360: {hidden}"
    # Nothing touches the edge of the screen, or of the card that it is in.
    outside = page.execute_script(
        "return [...document.querySelectorAll('main *')]"
        ".filter(it => !it.closest('.scrolls, svg, .for-listeners, .jobs thead') && it.checkVisibility())"
        ".filter(it => { const box = it.parentElement.closest('.statement, main'), style = getComputedStyle(box);"
        " const edge = box.getBoundingClientRect().right - parseFloat(style.paddingRight);"
        " return it.getBoundingClientRect().right > edge + 1; })"
        ".map(it => it.outerHTML.slice(0, 120))"
    )
    assert not outside, f"beyond the edge on a screen of 360: {outside}"
    # Cut content shows a scrollbar that takes space, also where browsers have overlay scrollbars.
    cut = page.execute_script(
        "return [...document.querySelectorAll('.scrolls')].filter(it => it.scrollWidth > it.clientWidth)"
        ".map(it => [it.id, it.offsetHeight - it.clientHeight, getComputedStyle(it).backgroundAttachment])"
    )
    assert all(bar > 0 and "local" in attached for _, bar, attached in cut), f"cut without a sign: {cut}"
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def reached_by_keyboard(page: webdriver.Chrome, element_id: str) -> bool:
    page.find_element(By.TAG_NAME, "body").send_keys(Keys.HOME)
    for _ in range(40):
        page.switch_to.active_element.send_keys(Keys.TAB)
        if page.execute_script("return document.activeElement.id") == element_id:
            return True
    return False


def live(url: str, screenshot: str) -> dict[str, object]:
    """A job that prints `at SECONDS` lines: the delay of each on the page, and the page meanwhile."""
    with opened(url) as page:
        # Measured by the page's clock, which is this machine's.
        page.execute_script(
            """window.late = {};
            new MutationObserver(() => {
              for (const piece of document.querySelectorAll("#log .out"))
                for (const found of piece.textContent.matchAll(/^at ([0-9.]+)$/gm))
                  window.late[found[1]] ??= Date.now() / 1000 - Number(found[1]);
              window.bar = document.querySelector("progress")?.parentElement.textContent ?? window.bar;
            }).observe(document.body, { childList: true, subtree: true, characterData: true });"""
        )
        since = time.time()
        running = page.find_element(By.CSS_SELECTOR, ".badge").text
        check_page(page)
        page.save_screenshot(screenshot)
        WebDriverWait(page, TIMEOUT).until(lambda it: "· succeeded ·" in it.title)
        late = page.execute_script("return window.late")
        new = [late[at] for at in late if float(at) > since]
        check_page(page)
        return {
            "running": running,
            "ended": page.find_element(By.CSS_SELECTOR, ".badge").text,
            "seen": len(new),
            "latest": max(new, default=0.0),
            "bar": page.execute_script("return window.bar"),
            "keyboard": reached_by_keyboard(page, "log"),
        }


def large(url: str, end: str) -> dict[str, object]:
    """A job with a log that is too large for a browser: the part that the page holds."""
    with opened(url) as page:
        log = page.find_element(By.ID, "log")
        WebDriverWait(page, TIMEOUT).until(lambda _: log.text.rstrip().endswith(end))
        # The page still responds.
        search = page.find_element(By.ID, "q")
        search.send_keys("and so on")
        return {
            "pieces": page.execute_script("return document.getElementById('log').childElementCount"),
            "heap": page.execute_cdp_cmd("Runtime.getHeapUsage", {})["usedSize"],
            "marked": page.execute_script("return document.querySelectorAll('#log mark').length"),
        }


def still(url: str, screenshot: str) -> dict[str, object]:
    """Screenshots of a whole static page: desktop and phone, light and dark."""
    with opened(url) as page:
        check_page(page)
        for width in (1280, 360):
            for scheme in ("light", "dark"):
                show_in(page, scheme, width)
                picture = page.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
                target = Path(screenshot).with_suffix(f".{width}.{scheme}.png")
                target.write_bytes(base64.b64decode(picture["data"]))
        broken = page.execute_script("return [...document.images].filter(it => !it.naturalWidth).map(it => it.src)")
        assert not broken, f"images that are not shown: {broken}"
        cut = page.execute_script(
            "return [...document.querySelectorAll('.scrolls')].filter(it => it.scrollWidth > it.clientWidth).length"
        )
        return {"text": page.find_element(By.TAG_NAME, "main").text, "cut": cut}


def listed(url: str, job: str) -> dict[str, object]:
    """Opens a job's page by its key, then by the list, which has no keys."""
    with opened(url) as page:
        page.find_element(By.CSS_SELECTOR, "header a").click()
        page.find_element(By.CSS_SELECTOR, f'a[href="/jobs/{job}"]').click()
        return {"title": page.find_element(By.TAG_NAME, "h1").text}


if __name__ == "__main__":
    check = {"live": live, "large": large, "still": still, "listed": listed}[sys.argv[1]]
    print(json.dumps(check(*sys.argv[2:])))
