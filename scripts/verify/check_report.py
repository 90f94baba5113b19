#!/usr/bin/env python3
"""Opens reports in headless Chromium, at 1280 and 390 px, light and dark, and looks for what a reader would trip over.

  pip install playwright && apt-get install chromium        # or `playwright install chromium`
  python check_report.py RUN/report.html ... [--shots FOLDER] [--chromium /usr/bin/chromium]

Fails on: anything in the console; a request for anything but the page; a part that ends beyond the window or the box
that cuts it off; texts of a chart that lie on each other; a page that says less without its script; a readout that
does not answer to pointer and keys; a resource that the page's policy does not stop. Exit status: 0 none found, 1
some, 2 wrong usage.
"""

import argparse
import pathlib
import sys

from playwright.sync_api import sync_playwright

SIZES = [(1280, 900), (390, 844)]

# Parts whose right or left end cannot be seen: outside the window, or outside a box that cuts off what does not fit.
CUT = """() => {
  const faults = [];
  const name = (part) => `${part.tagName.toLowerCase()}${part.id ? '#' + part.id : ''}.${part.getAttribute('class') || ''}`
    + ` "${(part.textContent || '').trim().slice(0, 40)}"`;
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) faults.push(`the page is ${document.documentElement.scrollWidth} px wide`);
  for (const part of document.querySelectorAll('body *')) {
    if (part.closest('script, style, title, desc')) continue;
    if (!part.checkVisibility({ contentVisibilityAuto: true })) continue;
    // A head that only screen readers see.
    const head = part.closest('thead');
    if (head && getComputedStyle(head).clipPath !== 'none') continue;
    const box = part.getBoundingClientRect();
    if (!box.width || !box.height) continue;
    if (box.right > width + 0.5 || box.left < -0.5) faults.push(`${name(part)} reaches from ${box.left} to ${box.right}`);
    if (part.scrollWidth > part.clientWidth + 1 && part.clientWidth && getComputedStyle(part).overflowX !== 'visible')
      faults.push(`${name(part)} hides ${part.scrollWidth - part.clientWidth} px`);
  }
  return faults;
}"""

# Texts of one chart that share some place.
OVERLAP = """() => {
  const faults = [];
  for (const svg of document.querySelectorAll('.plot > svg')) {
    const texts = [...svg.querySelectorAll('text')].map((text) => [text.textContent, text.getBoundingClientRect()]);
    texts.forEach(([one, a], at) => {
      for (const [other, b] of texts.slice(at + 1)) {
        if (a.left < b.right && b.left < a.right && a.top < b.bottom - 1 && b.top < a.bottom - 1)
          faults.push(`"${one}" lies on "${other}"`);
      }
    });
  }
  return faults;
}"""

# Parts whose text is hard to read on what is behind it, by the WCAG's ratio.
CONTRAST = """() => {
  const channel = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const colour = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (part) => {
    for (; part; part = part.parentElement) {
      const found = colour(getComputedStyle(part).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const faults = new Set();
  for (const part of document.querySelectorAll('p, dt, dd span, strong, h1, h2, h3, td, th, code, text, summary, .key')) {
    const style = getComputedStyle(part);
    const ink = light(colour(part.tagName === 'text' ? style.fill : style.color));
    const paper = light(behind(part));
    const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (ratio < 4.5) faults.add(`${part.tagName}.${part.getAttribute('class') || ''} has a contrast of ${ratio.toFixed(2)}`);
  }
  return [...faults];
}"""


def check(browser, path, width, height, scheme, shots):
    faults = []
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.on("console", lambda message: faults.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("request", lambda request: None if request.url == path.as_uri() else faults.append(f"asks for {request.url}"))
    page.goto(path.as_uri())
    looks = [("closed", False), ("open", True)]
    for look, opened in looks:
        page.evaluate("(open) => document.querySelectorAll('details').forEach((one) => { one.open = open; })", opened)
        faults += [f"{look}: {fault}" for script in (CUT, OVERLAP, CONTRAST) for fault in page.evaluate(script)]
        if shots:
            name = f"{'-'.join(path.parts[-3:-1])}-{width}-{scheme}-{look}.png"
            page.screenshot(path=str(shots / name), full_page=True)
    faults += readout(page)
    faults += policy(page, faults)
    page.close()
    return faults


def readout(page):
    """Pointer and keys must show values, and the charts are all the page has of them."""
    faults = []
    for plot in page.query_selector_all("svg.curves"):
        output = plot.evaluate_handle("(plot) => plot.closest('figure').querySelector('output')").as_element()
        plot.scroll_into_view_if_needed()
        plot.hover()
        hovered = output.text_content()
        page.mouse.move(0, 0)
        plot.focus()
        page.keyboard.press("ArrowRight")
        keyed = output.text_content()
        if "at step" not in hovered or "at step" not in keyed:
            faults.append(f"the readout says `{hovered}` to the pointer and `{keyed}` to a key")
    return faults


def policy(page, faults):
    """An image and a script put into the page must not be loaded or run."""
    before = len(faults)
    ran = page.evaluate("""async () => {
      const script = document.createElement('script');
      script.textContent = 'window.ran = true';
      document.body.append(script);
      const image = new Image();
      const stopped = new Promise((done) => { image.onload = () => done(false); image.onerror = () => done(true); });
      image.src = 'data:image/gif;base64,R0lGODlhAQABAAAAACw=';
      document.body.append(image);
      return window.ran === true || !(await stopped);
    }""")
    # The browser tells of what it stopped; that is no fault.
    del faults[before:]
    return ["the policy lets a script or an image through"] if ran else []


def without_script(browser, path):
    """The text of the page must be the same with scripts switched off."""
    texts = []
    for enabled in (True, False):
        context = browser.new_context(java_script_enabled=enabled)
        page = context.new_page()
        page.goto(path.as_uri())
        texts.append(page.locator("body").inner_text())
        context.close()
    return [] if texts[0] == texts[1] and len(texts[0]) > 500 else ["the page says something else without its script"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("reports", nargs="+", type=pathlib.Path, help="report.html of runs")
    parser.add_argument("--shots", type=pathlib.Path, help="folder for pictures of what was seen")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="browser to use; empty for Playwright's own")
    options = parser.parse_args()
    if options.shots:
        options.shots.mkdir(parents=True, exist_ok=True)
    failed = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium or None, args=["--no-sandbox"])
        for report in options.reports:
            path = report.resolve(strict=True)
            faults = {"without script": without_script(browser, path)}
            for width, height in SIZES:
                for scheme in ("light", "dark"):
                    faults[f"{width} px, {scheme}"] = check(browser, path, width, height, scheme, options.shots)
            for where, found in faults.items():
                for fault in found:
                    print(f"{report}, {where}: {fault}", file=sys.stderr)
            count = sum(map(len, faults.values()))
            print(f"{report}: {count} faults")
            failed += count
        browser.close()
    sys.exit(1 if failed else 0)
