"""A real browser for pages: Chromium, where it is installed, by its own protocol over a pipe."""

import base64
import io
import json
import os
import shutil
import subprocess
import time
from contextlib import contextmanager

from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Tab:
    """A tab that is open at a page.

    Args:
        send, receive: The two pipes.
    """

    def __init__(self, send, receive):
        self._send, self._receive, self._session, self._count = send, receive, {}, 0
        self.events = []

    def call(self, method, **parameters):
        """What the browser answers to a command of its protocol; events that come before it are kept."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters, **self._session}
        self._send.write(json.dumps(message).encode() + b"\0")
        self._send.flush()
        while True:
            answer = json.loads(self._read())
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, address, width, height=800):
        """Opens a page, by its file's path or its address, in a window of so many pixels."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=address if isinstance(address, str) else address.as_uri())
        # The page's own script stands at its end, and is done once the page is loaded.
        self.run("new Promise(done => document.readyState == 'complete' ? done() : addEventListener('load', done))")
        self.run("new Promise(done => setTimeout(done, 300))")

    def run(self, script):
        """What an expression comes to, a promise once it is kept."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, script, seconds=30):
        """Waits until an expression comes to something true."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({script})"):  # an element by itself would come as an empty dict
            assert time.monotonic() < end, f"after {seconds} seconds still not: {script}"
            time.sleep(0.1)

    def upload(self, selector, path):
        """Gives a file to a field of the page, as who has chosen it."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        field = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=field)

    def screenshot(self, *, whole=False):
        """What the window shows, or the whole page, as a PIL image."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        return Image.open(io.BytesIO(base64.b64decode(answer["data"]))).convert("RGB")

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key)

    def complaints(self):
        """Errors of scripts, whatever the policy forbade, and addresses beyond the page itself that it asked for."""
        found = [event for event in self.events if event["method"] == "Runtime.exceptionThrown"]
        said = [event["params"]["entry"] for event in self.events if event["method"] == "Log.entryAdded"]
        found += [entry for entry in said if entry["level"] == "error"]
        asked = [event for event in self.events if event["method"] == "Network.requestWillBeSent"]
        addresses = [event["params"]["request"]["url"] for event in asked]
        return found + [address for address in addresses if not address.startswith(("file:", "data:", "about:"))]

    def _read(self):
        content = bytearray()
        while (letter := self._receive.read(1)) != b"\0":
            assert letter, "the browser has ended"
            content += letter
        return content


@contextmanager
def browsing(folder):
    """Gives a tab; `folder` takes what the browser writes."""
    (commands, ours), (theirs, answers) = os.pipe(), os.pipe()
    options = "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    line = [CHROMIUM, *options.split(), "--remote-debugging-pipe", f"--user-data-dir={folder}"]
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$@" 3<&{commands} 4>&{answers}', "bash", *line],
        pass_fds=(commands, answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(commands)
    os.close(answers)
    try:
        with open(ours, "wb") as send, open(theirs, "rb") as receive:
            yield Tab(send, receive)
    finally:
        process.terminate()
        process.wait()
