"""The app: which pages there are. `make app` starts it."""

import sys
import traceback

import streamlit as st
from common import draw_icon, keep_settings, show_footer

st.set_page_config(page_title="Melanoma classification", layout="centered")
page = st.navigation([  # in a folder of another name than "pages", which Streamlit would take for pages by itself
    st.Page("views/one_lesion.py", title="One lesion", icon=":material/center_focus_strong:", default=True),
    st.Page("views/one_patient.py", title="One patient", icon=":material/person:"),
    st.Page("views/explore.py", title="Explore", icon=":material/bar_chart:"),
    st.Page("views/model.py", title="Model", icon=":material/fact_check:"),
    st.Page("views/about.py", title="About", icon=":material/info:"),
])
st.set_page_config(page_icon=draw_icon())  # or the browser fetches the page's own from Google for its tab
keep_settings()
body = st.container()  # above the footer, which is there even where a page stops
show_footer()
try:
    with body:
        page.run()
except Exception as error:  # whatever nobody thought of: the person gets a sentence, the log where it happened
    print(f"{type(error).__name__} at", *traceback.format_tb(error.__traceback__), file=sys.stderr)  # not its words
    body.error("Something went wrong in this app, not by your doing. Nothing of what you uploaded was kept. Reload the "
               "page and try once more.")
