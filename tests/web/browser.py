"""A headless Chromium, the system's own, and what its log says that it asked for."""

import json
import os
import shutil
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_DRIVERS = ("chromedriver", "/usr/lib/chromium/chromedriver", "/usr/lib/chromium-browser/chromedriver")
_SWITCHES = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,900", "--no-first-run"),
    "--disable-dev-shm-usage",  # it is small in many containers
)


def _found(names):
    return next((path for path in map(shutil.which, names) if path), None)


class Browser:
    """One tab."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, address):
        """Go there, and wait until the page and its plots stand."""
        self.driver.get(address)
        self.until("return !document.querySelector('[data-chart]:not([data-drawn])')")

    def js(self, script, *values):
        """What a script says in the page."""
        return self.driver.execute_script(script, *values)

    def until(self, script, *values, seconds=20):
        """What the script says as soon as that is true."""
        return WebDriverWait(self.driver, seconds, poll_frequency=0.05).until(lambda _: self.js(script, *values))

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def press(self, *keys):
        """Press keys, one after the other, wherever the focus is."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def write(self, selector, text):
        """Write into a field, and send its form."""
        field = self.one(selector)
        field.clear()
        field.send_keys(text, Keys.ENTER)

    @property
    def hash(self):
        return urlsplit(self.driver.current_url).fragment

    def asked_for(self):
        """What the browser has asked for since this was called last, from its own log."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


@contextmanager
def chromium():
    """The browser for the length of the block; skips without one, unless REALWORK_REQUIRE_DOCKER=1."""
    binary, driver = _found(_BROWSERS), _found(_DRIVERS)
    if binary is None or driver is None:
        said = "there is no chromium with its chromedriver: make browser, or apt-get install chromium chromium-driver"
        if os.environ.get("REALWORK_REQUIRE_DOCKER") == "1":
            pytest.fail(said)
        pytest.skip(said)
    options = Options()
    options.binary_location = binary
    for switch in _SWITCHES:
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    options.set_capability("unhandledPromptBehavior", "ignore")  # a dialog would fail the next command
    opened = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Browser(opened)
    finally:
        opened.quit()
