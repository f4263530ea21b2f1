"""Classes of FER2013, FER+ and CK+, and how many rows each is known to have."""

import types

# In the order of the numbers 0-6 in the column `emotion`.
FER2013_CLASSES = (
  "angry",
  "disgust",
  "fear",
  "happy",
  "sad",
  "surprise",
  "neutral",
)

# The column `Usage` -> the split. The challenge published the ranking on
# PublicTest while it ran and decided it on PrivateTest.
FER2013_SPLITS = types.MappingProxyType(
  {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}
)

# Split -> rows of each class, in the order of FER2013_CLASSES; 35,887 in all.
FER2013_COUNTS = types.MappingProxyType(
  {
    "train": (3995, 436, 4097, 7215, 4830, 3171, 4965),
    "validation": (467, 56, 496, 895, 653, 415, 607),
    "test": (491, 55, 528, 879, 594, 416, 626),
  }
)

# The columns of votes in fer2013new.csv, in its order: eight expressions, then
# unknown and no face.
FERPLUS_COLUMNS = (
  "neutral",
  "happiness",
  "surprise",
  "sadness",
  "anger",
  "disgust",
  "fear",
  "contempt",
  "unknown",
  "NF",
)

# Target and number of classes -> rows kept of train, validation and test, where
# they are known.
FERPLUS_COUNTS = types.MappingProxyType(
  {
    ("majority", 8): (25060, 3199, 3153),
    ("distribution", 8): (27956, 3505, 3505),
    ("majority", 10): (28709, 3589, 3589),
    ("distribution", 10): (28709, 3589, 3589),
    ("multi_target", 10): (28709, 3589, 3589),
  }
)

# The one row, from 0, that the published votes have nine votes on.
FERPLUS_SHORT_ROW = 10435

# Nouns and adjectives both name classes in the releases that go round.
_SYNONYMS = {
  "anger": "angry",
  "disgusted": "disgust",
  "fearful": "fear",
  "afraid": "fear",
  "happiness": "happy",
  "sadness": "sad",
  "surprised": "surprise",
}


def label_of_folder(name: str) -> int | None:
  """Returns the class number that a folder's name stands for, or None.

  By its name, never by its place: folders sorted by the alphabet come in
  another order than the labels (neutral before sad).

  >>> label_of_folder("Happy"), label_of_folder("anger"), label_of_folder("x")
  (3, 0, None)
  >>> label_of_folder("neutral")
  6
  """
  name = name.strip().lower()
  name = _SYNONYMS.get(name, name)
  return FER2013_CLASSES.index(name) if name in FER2013_CLASSES else None


# In the order of the numbers 1-7 in CK+'s Emotion files; their 0, neutral,
# labels no sequence, so the neutral class, where it is wanted, comes last.
CKPLUS_CLASSES = (
  "anger",
  "contempt",
  "disgust",
  "fear",
  "happy",
  "sadness",
  "surprise",
  "neutral",
)

# Labelled sequences of each class but neutral; 327 in all, of 118 subjects
# (Lucey et al. 2010).
CKPLUS_COUNTS = (45, 18, 59, 25, 69, 28, 83)

# The column `emotion` of ckextended.csv -> the place in CKPLUS_CLASSES.
CKEXTENDED_LABELS = (0, 2, 3, 4, 5, 6, 7, 1)
# Its neutral rows: one of each of CK+'s 593 sequences, labelled or not.
CKEXTENDED_NEUTRAL = 593
