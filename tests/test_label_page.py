"""The labeling page in a headless Chromium, against the real server process."""

import re

import pytest
from label_browser import NEEDS_BROWSER, PHONE, SMALL_PHONE, pairs, press, shows
from label_run import answers, write_run
from playwright.sync_api import Error, expect

from al_lightning.run.journal import read_records

pytestmark = NEEDS_BROWSER
DIGITS = tuple("0123456789")


# ---- a whole query -------------------------------------------------------------------------------


def test_a_query_by_keys_alone(tmp_path, start, browse):
    run_dir = write_run(tmp_path / "run", num_rows=6, names=[f"sea/{n}.png" for n in range(6)])
    server, address = start(run_dir)
    page = browse(address)
    shows(page, "Row 1 of 6: sea/0.png", "0 of 6 rows answered, 0 by you")
    expect(page.get_by_text("model's guess: cat", exact=True)).to_be_visible()
    expect(page.get_by_text("uncertainty (least_confidence) 0.5", exact=True)).to_be_visible()
    assert "token" not in page.url

    press(page, "1", "3")
    assert pairs(run_dir) == [(10, {"label": 0}), (11, {"label": 2})]
    shows(page, "Row 3 of 6: sea/2.png", "2 of 6 rows answered, 2 by you")
    expect(page.get_by_text("Kept for row 2: elk.", exact=True)).to_be_visible()

    page.reload()
    shows(page, "Row 3 of 6: sea/2.png", "2 of 6 rows answered, 2 by you")

    press(page, "u")
    shows(page, "Row 2 of 6: sea/1.png", "1 of 6 rows answered, 1 by you")
    press(page, "2", "s", "x", "S")
    page.keyboard.press("9")  # no such class
    page.keyboard.press("Enter")  # nothing to finish yet
    shows(page, "Row 6 of 6: sea/5.png", "5 of 6 rows answered, 5 by you")
    press(page, "3")

    shows(page, "Every row has an answer", "6 of 6 rows answered, 6 by you")
    assert server.poll() is None
    page.keyboard.press("Enter")
    shows(page, "The query is closed", "6 of 6 rows answered")
    expect(page.get_by_text(f"--active.run_dir {run_dir} --active.resume true")).to_be_visible()
    out, errors = server.communicate(timeout=15)
    assert (server.returncode, errors) == (0, "")
    assert f"The query of cycle 1 is closed. Go on with the run: --active.run_dir {run_dir}" in out
    labels = read_records(run_dir / "journal.jsonl")[-1]
    assert (labels["indices"], labels["labels"]) == ([10, 11, 15], [0, 1, 2])
    assert (labels["skipped"], labels["invalid"]) == ([12, 14], [13])


