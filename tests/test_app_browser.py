"""The app in a real browser, Debian's Chromium: files go in, numbers come out, on a desk and on a phone."""

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import psutil
import pytest
from conftest import ROOT
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from melanoma_utils.dicom import write_dicom
from melanoma_utils.drawing import draw_image

CHROMIUM = shutil.which("chromium")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")
WAIT = 120_000  # milliseconds; a busy machine needs some
LATENT = {"draw_seed": 5, "atypia": 1.0, "pigment": 0.3, "skin": 0.0, "hue": 0.0, "pattern": 0.5, "mole_size": 1.0,
          "copy_of": ""}
ROW = {"image_name": "ISIC_HIDDEN", "sex": "female", "age_approx": 70.0, "anatom_site_general_challenge": "torso"}
NUMBER = re.compile(r"\d\s%")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def jpeg():
    """A drawn lesion of 600 x 450 pixels or so."""
    buffer = io.BytesIO()
    Image.fromarray(draw_image(LATENT, 600)[0]).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The running app: its address, its process, its log, its TMPDIR."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "tmp").mkdir()
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"TMPDIR": str(folder / "tmp"), "MELANOMA_OUTPUT_DIR": str(folder / "output")}
    with open(folder / "log.txt", "w") as log:
        process = subprocess.Popen([sys.executable, "-m", "streamlit", "run", "Streamlit/app.py", "--server.port",
                                    str(port), "--server.headless", "true"], cwd=ROOT, env=environment, stdout=log,
                                   stderr=subprocess.STDOUT)
    yield f"http://localhost:{port}", process, folder / "log.txt", folder / "tmp"
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, server):
    """Opens a visitor's page at a width in pixels and a path; each is another visitor."""
    contexts = []

    def open_at(width=1280, path="", height=900):
        contexts.append(browser.new_context(viewport={"width": width, "height": height}))
        page = contexts[-1].new_page()
        page.set_default_timeout(WAIT)
        deadline = time.monotonic() + WAIT / 1000
        while True:
            try:
                page.goto(server[0] + path)
                return page
            except Exception:  # the server is not there yet
                if time.monotonic() > deadline:
                    raise
                page.wait_for_timeout(200)

    yield open_at
    for context in contexts:
        context.close()


def upload(page, name, content):
    page.locator("input[type=file]").first.set_input_files({"name": name, "mimeType": "image/jpeg", "buffer": content})


def read_number(page, name):
    """Returns the probability of a file, as text, once its page is whole."""
    see_caption(page, name)
    wait_until_idle(page)
    metric = page.get_by_test_id("stMetricValue").first
    expect(metric).to_have_text(NUMBER, timeout=WAIT)
    return metric.inner_text()


def see(page, text):
    expect(page.get_by_text(text).first).to_be_visible(timeout=WAIT)


def see_caption(page, text):
    """Waits for a text below the picture; the uploader shows a file's name as soon as it is chosen."""
    expect(page.get_by_test_id("stCaptionContainer").filter(has_text=text)).to_be_visible(timeout=WAIT)


def wait_until_idle(page):
    expect(page.locator("[data-testid=stApp][data-test-script-state=notRunning]")).to_be_visible(timeout=WAIT)


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_the_first_visitor_of_any_address_sees_the_line_at_the_foot(open_page):
    page = open_page(path="/about")
    see(page, "not a medical device")
    see(page, "SIIM-ISIC 2020")
    expect(page.get_by_text("One lesion").first).to_be_visible()


def test_jpeg_dicom_broken_file(open_page, server, jpeg, tmp_path):
    page = open_page()
    see(page, "Melanomas to be found, of 100")
    upload(page, "mine_7131.jpg", jpeg)
    number = read_number(page, "mine_7131.jpg")
    write_dicom(tmp_path / "x.dcm", jpeg, ROW)
    upload(page, "mine_7132.dcm", (tmp_path / "x.dcm").read_bytes())
    assert read_number(page, "mine_7132.dcm") == number  # the same picture, nobody has asked for its header
    expect(page.get_by_text("HIDDEN")).to_have_count(0)
    upload(page, "mine_7133.jpg", jpeg[:3000])
    see(page, "can't be decoded")
    expect(page.get_by_text("Traceback")).to_have_count(0)
    upload(page, "mine_7134.jpg", jpeg)
    assert read_number(page, "mine_7134.jpg") == number
    assert "mine_71" not in server[2].read_text() and "HIDDEN" not in server[2].read_text()
    assert not [path for path in server[3].rglob("*") if path.is_file()]


