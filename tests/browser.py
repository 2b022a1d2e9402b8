"""The page as people have it: a real Chromium without a screen, with as many windows as a test needs.

A window acts like a person: it finds what is there by CSS selector, types, presses keys, clicks.
"""

import shutil
import tempfile

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.chrome.service import Service

from board import wait_for

FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-sandbox",  # Chromium refuses to run as root with one
    #  A mouse, which a machine without a screen does not have
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,"
    "primaryPointerType=4,availablePointerTypes=4",
)

# Every element with text of its own that can be seen, with its contrast to the ground behind it.
CONTRASTS = """
const channels = (colour) => {
  const [red, green, blue, alpha = 1] = colour.match(/[\\d.]+/g).map(Number);
  return [red, green, blue, alpha];
};
const over = (top, ground) => top.slice(0, 3).map((c, at) => c * top[3] + ground[at] * (1 - top[3]));
const ground = (element) => {
  if (!element) return [255, 255, 255];
  const colour = channels(getComputedStyle(element).backgroundColor);
  return colour[3] === 1 ? colour.slice(0, 3) : over(colour, ground(element.parentElement));
};
const opacity = (element) =>
  element ? getComputedStyle(element).opacity * opacity(element.parentElement) : 1;
const luminance = (colour) => {
  const [red, green, blue] = colour.map((c) =>
    c <= 10.31475 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const contrast = (one, other) => {
  const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
};
const name = (element) => element.tagName.toLowerCase() +
  (element.id ? "#" + element.id : "") + (element.className ? "." + element.className : "");
const hasText = (element) => element.matches("input, textarea") || [...element.childNodes].some(
  (node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
return [...document.body.querySelectorAll("*")]
  .filter((element) => hasText(element) && element.getClientRects().length && !element.disabled &&
    getComputedStyle(element).visibility === "visible" && !element.closest(".unseen"))
  .map((element) => {
    const behind = ground(element);
    const colour = channels(getComputedStyle(element).color);
    return [name(element), contrast(over([...colour.slice(0, 3), colour[3] * opacity(element)], behind), behind)];
  });
"""


class Browser:
    """One Chromium; its windows share a profile."""

    def __init__(self):
        self.profile = tempfile.mkdtemp(prefix="breadboard-browser-")
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for flag in *FLAGS, f"--user-data-dir={self.profile}":
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
        self.first = self.driver.current_window_handle  # Stays, so that all others can be closed
        self.windows = []
        self.current = None  # The window that the driver acts on

    def window(self, board, path="/", **options):
        """A new window that shows the board, live if it runs the script."""
        self.windows.append(Window(self, f"http://{board.address}", path, **options))
        return self.windows[-1]

    def close_windows(self):
        """Closes all windows, and forgets what they kept: a window of the next test would send what was
        on its way. Returns what the console said in them."""
        for window in self.windows:
            window.here().close()
        self.driver.switch_to.window(self.first)
        for origin in {window.origin for window in self.windows}:
            self.driver.execute_cdp_cmd("Storage.clearDataForOrigin",
                                        {"origin": origin, "storageTypes": "all"})
        self.windows.clear()
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def quit(self):
        self.driver.quit()
        shutil.rmtree(self.profile, ignore_errors=True)


