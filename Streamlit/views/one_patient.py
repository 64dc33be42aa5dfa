"""one_patient."""

import streamlit as st

st.title("one patient")
