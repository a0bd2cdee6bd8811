"""The labeling page at work: many answers, many classes, any kind of row, one tab."""

import json
import wave

import pytest
from label_browser import NEEDS_BROWSER, PHONE, pairs, press, shows
from label_run import PRESS, write_run
from PIL import Image
from playwright.sync_api import expect

from al_lightning.label.answers import OpenQuery
from al_lightning.run.journal import Journal, read_records

pytestmark = NEEDS_BROWSER


# ---- hundreds of answers an hour -----------------------------------------------------------------


def pressing(page):
    """Counts the keys that are pressed from now on."""
    pressed = []

    def press_key(key):
        pressed.append(key)
        page.keyboard.press(key)

    return pressed, press_key


def test_sixty_rows_on_the_grid_take_few_keys(tmp_path, serve, browse):
    classes = tuple(f"kind {n}" for n in range(6))
    run_dir = write_run(tmp_path / "run", num_rows=60, classes=classes)
    page = browse(serve(run_dir))
    shows(page, "Row 1 of 60: index 10", "0 of 60")
    pressed, key = pressing(page)
    key("g")
    for number in range(6):
        heading = page.get_by_role("heading", level=2)
        expect(heading).to_have_text(f"10 of 10 that look like: kind {number}")
        if number == 2:
            key("c")  # the third is something else
            expect(page.get_by_role("button", name="9 are kind 2")).to_be_visible()
        key("Enter")
    expect(page.locator("#grid-title")).to_have_text("1 of 1 that look like: kind 2")
    key("Escape")
    shows(page, "Row 15 of 60: index 24", "59 of 60 rows answered, 59 by you")
    key("5")
    shows(page, "Every row has an answer", "60 of 60")
    key("Enter")
    shows(page, "The query is closed", "60 of 60")
    assert len(pressed) == 11  # at most 20 were promised
    labels = read_records(run_dir / "journal.jsonl")[-1]
    given = dict(zip(labels["indices"], labels["labels"], strict=True))
    assert given == {10 + n: 4 if n == 14 else n % 6 for n in range(60)}


