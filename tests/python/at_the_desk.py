"""An operator with a real browser: opens the page, waits for a call without reloading, acknowledges it, looks at it in the
other language, and sees what the page says when the centre goes away.

Speaks with the test by lines: prints a word when it has seen something, waits for a line before it goes on.

usage: at_the_desk.py URL [FOLDER_FOR_PICTURES]"""

import os
import sys

from playwright.sync_api import expect, sync_playwright

url = sys.argv[1]
pictures = sys.argv[2] if len(sys.argv) > 2 else None
PATIENCE = 30_000
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run"]


def say(word):
    print(word, flush=True)


def wait():
    if not sys.stdin.readline():
        sys.exit("the test went away")


def picture(page, name):
    if pictures:
        page.screenshot(path=os.path.join(pictures, name + ".png"), full_page=True)


with sync_playwright() as play:
    browser = play.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=ARGUMENTS)
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(url)
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(page.locator("#link")).to_contain_text("连接正常", timeout=PATIENCE)
    picture(page, "empty-zh")
    say("open")

    card = page.locator("article.card").first
    expect(card).to_be_visible(timeout=PATIENCE)
    expect(card.locator("h3")).to_contain_text("呼叫")
    age = card.locator("time[data-age]")
    first = age.inner_text()
    expect(age).not_to_have_text(first, timeout=PATIENCE)  # it ticks
    picture(page, "call-zh")
    say("alert")

    page.locator("#operator").fill("值班员甲")
    card.get_by_role("button", name="确认").click()
    expect(card.locator("li.state")).to_contain_text("已确认", timeout=PATIENCE)
    picture(page, "acknowledged-zh")
    say("acknowledged")

    page.goto(url + "?lang=en")
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.locator("article.card").first.locator("li.state")).to_contain_text("cknowledged", timeout=PATIENCE)
    expect(page.locator("body")).not_to_contain_text("确认")
    picture(page, "acknowledged-en")
    expect(page.locator("#lost")).to_be_hidden()
    say("english")

    wait()  # the centre stops now
    expect(page.locator("#lost")).to_be_visible(timeout=PATIENCE)
    picture(page, "lost-en")
    say("lost")
    browser.close()
    if problems:
        sys.exit(f"the page's scripts failed: {problems}")