class Window:
    """A window of the browser, as if it were in front: its timers run, and it can have the focus."""

    def __init__(self, browser, origin, path, script=True, live=True, dark=False, motion=False):
        self.browser = browser
        self.driver = browser.driver
        self.origin = origin
        self.driver.switch_to.new_window("window")
        self.handle = self.driver.current_window_handle
        browser.current = self
        self.cdp("Emulation.setFocusEmulationEnabled", enabled=True)
        self.cdp("Emulation.setScriptExecutionDisabled", value=not script)
        self.emulate(dark, motion)
        self.open(path)
        if script and live:
            self.wait_text("#connection", "Live")

    def here(self):
        """The driver, with this window the one that it acts on."""
        if self.browser.current is not self:
            self.driver.switch_to.window(self.handle)
            self.browser.current = self
        return self.driver

    def cdp(self, command, **arguments):
        return self.here().execute_cdp_cmd(command, arguments)

    def emulate(self, dark=False, motion=False):
        """Sets what the reader prefers: dark colours, motion."""
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "no-preference" if motion else "reduce"},
        ]
        self.cdp("Emulation.setEmulatedMedia", features=features)

    def resize(self, width, height, mobile=False, scale=1):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, mobile=mobile,
                 deviceScaleFactor=scale)
        self.cdp("Emulation.setTouchEmulationEnabled", enabled=mobile)

    def open(self, path):
        self.here().get(self.origin + path)

    def reload(self):
        self.here().refresh()

    def back(self):
        self.here().back()

    def forward(self):
        self.here().forward()

    def close(self):
        self.here().close()
        self.browser.windows.remove(self)
        self.browser.current = None
        self.driver.switch_to.window(self.browser.first)

    def offline(self, offline):
        self.cdp("Network.enable")
        self.cdp("Network.emulateNetworkConditions", offline=offline, latency=0,
                 downloadThroughput=-1, uploadThroughput=-1)

    @property
    def path(self):
        return self.here().current_url.removeprefix(self.origin)

    def js(self, script, *arguments):
        return self.here().execute_script(script, *arguments)

    #  Looking

    def all(self, css):
        return self.here().find_elements("css selector", css)

    def one(self, css):
        """The one element that the selector names."""
        (element,) = self.all(css)
        return element

    def has(self, css):
        return bool(self.all(css))

    def text(self, css):
        return self.one(css).text

    def texts(self, css):
        """The texts of all elements that the selector names, read in one moment."""
        return self.js("return Array.from(document.querySelectorAll(arguments[0]),"
                       " (element) => element.textContent)", css)

    def value(self, css):
        return self.one(css).get_property("value")

    def shown(self):
        """The texts of the messages, top to bottom."""
        return self.texts(".message__text")

    def focused(self):
        """What has the focus: its id, or else its last class."""
        return self.js("const it = document.activeElement;"
                       " return it.id || it.classList[it.classList.length - 1] || it.tagName")

    def contrasts(self):
        """The contrast of each element that has text, as pairs of name and ratio."""
        return self.js(CONTRASTS)

    #  Waiting

    def wait(self, condition, what):
        def holds():
            try:
                return condition()
            except StaleElementReferenceException:  # Replaced while we looked
                return False

        wait_for(holds, what)

    def wait_has(self, css):
        self.wait(lambda: self.has(css), css)

    def wait_gone(self, css):
        self.wait(lambda: not self.has(css), f"{css} to go")

    def wait_text(self, css, part):
        self.wait(lambda: any(part in text for text in self.texts(css)), f"{part!r} in {css}")

    def wait_shown(self, *texts):
        self.wait(lambda: self.shown() == list(texts), f"messages {texts}")

    def wait_focused(self, name):
        self.wait(lambda: self.focused() == name, f"the focus on {name}")

    #  Acting

    def click(self, css):
        element = self.one(css)
        self.js("arguments[0].scrollIntoView({block: 'nearest'})", element)  # one that looks out is missed
        element.click()

    def follow(self, css):
        """Clicks what leads to another page, and waits for that."""
        page = self.one("html")

        def left():
            try:
                page.is_enabled()
                return False
            except WebDriverException:
                return self.js("return document.readyState") == "complete"

        self.click(css)
        wait_for(left, f"the page behind {css}")

    def press(self, *keys, **held):
        """Presses keys, one after the other, wherever the focus is; ctrl=True, shift=True holds."""
        modifiers = [{"ctrl": Keys.CONTROL, "shift": Keys.SHIFT}[name] for name in held]
        chain = ActionChains(self.here(), duration=0)
        for key in modifiers:
            chain.key_down(key)
        for key in keys:
            chain.send_keys(key)
        for key in modifiers:
            chain.key_up(key)
        chain.perform()

    def write(self, css, text):
        """Replaces the text of a field, as an input method would: all characters at once."""
        self.js("arguments[0].focus(); arguments[0].select()", self.one(css))
        self.cdp("Input.insertText", text=text)

    def fill(self, author, text):
        """Fills the form for a new message."""
        self.write("#message-form__author", author)
        self.write("#message-form__text", text)

    def post(self, author, text):
        self.fill(author, text)
        self.click("#message-form__submit")

    def button(self, text, css):
        """What the selector names in the message with the text."""
        for article in self.all(".message"):
            if any(part.get_property("textContent") == text
                   for part in article.find_elements("css selector", ".message__text")):
                return article.find_element("css selector", css)
        raise AssertionError(f"no message {text!r}")

    def press_on(self, text, css):
        """Clicks a button of the message with the text."""
        self.button(text, css).click()

    def edit(self, text):
        """Opens the edit form of the message with the text."""
        self.press_on(text, ".messages__update")
        self.wait_has(".update-form")

    def delete(self, text):
        """Deletes the message with the text, and says so when asked."""
        self.press_on(text, ".messages__delete")
        self.click(".messages__delete-yes")