def test_a_grid_is_taken_back_at_once_and_a_row_of_it_alone(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run", num_rows=6)
    page = browse(serve(run_dir))
    shows(page, "Row 1 of 6: index 10", "0 of 6")
    page.get_by_role("button", name="Grid").click()
    tile = page.get_by_role("button", name="index 13")
    tile.click()
    expect(tile).to_have_attribute("aria-pressed", "false")
    tile.click()
    page.get_by_role("button", name="2 are cat").click()
    expect(page.locator("#grid-title")).to_have_text("2 of 2 that look like: dog")
    page.get_by_role("button", name="Undo").click()
    shows(page, "Row 1 of 6: index 10", "0 of 6")
    press(page, "g", "Enter")
    page.keyboard.press("Escape")
    press(page, "l")
    page.get_by_role("button", name="Take back index 13").click()
    shows(page, "Row 4 of 6: index 13", "1 of 6 rows answered, 1 by you")
    expect(page.locator("#guess")).to_contain_text("cat")


@pytest.mark.slow
def test_two_hundred_answers_at_twenty_keys_a_second(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run", num_rows=200)
    page = browse(serve(run_dir))
    shows(page, "Row 1 of 200: index 10", "0 of 200")
    page.evaluate(PRESS, [200, 50])
    shows(page, "Every row has an answer", "200 of 200 rows answered, 200 by you")
    given = pairs(run_dir)
    assert given == [(10 + n, {"label": n % 3}) for n in range(200)]


def test_keys_that_come_while_an_answer_is_on_its_way_wait(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run", num_rows=5)
    page = browse(serve(run_dir))
    shows(page, "Row 1 of 5: index 10", "0 of 5")

    delays = iter([2000])  # of the first answer

    def slowly(route):
        page.wait_for_timeout(next(delays, 0))
        route.continue_()

    page.route("**/answer", slowly)
    page.evaluate(
        """() => { for (const key of ["1", "2", "3", "s", "1", "Enter", "Enter"])
          document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true})); }"""
    )
    expect(page.get_by_text("Keeping your answer ... 6 keys wait.")).to_be_visible()
    shows(
        page, "Every row has an answer", "5 of 5"
    )  # and Enter, which was for a row, closed nothing
    expected = [{"label": 0}, {"label": 1}, {"label": 2}, "skip", {"label": 0}]
    assert [answer for _, answer in pairs(run_dir)] == expected
    page.wait_for_timeout(300)
    assert read_records(run_dir / "journal.jsonl")[-1]["event"] == "answers"


CIFAR_100 = """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge
bus butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab
crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout
tulip turtle wardrobe whale willow_tree wolf woman worm"""
"""The hundred classes of CIFAR-100."""


@pytest.mark.slow
@pytest.mark.parametrize("classes", [CIFAR_100.split(), [f"class {n:02}" for n in range(100)]])
def test_one_of_a_hundred_classes_takes_few_keys(tmp_path, serve, browse, classes):
    run_dir = write_run(tmp_path / "run", num_rows=100, classes=tuple(classes))
    page = browse(serve(run_dir))
    page.get_by_role("heading", level=2).wait_for()
    page.keyboard.press("H")  # without the model's help
    first = page.locator("#classes button:not([hidden]) span").first
    total = 0
    for number, name in enumerate(classes):
        shows(page, f"Row {number + 1} of 100: index {10 + number}", f"{number} of 100")
        digit = page.locator("#classes button[aria-keyshortcuts]", has_text=name).first
        if number < 10:
            total += 1
            page.keyboard.press(digit.get_attribute("aria-keyshortcuts"))
            continue
        typed = f"/{name.split()[1]}" if name.startswith("class ") else name
        for letter in typed:
            page.keyboard.press(letter)
            total += 1
            if page.locator("#search").input_value() and first.text_content() == name:
                break
        page.keyboard.press("Enter")
        total += 1
    shows(page, "Every row has an answer", "100 of 100")
    assert [answer["label"] for _, answer in pairs(run_dir)] == list(range(100))
    print(f"{total / len(classes)} keys a row")  # pytest -m slow -s shows it
    assert total / len(classes) <= 4


def test_the_classes_that_are_used_most_come_first(tmp_path, serve, browse):
    classes = tuple(f"kind {n}" for n in range(12))
    run_dir = write_run(tmp_path / "run", num_rows=5, classes=classes)
    page = browse(serve(run_dir))
    shows(page, "Row 1 of 5: index 10", "0 of 5")
    for _ in range(2):
        page.keyboard.press("/")
        page.keyboard.type("11")
        press(page, "Enter")
    page.reload()
    shows(page, "Row 3 of 5: index 12", "2 of 5")
    expect(page.locator("#classes button").first).to_have_text("kind 111")  # its key is 1
    press(page, "1")
    assert [answer["label"] for _, answer in pairs(run_dir)] == [11, 11, 11]
    page.keyboard.type("kind 3")
    page.keyboard.press("Escape")
    expect(page.locator("#search")).to_have_value("")
    press(page, "S")  # commands need Shift, because letters search
    assert pairs(run_dir)[-1][1] == "skip"


def test_keys_of_ones_own(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run")
    page = browse(serve(run_dir))
    shows(page, "Row 1 of 5: index 10", "0 of 5")
    press(page, "?")
    page.get_by_label("dog").fill("d")
    page.get_by_label("elk").fill("s")
    invalid = "e => e.validationMessage"
    assert page.get_by_label("elk").evaluate(invalid) == "s is the key of Skip"
    page.keyboard.press("Escape")
    shows(page, "Row 1 of 5: index 10", "0 of 5")
    press(page, "d", "1", "s")
    page.reload()
    shows(page, "Row 4 of 5: index 13", "3 of 5")
    press(page, "d")
    expected = [{"label": 1}, {"label": 0}, "skip", {"label": 1}]
    assert [answer for _, answer in pairs(run_dir)] == expected


def test_the_guess_is_taken_with_one_key_or_hidden(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run")
    page = browse(serve(run_dir))
    shows(page, "Row 1 of 5: index 10", "0 of 5")
    press(page, "a", "a")
    assert pairs(run_dir) == [(10, {"label": 0}), (11, {"label": 1})]
    press(page, "h")
    expect(page.locator("#guess")).to_be_empty()
    page.keyboard.press("a")
    page.keyboard.press("g")
    page.reload()
    shows(page, "Row 3 of 5: index 12", "2 of 5")
    expect(page.locator("#guess")).to_be_empty()


# ---- answers one can find again ------------------------------------------------------------------


def test_answers_are_found_opened_and_corrected(tmp_path, serve, browse):
    names = ["sea/a.png", "sea/b.png", "land/c.png", "land/d.png", "land/e.png"]
    run_dir = write_run(tmp_path / "run", names=names)
    page = browse(serve(run_dir))
    press(page, "1", "2", "3")
    page.get_by_role("button", name="Answers").click()
    lines = page.locator("#answers-rows tr")
    expect(lines).to_have_count(3)
    page.get_by_label("Name, class or person").fill("sea")
    expect(lines).to_have_count(2)
    page.get_by_label("Name, class or person").fill("dog")
    expect(lines).to_have_count(1)
    page.get_by_role("button", name="Open sea/b.png").click()
    shows(page, "Row 2 of 5: sea/b.png", "3 of 5")
    expect(page.get_by_text("You answered: dog. Another answer replaces it.")).to_be_visible()
    press(page, "1")
    shows(page, "Row 4 of 5: land/d.png", "3 of 5 rows answered, 3 by you")
    assert pairs(run_dir)[-1] == (11, {"label": 0})
    assert OpenQuery(Journal(run_dir / "journal.jsonl")).rows[11].answer == 0


def test_rows_on_which_people_differ_stand_side_by_side(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run")
    query = OpenQuery(Journal(run_dir / "journal.jsonl"))
    query.answer({10: 0, 11: 1, 12: 2}, by="ann", how="page")
    query.answer({10: 0, 11: 2}, by="ben", how="page")
    page = browse(serve(run_dir))
    page.get_by_role("button", name="Answers").click()
    page.get_by_label("Show").select_option(label="where people differ")
    line = page.locator("#answers-rows tr")
    expect(line).to_have_count(1)
    assert line.locator(".opinion").all_text_contents() == ["ann: dog", "ben: elk"]
    expect(line).to_contain_text("people differ")
    page.get_by_role("button", name="Open index 11").click()
    expect(page.get_by_text("What you choose now holds.")).to_be_visible()
    press(page, "2")
    expect(page.locator("#result")).to_have_text("Kept for row 2: dog.")
    assert OpenQuery(Journal(run_dir / "journal.jsonl")).rows[11].answer == 1


# ---- several tabs --------------------------------------------------------------------------------


def test_each_tab_of_a_person_says_that_the_other_is_there(tmp_path, serve, browse):
    address = serve(write_run(tmp_path / "run"))
    page = browse(address)
    shows(page, "Row 1 of 5: index 10", "0 of 5")
    expect(page.locator("#tabs")).to_be_empty()
    other = page.context.new_page()
    other.goto(address.partition("?")[0])
    expect(other.locator("#tabs")).to_contain_text("open in 2 tabs")
    expect(page.locator("#tabs")).to_contain_text("open in 2 tabs", timeout=10_000)
    assert "Row 1 of 5" in page.locator("#row-title").text_content()  # under her hands


# ---- any kind of row -----------------------------------------------------------------------------


def describe(run_dir, rows):
    lines = [json.dumps({"index": index, "parts": parts}) for index, parts in rows.items()]
    (run_dir / "queries" / "cycle_1" / "rows.jsonl").write_text("\n".join(lines))


def write_sound(path):
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))


def test_texts_tables_sounds_and_what_went_wrong(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run", pictures=False)
    write_sound(tmp_path / "a.wav")
    rows = {
        10: [{"kind": "text", "text": "<b>not\u202e bold</b>\nsecond line"}],
        11: [{"kind": "table", "cells": [["age", "42"], ["name", "Ann"]]}],
        12: [{"kind": "audio", "file": str(tmp_path / "a.wav")}],
        13: [{"kind": "problem", "text": "describe(13) failed: KeyError: 'x'"}],
    }
    describe(run_dir, rows)
    page = browse(serve(run_dir))
    parts = page.locator("#parts")
    expect(parts).to_have_text("<b>not<U+202E> bold</b>\nsecond line", use_inner_text=True)
    expect(page.locator("#picture")).to_be_hidden()
    press(page, "1")
    expect(parts.get_by_role("row", name="age 42")).to_be_visible()
    press(page, "1")
    sound = parts.locator("audio")
    expect(sound).to_have_js_property("duration", 1)
    press(page, "1")
    expect(parts).to_have_text("describe(13) failed: KeyError: 'x'")
    press(page, "2")
    assert len(pairs(run_dir)) == 4


# ---- seeing --------------------------------------------------------------------------------------


def scale_of(page):
    matrix = page.locator("#picture img").evaluate("e => getComputedStyle(e).transform")
    return 1.0 if matrix == "none" else float(matrix.partition("(")[2].split(",")[0])


def test_a_picture_is_zoomed_and_moved(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run")
    page = browse(serve(run_dir))
    shows(page, "Row 1 of 5: index 10", "0 of 5")
    box = page.locator("#picture").bounding_box()
    assert box["height"] > 380  # of 800: what is free
    page.keyboard.press("+")
    assert scale_of(page) == pytest.approx(1.5)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -100)
    page.wait_for_function(
        "document.querySelector('#picture img').style.transform.includes('2.25')"
    )
    before = page.locator("#picture img").evaluate("e => e.style.transform")
    page.keyboard.press("ArrowLeft")
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 60, steps=3)
    page.mouse.up()
    assert page.locator("#picture img").evaluate("e => e.style.transform") != before
    page.keyboard.press("f")
    assert scale_of(page) == 1
    for _ in range(3):
        page.keyboard.press("-")
    assert scale_of(page) == 1
    page.keyboard.press("+")
    press(page, "1")  # the next picture is seen as a whole
    assert scale_of(page) == 1


def test_two_fingers_zoom(tmp_path, serve, browse):
    page = browse(serve(write_run(tmp_path / "run")), PHONE, has_touch=True, is_mobile=True)
    shows(page, "Row 1 of 5: index 10", "0 of 5")
    box = page.locator("#picture").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    cdp = page.context.new_cdp_session(page)

    def touch(kind, apart):
        points = [] if apart is None else [{"x": x - apart, "y": y}, {"x": x + apart, "y": y}]
        cdp.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 20)
    for apart in (30, 40, 60):
        touch("touchMove", apart)
    touch("touchEnd", None)
    assert scale_of(page) > 1.5


def test_the_original_comes_on_demand(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run")
    Image.new("RGB", (3000, 2000), "red").save(tmp_path / "big.jpg")
    part = {"kind": "picture", "file": "images/10.png", "original": str(tmp_path / "big.jpg")}
    describe(run_dir, {10: [part]})
    page = browse(serve(run_dir))
    picture = page.get_by_role("img")
    expect(picture).to_have_attribute("src", "/images/10")
    page.keyboard.press("o")
    expect(picture).to_have_attribute("src", "/originals/10")
    expect(picture).to_have_js_property("naturalWidth", 3000)
    page.keyboard.press("o")
    expect(picture).to_have_attribute("src", "/images/10")
    press(page, "1")
    expect(page.get_by_role("button", name="Original")).to_have_count(0)


# ---- one tab, many queries -----------------------------------------------------------------------


def ask(run_dir, cycle, indices):
    """Train a cycle and ask, as a process that goes on with the run does."""
    journal = Journal(run_dir / "journal.jsonl")
    journal.append("fit", cycle=cycle, num_labeled=6, metrics={"train_loss": 0.5}, seconds={})
    journal.append("test", cycle=cycle, metrics={"test_acc": 0.75}, seconds={})
    fields = {"scores": None, "predicted": None, "names": None}
    journal.append("query", cycle=cycle, indices=indices, **fields)


def test_the_next_query_comes_in_the_same_tab(tmp_path, serve, browse):
    run_dir = write_run(tmp_path / "run", num_rows=1)
    page = browse(serve(run_dir))
    press(page, "1")
    query = OpenQuery(Journal(run_dir / "journal.jsonl"))
    query.finish(how="run")  # by a process that was resumed
    expect(page.get_by_role("heading", name="The query is closed")).to_be_visible(timeout=10_000)
    ask(run_dir, 2, [40, 41])
    shows(page, "Row 1 of 2: index 40", "0 of 2 rows answered, 0 by you")
    expect(page.get_by_role("heading", level=1, name="Labeling, cycle 2")).to_be_visible()
    press(page, "2")
    page.get_by_role("button", name="Answers").click()
    expect(page.locator("#answers-rows tr")).to_have_count(2)
    page.get_by_role("button", name="Open index 10").click()  # of the query before
    page.keyboard.press("3")  # waits until the row is there
    expect(page.locator("#result")).to_have_text("Kept for the row with index 10: elk.")
    assert pairs(run_dir)[1:] == [(40, {"label": 1}), (10, {"label": 2})]
