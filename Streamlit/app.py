"""The demo: which pages there are. `make app` starts it."""

import streamlit as st
from common import show_footer

st.set_page_config(page_title="Melanoma classification", page_icon=":material/dermatology:", layout="centered")
page = st.navigation([
    st.Page("pages/one_lesion.py", title="One lesion", icon=":material/center_focus_strong:", default=True),
    st.Page("pages/one_patient.py", title="One patient", icon=":material/person:"),
    st.Page("pages/explore.py", title="Explore", icon=":material/bar_chart:"),
    st.Page("pages/model.py", title="Model", icon=":material/fact_check:"),
    st.Page("pages/about.py", title="About", icon=":material/info:"),
])
page.run()
show_footer()
