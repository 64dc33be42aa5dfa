import base64
import io
import os
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from melanoma_utils.report import update_report, write_report


@pytest.fixture
def notebook_path(tmp_path):
    """An executed notebook with prose, a printed line, a table and a chart."""
    png = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(png, "PNG")
    chart = new_output("display_data", {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": "Figure"})
    outputs = [new_output("stream", name="stdout", text="OOF AUC 0.9"), chart,
               new_output("execute_result", {"text/html": "<table><td>0.42</td></table>", "text/plain": "0.42"},
                          execution_count=1),
               new_output("display_data", {"text/markdown": "# Model card\n\n| a | b |\n| --- | --- |\n| c | d |",
                                           "text/plain": "Markdown"})]
    cells = [new_markdown_cell("# An evaluation"), new_markdown_cell("## Areas & curves\n\nA sentence."),
             new_code_cell("score = 'a < b'", outputs=outputs, execution_count=1)]
    nbformat.write(new_notebook(cells=cells), tmp_path / "04.ipynb")
    return tmp_path / "04.ipynb"


def test_it_is_one_file_with_folded_code_and_nothing_to_fetch(notebook_path, tmp_path):
    write_report(notebook_path, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"<script|<link|@import|<iframe|url\([\"']?(?!data:)\w", html)
    assert re.findall(r"<img[^>]+src=\"(.{15})", html) == ["data:image/png;"]
    assert "<title>An evaluation</title>" in html and 'alt="chart: Areas &amp; curves"' in html
    assert all(words in html for words in ("A sentence.", "OOF AUC 0.9", "<td>0.42</td>", "<td>c</td>"))
    assert "score" in html.partition("<details>")[2].partition("</details>")[0] and html.count("score") == 1
    assert "<details open" not in html and "In&nbsp;[" not in html and "¶" not in html


def test_it_is_made_where_it_is_missing_or_older_and_else_kept(notebook_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report_path = tmp_path / "report.html"
    assert update_report(notebook_path, report_path) == "report.html: the evaluation, to be read in a browser"
    report_path.write_text("as it was")
    assert update_report(notebook_path, report_path) and report_path.read_text() == "as it was"
    os.utime(notebook_path, ns=(report_path.stat().st_mtime_ns + 1,) * 2)
    assert update_report(notebook_path, report_path) and "A sentence." in report_path.read_text(encoding="utf-8")
    notebook_path.unlink()
    assert update_report(notebook_path, report_path).startswith("report.html: ")
    report_path.unlink()
    gone = "no report: 04.ipynb is gone; its step run with --fresh makes it again"
    assert update_report(notebook_path, report_path) == gone


def test_a_damaged_notebook_is_named(notebook_path, tmp_path):
    notebook_path.write_bytes(notebook_path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"04\.ipynb is damaged"):
        write_report(notebook_path, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
