"""The prose of a model card, with places for what a run tells."""

# Headings: Mitchell et al. 2019, doi 10.1145/3287560.3287596. Items: Collins et al. 2024, doi 10.1136/bmj-2023-078378.
CARD = """# Model card: {experiment}{title_end}

{banner}**Not a medical device.** It must not decide about a person. **Low is not benign:** the score is about melanoma
and nothing else. A suspicious or changing lesion goes to a doctor, whatever the number.

{n_models} networks (`{arch}`, {image_size} px), one a fold of the training data; their mean logit ranks pictures of
skin lesions by how much they look like a melanoma. Developed and, out of fold, evaluated on {n_images:,} images of
{n_patients:,} patients, {n_melanomas:,} of them melanomas ({source}): **ROC AUC {oof_auc:.3f}** (95 % interval
{oof_auc_low:.3f}–{oof_auc_high:.3f}, patients resampled).{external}{unfinished}

`04_evaluate_oof` writes this card from the run's own files. Its headings are those of Mitchell et al. 2019 (doi
10.1145/3287560.3287596); where the items of TRIPOD+AI (Collins et al. 2024, doi 10.1136/bmj-2023-078378) are, and which
are missing, is said at the end.

## Model details

- **Kind.** The backbone `{arch}` and one linear layer, to a logit{metadata_kind}. {n_models} of them, each trained
  without one fold, from {start}.
- **Input.** One {picture} ({resize_mode} to {image_size}×{image_size} pixels{clean_steps}){metadata_input}.
  It was trained to judge nothing else: photographs without a dermoscope, other organs and drawings get meaningless
  numbers, and no warning from the networks.
- **Output.** The mean logit of the networks and of {tta_views} flips and turns of the picture. It ranks; by itself it
  is no probability for the people you see. `calibration.json`, fitted out of fold, makes one of it for a share of
  melanomas that you give. No threshold is built in; `operating_points.csv` has some.
- **Version and date.** The checksums under "Evaluation data" say which data and folds this is. No date is written, so
  that two equal runs leave equal files. By whom and with what funding: a run does not know.
- **Evaluated with** {packages}.
- **Licence.** {licence}
- **Parameters.** {parameters}

## Intended use

- **For** {uses}
- **By** people who have read this card. No study of people using the score exists.
- **Not for** deciding about a person: no diagnosis, no triage, no all-clear, no screening, no search on one's own skin.
  Not for pictures of another kind than those above.
- **In care** it would be a diagnostic aid, beside a doctor who looks at the lesion and its patient. No place in care
  has been studied.

## Factors

Looked at below: sex, age, site, size of the image file, skin tone. Sex, age and site are the table's. The skin tone is
a proxy, the ITA angle of the picture's border: it changes with light and camera, and is no skin type. The tables know
neither skin type nor origin, device nor clinic, so nothing can be said about them.

**What the data hardly hold.** About these lesions the figures below say little or nothing, and the score is not to be
relied on:

{rare}

**Other cancers.** A melanoma score says nothing about basal cell carcinoma, actinic keratosis, squamous cell carcinoma
or any other cancer. In training they count as "not melanoma": the networks are taught to give them a low score.
{other_cancers} **Low is not benign.**

## Metrics

ROC AUC: how often a melanoma ranks above a benign lesion, however many melanomas there are. PR AUC and the area above
80 % sensitivity look where it matters more. At thresholds that find given shares of the melanomas: what is spared,
missed and called suspicious. Brier score and calibration error (ECE): whether told probabilities come true. All are
out of fold: each image is scored by {scored_by} seen no image of its fold. The intervals are 95 % percentile
intervals over {n_resamples}resamples of whole patients (external images: of lesions), because images of one patient are
not independent. A group with fewer than 20 melanomas, or benign images, gets the words "too few" instead of a number.

## Evaluation data

{source}: {n_images:,} images of {n_patients:,} patients, {n_melanomas:,} melanomas ({share:.1%}), in {n_folds} folds.
{leak} {duplicates} All images were decoded, made square ({resize_mode})
and resized alike. No image is left out for a missing sex, age or site. No sample size was
calculated: these are the images there were. They are those that the networks were developed on: the evaluation is
internal.{external_data}

{provenance}

{checksums}

## Training data

The same images, each network without its own fold{extra_training}.{gap}Their diagnoses in `folds.csv`:

{training}

## Quantitative analyses

{loud}### Discrimination

{areas}

{folds}

Mean of the folds {fold_auc_mean:.3f}{fold_sd}.

### Operating points at a share of melanomas of {prevalence:.2%}

Sensitivity and specificity are the data's; what follows from them for people is weighted to that share (Bayes' rule).

{points}

### Calibration, before and after

Stored in `calibration.json`: {method}. Each image is calibrated here by a curve fitted on other patients' images;
"before" is the sigmoid of the logit.{why_not}

Among the images as they are ({share:.1%} melanomas):

{calibration}

Among people of whose lesions {prevalence:.2%} are melanomas:

{calibration_for_people}

### Subgroups, at one threshold for all (a logit of {subgroup_threshold:.3f})

{subgroups}

### What the patient's other images add

{context}
{diagnoses}{saliency}
## Ethical considerations

The pictures show people, most of whom have never heard of this model. It was not reviewed by an ethics committee as far
as the run knows, and no patients took part in making it; consent is the matter of those who published the data. A miss
can cost a life, a false alarm an operation: the tables above say how many of each to expect, where the data say
anything. Research collections are mostly of light skin, so whatever is good about the score is good for some people
first. Nothing was done in training to make it fairer; the subgroups show what came out. `oof_scores.csv` holds labels
and rounded scores in their order and says which are of one patient; it holds no names.

## Caveats and recommendations

- **The recipe was chosen on folds like these.** The project's parameter files come out of comparing a few dozen
  trainings on such folds of the same collections (`notebooks/README.md` lists what was tried, with intervals), and
  no image was kept aside for a last, untouched test. So the figures flatter a little, and the intervals do not know of
  it: another seed alone moves such a run by about 0.01. Thresholds are judged on the images that they were found on;
  the calibration is not.
- {measured}
- {origin}
- **Few melanomas or many.** {share:.1%} of these images are melanomas, 1.76 % of those of SIIM-ISIC 2020. Predictive
  values and probabilities hold for the share named with them, and only if melanomas and benign lesions look there as
  they do here.
- **Small groups.** They are looked at one by one: of many, one looks better or worse by chance, and what else differs
  between two groups can be the reason.
- **Before any use** measure it on your own pictures, patients and share of melanomas. Show the number with its
  interval, beside the picture, never instead of it. Do not ask about a picture that is blurred, dark or without a
  dermoscope, nor about anything under "What the data hardly hold".
- **Next** would be other clinics and cameras, dark skin, rare sites, and people who decide with and without it.

## Where the items of TRIPOD+AI are

| item | where |
| --- | --- |
| 1, 2 title, abstract | the top of this card: development and internal evaluation |
| 3a, 3b context, purpose, users | Intended use |
| 3c inequalities | Factors; Ethical considerations |
| 4 objectives | the top of this card |
| 5a, 6a, 6b sources, setting, eligibility | Evaluation data; more only from the data's publishers |
| 5b, 6c dates, treatments | missing: not known to the run |
| 7 preparation | Evaluation data |
| 8a–8c outcome, its assessment | `target` of the table; how it was found only from the data's publishers |
| 9a–9c predictors | Model details, Input |
| 10, 11 sample size, missing values | Evaluation data |
| 12a–12c use of the data, model building | Model details, Parameters; Evaluation data; Caveats |
| 12d, 23b differences between clusters | by fold, and by collection where there are two; no clinics are known |
| 12e measures | Metrics |
| 12f, 24 updating | Calibration, before and after |
| 12g, 22 predictions, the model itself | Model details; the weights beside this card, `melanoma_utils.predict` |
| 13 class imbalance | Training data; Calibration |
| 14 fairness | Ethical considerations |
| 15 output, thresholds | Model details, Output; Operating points |
| 16 training against evaluation | Training data |
| 17, 19 ethical approval, involvement of patients | Ethical considerations |
| 18a–18d funding, interests, protocol, registration | missing: not known to the run |
| 18e, 18f data, code | the data from their publishers; the code is the project that wrote this card |
| 20a–20c, 21 participants | Evaluation data; Training data; Subgroups |
| 23a performance with intervals, subgroups | Quantitative analyses |
| 25, 26 interpretation, limitations | Caveats and recommendations |
| 27a–27c poor input, users' part, next steps | Model details, Input; Intended use; Caveats and recommendations |
"""

