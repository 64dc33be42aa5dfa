"""one_lesion."""

import streamlit as st

st.title("one lesion")