def test_the_key_of_a_digit_is_that_digit(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run", num_rows=3, classes=DIGITS, cycle=0)
    page = browse(serve(run_dir))
    shows(page, "Row 1 of 3: index 10", "0 of 3")
    expect(page.get_by_text("guess")).to_have_count(0)
    press(page, "0", "3")
    assert pairs(run_dir) == [(10, {"label": 0}), (11, {"label": 3})]


def test_keys_beyond_ten_classes(tmp_path, serve, browse):
    classes = tuple(f"kind {n}" for n in range(12))
    run_dir = write_run(tmp_path / "run", num_rows=3, classes=classes)
    page = browse(serve(run_dir))
    shows(page, "Row 1 of 3: index 10", "0 of 3")
    press(page, "1", "0")
    page.get_by_role("button", name="kind 11").click()
    shows(page, "Every row has an answer", "3 of 3")
    assert [answer["label"] for _, answer in pairs(run_dir)] == [0, 9, 11]


@pytest.mark.slow
def test_a_killed_server_loses_nothing(tmp_path, start, browse):
    run_dir = write_run(tmp_path / "run", num_rows=4)
    server, address = start(run_dir)
    page = browse(address, complains=True)
    press(page, "1", "2")
    server.kill()
    server.wait()
    page.keyboard.press("3")
    problem = page.get_by_role("alert")
    expect(problem).to_have_text(re.compile("answer was not kept: the server does not answer"))
    shows(page, "Row 3 of 4: index 12", "2 of 4")

    _, again = start(run_dir, port=re.search(r":(\d+)/", address)[1])
    page.keyboard.press("2")  # the page that was left open has the old token
    expect(problem).to_have_text(re.compile("answer was not kept: this page needs the token"))
    shows(page, "Row 3 of 4: index 12", "2 of 4")
    page.goto(again)
    shows(page, "Row 3 of 4: index 12", "2 of 4")
    expect(problem).to_be_empty()
    press(page, "3", "3")
    assert [index for index, _ in pairs(run_dir)] == [10, 11, 12, 13]
    assert [answer["label"] for _, answer in pairs(run_dir)] == [0, 1, 2, 2]
    press(page, "u")
    shows(page, "Row 4 of 4: index 13", "3 of 4")


# ---- keys that must do nothing -------------------------------------------------------------------


def test_typing_a_name_answers_nothing(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run")
    page = browse(serve(run_dir))
    name = page.get_by_role("textbox", name="Your name (optional)")
    name.press_sequentially("sux")
    name.press("Enter")
    page.get_by_role("button", name="Yes").click()
    for held in ("Control", "Alt", "Meta"):
        page.get_by_role("heading", level=1).click()
        page.keyboard.press(f"{held}+1")
    shows(page, "Row 1 of 5: index 10", "0 of 5")
    assert answers(run_dir) == []
    press(page, "1")
    assert answers(run_dir) == [(10, {"label": 0}, "sux")]
    page.reload()
    expect(name).to_have_value("sux")
    shows(page, "Row 2 of 5: index 11", "1 of 5 rows answered, 1 by you")


def test_a_click_right_after_typing_a_name_counts(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run")
    page = browse(serve(run_dir))
    page.get_by_label("Your name (optional)").fill("ann")
    page.get_by_role("button", name="dog").click()
    expect(page.get_by_text("New labeler ann?")).to_be_visible()
    page.get_by_role("button", name="Yes").click()
    shows(page, "Row 2 of 5: index 11", "1 of 5")
    assert answers(run_dir) == [(10, {"label": 1}, "ann")]


def test_digits_never_land_in_the_name_and_label_the_row(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run")
    page = browse(serve(run_dir))
    name = page.get_by_label("Your name (optional)")
    name.press_sequentially("Ann1")
    expect(page.get_by_text("New labeler Ann?")).to_be_visible()
    page.keyboard.press("2")  # waits for the name too
    assert answers(run_dir) == []
    page.keyboard.press("Enter")  # Yes has the focus
    shows(page, "Row 3 of 5: index 12", "2 of 5 rows answered, 2 by you")
    assert answers(run_dir) == [(10, {"label": 0}, "Ann"), (11, {"label": 1}, "Ann")]
    name.fill("Bob 7")
    expect(name).to_have_value("Bob ")
    page.get_by_role("button", name="elk").click()
    page.get_by_role("button", name="No, change it").click()
    expect(name).to_be_focused()
    name.fill("Ann")  # who is known: not asked again, and the answer is hers
    page.keyboard.press("Enter")
    shows(page, "Row 4 of 5: index 13", "3 of 5")
    assert answers(run_dir)[2] == (12, {"label": 2}, "Ann")
    page.reload()
    expect(name).to_have_value("Ann")
    shows(page, "Row 4 of 5: index 13", "3 of 5 rows answered, 3 by you")


def test_a_grid_that_is_confirmed_waits_for_the_name(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run")
    page = browse(serve(run_dir))
    page.get_by_role("button", name="Grid").click()
    expect(page.get_by_role("button", name="2 are cat")).to_be_visible()
    page.get_by_label("Your name (optional)").fill("ann")
    page.get_by_role("button", name="2 are cat").click()
    expect(page.get_by_text("New labeler ann?")).to_be_visible()
    assert answers(run_dir) == []
    page.get_by_role("button", name="Yes").click()
    expect(page.locator("#result")).to_have_text("Kept for 2 rows: cat.")
    assert answers(run_dir) == [(10, {"label": 0}, "ann"), (13, {"label": 0}, "ann")]


def test_a_name_belongs_to_the_session(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run")
    page = browse(serve(run_dir), complains=True)
    page.get_by_label("Your name (optional)").fill("ann")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Yes").click()
    press(page, "1")
    send = """by => fetch("/answer", {method: "POST", headers: {"Content-Type": "application/json"},
      body: JSON.stringify({index: 11, answer: 0, by, settles: false, second: false})})
      .then(async reply => [reply.status, await reply.text()])"""
    status, text = page.evaluate(send, "ben")
    assert (status, "this browser labels as 'ann', found 'ben'" in text) == (409, True)
    assert len(answers(run_dir)) == 1


def test_what_is_done_before_the_page_is_ready_is_not_lost(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run")
    page, address = browse("about:blank"), serve(run_dir)
    held = []
    page.route("**/state?*", lambda route: held.append(route), times=1)
    with page.expect_request("**/state?*"):
        page.goto(address)
    page.keyboard.press("1")
    expect(page.get_by_role("button", name="Undo")).to_be_hidden()
    held.pop(0).continue_()
    shows(page, "Row 2 of 5: index 11", "1 of 5")
    assert [label for _, label, _ in answers(run_dir)] == [{"label": 0}]


def test_a_name_is_not_taken_before_the_page_listens_to_it(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run")
    page, address = browse("about:blank"), serve(run_dir)
    held, name = [], page.get_by_label("Your name (optional)")
    page.route("**/about", lambda route: held.append(route), times=1)
    with page.expect_request("**/about"):
        page.goto(address)
    expect(name).to_be_disabled()
    held.pop(0).continue_()
    name.fill("ann")
    page.keyboard.press("Enter")
    expect(page.get_by_text("New labeler ann?")).to_be_visible()


def test_a_key_held_down_is_one_answer(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run")
    page = browse(serve(run_dir))
    shows(page, "Row 1 of 5: index 10", "0 of 5")
    for _ in range(3):  # the second and third are repeats
        page.keyboard.down("1")
        page.wait_for_timeout(100)
    page.keyboard.up("1")
    page.get_by_role("button", name="cat").focus()
    for _ in range(3):
        page.keyboard.down("Enter")
        page.wait_for_timeout(100)
    shows(page, "Row 3 of 5: index 12", "2 of 5")
    assert len(answers(run_dir)) == 2


# ---- several people, and an early end ------------------------------------------------------------


def test_two_people_differ_and_settle(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run", num_rows=2)
    address = serve(run_dir)
    ann, bob = browse(address), browse(address)
    for page, name in ((ann, "ann"), (bob, "bob")):
        page.get_by_label("Your name (optional)").fill(name)
        page.keyboard.press("Tab")
        page.get_by_role("button", name="Yes").click()
    shows(bob, "Row 2 of 2: index 11", "0 of 2")  # ann has the first before her
    press(ann, "1", "1")
    press(bob, "1")  # it is answered by now, and a second time
    shows(bob, "Every row has an answer", "2 of 2")
    bob.get_by_role("button", name="Second opinion on 1 row").click()
    shows(bob, "Row 1 of 2: index 10", "2 of 2")
    expect(bob.get_by_text("Somebody else answered this row")).to_be_visible()
    expect(bob.get_by_text("ann:")).to_have_count(0)
    press(bob, "2")
    shows(bob, "Row 1 of 2: index 10", "1 of 2 rows answered, people differ on 1, 2 by you")
    assert bob.get_by_role("listitem").all_text_contents() == ["ann: cat", "bob: dog"]
    bob.get_by_role("button", name="Finish early").click()
    expect(bob.get_by_text("People differ on 1 row; that must be settled first.")).to_be_visible()
    expect(bob.get_by_role("button", name="Finish", exact=True)).to_have_count(0)
    bob.get_by_role("button", name="Go on labeling").click()
    press(bob, "3")
    shows(bob, "Every row has an answer", "2 of 2")
    bob.get_by_role("button", name="Finish", exact=True).click()
    shows(bob, "The query is closed", "2 of 2")
    labels = read_records(run_dir / "journal.jsonl")[-1]
    assert (labels["indices"], labels["labels"], labels["by"]) == ([10, 11], [2, 0], "bob")


def test_labels_in_doubt_are_looked_at_behind_the_query(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run", num_rows=1, doubts=[[0, 0.03, 2, 1]])
    page = browse(serve(run_dir))
    shows(page, "Row 1 of 1: index 10", "0 of 1 row answered, 0 by you")
    page.keyboard.press("1")
    page.get_by_role("button", name="1 label in doubt").click()
    page.get_by_role("heading", name="A label in doubt").wait_for()
    assert "The label is dog, which the model gives a chance of 0.03." in page.inner_text("main")
    page.keyboard.press("2")  # it is a dog
    page.get_by_role("heading", name="Every row has an answer").wait_for()
    assert answers(run_dir) == [(10, {"label": 0}, None), (0, {"label": 1}, None)]


def test_finish_early_asks_first(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run", num_rows=3)
    address = serve(run_dir)
    page = browse(address)
    press(page, "1", "2")
    page.get_by_role("button", name="Finish early").click()
    shows(page, "Finish early?", "2 of 3")
    expect(page.get_by_text("1 row without an answer would return to the pool.")).to_be_visible()
    page.keyboard.press("3")
    page.keyboard.press("u")
    page.get_by_role("button", name="Go on labeling").click()
    shows(page, "Row 3 of 3: index 12", "2 of 3")
    page.get_by_role("button", name="Finish early").click()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    shows(page, "The query is closed", "2 of 3")
    assert pairs(run_dir) == [(10, {"label": 0}), (11, {"label": 1})]
    assert read_records(run_dir / "journal.jsonl")[-1]["indices"] == [10, 11]


# ---- for everybody -------------------------------------------------------------------------------


def test_the_tab_key_reaches_everything(tmp_path, serve, browse):
    page = browse(serve(write_run(tmp_path / "run")))
    shows(page, "Row 1 of 5: index 10", "0 of 5")
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        name = "e => e.labels[0]?.textContent ?? e.firstChild.textContent.trim()"
        reached.append(focused.evaluate(name))
        assert focused.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    expected = "Your name (optional),cat,dog,elk,Skip,Invalid,Undo,Finish early"
    assert reached == expected.split(",")
    page.get_by_role("button", name="elk").focus()
    page.keyboard.press("Space")
    shows(page, "Row 2 of 5: index 11", "1 of 5")


def test_what_a_screen_reader_gets(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run", names=["a.png", "b.png", "c.png", "d.png", "e.png"])
    page = browse(serve(run_dir))
    expect(page.get_by_role("img", name="Row 1 of 5: a.png")).to_be_visible()
    expect(page.get_by_role("heading", level=1, name="Labeling, cycle 1")).to_be_visible()
    expect(page.get_by_role("group", name="Classes").get_by_role("button")).to_have_count(3)
    expect(page.get_by_role("region", name="Row 1 of 5: a.png")).to_be_visible()
    expect(page.get_by_role("progressbar", name="0 of 5 rows answered, 0 by you")).to_be_visible()
    for name, key in {"cat": "1", "Skip": "s", "Invalid": "x", "Undo": "u"}.items():
        button = page.get_by_role("button", name=name, exact=True)
        expect(button).to_have_attribute("aria-keyshortcuts", key)
    said = page.get_by_role("status")
    expect(said).to_have_attribute("aria-live", "polite")
    expect(said).to_have_text(
        "Row 1 of 5: a.png, model's guess: cat, uncertainty (least_confidence) 0.5"
    )
    press(page, "2")
    expect(said).to_have_text(
        "Kept for row 1: dog. Row 2 of 5: b.png, model's guess: dog, "
        "uncertainty (least_confidence) 0.501"
    )
    press(page, "1", "1", "1", "1")
    expect(page.get_by_role("heading", name="Every row has an answer")).to_be_focused()


@pytest.mark.parametrize("size", [PHONE, SMALL_PHONE])
@pytest.mark.parametrize("num_classes", [3, 10, 40])
def test_a_phone_has_room_for_it(tmp_path, serve, browse, size, num_classes):
    classes = tuple(f"{'long' * (n % 5)} name {n}" for n in range(num_classes))
    run_dir = write_run(tmp_path / "run", classes=classes, names=["deep/" * 20 + "a.png"] * 5)
    page = browse(serve(run_dir), size, has_touch=True, is_mobile=True)
    shows(page, f"Row 1 of 5: {'deep/' * 20}a.png", "0 of 5")
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.evaluate("innerWidth") == size[0]
    for button in page.get_by_role("button").all():
        box = button.bounding_box()
        assert box["height"] >= 44
        assert box["width"] >= 44
    picture = page.get_by_role("img").bounding_box()
    assert min(picture["width"], picture["height"]) >= 150
    page.get_by_role("button", name=classes[2], exact=True).tap()
    expect(page.get_by_text(f"Kept for row 1: {classes[2]}.", exact=True)).to_be_visible()
    assert pairs(run_dir) == [(10, {"label": 2})]


CONTRAST = """element => {
  const luminance = (color) => {
    const [r, g, b] = color.match(/[0-9.]+/g).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = (e) => getComputedStyle(e).backgroundColor;
  let under = element;
  while (paper(under) === "rgba(0, 0, 0, 0)") under = under.parentElement;
  const pair = [getComputedStyle(element).color, paper(under)];
  const [dark, light] = pair.map(luminance).sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(tmp_path, serve, browse, scheme):
    page = browse(serve(write_run(tmp_path / "run")), color_scheme=scheme)
    press(page, "1")
    page.evaluate("document.getElementById('problem').textContent = 'wrong'")
    page.evaluate("for (const e of document.querySelectorAll('[hidden]')) e.hidden = false")
    texts = page.locator("h1, h2, p, label, button, kbd, li, input").all()
    assert len(texts) > 20
    assert min(text.evaluate(CONTRAST) for text in texts) >= 4.5  # WCAG 2.2, 1.4.3 AA


# ---- pictures ------------------------------------------------------------------------------------


def test_small_pictures_are_large_and_the_next_are_there_already(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run")
    page = browse(serve(run_dir))
    picture = page.get_by_role("img")
    expect(picture).to_have_class("small")
    assert picture.evaluate("e => getComputedStyle(e).imageRendering") == "pixelated"
    assert picture.bounding_box()["height"] > 280
    page.wait_for_load_state("networkidle")
    asked = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    press(page, "1")
    expect(picture).to_have_attribute("src", "/images/11")
    page.wait_for_load_state("networkidle")
    assert asked == ["answer"]  # 11 to 14 were fetched with 10


def test_a_missing_and_a_broken_picture_are_said(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run")
    images = run_dir / "queries" / "cycle_1" / "images"
    (images / "10.png").unlink()
    (images / "11.png").write_bytes(b"not a picture")
    page = browse(serve(run_dir))
    expect(page.get_by_text(f"There is no picture of this row in {images}")).to_be_visible()
    press(page, "1")
    expect(page.get_by_text("The picture of this row cannot be read.")).to_be_visible()
    press(page, "1")
    expect(page.get_by_role("img", name="Row 3 of 5")).to_be_visible()
    assert len(answers(run_dir)) == 2


def test_a_page_elsewhere_can_neither_read_nor_answer(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run")
    address = serve(run_dir)
    elsewhere = serve(write_run(tmp_path / "other"))  # of the same host, on another port
    page = browse(address, complains=True)
    press(page, "1")
    page.goto(elsewhere)
    shows(page, "Row 1 of 5: index 10", "0 of 5")
    here = address.partition("?")[0]
    body = '{"index": 11, "answer": 0, "by": "", "settles": false, "second": false}'
    for kind in ("text/plain", "application/json"):
        with pytest.raises(Error, match="Failed to fetch"):
            page.evaluate(
                "([url, kind, body]) => fetch(url, {method: 'POST', credentials: 'include', body, "
                "headers: {'Content-Type': kind}})",
                [f"{here}answer", kind, body],
            )
    assert len(answers(run_dir)) == 1


# ---- other tasks ---------------------------------------------------------------------------------


def test_several_classes_are_one_answer(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run", task="multilabel")
    page = browse(serve(run_dir))
    expect(page.locator("#guess")).to_contain_text("model's guess: cat; elk")
    cat, dog, elk = (
        page.get_by_role("button", name=name, exact=False) for name in ("cat", "dog", "elk")
    )
    cat.click()
    page.keyboard.press("3")
    dog.click()
    dog.click()  # and taken back
    expect(elk).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Enter")
    expect(page.locator("#result")).to_have_text("Kept for row 1: cat; elk.")
    expect(cat).to_have_attribute("aria-pressed", "false")  # the next row begins with none
    page.get_by_role("button", name="Keep").click()
    expect(page.locator("#result")).to_have_text("Kept for row 2: none.")
    page.keyboard.press("s")
    expect(page.locator("#result")).to_have_text("Kept for row 3: skip.")
    assert answers(run_dir) == [
        (10, {"label": [1, 0, 1]}, None),
        (11, {"label": [0, 0, 0]}, None),
        (12, "skip", None),
    ]


def test_a_number_is_typed(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run", task="regression", classes=None)
    page = browse(serve(run_dir))
    expect(page.locator("#guess")).to_contain_text("model's guess: 0 ± 0.25")
    expect(page.locator("#number")).to_be_focused()
    page.keyboard.type("-2.5e1")
    page.keyboard.press("Enter")
    expect(page.locator("#result")).to_have_text("Kept for row 1: -2.5e1.")
    for wrong in ("much", "", "1;"):
        page.locator("#number").fill(wrong)
        page.keyboard.press("Enter")
        expect(page.locator("#problem")).to_contain_text("write a number with a point")
    page.locator("#number").fill("s")  # a letter in the field is no shortcut
    expect(page.locator("#row-title")).to_contain_text("Row 2")
    page.locator("#number").fill("1; 2")
    page.get_by_role("button", name="Keep").click()
    expect(page.locator("#result")).to_have_text("Kept for row 2: 1; 2.")
    expect(page.locator("#problem")).to_be_empty()
    assert answers(run_dir) == [(10, {"label": -25}, None), (11, {"label": [1, 2]}, None)]