REAL = {
    "title_end": "", "banner": "", "loud": "", "picture": "dermoscopy picture",
    "uses": "research, teaching, and showing what such a model can and cannot do; for comparing recipes.",
    "licence": """The weights follow the data that they were trained on. SIIM-ISIC 2020 (doi 10.34970/2020-ds01) and
  HAM10000 (doi 10.7910/DVN/DBW86T), for two, are CC BY-NC 4.0: research data for non-commercial use.""",
    "provenance": """Of SIIM-ISIC 2020 its publishers say: patients of clinics on three continents, melanomas confirmed
by histopathology, benign lesions that mimic them (Rotemberg et al. 2021, doi 10.1038/s41597-021-00815-z). Of HAM10000:
Tschandl et al. 2018, doi 10.1038/sdata.2018.161. A run knows the names of its data, not whether they are these.""",
    "origin": """**The data's frames give their origin away.** On 909 images of SIIM-ISIC 2020, and again on HAM10000,
  the rim of the picture alone, without a look at the lesion, tells melanomas with an AUC of 0.77 (`EDA/README.md`).
  Part of any AUC on such data comes from how the pictures were collected, and will not be there elsewhere. How the
  score does elsewhere nobody knows.""",
}
DRAWN = {
    "title_end": " — DRAWN PICTURES, NOT SKIN",
    "banner": """> **THIS MODEL HAS SEEN DRAWN PICTURES ONLY.** A program drew every image that it was trained and
> judged on. **No figure in this card says anything about skin, lesions or people.** It is there to try the pipeline.
> Never show it a person's lesion.

""",
    "loud": "**All figures here are about DRAWN pictures. They say nothing about skin.**\n\n",
    "picture": "drawn picture",
    "uses": "trying the pipeline, and for tests. Nothing else: it has seen drawings only.",
    "licence": """The pictures are drawn by this project; what the networks may have begun with has a licence of its
  own. (Real collections have one: SIIM-ISIC 2020 and HAM10000, for two, are CC BY-NC 4.0.)""",
    "provenance": """Drawn by `melanoma_utils.synthetic`: the truth is known because it was drawn, and the patients do
not exist. What this card says of people and care is what would have to be said of a real model.""",
    "origin": """**Drawn pictures have no origin to give away.** Real collections have: the rim of their pictures alone
  tells much (`EDA/README.md`).""",
}
RARE = """- acral melanoma: palms and soles, {acral}
- mucosal melanoma: oral and genital sites, {mucosal}
- nails: no column marks them; how many there are nobody knows
- amelanotic melanoma, without the pigment that dermoscopy looks at: no column marks it either
- dark skin: the tables do not say; by the proxy above, which dim light moves as well, {dark}
  (under "Subgroups", what the threshold finds and spares among them, where they are enough)"""
DIAGNOSES = """
### Not melanoma is not benign

How the score treats each diagnosis, out of fold, where it is known: the share that the threshold of the subgroups calls
suspicious. Of a cancer that is no melanoma there is no right share, only a low one that must not reassure.

{table}
"""
SALIENCY = """
### Where the evidence lies

Of drawn pictures it is known where the lesion is: {saliency_outside:.0%} of the saliency (Grad-CAM) lies outside it,
and {area_outside:.0%} of the area does.
"""
SINGLE = """**Single networks were measured, their mean is used.** Out of fold one network answers; a new picture
  gets the mean of {n_models}. It is usually a little better and spread a little less. It was not measured."""
COMMITTEE = """**More networks than these were measured.** Out of fold an image gets the mean logit of {n_models}
  networks, one of each training under "Training data" (as often as it is named for a fold), none of which has seen its
  fold; of all these the {n_models} here are kept, one a fold. So a new picture gets the mean over the same trainings,
  but of networks that have seen different parts of the data. What that changes was not measured."""
HALF = """**Half precision.** The weights in this folder are those described below, rounded to 16 bits: half the size,
and logits that differ a little from theirs (`14_stress_test` measures by how much, of one training at a time). The
figures are about the weights before that."""
