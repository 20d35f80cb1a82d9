"""Drives headless Chromium over the WebDriver protocol, with the standard library only.

    browser.py PORT PROFILE STEP...

PORT is where chromedriver shall listen, PROFILE an empty folder. A step is an address to
open, or `press` for the only button of the page. What is to be seen at the end is printed
as one JSON object.
"""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request

PATIENCE = 30

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

LOOK = """
return {
  h1: document.querySelector('h1')?.textContent ?? '',
  said: document.querySelector('#said')?.textContent ?? '',
  buttons: document.querySelectorAll('button').length,
  width: document.documentElement.scrollWidth,
  room: window.innerWidth,
  background: getComputedStyle(document.body).backgroundColor,
  scripts: document.scripts.length,
}
"""


def call(port, method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        data=data,
        method=method,
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)["value"]


def until_ready(port):
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if call(port, "GET", "/status")["ready"]:
                return
        except (urllib.error.URLError, ConnectionError):
            pass
        if time.monotonic() > end:
            sys.exit("chromedriver does not get ready")
        time.sleep(0.05)


def main():
    port, profile, *steps = sys.argv[1:]
    driver = subprocess.Popen(
        ["chromedriver", f"--port={port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until_ready(port)
        options = {"args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        session = "/session/" + call(port, "POST", "/session", wanted)["sessionId"]

        def devtools(command, **parameters):
            body = {"cmd": command, "params": parameters}
            call(port, "POST", f"{session}/goog/cdp/execute", body)

        def look():
            body = {"script": LOOK, "args": []}
            return call(port, "POST", f"{session}/execute/sync", body)

        # A small telephone, at night.
        devtools(
            "Emulation.setDeviceMetricsOverride",
            width=320,
            height=640,
            deviceScaleFactor=1,
            mobile=True,
        )
        dark = {"name": "prefers-color-scheme", "value": "dark"}
        devtools("Emulation.setEmulatedMedia", features=[dark])
        took = None
        for step in steps:
            if step == "press":
                found = {"using": "css selector", "value": "button"}
                button = call(port, "POST", f"{session}/element", found)
                before = look()["h1"]
                began = time.monotonic()
                (name,) = button.values()
                call(port, "POST", f"{session}/element/{name}/click", {})
                while look()["h1"] == before:
                    if time.monotonic() > began + PATIENCE:
                        sys.exit("the button does nothing")
                    time.sleep(0.01)
                took = time.monotonic() - began
            else:
                call(port, "POST", f"{session}/url", {"url": step})
        seen = look()
        seen["took_ms"] = None if took is None else round(took * 1000)
        print(json.dumps(seen))
        call(port, "DELETE", session)
    finally:
        driver.terminate()
        driver.wait(PATIENCE)


main()