def test_the_threshold_moves_by_keyboard(open_page):
    page = open_page()
    page.get_by_role("button", name="drawn lesion 2").click()
    read_number(page, "Drawn by this program")
    found = page.get_by_test_id("stMetricValue").nth(1)
    before = found.inner_text()
    page.get_by_role("radio", name="95").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("radio", name="90")).to_be_checked(timeout=WAIT)
    expect(found).not_to_have_text(before, timeout=WAIT)


def test_two_visitors_get_their_own_numbers(open_page, jpeg):
    pages = [open_page(), open_page()]
    pages[0].get_by_role("button", name="drawn lesion 3").click()
    upload(pages[1], "other.jpg", jpeg)
    numbers = [read_number(pages[0], "Drawn by this program"), read_number(pages[1], "other.jpg")]
    assert numbers[0] != numbers[1]
    expect(pages[0].get_by_text("other.jpg")).to_have_count(0)
    upload(pages[0], "other.jpg", jpeg)
    assert read_number(pages[0], "other.jpg") == numbers[1]


def test_a_patients_report_comes_down(open_page, jpeg, tmp_path):
    page = open_page(path="/one_patient")
    see(page, "Melanomas to be found, of 100")
    files = []
    for name, atypia in (("left_arm", -1.5), ("back", 3.0)):
        files.append(tmp_path / f"{name}.jpg")
        Image.fromarray(draw_image(LATENT | {"atypia": atypia}, 600)[0]).save(files[-1], "JPEG")
    page.locator("input[type=file]").first.set_input_files(files)
    button = page.get_by_role("button", name="A report to print (HTML)")
    expect(button).to_be_visible(timeout=WAIT)
    wait_until_idle(page)
    with page.expect_download(timeout=WAIT) as download:
        button.click()
    report = Path(download.value.path()).read_text()
    assert "left_arm" in report and "back" in report and "not a medical device" in report.lower()
    assert NUMBER.search(report)


def test_a_zip_may_be_larger_than_a_picture(open_page, jpeg, tmp_path):
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as file:
        file.writestr("one.jpg", jpeg)
        file.writestr("notes.txt", bytes(60 * 2**20))
    page = open_page(path="/one_patient")
    page.locator("input[type=file]").first.set_input_files(tmp_path / "pictures.zip")
    see(page, "This is one picture")


@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_a_phone_and_a_desk(open_page, width):
    page = open_page(width, height=2600)
    page.get_by_role("button", name="drawn lesion 3").click()
    read_number(page, "Drawn by this program")
    assert fits(page)
    page.get_by_text("Show what speaks for melanoma").click()
    see_caption(page, "Yellow speaks most")
    wait_until_idle(page)
    assert fits(page)
    picture = page.screenshot(path=os.environ.get("MELANOMA_SCREENSHOTS") and
                              f"{os.environ['MELANOMA_SCREENSHOTS']}/one_lesion_{width}.png")
    assert len(set(Image.open(io.BytesIO(picture)).convert("RGB").resize((64, 64)).get_flattened_data())) > 50


@pytest.mark.slow
def test_memory_does_not_grow_with_uploads(open_page, server, jpeg, capsys):
    """24 megapixels a picture, 72 MB; ten more leave the server with at most 50 MB above what it held before."""
    page, process, resident, seconds = open_page(), psutil.Process(server[1].pid), [], []
    see(page, "Melanomas to be found, of 100")
    small = Image.open(io.BytesIO(jpeg))
    for i in range(20):
        buffer = io.BytesIO()
        part = small.crop((i, i, small.width - 20 + i, small.height - 20 + i))
        part.resize((6000, 4000)).save(buffer, "JPEG", quality=92)
        start = time.monotonic()
        upload(page, f"photo_{i:02}.jpg", buffer.getvalue())
        see_caption(page, f"photo_{i:02}.jpg")
        expect(page.get_by_test_id("stMetricValue").first).to_be_visible(timeout=WAIT)
        seconds.append(time.monotonic() - start)
        read_number(page, f"photo_{i:02}.jpg")
        resident.append(process.memory_info().rss / 2**20)
    with capsys.disabled():  # to stderr: what goes to stdout is lost where tests run side by side
        print(f"\nserver's memory after uploads, MB: {' '.join(f'{x:.0f}' for x in resident)}; upload to number, s: "
              f"median {sorted(seconds)[10]:.2f}, last {seconds[-1]:.2f}; {len(buffer.getvalue()) / 2**20:.1f} MB each",
              file=sys.stderr)
    assert max(resident[10:]) - max(resident[:10]) <= 50  # within the first ten pools of memory fill up, by 80 at times
