"""What this is, where it comes from, what it can't do."""

import streamlit as st

st.title("About", anchor=False)
st.markdown("""
This app shows what a small neural network makes of dermoscopy pictures, and how far that can be trusted. It was
trained to tell melanomas from other lesions; it gives a probability, never a diagnosis.

#### What it is
- The shipped model is five MobileNetV2, each trained without one fifth of the patients; their mean is the answer. The
  page *Model* has its measured figures, and *Streamlit/model/README.md* its model card.
- A probability holds for people among whom so many lesions are melanomas as the sidebar says. The same picture means
  less in a screening of everybody than among lesions that a doctor has sent on.
- The thresholds were chosen to find 90, 95 or 98 of 100 melanomas among pictures of patients whom the models had not
  seen. There the answer is the mean of one model of each of two trainings, of which one counts three times and the
  other twice; here it is the mean of the five shipped ones of these trainings, which may find a few more or fewer.

#### What it is not
- **Not a medical device.** Nobody has tested it on patients. It must not decide about a person.
- **No reassurance.** It misses melanomas, and a low number never means that a lesion is harmless. Lesions that are new,
  change, bleed or itch, or look unlike the others go to a doctor, whatever a program says.
- It looks for melanoma alone. Basal cell carcinoma, squamous cell carcinoma and all other diseases are not what it was
  trained to find; it may call them anything.
- It knows pictures taken through a dermatoscope, mostly of light skin, from a few clinics, and next to none of palms,
  soles, nails and mucosa. Photographs taken without a dermatoscope get meaningless numbers.
- It does not notice several lesions in one picture: its number is one for all of it.
- Part of what it knows is where a picture came from, such as its dark or white rim, rather than the lesion.

#### Data and licences
- SIIM-ISIC 2020 (International Skin Imaging Collaboration, doi 10.34970/2020-ds01) and HAM10000 (Tschandl et al.,
  doi 10.7910/DVN/DBW86T): research data for non-commercial use, CC BY-NC 4.0. The shipped weights follow that licence.
- No picture of these collections is part of this app. The examples are drawn by a program.

#### What happens to what you upload
It is held in the memory of the computer that runs this app, and let go some minutes after you close the page. This
program writes none of it to a disk and none of it to a log, and it sends nothing anywhere; usage statistics are
switched off. While a larger file comes in, the web server keeps it in its temporary folder, which `make app` puts into
memory where it can. Of a DICOM
file the picture is read, and sex, age and site: on *One lesion* if you ask for them, on *One patient* always.
""")
