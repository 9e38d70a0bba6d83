"""What tests do with a page, whatever browser shows it."""

import json
import time


class Tab:
    """One page of a browser. Use as a context manager.

    A browser brings ``run`` (the value of an expression), ``_press`` (a click at a point), ``key``, ``open``,
    ``screenshot``, ``requests``, ``complaints`` and ``close``.
    """

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def wait(self, expression, seconds=20):
        """Waits until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(f"!!({expression})"):
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds} s: {expression}")
            time.sleep(0.02)

    def text(self, selector):
        """Visible text of the first element."""
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def texts(self, selector):
        """Visible texts of all visible elements."""
        return self.run(
            f"[...document.querySelectorAll({json.dumps(selector)})].filter(e => e.offsetParent).map(e => e.innerText)"
        )

    def click(self, selector, across=0.5):
        """Clicks into the first element, scrolled into view, at ``across`` of its width."""
        box = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView("
            "{block: 'center'}); const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()"
        )
        self._press(box[0] + across * box[2], box[1] + box[3] / 2)

    def choose(self, selector, value):
        """Chooses an option of a select element, as its menu does."""
        self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.value = {json.dumps(value)};"
            " e.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )
