"""An executed notebook as one HTML file that a colleague can read in a browser."""

import importlib
import os
from pathlib import Path

import nbformat

from melanoma_utils.files import write_bytes

# nbconvert's own page with its code folded and without its scripts, which would be fetched from elsewhere.
TEMPLATE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}
<style>
main { max-width: 62rem; margin: 0 auto; padding: 1rem; }
details > summary { cursor: pointer; color: #666; font: 0.8rem sans-serif; }
.jp-OutputArea-output { overflow-x: auto; }
.jp-RenderedHTMLCommon td, .jp-RenderedHTMLCommon th { overflow-wrap: break-word; white-space: normal; }
img { max-width: 100%; height: auto; }
</style>
{%- endblock -%}
{%- block input -%}<details><summary>code</summary>{{ super() }}</details>{%- endblock -%}
{%- block data_png scoped -%}
{%- set png = output.data['image/png'] | escape_html -%}
<img alt="{{ output.metadata.alt | escape_html }}" src="data:image/png;base64,{{ png }}">
{%- endblock -%}
"""


def update_report(notebook_path: str | Path, report_path: str | Path) -> str:
    """Returns a line that tells where the report is; writes it where it is missing, or older than the notebook.

    Raises:
        OSError: the file can't be written.
        ValueError: the notebook is damaged.
    """
    notebook_path, report_path = Path(notebook_path), Path(report_path)
    if notebook_path.is_file():
        if not report_path.is_file() or report_path.stat().st_mtime_ns < notebook_path.stat().st_mtime_ns:
            write_report(notebook_path, report_path)
    elif not report_path.is_file():
        return f"no report: {os.path.relpath(notebook_path)} is gone; its step run with --fresh makes it again"
    return f"{os.path.relpath(report_path)}: the evaluation, to be read in a browser"


def write_report(notebook_path: str | Path, report_path: str | Path) -> None:
    """Writes an executed notebook as one HTML file: code folded, charts inside, no script, nothing fetched.

    A chart is described, to those who can't see it, by the heading that it stands under.

    Raises:
        FileNotFoundError: there is no such notebook.
        OSError: the file can't be written.
        ValueError: the notebook is damaged.
    """
    try:
        notebook = nbformat.read(notebook_path, as_version=4)
    except nbformat.reader.NotJSONError as error:
        raise ValueError(f"{notebook_path} is damaged ({error}): run its step again with --fresh") from error
    title = heading = Path(notebook_path).stem
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("#"):
            heading = cell.source.splitlines()[0].strip("# ")
            title = heading if cell.source.startswith("# ") else title
        for output in cell.get("outputs", ()):
            if "data" in output:
                output.setdefault("metadata", {})["alt"] = f"chart: {heading}"
    nbconvert = importlib.import_module("nbconvert")  # seconds that other calls need not wait
    exporter = nbconvert.HTMLExporter(raw_template=TEMPLATE, exclude_input_prompt=True, exclude_output_prompt=True,
                                      exclude_anchor_links=True)
    html, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title}})
    write_bytes(report_path, html.encode())
